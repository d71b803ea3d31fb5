"""Triton where it can run, and whether it runs a call: on CUDA tensors, until it has failed."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from torch import Tensor


def _imported() -> tuple[Any, Any]:
    """Triton and its language; None twice where it is not installed, or where no kernel can run.

    Its import takes 70 MB and a quarter of a second. Kernels run on a GPU and under TRITON_INTERPRET=1; who has imported it
    before may compile them for another machine.
    """
    if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") or "triton" in sys.modules):
        return None, None
    try:
        import triton
        import triton.language
    except ImportError:  # no Triton on this platform: the torch path serves every device
        return None, None
    return triton, triton.language


triton, tl = _imported()


class Backend:
    """The process's one switch. A kernel that does not compile on a device would fail in every step; torch's path gives
    the same results."""

    def __init__(self) -> None:
        self.enabled = triton is not None

    def serves(self, tensor: Tensor) -> bool:
        """Whether Triton runs calls on such a tensor."""
        return self.enabled and tensor.is_cuda

    def disable(self) -> None:
        """From now on torch runs everything."""
        self.enabled = False


backend = Backend()
"""The one switch of this process."""
