"""What the runtime may ask of an engine, and what an engine owes: the paper's Fill, Generate and FreeContext.

An engine holds contexts: token sequences with their KV cache. The runtime fills them with prompt tokens, has tokens
generated from them, and frees them. Every method is called on the runtime's event loop and returns quickly; the
model's arithmetic runs elsewhere. Equal token prefixes may share memory inside an engine without the caller's doing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

ContextId = int
Finish = Literal["stop", "length"]
Priority = tuple[int, ...]  # smaller runs first, compared as tuples
AHEAD = 3  # as first item of a priority: for later; computed in what others leave of each step


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. All values are already checked (`parrot_nb.language.Options` does it).

    `temperature=0` is greedy; `top_k=0`, `top_p=1`, `min_p=0` filter nothing. Order of filters: temperature, top-k,
    top-p, min-p. With a seed, a sample depends on the context's tokens, these values and the seed only; without one,
    the engine draws a fresh seed for each generation.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of a generation, as it comes.

    Attributes:
        text: whole characters only, never past a stop string nor a part of one; may be empty.
        num_tokens: tokens sampled since the piece before.
        settled_ids: token ids that are certain now: those of all pieces in a row are how `end.token_ids` will begin. They
            may lag behind the text; an engine that does not stream fills leaves them out.
        end: on the last piece of a generation, how it ended; None before.
    """

    text: str
    num_tokens: int
    end: GenerationEnd | None = None
    settled_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationEnd:
    """How a generation ended, and what it took.

    Attributes:
        finish: "stop" (end-of-sequence or a stop string) or "length" (max_tokens, or the context is full).
        token_ids: the whole text as ids that may be filled into any context of this codec: exactly those generated,
            less control tokens and what a stop string cut off.
        prefilled_tokens: prompt tokens computed for this context since its last generation.
        reused_tokens: prompt tokens whose KV was found cached.
        decoded_tokens: tokens sampled.
        guessed_tokens: how many of them had been guessed and were checked with others in one step.
        queued_s: from `generate` to the first step this context took part in.
        prefill_s: from there to the first token.
        decode_s: from the first token to the last.
    """

    finish: Finish
    token_ids: tuple[int, ...]
    prefilled_tokens: int
    reused_tokens: int
    decoded_tokens: int
    queued_s: float
    prefill_s: float
    decode_s: float
    guessed_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about a part that can run in place of a model's own, and why.

    Attributes:
        part: such as "fused decoder".
        outcome: "taken"; "refused" if a trial gave other logits than the model's own part; "unavailable" if there is none for
            this model or machine; "failed" if it could not be made, or stopped working.
        reason: a clause for people, with the figures of the trial.
    """

    part: str
    outcome: Literal["taken", "refused", "unavailable", "failed"]
    reason: str

    def __str__(self) -> str:
        return f"{self.part}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model is, for people.

    Attributes:
        id: hub id or folder as the user gave it.
        architecture: class name, such as "Qwen3ForCausalLM".
        num_parameters: count of weights.
        device: such as "cpu" or "cuda:0".
        dtype: such as "float32".
        max_context_tokens: longest context: of the model, or as the user bounded it.
        note: what must be said wherever its output is shown (untrained weights), or None.
        swapped: what runs in place of the model's own modules, in words.
        verdicts: what was decided about parts that could, with reasons.
    """

    id: str
    architecture: str
    num_parameters: int
    device: str
    dtype: str
    max_context_tokens: int
    note: str | None = None
    swapped: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do, or is good at.

    Attributes:
        shares_kv: equal beginnings of contexts share memory.
        streams_fills: gains by filling a context while its input is still being written.
        takes_token_ids: is filled with tokens; otherwise with their text.
    """

    shares_kv: bool
    streams_fills: bool
    takes_token_ids: bool


@dataclass(frozen=True, slots=True)
class Speed:
    """How long an engine's steps take: a base time, a time per context that decodes and a time per prompt token.

    The values given here are taken until an engine has measured its own.
    """

    base_s: float = 5e-3
    row_s: float = 1e-4
    prefill_s: float = 1e-4

    def step_s(self, num_rows: float) -> float:
        """Of a step in which so many contexts decode."""
        return self.base_s + self.row_s * num_rows

    def rows_within(self, seconds: float) -> int:
        """How many rows a step of at most so many seconds has room for; 0 where not even the base has."""
        return max(0, int((seconds - self.base_s) / self.row_s)) if self.row_s > 0 else 2**31


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a context wants its tokens.

    Attributes:
        tpot_s: seconds between two of them, at most.
        firm: whether that holds against others that have a pace too; otherwise against those alone that have none.
    """

    tpot_s: float
    firm: bool = True


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What an engine is doing now. `num_pages == free_pages + cached_pages + owned_pages` at any time.

    Attributes:
        num_contexts: that are open.
        running_contexts: of these, in the next step.
        waiting_tokens: filled and not yet computed.
        num_pages: of the KV cache.
        free_pages: that hold nothing.
        cached_pages: that hold what no context uses now.
        owned_pages: that open contexts use.
        page_size_tokens: tokens of one page.
        step_s: how long steps take lately, in seconds.
        stuck: it was closed or lost, but keeps its memory until a step has ended that still runs.
    """

    num_contexts: int
    running_contexts: int
    waiting_tokens: int
    num_pages: int
    free_pages: int
    cached_pages: int
    owned_pages: int
    page_size_tokens: int
    step_s: float
    stuck: bool = False


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One forward pass over a ragged batch. `start_s` is `time.monotonic()`, and no step of an engine starts before the one
    before it has ended. Of the decode tokens, each of its own context, none is a guess, and `guessed_tokens` were checked
    besides them. Of `num_pages`, those neither owned nor cached after the step are free."""

    start_s: float
    duration_s: float
    num_contexts: int
    prefill_tokens: int
    decode_tokens: int
    owned_pages: int
    num_pages: int
    guessed_tokens: int = 0
    cached_pages: int = 0


