"""Checks: conditions on the value of an output, functions of the user's."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from parrot_nb.errors import OptionError

Check = Callable[[Any], Any]

_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


def checked_check(check: Any) -> Check:
    """A check as it was given. Raises OptionError where it is no plain function of a value."""
    if not callable(check):
        raise OptionError(f"check must be a function of the value, not {type(check).__name__}.")
    if inspect.iscoroutinefunction(check):
        raise OptionError("check must be a plain function, not an async one: make what it awaits a call of its own.")
    return check  # type: ignore[no-any-return]


def named_check(written: str, namespace: Mapping[str, Any], error: Callable[[str], BaseException]) -> Check:
    """The check of that name. Raises what `error` makes of a message."""
    if _DOTTED.fullmatch(written) is None:
        raise error("check is the name of a function, as in check=is_short: define it first.")
    name, *attributes = written.split(".")
    if name not in namespace:
        raise error(f"The check '{name}' is not known here: define the function first.")
    found = namespace[name]
    try:
        for attribute in attributes:
            found = getattr(found, attribute)
        return checked_check(found)
    except OptionError as problem:
        raise error(str(problem)) from None
    except Exception as problem:  # the object is the user's
        raise error(f"The check '{written}' cannot be had ({type(problem).__name__}): check the spelling.") from None


def passes(check: Check, value: Any) -> None:
    """Ask a check about a value.

    Raises:
        ValueError: it says no.
        Exception: whatever it raises.
    """
    name = getattr(check, "__name__", type(check).__name__)
    said = check(value)
    if said is None:
        raise ValueError(f"the check '{name}' returned None: let it return True or False, or raise")
    if not said:
        raise ValueError(f"the check '{name}' said no")
