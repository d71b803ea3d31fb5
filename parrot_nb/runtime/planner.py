"""Everything that decides about calls before they run: what they cost, what is deduced of them, who starts next and where."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from parrot_nb.engine.protocol import Engine, Priority
from parrot_nb.graph import Applications
from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.nodes import Perf
from parrot_nb.language.options import Options
from parrot_nb.language.template import Constant
from parrot_nb.runtime.analysis import Analysis
from parrot_nb.runtime.costs import TextCosts
from parrot_nb.runtime.engines import EnginePool
from parrot_nb.runtime.events import now_s
from parrot_nb.runtime.policies import make_policy
from parrot_nb.runtime.scheduler import Scheduler
from parrot_nb.runtime.wire import Say

if TYPE_CHECKING:
    from parrot_nb.runtime.work import Work


class Planner:
    """Lives on the runtime loop.

    Args:
        say: is told what is deduced.
        engines: of the session.
        policy: name of the scheduling policy.
        model_of: the model of a call.
        options: the session's defaults.
        works: the calls that have not ended, by id.

    Raises:
        SessionError: there is no such policy.
    """

    def __init__(
        self,
        say: Say,
        engines: EnginePool,
        policy: str,
        model_of: Callable[[CallRecord], str],
        options: Options,
        works: Mapping[int, Work],
    ) -> None:
        self.costs = costs = TextCosts(options)
        self._applications = Applications()
        self.scheduler = Scheduler(make_policy(policy, self._applications), costs, engines.fleet, model_of)
        self._analysis = Analysis(
            say,
            self._applications,
            lambda call: costs.cost(call, engines.speed(model_of(call))),
            lambda call_id: works[call_id].call if call_id in works else None,
        )

    def added(self, call: CallRecord) -> None:
        """A call entered the graph."""
        self._applications.add(call)

    def read(self, nodes: Sequence[ValueRecord], perf: Perf) -> bool:
        """Record that these variables are read together, for `analyse`. Returns whether it is the first reading since then."""
        return self._analysis.read(nodes, perf, now_s())

    def analyse(self) -> list[CallRecord]:
        """Deduce what follows from all that was read since; returns the calls whose urgency may be another now."""
        changed = self._analysis.run()
        for call in changed:
            self.scheduler.raised(call)
        return changed

    def priority(self, call: CallRecord, *, ahead: bool) -> Priority:
        """Return the urgency of a call's context; what is begun before its inputs are there comes after everything else."""
        urgency = self.scheduler.policy.priority(call)
        return urgency.ahead() if ahead else urgency

    def ended(self, call: CallRecord) -> None:
        """A call needs nothing any more."""
        self.scheduler.discard(call)
        self._applications.ended(call)

    def forgotten(self, call: CallRecord) -> None:
        """The graph has a call no more."""
        self._applications.forget(call)

    def clear(self) -> None:
        """Calls and caches were forgotten."""
        self._applications.clear()
        self.scheduler.forget_prefixes()

    def has_room_ahead(self, engine: Engine) -> bool:
        """Whether an engine has room for what is begun before its inputs are there: nobody may have to wait for it."""
        load = engine.load()
        crowded = 2 * self.scheduler.num_open >= self.scheduler.policy.max_open
        return not len(self.scheduler) and not crowded and 2 * load.owned_pages <= load.num_pages


def may_begin(engine: Engine, call: CallRecord, missing: Iterable[ValueRecord], off: Collection[str]) -> bool:
    """Whether an engine gains by beginning a prompt before its inputs are there: by filling what stands before the first of
    them ("prefill_ahead"), or these themselves, if all are being written, in its own tokens ("streaming")."""
    missing = list(missing)
    if not engine.capabilities.streams_fills or any(node.producer is None for node in missing):
        return False  # a user may never set it
    if "prefill_ahead" not in off and isinstance(call.segments[0], Constant):
        return True
    return "streaming" not in off and all(node.state == "running" and node.codec == engine.codec.key for node in missing)
