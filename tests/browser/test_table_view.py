"""The table view, as somebody with a mouse, a keyboard or a screen reader meets it in JupyterLab and Notebook 7."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from notebook_pages import WAIT_MS, Face, NotebookPage, findings, weak_texts

pytestmark = [pytest.mark.browser, pytest.mark.slow]
everywhere = pytest.mark.everywhere

CELLS = [
    "%load_ext parrot_nb\nimport parrot_nb as P, json, threading\n%config Parrot.show = 'off'",
    """%%semantic urgency(message) -> word, score
How urgent is this message? {{input:message}}
Urgency: {{output:word: "high" | "normal" | "low"}} from 1 to 9: {{output:score: int, max_tokens=4}}""",
    """texts = ["Please print the blue report right now.", "Could you clean the garden some day?", None, "=1+2", "שלום, אנא הדפס את הדוח הכחול עכשיו",
         "Paint 🦜🎨 the chair — 漂亮的椅子", "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 3]
rows = urgency.map([{"message": texts[i % len(texts)] if i < 14 else f"Message {i}: call number {i * 37 % 101}."} for i in range(60)])
rows.get() and None""",
    "rows",
    """%%semantic blunt(message) -> word
Is this important? {{input:message}} {{output:word: "high" | "normal" | "low"}}""",
    """frame = [{"message": f"{'Please' if i % 2 else 'Perhaps'} water plant {i}.", "label": ["high", "low"][i % 2]} for i in range(40)]
word = P.native_function(lambda message: "high" if "3" in message else "low", name="guess")
compared = P.compare([word, blunt], frame, "label")
compared""",
    "P.evaluate(word, frame, 'label')",
    (
        "payloads = json.load(open('payloads.json'))\nsame = P.native_function(lambda text: text, name='<img src=x onerror=__pwned=1>')\n"
        "attacked = same.map([{'text': one} for one in payloads])\nattacked.get() and None"
    ),
    "attacked",
    "gate = threading.Event()\nslow = P.native_function(lambda n: (gate.wait(60), n * n)[1], name='square')\nsquares = slow.map([{'n': n} for n in range(300)])\nsquares",
    "gate.set()\nsquares.get() and None",
    "import pandas\nP.native_function(lambda n: n, name='nothing').map(pandas.DataFrame({'n': []}))",
    (
        "import pathlib, time\n"
        "def judge(value, expected):\n    while value == 30 and not pathlib.Path('go').exists(): time.sleep(0.05)\n    return value == expected\n"
        "squares_of = P.native_function(lambda n: n, name='identity')\n"
        "P.evaluate(squares_of, [{'n': n, 'label': n // 2 * 2} for n in range(300)], 'label', metric=judge)"
    ),
    (
        "large = P.native_function(lambda n, text: text.upper(), name='large')\n"
        "many = large.map([{'n': n, 'text': f'row {n} of many, with some words in it'} for n in range(2000)])\nmany.get() and None"
    ),
    "many",
    "%config Parrot.show = 'auto'",
    (
        "from parrot_nb.notebook.grid import GridView\nasked, lost = GridView.asked, []\n"
        "def loses(view, message):\n    if message['type'] == 'csv' and not lost: lost.append(message)\n    else: asked(view, message)\n"
        "GridView.asked = loses"
    ),
]
ROWS, COMPARE, EVALUATE, ATTACKED, LIVE, FINISH, EMPTY, MEASURED, MANY, SHOW, LOSE = 3, 5, 6, 8, 9, 10, 11, 12, 14, 15, 16
PREPARED = 0, 1, 2, 4, 7, 13


@pytest.fixture(scope="module")
def opened(browser: Any, face: Face, payloads: list[str]) -> Iterator[NotebookPage]:
    (face.folder / "payloads.json").write_text(json.dumps(payloads), encoding="utf-8")
    notebook = NotebookPage.of(browser, face, f"table-{face.name}", CELLS, height=1100)
    for cell in PREPARED:
        notebook.run(cell)
    yield notebook
    notebook.close()


@pytest.fixture(scope="module")
def payloads() -> list[str]:
    """Texts that would act in a page that took them for markup."""
    from test_words_shown import PAYLOADS

    return list(PAYLOADS)


def table(notebook: NotebookPage, cell: int) -> Any:
    """The table of a cell, which has run by now."""
    found = notebook.code_cell(cell).locator(".pt")
    if not found.count():
        notebook.run(cell)
        found.wait_for(timeout=WAIT_MS)
    found.scroll_into_view_if_needed()
    return found


def column(found: Any, at: int) -> list[str]:
    """Texts of a column as they stand, top to bottom."""
    return found.evaluate(
        """(t, at) => [...t.querySelectorAll('.pt-body .pt-row:not([hidden])')]
          .sort((a, b) => a.getBoundingClientRect().y - b.getBoundingClientRect().y)
          .map((row) => row.children[at].textContent)""",
        at,
    )


@everywhere
def test_rows_can_be_read(opened: NotebookPage) -> None:
    found = table(opened, ROWS)
    found.locator(".pg-summary", has_text="60 rows").wait_for(timeout=WAIT_MS)
    assert found.locator("[role=columnheader]").all_inner_texts() == ["#", "state", "message", "word", "score"]
    assert column(found, 0)[:4] == ["0", "1", "2", "3"]
    assert column(found, 1)[2] == "failed"
    assert "argument 'message'" in column(found, 3)[2], "a row that failed says why"
    assert set(column(found, 3)[:2]) <= {"high", "normal", "low"}
    assert not opened.code_cell(ROWS).locator(".parrot-table").is_visible(), "the still table waits behind it"
    opened.shot(f"table-{opened.face.name}", found)


@everywhere
def test_a_row_tells_all_about_its_call(opened: NotebookPage) -> None:
    found = table(opened, ROWS)
    found.locator(".pt-body .pt-row", has_text="print the blue report").first.click()
    found.locator(".pg-prompt").wait_for(timeout=WAIT_MS)
    panel = found.locator(".pg-panel").inner_text()
    for said in ("urgency · row 0", "word", "score", "Prompt", "prefilled", "decode"):
        assert said in panel
    assert found.locator(".pg-prompt .pg-input").inner_text() == "Please print the blue report right now."
    assert found.locator(".pg-prompt .pg-output").first.inner_text() == column(found, 3)[0]
    found.locator(".pt-body .pt-row[data-state=failed]").first.click()
    found.locator(".pg-error", has_text="argument 'message'").wait_for(timeout=WAIT_MS)
    opened.page.keyboard.press("Escape")
    assert not found.locator(".pg-panel").is_visible()


def shows(found: Any, summary: str) -> None:
    found.locator(".pg-summary", has_text=summary).wait_for(timeout=WAIT_MS)


@everywhere
def test_rows_are_filtered_and_sorted(opened: NotebookPage) -> None:
    page, found = opened.page, table(opened, ROWS)
    shows(found, "60 rows")
    found.locator(".pt-chip[data-state=failed]").click()
    shows(found, "2 of 60 rows")
    assert column(found, 0) == ["2", "9"]
    found.locator(".pt-chip[data-state=failed]").click()
    found.get_by_label("Filter rows by text").fill("CALL NUMBER")
    shows(found, "46 of 60 rows")
    found.get_by_label("Filter rows by text").fill("no such words")
    found.locator(".pt-empty", has_text="No row matches").wait_for(timeout=WAIT_MS)
    found.get_by_label("Show all rows").click()
    shows(found, "60 rows")
    found.get_by_label("Failed rows first").click()
    page.wait_for_function("(t) => t.querySelector('.pt-body').textContent.includes('failed')", arg=found.element_handle())
    until(lambda: column(found, 0)[:3] == ["2", "9", "0"], page)
    found.get_by_label("Failed rows first").click()
    score = found.locator("[role=columnheader]", has_text="score")
    score.click()
    until(lambda: score.get_attribute("aria-sort") == "ascending" and in_order(column(found, 4)), page)
    score.click()
    until(lambda: score.get_attribute("aria-sort") == "descending" and in_order(column(found, 4)[::-1]), page)
    score.click()
    until(lambda: column(found, 0)[:3] == ["0", "1", "2"], page)


def in_order(texts: list[str]) -> bool:
    numbers = [int(text) for text in texts if text.lstrip("-").isdigit()]
    return len(numbers) > 8 and numbers == sorted(numbers)


def until(holds: Any, page: Any) -> None:
    for _ in range(WAIT_MS // 100):
        if holds():
            return
        page.wait_for_timeout(100)
    raise AssertionError("it does not come to hold")


def test_the_keyboard_reaches_everything(opened: NotebookPage) -> None:
    page, found = opened.page, table(opened, ROWS)
    current = (
        "t => document.getElementById(t.querySelector('.pt-grid').getAttribute('aria-activedescendant'))?.firstChild.textContent"
    )
    found.locator(".pt-grid").focus()
    page.keyboard.press("Home")
    for key, place in (("ArrowDown", "1"), ("End", "59"), ("ArrowUp", "58"), ("Home", "0")):
        page.keyboard.press(key)
        until(lambda place=place: found.evaluate(current) == place, page)
    page.keyboard.press("Enter")
    found.locator(".pg-panel", has_text="urgency · row 0").wait_for(timeout=WAIT_MS)
    page.keyboard.press("ArrowDown")
    found.locator(".pg-panel", has_text="urgency · row 1").wait_for(timeout=WAIT_MS)
    page.keyboard.press("Escape")
    assert not found.locator(".pg-panel").is_visible()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("() => document.activeElement.dataset.key") == "row"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    until(lambda: found.locator("[role=columnheader]").nth(2).get_attribute("aria-sort") == "ascending", page)
    assert page.evaluate("() => document.activeElement.getAttribute('aria-sort')") == "ascending", "the focus stays"
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    until(lambda: column(found, 0)[:2] == ["0", "1"], page)


def test_functions_stand_side_by_side(opened: NotebookPage) -> None:
    found = table(opened, COMPARE)
    shows(found, "40 rows")
    assert found.locator(".pt-side").all_inner_texts()[-4:] == ["guess", "guess", "blunt", "blunt"]
    assert found.locator(".pt-scores > .pt-score").count() == 2
    assert "its interval" in found.locator(".pt-measures thead").inner_text()
    (marked,) = {len(set(column(found, 4)) | set(column(found, 6))) > 1}
    assert marked, "both write several words"
    for one, other, differs in zip(column(found, 4), column(found, 6), differing(found), strict=True):
        assert differs == (one != other)
    found.get_by_label("Only rows on which the functions differ").click()
    until(lambda: differing(found) and all(differing(found)), opened.page)
    found.get_by_label("Only rows on which the functions differ").click()
    shows(found, "40 rows")


def differing(found: Any) -> list[bool]:
    """Of each row in sight, whether it is marked."""
    return found.evaluate(
        """(t) => [...t.querySelectorAll('.pt-body .pt-row:not([hidden])')]
          .sort((a, b) => a.getBoundingClientRect().y - b.getBoundingClientRect().y)
          .map((row) => row.querySelector('.pt-differs') !== null)"""
    )


def test_rows_fill_in_while_they_run(opened: NotebookPage) -> None:
    found = table(opened, LIVE)
    shows(found, "300 rows · 0 ended")
    opened.run(FINISH)
    until(lambda: found.locator(".pg-summary").inner_text() == "300 rows", opened.page)
    assert column(found, 3)[:4] == ["0", "1", "4", "9"]


def test_a_score_comes_while_it_is_measured(opened: NotebookPage) -> None:
    opened.run(SHOW)
    opened.start(MEASURED)
    found = opened.code_cell(MEASURED).locator(".pt")
    score = found.locator(".pt-scores .pt-score")
    score.filter(has_text="of 300 rows so far").wait_for(timeout=WAIT_MS)
    assert found.locator(".pt-scores b").inner_text().startswith("0.5")
    (opened.face.folder / "go").touch()  # its judge waits for it
    opened.finish()
    score.filter(has_text="· 300 rows").wait_for(timeout=WAIT_MS)
    assert found.locator(".pt-scores b").inner_text() == "0.500"
    assert all(column(found, 2)), "the result's rows are there without scrolling"
    assert opened.code_cell(MEASURED).locator(".pt").count() == 1, "the result takes the place of its measuring"


@everywhere
def test_what_is_downloaded_is_what_is_shown(opened: NotebookPage) -> None:
    found = table(opened, ROWS)
    shows(found, "60 rows")
    with opened.page.expect_download(timeout=WAIT_MS) as download:
        found.get_by_label("Download the rows shown as CSV").click()
    assert download.value.suggested_filename == "urgency.csv"
    text = download.value.path().read_bytes().decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["row"] for row in rows] == [str(i) for i in range(60)]
    assert rows[3]["message"] == "'=1+2", "no spreadsheet runs it"
    assert rows[2]["state"] == "failed"
    assert "argument 'message'" in rows[2]["error"]
    assert rows[0]["word"] == column(found, 3)[0]

    opened.run(LOSE)
    found.get_by_label("Download the rows shown as CSV").click()  # of that file a part is lost
    found.locator(".pt-busy").wait_for(timeout=WAIT_MS)
    with opened.page.expect_download(timeout=WAIT_MS) as again:
        found.get_by_label("Download the rows shown as CSV").click()
    assert again.value.path().read_bytes().decode("utf-8-sig") == text


def test_no_text_acts(opened: NotebookPage, payloads: list[str]) -> None:
    found = table(opened, ATTACKED)
    shows(found, f"{len(payloads)} rows")
    for key in ("Home", *["PageDown"] * (len(payloads) // 8)):
        found.locator(".pt-grid").press(key)
        opened.page.keyboard.press("Enter")
        opened.page.wait_for_timeout(60)
    assert found.locator(".pg-panel-name").inner_text().startswith("<img src=x onerror=__pwned=1> · row")
    opened.page.keyboard.press("Escape")
    assert opened.page.evaluate("() => window.__pwned") is None
    inside = found.evaluate("t => [...new Set([...t.querySelectorAll('*')].map((e) => e.localName))].sort()")
    assert set(inside) <= {
        "div",
        "span",
        "button",
        "input",
        "b",
        "svg",
        "circle",
        "path",
        "rect",
        "aside",
        "h4",
        "i",
        "p",
        "pre",
        "section",
        "strong",
    }


@everywhere
def test_long_tables_are_read_a_window_at_a_time(opened: NotebookPage) -> None:
    found = table(opened, MANY)
    shows(found, "2,000 rows")
    assert found.locator(".pt-body .pt-row").count() < 60
    found.locator(".pt-grid").evaluate("g => { g.scrollTop = g.scrollHeight; }")
    until(lambda: column(found, 0)[-1:] == ["1999"] and column(found, 4)[-1].startswith("ROW 1999"), opened.page)
    found.locator(".pt-grid").evaluate("g => { g.scrollTop = g.scrollHeight / 2; }")
    until(lambda: "1000" in column(found, 0), opened.page)
    assert found.locator(".pt-body .pt-row").count() < 60


@everywhere
def test_the_file_keeps_a_still_table(opened: NotebookPage) -> None:
    table(opened, ROWS)
    (output,) = opened.saved()["cells"][ROWS]["outputs"]
    html, plain = "".join(output["data"]["text/html"]), "".join(output["data"]["text/plain"])
    assert "data-parrot-view" not in html
    assert "Please print the blue report right now." in html
    assert "urgency: 60 rows" in plain
    assert "✓ 58 done, ✕ 2 failed" in plain


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_it_can_be_read_by_all(opened: NotebookPage, theme: str) -> None:
    opened.theme(theme)
    complaints = {}
    for name, cell in {"rows": ROWS, "compare": COMPARE, "evaluate": EVALUATE, "attacked": ATTACKED, "empty": EMPTY}.items():
        found = table(opened, cell)
        opened.shot(f"table-{name}-{theme.lower()}", found)
        if name in ("rows", "compare"):
            found.locator(".pt-body .pt-row").nth(1).locator(".pt-output").last.click()
            found.locator(".pg-section").first.wait_for(timeout=WAIT_MS)
            opened.shot(f"table-{name}-panel-{theme.lower()}", found)
        found.evaluate("area => { area.id = 'looked-at'; }")
        complaints[name] = [*findings(opened.page, "#looked-at"), *weak_texts(found).items()]
        found.evaluate("area => { area.removeAttribute('id'); }")
        opened.page.keyboard.press("Escape")
    assert not any(complaints.values()), {name: told for name, told in complaints.items() if told}


@everywhere
def test_the_page_has_no_complaints(opened: NotebookPage) -> None:
    assert not opened.messages
