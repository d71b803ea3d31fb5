"""A session of each kind for the tests of a module."""

from __future__ import annotations

import pytest

import parrot_nb as P


@pytest.fixture(scope="module", params=[True, False], ids=["process", "thread"])
def isolate(request):
    return request.param


@pytest.fixture(scope="module")
def opened(isolate):
    with P.Session(isolate=isolate, max_tokens=8) as session:
        yield session


@pytest.fixture
def session(opened):
    """The module's session, emptied after the test."""
    yield opened
    opened.reset()
