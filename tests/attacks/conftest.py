"""Lets the attacks use what the tests of the runtime have: an engine of hashes, and its shorthand."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
