"""Tensors of `standin`'s device: they say they are on CUDA, hold their values on the CPU, and pass on what is done with them."""

from __future__ import annotations

import contextlib

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

current: list = []  # the stand-in that is there, last


def inner(what):
    """The CPU tensor behind a device's; anything else as it is."""
    return what._inner if isinstance(what, OnDevice) else what


class OnDevice(torch.Tensor):
    """A tensor that says it is on a CUDA device."""

    @staticmethod
    def __new__(cls, tensor, place):
        return torch.Tensor._make_wrapper_subclass(
            cls, tensor.shape, strides=tensor.stride(), storage_offset=tensor.storage_offset(), dtype=tensor.dtype, device=place
        )

    def __init__(self, tensor, place):
        self._inner, self._place = tensor, place

    def __repr__(self):
        return f"OnDevice({self._inner!r}, {self._place})"

    def __reduce_ex__(self, _protocol):
        raise TypeError("a tensor of a device is not copied by pickle")

    def data_ptr(self):
        return self._inner.data_ptr()

    def untyped_storage(self):
        return self._inner.untyped_storage()

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func in _VALUES:
            return func(args[0].cpu())
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            return current[-1].indexed(func, *args)
        if func in _BELOW:
            return current[-1].operate(_BELOW[func], args, kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return current[-1].operate(func, args, kwargs or {})


# These wait for a value.
_VALUES = {getattr(torch.Tensor, name) for name in ("tolist", "item", "__float__", "__int__", "__bool__", "__index__")}

# These reach for a real device before they come to the dispatcher.
_BELOW = {
    torch.Tensor.nonzero: torch.ops.aten.nonzero.default,
    torch.Tensor.copy_: torch.ops.aten.copy_.default,
    torch.Tensor.contiguous: torch.ops.aten.contiguous.default,
    torch.Tensor.__invert__: torch.ops.aten.bitwise_not.default,
}


class Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return current[-1].operate(func, args, kwargs or {})


class Functions(TorchFunctionMode):
    """Pinned memory, and `torch.tensor(device=)`, which would reach for a real device below the dispatcher."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, standin = dict(kwargs or {}), current[-1]
        pinned = kwargs.pop("pin_memory", False) or func is torch.Tensor.pin_memory
        if func is torch.Tensor.pin_memory:
            out = args[0].clone()
        elif func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None and not isinstance(args[0], OnDevice):
            place = torch.device(kwargs.pop("device"))
            out = func(*args, **kwargs)
            out = out.to(place) if place.type == "cuda" else out
        else:
            out = func(*args, **kwargs)
        return standin.pin(out) if pinned else out


def plain(what):
    if isinstance(what, torch.device):
        return torch.device("cpu")
    return inner(what)


def index_of(place):
    if place is None or isinstance(place, int):
        return place or 0
    return torch.device(place).index or 0


def full(place, index):
    return place if place.index is not None else torch.device("cuda", index)


def is_view(func):
    returns = func._schema.returns
    return any(r.alias_info is not None and not r.alias_info.is_write for r in returns) or func._schema.name.split("::")[1] in (
        "_unsafe_view", "_reshape_alias", "alias", "detach", "lift_fresh",
    )  # fmt: skip


@contextlib.contextmanager
def outside():
    """Compute on the CPU alone."""
    with torch._C.DisableTorchFunction(), _disable_current_modes(), torch.inference_mode():
        yield


@contextlib.contextmanager
def inside(local):
    """Once per thread, since modes are kept by thread."""
    if getattr(local, "entered", 0):
        yield
        return
    local.entered = 1
    try:
        with Functions(), Operations():
            yield
    finally:
        local.entered = 0
