"""Streams, events and graphs of `standin`, in place of torch.cuda's."""

from __future__ import annotations

import weakref
from collections import Counter

import torch
from standin_tensors import current, index_of, outside
from torch.utils._pytree import tree_leaves

INVALIDATED = "CUDA error: operation failed due to a previous error during capture"


class Stream:
    """A stream: when it is free, in seconds of the stand-in's clock."""

    def __init__(self, place=None):
        self.index, self.free_at = index_of(place), 0.0
        current[-1].at()
        current[-1].streams.append(self)


class UsingDevice:
    """A context in which a device is current; a class, as code that annotates with torch's expects."""

    def __init__(self, place):
        self._context = current[-1]._using_device(place)

    def __enter__(self):
        self._context.__enter__()

    def __exit__(self, *what):
        self._context.__exit__(*what)


class UsingStream(UsingDevice):
    """A context in which a stream is current."""

    def __init__(self, stream):
        self._context = current[-1]._using_stream(stream)


class Event:
    """A moment of a stream."""

    def __init__(self, **_):
        self._standin, self._moment = current[-1], None

    def record(self, stream=None):
        self._standin.at("event")
        self._moment = (stream or self._standin.stream).free_at

    def synchronize(self):
        with self._standin._lock:
            self._standin.at("wait")
            if self._standin.graph is not None:
                self._standin._refuse()
            self._standin.counts.waits["event"] += 1
            self._standin.wait_until(self._moment)


class Graph:
    """A captured graph: its operations, each with the tensors it had."""

    def __init__(self, *_):
        self._standin = current[-1]
        self._standin._graphs.append(weakref.ref(self))
        self.broken, self.launches, self.ended = False, Counter(), False
        self._operations: list[tuple] = []

    def capture_begin(self, pool=None, capture_error_mode="global"):
        standin = self._standin
        standin.at("begin")
        assert capture_error_mode == "thread_local", "what other threads do would break the capture"
        assert standin.stream not in standin._defaults, "CUDA graphs must be captured on a non-default stream"
        assert pool not in standin.open_pools
        assert not standin.open_pools, "two captures at once"
        assert not standin.emptied(pool), "use_count > 0"  # as torch's allocator says it
        standin.open_pools.add(pool)
        self._pool = pool
        standin._local.graph = self

    def capture_end(self):
        standin = self._standin
        standin._local.graph = None
        standin.at("end")
        if self.broken:
            raise RuntimeError(INVALIDATED)
        standin.open_pools.discard(self._pool)
        standin.counts.captures += 1
        self.ended = True

    def record(self, compute, args, kwargs, out, mine):
        self._operations.append((compute, args, kwargs, [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]))

    def replay(self):
        standin = self._standin
        assert self.ended, "a graph is replayed that was not captured"
        with standin._lock:
            standin.at("replay")
            standin.counts.replays += 1
            standin.now += standin.launch_s
            work = standin.operation_s * sum(self.launches.values())
            standin.stream.free_at = max(standin.now, standin.stream.free_at) + work
            with torch._C.DisableTorchFunctionSubclass(), outside():
                for compute, args, kwargs, outs in self._operations:
                    again = [x for x in tree_leaves(compute(*args, **kwargs)) if isinstance(x, torch.Tensor)]
                    for kept, new in zip(outs, again, strict=True):
                        if kept.data_ptr() != new.data_ptr():
                            kept.copy_(new)
