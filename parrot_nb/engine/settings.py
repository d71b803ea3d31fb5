"""Settings of an engine that can be judged before there is one."""

from __future__ import annotations

from numbers import Real
from typing import Any

QUANTIZATIONS = ("none", "int8", "int4")  # of a model's weights
SAMPLINGS = ("greedy", "model")  # what holds where nobody says an option: greedy defaults, or what the model's files recommend


def unusable_timeout(name: str, seconds: Any) -> str | None:
    """Return why seconds cannot be used as a timeout of this name; None where they can."""
    if isinstance(seconds, Real) and not isinstance(seconds, bool) and float(seconds) > 0:
        return None
    return f"{name} must be seconds, more than 0 (float('inf') waits for ever), not {seconds!r}."
