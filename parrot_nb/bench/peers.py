"""Other systems as engines, so that the same application runs on them: transformers' `generate` and continuous batching,
and servers that speak OpenAI's completions protocol.

A peer gets what a client that sends one request per prompt would send it; the runtime in front of it is ours, so that a
peer, too, is asked for everything that can run at once.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from parrot_nb.engine.embedded.codec import TokenizerCodec
from parrot_nb.engine.embedded.detokenize import Detokenizer
from parrot_nb.engine.protocol import (
    Capabilities,
    ContextId,
    EngineLoad,
    GenerationEnd,
    ModelInfo,
    Pace,
    Piece,
    Priority,
    Sampling,
    Speed,
)
from parrot_nb.errors import ContextLengthError, EngineError

BLOCK_TOKENS = 256  # of transformers' continuous batching, its default
GATHER_S = 0.01  # a static batch waits so long for more requests: what becomes ready at once is then one batch


@dataclass(eq=False, slots=True)
class Request:
    """A prompt to continue by exactly so many tokens."""

    token_ids: list[int]
    max_tokens: int
    answer: asyncio.Future[list[int]]


class PeerEngine:
    """Contexts are lists of tokens; what continues them is a subclass's business. Greedy and of forced length only."""

    name = "peer"
    capabilities = Capabilities(shares_kv=False, streams_fills=False, takes_token_ids=True)

    def __init__(self, model: ModelInfo, codec: TokenizerCodec) -> None:
        self.model = model
        self.codec = codec
        self._contexts: dict[ContextId, list[int]] = {}
        self._ids = itertools.count(1)

    async def complete(self, token_ids: list[int], max_tokens: int) -> tuple[list[int], int]:
        """The tokens after a prompt, and how many the peer says there are."""
        raise NotImplementedError

    def open(self, priority: Priority) -> ContextId:
        """See `Engine`."""
        context = next(self._ids)
        self._contexts[context] = []
        return context

    @property
    def speed(self) -> Speed:
        """The usual speed: it is not measured."""
        return Speed()

    def set_pace(self, context: ContextId, pace: Pace | None) -> None:
        """Takes no notice."""

    def set_priority(self, context: ContextId, priority: Priority) -> None:
        """Peers know no priorities."""

    def fill(self, context: ContextId, token_ids: Sequence[int]) -> None:
        """See `Engine`."""
        longest = self.model.max_context_tokens
        if len(self._contexts[context]) + len(token_ids) >= longest:
            raise ContextLengthError(f"The text is longer than the {longest} tokens that '{self.name}' has room for.")
        self._contexts[context] += token_ids

    async def generate(
        self, context: ContextId, sampling: Sampling, *, likely: Sequence[int] = (), taken_back: Sequence[int] = ()
    ) -> AsyncIterator[Piece]:
        """See `Engine`; one piece, at the end."""
        if sampling.temperature or not sampling.ignore_eos or sampling.stop or taken_back:
            raise EngineError("A peer in the benchmark only generates greedily, to a forced length and with heal=False.")
        prompt, started_s = self._contexts[context], time.monotonic()
        ids, num_tokens = await self.complete(prompt, sampling.max_tokens)
        if num_tokens != sampling.max_tokens:
            raise EngineError(f"'{self.name}' wrote {num_tokens} tokens in place of {sampling.max_tokens}.")
        detokenizer = Detokenizer(self.codec.decode_plain, self.codec.anchor, self.codec.shown, (), is_open=self.codec.is_open)
        text = "".join([detokenizer.feed(token) for token in ids]) + detokenizer.finish()
        kept = tuple(self.codec.carried_over(ids))
        self._contexts[context] = [*prompt, *kept]
        end = GenerationEnd("length", kept, len(prompt), 0, num_tokens, 0.0, 0.0, time.monotonic() - started_s)
        yield Piece(text, num_tokens, end)

    def free(self, context: ContextId) -> None:
        """See `Engine`."""
        self._contexts.pop(context, None)

    def expect(self, key: Hashable, token_ids: Sequence[int], next_use: int) -> None:
        """Peers take no hints."""

    def forget(self, key: Hashable) -> None:
        """Peers take no hints."""

    def clear_cache(self) -> None:
        """Peers keep nothing between runs, or keep what they please."""

    def load(self) -> EngineLoad:
        """See `Engine`; a peer's pages are its own affair."""
        return EngineLoad(len(self._contexts), len(self._contexts), 0, 0, 0, 0, 0, 1, 0.0)

    async def close(self) -> None:
        """See `Engine`."""


