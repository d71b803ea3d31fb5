from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from record_logs import Recorded, many_calls, run_application


@pytest.fixture(scope="session")
def recorded() -> Recorded:
    return run_application()


@pytest.fixture
def make_calls():
    return many_calls
