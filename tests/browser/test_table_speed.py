"""Scrolling of a table of 100,000 rows, some of which are done: frames that the page draws in a second."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from notebook_pages import WAIT_MS, Face, NotebookPage

pytestmark = [pytest.mark.browser, pytest.mark.minutes]

NUM_ROWS = 100_000
NUM_DONE = 300  # the others are cancelled: a row is drawn alike whatever became of it
CELLS = [
    "%load_ext parrot_nb\nimport parrot_nb as P, time\n%config Parrot.show = 'off'",
    (
        "upper = P.native_function(lambda n, text: text.upper(), name='upper')\n"
        f"rows = upper.map([{{'n': n, 'text': f'row {{n}} of many, with some words in it'}} for n in range({NUM_ROWS})])\n"
        f"for row in rows:\n    if row.position == {NUM_DONE}: break\nrows.cancel()"
    ),
    "rows",
    (
        "slow = P.native_function(lambda n: (time.sleep(0.25), n)[1], name='slow')\n"
        "running = slow.map([{'n': n} for n in range(9000)])\nrunning"
    ),
]
# Scrolls on by some rows in each frame for a while; gives frames by the second, and rows that stood empty in the middle of sight.
SCROLL = """async (grid, [ms, pixels]) => {
  const start = performance.now();
  let frames = 0, empty = 0;
  for (;;) {
    const now = await new Promise(requestAnimationFrame);
    if (now - start > ms) return [frames * 1000 / (now - start), empty / frames, grid.scrollTop];
    frames++;
    grid.scrollTop += pixels;
    empty += grid.querySelectorAll('.pt-row.pt-unknown:not([hidden])').length;
  }
}"""


def test_a_long_table_scrolls(browser: Any, face: Face) -> None:
    opened = NotebookPage.of(browser, face, "long", CELLS)
    opened.run(0)
    opened.page.set_default_timeout(540_000)
    opened.run(1)
    opened.run(2)
    found = opened.code_cell(2).locator(".pt")
    found.locator(".pg-summary", has_text=f"{NUM_ROWS:,} rows").wait_for(timeout=WAIT_MS)
    grid = found.locator(".pt-grid")
    for pixels in (30, 300, 3000):
        frames, empty, reached = grid.evaluate(SCROLL, [3000, pixels])
        sys.stdout.write(
            f"{pixels} pixels a frame: {frames:.0f} frames/s, {empty:.1f} rows not there yet, at pixel {reached:,.0f}\n"
        )
    last = "g => { g.scrollTop = g.scrollHeight; return g.scrollTop; }"
    grid.evaluate(last)
    grid.locator(".pt-number", has_text=f"{NUM_ROWS - 1}").wait_for(timeout=WAIT_MS)
    assert grid.locator(".pt-row").count() < 60, "elements are few, however long the table"
    opened.close()


def test_rows_in_sight_stay_while_a_map_runs(browser: Any, face: Face) -> None:
    """Scrolled past more rows than the page keeps, while it is told of some of them."""
    opened = NotebookPage.of(browser, face, "running", CELLS)
    opened.run(0)
    opened.run(3)
    found = opened.code_cell(3).locator(".pt")
    found.locator(".pg-summary", has_text="9,000 rows").wait_for(timeout=WAIT_MS)
    grid = found.locator(".pt-grid")
    grid.evaluate("g => { g.scrollTop = 0; }")
    blank = 0
    for _ in range(60):  # at each stop the rows in sight are asked for
        grid.evaluate(SCROLL, [150, 300])
        opened.page.wait_for_timeout(300)
        blank += grid.evaluate(SCROLL, [50, 0])[1] > 0
    assert int(grid.evaluate("g => g.scrollTop")) > 4000 * 30
    assert not blank, "no row in sight stays blank"
    opened.close()
