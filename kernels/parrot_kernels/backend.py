"""Triton where it can run, whether it runs a call, and on which device."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
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
    """Whether Triton runs a call. A kernel that does not compile on a device would fail in every step; torch's path gives the
    same results.

    Attributes:
        enabled: Triton is there.
    """

    def __init__(self) -> None:
        self.enabled = triton is not None
        self._thread = threading.local()

    def serves(self, tensor: Tensor) -> bool:
        """Return True if Triton runs calls on such a tensor in this thread."""
        return self.enabled and tensor.is_cuda and not getattr(self._thread, "is_without", False)

    @contextlib.contextmanager
    def without(self) -> Iterator[None]:
        """A context in which torch runs the calls of this thread, whatever other threads do."""
        before = getattr(self._thread, "is_without", False)
        self._thread.is_without = True
        try:
            yield
        finally:
            self._thread.is_without = before


backend = Backend()
"""The process's own."""


def launching(tensor: Tensor) -> AbstractContextManager[Any]:
    """A context in which a launch goes to a tensor's device: Triton launches on the current one, whatever its arguments are on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
