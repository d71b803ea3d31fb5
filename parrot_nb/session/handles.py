"""The notebook's handles, kept up to date by what the runtime says: a fold, as the views are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec

from parrot_nb.errors import CallCancelledError
from parrot_nb.language.calls import Call
from parrot_nb.language.joins import Collection
from parrot_nb.language.nodes import FINAL_STATES, State, VariableNode
from parrot_nb.language.notify import message_of
from parrot_nb.language.types import reason_of
from parrot_nb.runtime import events
from parrot_nb.runtime.endings import refused
from parrot_nb.runtime.events import Event, EventLog, now_s
from parrot_nb.runtime.messages import Item, Outcome
from parrot_nb.session.foreign import attempt

KEPT_EVENTS = 2_000  # of those before a reset, for views that have not shown them yet
KEPT_CALLS = 2_000  # that have ended and that no user can reach any more


class Handles:
    """The calls of a session and their variables, in order of creation. Calls that have ended stay while a user can reach them, and of
    the others the last `KEPT_CALLS`.

    Args:
        log: events are recorded there, after the handles know of them.
        results: the values that native calls gave, by call; taken from there.
        parsed: values that were made of texts, by variable; taken from there.
    """

    def __init__(self, log: EventLog, results: dict[int, Any], parsed: dict[int, Any]) -> None:
        self._log = log
        self._results = results
        self._parsed = parsed
        self._calls: dict[int, Call] = {}
        self._cells: dict[int, int | None] = {}  # of calls that have not ended
        self._nodes: dict[int, VariableNode] = {}  # that are not final
        self._outcomes: dict[int, Outcome] = {}
        self._num_ended = 0
        self._sweep_at = KEPT_CALLS + KEPT_CALLS // 4
        self._folds: dict[
            type[Any], Callable[[Any], Event | None]
        ] = {  # most events change a handle: looked up, not tried one by one
            events.TextAppended: self._grow,
            events.ThinkingAppended: self._think,
            events.VariableChanged: self._change,
            events.CallChanged: self._change_call,
            events.ObjectiveDeduced: self._want,
            events.GroupDeduced: self._group,
            events.SessionReset: self._forget,
        }

    @property
    def calls(self) -> list[Call]:
        """Calls that are known."""
        return list(self._calls.values())

    @property
    def open_calls(self) -> list[Call]:
        """Calls that have not ended."""
        return [call for call in self.calls if call.state not in FINAL_STATES]

    def call(self, call_id: int) -> Call | None:
        """A call by its id."""
        return self._calls.get(call_id)

    def cell_of(self, call: Call) -> int | None:
        """The cell that made a call which has not ended."""
        return self._cells.get(call.id)

    def knows(self, call: Call) -> bool:
        """Whether a call is of this session, and was not forgotten."""
        return call.id in self._calls

    def variables(self) -> list[VariableNode]:
        """All variables of the calls, in order of their first appearance."""
        found: dict[int, VariableNode] = {}
        for call in self.calls:
            found.update({node.id: node for node in (*call.inputs.values(), *call.outputs) if node.id not in found})
        return list(found.values())

    def add(self, calls: Iterable[Call], cell: int | None) -> None:
        """Calls were made, in that cell (any thread)."""
        for call in calls:
            self._calls[call.id] = call
            self._cells[call.id] = cell
            self._nodes.update({node.id: node for node in call.outputs})

    def fail(self, call: Call, error: BaseException) -> None:
        """A call has no runtime any more: end it here, with its events."""
        state: State = "cancelled" if isinstance(error, CallCancelledError) else "failed"
        for node in call.outputs:
            if not node.final:
                self.apply(Outcome(node.id, thought=node.thinking_pieces is not None, error=error))
                self.apply(events.VariableChanged(now_s(), node.id, state, error=str(error), note=node.note))
        if call.state not in FINAL_STATES:
            self.apply(events.CallChanged(now_s(), call.id, state, "ended", call.engine, str(error)))

    def abandon(self, error: BaseException) -> None:
        """End all calls without an event, in a process that was forked from the one where they run."""
        for call in self.open_calls:
            for node in call.outputs:
                node.abandon(error)
            call.progress.state, call.progress.error = "failed", error

    def _forget(self, _: events.SessionReset) -> None:
        """Forget the calls that have ended, which are all that the runtime had."""
        for call in self.calls:
            if call.state in FINAL_STATES:
                del self._calls[call.id]
        self._outcomes.clear()
        self._num_ended = 0
        self._sweep_at = KEPT_CALLS + KEPT_CALLS // 4
        self._log.forget(keep=KEPT_EVENTS)

    def apply(self, item: Item) -> None:
        """Take in what the runtime says (the thread that hears it)."""
        if type(item) is Outcome:
            self._outcomes[item.variable_id] = item
            return
        if (fold := self._folds.get(type(item))) is not None:
            item = fold(item) or item
        self._log.append(item)  # type: ignore[arg-type]

    def _grow(self, event: events.TextAppended) -> None:
        if event.text and (node := self._nodes.get(event.variable_id)) is not None:
            node.append(event.text)

    def _think(self, event: events.ThinkingAppended) -> None:
        if (node := self._nodes.get(event.variable_id)) is not None:
            node.num_thinking_tokens += event.num_tokens
            node.think(event.text)

    def _want(self, event: events.ObjectiveDeduced) -> None:
        if (call := self._calls.get(event.call_id)) is not None:
            call.progress.objective = event.objective

    def _group(self, event: events.GroupDeduced) -> None:
        for i in event.group.call_ids:
            if (call := self._calls.get(i)) is not None:
                call.progress.group = event.group

    def _change(self, event: events.VariableChanged) -> Event | None:
        """Take in what became of a variable. Returns the event that tells it where that is another: a value can be refused here."""
        if (node := self._nodes.get(event.variable_id)) is None:
            return None
        node.note = event.note
        if event.state == "running":
            node.begin()
            return None
        outcome = self._outcomes.pop(node.id, None)
        if event.state not in FINAL_STATES or outcome is None or node.producer is None:
            return None
        del self._nodes[node.id]
        if event.state != "done":
            self._parsed.pop(node.id, None)
        node.logprobs, node.scores, node.taken_back = outcome.logprobs, event.scores, outcome.taken_back
        if outcome.thought and node.thinking_pieces is None:
            node.think("")
        node.usage = event.usage or node.usage
        if outcome.error is not None:
            node.fail(outcome.error)
            return None
        if outcome.spans is not None and not node.pieces:  # what no model generated streams as one piece
            for span in outcome.spans:
                node.append(span.text)
        value, error = attempt(partial(self._value, node.producer, node, outcome))
        if error is not None:  # what may refuse a text was asked before it was done: only a class of changing mind comes here
            failure = refused(node.producer.name, node.name, [(node.text, reason_of(error))])
            node.fail(failure)
            return msgspec.structs.replace(event, state="failed", text=None, finish=None, error=message_of(failure))
        node.resolve(value, spans=outcome.spans, finish=event.finish, usage=event.usage)
        return None

    def _value(self, call: Call, node: VariableNode, outcome: Outcome) -> Any:
        if outcome.like is not None:
            return next(source.value for source in call.inputs.values() if source.id == outcome.like)
        if call.kind == "native":
            return self._results[call.id]
        if isinstance(call.function, Collection):
            return [source.value for source in call.inputs.values()]
        if node.id in self._parsed:
            return self._parsed.pop(node.id)
        text = "".join(span.text for span in outcome.spans or ())
        return call.semantic.value_of(node.name, text) if call.kind == "semantic" else text

    def _change_call(self, event: events.CallChanged) -> Event | None:
        if (call := self._calls.get(event.call_id)) is None:
            return None
        if event.state == "done" and (error := next((n.error for n in call.outputs if n.error is not None), None)) is not None:
            event = msgspec.structs.replace(event, state="failed", error=message_of(error))
        call.progress.state = event.state
        call.progress.engine = event.engine or call.engine
        if event.state in FINAL_STATES:
            call.progress.error = next((node.error for node in call.outputs if node.error is not None), None)
            self._cells.pop(call.id, None)
            self._results.pop(call.id, None)
            self._num_ended += 1
            if self._num_ended > self._sweep_at:
                self._sweep()
        return event

    def _sweep(self) -> None:
        """Forget ended calls that nobody can reach, the oldest first."""
        ended = [call for call in self.calls if call.state in FINAL_STATES]
        too_many = len(ended) - KEPT_CALLS
        for call in ended:
            if too_many <= 0:
                break
            if not any(node.reachable for node in call.outputs) and all(r.state in FINAL_STATES for r in call.readers()):
                del self._calls[call.id]
                call.let_go()  # so that a variable at the end of a long chain does not hold all that was before it
                too_many -= 1
        self._num_ended = KEPT_CALLS + max(0, too_many)
        self._sweep_at = self._num_ended + max(KEPT_CALLS, self._num_ended) // 4
