"""Parts of a session's graph: the session's end of semantic variables, and what is said of them and of calls.

A user holds a `SemanticVariable`; the session and the views hold its `VariableNode`. So that handles can be
dropped without losing work in flight, no node points back at a handle.
"""

from __future__ import annotations

import enum
import itertools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from parrot_nb.errors import AlreadySetError, is_cancelled
from parrot_nb.language.handles import Handle
from parrot_nb.language.notify import notified

if TYPE_CHECKING:
    from parrot_nb.language.calls import Call

State = Literal["pending", "running", "done", "failed", "cancelled"]
CallKind = Literal["semantic", "native", "join", "first"]
FINAL_STATES: frozenset[str] = frozenset({"done", "failed", "cancelled"})

_variable_ids = itertools.count(1)


class Objective(enum.Enum):
    """Objective of a variable's reader (paper section 5.2): low latency or high throughput."""

    LATENCY = "latency"
    """Soon: somebody waits for it."""
    THROUGHPUT = "throughput"
    """Much of it per second: nobody waits for it alone."""

    def __repr__(self) -> str:
        return f"P.{self.name}"


LATENCY = Objective.LATENCY
"""For `get(perf=P.LATENCY)`: somebody waits for it, so every call before it is wanted soon as well."""
THROUGHPUT = Objective.THROUGHPUT
"""For `get(perf=P.THROUGHPUT)`: it is one of many, and is run where it costs least."""


@dataclass(frozen=True, slots=True)
class LatencyTarget:
    """LATENCY with figures; made by `P.latency`.

    Attributes:
        ttft_s: seconds from the read until the first token of what is read; None for "soon".
        tpot_s: seconds for each token after it; None for "soon".
    """

    ttft_s: float | None = None
    tpot_s: float | None = None

    def __repr__(self) -> str:
        given = {"ttft": self.ttft_s, "tpot": self.tpot_s}
        return f"P.latency({', '.join(f'{name}={value:g}' for name, value in given.items() if value is not None)})"


Perf = Objective | LatencyTarget


@dataclass(frozen=True, slots=True)
class Path:
    """Place of a call on the longest way to what was read, in predicted seconds.

    Attributes:
        tail_s: from its start until what was read is there.
        slack_s: how much later than at the earliest it can start without delaying that; 0 on the critical path.
        start_by_s: when it must start, on the clock of `time.monotonic`, for what was read to come when it was asked for, or
            as soon as it can.
        due: whether a time was asked for.
    """

    tail_s: float
    slack_s: float
    start_by_s: float
    due: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a variable's text and, where a model wrote it, the token ids it was written as.

    Ids cross an edge between calls on the same tokenizer, so that nothing is tokenized twice; `codec` names that
    tokenizer. Ids never include control tokens.
    """

    text: str
    token_ids: tuple[int, ...] | None = None
    codec: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts and timings of computing a variable; zero for a plain value.

    Attributes:
        prefilled_tokens: of the prompt, computed.
        reused_tokens: of the prompt, not computed because they had been.
        decoded_tokens: generated.
        guessed_tokens: those of them that had been guessed, and so took no step of their own.
        thinking_tokens: those of them that were thought before the answer.
        queued_s: seconds until computing began.
        prefill_s: seconds from then until the first token.
        decode_s: seconds from the first token until the last.
        from_memo: its text was taken from an equal generation, and nothing was computed.
        attempts: how often a model wrote it: more than once where its type or a check refused it; the tokens are those of all.
        cut_tokens: of inputs with `fit=`, what was left out of the prompt for want of room.
    """

    prefilled_tokens: int = 0
    reused_tokens: int = 0
    decoded_tokens: int = 0
    queued_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    from_memo: bool = False
    guessed_tokens: int = 0
    thinking_tokens: int = 0
    attempts: int = 0
    cut_tokens: int = 0

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Print it as a sentence, for IPython."""
        printer.text("Usage(...)" if cycle else str(self))

    def __str__(self) -> str:
        """Return the counts and timings in words, without those that are zero."""
        if self.from_memo:
            return "reused: the text was taken from an equal call, nothing was computed"
        plural = "s" * (self.prefilled_tokens != 1)
        parts = [
            f"{self.prefilled_tokens} token{plural} prefilled",
            f"{self.reused_tokens} reused",
            f"{self.decoded_tokens} decoded",
        ]
        told = [("guessed", self.guessed_tokens), ("thought", self.thinking_tokens)]
        of_them = ", ".join(f"{count} {word}" for word, count in told if count)
        timings = [("queued", self.queued_s), ("prefill", self.prefill_s), ("decode", self.decode_s)]
        seconds = ", ".join(f"{word} {s:.3f} s" for word, s in timings)
        attempts = f"; {self.attempts} attempts" if self.attempts > 1 else ""
        return f"{', '.join(parts)}{f' ({of_them})' if of_them else ''}; {seconds}{attempts}"


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token and how likely it was: natural log-probabilities of the model's own distribution, before penalties,
    temperature and filters.

    Attributes:
        text: its part of the value, so that the texts of all tokens in a row are the value. A token that ends inside a
            character has the text ""; the one that completes the character has all of it.
        logprob: its log-probability.
        others: text and log-probability of the likeliest other tokens, the likeliest first, as many as `logprobs=N` asked for.
            The text is that of the token alone: U+FFFD for part of a character, the name of a control token.
    """

    text: str
    logprob: float
    others: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """Parallel calls whose joint completion matters (paper, section 5.2), such as the map stage of a map-reduce.

    Attributes:
        id: that of its first call.
        stage: model calls between them and who reads the result, on the longest way.
        call_ids: its calls, in order.
    """

    id: int
    stage: int
    call_ids: tuple[int, ...]


