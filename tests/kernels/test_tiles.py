"""Cutting a step into tiles, on the CPU: what each tile reads, and what captured graphs have room for."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_kernels import ContextRows, Costs, HeadShape
from parrot_kernels.segments import cut
from parrot_kernels.tiles import LARGE_ROWS, MAX_LEVELS, SMALL_ROWS, PlanTooLargeError, TileLimits, TilePlan

ALWAYS = Costs(10**9, 0, 0)

parts = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 40), st.integers(0, 60)), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(parts, st.sampled_from([1, 4, 16]), st.sampled_from([1, 7, 1000]), st.sampled_from([(4, 4), (8, 2), (32, 2)]))
def test_every_token_of_every_row_is_in_one_tile(parts, page_size, target, heads):
    pages = iter(range(10**6))
    contexts: list[ContextRows] = []
    for cached, new, alike in parts:
        before = contexts[-1] if contexts else ContextRows(0, 1, [])
        shared = min(alike, cached, before.num_cached_tokens) // page_size
        own = -(-(cached + new) // page_size) - shared
        contexts.append(ContextRows(cached, new, [*before.pages[:shared], *(next(pages) for _ in range(own))]))
    num_rows = sum(c.num_new_tokens for c in contexts)
    shape = HeadShape(*heads, 8, 8, 4)
    plan = TilePlan.build(cut(contexts, page_size, ALWAYS), num_rows, page_size, shape, TileLimits(target), "cpu")
    group = heads[0] // heads[1]
    read: list[list[int]] = [[] for _ in range(num_rows)]
    orders: list[list[int]] = [[] for _ in range(num_rows)]
    for tiles, most in ((plan.small, SMALL_ROWS), (plan.large, LARGE_ROWS)):
        for row, count, i_page, first, tokens, order in tiles.tolist():
            assert 0 < count * group <= most
            for r in range(row, row + count):
                orders[r].append(order)
                read[r] += [plan.pages[i_page + i // page_size].item() * page_size + i % page_size for i in range(tokens)]
                assert first % page_size == 0
    starts = plan.row_start.tolist()
    row = 0
    for context in contexts:
        length = context.num_cached_tokens + context.num_new_tokens
        slots = {context.pages[i // page_size] * page_size + i % page_size for i in range(length)}
        for i in range(context.num_new_tokens):
            assert plan.row_position[row] == context.num_cached_tokens + i
            assert len(read[row]) == len(set(read[row])) == length
            assert set(read[row]) == slots
            assert sorted(orders[row]) == list(range(starts[row + 1] - starts[row]))
            row += 1
    assert plan.num_partials == starts[-1]


def test_static_plans_have_one_shape_and_say_when_it_does_not_fit():
    shape, limits = HeadShape(8, 2, 8, 8, 4), TileLimits.for_decode(4, 64, 32, 2)
    plans = []
    for lengths in ((5, 40, 3, 100), (64, 64), (900,)):
        pages = iter(range(100))
        contexts = [ContextRows(n - 1, 1, [next(pages) for _ in range(-(-n // 16))]) for n in lengths]
        plans.append(TilePlan.build(cut(contexts, 16, ALWAYS), len(lengths), 16, shape, limits, "cpu"))
    assert len({plan.buffer.shape for plan in plans}) == len({plan.num_partials for plan in plans}) == 1
    plans[0].copy_from(plans[1])
    assert torch.equal(plans[0].small, plans[1].small)
    assert torch.equal(plans[0].row_start, plans[1].row_start)
    many = [ContextRows(15, 1, [i]) for i in range(80)]
    with pytest.raises(PlanTooLargeError):
        TilePlan.build(cut(many, 16, None), 80, 16, shape, limits, "cpu")
    with pytest.raises(ValueError, match="capacities"):
        plans[0].copy_from(TilePlan.build(cut(contexts, 16, None), 1, 16, shape, TileLimits(8), "cpu"))


@st.composite
def trees(draw):
    """Decode rows on a tree of at most MAX_LEVELS levels, sorted by their pages, and how many pages it has."""
    pages = iter(range(10**7))

    def grow(above: list[int], levels: int) -> list[list[int]]:
        path = [*above, *(next(pages) for _ in range(draw(st.sampled_from([0, 1, 40, 600]))))]
        if levels == 1 or not draw(st.booleans()):
            return [[*path, next(pages)] for _ in range(draw(st.sampled_from([1, 2, 17, 40])))]
        return [leaf for _ in range(draw(st.integers(2, 3))) for leaf in grow(path, levels - 1)]

    leaves = grow([], draw(st.integers(1, MAX_LEVELS - 1)))[:256]
    return leaves, next(pages)


@settings(max_examples=60, deadline=None)
@given(trees(), st.sampled_from([(32, 8), (32, 32), (16, 1), (28, 4), (8, 8)]), st.sampled_from([8, 264]))
def test_a_captured_graph_has_room_for_any_tree_of_some_levels(tree, heads, target):
    leaves, num_pages = tree
    rows = [ContextRows(16 * len(leaf) - 1, 1, leaf) for leaf in leaves]
    segments = cut(rows, 16, ALWAYS)
    for group in (1, heads[0] // heads[1]):  # 1 serves all
        limits = TileLimits.for_decode(len(rows), num_pages, target, heads[1], group)
        plan = TilePlan.build(segments, len(rows), 16, HeadShape(*heads, 8, 8, 2), limits, "cpu")
        assert plan.num_partials == limits.max_partials >= plan.row_start[-1]


@pytest.mark.parametrize(
    "case", [(4, 8192, 64), (16, 2048, 256), (16, 32768, 64), (64, 4096, 256), (64, 8192, 128), (256, 2048, 64)]
)
def test_long_shared_prompts_fit_and_keep_the_device_busy(case):
    batch, prefix, own = case
    shared = list(range(prefix // 16))
    rows = [
        ContextRows(prefix + own - 1, 1, [*shared, *range((i + 1) * 10**4, (i + 1) * 10**4 + own // 16)]) for i in range(batch)
    ]
    shape, limits = HeadShape(32, 8, 128, 128, 2), TileLimits.for_decode(batch, 10**5, 264, 8)
    plan = TilePlan.build(cut(rows, 16, shape.costs(torch.device("cuda"))), batch, 16, shape, limits, "cpu")
    programs = 8 * sum(int((tiles[:, 1] > 0).sum()) for tiles in (plan.small, plan.large))
    assert programs >= 264 // 2  # of two for each of the processors


def test_capacities_are_refused_by_name():
    segments, shape = cut([ContextRows(63, 1, [0, 1, 2, 3])] * 3, 16, None), HeadShape(8, 2, 8, 8, 4)
    for room, what in (
        ((2, 99, 99, 99), "3 tiles"),
        ((99, 11, 99, 99), "12 pages"),
        ((99, 99, 2, 99), "3 rows"),
        ((99, 99, 99, 2), "3 partial"),
    ):
        with pytest.raises(PlanTooLargeError, match=what):
            TilePlan.build(segments, 3, 16, shape, TileLimits(8, *room), "cpu")


def test_parts_of_a_plan_begin_alike_in_every_step():
    """Triton compiles a kernel for pointers that are multiples of 16 bytes, and again for others: no step may bring others."""
    rng, shape = random.Random(0), HeadShape(16, 8, 128, 128, 2)
    costs = shape.costs(torch.device("cuda"))
    for _ in range(100):
        pages = iter(range(10**6))
        shared = [next(pages) for _ in range(40)]
        contexts = []
        for cached, new in [(rng.randrange(2000), 1) for _ in range(rng.randrange(1, 12))] + [
            (rng.choice([0, 640, 960]), rng.randrange(2, 900))
        ]:
            count = -(-(cached + new) // 16)
            before = shared if cached >= 640 else []
            contexts.append(
                ContextRows(cached, new, [*before, *(next(pages) for _ in range(max(1, count - len(before))))][:count])
            )
        plan = TilePlan.build(
            cut(contexts, 16, costs), sum(c.num_new_tokens for c in contexts), 16, shape, TileLimits(264), "cpu"
        )
        parts = (plan.small, plan.large, plan.pages, plan.row_position, plan.row_start)
        assert not any((part.data_ptr() - plan.buffer.data_ptr()) % 16 for part in parts)


def test_a_plan_without_large_tiles_need_not_launch_them():
    shape, rows = HeadShape(8, 2, 8, 8, 4), [ContextRows(20, 1, [0, 1]), ContextRows(20, 1, [2, 3])]
    built = [
        TilePlan.build(cut(rows, 16, None), 2, 16, shape, TileLimits.for_decode(2, 64, 32, 2, 4, room_for_large=room), "cpu")
        for room in (True, False)
    ]
    assert [plan.large.shape[0] > 0 for plan in built] == [True, False]
    assert torch.equal(built[0].small, built[1].small)
    shared = [ContextRows(640, 1, [*range(40), 40 + i]) for i in range(8)]
    limits = TileLimits.for_decode(8, 64, 32, 2, 4, room_for_large=False)
    assert TilePlan.build(cut(shared, 16, ALWAYS), 8, 16, shape, limits, "cpu").large.shape[0] == limits.max_tiles


def test_a_plan_moves_to_another_buffer_as_far_as_it_is_used():
    shape, limits = HeadShape(8, 2, 8, 8, 4), TileLimits.for_decode(4, 64, 32, 2)
    plan = TilePlan.build(cut([ContextRows(40, 1, [5, 6, 7])], 16, None), 1, 16, shape, limits, "cpu")
    buffer = torch.full_like(plan.buffer, -1)
    moved = plan.at(buffer)
    buffer[: plan.num_used] = plan.buffer[: plan.num_used]
    for name in ("small", "large", "row_position", "row_start"):
        assert torch.equal(getattr(moved, name), getattr(plan, name))
    assert moved.pages[:3].tolist() == [5, 6, 7]
    assert moved.pages[3] == -1
