"""A simulated engine: steps whose time is a formula, contexts that are counts of tokens.

It shares its steps as the embedded engine does: decodes first, prompts in chunks by urgency, and beside contexts that have a
pace the others get what that leaves, those who write before prompts. A run of equal decode steps is one event, so that its cost
grows with the number of calls and not of tokens. What differs beside a pace:

* What is left for prompts goes to them in every step and is not saved up for large pieces, because in the formula a token of a
  prompt costs the same in a small piece and in a large one.
* One context that writes and `CHUNK_TOKENS` of prompts are in every step, however little is left; there, who has been left out
  of many steps gets a turn. Prompts go by urgency alone, not by who has waited longest.
* A step is planned to take all the time that it may, because it takes as long as the formula says.

What it leaves out: KV memory that runs out, and the time that attention takes over a long context.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from parrot_nb.engine.protocol import Pace, Priority, Speed

CHUNK_TOKENS = 16  # of a prompt, at least, in a step that is to be short
LOOK_PAST = 8  # prompts without a pace, for one that has one


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Specification of a simulated engine.

    Attributes:
        speed: how long its steps take.
        max_step_tokens: most rows of a step.
        cache_tokens: of prefixes that it keeps; those used last longest.
        dies_at_s: when it ends, with all that runs on it; None for never.
    """

    speed: Speed = field(default_factory=Speed)
    max_step_tokens: int = 1024
    cache_tokens: int = 500_000
    dies_at_s: float | None = None


@dataclass(eq=False, slots=True)
class SimulatedContext:
    """A call on an engine.

    Attributes:
        key: whose it is.
        priority: smaller runs first.
        prompt_left: tokens still to be filled.
        output_left: tokens still to be written.
        pace: how fast it wants its tokens.
        first_s: when its first token came.
    """

    key: int
    priority: Priority
    prompt_left: int
    output_left: int
    pace: Pace | None = None
    first_s: float | None = None


