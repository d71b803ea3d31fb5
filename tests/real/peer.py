"""A pretrained model run by transformers alone: what it writes, and how sure it was of each token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass(frozen=True)
class Written:
    """A greedy continuation.

    Attributes:
        ids: its tokens, less an end token.
        ended: True if it ended with an end token.
        logits: of each step, the end token's included, those of the whole vocabulary.
        end_ids: the tokens that would have ended it.
    """

    ids: tuple[int, ...]
    ended: bool
    logits: tuple[torch.Tensor, ...]
    end_ids: tuple[int, ...]

    def gap(self, i_token: int, other: int) -> float:
        """How much likelier the token chosen at this place was than another, in logits."""
        logits = self.logits[i_token]
        return float(logits.max() - logits[other])


class Peer:
    """A model run by transformers alone, in float32. Remembers what it wrote.

    Args:
        folder: a folder as `save_pretrained` writes it.
    """

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ends = {self.model.generation_config.eos_token_id, self.tokenizer.eos_token_id}
        self.end_ids = tuple(sorted(ends - {None}))
        self._written: dict[tuple[tuple[int, ...], int], Written] = {}

    def write(self, prompt: tuple[int, ...], max_tokens: int) -> Written:
        """Continue a prompt greedily with `generate`."""
        key = prompt, max_tokens
        if key not in self._written:
            ids = torch.tensor([prompt])
            with torch.inference_mode():
                out = self.model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False,
                    eos_token_id=list(self.end_ids), pad_token_id=self.end_ids[0], output_logits=True, return_dict_in_generate=True,
                )  # fmt: skip
            new = out.sequences[0, len(prompt) :].tolist()
            ended = new[-1] in self.end_ids
            logits = tuple(step[0] for step in out.logits)
            self._written[key] = Written(tuple(new[:-1] if ended else new), ended, logits, self.end_ids)
        return self._written[key]

    def raw_ids(self, text: str) -> tuple[int, ...]:
        """The ids of a text as the model's makers tokenize it."""
        return tuple(self.tokenizer(text).input_ids)

    def chat_ids(self, question: str, system: str | None = None) -> tuple[int, ...]:
        """The ids of a conversation up to the assistant's answer."""
        messages = ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": question}]
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)
