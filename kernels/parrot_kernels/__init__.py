"""Kernels of a paged, ragged transformer step: attention over paged KV and the KV write, in torch and Triton. Depends on
torch and Triton only."""

from parrot_kernels.attention import attention
from parrot_kernels.kv_write import write_kv
from parrot_kernels.plan import AttentionPlan, ContextRows

__all__ = ["AttentionPlan", "ContextRows", "attention", "write_kv"]
