"""The device that an engine computes on. No other module of the engine calls `torch.cuda`.

The worker thread of an engine does everything inside `Device.entered`. CUDA keeps the current device and stream by thread; a
Triton kernel goes to the current device, whatever the device of its arguments, and work on the legacy default stream would wait
for that of every other engine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from parrot_nb.engine.embedded.parcel import Parcel
from parrot_nb.engine.memory import first_line

Replay = Callable[[], Tensor]

_capturing = Lock()  # torch's allocator and generators know one capture at a time
_measuring = Lock()


class CaptureError(RuntimeError):
    """A function could not be captured as a CUDA graph; the cause is what CUDA raised."""


def count_cuda() -> int:
    """Return the number of CUDA devices."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def measuring(place: torch.device) -> AbstractContextManager[Any]:
    """A context in which one engine of the process measures a CUDA device's memory and takes its part of it."""
    return _measuring if place.type == "cuda" else contextlib.nullcontext()


class Arrival:
    """Tensors on their way to the host.

    Args:
        tensors: copies on the host.
        event: happens when they have arrived; None on a CPU.
    """

    def __init__(self, tensors: Sequence[Tensor], event: Any = None) -> None:
        self._tensors, self._event = tuple(tensors), event

    def wait(self) -> tuple[Tensor, ...]:
        """Wait for these tensors, and for nothing that the device was given after them."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensors


class Device:
    """One engine's use of its device: a stream, pinned memory, graphs. Its methods run in the engine's worker thread.

    Args:
        place: "cpu" or a CUDA device; without an index it is the first one.
    """

    def __init__(self, place: torch.device) -> None:
        self.is_cuda = place.type == "cuda"
        self.place = torch.device("cuda", place.index or 0) if self.is_cuda else place
        self._stream: Any = None
        self._pool: Any = None

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Make the device, and the engine's stream on it, this thread's current ones."""
        if not self.is_cuda:
            yield
            return
        with torch.cuda.device(self.place):
            if self._stream is None:
                self._stream = torch.cuda.Stream(self.place)
            with torch.cuda.stream(self._stream):
                yield

    @property
    def num_processors(self) -> int:
        """Multiprocessors of a CUDA device."""
        return int(torch.cuda.get_device_properties(self.place).multi_processor_count)

    @property
    def has_bfloat16(self) -> bool:
        """True if a CUDA device has bfloat16 products, and does not only imitate them."""
        with torch.cuda.device(self.place):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))

    def send(self, host: Tensor) -> Tensor:
        """Copy a host's tensor to the device without waiting for it. The caller may change its own tensor at once."""
        if not self.is_cuda:
            return host
        pinned = torch.empty(host.shape, dtype=host.dtype, pin_memory=True).copy_(host)
        return pinned.to(self.place, non_blocking=True)  # torch keeps the pinned memory until the copy is done

    def send_all(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return a host's tensors on the device, as `send` does, in one copy."""
        if not self.is_cuda:
            return list(tensors)
        parcel = Parcel.of(tensors)
        pinned = torch.empty(parcel.num_bytes, dtype=torch.uint8, pin_memory=True)
        parcel.fill(pinned, tensors)
        return parcel.open(pinned.to(self.place, non_blocking=True))

    def send_into(self, parcel: Parcel, buffer: Tensor, tensors: Sequence[Tensor]) -> None:
        """Copy a host's tensors over those of a buffer of the device, in one copy and without waiting for it. The last may be
        shorter than its place."""
        host = torch.empty(parcel.num_bytes, dtype=torch.uint8, pin_memory=self.is_cuda)
        num_bytes = parcel.fill(host, tensors)
        buffer[:num_bytes].copy_(host[:num_bytes], non_blocking=True)

    def fetch(self, *tensors: Tensor) -> Arrival:
        """Begin to copy tensors to the host, behind what the device was given so far: what it is given later may overwrite them."""
        if not self.is_cuda:
            return Arrival([tensor.clone() for tensor in tensors])
        hosts = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True) for t in tensors]
        event = torch.cuda.Event(blocking=True)  # who waits for it sleeps, and leaves the interpreter to others
        event.record()
        return Arrival(hosts, event)

    def new_pool(self) -> None:
        """Have the next graphs share memory of their own: torch takes no pool again whose graphs are all gone."""
        self._pool = None

    def capture(self, function: Callable[[], Tensor]) -> Replay:
        """Capture a function as a CUDA graph; calling the result runs it on the same tensors again. The graphs of an engine
        share one pool of memory, since only one runs at a time.

        Raises:
            CaptureError: the function cannot be captured. What torch keeps of captures is as before.
        """
        with _capturing:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            function()  # compiles kernels and sets libraries up, which a capture must not
            try:
                torch.cuda.synchronize(self.place)
                graph = torch.cuda.CUDAGraph()
                out = _captured(graph, self._pool, function)
            except Exception as error:
                self._forget_capture()
                raise CaptureError(f"{type(error).__name__}: {first_line(error)}") from error

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay

    def _forget_capture(self) -> None:
        """Undo what a failed capture leaves behind. torch's allocator would go on to defer what other streams free, and its
        generator would refuse random numbers outside of captures, until the next capture that ends well."""
        pool, self._pool = self._pool, None
        with contextlib.suppress(Exception):
            torch._C._cuda_endAllocateToPool(self.place.index, pool)
        with contextlib.suppress(Exception):
            _captured(torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle(), lambda: torch.zeros(1, device=self.place))

    def is_lost(self) -> bool:
        """Return True if the device computes nothing more in this process: after an illegal address or a failed assert every
        call of CUDA raises until the process ends."""
        if not self.is_cuda:
            return False
        try:
            torch.cuda.synchronize(self.place)
        except Exception:
            return True
        return False

    def give_back(self) -> None:
        """Give memory that torch keeps for later back to a CUDA device: for other processes, and for what is measured next."""
        if self.is_cuda:
            with contextlib.suppress(Exception), torch.cuda.device(self.place):  # a device that is lost gives nothing back
                torch.cuda.empty_cache()

    def free_bytes(self) -> int:
        """Return the bytes of a CUDA device that no process has; within `measuring`."""
        self.give_back()
        return int(torch.cuda.mem_get_info(self.place)[0])


def _captured(graph: Any, pool: Any, function: Callable[[], Tensor]) -> Tensor:
    """Run a function while the current stream captures what it is given. What other threads do meanwhile neither ends up in the
    graph nor breaks it."""
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        out = function()
    except BaseException:
        with contextlib.suppress(Exception):
            graph.capture_end()
        raise
    graph.capture_end()
    return out