class SimulatedEngine:
    """Told the time by whoever calls it; all times are seconds of the simulation.

    Args:
        spec: what it is.
        shares: whether equal prefixes are computed once.
    """

    def __init__(self, spec: EngineSpec, *, shares: bool = True) -> None:
        self.spec = spec
        self.version = 0  # of the run that goes on; an end that was announced for another one holds no longer
        self.busy_s = 0.0
        self.prefilled_tokens = self.reused_tokens = self.decoded_tokens = 0
        self._shares = shares
        self._filling: list[tuple[Priority, int, SimulatedContext]] = []
        self._writing: dict[int, SimulatedContext] = {}
        self._cached: OrderedDict[str, int] = OrderedDict()
        self._cached_tokens = 0
        self._run: _Run | None = None

    def start(
        self, key: int, prefixes: Sequence[tuple[str, int]], output_tokens: int, priority: Priority, pace: Pace | None
    ) -> None:
        """A call comes; the last of `prefixes`, hashes with tokens up to there, is its whole prompt."""
        whole = prefixes[-1][1]
        known = max((tokens for digest, tokens in prefixes if digest in self._cached), default=0) if self._shares else 0
        self.prefilled_tokens += whole - min(known, whole - 1)
        self.reused_tokens += min(known, whole - 1)
        self._keep(prefixes)
        context = SimulatedContext(key, priority, max(1, whole - known), max(1, output_tokens), pace)
        heapq.heappush(self._filling, (priority, key, context))

    def stop(self) -> tuple[list[int], list[int]]:
        """Let the engine die. Returns the keys of what it had not begun to write, and of what it had."""
        self.version += 1
        run, self._run = self._run, None
        filling = [context.key for context, _ in run.filled] if run is not None else []
        unwritten = filling + [key for _, key, _ in self._filling]
        written = list(self._writing)
        self._filling.clear()
        self._writing.clear()
        return unwritten, written

    def next_end(self, now_s: float) -> float | None:
        """Go on, if nothing runs or what runs can be cut short for what has come; returns when that will have ended, None
        where it is as announced before or there is nothing to do."""
        if self._run is not None:
            if self._run.num_steps <= 1 or not self._filling:
                return None
            done = max(1, math.ceil((now_s - self._run.start_s) / self._run.step_s - 1e-9))
            if done >= self._run.num_steps:
                return None
            self._run.num_steps = done
        else:
            self._run = self._planned(now_s)
            if self._run is None:
                return None
        self.version += 1
        return self._run.start_s + self._run.num_steps * self._run.step_s

    def ended(self, now_s: float) -> list[SimulatedContext]:
        """The run that goes on has ended; returns the contexts that have with it."""
        run, self._run = self._run, None
        assert run is not None
        self.busy_s += run.num_steps * run.step_s
        for context, count in run.filled:
            context.prompt_left -= count
            if context.prompt_left:
                heapq.heappush(self._filling, (context.priority, context.key, context))
            else:
                self._writing[context.key] = context
        finished = []
        for context in (*run.written, *(context for context, _ in run.filled if not context.prompt_left)):
            count = run.num_steps if context.first_s is not None else 1  # a prompt's last chunk gives its first token
            context.first_s = now_s if context.first_s is None else context.first_s
            context.output_left -= count
            self.decoded_tokens += count
            if context.output_left <= 0:
                del self._writing[context.key]
                finished.append(context)
            elif run.rotates:  # whose turn it was goes behind the others
                self._writing[context.key] = self._writing.pop(context.key)
        return finished

    def _planned(self, now_s: float) -> _Run | None:
        speed, writing = self.spec.speed, list(self._writing.values())
        paced = [context for context in writing if context.pace is not None]
        step_s = min((c.pace.tpot_s for c in paced if c.pace is not None), default=math.inf)
        firm_s = min((c.pace.tpot_s for c in paced if c.pace is not None and c.pace.firm), default=math.inf)
        rotates = False
        if paced:
            others = [context for context in writing if context.pace is None]
            room = max(1, speed.rows_within(step_s) - len(paced)) if step_s < math.inf else len(others)  # nobody starves
            rotates = len(others) > room
            writing = paced + others[:room]
        filled: list[tuple[SimulatedContext, int]] = []
        kept: list[tuple[Priority, int, SimulatedContext]] = []
        left = self._prompt_tokens(len(writing), firm_s)
        others_left = self._prompt_tokens(len(writing), step_s)
        while self._filling and left > 0 and (others_left > 0 or len(kept) < LOOK_PAST):
            entry = heapq.heappop(self._filling)
            context = entry[2]
            count = min(left, context.prompt_left, left if context.pace is not None else others_left)
            if count <= 0:
                kept.append(entry)
                continue
            filled.append((context, count))
            left -= count
            others_left -= count if context.pace is None else 0
        for entry in kept:
            heapq.heappush(self._filling, entry)
        if not writing and not filled:
            return None
        step_s = speed.step_s(len(writing)) + speed.prefill_s * sum(count for _, count in filled)
        num_steps = 1 if filled or rotates else min(context.output_left for context in writing)
        return _Run(now_s, step_s, num_steps, writing, filled, rotates)

    def _prompt_tokens(self, num_writing: int, step_s: float) -> int:
        """Return how many tokens of prompts go into a step that is to take so long; a few always do."""
        speed, most = self.spec.speed, max(CHUNK_TOKENS, self.spec.max_step_tokens - num_writing)
        if step_s == math.inf or not speed.prefill_s:
            return most
        return min(most, max(CHUNK_TOKENS, int((step_s - speed.step_s(num_writing)) / speed.prefill_s)))

    def _keep(self, prefixes: Sequence[tuple[str, int]]) -> None:
        before = 0
        for digest, tokens in prefixes:
            own = tokens - before
            before = tokens
            if digest in self._cached:
                self._cached.move_to_end(digest)
            else:
                self._cached[digest] = own
                self._cached_tokens += own
        while self._cached_tokens > self.spec.cache_tokens:
            self._cached_tokens -= self._cached.popitem(last=False)[1]


@dataclass(slots=True)
class _Run:
    """Equal steps in a row; all but the first of several only decode."""

    start_s: float
    step_s: float
    num_steps: int
    written: list[SimulatedContext]
    filled: list[tuple[SimulatedContext, int]]
    rotates: bool
