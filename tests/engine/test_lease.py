"""Leases by themselves: what they hold is what was computed, whatever comes between, every page is counted, and calls in
another order than the stated one are our own bug."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from checkpoints import audit_pages
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from parrot_nb.engine.embedded.cache import PageCache
from parrot_nb.engine.embedded.lease import Lease

EMBEDDED = Path(__file__).parents[2] / "parrot_nb" / "engine" / "embedded"
SIZE, NUM_PAGES, MAX_LEASES = 3, 12, 4
GARBAGE = ("garbage",)
TOKEN = st.sampled_from([0, 0, 0, 1])  # so that many texts begin alike
TOKENS = st.lists(TOKEN, min_size=1, max_size=10)


@dataclass(eq=False)
class Part:
    """One lease's part in a step that runs."""

    lease: Lease
    tokens: list[int]
    start: int
    end: int
    ahead: bool = False


@dataclass
class Step:
    parts: list[Part]
    copies: list[tuple[int, int, int]] = field(default_factory=list)


class Leases(RuleBasedStateMachine):
    """Some leases on a small cache, in steps that pass or fail; a slot of the memory holds the tokens that were read for it."""

    @initialize(shares=st.sampled_from([True, True, True, False]))
    def make(self, shares):
        self.cache = PageCache(NUM_PAGES, SIZE, shares=shares)
        self.memory: dict[int, tuple] = {}
        self.open: list[tuple[Lease, list[int]]] = []
        self.steps: list[Step] = []

    # Contexts

    @precondition(lambda self: len(self.open) < MAX_LEASES)
    @rule(tokens=TOKENS)
    def opens(self, tokens):
        self.open.append((self.cache.lease(tokens), tokens))

    @rule(data=st.data(), more=TOKENS)
    def fills(self, data, more):
        if at_rest := [(lease, tokens) for lease, tokens in self.open if not lease.num_steps]:
            _, tokens = data.draw(st.sampled_from(at_rest))
            if len(tokens) + len(more) < NUM_PAGES * SIZE:
                tokens += more

    @rule(data=st.data(), how=st.sampled_from(["release", "truncate", "free"]))
    def gives_back(self, data, how):
        free = [
            (lease, tokens)
            for lease, tokens in self.open
            if not any(part.lease is lease and not part.ahead for step in self.steps for part in step.parts)
        ]
        if not free:
            return
        lease, tokens = data.draw(st.sampled_from(free))
        if how == "truncate":
            kept = data.draw(st.integers(0, max(0, min(lease.num_cached, len(tokens) - 1))))
            lease.truncate(kept)
            tokens[kept:] = data.draw(TOKENS)
        else:
            lease.release()
            assert not lease.pages
        for step in self.steps:  # planned ahead: what it continues has ended
            for part in step.parts:
                if part.lease is lease:
                    part.tokens = []
        if how == "free" and not lease.num_steps:
            self.open.remove((lease, tokens))

    @rule(key=st.integers(0, 2), tokens=TOKENS, use=st.integers(0, 5))
    def expects(self, key, tokens, use):
        self.cache.expect(key, tokens, use)

    @rule(key=st.integers(0, 2))
    def forgets(self, key):
        self.cache.forget(key)

    @rule()
    def clears(self):
        self.cache.clear()

    # Steps

    @precondition(lambda self: self.open and not self.steps)
    @rule(data=st.data(), num_guessed=st.integers(0, 2))
    def begins(self, data, num_guessed):
        step = Step([])
        for lease, tokens in data.draw(st.lists(st.sampled_from(self.open), min_size=1, unique_by=lambda one: id(one[0]))):
            lease.adopt()
            nodes = lease.in_work()
            end = (
                data.draw(st.integers(lease.num_cached + len(nodes) * SIZE + 1, len(tokens)))
                if self.pending(lease, tokens)
                else 0
            )
            guessed = num_guessed if end == len(tokens) else 0
            if not end or lease.missing_pages(end + guessed) - len(nodes) > self.cache.num_available:
                continue
            lease.follow(nodes)
            lease.extend(end + guessed)
            lease.announce(end)
            step.parts.append(Part(lease, tokens, -1, end + guessed))
        for part in step.parts:
            if (copy := part.lease.copy(min(part.end, len(part.tokens)) - 1)) is not None:
                step.copies.append(copy)
            part.start = part.lease.num_cached
            part.lease.begin(part.end)
        if step.parts:
            self.steps.append(step)

    @precondition(lambda self: len(self.steps) == 1)
    @rule()
    def begins_ahead(self):
        going_on = [part for part in self.steps[0].parts if part.tokens and part.end == len(part.tokens) + part.ahead]
        if going_on and sum(part.lease.missing_pages(part.end + 1) for part in going_on) <= self.cache.num_free:
            for part in going_on:
                part.lease.extend(part.end + 1)
                part.lease.begin(part.end + 1, ahead=True)
            self.steps.append(Step([Part(part.lease, part.tokens, part.end, part.end + 1, ahead=True) for part in going_on]))

    @precondition(lambda self: self.steps)
    @rule(data=st.data())
    def passes(self, data):
        step = self.steps.pop(0)
        self.write(step, right=True)
        for part in step.parts:
            if part.ahead and not part.tokens:
                part.lease.in_vain()
                continue
            part.lease.computed(min(part.end, len(part.tokens)) if not part.ahead else part.end)
            known = len(part.tokens)
            if known == part.end and len(part.tokens) < NUM_PAGES * SIZE - 2:
                part.tokens.append(data.draw(TOKEN))  # what was chosen
            for position in range(known, part.end):  # the guesses, of which the first ones are right
                if not data.draw(st.booleans()):
                    break
                token = data.draw(TOKEN)
                self.memory[part.lease.pages[position // SIZE] * SIZE + position % SIZE] = (*part.tokens, token)
                part.tokens.append(token)
                part.lease.confirm()

    @precondition(lambda self: self.steps)
    @rule()
    def fails(self):
        held = {id(part.lease): (part.lease, part.start) for step in self.steps for part in step.parts if not part.ahead}
        for step in self.steps:
            self.write(step, right=False)
        for part in self.steps[0].parts:
            part.lease.failed()
        self.steps.clear()
        for lease, start in held.values():
            assert lease.num_cached <= start
            assert len(lease.pages) == -(-lease.num_cached // SIZE)

    @precondition(lambda self: self.steps)
    @rule()
    def is_closed(self):
        for step in self.steps:
            self.write(step, right=False)
        self.steps.clear()
        for lease, tokens in self.open:
            lease.abandon()
            lease.truncate(0)
            tokens[:] = [0]
        assert self.cache.num_owned == 0

    # What holds at any time

    @invariant()
    def every_page_is_counted(self):
        audit_pages(self.cache, [(lease, tokens) for lease, tokens in self.open])

    @invariant()
    def what_is_cached_was_computed(self):
        in_work = {id(part.lease) for step in self.steps for part in step.parts if not part.ahead}
        for lease, tokens in self.open:
            if id(lease) in in_work:
                continue
            for position in range(lease.num_cached):
                slot = lease.pages[position // SIZE] * SIZE + position % SIZE
                assert self.memory[slot] == tuple(tokens[: position + 1])

    def teardown(self):
        if not hasattr(self, "cache"):
            return
        for lease, _ in self.open:
            lease.abandon()
            lease.release()
        self.cache.clear()
        assert self.cache.num_free == NUM_PAGES

    @staticmethod
    def pending(lease, tokens) -> bool:
        return lease.num_cached + len(lease.in_work()) * SIZE < len(tokens)

    def write(self, step: Step, *, right: bool) -> None:
        """What the step leaves in the memory: its copies and its own rows, or garbage in the rows and no copies."""
        for source, target, count in step.copies if right else ():
            for i in range(count):
                self.memory[target * SIZE + i] = self.memory[source * SIZE + i]
        for part in step.parts:
            pages = part.lease.pages
            for position in range(part.start, part.end):
                if position // SIZE < len(pages):  # else given back since, by a lease that went on to something else
                    is_right = right and position < len(part.tokens)
                    slot = pages[position // SIZE] * SIZE + position % SIZE
                    self.memory[slot] = tuple(part.tokens[: position + 1]) if is_right else GARBAGE


Leases.TestCase.settings = settings(max_examples=400, stateful_step_count=40, deadline=None)
TestLeases = Leases.TestCase


def planned() -> Lease:
    lease = PageCache(8, 2).lease([1, 2, 3, 4, 5])
    lease.extend(5)
    return lease


def running() -> Lease:
    lease = planned()
    lease.begin(5)
    return lease


def ahead() -> Lease:
    lease = running()
    lease.extend(6)
    lease.begin(6, ahead=True)
    lease.computed(5)
    return lease


def resting() -> Lease:
    return PageCache(8, 2).lease([1, 2, 3, 4, 5])


ILLEGAL = [
    (resting, "begin", (2,), "pages come before the step"),
    (resting, "announce", (2,), "once they are owned"),
    (resting, "copy", (2,), "no page to copy to"),
    (resting, "computed", (2,), "no step runs"),
    (resting, "in_vain", (), "no step runs"),
    (resting, "failed", (), "no step can have failed"),
    (resting, "confirm", (), "has not guessed so far"),
    (resting, "extend", (0,), "computes something"),
    (planned, "extend", (6,), "has not begun"),
    (planned, "adopt", (), "before a step is planned"),
    (planned, "follow", ([],), "before a step is planned"),
    (planned, "release", (), "a planned step needs the pages"),
    (planned, "truncate", (0,), "a planned step needs the pages"),
    (planned, "computed", (5,), "no step runs"),
    (planned, "begin", (7,), "past the pages"),
    (running, "adopt", (), "before a step is planned"),
    (running, "release", (), "a step that runs needs the pages"),
    (running, "truncate", (2,), "a step that runs needs the pages"),
    (running, "computed", (6,), "as far as was planned"),
    (running, "in_vain", (), "counts unless it was planned ahead"),
    (running, "confirm", (), "has not guessed so far"),
    (ahead, "computed", (5,), "what comes next"),
    (ahead, "adopt", (), "before a step is planned"),
]


@pytest.mark.parametrize(("state", "call", "values", "message"), ILLEGAL, ids=[f"{s.__name__}-{c}" for s, c, _, _ in ILLEGAL])
def test_a_call_out_of_order_is_asserted(state, call, values, message):
    with pytest.raises(AssertionError, match=message):
        getattr(state(), call)(*values)


def test_one_step_is_planned_ahead_at_most():
    lease = running()
    lease.extend(6)
    lease.begin(6, ahead=True)
    with pytest.raises(AssertionError, match="one step is planned ahead"):
        lease.extend(7)


def test_what_a_failed_step_followed_and_copied_does_not_count_as_reused():
    cache = PageCache(20, 4)
    first = cache.lease([1, 2, 3, 4, 5, 6])
    first.extend(6)
    first.begin(6)
    assert first.computed(6) == 6
    first.release()
    leader, follower = (cache.lease([1, 2, 3, 4, 5, 6, 7, 8, i]) for i in (9, 10))
    for lease in (leader, follower):
        lease.adopt()
        assert lease.reused_tokens == 4
        lease.follow(lease.in_work())
        lease.extend(9)
        lease.announce(9)
    assert leader.copy(8) is not None
    for lease in (leader, follower):
        lease.begin(9)
    assert (leader.reused_tokens, follower.reused_tokens) == (6, 8)
    for lease in (leader, follower):
        lease.failed()
    assert [(lease.num_cached, lease.reused_tokens) for lease in (leader, follower)] == [(4, 4), (4, 4)]
    assert follower.in_work() == []
    follower.extend(9)
    follower.begin(9)
    assert follower.computed(9) == 5


@pytest.mark.parametrize("path", sorted(EMBEDDED.glob("*.py")), ids=lambda path: path.name)
def test_nobody_else_writes_what_leases_hold(path):
    if path.name == "lease.py":
        return
    held = {"pages", "nodes", "num_cached", "computed"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
        for target in targets:
            for part in ast.walk(target):
                if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
                    assert part.attr not in held, f"line {node.lineno} writes {ast.unparse(part)}"
