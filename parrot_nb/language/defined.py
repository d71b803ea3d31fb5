"""Where a function of ours was defined: what reloading and pickling ask of plain functions, they ask of ours too."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, SupportsIndex

OURS = __name__.partition(".")[0]


class Defined:
    """Base of semantic and native functions: one that a module holds under its name is pickled by that name, as Python
    does with plain functions, and a tool that reloads the module finds it by `__module__`; any other is pickled by value."""

    def _define(self, name: str, function: Callable[..., Any] | None) -> None:
        """Record the name, and the module: that of the Python function, else of the code that makes this one."""
        module = None if function is None else getattr(function, "__module__", None)
        self.__module__ = module or _calling_module()
        self.__name__ = self.__qualname__ = name

    def replace(self, new: Defined) -> Defined:
        """Become what a reloaded module defines in its place; returns what it was, as a function of its own.

        Args:
            new: a function of the same kind.
        """
        before: Defined = object.__new__(type(self))
        before.__dict__.update(self.__dict__)
        self.__dict__.clear()
        self.__dict__.update(new.__dict__)
        return before

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        module = sys.modules.get(self.__module__)
        if module is not None and getattr(module, self.__qualname__, None) is self and self.__module__ != "__main__":
            return self.__qualname__
        return super().__reduce_ex__(protocol)


def calling_frame() -> FrameType:
    """The innermost frame on the stack whose module is not ours; the outermost if all are."""
    frame = sys._getframe(1)  # noqa: SLF001 - as collections.namedtuple does; `inspect` gives the same, slower
    while frame.f_back is not None and _is_ours(str(frame.f_globals.get("__name__", ""))):
        frame = frame.f_back
    return frame


def _calling_module() -> str:
    """The name of the module whose code called into this package."""
    name = str(calling_frame().f_globals.get("__name__", "__main__"))
    return "__main__" if _is_ours(name) else name


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == OURS
