"""Kernels of a paged, ragged transformer step, in torch and Triton: attention over paged, shared KV, rotary embedding
with the KV write, norms, gated activations, penalties, masks and sampling. Depends on torch and Triton only."""

from parrot_kernels.activation import gated
from parrot_kernels.attention import attention
from parrot_kernels.backend import Backend, backend
from parrot_kernels.bitmask import mask_logits
from parrot_kernels.kv_write import write_kv
from parrot_kernels.norm import rms_norm
from parrot_kernels.penalties import penalise
from parrot_kernels.plan import AttentionPlan, HeadShape
from parrot_kernels.rope import rope_and_write
from parrot_kernels.sample import sample_tokens
from parrot_kernels.segments import ContextRows, Costs
from parrot_kernels.tiled import fits
from parrot_kernels.tiles import PlanTooLargeError, TileLimits

__all__ = [
    "AttentionPlan",
    "Backend",
    "ContextRows",
    "Costs",
    "HeadShape",
    "PlanTooLargeError",
    "TileLimits",
    "attention",
    "backend",
    "fits",
    "gated",
    "mask_logits",
    "penalise",
    "rms_norm",
    "rope_and_write",
    "sample_tokens",
    "write_kv",
]
