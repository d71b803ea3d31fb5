"""Messages to the page about a graph: its structure when that changes, else the rows that differ from what was sent.

All values are absolute, so that a message that got lost leaves nothing wrong that the next one does not mend. `seq`
numbers the messages; a page that missed one asks for everything.
"""

from __future__ import annotations

from typing import Any

from parrot_nb.notebook.state import CallView, GraphState, VariableView

TEXT_CHARS = 180  # of a value: what a card and a tooltip show
BUSY_TEXT_CHARS = 64  # where many change at once, and each shows a line
BUSY = 48

Message = dict[str, Any]


def structure(state: GraphState) -> Message:
    """Calls, the variables between them, and task groups of several calls.

    calls: [id, function, kind, [[parameter, variable], ...], [output, ...]]; variables: [id, name, producer, max tokens];
    groups: [stage, [call, ...]].
    """
    groups = {call.group.id: call.group for call in state.calls.values() if call.group is not None}
    return {
        "calls": [[call.id, call.function, call.kind, call.inputs, call.outputs] for call in state.calls.values()],
        "variables": [[view.id, view.name, view.producer, view.max_tokens] for view in state.variables.values()],
        "groups": [
            [group.stage, shown]
            for group in groups.values()
            if len(shown := [call for call in group.call_ids if call in state.calls]) > 1
        ],
    }


def call_row(call: CallView, state: GraphState) -> list[Any]:
    """[state, phase, objective, error]; the state is "unrun" where the call failed because what it reads had failed."""
    shown = state.shown(call)
    return [
        "unrun" if shown == "not run" else shown,
        call.phase,
        None if call.objective is None else call.objective.name,
        call.error,
    ]


def variable_row(view: VariableView, chars: int = TEXT_CHARS) -> list[Any]:
    """[state, tokens, text, whether it was taken from an equal generation, the variable whose value it has]; the text's end while it
    is written."""
    text = view.text[:chars] if view.state == "done" else view.shown[-chars:]
    return [view.state, view.num_tokens, text, int(view.from_memo), view.like]


class Sent:
    """State of one page as it was sent. Rows are compared by identity: a view that changes is another object."""

    def __init__(self) -> None:
        self._calls: dict[int, CallView] = {}
        self._variables: dict[int, VariableView] = {}
        self._said: Message = {}
        self.seq = 0

    def everything(self, state: GraphState) -> Message:
        """Return all rows, whatever was sent."""
        self._calls.clear()
        self._variables.clear()
        self._said = {}
        return self.news(state) or {"seq": self.seq}

    def news(self, state: GraphState) -> Message | None:
        """The rows that are new, or None."""
        calls = [call for key, call in state.calls.items() if self._calls.get(key) is not call]
        variables = [view for key, view in state.variables.items() if self._variables.get(key) is not view]
        said = {"loading": state.loading, "notes": state.notes}
        if not calls and not variables and said == self._said:
            return None
        running = sum(view.state == "running" for view in variables)
        chars = BUSY_TEXT_CHARS if running > BUSY else TEXT_CHARS
        if len(self._calls) > 2 * len(state.calls):  # what the state let go of
            self._calls = {key: call for key, call in self._calls.items() if key in state.calls}
            self._variables = {key: view for key, view in self._variables.items() if key in state.variables}
        self._calls.update((call.id, call) for call in calls)
        self._variables.update((view.id, view) for view in variables)
        self._said = said
        self.seq += 1
        return {
            "seq": self.seq,
            "calls": {call.id: call_row(call, state) for call in calls},
            "variables": {view.id: variable_row(view, chars if view.state == "running" else TEXT_CHARS) for view in variables},
            **said,
        }
