"""The page on the paper quotes what stands in the table of figures, and no other figure."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
# "1.38 / 1.21 / 1.14 / 1.11x", "2.09x / 1.61x", "45 / 78 / 41", "2.35x"
FIGURES = re.compile(r"(?:\d[\d.]*x? / )+\d[\d.]*x?|\b\d+\.\d+x")


def test_every_figure_is_quoted_from_the_table():
    table = (DOCS / "paper-figures.md").read_text(encoding="utf-8")
    quoted = FIGURES.findall((DOCS / "pages" / "reading-the-paper.md").read_text(encoding="utf-8"))
    assert len(quoted) > 15
    missing = [each for each in quoted if not re.search(rf"(?<![\d.]){re.escape(each)}(?![\d.])", table)]
    assert not missing
