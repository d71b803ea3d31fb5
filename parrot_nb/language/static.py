"""Type variables of the classes that a type checker follows through a graph. At run time they carry no information.

Defaults of type variables came with Python 3.13, and checkers know them from `typing_extensions`; nothing of it is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, TypeVar

    Params = ParamSpec("Params", default=...)
    T = TypeVar("T", default=Any)
    T_co = TypeVar("T_co", covariant=True, default=Any)
    V_co = TypeVar("V_co", covariant=True, default=Any)
else:
    from typing import ParamSpec, TypeVar

    Params = ParamSpec("Params")
    T = TypeVar("T")
    T_co = TypeVar("T_co", covariant=True)
    V_co = TypeVar("V_co", covariant=True)

Rest = ParamSpec("Rest")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")

__all__ = ["A", "B", "C", "D", "E", "F", "Params", "Rest", "T", "T_co", "V_co"]
