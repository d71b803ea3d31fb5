"""Attention over paged KV against the plain reference, in float64, on random ragged steps."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_kernels import AttentionPlan, ContextRows, Costs, HeadShape, attention, host, write_kv
from parrot_kernels.reference import attention_reference
from parrot_kernels.segments import cut


@st.composite
def steps(draw):
    """A ragged step over a tree of shared pages, and all that its attention needs."""
    page_size = draw(st.sampled_from([1, 3, 4, 16]))
    num_kv_heads, group = draw(st.sampled_from([(1, 1), (1, 4), (2, 1), (2, 3)]))
    key_dim, value_dim = draw(st.sampled_from([(8, 8), (5, 7), (16, 4), (33, 33)]))
    parts = draw(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9), st.integers(0, 30)), min_size=1, max_size=6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    needed = sum(-(-(cached + new) // page_size) for cached, new, _ in parts)
    order = list(range(needed + 2))[::-1]  # the first is taken last
    if draw(st.booleans()):  # pages of a context lie anywhere, or in a row
        order = torch.randperm(needed + 2, generator=generator).tolist()
    contexts: list[ContextRows] = []
    for cached, new, alike in parts:
        before = contexts[-1] if contexts else ContextRows(0, 1, [])
        num_shared = min(alike, cached, before.num_cached_tokens) // page_size
        count = -(-(cached + new) // page_size) - num_shared
        contexts.append(ContextRows(cached, new, [*before.pages[:num_shared], *(order.pop() for _ in range(count))]))
    num_slots = (needed + 2) * page_size

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    num_rows = sum(new for _, new, _ in parts)
    options = {
        "scale": draw(st.sampled_from([1.0, 0.3])),
        "window": draw(st.sampled_from([None, 1, 5, 20])),
        "softcap": draw(st.sampled_from([None, 1.5])),
        "sinks": randn(num_kv_heads * group) if draw(st.booleans()) else None,
    }
    query = randn(num_kv_heads * group, num_rows, key_dim).transpose(0, 1)  # not contiguous, as models give it
    return query, randn(num_slots, num_kv_heads, key_dim), randn(num_slots, num_kv_heads, value_dim), contexts, page_size, options


ALWAYS, SOMETIMES = Costs(10**9, 0, 0), Costs(2, 1, 20)


@pytest.mark.cpu_kinds
@settings(max_examples=400, deadline=None)
@given(steps(), st.sampled_from([None, ALWAYS, SOMETIMES]), st.sampled_from([(2, 800), (2, 0), (100, 0)]))
def test_attention_equals_the_reference(step, costs, apart):
    query, k_cache, v_cache, contexts, page_size, options = step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "MOST_APART", apart[0])
        patch.setattr(host, "LEAST_TOKENS_APART", apart[1])
        plan = AttentionPlan.build(contexts, page_size, costs=costs)
    expected = attention_reference(query, k_cache, v_cache, contexts, page_size, **options)
    found = attention(query, k_cache, v_cache, plan, **options)
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=150, deadline=None)
@given(steps(), st.sampled_from([None, ALWAYS, SOMETIMES]))
def test_segments_cover_every_token_once_and_share_what_pays(step, costs):
    _, _, _, contexts, page_size, _ = step
    segments = cut(contexts, page_size, costs)
    row = 0
    for context in contexts:
        mine = sorted((s for s in segments if s.row_start <= row < s.row_end), key=lambda s: s.first)
        end = 0
        for segment in mine:
            assert segment.first == end
            assert list(segment.pages) == list(context.pages)[end // page_size :][: len(segment.pages)]
            end += segment.num_tokens
        assert end == context.num_cached_tokens + context.num_new_tokens
        assert [s.own for s in mine] == [False] * (len(mine) - 1) + [True]
        row += context.num_new_tokens
    if costs is ALWAYS:  # then no full page is read twice
        shared = [page for s in segments for page in s.pages if not s.own]
        full = [p for c in contexts for p in c.pages[: c.num_cached_tokens // page_size]]
        assert len(shared) == len(set(shared))
        neighbours = {
            page
            for a, b in itertools.pairwise(contexts)
            for page in itertools.takewhile(
                lambda p, a=a: p in a.pages[: a.num_cached_tokens // page_size], b.pages[: b.num_cached_tokens // page_size]
            )
        }
        assert neighbours == set(shared)
        assert set(shared) <= set(full)
    if costs is None:
        assert all(s.own for s in segments)


def test_a_long_context_whose_beginning_lies_elsewhere_is_read_where_it_is():
    cached, one_row = ContextRows(999, 1, [*range(5), *range(20, 78)]), ContextRows(199, 1, [*range(5), *range(20, 28)])
    plan = AttentionPlan.build([cached], 16)
    assert plan.host is not None
    (part,), (end,) = plan.host.shared, plan.host.chunks
    assert (part.run.slots, part.num_tokens, part.first) == (slice(0, 80), 80, 0)
    assert (end.run.slots, end.num_before) == (slice(320, 1240), 919)
    short = AttentionPlan.build([one_row], 16).host
    assert short is not None
    assert not short.shared, "little is copied sooner than attended to twice"


def test_the_cost_model_shares_only_what_pays():
    long, short = [ContextRows(64, 1, [*range(4), 10 + i]) for i in range(8)], [ContextRows(16, 1, [0, 10 + i]) for i in range(8)]
    costs = HeadShape(8, 4, 64, 64, 2).costs(torch.device("cpu"))
    assert costs.pays(16, 16, 1984)
    assert not costs.pays(2, 2, 16)
    assert [s.own for s in cut(long, 16, Costs(100, 100, 20_000))].count(False) == 1
    assert [s.own for s in cut(short, 16, Costs(100, 100, 20_000))].count(False) == 0


@settings(max_examples=50, deadline=None)
@given(steps())
def test_new_slots_are_where_the_new_tokens_lie(step):
    _, k_cache, v_cache, contexts, page_size, _ = step
    plan = AttentionPlan.build(contexts, page_size)
    slots = plan.new_slots.tolist()
    assert len(slots) == len(set(slots)) == plan.num_rows
    expected = [
        c.pages[i // page_size] * page_size + i % page_size
        for c in contexts
        for i in range(c.num_cached_tokens, c.num_cached_tokens + c.num_new_tokens)
    ]
    assert slots == expected
    key, value = torch.randn(plan.num_rows, *k_cache.shape[1:]).double(), torch.randn(plan.num_rows, *v_cache.shape[1:]).double()
    before = k_cache.clone()
    write_kv(key, value, k_cache, v_cache, plan.new_slots)
    assert torch.equal(k_cache[slots], key)
    assert torch.equal(v_cache[slots], value)
    untouched = [i for i in range(len(before)) if i not in set(slots)]
    assert torch.equal(k_cache[untouched], before[untouched])


def test_bad_plans_and_shapes_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        AttentionPlan.build([ContextRows(4, 1, [0])], 4)
    with pytest.raises(ValueError, match="at least one row"):
        AttentionPlan.build([ContextRows(4, 0, [0])], 4)
    plan = AttentionPlan.build([ContextRows(0, 2, [0])], 4)
    cache = torch.zeros(4, 2, 8)
    with pytest.raises(ValueError, match="for 2 rows"):
        attention(torch.zeros(3, 2, 8), cache, cache, plan, scale=1.0)
    with pytest.raises(ValueError, match="evenly"):
        attention(torch.zeros(2, 3, 8), cache, cache, plan, scale=1.0)
    with pytest.raises(ValueError, match="cache"):
        write_kv(torch.zeros(2, 2, 8).double(), torch.zeros(2, 2, 8).double(), cache, cache, plan.new_slots)