class TransformersEngine(PeerEngine):
    """transformers itself, in one thread of its own.

    Args:
        folder: the model.
        dtype: "float32" or "bfloat16".
        device: "cpu" or "cuda".
        continuous: use its continuous batching; else `generate` on one left-padded batch.
    """

    def __init__(self, folder: str, *, dtype: str, device: str, continuous: bool) -> None:
        self.name = "hf-cb" if continuous else "hf"
        self._continuous = continuous
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=self.name)  # loads too: OpenMP keeps one team of threads
        self._module, info, codec = self._worker.submit(_load_transformers, folder, dtype, device).result()
        super().__init__(info, codec)
        self._waiting: list[Request] = []
        self._num_blocks = 0  # of the continuous batching that stands ready
        self._cold = False
        self._batching: asyncio.Task[None] | None = None

    async def complete(self, token_ids: list[int], max_tokens: int) -> tuple[list[int], int]:
        """Join the next batch."""
        request = Request(token_ids, max_tokens, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._batching is None or self._batching.done():
            self._batching = asyncio.create_task(self._run())
        ids = await request.answer
        return ids, len(ids)

    async def _run(self) -> None:
        while self._waiting:
            count = 0
            while count < len(self._waiting):  # until nobody else comes
                count = len(self._waiting)
                await asyncio.sleep(GATHER_S)
            taken, self._waiting = self._waiting, []
            for batch in self._batches(taken):
                run = self._continue if self._continuous else self._generate
                prompts = [request.token_ids for request in batch]
                num_tokens = max(request.max_tokens for request in batch)
                try:
                    answers = await asyncio.get_running_loop().run_in_executor(self._worker, run, prompts, num_tokens)
                except Exception as error:  # whatever it raises is what the table says of it
                    failure = EngineError(f"'{self.name}' failed with {type(error).__name__}: {error}")
                    for request in batch:
                        if not request.answer.done():
                            request.answer.set_exception(failure)
                    continue
                for request, answer in zip(batch, answers, strict=True):
                    if not request.answer.done():
                        request.answer.set_result(answer[: request.max_tokens])

    def _batches(self, requests: list[Request]) -> list[list[Request]]:
        """A static batch goes on until its longest answer ends; continuous batching takes one length at a time."""
        if not self._continuous:
            return [requests]
        lengths = sorted({request.max_tokens for request in requests})
        return [[request for request in requests if request.max_tokens == length] for length in lengths]

    def _generate(self, prompts: list[list[int]], num_tokens: int) -> list[list[int]]:
        import torch

        longest = max(map(len, prompts))
        device = self._module.device
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
        with torch.inference_mode():
            out = self._module.generate(ids, attention_mask=mask, generation_config=self._config(num_tokens))
        return [row.tolist() for row in out[:, longest:]]

    def _continue(self, prompts: list[list[int]], num_tokens: int) -> list[list[int]]:
        from transformers.generation import ContinuousBatchingConfig

        needed = sum(-(-(len(p) + num_tokens) // BLOCK_TOKENS) for p in prompts) + 8
        if needed > self._num_blocks:
            self._module.destroy_cached_continuous_batching_manager()
        elif self._cold:  # it shares prefixes, also with those of earlier batches
            self._module._cached_continuous_batching_manager.batch_processor.cache.free_all_requests(clear_ledgers=True)
        num_blocks, self._num_blocks, self._cold = max(needed, self._num_blocks), 0, False  # 0: if this fails, set up anew
        results = self._module.generate_batch(
            inputs=prompts,
            generation_config=self._config(num_tokens),
            continuous_batching_config=ContinuousBatchingConfig(num_blocks=num_blocks, max_batch_tokens=2048),
            persistent_manager=True,  # set up once, as a user who wants speed has it
            progress_bar=False,
        )
        failed = [result.error for result in results.values() if result.error]
        if failed or len(results) < len(prompts):
            raise EngineError(f"continuous batching lost requests ({failed[:1]})")
        self._num_blocks = num_blocks
        by_prompt = {tuple(result.prompt_ids): list(result.generated_tokens) for result in results.values()}
        return [by_prompt[tuple(p)] for p in prompts]

    def _config(self, num_tokens: int) -> Any:
        from transformers import GenerationConfig

        return GenerationConfig(max_new_tokens=num_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)

    def clear_cache(self) -> None:
        """Continuous batching forgets before its next batch; `generate` has nothing to forget."""
        self._cold = True

    async def close(self) -> None:
        """End the thread, drop the weights."""
        self._worker.shutdown(wait=True)
        self._module.destroy_cached_continuous_batching_manager()
        self._module = None


def _load_transformers(folder: str, dtype: str, device: str) -> tuple[Any, ModelInfo, TokenizerCodec]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity_error()
    module = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa").to(device).eval()
    )
    module.generation_config.eos_token_id = None
    codec = TokenizerCodec(AutoTokenizer.from_pretrained(folder))
    num_parameters = sum(p.numel() for p in module.parameters())
    longest = module.config.get_text_config().max_position_embeddings
    return module, ModelInfo(folder, type(module).__name__, num_parameters, device, dtype, longest), codec


class ServerEngine(PeerEngine):
    """A server that speaks OpenAI's completions protocol and takes token ids as prompts.

    Args:
        address: up to and with the version, such as "http://localhost:8000/v1".
        codec: the tokenizer of the model that it serves.
    """

    def __init__(self, address: str, codec: TokenizerCodec) -> None:
        self.name = address
        self._address = address.rstrip("/")
        try:
            with urllib.request.urlopen(f"{self._address}/models", timeout=10) as reply:  # noqa: S310 - the user's own address
                self._model = json.load(reply)["data"][0]["id"]
        except (OSError, ValueError, LookupError) as error:
            raise EngineError(f"There is no OpenAI-compatible server at {address} ({error}): check the address.") from error
        super().__init__(ModelInfo(self._model, "server", 0, "remote", "unknown", 10**6), codec)
        self._threads = ThreadPoolExecutor(256)

    async def complete(self, token_ids: list[int], max_tokens: int) -> tuple[list[int], int]:
        """One request."""
        body = {
            "model": self._model, "prompt": token_ids, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True,
            "return_token_ids": True,
        }  # fmt: skip
        answer = await asyncio.get_running_loop().run_in_executor(self._threads, self._post, body)
        try:
            choice, num_tokens = answer["choices"][0], int(answer["usage"]["completion_tokens"])
            ids = choice.get("token_ids") or self.codec.encode(choice["text"])  # vLLM gives them when asked
        except (LookupError, TypeError, ValueError) as error:
            raise EngineError(f"{self._address} answered with something else than OpenAI's completions protocol.") from error
        return list(ids), num_tokens

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - the user's own address
            f"{self._address}/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=600) as reply:  # noqa: S310
                answer: dict[str, Any] = json.load(reply)
        except urllib.error.HTTPError as error:
            raise EngineError(f"{self._address} refused a request: {error.code} {error.read()[:200]!r}") from error
        except (OSError, ValueError) as error:
            raise EngineError(f"{self._address} failed: {error}") from error
        return answer

    async def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False)
