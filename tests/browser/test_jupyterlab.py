"""From a `%%semantic` cell to a resolved variable, as a user sees it in JupyterLab and Notebook 7."""

from __future__ import annotations

import pytest
from drawn_pictures import pictures
from notebook_pages import NotebookPage

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELLS = [
    """%load_ext parrot_nb
import parrot_nb as P""",
    """%%semantic write_code(task) -> code --max-tokens 60
You are an expert software engineer.
Write python code of {{input:task}}.
Code: {{output:code}}""",
    """%%semantic write_test(task, code) -> test
You are an experienced QA engineer. You write test code for {{input:task}}.
Code: {{input:code}}
Your test code: {{output:test, max_tokens=60}}""",
    """code = write_code("a snake game")
test = write_test("a snake game", code)
value = test.get(perf=P.LATENCY)
print("resolved:", len(value))""",
    """drafts = write_code.map(["chess", "go", "tetris", "pong", "solitaire", "poker", "bridge"])
reviews = write_test.map(["pong", "chess"], drafts[:2])
report = "Reviews:\\n" + P.join(reviews)
report""",
]


@pytest.mark.everywhere
def test_a_cell_to_a_resolved_variable(browser, face):
    opened = NotebookPage.of(browser, face, "story", CELLS, width=1360, height=1500)
    page = opened.page
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_selector("text=resolved:", timeout=120_000)
    page.wait_for_function("document.querySelectorAll('.pg').length >= 2", timeout=30_000)
    page.wait_for_function(
        "[...document.querySelectorAll('.parrot-graph')].every(g => /(^| )(\\d+) calls? · \\2 done/.test(g.querySelector('img').alt))",
        timeout=60_000,
    )
    graph = page.locator(".pg").first
    assert "write_code" in (graph.text_content() or "")
    assert "write_test" in (graph.text_content() or "")
    box = graph.bounding_box()
    assert box is not None
    assert box["width"] > 400
    page.keyboard.press("Escape")
    for theme in ("Light", "Dark"):
        opened.theme(theme)
        look = f"{face.name}-{theme.lower()}"
        opened.shot(look, page)
        opened.shot(f"{look}-dag", graph)
        opened.shot(f"{look}-map", page.locator(".pg").last)
    html = [
        "".join(output["data"]["text/html"])
        for cell in opened.saved()["cells"]
        for output in cell["outputs"]
        if "text/html" in output.get("data", {})
    ]
    assert any("write_test" in picture for text in html for picture in pictures(text)), "the saved notebook shows the graph"
    assert not opened.messages
    opened.close()
