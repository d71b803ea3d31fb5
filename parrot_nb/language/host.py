"""The seam between what a user writes and what runs it: the few things a session does for functions and variables.

`language` knows no graph, engine or notebook; it knows that calls are handed to a `Host`. `parrot_nb.session` provides it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from parrot_nb.language.calls import Call
    from parrot_nb.language.nodes import Perf, VariableNode


@dataclass(frozen=True, slots=True)
class RenderedSegment:
    """One segment of a rendered prompt.

    Attributes:
        kind: "constant", "input", "output", "begin" for the text that an output begins with, "thinking" for what
            the model thinks before it (without text), or "frame" for what a chat
            template adds.
        name: the placeholder's name, or None.
        text: its text; empty for an output.
        token_ids: what the model is given for it.
        taken_back: for an output, text of the prompt's last token, which is not filled: the model writes it again, with the
            token that is likeliest to begin with it (token healing).
    """

    kind: str
    name: str | None
    text: str
    token_ids: tuple[int, ...]
    taken_back: str = ""


class Host(Protocol):
    """Services of a session for the language. All methods may be called from any thread but the runtime's own."""

    def submit(self, calls: Sequence[Call]) -> None:
        """Take new calls, each after those that it reads. Returns at once and runs nothing; calls are sent on together, in order, at
        the next `read` or when the cell ends.

        Raises:
            SessionError: the session is closed, or an input belongs to another session.
        """

    def read(self, nodes: Sequence[VariableNode], perf: Perf | None) -> None:
        """Somebody wants these variables: send on what was submitted, and run what they depend on.

        Raises:
            SessionError: the session is closed, or this is the runtime thread (waiting here would deadlock).
        """

    def wait(self, nodes: Sequence[VariableNode], timeout_s: float | None) -> None:
        """Block until every node is final.

        An interrupt cancels what these nodes wait for, then leaves as KeyboardInterrupt.

        Raises:
            GetTimeoutError: `timeout_s` seconds have passed.
            SessionError: they wait for a variable that nothing has set, and no task of this thread's running loop can set it now.
            CancelledError: the task that waits was cancelled.
        """

    def interrupted(self, nodes: Sequence[VariableNode]) -> None:
        """An `await` of these nodes was cancelled; the face decides whether a user's interrupt was the reason."""

    def cancel(self, nodes: Sequence[VariableNode]) -> None:
        """Cancel the calls that produce these nodes, as far as they have not ended. Returns at once."""

    def when_cancelled(self, callback: Callable[[frozenset[int] | None], None]) -> None:
        """Have a bound method told of variables that are cancelled, by id, and of None where all are; for as long as its object lives."""

    def render(self, function: Any, inputs: Mapping[str, VariableNode]) -> tuple[RenderedSegment, ...]:
        """The prompt of a semantic function for these inputs, segment by segment, as the model would get it. Loads
        the model if need be and runs nothing."""

    def plan(self, calls: Sequence[Call]) -> Any:
        """A `Plan` of these calls and of those that they wait for. Loads the model if need be and runs nothing."""

    def describe(self, call: Call) -> Any:
        """Return what the runtime deduced of a call: its `path`, a `Path` or None, and why it was `placed` where it runs."""


class SessionObserver(Protocol):
    """Observer of a session, such as a front end; called on the thread where things happen."""

    def submitted(self, call: Call) -> None:
        """A call was made."""

    def reading(self, nodes: Sequence[VariableNode]) -> None:
        """Somebody is about to wait for these."""


_entered: ContextVar[Host | None] = ContextVar("parrot_host", default=None)
_entered_here: list[Entered] = []  # of the whole process, the innermost last
_default: Callable[[], Host] | None = None


class Entered:
    """From when a session is entered with `with` until it is left: calls made in this context are its own, and so are those of threads
    that were started inside and know of no session themselves.

    Args:
        host: the session.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.thread = threading.get_ident()
        self._token: Token[Host | None] = _entered.set(host)
        _entered_here.append(self)

    def leave(self) -> None:
        """Leave the session."""
        if self in _entered_here:
            _entered_here.remove(self)
        try:
            _entered.reset(self._token)
        except ValueError:  # another task of this thread leaves it
            before = self._token.old_value
            _entered.set(None if before is Token.MISSING else before)


def entered_session() -> Host | None:
    """The session entered in this context, else the innermost one that is entered anywhere in the process: a thread that was started
    inside `with` has a context of its own."""
    if (host := _entered.get()) is not None:
        return host
    entered = _entered_here[-1:]
    return entered[0].host if entered else None


def current_host() -> Host:
    """The session entered with `with`, else the default one, made on first need."""
    host = entered_session()
    if host is not None:
        return host
    assert _default is not None, "parrot_nb.session provides the default host when it is imported"
    return _default()


def provide_default_host(factory: Callable[[], Host]) -> None:
    """Called once, by `parrot_nb.session`: how to get the default session."""
    global _default
    _default = factory


entered_host = _entered
