"""Plans: what calls would fill, share, find and write, and how long that takes, computed without running them.

Prompts are put together as a run does it, by the same writer and in the same order, so their tokens are exact as far as their
texts exist. What the memo or the store has is taken as the value that a run would take over, and read by the calls after it. A
text that does not exist yet stands as so many unknown tokens, which only calls that read the same variable share.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from parrot_nb.engine.protocol import Engine, KnowsCache, Speed
from parrot_nb.errors import ModelError, ParrotError
from parrot_nb.graph.records import CallRecord
from parrot_nb.runtime import prompt
from parrot_nb.runtime.costs import TextCosts
from parrot_nb.runtime.engines import EnginePool
from parrot_nb.runtime.fitting import most_context_tokens
from parrot_nb.runtime.joining import joined
from parrot_nb.runtime.memo import Memo
from parrot_nb.runtime.plan_figures import PlanFigures, PlannedCall, PlannedModel
from parrot_nb.runtime.plan_walk import Walk
from parrot_nb.runtime.policies import MAX_OPEN
from parrot_nb.runtime.prefix_advice import advise


@dataclass(slots=True)
class _Wave:
    """Calls that may run side by side, since none reads another.

    Attributes:
        filled_tokens: that the engines compute for them.
        lengths: tokens that each probably writes, and at most.
        native_s: the longest of the native functions among them.
    """

    filled_tokens: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    lengths: defaultdict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    native_s: float = 0.0


@dataclass(slots=True)
class _Model:
    """Pages that calls share on the engines of one model."""

    engine: Engine
    num_engines: int
    pages: set[int] = field(default_factory=set)  # hashes of full pages, each with all before it
    num_own_pages: int = 0


class Plan:
    """One plan; used once, on the runtime loop.

    Args:
        memo: of the session.
        engines: of the session; those of the calls' models are loaded if need be.
        compiler: of prompts.
        costs: what is known of the lengths of texts and the times of functions.
        model_of: the model of a call.
    """

    def __init__(
        self,
        memo: Memo,
        engines: EnginePool,
        compiler: prompt.Compiler,
        costs: TextCosts,
        model_of: Callable[[CallRecord], str],
    ) -> None:
        self._memo = memo
        self._engines = engines
        self._compiler = compiler
        self._costs = costs
        self._model_of = model_of
        self._models: dict[str, _Model] = {}
        self._waves: defaultdict[int, _Wave] = defaultdict(_Wave)
        self._depths: dict[int, int] = {}  # of variables: how many waves come before there is a value
        self._failed: set[int] = set()  # variables that will have none
        self._equal: set[Hashable] = set()  # calls that are computed once, however often they are made

    async def figures(self, calls: Sequence[CallRecord]) -> PlanFigures:
        """Plan calls, each after those that it reads; their records are the plan's own, and given values as far as these are known.

        Raises:
            ModelError: a model cannot be loaded.
        """
        planned = []
        for call in calls:
            planned.append(await self._planned(call))
            await asyncio.sleep(0)  # others' steps, and whoever asks no more, come in between
        running = {figures.id for figures in planned if figures.source == "model"}
        groups: defaultdict[int, list[CallRecord]] = defaultdict(list)
        for call in calls:
            if call.id in running:
                groups[id(call.prompt)].append(call)
        tokens = {figures.id: figures.prompt_tokens for figures in planned}
        advice = [sentence for group in groups.values() if (sentence := advise(group, tokens, self._costs.tokens_of)) is not None]
        return PlanFigures(
            tuple(planned),
            tuple(self._model_figures(name, model) for name, model in self._models.items()),
            self._seconds(0),
            self._seconds(1),
            tuple(advice),
        )

    async def _planned(self, call: CallRecord) -> PlannedCall:
        depth = max((self._depths.get(node.id, 0) for node in call.inputs.values()), default=0)
        self._depths.update(dict.fromkeys((node.id for node in call.outputs), depth))
        if lost := next((node for node in call.inputs.values() if node.id in self._failed or node.error is not None), None):
            return self._fails(call, f"'{call.name}' reads '{lost.name}', which will have no value.")
        try:
            match call.kind:
                case "semantic":
                    return await self._semantic(call, depth)
                case "join":
                    self._join(call)
                case "native":
                    self._waves[depth].native_s = max(self._waves[depth].native_s, self._costs.native_s(call))
                    self._later(call, depth)
        except ModelError:
            raise
        except ParrotError as error:
            return self._fails(call, str(error))
        return PlannedCall(call.id, call.name, call.kind)

    def _fails(self, call: CallRecord, problem: str) -> PlannedCall:
        self._failed |= {node.id for node in call.outputs}
        return PlannedCall(call.id, call.name, call.kind, problem=problem)

    def _later(self, call: CallRecord, depth: int) -> None:
        self._depths.update(dict.fromkeys((node.id for node in call.outputs), depth + 1))

    def _join(self, call: CallRecord) -> None:
        if all(node.final for node in call.inputs.values()) and (spans := joined(call)) is not None:
            call.outputs[0].resolve(spans)

    async def _semantic(self, call: CallRecord, depth: int) -> PlannedCall:
        name = self._model_of(call)
        engine = await self._engines.get(name)
        if (model := self._models.get(name)) is None:
            model = self._models[name] = _Model(engine, max(1, len(self._engines.ready_for(name))))
        operations = self._compiler.compiled(call, engine, self._engines.defaults(engine))
        fresh = self._compiler.is_fresh(call)
        context = self._memo.look(engine, family=self._engines.family(name), fresh=fresh)
        longest = most_context_tokens(engine)
        walk = Walk(call, engine, context, self._costs, longest)
        await walk.over(operations)
        limits = self._compiler.limits(call)
        most = sum(limit or 0 for limit in limits) + walk.thinking_tokens
        if walk.knows_all:
            source: Literal["memo", "store"] = "store" if context.from_store else "memo"
            return PlannedCall(call.id, call.name, "semantic", source, walk.num_filled, walk.exact)
        if walk.first_prompt_tokens >= longest:
            tokens = f"its prompt has {walk.first_prompt_tokens} tokens, and a context holds {longest}"
            return self._fails(call, f"'{call.name}' does not fit: {tokens}; shorten it, or say fit= at an input.")
        self._later(call, depth)
        equal = None if walk.first_key is None or fresh else (name, id(call.prompt), walk.first_key)
        if equal in self._equal:
            return PlannedCall(call.id, call.name, "semantic", "memo", walk.num_filled, walk.exact)
        if equal is not None:
            self._equal.add(equal)
        shared, own_pages = self._share(model, walk.token_ids)
        known = next((i for i, token_id in enumerate(walk.token_ids) if token_id < 0), len(walk.token_ids))
        cached = engine.cached_tokens(walk.token_ids[:known]) if isinstance(engine, KnowsCache) else 0
        likely = min(walk.written_tokens, most)
        figures = PlannedCall(
            call.id, call.name, "semantic", "model", walk.num_filled, walk.exact, min(shared, walk.num_filled),
            min(cached, walk.num_filled), likely, most, own_pages,
        )  # fmt: skip
        wave = self._waves[depth]
        wave.filled_tokens[name] += figures.filled_tokens
        wave.lengths[name].append((likely, most))
        return figures

    def _share(self, model: _Model, token_ids: Sequence[int]) -> tuple[int, int]:
        """Return how many tokens a context shares with those before it, and how many pages it takes of its own."""
        size, digest, shared, own = model.engine.load().page_size_tokens, 0, 0, 0
        num_full = len(token_ids) // size if model.engine.capabilities.shares_kv else 0
        for i_page in range(num_full):
            digest = hash((digest, *token_ids[i_page * size : (i_page + 1) * size]))
            if digest in model.pages:
                shared += size
            else:
                model.pages.add(digest)
                own += 1
        rest = -(-len(token_ids) // size) - num_full
        model.num_own_pages += rest
        return shared, own + rest

    def _model_figures(self, name: str, model: _Model) -> PlannedModel:
        load, speed = model.engine.load(), model.engine.speed
        return PlannedModel(
            name,
            most_context_tokens(model.engine),
            load.page_size_tokens,
            max(load.num_pages, load.most_pages),
            len(model.pages) + model.num_own_pages,
            speed != Speed(),
        )

    def _seconds(self, which: int) -> float:
        """Return the time of all waves, one after the other, with the likely lengths (0) or the greatest (1)."""
        seconds = 0.0
        for wave in self._waves.values():
            times = [wave.native_s]
            for name, lengths in wave.lengths.items():
                model = self._models[name]
                speed = model.engine.speed
                filled_s = wave.filled_tokens[name] * speed.prefill_s
                times.append(filled_s + _decode_s([pair[which] for pair in lengths], model.num_engines, speed))
            seconds += max(times)
        return seconds


def _decode_s(lengths: Iterable[int], num_engines: int, speed: Speed) -> float:
    """Return the seconds of the steps that write texts of these lengths side by side, as many at once as an engine takes."""
    left, seconds = sorted(lengths, reverse=True), 0.0
    while left:
        batch, left = left[: MAX_OPEN * num_engines][::num_engines], left[MAX_OPEN * num_engines :]
        done = 0
        while batch:
            shortest = batch[-1]
            seconds += (shortest - done) * speed.step_s(len(batch))
            done = shortest
            while batch and batch[-1] == shortest:
                batch.pop()
    return seconds
