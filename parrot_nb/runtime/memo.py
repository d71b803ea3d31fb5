"""Nothing is generated twice: a generation that must come out the same is taken from the one before it.

Greedy and seeded generations depend on the model, on the tokens before them and on how they sample, and on nothing else
(invariants 1 and 2). So these are the key. It is taken where a generation begins, not where a call does: of a prompt with
several outputs those before an edit are taken over, and what reads an edited call but is given the same text is, too.
Equal generations that run at the same time are computed once, for the most urgent of those who wait.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Literal

from parrot_nb.engine.protocol import ContextId, Engine, GenerationEnd, Kind, Pace, Piece, Priority, Sampling
from parrot_nb.runtime.conversation import Turns
from parrot_nb.runtime.store import Store, name_of
from parrot_nb.runtime.store_file import Generation

MEMO_TOKENS = 1_000_000  # some 40 MB
KEEPING_TOKENS = 20  # what an outcome takes beside its tokens: some 730 bytes
MAX_PLACES = 1_000  # functions' outputs whose last text is kept

Place = tuple[str, ...]  # names of a function, an output, and "thinking" for what comes before that
NO_PLACE: Place = ("", "")
_Key = tuple[bytes, Sampling]


@dataclass(slots=True)
class _Outcome:
    text: str
    end: GenerationEnd
    again: GenerationEnd | None = None  # what was said of it when it was taken over last
    kept_in: Store | None = None  # the store that has it too


class _Running:
    """A generation that others may follow while it runs."""

    def __init__(self, urge: Callable[[Priority, Pace | None], None]) -> None:
        self.urge = urge  # tells who computes it how urgent a follower is, and how fast that wants its tokens
        self.text = ""
        self.over = False
        self.num_followers = 0
        self.end: GenerationEnd | None = None  # None when over: it was given up, or failed
        self._news = asyncio.Event()

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.end = piece.end
        self._tell()

    def stop(self) -> None:
        self.over = True
        self._tell()

    async def changed(self) -> None:
        """Wait for more."""
        await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Memo:
    """The generations of a session, those used last kept longest. Lives on the runtime loop.

    Args:
        enabled: asked whenever a context is opened.
        max_tokens: how much to keep, in tokens of output.

    Attributes:
        store: where they are kept beyond the session; None where the user has not asked for that.
    """

    def __init__(self, enabled: Callable[[], bool] = lambda: True, max_tokens: int = MEMO_TOKENS) -> None:
        self.enabled = enabled
        self._max_tokens = max_tokens
        self._outcomes: OrderedDict[_Key, _Outcome] = OrderedDict()
        self._num_tokens = 0
        self.store: Store | None = None
        self._running: dict[_Key, _Running] = {}
        self._written: OrderedDict[Hashable, tuple[int, ...]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of generations that are known."""
        return len(self._outcomes)

    def open(
        self,
        engine: Engine,
        priority: Priority,
        *,
        family: Hashable,
        fresh: bool = False,
        ahead: bool = False,
        turns: Callable[[str], Turns] | None = None,
    ) -> MemoContext:
        """A new, empty context; engines of one `family` give the same text. `fresh` has it generate anew whatever is known,
        `ahead` has it filled at once, `turns` tells a store the prompt of an output: without it nothing is stored."""
        mode = self._mode(fresh=fresh)
        return MemoContext(self, engine, priority, mode, family=family, at_once=ahead or mode != "memo", turns=turns)

    def look(self, engine: Engine, *, family: Hashable, fresh: bool) -> MemoContext:
        """A context to fill and `recall` from alone, as a plan does: the engine never opens one."""
        mode = self._mode(fresh=fresh)
        return MemoContext(self, engine, Priority(Kind.AHEAD), mode, family=family, at_once=False, turns=None)

    def _mode(self, *, fresh: bool) -> str:
        return "fresh" if fresh else "memo" if self.enabled() else "off"

    def clear(self) -> None:
        """Forget what was generated. What runs goes on, and is remembered."""
        self._outcomes.clear()
        self._written.clear()
        self._num_tokens = 0

    def find(self, key: _Key) -> _Outcome | None:
        """Return the known outcome under this key, or None."""
        outcome = self._outcomes.get(key)
        if outcome is not None:
            self._outcomes.move_to_end(key)
        return outcome

    async def find_stored(self, key: _Key, name: bytes) -> _Outcome | None:
        """Return the outcome that the store has under this name, or None, and know it from now on."""
        if (store := self.store) is None or key in self._running or (stored := await store.find(name)) is None:
            return None
        outcome = _Outcome(stored.text, stored.end, kept_in=store)
        self._keep(key, outcome)
        return outcome

    def running(self, key: _Key) -> _Running | None:
        """Return the running computation under this key, or None."""
        return self._running.get(key)

    def begin(self, key: _Key, running: _Running) -> None:
        """Record a computation that begins under this key."""
        self._running[key] = running

    def stop(self, key: _Key, running: _Running) -> None:
        """Remove a computation: it ended, failed or was given up. Stopping twice is harmless."""
        if self._running.get(key) is running:
            del self._running[key]
        if running.end is not None and not running.over:
            self._keep(key, _Outcome(running.text, running.end))
        running.stop()

    def last_written(self, family: Hashable, place: Place) -> tuple[int, ...]:
        """Return the tokens written last in this place, such as an output of a function that has been edited since."""
        return self._written.get((family, place), ())

    def written(self, family: Hashable, place: Place, token_ids: tuple[int, ...]) -> None:
        """Record the tokens written in this place."""
        key = family, place
        self._written.pop(key, None)
        self._written[key] = token_ids
        if len(self._written) > MAX_PLACES:
            self._written.popitem(last=False)

    def _keep(self, key: _Key, outcome: _Outcome) -> None:
        before = self._outcomes.pop(key, None)
        self._num_tokens -= _size(before) if before is not None else 0
        self._outcomes[key] = outcome
        self._num_tokens += _size(outcome)
        while self._num_tokens > self._max_tokens:
            self._num_tokens -= _size(self._outcomes.popitem(last=False)[1])


