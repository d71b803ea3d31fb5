"""Where native functions and conditions run: in the user's process, a thread each, or on one loop for `async`.

They hear of it by the runtime's messages, and answer with messages. Whatever they raise belongs to their call.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from parrot_nb.errors import ParrotError, SessionError
from parrot_nb.language.calls import Call
from parrot_nb.language.host import Host, entered_host
from parrot_nb.language.nodes import Objective, Span, VariableNode
from parrot_nb.language.picks import Pick
from parrot_nb.language.reading import Countdown
from parrot_nb.language.text import checked_characters
from parrot_nb.language.types import reason_of
from parrot_nb.language.variable import SemanticVariable, VariableList
from parrot_nb.runtime.endings import upstream_error
from parrot_nb.runtime.messages import (
    CheckAsked,
    ConditionAsked,
    FunctionEnded,
    FunctionUnwanted,
    FunctionWanted,
    Given,
    Judged,
    Message,
)
from parrot_nb.session.asyncs import AsyncFunctions
from parrot_nb.session.foreign import failure
from parrot_nb.session.outgoing import given_value, needs_text

QUICK_VALUES = (str, bool, int, float, type(None), SemanticVariable)
MAX_THREADS = 32  # native functions mostly wait for other services; more of them at once rarely helps

_in_native_thread = threading.local()
_running_call: contextvars.ContextVar[int | None] = contextvars.ContextVar("parrot_running_call", default=None)


@dataclass(eq=False)
class _Run:
    """A function that was asked for.

    Attributes:
        finish: takes its result, or what it raised.
        counts: whether it takes one of the places.
    """

    call: Call
    what: str
    function: Callable[[], Any]
    finish: Callable[[Any, BaseException | None], None]
    objective: Objective
    counts: bool = False
    unwanted: bool = False
    waits_for: list[VariableNode] = field(default_factory=list)


class FunctionRunner:
    """Runs the functions of one session. A function that blocks in `get()` gives its place to another meanwhile (`blocked`), so that
    calls which wait for each other cannot use up all threads.

    Args:
        host: the session, to which calls that are made inside belong.
        post: tells the runtime.
    """

    def __init__(self, host: Host, post: Callable[[Message], None]) -> None:
        self._host = host
        self._post = post
        self._lock = threading.Lock()
        self._num_running = 0
        self._queue: deque[_Run] = deque()
        self._runs: dict[int | None, _Run] = {}  # by call
        self.results: dict[int, Any] = {}  # the values that native calls gave, by call, until their variables have them
        self.parsed: dict[int, Any] = {}  # values that were made of texts, by variable, until that has its own
        self._asyncs = AsyncFunctions()

    def on_async_loop(self) -> bool:
        """Whether the caller is on the loop of the `async` native functions, which must never block."""
        return self._asyncs.is_current

    def hear(self, item: FunctionWanted | FunctionUnwanted | ConditionAsked | CheckAsked, call: Call | None) -> None:
        """The runtime wants a function of a call, or wants it no more (the thread that hears it)."""
        match item:
            case FunctionUnwanted():
                self.unwanted(item.call_id)
            case FunctionWanted() if call is not None:
                self.wanted(call, item.objective)
            case ConditionAsked() if call is not None:
                source = next(node for node in call.inputs.values() if node.id == item.variable_id)
                self.ask(call, source, item.objective)
            case CheckAsked() if call is not None:
                node = next(node for node in call.outputs if node.id == item.variable_id)
                self.check(call, node, item.text, item.objective)

    def wanted(self, call: Call, objective: Objective) -> None:
        """Run a native call. Returns at once."""
        what = f"Native function '{call.name}'"
        function = call.native

        def run() -> Any:
            if isinstance(function, Pick):
                return SemanticVariable.of(function.picked(call), self._host)
            args, kwargs = function.bind({name: source.value for name, source in call.inputs.items()})
            return function.function(*args, **kwargs)

        def finish(value: Any, error: BaseException | None) -> None:
            self._finish(call, value, error)

        self._start(_Run(call, what, run, finish, objective), is_async=function.is_async)

    def ask(self, call: Call, source: VariableNode, objective: Objective) -> None:
        """Ask the condition of a choice about a value. Returns at once."""
        condition = call.race.where
        assert condition is not None, "a choice without condition asks nobody"
        what = "The condition of P.first"

        def finish(said: Any, error: BaseException | None) -> None:
            accepted = False
            if error is None:
                try:
                    if isinstance(said, (SemanticVariable, VariableList)):
                        raise TypeError("it returned a variable instead of True or False")  # noqa: TRY301
                    accepted = bool(said)
                except BaseException as raised:
                    error = failure(what, raised)
            self._post(Judged(call.id, source.id, accepted, error))

        self._start(_Run(call, what, lambda: condition.function(source.value), finish, objective), is_async=condition.is_async)

    def check(self, call: Call, node: VariableNode, text: str, objective: Objective) -> None:
        """Make the value of an output, and keep it if it is one. Returns at once."""

        def finish(value: Any, error: BaseException | None) -> None:
            if error is None:
                self.parsed[node.id] = value
            reason = "" if error is None else reason_of(error.__cause__ or error)
            self._post(Judged(call.id, node.id, error is None, reason=reason))

        read = partial(call.semantic.value_of, node.name, text)
        self._start(_Run(call, f"The check of '{node.name}'", read, finish, objective), is_async=False)

    def unwanted(self, call_id: int) -> None:
        """Nobody wants the result any more: stop an `async` function, and disown a plain one, since Python cannot end a thread from
        outside. Neither takes a place from now on."""
        with self._lock:
            self.results.pop(call_id, None)
            run = self._runs.pop(call_id, None)
            if run is None:
                return
            run.unwanted = True
            if run in self._queue:
                self._queue.remove(run)
            self._give_place_back(run)
        self._asyncs.cancel(call_id)
        self._start_queued()

    def close(self) -> None:
        """Stop the loop of `async` functions; threads end with their function."""
        with self._lock:
            self._queue.clear()
            self._runs.clear()
            self.results.clear()
            self.parsed.clear()
        self._asyncs.close()

    # Running

    def _start(self, run: _Run, *, is_async: bool) -> None:
        context = contextvars.copy_context()
        context.run(entered_host.set, self._host)
        context.run(_running_call.set, run.call.id)
        with self._lock:
            self._runs[run.call.id] = run
        if is_async:
            self._asyncs.start(run.call.id, context, run.function, lambda value, error: self._ended(run, value, error))
            return
        run.function = _in_context(context, run.function)
        with self._lock:
            self._queue.append(run)
        self._start_queued()

    def _start_queued(self) -> None:
        while True:
            with self._lock:
                if not self._queue or self._num_running >= MAX_THREADS:
                    return
                run = self._queue.popleft()
                run.counts = True
                self._num_running += 1
            try:
                threading.Thread(target=self._work, args=(run,), name=f"parrot-native-{run.call.name}", daemon=True).start()
            except RuntimeError as error:  # the process ends, or has no thread left
                self._ended(run, None, error)

    def _work(self, run: _Run) -> None:
        _in_native_thread.place = self, run
        value, error = None, None
        try:
            value = run.function()
        except BaseException as raised:  # whatever user code raises belongs to its call
            error = raised
        self._ended(run, value, error)

    def _ended(self, run: _Run, value: Any, error: BaseException | None) -> None:
        """A function has returned; where that is a variable, its value is waited for without a thread."""
        with self._lock:
            self._give_place_back(run)
            if run.unwanted:
                return
        self._start_queued()
        if error is not None:
            self._over(run, None, failure(run.what, error))
            return
        nodes = _nodes_of(value)
        if run.call.kind != "native" or not nodes:
            self._over(run, value, None)
            return
        try:
            self._waits(run, nodes)
            self._host.read(nodes, run.objective)
        except BaseException as raised:
            self._over(run, None, failure(run.what, raised))
            return
        Countdown(nodes, lambda: self._over(run, value, None))

    def _over(self, run: _Run, value: Any, error: ParrotError | None) -> None:
        with self._lock:
            if run.unwanted or self._runs.get(run.call.id) is not run:
                return
        if self._asyncs.is_current and not issubclass(type(value), QUICK_VALUES):  # its own methods may take long
            end = partial(self._told, run, value, error)
            threading.Thread(target=end, name=f"parrot-native-{run.call.name}", daemon=True).start()
        else:
            self._told(run, value, error)

    def _told(self, run: _Run, value: Any, error: ParrotError | None) -> None:
        try:
            run.finish(value, error)
        except BaseException as raised:  # a value whose own methods raise
            run.finish(None, failure(run.what, raised))
        with self._lock:
            if self._runs.get(run.call.id) is run:
                del self._runs[run.call.id]

    def _finish(self, call: Call, value: Any, error: BaseException | None) -> None:
        (output,) = call.outputs
        like = None
        nodes = _nodes_of(value)
        if error is None and (failed := next((node for node in nodes if node.error is not None), None)) is not None:
            error = upstream_error(call, failed)
        if error is not None:
            self._post(FunctionEnded(call.id, Given(output.id, output.name, error=error)))
            return
        spans: tuple[Span, ...] | None = None
        if issubclass(type(value), SemanticVariable):
            like, spans, value = value.node.id, value.node.spans, value.node.value
        elif issubclass(type(value), VariableList):
            value = [node.value for node in nodes]
        elif issubclass(type(value), str):
            spans = (Span(checked_characters(str.__str__(value), f"the text that native function '{call.name}' returned")),)
        if spans is not None:
            told = Given(output.id, output.name, spans=spans)
        else:
            reads_text = any(needs_text(reader) for reader in output.consumers)
            told = given_value(output.id, output.name, value, held=output.reachable, needs_text=reads_text)
        with self._lock:
            if call.id not in self._runs:  # nobody wants it any more
                return
            self.results[call.id] = value
        self._post(FunctionEnded(call.id, told, like))

    # Waiting

    def reading(self, nodes: Sequence[VariableNode]) -> None:
        """Variables are about to be read, by a function of this session if this is the context of one.

        Raises:
            SessionError: one of them waits for that very function, through any number of others.
        """
        run = self._runs.get(_running_call.get())
        if run is not None:
            self._waits(run, nodes)

    def read(self, nodes: Sequence[VariableNode]) -> None:
        """The function of this context waits for these variables no more."""
        run = self._runs.get(_running_call.get())
        if run is not None:
            with self._lock:
                run.waits_for = [node for node in run.waits_for if node not in nodes]

    def _waits(self, run: _Run, nodes: Sequence[VariableNode]) -> None:
        """A function is about to wait. Under the lock, so that of two that begin to wait for each other the second is told."""
        with self._lock:
            for node in nodes:
                if self._needs(node, run.call):
                    raise SessionError(
                        f"'{run.call.name}' waits for '{node.name}', which waits for '{run.call.name}': it would never end."
                    )
            run.waits_for = [node for node in (*run.waits_for, *nodes) if not node.final]

    def _needs(self, node: VariableNode, call: Call, above: frozenset[int] = frozenset()) -> bool:
        """Whether a variable cannot have its value before a call has ended."""
        seen = set(above)
        pending = [node]
        while pending:
            node = pending.pop()
            producer = node.producer
            if node.final or producer is None or producer.id in seen:
                continue
            if producer is call:
                return True
            seen.add(producer.id)
            if producer.kind != "first":
                pending += producer.inputs.values()
            elif all(self._needs(source, call, frozenset(seen)) for source in producer.inputs.values()):
                return True
            run = self._runs.get(producer.id)
            pending += run.waits_for if run is not None else ()
        return False

    def _give_place_back(self, run: _Run) -> None:
        if run.counts:
            run.counts = False
            self._num_running -= 1

    def lend_place(self, run: _Run, change: int) -> None:
        """A function that runs begins (-1) or ends (+1) to wait."""
        with self._lock:
            if not run.unwanted:
                run.counts = change > 0
                self._num_running += change
        self._start_queued()


class blocked:  # noqa: N801 - a context manager reads as a verb
    """Around a wait: if this thread runs a native function, another may run meanwhile."""

    def __init__(self) -> None:
        self._place: tuple[FunctionRunner, _Run] | None = getattr(_in_native_thread, "place", None)

    def __enter__(self) -> None:
        if self._place is not None:
            runner, run = self._place
            runner.lend_place(run, -1)

    def __exit__(self, *exc_info: object) -> None:
        if self._place is not None:
            runner, run = self._place
            runner.lend_place(run, +1)


def _in_context(context: contextvars.Context, function: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: context.run(function)


def _nodes_of(value: Any) -> list[VariableNode]:
    """The variables that a function returned; `isinstance` would ask the value itself."""
    kind = type(value)
    return [value.node] if issubclass(kind, SemanticVariable) else value.nodes if issubclass(kind, VariableList) else []
