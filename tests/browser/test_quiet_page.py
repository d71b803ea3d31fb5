"""A page as it is used: cells that run again show one line, widgets call and show variables, and captures are shown later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from notebook_pages import WAIT_MS, Face, NotebookPage

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELLS = [
    "%load_ext parrot_nb\nimport parrot_nb as P, ipywidgets as W\nfrom IPython.display import display",
    "%%semantic write(x) -> y --max-tokens 40\nWrite {{input:x}}: {{output:y, ignore_eos=True}}",
    "write('a poem').get() and None",
    "write('a poem').get()\nwrite.options(max_tokens=200)('another').get() and None",
    """button, out = W.Button(description="Ask"), W.Output()
@out.capture()
def ask(_):
    global asked
    asked = write.options(fresh=True)("a click")
    display(asked)
button.on_click(ask)
display(button, out)""",
    "%%capture cap\ncaptured = write.options(fresh=True)('a capture')\ndisplay(captured)",
    "cap.show()",
    "%%parrot show off\nwrite('nothing is seen').get() and None",
]
RUN, MORE, BUTTON, CAPTURE, SHOW, OFF = 2, 3, 4, 5, 6, 7


@pytest.fixture(scope="module")
def opened(browser: Any, face: Face) -> Iterator[NotebookPage]:
    notebook = NotebookPage.of(browser, face, "quiet", CELLS)
    for cell in range(RUN):
        notebook.run(cell)
    yield notebook
    notebook.close()


def test_a_cell_that_runs_again_shows_a_line_that_opens(opened: NotebookPage) -> None:
    opened.run(RUN)
    opened.code_cell(RUN).locator(".pg").wait_for(timeout=WAIT_MS)
    opened.run(RUN)
    line = opened.code_cell(RUN).locator("details.parrot-line")
    line.locator("summary", has_text="1 call · 1 done · 1 reused").wait_for(timeout=WAIT_MS)
    assert opened.code_cell(RUN).locator(".pg").count() == 0
    picture = line.locator("img")
    assert not picture.is_visible()
    for theme in ("Light", "Dark"):
        opened.theme(theme)
        opened.shot(f"quiet-line-{theme.lower()}", opened.code_cell(RUN))
    line.locator("summary").click()
    assert picture.is_visible()
    opened.shot("quiet-line-opened", opened.code_cell(RUN))


def test_a_line_comes_to_life_when_something_runs(opened: NotebookPage) -> None:
    opened.run(MORE)
    graph = opened.code_cell(MORE).locator(".pg")
    graph.locator(".pg-summary", has_text="2 of 2 calls done").wait_for(timeout=WAIT_MS)


def test_a_button_shows_what_it_called_and_its_call_runs(opened: NotebookPage) -> None:
    opened.run(BUTTON)
    cell = opened.code_cell(BUTTON)
    cell.get_by_text("Ask", exact=True).click()
    cell.get_by_text("This output is not updated: get() waits for the value.").wait_for(timeout=WAIT_MS)
    opened.shot("quiet-button", cell)


def test_what_was_captured_fills_in_where_it_is_shown(opened: NotebookPage) -> None:
    opened.run(CAPTURE)
    assert opened.code_cell(CAPTURE).locator(".parrot-variable").count() == 0
    opened.run(SHOW)
    opened.code_cell(SHOW).locator(".parrot-variable", has_text="done").wait_for(timeout=WAIT_MS)


def test_a_cell_that_is_told_so_shows_nothing(opened: NotebookPage) -> None:
    opened.run(OFF)
    assert opened.code_cell(OFF).locator(".parrot-graph, .parrot-line, .pg").count() == 0


def test_the_page_has_no_complaints(opened: NotebookPage) -> None:
    assert not opened.messages