class MemoContext:
    """A context of an engine that comes to be when something must be computed; `fill`, `generate`, `set_priority`,
    `set_pace` and `free` as in `Engine`.

    Attributes:
        from_memo: whether the last generation was taken from an equal one; known from its first piece on.
        from_store: whether that one is in the store.
        num_tokens: that it holds, computed or not.
    """

    def __init__(
        self,
        memo: Memo,
        engine: Engine,
        priority: Priority,
        mode: str,
        *,
        family: Hashable,
        at_once: bool,
        turns: Callable[[str], Turns] | None,
    ) -> None:
        self.from_memo = self.from_store = False
        self.num_tokens = 0
        self._memo = memo
        self._engine = engine
        self._priority = priority
        self._mode = mode
        self._family = family
        self._pace: Pace | None = None
        self._at_once = at_once
        self._turns = turns
        self._name: bytes | None = None  # of the last generation in the store; None where that cannot have it
        self._context: ContextId | None = None
        self._unfilled: list[Sequence[int]] = []
        self._fills: list[Sequence[int]] = []  # all that it holds
        self._digest = blake2b(repr(family).encode(), digest_size=16)
        self._before = self._digest.copy(), 0  # digest and tokens when the last generation began
        self._num_filled = 0  # since the last generation
        self._likely: tuple[int, ...] = ()
        self._taken_back: tuple[int, ...] = ()
        self._following: _Running | None = None
        self._leading: _Running | None = None

    def fill(self, token_ids: Sequence[int]) -> None:
        """Append tokens. Raises ContextLengthError here or when they are needed."""
        self._add(token_ids)
        self._num_filled += len(token_ids)
        if self._context is not None or self._at_once:
            self._engine.fill(self._opened(), token_ids)
        else:
            self._unfilled.append(token_ids)

    @property
    def followed(self) -> bool:
        """Whether others wait for what is generated in it."""
        return self._leading is not None and self._leading.num_followers > 0

    def set_priority(self, priority: Priority) -> None:
        """Change how urgent it is, and what it waits for with it."""
        self._priority = priority
        if self._context is not None:
            self._engine.set_priority(self._context, priority)
        if self._following is not None:
            self._following.urge(priority, self._pace)

    def set_pace(self, pace: Pace | None) -> None:
        """Set how fast the context wants its tokens, also for what it waits for."""
        self._pace = pace
        if self._context is not None:
            self._engine.set_pace(self._context, pace)
        if self._following is not None:
            self._following.urge(self._priority, pace)

    def free(self) -> None:
        """Give it up."""
        if self._context is not None:
            self._engine.free(self._context)

    async def recall(self, sampling: Sampling, place: Place = NO_PLACE, taken_back: tuple[int, ...] = ()) -> Piece | None:
        """Return all of an equal generation that is over; None where nothing is known. Arguments as of `generate`."""
        key = None if self._mode != "memo" else _key(self._prompt_digest(taken_back), sampling)
        self._name = None if key is None else self._stored_name(key[1], taken_back)
        if key is None:
            return None
        outcome = self._memo.find(key)
        if outcome is None and self._name is not None:
            outcome = await self._memo.find_stored(key, self._name)
        if outcome is None:
            return None
        self._store(outcome, place, sampling)
        self.from_memo, self.from_store = True, outcome.kept_in is not None and outcome.kept_in is self._memo.store
        self._before = self._digest.copy(), self.num_tokens
        piece = Piece(outcome.text, 0, self._again(outcome))
        self._written(place, outcome.end)
        return piece

    def take_back(self) -> None:
        """Take back what was generated last, as if that had not been; its prompt's KV is found in the cache."""
        self.free()
        self._context = None
        self._fills.pop()
        self._digest, self.num_tokens = self._before
        self._unfilled, self._num_filled = list(self._fills), self.num_tokens

    def refuse(self) -> None:
        """Note that what was generated last is no value: the store tells texts apart that were refused."""
        if self._name is not None and self._memo.store is not None:
            self._memo.store.refuse(self._name)

    def restart(self) -> None:
        """Hold nothing, as if it had just been opened; what it held is found in the cache."""
        self.free()
        self._context = None
        self._fills, self._unfilled = [], []
        self._digest = blake2b(repr(self._family).encode(), digest_size=16)
        self.num_tokens = self._num_filled = 0

    async def generate(
        self, sampling: Sampling, place: Place = NO_PLACE, taken_back: tuple[int, ...] = ()
    ) -> AsyncIterator[Piece]:
        """Generate, or take over what an equal generation gave or is giving. Pieces taken over count no tokens.

        Args:
            sampling: how to choose tokens.
            place: names the function, the output and its part; what was last written there is what the engine may expect.
            taken_back: the prompt's last tokens, which were not filled; see `Engine.generate`.
        """
        key = _key(self._prompt_digest(taken_back), sampling)
        self._before = self._digest.copy(), self.num_tokens
        self._likely, self._taken_back = self._memo.last_written(self._family, place), taken_back
        remembered = key is not None and self._mode != "off"
        self._name = self._stored_name(key[1], taken_back) if key is not None and remembered else None
        pieces = self._once(key, sampling, place) if key is not None and remembered else self._computed(sampling)
        async for piece in pieces:
            if piece.end is not None:
                self._written(place, piece.end)
            yield piece

    def _written(self, place: Place, end: GenerationEnd) -> None:
        """A generation is over: the context holds what it wrote."""
        self._memo.written(self._family, place, end.context_ids)
        self._add(end.context_ids)
        if self.from_memo and self._context is not None:
            self._engine.fill(self._context, end.context_ids)
        elif self.from_memo:
            self._unfilled.append(end.context_ids)
        self._num_filled = 0

    async def _once(self, key: _Key, sampling: Sampling, place: Place) -> AsyncIterator[Piece]:
        said = 0  # characters: whom it followed may have left
        while self._mode == "memo":
            if (outcome := self._memo.find(key)) is not None:
                self.from_memo = True
                yield Piece(outcome.text[said:], 0, self._again(outcome))
                return
            running = self._memo.running(key)
            if running is None:
                break
            self.from_memo = True
            self._following = running
            running.num_followers += 1
            running.urge(self._priority, self._pace)
            try:
                while not running.over:
                    if len(running.text) > said:
                        news, said = running.text[said:], len(running.text)
                        yield Piece(news, 0)
                    else:
                        await running.changed()
            finally:
                self._following = None
                running.num_followers -= 1
            if running.end is not None:
                yield Piece(running.text[said:], 0, self._taken_over(running.end))
                return
        running = self._leading = _Running(self._urge)
        self._memo.begin(key, running)
        try:
            async for piece in self._computed(sampling):
                start = len(running.text)
                running.add(piece)
                if piece.end is not None:
                    self._memo.stop(key, running)
                    if (outcome := self._memo.find(key)) is not None:
                        self._store(outcome, place, sampling)
                yield replace(piece, text=piece.text[max(0, said - start) :])
        finally:
            if self._leading is running:  # a reader that left early may be closed after the next generation began
                self._leading = None
            self._memo.stop(key, running)

    def _computed(self, sampling: Sampling) -> AsyncIterator[Piece]:
        self.from_memo = False
        return self._engine.generate(self._opened(), sampling, likely=self._likely, taken_back=self._taken_back)

    def _opened(self) -> ContextId:
        if self._context is None:
            self._context = self._engine.open(self._priority)
            if self._pace is not None:
                self._engine.set_pace(self._context, self._pace)
        unfilled, self._unfilled = self._unfilled, []
        for token_ids in unfilled:
            self._engine.fill(self._context, token_ids)
        return self._context

    def _urge(self, priority: Priority, pace: Pace | None) -> None:
        """Adopt the priority and the pace of a follower who is more urgent, or wants its tokens faster."""
        if priority < self._priority:
            self.set_priority(priority)
        if pace is not None and (self._pace is None or (not pace.firm, pace.tpot_s) < (not self._pace.firm, self._pace.tpot_s)):
            self.set_pace(pace)

    def _add(self, token_ids: Sequence[int]) -> None:
        self._fills.append(token_ids)
        self._digest.update(array("I", token_ids).tobytes())
        self.num_tokens += len(token_ids)

    def _prompt_digest(self, taken_back: tuple[int, ...]) -> bytes:
        """Names the prompt; one whose last tokens are taken back is another than the one in which they are filled."""
        digest = self._digest.copy()
        digest.update(b"taken back" + array("I", taken_back).tobytes() if taken_back else b"")
        return digest.digest()

    def _stored_name(self, sampling: Sampling, taken_back: tuple[int, ...]) -> bytes | None:
        """Return the name that a store has for a generation; None where there is no store, or none may hold it."""
        if (store := self._memo.store) is None:
            return None
        if not self._engine.model.fingerprint:
            store.cannot_hold(self._engine.model.id)
            return None
        token_ids = b"".join(array("I", part).tobytes() for part in self._fills)
        back = array("I", taken_back).tobytes()
        return name_of(self._engine.model.fingerprint, self._engine.codec.key, token_ids, back, sampling)

    def _store(self, outcome: _Outcome, place: Place, sampling: Sampling) -> None:
        """Have the store keep an outcome, unless it does. What ended for want of room is not kept: elsewhere there may be more."""
        store, end = self._memo.store, outcome.end
        cut = end.finish == "length" and end.decoded_tokens < sampling.max_tokens
        if store is None or self._name is None or self._turns is None or outcome.kept_in is store or cut:
            return
        outcome.kept_in = store
        function, output, *part = place
        kind: Literal["value", "thinking"] = "thinking" if part else "value"
        turns = self._turns(output)
        store.put(self._name, Generation(self._engine.model.id, function, output, kind, turns, outcome.text, end))

    def _again(self, outcome: _Outcome) -> GenerationEnd:
        if outcome.again is None or outcome.again.reused_tokens != self._num_filled:
            outcome.again = self._taken_over(outcome.end)
        return outcome.again

    def _taken_over(self, end: GenerationEnd) -> GenerationEnd:
        return replace(
            end, prefilled_tokens=0, reused_tokens=self._num_filled, decoded_tokens=0, guessed_tokens=0, queued_s=0.0, prefill_s=0.0, decode_s=0.0
        )  # fmt: skip


def _key(digest: bytes, sampling: Sampling) -> _Key | None:
    """Return the key of a generation; None where every generation may differ."""
    if sampling.temperature == 0:
        return digest, _greedy(sampling)
    return None if sampling.seed is None else (digest, sampling)


@lru_cache(maxsize=1_000)
def _greedy(sampling: Sampling) -> Sampling:
    """Clear fields without effect on greedy sampling: filters keep the likeliest token, nothing is drawn. All else may matter."""
    return replace(sampling, top_p=1.0, top_k=0, min_p=0.0, seed=None)


def _size(outcome: _Outcome) -> int:
    scores = outcome.end.scores or ()
    num_scored = len(outcome.end.choices or ()) + sum(1 + len(score.others) for score in scores)
    return KEEPING_TOKENS + len(outcome.end.context_ids) + 4 * num_scored  # some 160 bytes each
