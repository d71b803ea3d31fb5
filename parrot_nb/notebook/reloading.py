"""`%autoreload` updates our functions in place, as it does plain functions: `from prompts import f` has the new prompt then."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from IPython.extensions import autoreload

from parrot_nb.language import NativeFunction, SemanticFunction
from parrot_nb.language.calls import Call

Calls = Callable[[], Iterable[Call]]
Rule = tuple[Callable[[Any, Any], bool], Callable[[Any, Any], None]]


def start_updating(calls: Calls) -> Callable[[], None]:
    """Let reloaded modules update functions of ours; returns what ends that.

    Args:
        calls: those already made, which keep the function that they were made with.
    """

    def update(old: Any, new: Any) -> None:
        made = [call for call in calls() if call.function is old]
        before = old.replace(new)
        for call in made:
            call.keep(before)

    rule: Rule = (_are_of_one_kind, update)
    autoreload.UPDATE_RULES.append(rule)
    return lambda: autoreload.UPDATE_RULES.remove(rule)


def _are_of_one_kind(old: Any, new: Any) -> bool:
    return type(old) is type(new) and isinstance(old, (SemanticFunction, NativeFunction))
