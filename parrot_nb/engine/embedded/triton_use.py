"""Whether Triton works on an engine's device, and whether an error comes from it. An engine that cannot use it computes by torch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

import torch

from parrot_kernels import backend, rms_norm
from parrot_nb.engine.embedded.device import Device
from parrot_nb.engine.memory import first_line, ran_out_of_memory

PART = "Triton kernels"
DEVIATION = 1e-4  # of float32 norms: a kernel that was compiled for another device is off by as much as the values are


def running(*, uses_triton: bool) -> AbstractContextManager[None]:
    """A context in which this thread's kernels run by Triton, or by torch alone."""
    return nullcontext() if uses_triton else backend.without()


def why_unusable(device: Device) -> str | None:
    """Run one small kernel, before a model is read: a compiler that is missing, or a driver that is not found, shows here.

    Returns:
        Why Triton cannot be used, as a clause; None if it can, or if nothing of an engine on this device would use it.

    Raises:
        Exception: whatever a device raises that does not come from Triton.
    """
    if not (device.is_cuda and backend.enabled):
        return None
    x = torch.linspace(-1, 1, 64, device=device.place).view(2, 32)
    weight = torch.ones(32, device=device.place)
    with backend.without():
        expected = rms_norm(x, weight, 1e-6)
    try:
        apart = float((rms_norm(x, weight, 1e-6) - expected).abs().max())
    except Exception as error:
        if not is_from_triton(error) or device.is_lost():
            raise
        return failed(error)
    return None if apart <= DEVIATION else f"a norm is {apart:.2g} off; torch computes instead"


def failed(error: BaseException) -> str:
    """Return the clause for an error that comes from Triton."""
    return f"one raised {type(error).__name__} ({first_line(error)}); torch computes instead"


def is_from_triton(error: BaseException) -> bool:
    """Return True if a kernel could not be compiled or launched. The errors of a missing compiler or driver have builtin types, so
    that what counts is whose code raised them; memory that runs out is another matter."""
    if ran_out_of_memory(error):
        return False
    return _is_triton(type(error).__module__) or any(_is_triton(name) for name in _modules(error.__traceback__))


def _is_triton(module: str) -> bool:
    return module.partition(".")[0] == "triton"


def _modules(traceback: TracebackType | None) -> list[str]:
    """The modules of the frames that an exception has come through."""
    found = []
    while traceback is not None:
        found.append(str(traceback.tb_frame.f_globals.get("__name__", "")))
        traceback = traceback.tb_next
    return found
