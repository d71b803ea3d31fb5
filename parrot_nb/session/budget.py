"""Bounds on what the calls of a block may take together: what exceeds them is cancelled, and says so in one sentence."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self

from parrot_nb.errors import OptionError, SessionError, UsageError
from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import FINAL_STATES
from parrot_nb.runtime.events import CallAdded, CallChanged, TextAppended, ThinkingAppended, VariableChanged, now_s

if TYPE_CHECKING:
    from parrot_nb.session.session import Session

LOOK_S = 0.05  # from one look to the next: each takes the interpreter from the notebook

_entered: ContextVar[tuple[Budget, ...]] = ContextVar("parrot_budgets", default=())


class Budget:
    """A block whose calls take so many tokens and seconds at most, together; made by `budget`."""

    def __init__(self, tokens: int | None, seconds: float | None) -> None:
        self._tokens = tokens
        self._seconds = seconds
        self._end_s = math.inf
        self._calls: dict[int, tuple[Session, Call]] = {}
        self._sent: set[int] = set()  # calls of these that a runtime has had
        self._written: dict[int, int] = {}  # tokens of each variable that a call of the block writes
        self._read: dict[int, tuple[Session, int]] = {}  # number of the next event of each session, by its id
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._token: Token[tuple[Budget, ...]] | None = None
        self._left = False
        self._watches = False  # a thread does
        self._unsubscribe: list[Callable[[], None]] = []
        self._why: str | None = None  # once it is used up

    @property
    def spent_tokens(self) -> int:
        """Tokens that models have written for the calls of the block so far, thoughts and refused attempts included."""
        with self._lock:
            self._count()
            return sum(self._written.values())

    @property
    def left_tokens(self) -> float:
        """Tokens that may still be written; infinite where they are not bounded."""
        return math.inf if self._tokens is None else max(0, self._tokens - self.spent_tokens)

    @property
    def left_s(self) -> float:
        """Seconds that are left of the block's time; infinite where it is not bounded, and all of it before the block is entered."""
        if self._seconds is None:
            return math.inf
        return self._seconds if self._end_s == math.inf else max(0.0, self._end_s - now_s())

    def __enter__(self) -> Self:
        if self._token is not None:
            raise UsageError("This budget is in use, or has been: make another with P.budget().")
        self._token = _entered.set((*_entered.get(), self))
        if self._seconds is not None:
            self._end_s = now_s() + self._seconds
        with self._lock:
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None, "it was entered"
        _entered.reset(self._token)
        self._left = True
        self._news.set()

    def _add(self, session: Session, calls: Sequence[Call]) -> None:
        """Calls were made in the block."""
        with self._lock:
            if id(session) not in self._read:
                self._read[id(session)] = session, len(session.events)
                self._unsubscribe.append(session.events.subscribe(self._hear))
            for call in calls:
                self._calls[call.id] = session, call
                self._written.update({node.id: 0 for node in call.outputs})
            self._start()  # a map goes on after its block
        self._news.set()

    def _start(self) -> None:
        """Have a thread watch, while the lock is held."""
        if not self._watches:
            self._watches = True
            threading.Thread(target=self._watch, name="parrot-budget", daemon=True).start()

    def _hear(self) -> None:
        """A session's log has a new event. Where no thread watches, it may be that a call was sent which nobody had read until now."""
        self._news.set()
        if not self._watches:
            with self._lock:
                self._count()
                if self._calls.keys() & self._sent:
                    self._start()

    def _watch(self) -> None:
        """Cancel what exceeds the budget, until the block has been left and its calls have ended or wait to be read."""
        cancelled: set[int] = set()
        while True:
            left_s = self._end_s - now_s()
            self._news.wait(None if left_s == math.inf or self._why is not None else max(0.0, left_s))
            self._news.clear()
            with self._lock:
                self._count()
                self._calls = {i: entry for i, entry in self._calls.items() if entry[1].state not in FINAL_STATES}
                open_calls = list(self._calls.values())
                self._why = self._why or self._exceeded()
            if self._why is not None:
                for session, call in open_calls:
                    if call.id not in cancelled:
                        cancelled.add(call.id)
                        with contextlib.suppress(SessionError):  # it is closed, and with it the call has ended
                            session.cancel(call.outputs, why=self._why)
            with self._lock:
                if self._is_over():
                    self._watches = False
                    self._read.clear()
                    while self._unsubscribe:
                        self._unsubscribe.pop()()
                    return
                if self._is_idle():
                    self._watches = False
                    if not self._news.is_set():  # in this order, so that either this sees what comes now or `_hear` does
                        return
                    self._watches = True
            time.sleep(LOOK_S)

    def _is_over(self) -> bool:
        """Whether the block was left and all its calls have ended."""
        return self._left and not any(session.is_open for session, _ in self._calls.values())

    def _is_idle(self) -> bool:
        """Whether the block was left, no bound of time is near, and its calls wait for somebody to read them, who may never come."""
        return self._left and (self._end_s == math.inf or self._why is not None) and not self._calls.keys() & self._sent

    def _count(self) -> None:
        """Take in what has happened since."""
        for key, (session, index) in self._read.items():
            events, following = session.events.news(index)
            self._read[key] = session, following
            for event in events:
                match event:
                    case CallAdded() | CallChanged() if event.call_id in self._calls:
                        self._sent.add(event.call_id)
                    case TextAppended() | ThinkingAppended() if event.variable_id in self._written:
                        self._written[event.variable_id] += event.num_tokens
                    case VariableChanged(usage=usage) if usage is not None and event.variable_id in self._written:
                        written = self._written[event.variable_id]
                        self._written[event.variable_id] = max(written, usage.decoded_tokens)
                    case _:
                        pass

    def _exceeded(self) -> str | None:
        """Why nothing more may run; None while something may."""
        if self._tokens is not None and sum(self._written.values()) > self._tokens:
            return f"was cancelled, since its block has used up its budget of {self._tokens} tokens"
        if now_s() >= self._end_s:
            return f"was cancelled, since its block has used up its budget of {self._seconds:g} s"
        return None


def budget(*, tokens: int | None = None, seconds: float | None = None) -> Budget:
    """A context manager that bounds what the calls made in its block take together; what exceeds it is cancelled.

    The calls count also after the block, where they are read later; those that a native function makes while it runs do not. What is written is looked at as it streams, so a few tokens more
    than the bound may have been written by then.

    Args:
        tokens: the most that models may write for them, thoughts and refused attempts included.
        seconds: the longest time from entering the block on.

    Raises:
        OptionError: neither is given, or one is no number above 0.
    """
    if tokens is None and seconds is None:
        raise OptionError("P.budget() needs a bound: say tokens=N, seconds=S or both.")
    if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1):
        raise OptionError(f"tokens must be a whole number, at least 1, not {tokens!r}.")
    if seconds is not None and not _is_time(seconds):
        raise OptionError(f"seconds must be a number above 0, and finite, not {seconds!r}.")
    return Budget(tokens, seconds)


def add_to_budgets(session: Session, calls: Sequence[Call]) -> None:
    """Count calls that this thread or task makes against the budgets of the blocks that it is in."""
    for each in _entered.get():
        each._add(session, calls)  # noqa: SLF001 - of this module


def _is_time(seconds: Any) -> bool:
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    return number and math.isfinite(seconds) and seconds > 0
