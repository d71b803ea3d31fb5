"""Execution of a started call: fill and generate on a context, run a Python function, or wait for the first of several values.

Lives on the runtime loop. What comes of it goes into the books.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial

from parrot_nb.engine.protocol import Engine, GenerationEnd, Piece, Sampling
from parrot_nb.errors import EngineError
from parrot_nb.graph import Graph
from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.nodes import Span
from parrot_nb.runtime import prompt
from parrot_nb.runtime.books import Books
from parrot_nb.runtime.conversation import Turns, conversation
from parrot_nb.runtime.endings import (
    RefusedIfTooLong,
    logprobs_of,
    missed_target,
    none_acceptable,
    note_of_inputs,
    refused,
    scores_of,
    truncated,
    upstream_error,
    usage_of,
)
from parrot_nb.runtime.engines import EnginePool
from parrot_nb.runtime.events import Phase, now_s
from parrot_nb.runtime.expectations import Expectations
from parrot_nb.runtime.feedback import told_why
from parrot_nb.runtime.fitting import fit_input, most_context_tokens
from parrot_nb.runtime.functions import Functions
from parrot_nb.runtime.memo import Memo, MemoContext, Place
from parrot_nb.runtime.planner import Planner
from parrot_nb.runtime.stretches import PromptWriter
from parrot_nb.runtime.work import Work

STREAM_TOKENS = 32  # that a streaming edge carries at once: each costs a step a prompt of so many tokens


@dataclass(frozen=True, slots=True)
class _Thought:
    """End of a model's thinking, and whether it was taken from an equal one."""

    end: GenerationEnd
    from_memo: bool


