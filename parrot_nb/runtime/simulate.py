"""Applications on simulated engines, with the scheduler that serves real ones: what would a fleet do?

    report = simulate(map_reduce(parts=50) + chats(count=20, every_s=1.0), engines=4, policy="parrot")

Applications are real graphs of calls, so objectives, task groups and critical paths are deduced as ever; time is counted,
not spent. `recorded` takes the applications of a session, `parrot_nb.runtime.synthetic` makes them up.
"""

from __future__ import annotations

import heapq
import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from parrot_nb.engine.protocol import Speed
from parrot_nb.errors import UsageError
from parrot_nb.graph import Applications, Cost, deduce_objectives
from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.nodes import LATENCY, Perf
from parrot_nb.language.perf import objective_of
from parrot_nb.runtime.analysis import Analysis
from parrot_nb.runtime.costs import Size, cost_of
from parrot_nb.runtime.fleet import Fleet, Slot
from parrot_nb.runtime.policies import make_policy
from parrot_nb.runtime.scheduler import Scheduler
from parrot_nb.runtime.simulated import EngineSpec, SimulatedEngine

MODEL = "simulated"
MAX_MOVES = 2


@dataclass(frozen=True, slots=True)
class Job:
    """A call and its size.

    Attributes:
        call: with the variables that it reads and writes.
        prefixes: (hash, tokens up to there) along its prompt; the last is the whole prompt.
        output_tokens: that it will write.
    """

    call: CallRecord
    prefixes: tuple[tuple[str, int], ...]
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Application:
    """Calls that a user makes at once.

    Attributes:
        name: of its kind, for reports.
        jobs: its calls, producers before consumers.
        reads: what is read of it, together.
        perf: the objective of that read.
        at_s: when it is made, in seconds of the simulation.
    """

    name: str
    jobs: tuple[Job, ...]
    reads: tuple[ValueRecord, ...]
    perf: Perf = LATENCY
    at_s: float = 0.0


@dataclass(slots=True)
class SimulatedCall:
    """Outcome of a simulated call; times are seconds of the simulation."""

    function: str
    application: int
    ready_s: float
    output_tokens: int
    engine: int | None = None
    started_s: float | None = None
    first_s: float | None = None
    end_s: float | None = None
    failed: bool = False
    num_moves: int = 0

    @property
    def tpot_s(self) -> float:
        """Seconds for each token after the first."""
        assert self.first_s is not None
        assert self.end_s is not None
        return (self.end_s - self.first_s) / max(1, self.output_tokens - 1)


@dataclass(slots=True)
class Report:
    """Results of a simulation.

    Attributes:
        policy: that it ran under.
        applications: name and seconds from being read to being done of each, in the order given; None where it failed.
        calls: of all prompts, by id.
        total_s: when the last was done.
        busy: of each engine, the share of that time in which it computed.
        prefilled_tokens: of prompts, computed, over all engines.
        reused_tokens: of prompts, found in their caches.
        decoded_tokens: written.
    """

    policy: str
    applications: list[tuple[str, float | None]] = field(default_factory=list)
    calls: dict[int, SimulatedCall] = field(default_factory=dict)
    total_s: float = 0.0
    busy: list[float] = field(default_factory=list)
    prefilled_tokens: int = 0
    reused_tokens: int = 0
    decoded_tokens: int = 0

    def seconds(self, name: str) -> list[float]:
        """Return the durations of the applications of a name."""
        return [seconds for kind, seconds in self.applications if kind == name and seconds is not None]

    def mean_s(self, name: str) -> float:
        """Return their average duration."""
        return statistics.fmean(self.seconds(name))

    def tpot_s(self, function: str) -> list[float]:
        """Seconds for each token after the first, of all calls of a function."""
        return [record.tpot_s for record in self.calls.values() if record.function == function and not record.failed]


