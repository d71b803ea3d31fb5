"""parrot-tiny's tokenizer, and cases as the token ids that a session would make of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parrot_nb.tiny.bpe import learn_merges
from parrot_nb.tiny.cases import NUM_SIZES, Case
from parrot_nb.tiny.tasks import TASKS, repeat
from parrot_nb.tiny.words import Draw

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END, TURN_START, TURN_END = "<|endoftext|>", "<|turn_start|>", "<|turn_end|>"
SPECIAL = (END, TURN_START, TURN_END)  # they come first in the vocabulary

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|turn_start|>{{ message['role'] }}\n{{ message['content'] }}<|turn_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|turn_start|>assistant\n{% endif %}"
)

NO_TARGET = -1

VOCABULARY_TOKENS = 2_048
_CASES_PER_TASK = 600
_SEED = "tokenizer"


Splitter = Callable[[str], Sequence[str]]
Rejoiner = Callable[[Sequence[str]], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A case as ids.

    Attributes:
        ids: prompt and answers.
        targets: for each position the id to predict there, or `NO_TARGET`: answers and their ends only.
    """

    ids: list[int]
    targets: list[int]


def make_tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer of the small world; digits stand alone, and there is nothing it cannot spell."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    words = Counter(word for text in _texts() for word, _ in splitter.pre_tokenize_str(text))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # one symbol for each of the 256 bytes
    merges = learn_merges(words, VOCABULARY_TOKENS - len(SPECIAL) - len(alphabet))
    tokens = dict.fromkeys([*SPECIAL, *alphabet, *(left + right for left, right in merges)])
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def write_tokenizer(folder: Path, context_tokens: int) -> None:
    """Write tokenizer.json and tokenizer_config.json into an existing folder."""
    make_tokenizer().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "additional_special_tokens": [TURN_START, TURN_END],
        "model_max_length": context_tokens,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _texts() -> Iterator[str]:
    """Yield the texts that the merges are learnt from: every stretch of text as it is tokenized."""
    draw = Draw(_SEED)
    for make in (*TASKS.values(), repeat):
        for i in range(_CASES_PER_TASK):
            for turn in make(draw, i % (NUM_SIZES - 1)).turns():
                yield from (*turn.fills, turn.answer)
    yield from ("system\n", "user\n", "assistant\n", *SYSTEMS)  # what a chat writes around them


SYSTEMS = ("You are a helpful assistant.", "You are parrot-tiny.", "Answer briefly.")


class Encoder:
    """Cases as ids, by a tokenizer's rules.

    Args:
        tokenizer: as `make_tokenizer` makes it.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._frames: dict[str, list[int]] = {}
        self.end_id: int = tokenizer.token_to_id(END)
        self.turn_end_id: int = tokenizer.token_to_id(TURN_END)

    def prompt(self, case: Case, *, chat: bool, system: str | None = None) -> list[int]:
        """The ids before the first answer."""
        return self._turn(("".join(case.turns()[0].fills),), 0, chat=chat, system=system)  # plain text is tokenized as a whole

    def encode(
        self, case: Case, *, chat: bool, system: str | None = None, split: Splitter | None = None, rejoin: Rejoiner | None = None
    ) -> Encoded:
        """The whole case.

        Args:
            case: what to encode.
            chat: whether texts and answers are turns of the chat template; else they follow each other as they are.
            system: the system turn's text, with `chat` only.
            split: cuts a stretch of text into stretches that are tokenized for themselves, as an input in the middle of a
                sentence would; as they are when None.
            rejoin: makes fewer stretches of a turn's, as if what was an input stood in the prompt; before they are split.
        """
        ids: list[int] = []
        targets: list[int] = []
        for i_turn, turn in enumerate(case.turns()):
            fills = turn.fills if rejoin is None else tuple(rejoin(turn.fills))
            fills = fills if split is None else tuple(piece for fill in fills for piece in split(fill))
            fill = self._turn(fills, i_turn, chat=chat, system=system)
            answer = self._plain(turn.answer)
            ids += fill + answer
            targets += [NO_TARGET] * (len(fill) - 1) + answer + [self.turn_end_id if chat else self.end_id]
        return Encoded(ids, targets)

    def _turn(self, fills: tuple[str, ...], i_turn: int, *, chat: bool, system: str | None) -> list[int]:
        """The ids before an answer."""
        ids: list[int] = []
        if chat:
            before = f"{TURN_END}\n" if i_turn else ""
            if system is not None and not i_turn:
                ids += [*self._frame(f"{TURN_START}system\n"), *self._plain(system), *self._frame(f"{TURN_END}\n")]
            ids += self._frame(f"{before}{TURN_START}user\n")
        for fill in fills:
            ids += self._plain(fill)
        if chat:
            ids += self._frame(f"{TURN_END}\n{TURN_START}assistant\n")
        return ids

    def _plain(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _frame(self, text: str) -> list[int]:
        if text not in self._frames:
            self._frames[text] = self._plain(text)
        return self._frames[text]