StepListener = Callable[[StepRecord], None]


class Codec(Protocol):
    """Text to token ids and back, for one tokenizer, with no way for text to become a control token."""

    @property
    def key(self) -> str:
        """Names the vocabulary; ids may cross between codecs of equal key."""

    @property
    def opening_ids(self) -> tuple[int, ...]:
        """What every raw prompt starts with (a BOS token, usually); may be empty."""

    @property
    def has_chat_template(self) -> bool:
        """Whether `chat_frame` can be asked for."""

    def encode(self, text: str, *, first: bool = False) -> list[int]:
        """The ids of a stretch of text; `first` where the prompt begins with it (some tokenizers put a space there)."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids, control tokens shown as their names."""

    def chat_frame(self, num_turns: int, system: str | None) -> tuple[tuple[int, ...], ...]:
        """What the chat template writes around `num_turns` user turns, each answered by an assistant turn.

        Returns 2 * num_turns id sequences: before user content 0, before assistant content 0, before user content 1,
        and so on. The assistant's content is to be generated after its sequence.

        Raises:
            EngineError: the template failed, or cannot be used turn by turn.
        """


class Engine(Protocol):
    """An engine; see the module's first lines for who calls it and where.

    Ownership: `open` gives the caller a context, which holds pages until `free`. A context has one writer: no `fill`
    while a `generate` of the same context runs. Closing the iterator of `generate` early stops the generation and
    keeps what was generated in the context.
    """

    @property
    def name(self) -> str:
        """For logs and views; unique in a session."""

    @property
    def model(self) -> ModelInfo:
        """What it runs."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    @property
    def codec(self) -> Codec:
        """Its tokenizer."""

    @property
    def speed(self) -> Speed:
        """How long its steps take, as far as is known by now."""

    def open(self, priority: Priority) -> ContextId:
        """A new, empty context."""

    def set_priority(self, context: ContextId, priority: Priority) -> None:
        """Change how urgent a context is; a freed context is ignored."""

    def set_pace(self, context: ContextId, pace: Pace | None) -> None:
        """How fast a context wants its tokens; kept as far as that lies with what else runs. A freed context is ignored."""

    def fill(self, context: ContextId, token_ids: Sequence[int]) -> None:
        """Append tokens to a context. They are computed at some time before anything is generated after them.

        Raises:
            ContextLengthError: the context would have no room for one more token; it is unchanged.
            EngineError: this context cannot go on, since a step that it was in has failed; others can.
        """

    def generate(self, context: ContextId, sampling: Sampling, *, likely: Sequence[int] = ()) -> AsyncIterator[Piece]:
        """Generate after what was filled, and append the text's tokens (not the end-of-sequence token, nor a stop
        string) to the context. `likely` is a hint: tokens that the text may resemble. The last piece has `end`. Fill after
        generate, then generate again, is legal.

        Raises:
            EngineError: from the iterator: this context cannot go on; others can.
        """

    def free(self, context: ContextId) -> None:
        """Give a context up; its pages return to the pool. Ends a running generation. Freeing twice is harmless."""

    def expect(self, key: Hashable, token_ids: Sequence[int], next_use: int) -> None:
        """A hint: a context that begins with these tokens will come; the smaller `next_use`, the sooner. What `key` said
        before is replaced. An engine keeps the KV of such beginnings before that of others."""

    def forget(self, key: Hashable) -> None:
        """What `expect` said under this key no longer holds; unknown keys are ignored."""

    def clear_cache(self) -> None:
        """Free the memory of everything that no context uses."""

    def load(self) -> EngineLoad:
        """What it is doing now."""

    async def close(self) -> None:
        """End all contexts with EngineError at once, stop the worker, drop the weights. A step that runs has some seconds to
        end and is broken off then. Where even that does not end it, this returns all the same, `load().stuck` says so, and
        the weights go when it ends. Harmless when closed or lost: it waits for that step again."""
