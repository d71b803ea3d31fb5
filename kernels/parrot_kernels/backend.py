"""Whether Triton runs a call: on CUDA tensors, where it is installed, until it has failed."""

from __future__ import annotations

from torch import Tensor

try:
    import triton
except ImportError:  # no Triton on this platform
    triton = None


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
