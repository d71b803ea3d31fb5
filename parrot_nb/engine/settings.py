"""Settings of an engine that can be judged before there is one."""

from __future__ import annotations

from numbers import Real
from typing import Any

SAMPLINGS = ("greedy", "model")  # what holds where nobody says an option: greedy defaults, or what the model's files recommend


def unusable_timeout(seconds: Any) -> str | None:
    """Why a `step_timeout` cannot be used; None where it can."""
    if isinstance(seconds, Real) and not isinstance(seconds, bool) and float(seconds) > 0:
        return None
    return f"step_timeout must be seconds, more than 0 (float('inf') waits for ever), not {seconds!r}."
