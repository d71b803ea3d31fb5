"""The operations that the runtime may request of an engine, and its obligations: the paper's Fill, Generate and FreeContext.

An engine holds contexts: token sequences with their KV cache. The runtime fills them with prompt tokens, has tokens
generated from them, and frees them. Every method is called on the runtime's event loop and returns quickly; the
model's arithmetic runs elsewhere. Equal token prefixes may share memory inside an engine without the caller's doing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from parrot_nb.engine.codec import Codec
from parrot_nb.engine.scoring import ScoredChoice, Scoring

ContextId = int
Finish = Literal["stop", "length"]


class Kind(IntEnum):
    """Purpose that a context is computed for; a smaller kind goes before all larger ones."""

    TARGET = 0  # a call that must start by a stated time
    LATENCY = 1  # a call that a reader waits for
    THROUGHPUT = 2  # any other call whose inputs are there
    AHEAD = 3  # a prompt that is filled before its inputs are there, in what the others leave of each step


class Priority(NamedTuple):
    """Urgency of a context; the smaller of two runs first. A tuple, since hundreds of them are sorted before each step.

    Attributes:
        kind: what the context is computed for.
        order: place among contexts of the same kind, compared from the first number on.
    """

    kind: Kind
    order: tuple[int, ...] = ()

    def ahead(self) -> Priority:
        """The priority of the same context while its inputs are still missing."""
        return Priority(Kind.AHEAD, (self.kind, *self.order))


@dataclass(frozen=True, slots=True)
class Constraint:
    """Constraint on a generated text, as data that any engine can take.

    Attributes:
        kind: "json" (a JSON schema), "regex" (a regular expression of the whole text, in the syntax of Rust's `regex` crate),
            "choices" (a JSON list of texts) or "lark" (a grammar in llguidance's dialect of Lark).
        body: that schema, expression, list or grammar.
        said: how the text begins: it was filled with the prompt, and the generation goes on from there.
    """

    kind: Literal["json", "regex", "choices", "lark"]
    body: str
    said: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings for the choice of tokens. All values are already checked (`parrot_nb.language.Options` does it).

    `temperature=0` is greedy; `top_k=0`, `top_p=1`, `min_p=0` filter nothing. Order of filters: temperature, top-k,
    top-p, min-p. With a seed, a sample depends on the context's tokens, these values and the seed only; without one,
    the engine draws a fresh seed for each generation.

    Penalties come before the temperature, in this order, and apply to greedy choices too. The logit x of a token that is in
    the context, prompt and generated tokens alike, becomes x / repetition_penalty where x >= 0 and x * repetition_penalty
    elsewhere, as in `transformers`; None is what the model's files ask for. That of a token that this generation has chosen n
    times loses n * frequency_penalty, and presence_penalty once, as with OpenAI and vLLM.

    With `logprobs` each token's log-probability is reported with those of so many others (`GenerationEnd.scores`).

    With a `constraint` a token can be chosen only where the text can still become one that obeys it, and an end token only where
    it does; penalties come before it and filters after it.

    With `scoring` nothing is sampled: the constraint is one of choices, the text is the likeliest of them, and all are reported
    (`GenerationEnd.choices`). "total" compares their log-likelihoods, "mean" those per token. No other setting has a say.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: int | None = None
    constraint: Constraint | None = None
    scoring: Scoring | None = None

    @property
    def has_penalties(self) -> bool:
        """True if a choice depends on which tokens there are already."""
        return self.repetition_penalty not in (None, 1.0) or self.presence_penalty != 0 or self.frequency_penalty != 0


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A generated token and how likely it was: natural log-probabilities of the model's own distribution, before penalties,
    temperature and filters.

    Attributes:
        text: its part of the generated text. A token that ends inside a character has none; the one that completes the
            character has all of it.
        logprob: its log-probability.
        others: the likeliest other tokens, the likeliest first: text of the token alone (U+FFFD for part of a character, the
            name of a control token) and log-probability.
    """

    text: str
    logprob: float
    others: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of a generation, as it comes.

    Attributes:
        text: whole characters only, never past a stop string nor a part of one; may be empty.
        num_tokens: tokens sampled since the piece before.
        settled_ids: token ids that are certain now: those of all pieces in a row are how `end.token_ids` will begin. They
            may lag behind the text; an engine that does not stream fills leaves them out.
        lead: text that stands before the first of these ids, as in `GenerationEnd`; on the piece that brings them or one before.
        end: on the last piece of a generation, how it ended; None before.
    """

    text: str
    num_tokens: int
    end: GenerationEnd | None = None
    settled_ids: tuple[int, ...] = ()
    lead: str = ""


@dataclass(frozen=True, slots=True)
class GenerationEnd:
    """End of a generation: how it ended, and what it took.

    Attributes:
        finish: "stop" (end-of-sequence or a stop string) or "length" (max_tokens, or the context is full).
        token_ids: the whole text after `lead` as ids that may be filled into any context of this codec: exactly those
            generated, less control tokens and what a stop string cut off.
        prefilled_tokens: prompt tokens computed for this context since its last generation.
        reused_tokens: prompt tokens whose KV was found cached.
        decoded_tokens: tokens sampled.
        guessed_tokens: how many of them had been guessed and were checked with others in one step.
        lead: how the text begins where its first token also spells what was taken back from the prompt: no ids spell it alone.
        written_ids: what the context holds after what was filled; None where that is `token_ids`.
        scores: of each token that the text is made of, the end-of-sequence token left out; None unless asked for.
        complete: whether the text, with what was said before it, obeys the constraint; None where there was none.
        choices: all choices in order, where they were scored; else None. Of the tokens that took, those of the text count as
            decoded and the others as prefilled.
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
    lead: str = ""
    written_ids: tuple[int, ...] | None = None

    @property
    def context_ids(self) -> tuple[int, ...]:
        """Token ids that the context holds after those that were filled."""
        return self.token_ids if self.written_ids is None else self.written_ids

    scores: tuple[TokenScore, ...] | None = None
    complete: bool | None = None
    choices: tuple[ScoredChoice, ...] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Decision about a part that can run in place of a model's own, and its reason.

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
    """Description of a model, for people.

    Attributes:
        id: hub id or folder as the user gave it.
        architecture: class name, such as "Qwen3ForCausalLM".
        num_parameters: count of weights.
        device: such as "cpu" or "cuda:0".
        dtype: such as "float32".
        max_context_tokens: longest context: of the model, or as the user bounded it.
        note: what must be said wherever its output is shown (untrained weights), or None.
        swapped: what runs in place of the model's own modules, in words.
        recommended: sampling options that its makers recommend, by name; taken only where the user says so.
        generation: what its files ask of every generation, done here or not, a sentence each.
        verdicts: what was decided about parts that could, with reasons.
        heals: whether seams are healed where nobody says (token healing): not for a model that was trained on them as they are.
        room: what its KV cache may take and what limited that, as a clause for people; empty where nobody asked.
        fingerprint: equal for models whose texts may stand for each other's, in another process too; empty where weights can
            change without a sign, as those of a model that the user holds.
        quantized: what of its weights was quantised when it was loaded, and what memory that takes; empty for nothing.
    """

    id: str
    architecture: str
    num_parameters: int
    device: str
    dtype: str
    max_context_tokens: int
    note: str | None = None
    swapped: tuple[str, ...] = ()
    recommended: tuple[tuple[str, float], ...] = ()
    generation: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    heals: bool = True
    fingerprint: str = ""
    room: str = ""
    quantized: str = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Capabilities and strengths of an engine.

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
    """Duration of an engine's steps: a base time, a time per context that decodes and a time per prompt token.

    The values given here are taken until an engine has measured its own.
    """

    base_s: float = 5e-3
    row_s: float = 1e-4
    prefill_s: float = 1e-4

    def step_s(self, num_rows: float) -> float:
        """Return the duration of a step in which so many contexts decode."""
        return self.base_s + self.row_s * num_rows

    def rows_within(self, seconds: float) -> int:
        """Return how many rows a step of at most so many seconds has room for; 0 where not even the base has."""
        return max(0, int((seconds - self.base_s) / self.row_s)) if self.row_s > 0 else 2**31


@dataclass(frozen=True, slots=True)
class Pace:
    """Rate at which a context wants its tokens.

    Attributes:
        tpot_s: seconds between two of them, at most.
        firm: whether that holds against others that have a pace too; otherwise against those alone that have none.
    """

    tpot_s: float
    firm: bool = True


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """Current load of an engine. `num_pages == free_pages + cached_pages + owned_pages` at any time.

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
        most_pages: as many as the cache may grow to, if that is more than `num_pages`.
        threads: that compute a step now, and that may when no other process needs their cores; (0, 0) for a GPU.
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
    most_pages: int = 0
    threads: tuple[int, int] = (0, 0)


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


@runtime_checkable
class KnowsCache(Protocol):
    """Interface of an engine that can say what it has cached."""

    def cached_tokens(self, token_ids: Sequence[int]) -> int:
        """Return how many of a prompt's first tokens have their KV cached now."""


class Engine(Protocol):
    """An engine; see the module's first lines for who calls it and where.

    Ownership: `open` gives the caller a context, which holds pages until `free`. A context has one writer: no `fill`
    while a `generate` of the same context runs. Closing the iterator of `generate` early stops the generation and
    keeps what was generated in the context.

    Faults: what fails for one context fails no other, as long as the engine itself goes on.
    """

    @property
    def name(self) -> str:
        """Name for logs and views; unique in a session."""

    @property
    def model(self) -> ModelInfo:
        """Description of the model that the engine runs."""

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the engine."""

    @property
    def codec(self) -> Codec:
        """Tokenizer of the engine."""

    @property
    def speed(self) -> Speed:
        """Duration of the engine's steps, as far as is known by now."""

    def open(self, priority: Priority) -> ContextId:
        """A new, empty context."""

    def set_priority(self, context: ContextId, priority: Priority) -> None:
        """Change how urgent a context is; a freed context is ignored."""

    def set_pace(self, context: ContextId, pace: Pace | None) -> None:
        """Set how fast a context wants its tokens; kept as far as that lies with what else runs. A freed context is ignored."""

    def fill(self, context: ContextId, token_ids: Sequence[int]) -> None:
        """Append tokens to a context. They are computed at some time before anything is generated after them.

        Raises:
            ContextLengthError: the context would have no room for one more token; it is unchanged.
            EngineError: this context cannot go on, since a step that it was in has failed; others can.
        """

    def generate(
        self, context: ContextId, sampling: Sampling, *, likely: Sequence[int] = (), taken_back: Sequence[int] = ()
    ) -> AsyncIterator[Piece]:
        """Generate after what was filled, and append the text's tokens (not the end-of-sequence token, nor a stop
        string) to the context. The last piece has `end`. Fill after generate, then generate again, is legal.

        Args:
            context: which.
            sampling: how to choose tokens.
            likely: a hint: tokens that the text may resemble.
            taken_back: the prompt's last tokens, which were not filled: what is generated begins with their bytes, in
                whatever tokens are likeliest, and the text begins after them (token healing).

        Raises:
            EngineError: from the iterator: this context cannot go on; others can.
            ConstraintError: from the iterator: the constraint cannot be compiled, or followed any further.
        """

    def free(self, context: ContextId) -> None:
        """Give a context up; its pages return to the pool. Ends a running generation. Freeing twice is harmless."""

    def expect(self, key: Hashable, token_ids: Sequence[int], next_use: int) -> None:
        """A hint: a context that begins with these tokens will come; the smaller `next_use`, the sooner. What `key` said
        before is replaced. An engine keeps the KV of such beginnings before that of others."""

    def forget(self, key: Hashable) -> None:
        """Withdraw the hint that `expect` gave under this key; unknown keys are ignored."""

    def clear_cache(self) -> None:
        """Free the memory of everything that no context uses."""

    def load(self) -> EngineLoad:
        """Return the engine's current load."""

    async def close(self) -> None:
        """End all contexts with EngineError at once, stop the worker, drop the weights. A step that runs has some seconds to
        end and is broken off then. Where even that does not end it, this returns all the same, `load().stuck` says so, and
        the weights go when it ends. Harmless when closed or lost: it waits for that step again."""
