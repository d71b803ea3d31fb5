"""The embedded engine: contexts on the runtime loop, steps in one worker thread.

`_run` is the whole engine: plan a step, compute it elsewhere, apply what came out. All state belongs to the loop; the
worker gets a snapshot and gives back token ids. A step that fails is taken apart (`parrot_nb.engine.embedded.suspects`), so that
only contexts at fault fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Collection, Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from parrot_nb.engine.embedded.batch import make_batch
from parrot_nb.engine.embedded.budget import Budget
from parrot_nb.engine.embedded.cache import PageCache
from parrot_nb.engine.embedded.choices import choose
from parrot_nb.engine.embedded.codec import TokenizerCodec
from parrot_nb.engine.embedded.context import Context, Generation
from parrot_nb.engine.embedded.defaults import NO_DEFAULTS, ModelDefaults
from parrot_nb.engine.embedded.draft import guess
from parrot_nb.engine.embedded.elastic import IDLE_S, Elastic
from parrot_nb.engine.embedded.failures import as_engine_error, as_lost, note, stalled, too_long, unknown_token
from parrot_nb.engine.embedded.lookahead import look_ahead
from parrot_nb.engine.embedded.pace import Pacer
from parrot_nb.engine.embedded.plan import plan_step
from parrot_nb.engine.embedded.script import Script
from parrot_nb.engine.embedded.starting import Starter
from parrot_nb.engine.embedded.step import Choice, RunningStep, StepBatch
from parrot_nb.engine.embedded.suspects import Suspects
from parrot_nb.engine.embedded.times import PromptTimes, StepTimes
from parrot_nb.engine.embedded.worker import Worker
from parrot_nb.engine.embedded.writing import Writer
from parrot_nb.engine.memory import failure_of, return_freed
from parrot_nb.engine.protocol import (
    Capabilities,
    ContextId,
    EngineLoad,
    ModelInfo,
    Pace,
    Piece,
    Priority,
    Sampling,
    Speed,
    StepListener,
)
from parrot_nb.errors import EngineError, EngineLostError

if TYPE_CHECKING:
    from parrot_nb.engine.embedded.model import StepModel

STEP_TIMEOUT_S = 300.0  # a long prompt's chunk on a large model and a slow CPU takes a minute or two
REST_S = 0.3  # without work, after which it is worth some milliseconds to return memory
CLOSE_S = 3.0  # for a last step to end, as nearly every one does: Jupyter kills a kernel that takes 5 s to shut down
BREAK_S = 1.0  # for one that did not and is broken off; few operations take longer, but a device may never finish one


class EmbeddedEngine:
    """Runs a Hugging Face causal language model in this process; meets `parrot_nb.engine.protocol.Engine`.

    Made by `load_engine`. Its methods are called on one event loop, that of its first use.

    Args:
        name: for logs and views.
        info: what the model is.
        model: computes steps.
        worker: the one thread that does so, and that loaded the model.
        codec: its tokenizer.
        eos_ids: tokens that end a text.
        num_pages: pages of the KV cache.
        page_size: tokens per page.
        max_step_tokens: rows of a step: a long prompt is computed in chunks of this size, and short ends may come on top.
        step_timeout_s: a step that takes longer is taken to be stuck: the engine is lost.
        off: optimisations to do without: "sharing" (equal prefixes are the same pages), "dedup" (a prefix that several
            contexts need is computed once), "lookahead" (a decode step is planned while the one before it is computed; on
            a GPU), "drafts" (what a context holds already is guessed to come again, and several guesses are checked in one
            step; on the CPU, since a step of several rows per context is no captured graph).
        on_step: is told of every step.
        defaults: what the model's files ask of every generation.
        num_embeddings: tokens that the model knows; others are refused. None lets all pass.
        most_pages: as many as the cache may grow to; None where it does not grow.
    """

    def __init__(
        self,
        *,
        name: str,
        info: ModelInfo,
        model: StepModel,
        worker: Worker,
        codec: TokenizerCodec,
        eos_ids: frozenset[int],
        num_pages: int,
        page_size: int,
        max_step_tokens: int,
        step_timeout_s: float = STEP_TIMEOUT_S,
        on_step: StepListener | None = None,
        off: Collection[str] = (),
        defaults: ModelDefaults = NO_DEFAULTS,
        num_embeddings: int | None = None,
        most_pages: int | None = None,
    ) -> None:
        self.name = name
        self.model = info
        # On a CPU every row costs its time: what is filled ahead delays what is being written by as much as it saves later.
        self.capabilities = Capabilities(shares_kv=True, streams_fills=info.device != "cpu", takes_token_ids=True)
        self.codec = codec
        self.max_context_tokens = min(info.max_context_tokens, (most_pages or num_pages) * page_size)
        self._model = model
        self._num_embeddings = num_embeddings
        self._suppressed = defaults.suppressed
        self._writer = Writer(codec, self.max_context_tokens)
        self._suspects = Suspects()
        model.on_verdict = partial(note, self)
        self._cache = PageCache(num_pages, page_size, shares="sharing" not in off)
        self._elastic = (
            None if most_pages is None else Elastic(self._cache, worker, model.resize, most_pages, info, step_timeout_s)
        )
        self._deduplicate = "dedup" not in off
        self._looks_ahead = "lookahead" not in off and info.device != "cpu"  # a CPU computes and plans in the same cores
        self._starter = Starter(codec, eos_ids, defaults, info.device, guesses="drafts" not in off and info.device == "cpu")
        self._pacer = Pacer(max_step_tokens)
        self._step_timeout_s = step_timeout_s
        self._ended_s: float | None = None  # when the step before ended; None where the engine had nothing to do since
        self._on_step = on_step
        self._contexts: dict[ContextId, Context] = {}
        self._leaving: set[Context] = set()  # freed while a step reads and writes their pages
        self._clear_after: set[Context] = set()  # of these, those whose pages are not to be cached either
        self._ids = itertools.count(1)
        self._worker = worker
        self._loop_task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._closed = False
        self._step_s, self._num_running = 0.0, 0
        self._times, self._prompt_times = StepTimes(), PromptTimes()

    # The protocol

    def open(self, priority: Priority) -> ContextId:
        """A new, empty context."""
        if self._closed:
            raise EngineLostError(f"The model '{self.model.id}' was closed: call again, it will be loaded anew.")
        context = Context(next(self._ids), priority, self._cache)
        self._contexts[context.id] = context
        return context.id

    def set_priority(self, context: ContextId, priority: Priority) -> None:
        """Change how urgent a context is."""
        if context in self._contexts:
            self._contexts[context].priority = priority

    def set_pace(self, context: ContextId, pace: Pace | None) -> None:
        """Set how fast a context wants its tokens."""
        if context in self._contexts:
            self._contexts[context].pace = pace

    @property
    def speed(self) -> Speed:
        """Duration of steps: the usual one until some were computed."""
        usual = Speed()
        prefill_s = self._prompt_times.token_s or self._times.row_s or usual.prefill_s
        return Speed(self._times.base_s or usual.base_s, self._times.row_s or usual.row_s, prefill_s)

    def fill(self, context: ContextId, token_ids: Sequence[int]) -> None:
        """Append tokens to a context; see `Engine.fill`."""
        owner = self._get(context)
        length = len(owner.tokens) + len(token_ids)
        if length >= self.max_context_tokens:  # one more must fit, or nothing could be generated
            raise too_long(length, self.max_context_tokens, self.model)
        if token_ids and self._num_embeddings is not None and not 0 <= min(token_ids) <= max(token_ids) < self._num_embeddings:
            raise unknown_token(token_ids, self._num_embeddings, self.model)  # on a GPU it would end CUDA for the whole process
        owner.tokens.extend(token_ids)
        self._notify()

    async def generate(
        self, context: ContextId, sampling: Sampling, *, likely: Sequence[int] = (), taken_back: Sequence[int] = ()
    ) -> AsyncIterator[Piece]:
        """Generate after what was filled; see `Engine.generate`."""
        owner = self._get(context)
        assert owner.generation is None, "a context has one writer"
        if not owner.tokens:
            raise EngineError("The prompt is empty: put some text before its first output.")
        if sampling.scoring is not None:
            yield await choose(self, owner, sampling, taken_back)
            return
        grammar = await self._starter.prepare(sampling, taken_back)
        owner = self._get(context)  # it may have failed, or been freed, meanwhile
        generation = owner.generation = self._starter.generation(
            owner, sampling, likely=likely, taken_back=taken_back, grammar=grammar
        )
        self._notify()
        try:
            async for piece in generation.told():
                yield piece
        finally:
            if owner.generation is generation:  # the reader went away: what was generated stays
                owner.generation = None

    def write_script(self, context: ContextId, script: Script) -> Generation:
        """Have a script written after what was filled; see `parrot_nb.engine.embedded.choices`."""
        owner = self._get(context)
        generation = owner.generation = self._starter.scripted(owner, script)
        self._notify()
        return generation

    def free(self, context: ContextId) -> None:
        """Give a context up; see `Engine.free`."""
        owner = self._contexts.pop(context, None)
        if owner is None:
            return
        owner.freed = True
        if owner.lease.num_steps:
            self._leaving.add(owner)
        else:
            owner.lease.release()
        if owner.generation is not None:
            owner.generation.fail(EngineError("The context was freed while it generated."))
            owner.generation = None
        self._notify()

    def load(self) -> EngineLoad:
        """Return the engine's current load."""
        return EngineLoad(
            num_contexts=len(self._contexts),
            running_contexts=self._num_running,
            waiting_tokens=sum(c.num_pending for c in self._contexts.values()),
            num_pages=self._cache.num_pages,
            free_pages=self._cache.num_free,
            cached_pages=self._cache.num_cached,
            owned_pages=self._cache.num_owned,
            page_size_tokens=self._cache.page_size,
            step_s=self._step_s,
            stuck=self._closed and not self._worker.ended.done(),
            most_pages=self._cache.num_pages if self._elastic is None else self._elastic.most_pages,
            threads=self._model.threads,
        )

    def expect(self, key: Hashable, token_ids: Sequence[int], next_use: int) -> None:
        """Note that a context that begins with these tokens will be filled; see `Engine.expect`."""
        self._cache.expect(key, token_ids, next_use)

    def cached_tokens(self, token_ids: Sequence[int]) -> int:
        """Return how many of a prompt's first tokens have their KV cached; see `KnowsCache`."""
        return self._cache.cached_tokens(token_ids)

    def forget(self, key: Hashable) -> None:
        """Withdraw the hint that `expect` gave under this key."""
        self._cache.forget(key)

    def clear_cache(self) -> None:
        """Free every page that no context uses, and those of contexts that were freed as soon as the step that runs has ended."""
        self._cache.clear()
        self._clear_after = set(self._leaving)

    async def close(self) -> None:
        """End all contexts, stop the worker, drop the weights; see `Engine.close`."""
        if not self._closed:
            self._give_up(EngineError(f"The model '{self.model.id}' was closed."))
        if self._loop_task is not None:
            await asyncio.wait({self._loop_task})
            self._loop_task = None
        if not await self._worker.ends_within(CLOSE_S):
            self._worker.break_off()
            await self._worker.ends_within(BREAK_S)

    # The step

    async def _run(self) -> None:
        ahead: RunningStep | None = None
        while True:
            if ahead is None and self._elastic is not None:
                await self._elastic.fit(self._contexts.values())
            running = ahead or self._planned()
            if running is None:
                self._num_running = 0
                self._ended_s = None
                await self._rest()
                continue
            self._num_running = len(running.contexts)
            ahead = self._look_ahead(running)  # the worker goes on with it as soon as it has computed this one
            outcome = await self._outcome(running)
            if isinstance(outcome, BaseException):
                if ahead is not None:  # what it was to continue is not there
                    await self._outcome(ahead)
                    ahead = None
                if isinstance(outcome, EngineLostError):
                    raise outcome  # the device computes nothing more: no try of fewer contexts would end otherwise
                self._step_failed(running, outcome)
            else:
                self._apply(running, outcome)
            self._writer.tell(self._contexts.values(), with_ids=self.capabilities.streams_fills)
            self._record(running)
            if any(context.generation is None for context in running.contexts):
                await asyncio.sleep(0)  # let readers act on what ended, so that the next plan knows what they free and fill

    async def _rest(self) -> None:
        """Wait for work; if none comes for a while, memory that is kept for more goes back to the system."""
        self._wake.clear()
        if await self._has_work(REST_S):
            return
        self._worker.submit(return_freed)
        if self._elastic is not None and self._elastic.is_large:
            if await self._has_work(IDLE_S):
                return
            await self._elastic.rest()
        await self._wake.wait()

    async def _has_work(self, within_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                return await self._wake.wait()
        return False

    def _planned(self) -> RunningStep | None:
        """The next step by what is known now, handed to the worker; None if there is nothing to do."""
        guess(self._contexts.values(), self._times, self.max_context_tokens)
        contexts = tuple(self._contexts.values())
        budget = self._pacer.budget(contexts, self.speed)
        while rows := self._rows(contexts, budget):
            rows.sort(key=lambda row: tuple(row[0].lease.pages))  # neighbours share pages: the attention plan looks for that
            planned = [context for context, _ in rows]
            try:
                batch = make_batch(rows, self._suppressed)
            except Exception as error:
                for context in planned:
                    context.lease.failed()
                self._take_apart(planned, error)
            else:
                return self._started(planned, batch)
        return None

    def _rows(self, contexts: Sequence[Context], budget: Budget) -> list[tuple[Context, int]]:
        plan = partial(plan_step, contexts, self._cache, budget, deduplicate=self._deduplicate)
        while (suspects := self._suspects.next()) is not None:
            if rows := plan(only=suspects):
                return rows
            self._suspects.passed(suspects)  # no room for a try: they take their turn with the others
        return plan()

    def _started(self, contexts: list[Context], batch: StepBatch) -> RunningStep:
        for context, part in zip(contexts, batch.contexts, strict=True):
            context.lease.begin(part.end, ahead=part.after is not None)
        return RunningStep(contexts, batch, self._worker.submit(self._model.step, batch), judged=self._model.judged)

    def _look_ahead(self, running: RunningStep) -> RunningStep | None:
        """The step after this one, while this one is being computed; None where it cannot be told yet."""
        if not self._looks_ahead:
            return None
        found = look_ahead(running, self._contexts.values(), self._cache, self.max_context_tokens)
        return None if found is None else self._started(*found)

    async def _outcome(self, step: RunningStep) -> list[Choice] | BaseException:
        """Wait for a step: what it chose, or what the model raised."""
        try:
            async with asyncio.timeout(self._step_timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._worker, step.outcome)
        except TimeoutError:
            raise stalled(self.model, self._step_timeout_s) from None

    def _apply(self, running: RunningStep, choices: Sequence[Choice]) -> None:
        self._suspects.passed(running.contexts)
        sampled = iter(choices)
        for context, part in zip(running.contexts, running.batch.contexts, strict=True):
            chosen = list(itertools.islice(sampled, part.num_samples))
            generation = context.generation
            goes_on = generation is not None and generation.number == part.generation
            if part.after is None or goes_on:
                context.computed(part.end - part.num_guessed)
            else:  # its token was one that its generation has not come to
                context.lease.in_vain()
            if context.freed and not context.lease.num_steps:
                self._left(context)
            if part.sampling is None or generation is None or not goes_on:
                continue  # nothing was sampled, or its reader went away meanwhile
            self._writer.accept(context, generation, chosen, part)

    def _step_failed(self, running: RunningStep, error: BaseException) -> None:
        """Take a step back, and try its contexts again in halves; if there is one alone, it fails."""
        tried = []
        for context, part in zip(running.contexts, running.batch.contexts, strict=True):
            context.lease.failed()
            if context.freed:
                self._left(context)
            elif part.after is None or (context.generation is not None and context.generation.number == part.generation):
                tried.append(context)  # the others had ended, or failed, with the step before
        self._take_apart(tried, error)

    def _take_apart(self, contexts: Sequence[Context], error: BaseException) -> None:
        if contexts and (alone := self._suspects.failed(contexts)) is not None:
            alone.fail(as_engine_error(error))

    def _left(self, context: Context) -> None:
        self._leaving.discard(context)
        context.lease.release()
        if context in self._clear_after:
            self._clear_after.discard(context)
            if not self._clear_after:
                self._cache.clear()

    # Helpers

    def _get(self, context: ContextId) -> Context:
        if context not in self._contexts:
            raise EngineError("The context was freed.")
        if (failure := self._contexts[context].failure) is not None:
            raise failure
        return self._contexts[context]

    def _notify(self) -> None:
        if self._closed:
            return
        if self._loop_task is None:
            self._loop_task = asyncio.get_running_loop().create_task(self._run())
            self._loop_task.add_done_callback(self._run_ended)
        self._wake.set()

    def _run_ended(self, task: asyncio.Task[None]) -> None:
        """The step loop ends when the engine is closed; anything else is a stall or our own bug, and nobody may wait for it."""
        if (error := failure_of(task)) is not None and not self._closed:
            self._give_up(as_lost(error))

    def _give_up(self, failure: EngineError) -> None:
        """Compute nothing more. Who waits is told at once; weights and cache go as soon as the worker does not need them."""
        self._closed, self._num_running = True, 0
        if self._loop_task is not None:
            self._loop_task.cancel()
        for context in (*self._contexts.values(), *self._leaving):
            context.lease.abandon()
            context.fail(failure)
        self._leaving.clear()
        self._suspects.clear()
        self._worker.finish(self._model.release)

    def _record(self, running: RunningStep) -> None:
        record = running.record(self._cache, self._ended_s)
        self._step_s = record.duration_s
        num_rows = record.decode_tokens + record.guessed_tokens
        before_s, self._ended_s = self._ended_s, record.start_s + record.duration_s
        if before_s is not None:
            self._pacer.stepped(self._ended_s - before_s)
        if record.prefill_tokens:
            self._prompt_times.took(record.prefill_tokens, max(0.0, record.duration_s - self._times.step_s(num_rows)))
        else:
            self._times.took(num_rows, record.duration_s)
        if self._on_step is not None:
            self._on_step(record)
