"""Runs the ready calls of a graph: the one place where calls change state.

A call becomes ready when what its first chain reads is there and somebody wants it. Ready calls wait in the scheduler;
a started one is a task of its own that fills and generates on one context, or runs a native function. All of this
lives on the runtime loop; chains of failures and joins are worked off in a queue, so that depth costs no stack.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from parrot_nb.engine.protocol import Engine, GenerationEnd, Sampling
from parrot_nb.errors import CallCancelledError, EngineError, NativeFunctionError, ParrotError, UpstreamError
from parrot_nb.graph import Graph, deduce_objectives, first_inputs
from parrot_nb.language.nodes import LATENCY, THROUGHPUT, Call, Objective, Span, State, Usage, VariableNode
from parrot_nb.language.options import Options
from parrot_nb.language.variable import SemanticVariable, VariableList
from parrot_nb.runtime import events, prompt
from parrot_nb.runtime.engines import EnginePool
from parrot_nb.runtime.events import EventLog, Phase, now_s
from parrot_nb.runtime.expectations import Expectations
from parrot_nb.runtime.grouping import Grouping
from parrot_nb.runtime.memo import Memo, MemoContext
from parrot_nb.runtime.native import NativeRunner
from parrot_nb.runtime.scheduler import Scheduler, priority


@dataclass(eq=False)
class _Work:
    """What the executor knows of a call that has not ended."""

    call: Call
    missing: set[int] = field(default_factory=set)  # ids of variables that it cannot start without
    wanted: bool = False
    task: asyncio.Task[None] | None = None
    context: MemoContext | None = None


class Executor:
    """See the module.

    Args:
        graph: where calls are added.
        log: is told every change, after it has happened.
        engines: finds the engine of a model.
        native: runs native functions.
        scheduler: says which ready call starts next.
        memo: what need not be generated again.
        default_model: the model of calls that name none.
        options: the session's defaults.
    """

    def __init__(
        self,
        *,
        graph: Graph,
        log: EventLog,
        engines: EnginePool,
        native: NativeRunner,
        scheduler: Scheduler,
        memo: Memo,
        default_model: Callable[[], str],
        options: Options,
    ) -> None:
        self._graph = graph
        self._log = log
        self._engines = engines
        self._native = native
        self._scheduler = scheduler
        self._memo = memo
        self._default_model = default_model
        self._options = options
        self._works: dict[int, _Work] = {}
        self._waiting: defaultdict[int, list[_Work]] = defaultdict(list)  # by id of the variable they wait for
        self._arrivals: defaultdict[int, list[asyncio.Future[None]]] = defaultdict(list)
        self._final: deque[VariableNode] = deque()
        self._num_open = 0
        self._grouping = Grouping(log, lambda call_id: self._works[call_id].call if call_id in self._works else None)
        self._expectations = Expectations(lambda c: engines.ready_for(c.options.model or default_model()), options)

    # What the session asks for

    def submit(self, calls: Sequence[tuple[Call, int | None]], *, eager: bool) -> None:
        """Add calls, each with the number of the cell that made it; `eager` runs them though nobody has asked yet."""
        self._engines.forget_failures()
        for call, cell in calls:
            self._add(call, cell)
        if eager:
            for call, _ in calls:
                self._want(call.outputs, THROUGHPUT)
        self._settle()

    def request(self, nodes: Sequence[VariableNode], objective: Objective) -> None:
        """Somebody reads these variables."""
        for node in nodes:
            if node.objective is None or objective is not THROUGHPUT:
                node.objective = objective
        self._want(nodes, objective)
        if objective is LATENCY:
            self._grouping.read(nodes)
        self._settle()

    def cancel(self, nodes: Sequence[VariableNode] | None = None) -> None:
        """Cancel the calls that produce these variables; all calls when None."""
        if nodes is None:
            works = list(self._works.values())
        else:
            works = [self._works[n.producer.id] for n in nodes if n.producer is not None and n.producer.id in self._works]
        self._cancel(works, "was cancelled")

    def cancel_readers_of(self, nodes: Sequence[VariableNode]) -> None:
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
        self._memo.clear()
        for engine in self._engines.ready.values():
            engine.clear_cache()
        self._log.append(events.SessionReset(now_s()))

    def fail_all(self, error: BaseException) -> None:
        """Our own bug: let no reader wait for ever."""
        cause = EngineError(
            f"The runtime failed with {type(error).__name__}: {error}; %parrot reset makes the session usable again."
        )
        cause.__cause__ = error
        for work in list(self._works.values()):
            self._end(work, cause)
        self._settle()

    @property
    def idle(self) -> bool:
        """Whether no wanted call is unfinished."""
        return not any(work.wanted for work in self._works.values())

    @property
    def num_open(self) -> int:
        """Calls that have been started and have not ended."""
        return sum(work.task is not None for work in self._works.values())

    # Adding and wanting

    def _add(self, call: Call, cell: int | None) -> None:
        for node in self._graph.add(call):
            self._log.append(events.VariableAdded(now_s(), node.id, node.name, None))
            if node.final:
                self._log_variable(node)
            else:
                self._watch(node)
        inputs = tuple((name, node.id) for name, node in call.inputs.items())
        outputs = tuple(node.id for node in call.outputs)
        self._log.append(events.CallAdded(now_s(), call.id, call.name, call.kind, inputs, outputs, cell))
        for node in call.outputs:
            self._log.append(events.VariableAdded(now_s(), node.id, node.name, call.id))
        work = self._works[call.id] = _Work(call)
        if call.kind == "semantic":
            self._expectations.add(call)
        for node in first_inputs(call):
            if not node.final:
                work.missing.add(node.id)
                self._waiting[node.id].append(work)
            elif node.state != "done":
                self._end(work, _upstream(call, node))
                return

    def _watch(self, node: VariableNode) -> None:
        """Hear of a variable that a user will set from some thread."""
        loop = asyncio.get_running_loop()

        def hand_over(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._arrived, node)

        node.future.add_done_callback(hand_over)

    def _arrived(self, node: VariableNode) -> None:
        self._log_variable(node)
        self._final.append(node)
        self._settle()

    def _want(self, nodes: Iterable[VariableNode], objective: Objective) -> None:
        for call in deduce_objectives(nodes, objective):
            call.objective = objective
            self._log.append(events.ObjectiveDeduced(now_s(), call.id, objective))
            work = self._works.get(call.id)
            if work is None:
                continue
            work.wanted = True
            if work.context is not None:
                work.context.set_priority(priority(call))
            self._scheduler.raised(call)
            self._start_if_ready(work)

    # Progress

    def _settle(self) -> None:
        """Tell all who wait about variables that became final, and start what has become ready."""
        while True:
            while self._final:
                node = self._final.popleft()
                for future in self._arrivals.pop(node.id, ()):
                    if not future.done():
                        future.set_result(None)
                for work in self._waiting.pop(node.id, ()):
                    if work.call.id not in self._works:
                        continue
                    if node.state == "done":
                        work.missing.discard(node.id)
                        self._start_if_ready(work)
                    else:
                        self._end(work, _upstream(work.call, node))
            call = self._scheduler.next(self._num_open)
            if call is None:
                return
            self._start(self._works[call.id])

    def _start_if_ready(self, work: _Work) -> None:
        if not work.wanted or work.missing or work.task is not None or work.call.id not in self._works:
            return
        match work.call.kind:
            case "join":
                self._join(work)
            case "native":
                self._start(work)
            case _:
                self._change(work, "pending", "queued")
                self._scheduler.add(work.call)

    def _start(self, work: _Work) -> None:
        self._num_open += work.call.kind == "semantic"
        work.task = asyncio.create_task(self._run(work))
        work.task.add_done_callback(lambda _: self._finished(work))  # also of a task cancelled before its first step

    def _finished(self, work: _Work) -> None:
        self._num_open -= work.call.kind == "semantic"
        self._settle()

    async def _run(self, work: _Work) -> None:
        try:
            await (self._run_native(work) if work.call.kind == "native" else self._run_semantic(work))
        except asyncio.CancelledError:
            pass  # `_end` has recorded why
        except ParrotError as error:
            self._end(work, error)
        except Exception as error:
            failure = EngineError(f"Running '{work.call.name}' failed with {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._end(work, failure)
        else:
            self._end(work, None)

    async def _run_semantic(self, work: _Work) -> None:
        call = work.call
        self._change(work, "running", "prefill")
        engine = await self._engines.get(call.options.model or self._default_model())
        operations = prompt.compile_prompt(call, engine.codec, self._options)
        call.engine = engine.name
        fresh = call.options.over(self._options).fresh is True
        context = work.context = self._memo.open(engine, priority(call), fresh=fresh)
        self._expectations.remove(call)
        try:
            for operation in operations:
                match operation:
                    case prompt.FillIds(token_ids):
                        context.fill(token_ids)
                    case prompt.FillText(text, first):
                        ids = await prompt.off_loop_if(len(text), partial(prompt.encode, engine.codec, text, first=first))
                        context.fill(ids)
                    case prompt.FillVariable(source, first):
                        await self._value_of(work, source)
                        size = sum(len(span.text) for span in prompt.variable_spans(source))
                        ids = await prompt.off_loop_if(size, partial(prompt.variable_ids, source, engine.codec, first=first))
                        context.fill(ids)
                    case prompt.Generate(node, sampling):
                        end = await self._generate(work, engine, context, node, sampling)
                        if operation is not operations[-1]:
                            self._generated(node, end, engine, context)
        finally:
            work.context = None
            context.free()
        self._generated(node, end, engine, context)  # the last output: whoever reads it finds the pages free

    async def _generate(
        self, work: _Work, engine: Engine, context: MemoContext, node: VariableNode, sampling: Sampling
    ) -> GenerationEnd:
        node.note = engine.model.note
        node.begin()
        self._log_variable(node)
        self._change(work, "running", "prefill", engine.name)
        phase: Phase = "prefill"
        async for piece in context.generate(sampling):
            now: Phase = "reused" if context.from_memo else "decode"
            if phase != now:
                phase = now
                self._change(work, "running", phase, engine.name)
            if piece.text:
                node.append(piece.text)
            if piece.text or piece.num_tokens:
                self._log.append(events.TextAppended(now_s(), node.id, piece.text, piece.num_tokens))
            if piece.end is not None:
                return piece.end
        raise EngineError(f"The engine '{engine.name}' ended '{node.name}' without a last piece: %parrot reset, then call again.")

    def _generated(self, node: VariableNode, end: GenerationEnd, engine: Engine, context: MemoContext) -> None:
        text = "".join(node.pieces)
        self._resolve(
            node, text, (Span(text, end.token_ids, engine.codec.key),), finish=end.finish, usage=_usage(end, context.from_memo)
        )
        self._settle()

    async def _run_native(self, work: _Work) -> None:
        call = work.call
        self._change(work, "running", "native")
        (node,) = call.outputs
        node.note = _note_of_inputs(call)
        node.begin()
        self._log_variable(node)
        args, kwargs = call.function.bind({name: source.value for name, source in call.inputs.items()})
        try:
            value = await self._native.run(call.function, args, kwargs, call.objective or THROUGHPUT)
        except ParrotError:
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            raise NativeFunctionError(f"Native function '{call.name}' raised {type(error).__name__}: {error}") from error
        spans: tuple[Span, ...] | None = (Span(value),) if isinstance(value, str) else None
        if isinstance(value, SemanticVariable):
            await self._value_of(work, value.node)
            value, spans = value.node.value, value.node.spans
        elif isinstance(value, VariableList):
            for item in value:
                await self._value_of(work, item.node)
            value = [item.node.value for item in value]
        self._resolve(node, value, spans)

    def _join(self, work: _Work) -> None:
        (node,) = work.call.outputs
        try:
            value, spans = work.call.function.evaluate(work.call.inputs)
        except ParrotError as error:
            self._end(work, error)
            return
        node.note = _note_of_inputs(work.call)
        node.begin()
        self._resolve(node, value, spans)
        self._end(work, None)

    async def _value_of(self, work: _Work, node: VariableNode) -> None:
        """Wait until a variable has its value.

        Raises:
            UpstreamError: it will have none.
        """
        if not node.final:
            self._change(work, "running", "waiting", work.call.engine)
            if node not in self._graph:  # made inside a native function
                self._watch(node)
            arrival = asyncio.get_running_loop().create_future()
            self._arrivals[node.id].append(arrival)
            await arrival
        if node.state != "done":
            raise _upstream(work.call, node)

    # Endings

    def _resolve(
        self,
        node: VariableNode,
        value: Any,
        spans: tuple[Span, ...] | None,
        *,
        finish: str | None = None,
        usage: Usage | None = None,
    ) -> None:
        if spans is not None and not node.pieces:  # what no model generated streams as one piece
            for span in spans:
                node.append(span.text)
        node.resolve(value, spans=spans, finish=finish, usage=usage)
        self._log_variable(node)
        self._final.append(node)

    def _end(self, work: _Work, error: BaseException | None) -> None:
        """A call has ended; without `error` all its outputs have values. Later endings of the same call are ignored."""
        call = work.call
        if self._works.pop(call.id, None) is None:
            return
        self._scheduler.discard(call)
        if call.kind == "semantic":
            self._expectations.remove(call)
        call.error = error
        state: State = "done"
        for node in call.outputs:
            if error is not None and node.fail(error):
                self._log_variable(node)
                self._final.append(node)
        if error is not None:
            cancelled = isinstance(error, CallCancelledError) or isinstance(error.__cause__, CallCancelledError)
            state = "cancelled" if cancelled else "failed"
            if work.task is not None and work.task is not asyncio.current_task():
                work.task.cancel()
        self._change(work, state, "ended", call.engine, error)

    def _cancel(self, works: Iterable[_Work], why: str) -> None:
        for work in works:
            self._end(work, CallCancelledError(f"'{work.call.name}' {why}: call it again for a result."))
        self._settle()

    def _change(
        self, work: _Work, state: State, phase: Phase, engine: str | None = None, error: BaseException | None = None
    ) -> None:
        work.call.state = state
        message = None if error is None else str(error)
        self._log.append(events.CallChanged(now_s(), work.call.id, state, phase, engine, message))

    def _log_variable(self, node: VariableNode) -> None:
        self._log.append(events.VariableChanged.of(node))


def _note_of_inputs(call: Call) -> str | None:
    """What must be said beside a value that is made of others."""
    return next((node.note for node in call.inputs.values() if node.note is not None), None)


def _usage(end: GenerationEnd, from_memo: bool) -> Usage:
    tokens = end.prefilled_tokens, end.reused_tokens, end.decoded_tokens
    return Usage(*tokens, end.queued_s, end.prefill_s, end.decode_s, from_memo)


def _upstream(call: Call, node: VariableNode) -> UpstreamError:
    """What a call fails with when a variable that it reads has no value; the cause is the first error of the chain."""
    error = node.error
    first = error.__cause__ if isinstance(error, UpstreamError) and error.__cause__ is not None else error
    source = node.producer.name if node.producer is not None else node.name
    upstream = UpstreamError(f"'{call.name}' did not run: '{node.name}', which it reads from '{source}', has no value ({first}).")
    upstream.__cause__ = first
    return upstream
