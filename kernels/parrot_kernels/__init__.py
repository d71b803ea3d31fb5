"""Kernels of a paged, ragged transformer step, in torch and Triton: attention over paged, shared KV, rotary embedding
with the KV write, norms, gated activations and sampling. Depends on torch and Triton only."""

from parrot_kernels.activation import gated
from parrot_kernels.attention import attention
from parrot_kernels.kv_write import write_kv
from parrot_kernels.norm import rms_norm
from parrot_kernels.plan import AttentionPlan, HeadShape
from parrot_kernels.rope import rope_and_write
from parrot_kernels.sample import NO_TOKEN, sample_tokens
from parrot_kernels.segments import ContextRows, Costs

__all__ = [
    "NO_TOKEN",
    "AttentionPlan",
    "ContextRows",
    "Costs",
    "HeadShape",
    "attention",
    "gated",
    "rms_norm",
    "rope_and_write",
    "sample_tokens",
    "write_kv",
]
