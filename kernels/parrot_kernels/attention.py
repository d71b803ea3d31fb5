"""Attention of a ragged step over paged, shared KV: one door to the paths of `parrot_kernels.host`, `.tiled` and `.rowwise`."""

from __future__ import annotations

from torch import Tensor

from parrot_kernels.host import Terms, attention_host
from parrot_kernels.plan import AttentionPlan
from parrot_kernels.rowwise import attention_rowwise
from parrot_kernels.tiled import attention_tiled


def attention(
    query: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    plan: AttentionPlan,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attend from the rows of a step to their contexts. The step's own keys and values must be in the cache already.

    Args:
        query: [T, Hq, D], any strides.
        k_cache: [num_slots, Hkv, D], contiguous; Hq is a multiple of Hkv.
        v_cache: [num_slots, Hkv, Dv], likewise.
        plan: of this step.
        scale: factor of the scores.
        window: how many last positions a row sees, itself included; None for all.
        softcap: bound of the scores, or None.
        sinks: [Hq], or None.

    Returns:
        [T, Hq, Dv], contiguous, in the query's dtype.

    Raises:
        ValueError: shapes that do not fit together.
    """
    if query.shape[0] != plan.num_rows:
        raise ValueError(f"The plan is for {plan.num_rows} rows, the query has {query.shape[0]}.")
    if query.shape[1] % k_cache.shape[1]:
        raise ValueError(f"{query.shape[1]} query heads cannot share {k_cache.shape[1]} key heads evenly.")
    if not (k_cache.is_contiguous() and v_cache.is_contiguous()):
        raise ValueError("The KV cache must be contiguous.")
    if plan.tiles is not None:
        return attention_tiled(query, k_cache, v_cache, plan.tiles, scale=scale, window=window, softcap=softcap, sinks=sinks)
    if plan.rows is not None:
        return attention_rowwise(query, k_cache, v_cache, plan.rows, Terms(scale, window, softcap), sinks)
    assert plan.host is not None, "a plan is for one of the three"
    return attention_host(query, k_cache, v_cache, plan.host, Terms(scale, window, softcap), sinks)
