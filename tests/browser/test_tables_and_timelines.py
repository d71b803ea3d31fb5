"""Timeline, comparison, replay, tables and values in a real JupyterLab, and the exported report, in both themes."""

from __future__ import annotations

import pytest
from notebook_pages import NotebookPage, findings, weak_texts

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SHARED = "You are a careful assistant who answers in one short sentence and never in two, whatever the question may be. "
CELLS = [
    "%load_ext parrot_nb\nimport parrot_nb as P",
    f"%%semantic write(x) -> y --max-tokens 24 --ignore-eos\n{SHARED}Write of {{{{input:x}}}}: {{{{output:y}}}}",
    "%%semantic check(text) -> note --max-tokens 12 --ignore-eos\nCheck this: {{input:text}} Note: {{output:note}}",
    "drafts = write.map([f'city {i}' for i in range(30)])\nchecks = check.map(drafts[:3])\nwhole = write(P.join(checks))\nwhole.get() and None",
    """@P.native_function
def shortest(texts):
    raise ValueError("no text is short enough")

failed = shortest(checks)
late = P.variable(name="late")
stopped = check(late)
stopped.cancel()
picked = check("Picked: " + failed)""",
    "%parrot timeline",
    "%parrot",
    "%parrot vars",
    "%%parrot compare --off sharing,dedup\nvalues = write.map(['rain', 'snow', 'sun']).get()",
    "%parrot export trace.json\n%parrot export report.html",
    "P.replay('trace.json', speed=4)",
    "whole",
    "failed",
    "late",
    "print('all', 'done')",
]
TIMELINE, CARD, VARS, COMPARE, REPLAY, WHOLE, FAILED, LATE = 5, 6, 7, 8, 10, 11, 12, 13


@pytest.fixture(scope="module")
def opened(browser, face):
    opened = NotebookPage.of(browser, face, "tables", CELLS, width=1360, height=6400)
    opened.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    opened.page.wait_for_selector("text=all done", timeout=120_000)
    opened.page.keyboard.press("Escape")
    yield opened
    opened.close()


def test_timelines(opened):
    timelines = opened.page.locator(".parrot-timeline")
    timelines.nth(3).wait_for()  # of the session, two of the comparison, of the replay
    assert timelines.count() == 4
    told = timelines.first.locator("img").get_attribute("alt") or ""
    assert "write ×31" in told
    assert timelines.last.locator("img").get_attribute("alt") == told
    assert timelines.first.locator("area[title]").count() > 20
    frames = timelines.evaluate_all("nodes => nodes.map(n => [n.scrollWidth, n.clientWidth])")
    assert all(needed <= there for needed, there in frames), "no picture is wider than its cell"


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_all_of_it_can_be_read_by_all(opened, theme):
    opened.theme(theme)
    outputs = {
        "timeline": TIMELINE, "card": CARD, "vars": VARS, "compare": COMPARE, "replay": REPLAY, "value": WHOLE,
        "value-failed": FAILED, "value-late": LATE,
    }  # fmt: skip
    complaints = {}
    for name, cell in outputs.items():
        output = opened.code_cell(cell).locator(".jp-OutputArea-output").last
        output.evaluate("area => { area.id = 'looked-at'; }")
        complaints[name] = [*findings(opened.page, "#looked-at"), *weak_texts(output).items()]
        output.evaluate("area => { area.removeAttribute('id'); }")
        opened.shot(f"{name}-{theme.lower()}", output)
    assert not any(complaints.values()), {name: told for name, told in complaints.items() if told}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_report_can_be_read_by_all(opened, browser, theme):
    page = browser.new_page(color_scheme=theme, viewport={"width": 1100, "height": 900})
    page.goto((opened.face.folder / "report.html").as_uri())
    page.locator(".parrot-timeline").wait_for()
    complaints = [*findings(page, "body"), *weak_texts(page.locator("body")).items()]
    opened.shot(f"report-{theme}", page.locator("body"))
    page.close()
    assert not complaints


def test_the_page_has_no_complaints(opened):
    assert not opened.messages
