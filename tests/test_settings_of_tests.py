"""A failing property ends within a minute: no phase of hypothesis is without a limit."""

from __future__ import annotations

import hypothesis.internal.conjecture.engine as engine
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st


def test_hypothesis_explains_nothing_and_shrinks_for_seconds():
    assert Phase.explain not in settings().phases
    assert {Phase.generate, Phase.shrink} <= set(settings().phases)
    assert engine.MAX_SHRINKING_SECONDS <= 30


def test_the_limit_of_shrinking_is_one_that_hypothesis_reads(monkeypatch):
    """With no time at all for it, what is found first is what is reported."""

    def smallest() -> int:
        seen = []

        @settings(database=None, derandomize=True, max_examples=300)
        @given(st.integers(0, 10**9))
        def fails_above_a_thousand(number):
            seen.append(number)
            assert number <= 1000

        with pytest.raises(AssertionError):
            fails_above_a_thousand()
        return seen[-1]

    assert smallest() == 1001
    monkeypatch.setattr(engine, "MAX_SHRINKING_SECONDS", -1)
    assert smallest() > 1001
