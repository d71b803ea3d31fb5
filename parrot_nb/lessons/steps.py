"""A run told decision by decision, in the words of `P.explain`: what was deduced of each call, when it began and where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from parrot_nb.errors import UsageError
from parrot_nb.graph.explain import group_words, objective_words
from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import LATENCY
from parrot_nb.lessons.shown import Part, Shown
from parrot_nb.runtime.events import CallAdded, CallChanged, Event, GroupDeduced, ObjectiveDeduced
from parrot_nb.session import Session, current_session

PHASES = {
    "prefill": "The prompt is computed, as far as no other call has computed it.",
    "streaming": "The prompt is filled while the text that it reads is still being written.",
    "decode": "The prompt is read; the model writes.",
    "reused": "Reused: its text was taken from an equal call, nothing was computed.",
    "native": "The Python function runs, off the thread of the engine.",
}
ENDS = {"done": "Its value is there.", "failed": "It failed", "cancelled": "It was cancelled."}


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision, of one call or of several calls of a function for which it was made in a row.

    Attributes:
        at_s: seconds after the first decision.
        function: name of the function.
        call_ids: calls it is about, in order.
        words: what was decided and why.
    """

    at_s: float
    function: str
    call_ids: tuple[int, ...]
    words: str

    @property
    def who(self) -> str:
        """Function and calls, as `P.explain` names them."""
        first, last = self.call_ids[0], self.call_ids[-1]
        if len(self.call_ids) == 1:
            return f"{self.function} (call {first})"
        if last - first + 1 == len(self.call_ids):
            return f"{self.function} (calls {first} to {last})"
        return f"{self.function} (calls {', '.join(map(str, self.call_ids))})"


class Steps:
    """The decisions of a run, to be played one by one.

    Args:
        decisions: in order.
    """

    def __init__(self, decisions: Iterable[Decision]) -> None:
        self._decisions = tuple(decisions)
        self._position = 0

    def __len__(self) -> int:
        return len(self._decisions)

    def __getitem__(self, index: int) -> Decision:
        return self._decisions[index]

    def __iter__(self) -> Iterator[Decision]:
        return iter(self._decisions)

    def __repr__(self) -> str:
        return repr(self._all())

    def _repr_html_(self) -> str:
        return self._all()._repr_html_()

    def next(self, count: int = 1) -> Shown:
        """Show the next decisions.

        Args:
            count: how many; at the end there are fewer, or none.

        Raises:
            UsageError: it is no number above 0.
        """
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UsageError(f"next() takes a number of decisions above 0, not {count!r}.")
        begin, self._position = self._position, min(len(self), self._position + count)
        if begin == self._position:
            return Shown(f"All {len(self)} decisions have been shown; rewind() begins again.")
        numbered = f"Decision {begin + 1}" if self._position == begin + 1 else f"Decisions {begin + 1} to {self._position}"
        return Shown(f"{numbered} of {len(self)}", tuple(map(_told, self._decisions[begin : self._position])))

    def rewind(self) -> None:
        """Begin again with the first decision."""
        self._position = 0

    def _all(self) -> Shown:
        count = f"{len(self)} decision{'s' * (len(self) != 1)}"
        return Shown(f"{count}; next() plays them one by one", tuple(map(_told, self._decisions)))


def steps(session: Session | None = None, *, since: int = 0) -> Steps:
    """Return the decisions of a session's run: which objective each call got and why, its task group, when it began, on which
    engine, and how it ended.

    Args:
        session: of the notebook if None.
        since: number of the event to begin with; `len(session.events)` before a cell's calls leaves out what ran earlier.

    Raises:
        UsageError: nothing has run since then.
    """
    session = current_session() if session is None else session
    calls = {call.id: call for call in session.calls()}
    moves = list(_moves(session.events.since(since), calls))
    if not moves:
        raise UsageError("There is no decision to show: run some calls first.")
    decisions: list[Decision] = []
    for move in moves:
        last = decisions[-1] if decisions else None
        if last is not None and (last.function, last.words) == (move.function, move.words):
            ids = tuple(sorted({*last.call_ids, *move.call_ids}))
            decisions[-1] = Decision(last.at_s, last.function, ids, last.words)
        else:
            decisions.append(move)
    begin_s = decisions[0].at_s
    return Steps(Decision(each.at_s - begin_s, each.function, each.call_ids, each.words) for each in decisions)


def _moves(events: Iterable[Event], calls: dict[int, Call]) -> Iterator[Decision]:
    """Each decision of the log by itself."""
    names = {call.id: call.name for call in calls.values()}
    told: dict[int, str] = {}  # what was said of a call last: the log tells some of it again
    for event in events:
        match event:
            case CallAdded():
                names[event.call_id] = event.function
            case ObjectiveDeduced():
                yield Decision(event.time_s, names.get(event.call_id, "?"), (event.call_id,), _objective(event, calls))
            case GroupDeduced():
                first = event.group.call_ids[0]
                yield Decision(event.time_s, names.get(first, "?"), event.group.call_ids, group_words(event.group))
            case CallChanged():
                words = _change(event)
                if words and told.get(event.call_id) != words:
                    told[event.call_id] = words
                    yield Decision(event.time_s, names.get(event.call_id, "?"), (event.call_id,), words)


def _objective(event: ObjectiveDeduced, calls: dict[int, Call]) -> str:
    call = calls.get(event.call_id)
    if event.objective is LATENCY and call is not None and call.objective is LATENCY:
        return objective_words(call.outputs[0], call)
    if event.objective is LATENCY:
        return "Objective: LATENCY."
    return f"Objective: {event.objective.name}; so far neither it nor anything that depends on it was read with perf=P.LATENCY."


def _change(event: CallChanged) -> str:
    if event.phase == "ended":
        return f"{ENDS['failed']}: {event.error}" if event.state == "failed" else ENDS.get(event.state, "")
    if event.phase == "prefill" and event.engine is None:
        return ""  # the engine is not known yet, or still loading: it is told again
    engine = f"Engine: {event.engine}. " if event.engine is not None and event.phase in ("prefill", "streaming") else ""
    return engine + PHASES[event.phase] if event.phase in PHASES else ""


def _told(decision: Decision) -> Part:
    return Part(f"  +{decision.at_s:.2f} s  {decision.who}: {decision.words}")
