"""Handles: objects that stand for something in a session, and mean nothing without it."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, SupportsIndex

from parrot_nb.errors import UsageError


class Handle:
    """Base of classes whose instances cannot be copied or pickled.

    Attributes:
        _noun: what the message calls it, with an article.
        _remedy: what to do instead.
        _home: where it belongs.
    """

    __slots__ = ()

    _noun: ClassVar[str]
    _remedy: ClassVar[str]
    _home: ClassVar[str] = "its session"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        self._refuse("pickled")

    def __copy__(self) -> NoReturn:
        self._refuse("copied")

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        self._refuse("copied")

    def _refuse(self, what: str) -> NoReturn:
        raise UsageError(f"{self._noun} belongs to {self._home} and cannot be {what}: {self._remedy}.")
