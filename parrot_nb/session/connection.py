"""The line between a session and its runtime: started on first need, questions and answers, what happens when it breaks."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from functools import partial

from parrot_nb.errors import EngineLostError, ParrotError, SessionError
from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import VariableNode
from parrot_nb.record import ProgressLine
from parrot_nb.runtime import messages
from parrot_nb.runtime.events import EventLog
from parrot_nb.runtime.messages import Answer, Message, Question
from parrot_nb.session.links import Broken, Link
from parrot_nb.session.outgoing import Outgoing, given
from parrot_nb.session.waiting import wait_for

INTERRUPTED_S = 5.0  # for engines to close where whoever waits for that is interrupted


class Connection:
    """One runtime at a time; what is posted arrives in order.

    Args:
        make: starts a runtime, given who is told when it ends by itself.
        events: the session's log, for a line of progress while somebody waits.
        broken: is told that a runtime has ended by itself, on the thread that heard it.
    """

    def __init__(self, make: Callable[[Broken], Link], events: EventLog, broken: Callable[[EngineLostError], None]) -> None:
        self.lock = threading.RLock()  # what is taken from a buffer is posted before anything that comes after it
        self._make = make
        self._events = events
        self._broken = broken
        self._link: Link | None = None
        self._outgoing = Outgoing()
        self._queries: dict[int, futures.Future[Answer]] = {}
        self._numbers = itertools.count(1)

    @property
    def link(self) -> Link | None:
        """Link to the runtime, if one runs."""
        link = self._link
        return link if link is not None and link.alive else None

    @property
    def is_current(self) -> bool:
        """Whether the caller is on the thread that hears the runtime."""
        return self._link is not None and self._link.is_current

    def check_may_wait(self) -> None:
        """Raise SessionError on that thread, which must never wait for the runtime."""
        if self.is_current:
            raise SessionError("A callback of the runtime must not wait for it: use another thread.")

    def started(self) -> Link:
        """The runtime, started if need be."""
        with self.lock:
            if self.link is None:
                self._outgoing.clear()
                self._link = self._make(self._ended)
            assert self._link is not None
            return self._link

    # Telling

    def tell(self, message: Message) -> None:
        """Tell the runtime, which is started if need be."""
        with self.lock:
            self.started().post(message)

    def tell_if_running(self, message: Message) -> None:
        """Tell the runtime, if there is one: what none waits for is nobody's."""
        with self.lock:
            if (link := self.link) is not None:
                link.post(message)

    def describe(self, calls: Sequence[Call]) -> None:
        """Calls will be submitted: whatever code of users' values is called for that runs now, on their thread."""
        self._outgoing.describe(calls)

    def submit(self, batch: Sequence[tuple[Call, int | None]], *, eager: bool, reading: messages.Reading | None = None) -> None:
        """Send calls, each with the number of the cell that made it, and who reads variables at the same time."""
        with self.lock:
            self.started().post(self._outgoing.submission(batch, eager=eager, reading=reading))
            self._outgoing.posted()
            for node in self._outgoing.take_pending():
                node.watch_end(partial(self._value_set, node))

    def lost(self, nodes: Sequence[VariableNode]) -> None:
        """Tell the runtime that no user can read these variables any more."""
        with self.lock:
            for node in nodes:
                self._outgoing.lost(node)
            self.tell_if_running(messages.Lost(tuple(node.id for node in nodes)))

    def _value_set(self, node: VariableNode) -> None:
        """A user has set a variable that calls wait for (any thread)."""
        self.tell_if_running(messages.ValueSet(given(node, needs_text=True)))

    # Asking

    def ask(self, question: Question) -> Answer:
        """The runtime's answer, waited for in short steps, so that an interrupt gets through; it then abandons the question."""
        self.check_may_wait()
        with self.lock:
            link = self.started()
            number, future = next(self._numbers), futures.Future[Answer]()
            self._queries[number] = future
            if isinstance(question, messages.Reset):
                self._outgoing.clear()  # of what is sent after it, the runtime knows nothing
            link.post(messages.Query(number, question))
        try:
            with ProgressLine(self._events) as line:
                return wait_for(future, line.tick, cancels=False)
        except KeyboardInterrupt:
            if isinstance(question, messages.Close):
                futures.wait([future], INTERRUPTED_S)
            else:
                link.post(messages.Abandoned(number))
            raise
        finally:
            self._queries.pop(number, None)

    def ask_if_running(self, question: Question) -> Answer:
        """The runtime's answer; number 0, which says that nothing runs, where there is none, or it ends before it answers."""
        if self.link is None:
            return Answer(0, idle=True)
        try:
            return self.ask(question)
        except EngineLostError:
            if self.link is not None:
                raise
            return Answer(0, idle=True)

    def answered(self, answer: Answer) -> None:
        """The runtime has answered (the thread that hears it)."""
        future = self._queries.get(answer.number)
        if future is None or future.done():
            return
        if answer.error is not None:
            future.set_exception(answer.error)
        else:
            future.set_result(answer)

    # Its end

    def end(self) -> None:
        """End the runtime and wait for that. Harmless when none runs."""
        with self.lock:
            link, self._link = self._link, None
            self._outgoing.clear()
        if link is not None:
            link.stop()
            self.fail_questions(SessionError("The runtime was ended before it had answered: ask again."))

    def close(self) -> None:
        """Have everything cancelled and the engines closed, then end the runtime."""
        try:
            if (link := self.link) is not None:
                link.close(lambda: self.ask(messages.Close()))
        finally:
            self.end()

    def abandon(self) -> None:
        """Forget the runtime, which belongs to another process; locks may be held by threads that are not here."""
        self.lock = threading.RLock()
        link, self._link = self._link, None
        if link is not None:
            link.abandon()

    def _ended(self, link: Link, error: EngineLostError) -> None:
        with self.lock:
            if self._link is not link:
                return
            self._link = None
            self._outgoing.clear()
            self._broken(error)  # under the lock: what is sent from now on goes to another, and is not to fail
            self.fail_questions(error)

    def fail_questions(self, error: ParrotError) -> None:
        """Fail all open questions, which nobody will answer."""
        for future in list(self._queries.values()):
            if not future.done():
                future.set_exception(error)
