"""Messages that a session has not sent to its runtime yet: calls, and variables that no user can read any more."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from parrot_nb.engine.protocol import ModelInfo
from parrot_nb.errors import SessionError
from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import LATENCY, THROUGHPUT, VariableNode
from parrot_nb.runtime import messages
from parrot_nb.runtime.choice import ModelChoice
from parrot_nb.session.connection import Connection
from parrot_nb.session.handles import Handles


class Unsent:
    """Calls in order, as they were made. What is taken from here is posted before anything that comes after it.

    Args:
        connection: to the runtime.
        handles: of the session.
    """

    def __init__(self, connection: Connection, handles: Handles) -> None:
        self._connection = connection
        self._handles = handles
        self._calls: list[Call] = []
        self._lost: deque[VariableNode] = deque()

    def __bool__(self) -> bool:
        """Whether there are calls."""
        return bool(self._calls)

    def add(self, calls: Sequence[Call]) -> None:
        """Calls were made."""
        for call in calls:
            for node in (*call.outputs, *(node for node in call.inputs.values() if node.reachable)):
                node.on_lost(self._lost.append)
        self._calls += calls

    def flush(self, *, eager: bool, reading: messages.Reading | None = None) -> None:
        """Send everything on, and who reads variables now, with the calls if there are any. Returns at once."""
        with self._connection.lock:
            if batch := self._calls[:]:
                cells = [(call, self._handles.cell_of(call)) for call in batch]
                self._connection.submit(cells, eager=eager, reading=reading)
                del self._calls[: len(batch)]  # last: an interrupt before it has them sent twice, which does no harm
            if lost := [self._lost.popleft() for _ in range(len(self._lost))]:
                self._connection.lost(lost)
            if reading is not None and not batch:
                self._connection.tell(reading)

    def sent(self) -> list[Call]:
        """The calls that were sent and have not ended."""
        with self._connection.lock:
            here = {call.id for call in self._calls}
        return [call for call in self._handles.open_calls if call.id not in here]

    def take_all(self) -> list[Call]:
        """The calls, which nobody will send any more."""
        with self._connection.lock:
            taken, self._calls = self._calls, []
        return taken

    def move(self, *, eager: bool) -> None:
        """End the runtime; what it had taken and not begun goes to the next one, and is read there as it was here."""
        self._connection.end()
        with self._connection.lock:
            waiting = self.sent()
            self._calls[:0] = waiting
            for perf in (LATENCY, THROUGHPUT):
                if read := [node.id for call in waiting for node in call.outputs if node.objective is perf]:
                    self.flush(eager=eager, reading=messages.Reading(tuple(read), perf))

    def load_afresh(self, question: messages.LoadModel, choice: ModelChoice, *, eager: bool) -> ModelInfo:
        """Load a model in a new process, since a process gives back all its memory only with its end.

        Args:
            question: which model, and its settings.
            choice: of the session; the model before is chosen again if this one cannot be loaded.
            eager: as of `move`.

        Raises:
            SessionError: calls are running.
            ModelError: the model cannot be loaded.
        """
        if any(call.state == "running" for call in self._handles.open_calls):
            raise SessionError(
                "Calls are running on the model: wait for them, or cancel them with %parrot cancel, then load another."
            )
        try:
            with choice.changed(question.model, question.settings):
                self.move(eager=eager)
                return self._connection.ask(question).models[0]
        except BaseException:
            self.move(eager=eager)  # the model before is the default again
            raise