def simulate(
    applications: Sequence[Application],
    engines: int | Sequence[EngineSpec] = 1,
    policy: str = "parrot",
    *,
    shares: bool = True,
    whole: bool = True,
    delay_s: float = 0.0,
) -> Report:
    """Run applications on simulated engines.

    Args:
        applications: what is run. Their calls can be run once.
        engines: how many of the default kind, or of which kind each.
        policy: how calls are ordered and spread; one of `parrot_nb.runtime.policies`.
        shares: whether engines compute equal prefixes once.
        whole: whether the system is given whole applications; else each call is a request of its own, made by a client when
            what it reads has come back.
        delay_s: that a request of such a client takes on its way there and back.

    Raises:
        UsageError: there is no engine, or a call was run before.
        SessionError: there is no such policy.
    """
    specs = [EngineSpec()] * engines if isinstance(engines, int) else list(engines)
    if not specs:
        raise UsageError("simulate() needs at least one engine.")
    return _Simulation(applications, specs, policy, shares=shares, whole=whole, delay_s=delay_s).run()


class _JobCosts:
    """Sizes that are known; meets `parrot_nb.runtime.costs.Costs`."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}

    def size(self, call: CallRecord) -> Size:
        job = self.jobs[call.id]
        return Size(job.prefixes[-1][1], job.output_tokens)

    def prefixes(self, call: CallRecord) -> list[tuple[str, float]]:
        return list(self.jobs[call.id].prefixes)


class _Simulation:
    def __init__(
        self,
        applications: Sequence[Application],
        specs: list[EngineSpec],
        policy: str,
        *,
        shares: bool,
        whole: bool,
        delay_s: float,
    ) -> None:
        self._applications = list(applications)
        self._whole = whole
        self._delay_s = 0.0 if whole else delay_s
        self._engines = [SimulatedEngine(spec, shares=shares) for spec in specs]
        self._fleet = Fleet([Slot(MODEL, i, _constant(spec.speed)) for i, spec in enumerate(specs)])
        self._costs = _JobCosts()
        self._linked = Applications()
        self._scheduler = Scheduler(make_policy(policy, self._linked), self._costs, lambda _: self._fleet, lambda _: MODEL)
        self._speed = specs[0].speed
        self._calls: dict[int, CallRecord] = {}
        self._analysis = Analysis(lambda _: None, self._linked, self._cost, self._calls.get)
        self._report = Report(policy)
        self._missing: dict[int, int] = {}
        self._members: defaultdict[int, set[int]] = defaultdict(set)  # calls of an application that have not ended
        self._application_of: dict[int, int] = {}
        self._failed: set[int] = set()
        self._events: list[tuple[float, int, str, int, int]] = []
        self._numbers = itertools.count()
        self._now_s = 0.0

    def run(self) -> Report:
        self._report.applications = [(application.name, None) for application in self._applications]
        for i, application in enumerate(self._applications):
            self._at(application.at_s, "arrives", i)
        for i, engine in enumerate(self._engines):
            if engine.spec.dies_at_s is not None:
                self._at(engine.spec.dies_at_s, "dies", i)
        while self._events:
            self._now_s, _, what, index, version = heapq.heappop(self._events)
            match what:
                case "arrives":
                    self._arrive(index)
                case "ready":
                    self._ready(self._calls[index])
                case "dies":
                    self._die(index)
                case _ if version == self._engines[index].version:
                    for context in self._engines[index].ended(self._now_s):
                        self._report.calls[context.key].first_s = context.first_s
                        self._end(self._calls[context.key])
                    self._go_on(index)
            self._dispatch()
        report = self._report
        report.total_s = self._now_s
        report.busy = [engine.busy_s / max(self._now_s, 1e-9) for engine in self._engines]
        report.prefilled_tokens = sum(engine.prefilled_tokens for engine in self._engines)
        report.reused_tokens = sum(engine.reused_tokens for engine in self._engines)
        report.decoded_tokens = sum(engine.decoded_tokens for engine in self._engines)
        return report

    def _at(self, when_s: float, what: str, index: int, version: int = 0) -> None:
        heapq.heappush(self._events, (when_s, next(self._numbers), what, index, version))

    def _cost(self, call: CallRecord) -> Cost:
        return cost_of(self._costs.size(call), self._speed) if call.id in self._costs.jobs else Cost(0.0, 0.0)

    def _arrive(self, index: int) -> None:
        application = self._applications[index]
        ready = []
        for job in application.jobs:
            call = job.call
            if call.state != "pending" or call.id in self._calls:
                raise UsageError(f"{call} was run before: make the applications anew for each simulation.")
            self._calls[call.id] = call
            self._application_of[call.id] = index
            self._members[index].add(call.id)
            if job.output_tokens:
                self._costs.jobs[call.id] = job
            producers = {node.producer.id for node in call.inputs.values() if node.producer is not None and not node.final}
            self._missing[call.id] = len(producers)
            if not producers:
                ready.append(call)
            if self._whole:
                self._linked.add(call)
        if self._whole:
            self._read(application.reads, application.perf)
        for call in ready:
            self._ready(call)

    def _read(self, nodes: Sequence[ValueRecord], perf: Perf) -> None:
        for call in deduce_objectives(nodes, objective_of(perf)):
            call.objective = objective_of(perf)
        self._analysis.read(nodes, perf, self._now_s)
        self._analysis.run()

    def _ready(self, call: CallRecord) -> None:
        if call.id not in self._costs.jobs:  # runs no model
            self._end(call)
            return
        application = self._applications[self._application_of[call.id]]
        if not self._whole:
            self._linked.add(call)
            self._read(call.outputs, application.perf)
        job = self._costs.jobs[call.id]
        self._report.calls[call.id] = SimulatedCall(call.name, self._application_of[call.id], self._now_s, job.output_tokens)
        self._scheduler.add(call)

    def _dispatch(self) -> None:
        touched = set()
        while (started := self._scheduler.next()) is not None:
            call, slot = started
            job, record = self._costs.jobs[call.id], self._report.calls[call.id]
            record.engine, record.started_s = slot.index, self._now_s
            pace = self._scheduler.pace(call)
            urgency = self._scheduler.policy.priority(call)
            self._engines[slot.index].start(call.id, job.prefixes, job.output_tokens, urgency, pace)
            touched.add(slot.index)
        for index in touched:
            self._go_on(index)

    def _go_on(self, index: int) -> None:
        end_s = self._engines[index].next_end(self._now_s)
        if end_s is not None:
            self._at(end_s, "computed", index, self._engines[index].version)

    def _end(self, call: CallRecord, *, failed: bool = False) -> None:
        call.state = "failed" if failed else "done"
        self._scheduler.ended(call)
        self._scheduler.discard(call)
        self._linked.ended(call)
        if (record := self._report.calls.get(call.id)) is not None:
            record.end_s, record.failed = self._now_s, failed
        index = self._application_of[call.id]
        for node in call.outputs:
            node.state = call.state
        self._members[index].discard(call.id)
        if failed:
            self._failed.add(index)
        if not self._members[index] and index not in self._failed:
            application = self._applications[index]
            self._report.applications[index] = application.name, self._now_s - application.at_s
        for reader in {reader.id: reader for node in call.outputs for reader in node.consumers}.values():
            self._missing[reader.id] -= 1
            if failed:
                if reader.state == "pending":
                    self._end(reader, failed=True)
            elif not self._missing[reader.id]:
                self._at(self._now_s + self._delay_s, "ready", reader.id)

    def _die(self, index: int) -> None:
        self._fleet.slots[index].lost = True
        unwritten, written = self._engines[index].stop()
        for key in unwritten:
            call, record = self._calls[key], self._report.calls[key]
            self._scheduler.ended(call)
            record.num_moves += 1
            if record.num_moves > MAX_MOVES or all(slot.lost for slot in self._fleet.slots):
                self._end(call, failed=True)
            else:
                self._scheduler.add(call)
        for key in written:
            self._end(self._calls[key], failed=True)


def _constant(speed: Speed) -> Callable[[], Speed]:
    return lambda: speed
