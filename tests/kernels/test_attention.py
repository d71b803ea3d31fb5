"""Attention over paged KV against the plain reference, in float64, on random ragged steps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_kernels import AttentionPlan, ContextRows, attention, write_kv
from parrot_kernels.reference import attention_reference


@st.composite
def steps(draw):
    """A ragged step and all that its attention needs."""
    page_size = draw(st.sampled_from([1, 3, 4, 16]))
    num_kv_heads, group = draw(st.sampled_from([(1, 1), (1, 4), (2, 1), (2, 3)]))
    key_dim, value_dim = draw(st.sampled_from([(8, 8), (5, 7), (16, 4), (33, 33)]))
    parts = draw(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), min_size=1, max_size=5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    needed = [-(-(cached + new) // page_size) for cached, new in parts]
    order = torch.randperm(sum(needed) + 2, generator=generator).tolist()  # pages of a context lie anywhere
    contexts = []
    for (cached, new), count in zip(parts, needed, strict=True):
        contexts.append(ContextRows(cached, new, [order.pop() for _ in range(count)]))
    num_slots = (sum(needed) + 2) * page_size

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    num_rows = sum(new for _, new in parts)
    options = {
        "scale": draw(st.sampled_from([1.0, 0.3])),
        "window": draw(st.sampled_from([None, 1, 5])),
        "softcap": draw(st.sampled_from([None, 1.5])),
        "sinks": randn(num_kv_heads * group) if draw(st.booleans()) else None,
    }
    query = randn(num_kv_heads * group, num_rows, key_dim).transpose(0, 1)  # not contiguous, as models give it
    return query, randn(num_slots, num_kv_heads, key_dim), randn(num_slots, num_kv_heads, value_dim), contexts, page_size, options


@settings(max_examples=150, deadline=None)
@given(steps())
def test_attention_equals_the_reference(step):
    query, k_cache, v_cache, contexts, page_size, options = step
    plan = AttentionPlan.build(contexts, page_size)
    expected = attention_reference(query, k_cache, v_cache, contexts, page_size, **options)
    torch.testing.assert_close(attention(query, k_cache, v_cache, plan, **options), expected, rtol=1e-9, atol=1e-9)


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
