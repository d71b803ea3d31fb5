"""Runs the ready calls of a graph, and decides when each begins and ends; the books record what becomes of them.

A call becomes ready when what its first chain reads is there and somebody wants it. Ready calls wait in the scheduler;
a started one is a task of its own that fills and generates on one context, or runs a native function. All of this
lives on the runtime loop; chains of failures and joins are worked off in a queue, so that depth costs no stack.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

from parrot_nb.errors import EngineError, EngineLostError, ParrotError, is_cancelled
from parrot_nb.graph import Graph, dead_calls, deduce_objectives, first_inputs, is_read_but_by
from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.nodes import THROUGHPUT, LatencyTarget, Objective, Perf, State
from parrot_nb.language.notify import message_of
from parrot_nb.language.options import Options
from parrot_nb.language.perf import objective_of
from parrot_nb.runtime import events, prompt
from parrot_nb.runtime.analysis import stricter
from parrot_nb.runtime.books import Books
from parrot_nb.runtime.endings import cancelled_error, note_of_inputs, upstream_error
from parrot_nb.runtime.engines import EnginePool
from parrot_nb.runtime.events import now_s
from parrot_nb.runtime.expectations import Expectations
from parrot_nb.runtime.functions import Functions
from parrot_nb.runtime.joining import joined, listed
from parrot_nb.runtime.memo import Memo
from parrot_nb.runtime.messages import Given
from parrot_nb.runtime.plan import Plan
from parrot_nb.runtime.plan_figures import PlanFigures
from parrot_nb.runtime.planner import Planner, may_begin
from parrot_nb.runtime.retention import Retention
from parrot_nb.runtime.running import Runner
from parrot_nb.runtime.wire import Say
from parrot_nb.runtime.work import Work

MAX_MOVES = 2  # of a call whose engine is lost: perhaps it is the call that engines die of
STEP_S = 2.0  # for a step to end; one that takes longer gives its pages back when it does
GRACE_S = 0.05  # for calls submitted together with the loss to start


class Executor:
    """See the module.

    Args:
        graph: where calls are added.
        say: is told every change, after it has happened.
        engines: finds the engine of a model.
        policy: name of the scheduling policy.
        off: which of `parrot_nb.runtime.OPTIMISATIONS` to do without, asked anew each time.
        default_model: the model of calls that name none.
        options: the session's defaults.

    Attributes:
        functions: the user's own, which run elsewhere.
        memo: what need not be generated again.
    """

    def __init__(
        self,
        *,
        graph: Graph,
        say: Say,
        engines: EnginePool,
        policy: str,
        off: Callable[[], Collection[str]],
        default_model: Callable[[], str],
        options: Options,
    ) -> None:
        self._graph = graph
        self._say = say
        self._books = books = Books(say, self._begun, self.settle)
        self.functions = functions = Functions(say)
        self._engines = engines
        self._off = off
        self._default_model = default_model
        self.memo = memo = Memo(lambda: "memo" not in off())
        self._works: dict[int, Work] = {}
        self._planner = planner = Planner(say, engines, policy, self._model_of, options, self._works)
        self._scheduler = planner.scheduler
        self._compiler = compiler = prompt.Compiler(options)
        self._waiting: defaultdict[int, list[Work]] = defaultdict(list)  # by id of the variable they wait for
        self._retention = Retention(graph, planner.forgotten)
        self._lost: list[ValueRecord] = []  # that perhaps nobody can read any more
        self._wanted: list[Work] = []  # what was asked for since the last analysis
        self._expectations = expectations = Expectations(lambda call: engines.ready_for(self._model_of(call)), options)
        self._runner = Runner(
            books=books,
            graph=graph,
            engines=engines,
            functions=functions,
            memo=memo,
            planner=planner,
            expectations=expectations,
            off=off,
            compiler=compiler,
        )

    # What the session asks for

    def submit(self, calls: Sequence[tuple[CallRecord, int | None]], *, eager: bool) -> None:
        """Add calls, each with the number of the cell that made it; `eager` runs them though nobody has asked yet."""
        self._engines.forget_failures()
        for call, cell in calls:
            self._add(call, cell)
        if eager:
            ends = [node for call, _ in calls for node in call.outputs if not node.consumers]
            self._want(ends, THROUGHPUT)
            self._analyse(ends, THROUGHPUT)
        self.settle()

    def request(self, nodes: Sequence[ValueRecord], perf: Perf) -> None:
        """Record that somebody reads these variables, and run what they depend on."""
        objective = objective_of(perf)
        for node in nodes:
            node.reachable = True
            if node.objective is None or objective is not THROUGHPUT:
                node.objective = objective
            if isinstance(perf, LatencyTarget):
                node.target = stricter(node.target, perf)
                node.read_s = node.read_s or now_s()
        self._want(nodes, objective)
        self._analyse(nodes, perf)
        self.settle()

    def cancel(self, nodes: Sequence[ValueRecord] | None = None, why: str = "was cancelled") -> None:
        """Cancel the calls that produce these variables, all calls when None; their errors say `why`."""
        if nodes is None:
            works = list(self._works.values())
        else:
            works = [self._works[n.producer.id] for n in nodes if n.producer is not None and n.producer.id in self._works]
        self._cancel(works, why)

    def lost(self, nodes: Sequence[ValueRecord]) -> None:
        """No user holds these variables any more: leave off what runs for nobody, and forget what has ended. In a moment: a cell
        that runs again drops the calls of before, and makes equal ones that take over what those have begun."""
        for node in nodes:
            node.reachable = False

        def leave_off() -> None:
            lost = [node for node in nodes if not node.reachable]
            self._lost += lost
            self.settle()
            for node in lost:
                self._retention.look_at(node)

        asyncio.get_running_loop().call_later(GRACE_S, leave_off)

    def cancel_readers_of(self, nodes: Sequence[ValueRecord]) -> None:
        """The reader of these variables gave up: cancel what runs for it alone."""
        calls = self._graph.only_needed_by(nodes)
        self._cancel([self._works[call.id] for call in calls if call.id in self._works], "was interrupted")

    async def reset(self) -> None:
        """Cancel everything, wait until all contexts are free, and forget the graph."""
        tasks = [work.task for work in self._works.values() if work.task is not None]
        self.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._graph.clear()
        self._waiting.clear()
        self.memo.clear()
        self._planner.clear()
        engines = list(self._engines.ready.values())
        for engine in engines:
            engine.clear_cache()
        end_s = now_s() + STEP_S
        # The step that runs reads and writes pages of what was cancelled; no engine tells anybody when it has ended.
        while any(engine.load().owned_pages for engine in engines) and now_s() < end_s:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        self._say(events.SessionReset(now_s()))

    def fail_all(self, error: BaseException) -> None:
        """Our own bug: let no reader wait for ever."""
        cause = EngineError(
            f"The runtime failed with {type(error).__name__}: {message_of(error)}; %parrot reset makes the session usable again."
        )
        cause.__cause__ = error
        for work in list(self._works.values()):
            self._end(work, cause)
        self.settle()

    @property
    def idle(self) -> bool:
        """Whether no wanted call is unfinished."""
        return not any(work.wanted for work in self._works.values())

    @property
    def num_open(self) -> int:
        """Calls that have been started and have not ended."""
        return sum(work.task is not None for work in self._works.values())

    async def plan(self, calls: Sequence[CallRecord]) -> PlanFigures:
        """Plan calls that are not in the graph; see `parrot_nb.runtime.plan`."""
        return await Plan(self.memo, self._engines, self._compiler, self._planner.costs, self._model_of).figures(calls)

    def forget_engines(self) -> None:
        """Take note that the set of engines was changed; nothing may be running."""
        self._scheduler.forget_engines()

    def _model_of(self, call: CallRecord) -> str:
        return call.options.model or self._default_model()

    # Adding and wanting

    def _add(self, call: CallRecord, cell: int | None) -> None:
        self._books.added(call, self._graph.add(call), self._compiler.limits(call), cell)
        self._planner.added(call)
        work = self._works[call.id] = Work(call)
        if call.kind == "semantic":
            self._expectations.add(call)
        for node in first_inputs(call):
            if not node.final:
                work.missing.add(node.id)
                self._waiting[node.id].append(work)
            elif node.state != "done":
                self._end(work, upstream_error(call, node))
                return

    def value_set(self, value: Given) -> None:
        """A user has set a variable."""
        node = self._graph.variable(value.id)
        if node is not None and not node.final:
            self._books.given(node, value)
            self.settle()

    def _want(self, nodes: Iterable[ValueRecord], objective: Objective) -> None:
        for call in deduce_objectives(nodes, objective):
            self._books.wanted(call, objective)
            work = self._works.get(call.id)
            if work is None:
                continue
            work.wanted = True
            self._wanted.append(work)

    def _analyse(self, nodes: Sequence[ValueRecord], perf: Perf) -> None:
        """Deduce what follows from a reading before what it asks for starts; once for all who ask at the same time."""
        if self._planner.read(nodes, perf):
            asyncio.get_running_loop().call_soon(self._take_up)

    def _take_up(self) -> None:
        for call in self._planner.analyse():
            work = self._works.get(call.id)
            if work is not None and work.context is not None:
                work.context.set_priority(self._planner.priority(call, ahead=work.ahead))
                work.context.set_pace(self._scheduler.pace(call))
        wanted, self._wanted = self._wanted, []
        for work in reversed(wanted):  # in the order of the calls: what is asked for comes with consumers first
            self._start_if_ready(work)
        self.settle()
        for work in reversed(wanted):
            self._start_ahead(work)

    # Progress

    def settle(self) -> None:
        """Tell all who wait about variables that became final, and start what has become ready."""
        while True:
            while self._books.final:
                node = self._books.final.popleft()
                self._books.arrived(node)
                for work in self._waiting.pop(node.id, ()):
                    if work.call.id not in self._works:
                        continue
                    if node.state == "done":
                        work.missing.discard(node.id)
                        self._start_if_ready(work)
                        work.ahead = work.ahead and bool(work.missing)  # its context becomes as urgent as any when it generates
                    else:
                        self._end(work, upstream_error(work.call, node))
            if self._lost:
                self._leave_off()
            elif (started := self._scheduler.next()) is not None:
                call, slot = started
                self._works[call.id].slot = slot
                self._start(self._works[call.id])
            else:
                return

    def _leave_off(self) -> None:
        """End the calls whose results nobody can read any more, but for those whose text others take over."""
        lost, self._lost = self._lost, []
        for call in dead_calls(lost) if "dead_work" not in self._off() else ():
            if not (work := self._works[call.id]).followed:
                self._end(work, cancelled_error(call, "was left off, since nobody could read it any more"))

    def _start_if_ready(self, work: Work) -> None:
        if not work.wanted or work.missing or work.task is not None or work.call.id not in self._works:
            return
        match work.call.kind:
            case "join":
                self._join(work)
            case "native" | "first":
                self._start(work)
            case _:
                self._books.changed(work.call, "pending", "queued")
                self._scheduler.add(work.call)

    def _start_ahead(self, work: Work) -> None:
        """Begin a prompt before its inputs are there, if its engine gains by it and has room."""
        call = work.call
        if call.kind != "semantic" or not work.wanted or work.task is not None or not work.missing:
            return
        missing = [node for node in first_inputs(call) if node.id in work.missing]
        engine = next(iter(self._engines.ready_for(self._model_of(call))), None)
        if engine is None or not may_begin(engine, call, missing, self._off()) or not self._planner.has_room_ahead(engine):
            return
        if (slot := self._scheduler.start(call)) is not None:
            work.ahead, work.slot = True, slot
            self._start(work)

    def _start(self, work: Work) -> None:
        work.task = asyncio.create_task(self._run(work))
        work.task.add_done_callback(partial(self._finished, work))  # also of a task cancelled before its first step

    def _finished(self, work: Work, task: asyncio.Task[None]) -> None:
        if work.task is task:  # else it has moved, and may be running elsewhere
            self._scheduler.ended(work.call)
        self.settle()

    async def _run(self, work: Work) -> None:
        try:
            await self._runner.run(work)
        except asyncio.CancelledError:  # `_end` has recorded why, as a rule
            if work.task is asyncio.current_task():
                self._end(work, EngineError(f"Running '{work.call.name}' was broken off: make the call again."))
        except EngineLostError as error:
            self._lose_engine(work, error)
        except ParrotError as error:
            self._end(work, error)
        except BaseException as error:  # a library's panic is no Exception
            failure = EngineError(f"Running '{work.call.name}' failed with {type(error).__name__}: {message_of(error)}")
            failure.__cause__ = error
            self._end(work, failure)
        else:
            self._end(work, None)

    def _lose_engine(self, work: Work, error: EngineLostError) -> None:
        """The engine of a call has ended: the call moves, unless some of its text is out already, or there is none to move to."""
        slot, engine, call = work.slot, work.engine, work.call  # a native function has none: it has read what was lost
        goes_on = slot is not None and engine is not None and self._engines.lost(slot.model, slot.index, engine, error)
        if not goes_on or work.num_moves == MAX_MOVES or any(node.begun or node.final for node in call.outputs):
            self._end(work, error)
            return
        work.num_moves += 1
        work.task = work.slot = work.engine = None
        self._scheduler.ended(call)
        self._books.changed(work.call, "pending", "queued")
        self._scheduler.add(call)

    def _join(self, work: Work) -> None:
        (node,) = work.call.outputs
        try:
            spans = joined(work.call)
        except ParrotError as error:
            self._end(work, error)
            return
        self._books.begin(node, note_of_inputs(work.call))
        self._books.resolve(node, spans, shown="" if spans is not None else listed(work.call))
        self._end(work, None)

    def _begun(self, node: ValueRecord) -> None:
        """A model is about to write a variable: what reads it may begin beside it."""
        for reader in tuple(node.consumers):
            if reader.id in self._works:
                self._start_ahead(self._works[reader.id])

    def _end(self, work: Work, error: BaseException | None) -> None:
        """A call has ended; without `error` all its outputs have values. Later endings of the same call are ignored."""
        call = work.call
        if self._works.pop(call.id, None) is None:
            return
        self._planner.ended(call)
        if call.kind == "semantic":
            self._expectations.remove(call)
        state: State = "done"
        if error is not None:
            for node in call.outputs:
                self._books.fail(node, error)
            state = "cancelled" if is_cancelled(error) else "failed"
            if work.task is not None and work.task is not asyncio.current_task():
                work.task.cancel()
            self._lost += call.inputs.values()
        elif call.kind == "first":
            self._lost += call.inputs.values()
            self._cancel_losers(call)
        self._books.changed(call, state, "ended", call.engine, error)
        self._retention.ended(call)

    def _cancel_losers(self, race: CallRecord) -> None:
        """Cancel calls that `P.first` need not wait for and nothing else waits for, though a user may hold their variables."""
        for node in race.inputs.values():
            work = None if node.producer is None else self._works.get(node.producer.id)
            if work is not None and not work.followed and not is_read_but_by(race, work.call):
                self._end(work, cancelled_error(work.call, "was cancelled, since P.first had an answer"))

    def _cancel(self, works: Iterable[Work], why: str) -> None:
        for work in works:
            self._end(work, cancelled_error(work.call, why))
        self.settle()
