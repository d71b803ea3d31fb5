"""Where native functions and conditions run: in the user's process, a thread each, or on one loop for `async`.

They hear of it by the runtime's messages, and answer with messages. Whatever they raise belongs to their call.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from parrot_nb.language.calls import Call
from parrot_nb.language.host import Host, entered_host
from parrot_nb.language.nodes import Objective, Span, VariableNode
from parrot_nb.language.picks import Pick
from parrot_nb.language.reading import Countdown, send
from parrot_nb.language.text import checked_characters
from parrot_nb.language.types import reason_of
from parrot_nb.language.variable import SemanticVariable, VariableList, host_of
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
from parrot_nb.session.circles import waiting_functions
from parrot_nb.session.foreign import attempt, failure, is_plain
from parrot_nb.session.outgoing import given_value, needs_text
from parrot_nb.session.places import Places, Run

QUICK_VALUES = (str, bool, int, float, type(None), SemanticVariable)


class _Running(NamedTuple):
    """A function in whose context something runs; it may belong to another session than what it reads.

    Attributes:
        run: the function.
        told: ends it with an error.
    """

    run: Run
    told: Callable[[BaseException], None]


_running: contextvars.ContextVar[_Running | None] = contextvars.ContextVar("parrot_running", default=None)


class FunctionRunner:
    """Runs the functions of one session.

    Args:
        host: the session, to which calls that are made inside belong.
        post: tells the runtime.
    """

    def __init__(self, host: Host, post: Callable[[Message], None]) -> None:
        self._host = host
        self._post = post
        self._lock = threading.Lock()
        self._runs: dict[int, Run] = {}  # by call
        self.results: dict[int, Any] = {}  # the values that native calls gave, by call, until their variables have them
        self.parsed: dict[int, Any] = {}  # values that were made of texts, by variable, until that has its own
        self._asyncs = AsyncFunctions()
        self._places = Places(self._work, lambda run, error: self._ended(run, None, error))

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

        self._start(Run(call, what, run, finish, objective), is_async=function.is_async)

    def ask(self, call: Call, source: VariableNode, objective: Objective) -> None:
        """Ask the condition of a choice about a value. Returns at once."""
        condition = call.race.where
        assert condition is not None, "a choice without condition asks nobody"
        what = "The condition of P.first"

        def finish(said: Any, error: BaseException | None) -> None:
            if error is None and _nodes_of(said):
                said, error = False, failure(what, TypeError("it returned a variable instead of True or False"))
            accepted = error is None and bool(said)
            if not accepted:
                waiting_functions.refused(call, source)
            self._post(Judged(call.id, source.id, accepted, error))

        self._start(Run(call, what, lambda: condition.function(source.value), finish, objective), is_async=condition.is_async)

    def check(self, call: Call, node: VariableNode, text: str, objective: Objective) -> None:
        """Make the value of an output, and keep it if it is one. Returns at once."""

        def finish(value: Any, error: BaseException | None) -> None:
            if error is None:
                self.parsed[node.id] = value
            reason = "" if error is None else reason_of(error.__cause__ or error)
            self._post(Judged(call.id, node.id, error is None, reason=reason))

        read = partial(call.semantic.value_of, node.name, text)
        self._start(Run(call, f"The check of '{node.name}'", read, finish, objective), is_async=False)

    def unwanted(self, call_id: int) -> None:
        """Nobody wants the result any more: stop an `async` function, and disown a plain one, since Python cannot end a thread from
        outside. Neither takes a place from now on."""
        with self._lock:
            self.results.pop(call_id, None)
            run = self._runs.pop(call_id, None)
            if run is None:
                return
            run.unwanted = run.over = True
        waiting_functions.forget([call_id])
        self._places.leave(run)
        self._asyncs.cancel(call_id)

    def close(self) -> None:
        """Stop the loop of `async` functions; threads end with their function."""
        with self._lock:
            runs = list(self._runs.values())
            for run in runs:
                run.over = True
            self._runs.clear()
            self.results.clear()
            self.parsed.clear()
        waiting_functions.forget(run.call.id for run in runs)
        self._places.close()
        self._asyncs.close()

    # Running

    def _start(self, run: Run, *, is_async: bool) -> None:
        context = contextvars.copy_context()
        context.run(entered_host.set, self._host)
        context.run(_running.set, _Running(run, partial(self._over, run, None)))
        with self._lock:
            self._runs[run.call.id] = run
        if is_async:
            self._asyncs.start(run.call.id, context, run.function, lambda value, error: self._ended(run, value, error))
            return
        run.function = partial(context.run, run.function)
        self._places.start(run)

    def _work(self, run: Run) -> None:
        value, error = attempt(run.function)
        self._ended(run, value, error)

    def _ended(self, run: Run, value: Any, error: BaseException | None) -> None:
        """A function has returned; where that is a variable, its value is waited for without a thread."""
        self._places.leave(run)
        if run.unwanted:
            return
        nodes = _nodes_of(value) if run.call.kind == "native" and error is None else []
        if nodes:
            _, error = attempt(partial(self._await, run, value))
        if nodes and error is None:
            Countdown(nodes, lambda: self._over(run, value, None))
        else:
            self._over(run, value, error)

    def _await(self, run: Run, returned: SemanticVariable | VariableList) -> None:
        """A function has returned variables, which its own output waits for."""
        nodes = _nodes_of(returned)
        waiting_functions.begin(run.call, nodes, partial(self._over, run, None))
        send(host_of([returned]) or self._host, nodes, run.objective)

    def _over(self, run: Run, value: Any, error: BaseException | None) -> None:
        with self._lock:
            if run.unwanted or self._runs.get(run.call.id) is not run:
                return
        quick = issubclass(type(value), QUICK_VALUES) if error is None else is_plain(error) and error.__cause__ is None
        if self._asyncs.is_current and not quick:  # methods of the user's may take long
            end = partial(self._told, run, value, error)
            threading.Thread(target=end, name=f"parrot-native-{run.call.name}", daemon=True).start()
        else:
            self._told(run, value, error)

    def _told(self, run: Run, value: Any, error: BaseException | None) -> None:
        if error is None:  # else the value is none
            _, error = attempt(partial(run.finish, value, None))
        if error is not None:
            run.finish(None, failure(run.what, error))
        with self._lock:
            run.over = True
            if self._runs.get(run.call.id) is run:
                del self._runs[run.call.id]
        waiting_functions.forget([run.call.id])

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
        """Variables are about to be read, by a native function if this is the context of one.

        Raises:
            SessionError: one of them waits for that very function, through any number of others.
        """
        if (running := _running.get()) is not None and not running.run.over:
            waiting_functions.begin(running.run.call, nodes, running.told)
            if running.run.over:  # meanwhile
                waiting_functions.forget([running.run.call.id])

    def read(self, nodes: Sequence[VariableNode]) -> None:
        """The function of this context waits for these variables no more."""
        if (running := _running.get()) is not None and not running.run.over:
            waiting_functions.end(running.run.call, nodes)


def _nodes_of(value: Any) -> list[VariableNode]:
    """The variables that a function returned; `isinstance` would ask the value itself."""
    kind = type(value)
    return [value.node] if issubclass(kind, SemanticVariable) else value.nodes if issubclass(kind, VariableList) else []
