"""A stand-in for a CUDA device: tensors that say they are on it, and hold their values on the CPU.

`StandIn` puts a fake of torch.cuda in place, and of parrot_kernels' launches. Work runs in order on streams with a clock of their
own, so that waiting can be measured without time passing. It counts launches, copies and waits; refuses what CUDA refuses while a
stream captures; replays what was captured, operation by operation, on the same memory; raises what it is told to, where it is told
to; and fails where pinned memory is written before a copy from it is done, or read before a copy to it is.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import weakref
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from standin_streams import Event, Graph, Stream, UsingDevice, UsingStream
from standin_tensors import OnDevice, Operations, current, full, index_of, inside, is_view, outside, plain
from torch.utils._pytree import tree_leaves, tree_map

NOT_WHILE_CAPTURING = "CUDA error: operation not permitted when stream is capturing"
EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
WAITS = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "item", "unique"}
NOT_YET = -77  # what pinned memory holds before a copy to it is done


@dataclass(eq=False)
class _Pending:
    """A copy that a stream has not come to, as far as the host knows."""

    done_at: float
    pinned: weakref.ref
    value: torch.Tensor
    to_host: bool


@dataclass
class Counts:
    """Operations that a device was given. `inside` graphs, by the name of the operation, is what the last capture holds."""

    launches: Counter = field(default_factory=Counter)
    copies: Counter = field(default_factory=Counter)  # "pinned", "pageable", "fetched", "fetched and waited for"
    waits: Counter = field(default_factory=Counter)
    replays: int = 0
    captures: int = 0


class StandIn:
    """A machine with CUDA devices; a context manager in which it is there.

    Args:
        num_devices: how many.
        memory: bytes of each.
        launch_s: of the host's time for an operation.
        operation_s: of the device's time for an operation.
    """

    def __init__(self, num_devices=1, memory=2**30, launch_s=5e-6, operation_s=2e-6):
        self.num_devices, self.memory, self.launch_s, self.operation_s = num_devices, memory, launch_s, operation_s
        self.now, self.counts = 0.0, Counts()
        self.used, self.kept = [0] * num_devices, [0] * num_devices  # bytes that tensors have, and that the allocator keeps
        self.streams: list[Stream] = []
        self._pools: set[tuple] = set()
        self._handles = itertools.count(1)
        self._graphs: list[weakref.ref[Graph]] = []
        self.open_pools: set[int] = set()
        self._plans: list[list] = []
        self._dead: BaseException | None = None
        self._holders: dict[int, int] = {}
        self._pinned: weakref.WeakValueDictionary = weakref.WeakValueDictionary()
        self._pending: list[_Pending] = []
        self._lock = threading.RLock()
        self._local = threading.local()
        self._undo = contextlib.ExitStack()

    # What a test plans and sees

    def fail(self, place, error, *, after=0, sticky=False, times=1):
        """Raise an error at a place: "launch", "allocate", "copy", "fetch", "event", "wait", "synchronise", "begin", "end",
        "replay", or the name of a kernel or operation."""
        self._plans.append([place, error, after, sticky, times])

    def at(self, *places):
        """Raise here if it is planned, or if the device is lost."""
        if self._dead is not None:
            raise type(self._dead)(*self._dead.args)
        for plan in self._plans:
            if plan[0] in places and plan[4] > 0:
                plan[2] -= 1
                if plan[2] < 0:
                    plan[4] -= 1
                    if plan[3]:
                        self._dead = plan[1]
                    if self.graph is not None:
                        self.graph.broken = True
                    raise plan[1]

    @property
    def graph(self):
        """What this thread captures; None where it does not."""
        return getattr(self._local, "graph", None)

    @property
    def graphs(self):
        """The graphs that are still there, in the order of their captures."""
        return [graph for made in self._graphs if (graph := made()) is not None]

    def emptied(self, pool):
        """True if there were graphs in a pool, and there are none any more."""
        before = pool in self._pools
        self._pools.add(pool)
        return before and not any(graph._pool == pool for graph in self.graphs if graph.ended)

    @property
    def stream(self):
        """This thread's current stream."""
        return getattr(self._local, "stream", None) or self._defaults[self.index]

    @property
    def index(self):
        """This thread's current device."""
        return getattr(self._local, "index", 0)

    # Installing

    def __enter__(self):
        current.append(self)
        self._defaults = [Stream(i) for i in range(self.num_devices)]
        self.streams.clear()
        self._undo.callback(current.remove, self)
        cuda = torch.cuda
        fakes = {
            "is_available": lambda: True,
            "device_count": lambda: self.num_devices,
            "_lazy_init": lambda: None,
            "current_device": lambda: self.index,
            "get_device_properties": lambda _=None: SimpleNamespace(multi_processor_count=4, name="stand-in"),
            "get_device_name": lambda _=None: "stand-in",
            "is_bf16_supported": lambda including_emulation=True: True,
            "mem_get_info": lambda place: (self.memory - self.used[index_of(place)] - self.kept[index_of(place)], self.memory),
            "empty_cache": self._empty_cache,
            "synchronize": self._synchronise,
            "Stream": Stream,
            "stream": UsingStream,
            "device": UsingDevice,
            "Event": Event,
            "CUDAGraph": Graph,
            "graph_pool_handle": lambda: (0, next(self._handles)),
        }
        for name, fake in fakes.items():
            self._replace(cuda, name, fake)
        self._replace(torch._C, "_cuda_endAllocateToPool", lambda index, pool: self.open_pools.discard(pool))
        self._replace_kernels()
        return self

    def __exit__(self, *_):
        self._undo.close()

    def _replace(self, owner, name, value):
        missing = object()
        before = getattr(owner, name, missing)
        setattr(owner, name, value)
        self._undo.callback(lambda: delattr(owner, name) if before is missing else setattr(owner, name, before))

    def _replace_kernels(self):
        from standin_kernels import KERNELS

        from parrot_kernels import backend, tiled

        self._replace(backend, "enabled", True)
        self._replace(tiled, "triton", object())
        for module, name, compute, launches in KERNELS:
            self._replace(module, name, self._kernel(name, compute, launches))

    def _kernel(self, name, compute, launches):
        def launch(*args, **options):
            tensors = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, OnDevice)]
            host = [leaf for leaf in tree_leaves((args, options)) if type(leaf) is torch.Tensor]
            if host or {index_of(t._place) for t in tensors} != {self.index}:
                self.at("launch")
                raise ValueError("Pointer argument cannot be accessed from Triton (cpu tensor?)")
            return self._run(name, compute, args, options, tensors[0]._place, launches(*args, **options))

        return launch

    # Operations

    def operate(self, func, args, kwargs):
        """One operation of torch."""
        name = func._schema.name.split("::")[1]
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, OnDevice)]
        asked = kwargs.get("device")
        asked = None if asked is None else torch.device(asked)
        to_device = asked is not None and asked.type == "cuda"
        if not tensors and not to_device:
            out = func(*args, **kwargs)
            if func._schema.is_mutable and self._pending:
                with self._lock:
                    self._check_pending()
            return out
        with Operations():  # composite operations on tensors of inference mode come here whole
            out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
        with self._lock:
            if name in ("_to_copy", "copy_"):
                return self._copied(func, name, args, kwargs, asked)
            place = tensors[0]._place if tensors else torch.device("cuda", self.index if asked.index is None else asked.index)
            if any(t._place != place for t in tensors) or any(type(x) is torch.Tensor and x.dim() for x in leaves):
                raise RuntimeError(f"Expected all tensors to be on the same device ({name})")
            if name in WAITS:
                self._wait_for_all(name)
            host = asked is not None and asked.type == "cpu"
            return self._run(name, func, args, kwargs, None if host else place, int(name not in EMPTY and not is_view(func)))

    def indexed(self, func, tensor, index, *value):
        """`tensor[index]`, or its assignment; what CUDA gets of a host's index is a copy that it waits for."""
        with self._lock:
            parts = index if isinstance(index, tuple) else (index,)
            for part in parts:
                if isinstance(part, list) or (type(part) is torch.Tensor and part.dim()):
                    self._pageable(tensor)
                if isinstance(part, torch.Tensor) and part.dtype == torch.bool:
                    self._wait_for_all("index")
            gathers = any(isinstance(part, (list, torch.Tensor)) for part in parts)
            name = "index" if func is torch.Tensor.__getitem__ else "index_put"
            return self._run(name, func, (tensor, index, *value), {}, tensor._place, int(gathers or bool(value)))

    def _run(self, name, compute, args, kwargs, place, launches):
        plain_args, plain_kwargs = (tree_map(plain, what) for what in (args, kwargs))
        with self._lock:
            if launches:
                self.at("launch", name)
                self._account(name, launches)
            mine = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, OnDevice)]
            with torch._C.DisableTorchFunctionSubclass(), outside():
                out = compute(*plain_args, **plain_kwargs)
            if self.graph is not None:
                self.graph.record(compute, plain_args, plain_kwargs, out, mine)
            return tree_map(lambda x: self._wrapped(x, place, mine), out)

    def _account(self, name, launches):
        if self.graph is not None:
            self.graph.launches[name] += launches
            return
        self.counts.launches[name] += launches
        self.now += self.launch_s * launches
        self.stream.free_at = max(self.now, self.stream.free_at) + self.operation_s * launches

    def _wrapped(self, out, place, mine):
        if not isinstance(out, torch.Tensor) or place is None:
            return out
        for tensor in mine:
            if tensor._inner is out:
                return tensor
        return self._on(out, place)

    def _on(self, tensor, place):
        key, size, index = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes(), index_of(place)
        if not self._holders.get(key):
            self.at("allocate")
            if self.used[index] + size > self.memory:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")
            self.used[index] += size
            self.kept[index] = max(0, min(self.kept[index] - size, self.memory - self.used[index]))
            self._holders[key] = 0
        self._holders[key] += 1
        with torch.inference_mode(False):  # a view of what was made outside of that mode would not be let in
            found = OnDevice(tensor, place)
        weakref.finalize(found, self._dropped, key, size, index).atexit = False
        return found

    def _dropped(self, key, size, index):
        with self._lock:
            self._holders[key] -= 1
            if not self._holders[key]:
                del self._holders[key]
                self.used[index] -= size
                self.kept[index] += size

    # Copies

    def pin(self, tensor):
        """Note that a tensor's memory is pinned."""
        self._pinned[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    def is_pinned(self, tensor):
        """Return True if a host's tensor lies in pinned memory."""
        return tensor.untyped_storage().data_ptr() in self._pinned

    def _copied(self, func, name, args, kwargs, asked):
        target, source = (args[0], args[1]) if name == "copy_" else (None, args[0])
        blocks = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
        from_host = type(source) is torch.Tensor
        to_host = type(target) is torch.Tensor if target is not None else asked is not None and asked.type == "cpu"
        if to_host and not from_host:
            return self._fetched(func, args, kwargs, target, source, blocks=blocks)
        if not from_host or (source.dim() == 0 and not self.is_pinned(source)):  # a scalar is an argument of the launch
            place = (target._place if target is not None else None) or (
                asked if asked is not None and asked.type == "cuda" else source._place
            )
            return self._run(name, func, args, kwargs, full(place, self.index), 1)
        place = target._place if target is not None else full(asked, self.index)
        self.at("copy")
        if not self.is_pinned(source) or blocks:
            self._pageable(source)
        else:
            self.counts.copies["pinned"] += 1
            if self.graph is None:
                self.now += self.launch_s
                self.stream.free_at = max(self.now, self.stream.free_at) + self.operation_s
                self._pending.append(_Pending(self.stream.free_at, weakref.ref(source), source.clone(), to_host=False))
        return self._run("copy", func, args, kwargs, place, 0)

    def _pageable(self, _source):
        if self.graph is not None:
            self._refuse()
        self.counts.copies["pageable"] += 1
        self._wait_for_all(None)

    def _fetched(self, func, args, kwargs, target, source, *, blocks):
        self.at("fetch")
        if blocks or target is None or not self.is_pinned(target):
            self.counts.copies["fetched and waited for"] += 1
            self._wait_for_all("fetch")
            return func(*tree_map(plain, args), **tree_map(plain, kwargs))
        if self.graph is not None:
            self._refuse()
        self.counts.copies["fetched"] += 1
        self.now += self.launch_s
        self.stream.free_at = max(self.now, self.stream.free_at) + self.operation_s
        self._pending.append(_Pending(self.stream.free_at, weakref.ref(target), source._inner.clone(), to_host=True))
        with outside():
            target.fill_(NOT_YET)
        return target

    def _check_pending(self):
        """Nothing of the host may write into pinned memory that a copy still reads."""
        for copy in [copy for copy in self._pending if not copy.to_host]:
            source = copy.pinned()
            with outside():
                same = source is None or torch.equal(source, copy.value)
            if not same:
                self._pending.remove(copy)
                raise AssertionError("pinned memory was written while a copy from it was pending")

    def deliver(self, until):
        """All copies up to a moment are done."""
        with self._lock, outside():
            self._check_pending()
            for copy in [copy for copy in self._pending if copy.done_at <= until]:
                self._pending.remove(copy)
                target = copy.pinned()
                if copy.to_host and target is not None:
                    target.copy_(copy.value)

    # Waiting and capturing

    def _wait_for_all(self, what):
        if self.graph is not None:
            self._refuse()
        if what is not None:
            self.counts.waits[what] += 1
        self.wait_until(self.stream.free_at)

    def wait_until(self, moment):
        """The host waits for a moment of the clock."""
        self.now = max(self.now, moment)
        self.deliver(self.now)

    def _refuse(self):
        self.graph.broken = True
        raise RuntimeError(NOT_WHILE_CAPTURING)

    def _synchronise(self, _place=None):
        with self._lock:
            self.at("synchronise")
            if self.graph is not None:
                self._refuse()
            self.counts.waits["synchronise"] += 1
            self.wait_until(max(stream.free_at for stream in [*self.streams, *self._defaults]))

    def _empty_cache(self):
        if self.graph is not None:
            self._refuse()
        self.at()
        self.kept[self.index] = 0

    @contextlib.contextmanager
    def _using_device(self, place):
        before, before_stream = self.index, getattr(self._local, "stream", None)
        self._local.index = before if place is None else index_of(place)
        if self._local.index != before:
            self._local.stream = None
        try:
            with inside(self._local):
                yield
        finally:
            self._local.index, self._local.stream = before, before_stream

    @contextlib.contextmanager
    def _using_stream(self, stream):
        before = getattr(self._local, "stream", None)
        self._local.stream = stream
        try:
            yield
        finally:
            self._local.stream = before