NO_USAGE = Usage()
"""Usage of every variable until it is done, one object for the thousands that a session holds."""


class Reach:
    """While one of these lives, its variable may still be read by something that the graph does not know."""

    __slots__ = ("__weakref__",)


class VariableNode(Handle):
    """A variable as the graph sees it: written once, by one thread at a time; read from any thread.

    The writer is the runtime thread, or, for a variable without producer, whoever sets it. This object is the
    hand-over point between threads: readers see a state only after all that belongs to it is in place; what waits for the end is
    told last.

    Attributes:
        id: unique in this process, in order of creation.
        name: as the user knows it; not unique.
        producer: the call that writes it, or None for a plain value.
        objective: what it was read for, the strictest; None where nobody asked.
        target: the figures that came with that, if any.
        pieces: the text as it streamed in; append-only.
        thinking_pieces: what the model thought before the text, as it streamed in; None where it did not think.
        num_thinking_tokens: tokens of that.
        value: the value when `state` is "done".
        spans: the value as text with token ids, or None when it is not text.
        finish: why generation ended, "stop" or "length"; None for what no model generated.
        logprobs: of each token of the value, in place before it is "done"; None where the output was not asked for with them.
        scores: the texts that it was chosen from with their probabilities, in place before it is "done"; None where none were scored.
        note: what must be said wherever the value is shown (such as: the model is untrained), or None.
        taken_back: text of the prompt's last token, which the model wrote again before the value (token healing).
    """

    __slots__ = (
        "__weakref__", "_consumers", "_future", "_listeners", "_lock", "_reach", "_sweep_at", "_when_final", "_when_lost", "error",
        "finish", "id", "logprobs", "name", "note", "num_thinking_tokens", "objective", "pieces", "producer", "scores", "spans", "state",
        "taken_back", "target", "thinking_pieces", "usage", "value",
    )  # fmt: skip

    _noun, _remedy = "A variable", "use get() and pass on the value"

    def __init__(self, name: str, producer: Call | None = None) -> None:
        self.id = next(_variable_ids)
        self.name = name
        self.producer = producer
        self._consumers: list[weakref.ref[Call]] = []
        self.state: State = "pending"
        self.pieces: list[str] = []
        self.thinking_pieces: list[str] | None = None
        self.num_thinking_tokens = 0
        self.value: Any = None
        self.spans: tuple[Span, ...] | None = None
        self.error: BaseException | None = None
        self.finish: str | None = None
        self.usage = NO_USAGE
        self.logprobs: tuple[TokenLogprob, ...] | None = None
        self.scores: tuple[tuple[str, float], ...] | None = None
        self.objective: Objective | None = None
        self.target: LatencyTarget | None = None
        self.note: str | None = None
        self.taken_back = ""
        self._future: Future[Any] | None = None
        self._when_final: tuple[Callable[[], None], ...] = ()
        self._when_lost: tuple[Callable[[VariableNode], None], ...] = ()
        self._sweep_at = 64
        self._reach: weakref.ref[Reach] | None = None
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<variable {self.name} #{self.id} {self.state}>"

    @property
    def consumers(self) -> list[Call]:
        """Calls that read it, in order of creation: those that the session or a user still has."""
        return [call for reference in tuple(self._consumers) if (call := reference()) is not None]

    def add_consumer(self, call: Call) -> None:
        """A call reads it."""
        if len(self._consumers) >= self._sweep_at:
            self._consumers = [reference for reference in self._consumers if reference() is not None]
            self._sweep_at = 64 + 2 * len(self._consumers)
        self._consumers.append(weakref.ref(call))

    @property
    def final(self) -> bool:
        """Whether nothing about this variable will change any more."""
        return self.state in FINAL_STATES

    def reach(self) -> Reach:
        """A hold on it, for whoever may read it later."""
        with self._lock:
            reach = self._reach() if self._reach is not None else None
            if reach is None:
                reach = Reach()
                self._reach = weakref.ref(reach, self._lost)
            return reach

    @property
    def reachable(self) -> bool:
        """Whether a user, or a call that is not submitted yet, may still read it."""
        return self._reach is not None and self._reach() is not None

    def on_lost(self, listener: Callable[[VariableNode], None]) -> None:
        """Have `listener` called, on whatever thread, whenever the last `Reach` has gone; it may only take note. Asking twice is
        harmless."""
        if listener not in self._when_lost:
            self._when_lost += (listener,)

    def _lost(self, _: object) -> None:
        for listener in self._when_lost:
            listener(self)

    @property
    def text(self) -> str:
        """The text so far; the whole of it once done."""
        if self.spans is not None:
            return "".join(span.text for span in self.spans)
        return "".join(self.pieces)

    @property
    def thinking(self) -> str | None:
        """Thoughts of the model so far, before the text; None where it does not think."""
        return None if self.thinking_pieces is None else "".join(self.thinking_pieces)

    @property
    def begun(self) -> bool:
        """True if some of its text, or of what is thought before it, is out."""
        return bool(self.pieces or self.thinking_pieces)

    def think(self, piece: str) -> None:
        """The model thinks, and more of that has come."""
        self.thinking_pieces = [] if self.thinking_pieces is None else self.thinking_pieces
        if piece:
            self.thinking_pieces.append(piece)
        self._notify()

    def begin(self) -> None:
        """Note that the variable's producer has started."""
        with self._lock:
            if self.state == "pending":
                self.state = "running"
        self._notify()

    def append(self, piece: str) -> None:
        """Append text that has come."""
        self.pieces.append(piece)
        self._notify()

    def resolve(
        self, value: Any, *, spans: tuple[Span, ...] | None = None, finish: str | None = None, usage: Usage | None = None
    ) -> None:
        """Give the value.

        Raises:
            AlreadySetError: it already has a value, failed or was cancelled.
        """
        with self._lock:
            if self.final:
                raise AlreadySetError(f"Variable '{self.name}' is already {self.state}: make a new one with P.variable().")
            self.value, self.spans, self.finish = value, spans, finish
            self.usage = usage or self.usage
            self.state = "done"
        self._tell_end()

    def fail(self, error: BaseException) -> bool:
        """End without a value. Returns False, and changes nothing, where it had already ended."""
        with self._lock:
            if self.final:
                return False
            self.error = error
            self.state = "cancelled" if is_cancelled(error) else "failed"
        self._tell_end()
        return True

    @property
    def future(self) -> Future[Any]:
        """Future of the variable's end, made for whoever asks for one."""
        with self._lock:
            if (future := self._future) is None:
                future = self._future = Future()
                if self.final:  # nobody else will set it
                    self._set(future)
            return future

    def watch_end(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once it is final, on the writer's thread, or now where it is; it may only hand a message over."""
        with self._lock:
            if not self.final:
                self._when_final += (callback,)
                return
        notified(callback)

    def unwatch_end(self, callback: Callable[[], None]) -> None:
        """Have it called no more."""
        with self._lock:
            self._when_final = tuple(other for other in self._when_final if other != callback)

    def _tell_end(self) -> None:
        with self._lock:
            future, callbacks, self._when_final = self._future, self._when_final, ()
        if future is not None and not future.done():
            self._set(future)
        for callback in callbacks:
            notified(callback)
        self._notify()

    def _set(self, future: Future[Any]) -> None:
        if self.error is not None:
            future.set_exception(self.error)
        else:
            future.set_result(self.value)

    def abandon(self, error: BaseException) -> None:
        """End without a value and without a word to listeners, in a process that was forked from the one where it is written: locks may
        be held by threads that are not here."""
        self._lock, self._future, self._when_final, self._listeners = threading.Lock(), None, (), ()
        self.fail(error)

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have `listener` called after every change, on the writer's thread; it may only hand a message over.

        Returns a function that ends the subscription.
        """
        with self._lock:
            self._listeners += (listener,)

        def unsubscribe() -> None:
            with self._lock:
                if listener in self._listeners:
                    i = self._listeners.index(listener)
                    self._listeners = self._listeners[:i] + self._listeners[i + 1 :]

        return unsubscribe

    def _notify(self) -> None:
        for listener in self._listeners:
            notified(listener)