class Runner:
    """See the module.

    Args:
        books: take what comes of calls.
        graph: finds variables.
        engines: finds the engine of a model.
        functions: the user's, which run elsewhere.
        memo: what need not be generated again.
        off: optimisations to do without, asked anew each time.
        planner: says how urgent calls are, and learns what they take.
        expectations: beginnings of prompts, each kept until its call has a context.
        compiler: of prompts.
    """

    def __init__(
        self,
        *,
        books: Books,
        graph: Graph,
        engines: EnginePool,
        functions: Functions,
        memo: Memo,
        planner: Planner,
        expectations: Expectations,
        off: Callable[[], Collection[str]],
        compiler: prompt.Compiler,
    ) -> None:
        self._books = books
        self._graph = graph
        self._engines = engines
        self._functions = functions
        self._memo = memo
        self._planner = planner
        self._expectations = expectations
        self._off = off
        self._compiler = compiler

    def run(self, work: Work) -> Coroutine[None, None, None]:
        """Run a call until its outputs have values.

        Raises:
            ParrotError: they will have none.
        """
        match work.call.kind:
            case "semantic":
                return self._run_semantic(work)
            case "native":
                return self._run_native(work)
            case _:
                return self._run_first(work)

    async def _run_semantic(self, work: Work) -> None:
        call = work.call
        work.cuts.clear()  # of an engine that was lost
        self._books.changed(work.call, "running", "prefill")
        assert work.slot is not None
        engine = work.engine = await self._engines.get(work.slot.model, work.slot.index)
        operations = self._compiler.compiled(call, engine, self._engines.defaults(engine))
        nodes = prompt.nodes_of(call)
        call.engine = engine.name
        turns = partial(conversation, operations, nodes, self._compiler.system_of(call))
        context = self._open(work, engine, turns)
        self._expectations.remove(call)
        writer = PromptWriter(engine.codec)
        thought: _Thought | None = None
        try:
            for i_operation, operation in enumerate(operations):
                match operation:
                    case prompt.FillVariable():
                        await self._fill_variable(work, engine, context, writer, operations[i_operation:], nodes)
                    case prompt.Think():
                        for mark in operation.opens:
                            prompt.add(mark, writer)
                        seam = await asyncio.to_thread(writer.end, heals=False) if writer.is_long else writer.end(heals=False)
                        context.fill(seam.token_ids)
                        thought = await self._think(work, engine, context, operation, nodes[operation.name])
                        for mark in operation.closes(cut=thought.end.finish == "length"):
                            prompt.add(mark, writer)
                    case prompt.Generate():
                        heals = operation.heals
                        seam = await asyncio.to_thread(writer.end, heals=heals) if writer.is_long else writer.end(heals=heals)
                        context.fill(seam.token_ids)
                        node = nodes[operation.name]
                        node.taken_back = seam.text
                        end = await self._write(work, engine, context, operation, nodes, seam.taken_back, thought)
                        if operation is operations[-1]:
                            break
                        self._generated(operation, node, end, engine)
                        await self._come_back(work, context)
                        if thought is not None:  # templates leave it out of what later turns see
                            context.free()
                            thought, context, writer = None, self._open(work, engine, turns), PromptWriter(engine.codec)
                            prompt.add_past(operations[: i_operation + 1], nodes, writer)
                    case _:
                        prompt.add(operation, writer)
        finally:
            work.context = None
            context.free()
        assert isinstance(operation, prompt.Generate), "a prompt ends with its last output"
        self._generated(operation, node, end, engine)  # whoever reads it finds the pages free

    def _open(self, work: Work, engine: Engine, turns: Callable[[str], Turns]) -> MemoContext:
        """A new context for the prompt of a call; `turns` are those before each output."""
        assert work.slot is not None
        fresh = self._compiler.is_fresh(work.call)
        family = self._engines.family(work.slot.model)
        priority = self._planner.priority(work.call, ahead=work.ahead)
        context = work.context = self._memo.open(engine, priority, family=family, fresh=fresh, ahead=work.ahead, turns=turns)
        context.set_pace(self._planner.scheduler.pace(work.call))
        return context

    async def _fill_variable(
        self,
        work: Work,
        engine: Engine,
        context: MemoContext,
        writer: PromptWriter,
        operations: Sequence[prompt.Operation],
        nodes: dict[str, ValueRecord],
    ) -> None:
        """Fill the variable that the first of these operations names, once it has a value; those after it are for what fits."""
        operation = operations[0]
        assert isinstance(operation, prompt.FillVariable), "variables are filled"
        source, fits = nodes[operation.name], operation.fit is not None
        context.fill(await asyncio.to_thread(writer.take) if writer.is_long else writer.take())
        begun = 0 if fits or source.final else await self._fill_while_written(work, engine, context, writer, source)
        await self._value_of(work, context, source)
        if fits:  # as a whole, and with what stands beside it
            sizes = {
                "num_tokens": context.num_tokens + writer.num_open_tokens,
                "most_context_tokens": most_context_tokens(engine),
            }
            work.cuts += await fit_input(operations, nodes, engine.codec, partial(self._value_of, work, context), **sizes)
        writer.add_spans(prompt.variable_spans(nodes[operation.name]), begun)

    async def _fill_while_written(
        self, work: Work, engine: Engine, context: MemoContext, writer: PromptWriter, source: ValueRecord
    ) -> int:
        """Fill the tokens of a variable that is being written as they become certain; returns how many."""
        begun = 0
        if not work.ahead or source.final or "streaming" in self._off():
            return begun
        if source.state != "running":
            self._books.changed(work.call, "running", "waiting", engine.name)
            await self._books.streamed(source, 1)
        if source.final or source.codec != engine.codec.key:
            return begun
        self._books.changed(work.call, "running", "streaming", engine.name)
        while not source.final:
            await self._books.streamed(source, begun + STREAM_TOKENS)
            if len(source.streamed_ids) >= begun + STREAM_TOKENS:
                if not begun:
                    writer.add_text(source.streamed_lead)
                writer.add_ids(source.streamed_ids[begun:])
                context.fill(writer.take())
                begun = len(source.streamed_ids)
        return begun

    async def _think(
        self, work: Work, engine: Engine, context: MemoContext, operation: prompt.Think, node: ValueRecord
    ) -> _Thought:
        """Have the model think after what was filled."""
        sampling = operation.bounded(engine.codec, context.num_tokens, most_context_tokens(engine))
        self._books.begin(node, engine.model.note, engine.codec.key)
        node.think("")
        end: GenerationEnd | None = None
        async for piece in self._pieces(work, engine, context, sampling, (work.call.name, node.name, "thinking")):
            self._books.append(node, Piece(piece.text, piece.num_tokens), thinking=True)  # its ids cross no edge
            end = piece.end
        if end is None:
            raise _no_last_piece(engine, node)
        return _Thought(end, context.from_memo)

    async def _write(
        self,
        work: Work,
        engine: Engine,
        context: MemoContext,
        operation: prompt.Generate,
        nodes: dict[str, ValueRecord],
        taken_back: tuple[int, ...],
        thought: _Thought | None,
    ) -> GenerationEnd:
        """Write an output until it is a value: the end of the last attempt. Where there may be several, only the last one's text
        streams out; the variable's usage is that of all, also where it fails.

        Raises:
            TruncatedError: the last attempt was cut off.
            CheckError: the last attempt was refused.
        """
        call, node = work.call, nodes[operation.name]
        judged = operation.sampling.constraint is not None or node.name in call.checked
        ends: list[GenerationEnd] = []
        attempts: list[tuple[str, str]] = []
        from_memo = thought is None or thought.from_memo
        while True:
            held: list[Piece] | None = [] if operation.retries and judged else None
            with RefusedIfTooLong(call.name, node.name, attempts):
                end, first_s = await self._generate(work, engine, context, operation, node, taken_back, len(ends), held)
            ends.append(end)
            from_memo = from_memo and context.from_memo
            node.usage = usage_of(ends, from_memo=from_memo, thought=None if thought is None else thought.end)
            text = "".join(node.pieces if held is None else [piece.text for piece in held])
            cut = truncated(call.name, node.name, end, text, operation.sampling.max_tokens)
            if cut is not None and len(ends) > operation.retries:
                context.refuse()
                raise cut
            reason = None if cut is None else "it was cut off before it was a value"
            if reason is None and node.name in call.checked:
                reason = await self._checked(work, node, text)
            if reason is None:
                break
            attempts.append((text, reason))
            context.refuse()
            if len(ends) > operation.retries:
                raise refused(call.name, node.name, attempts)
            if operation.feedback:
                operations = self._compiler.compiled(call, engine, self._engines.defaults(engine))
                known = None if thought is None else thought.end
                seam = await told_why(operations, operation, nodes, engine.codec, attempts, known)
                context.restart()
                with RefusedIfTooLong(call.name, node.name, attempts):
                    context.fill(seam.token_ids)
                node.taken_back, taken_back = seam.text, seam.taken_back
            else:
                context.take_back()
            await self._come_back(work, context)
        if held is not None:
            first_s = now_s()  # before that no reader saw any of it
        for piece in held or ():
            self._books.append(node, piece)
        missed = missed_target(node, end, first_s)
        if work.cuts or missed:
            said = [node.note, *map(str, work.cuts), missed]
            node.note = "; ".join(sentence for sentence in said if sentence) or None
        if work.cuts:
            node.usage = replace(node.usage, cut_tokens=sum(cut.before_tokens - cut.after_tokens for cut in work.cuts))
        return end

    async def _checked(self, work: Work, node: ValueRecord, text: str) -> str | None:
        """Why the text of an output is no value, in words; None where it is one. The call has no place on its engine meanwhile:
        a check may wait for calls that need it."""
        call = work.call
        self._planner.scheduler.step_aside(call)
        self._books.changed(call, "running", "native", call.engine)
        self._books.announce()
        return await self._functions.checked(call.id, node.id, text, call.objective)

    async def _come_back(self, work: Work, context: MemoContext) -> None:
        """Wait for a place on the engine again, where the call gave it to others."""
        scheduler = self._planner.scheduler
        if scheduler.is_aside(work.call):
            self._books.changed(work.call, "running", "queued", work.call.engine)
            await scheduler.come_back(work.call)
            context.set_pace(scheduler.pace(work.call))

    async def _generate(
        self,
        work: Work,
        engine: Engine,
        context: MemoContext,
        operation: prompt.Generate,
        node: ValueRecord,
        taken_back: tuple[int, ...],
        attempt: int,
        held: list[Piece] | None,
    ) -> tuple[GenerationEnd, float]:
        """Generate an output after what was filled, for the attempt of that number; its text streams out, the text that it begins
        with first, or is put into `held` and only its tokens are told. Returns its end, and when its first token came."""
        begin = operation.begin
        if node.thinking_pieces is None and not attempt:
            self._books.begin(node, engine.model.note, engine.codec.key)
        end: GenerationEnd | None = None
        first_s: float | None = None
        place = work.call.name, node.name
        async for piece in self._pieces(work, engine, context, operation.attempt(attempt), place, taken_back):
            whole = replace(piece, text=begin + piece.text, lead=begin + piece.lead) if begin else piece
            if held is None:
                self._books.append(node, whole)
            else:
                self._books.append(node, Piece("", piece.num_tokens))  # counts at once, whatever becomes of it
                held.append(replace(whole, num_tokens=0))
            begin = ""
            first_s = first_s or now_s()
            end = piece.end
        if end is None or first_s is None:
            raise _no_last_piece(engine, node)
        sampled = end.decoded_tokens or len(end.context_ids)  # more than its text has: what ends it takes a step too
        self._planner.costs.written(work.call, node, node.num_thinking_tokens + sampled)
        return end, first_s

    async def _pieces(
        self,
        work: Work,
        engine: Engine,
        context: MemoContext,
        sampling: Sampling,
        place: Place,
        taken_back: tuple[int, ...] = (),
    ) -> AsyncIterator[Piece]:
        """Generate after what was filled, or take what an equal generation gave, and tell the phases."""
        if (known := await context.recall(sampling, place, taken_back)) is not None:
            self._planner.scheduler.writes(work.call)
            self._books.changed(work.call, "running", "reused", engine.name)
            yield known
            return
        # Not before all is filled: a part of a page, once computed, cannot be shared.
        context.set_priority(self._planner.priority(work.call, ahead=work.ahead))
        self._books.changed(work.call, "running", "prefill", engine.name)
        phase: Phase = "prefill"
        async for piece in context.generate(sampling, place=place, taken_back=taken_back):
            now: Phase = "reused" if context.from_memo else "decode"
            if phase != now:
                phase = now
                self._planner.scheduler.writes(work.call)
                self._books.changed(work.call, "running", phase, engine.name)
            yield piece

    def _generated(
        self,
        operation: prompt.Generate,
        node: ValueRecord,
        end: GenerationEnd,
        engine: Engine,
    ) -> None:
        text, lead = "".join(node.pieces), operation.begin + end.lead
        node.logprobs, node.scores = logprobs_of(end), scores_of(end)
        spans = (Span(lead),) if lead else ()
        self._books.resolve(
            node,
            (*spans, Span(text[len(lead) :], end.token_ids, engine.codec.key)),
            finish=end.finish,
        )
        self._books.announce()

    async def _run_native(self, work: Work) -> None:
        call = work.call
        self._books.changed(work.call, "running", "native")
        (node,) = call.outputs
        self._books.begin(node, note_of_inputs(call))
        started_s = now_s()
        ended = await self._functions.run(call.id, call.objective)
        self._planner.costs.took(call, now_s() - started_s)
        node.written, node.refusal = ended.value.written, ended.value.refusal
        spans = ended.value.spans
        if ended.like is not None and (source := self._graph.variable(ended.like)) is not None and source.spans is not None:
            spans, node.note = source.spans, node.note or source.note  # a model's ids go on
        self._books.resolve(node, spans, shown=ended.value.shown)

    async def _run_first(self, work: Work) -> None:
        call = work.call
        self._books.changed(work.call, "running", "waiting")
        (node,) = call.outputs
        self._books.begin(node, None)
        arrived: asyncio.Queue[ValueRecord] = asyncio.Queue()
        for source in call.inputs.values():
            if source.final:
                arrived.put_nowait(source)
            else:
                self._books.arrival(source).add_done_callback(partial(_put, arrived, source))
        for _ in call.inputs:
            source = await arrived.get()
            if source.state == "done" and (not call.has_condition or await self._accepts(call, source)):
                node.note, node.written, node.refusal = source.note, source.written, source.refusal
                self._books.resolve(node, source.spans, shown=source.shown, like=source.id)
                return
        raise none_acceptable(call)

    async def _accepts(self, call: CallRecord, source: ValueRecord) -> bool:
        return await self._functions.accepts(call.id, source.id, call.objective)

    async def _value_of(self, work: Work, context: MemoContext, node: ValueRecord) -> None:
        """Wait until a variable has its value. Others have the call's place meanwhile, unless it was begun ahead: few are.

        Raises:
            UpstreamError: it will have none.
        """
        if not node.final:
            arrival = self._books.arrival(node)
            self._books.changed(work.call, "running", "waiting", work.call.engine)
            if not work.ahead:
                self._planner.scheduler.step_aside(work.call)
                self._books.announce()
            await arrival
        if node.state != "done":
            raise upstream_error(work.call, node)
        await self._come_back(work, context)


def _no_last_piece(engine: Engine, node: ValueRecord) -> EngineError:
    return EngineError(f"The engine '{engine.name}' ended '{node.name}' without a last piece: %parrot reset, then call again.")


def _put(queue: asyncio.Queue[ValueRecord], node: ValueRecord, _: object) -> None:
    queue.put_nowait(node)
