"""From a `%%semantic` cell to a resolved variable, as a user sees it in JupyterLab."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
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


def page_on(browser, lab, theme: str, messages: list[str]):
    address, folder = lab
    name = f"story-{theme}.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}  # else JupyterLab asks which
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in CELLS], metadata=kernel), folder / name)
    page = browser.new_page(viewport={"width": 1360, "height": 1500})
    page.on("console", lambda message: messages.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(f"{address}/lab/workspaces/{theme}/tree/{name}")
    page.wait_for_function(
        "window.jupyterapp && window.jupyterapp.shell.currentWidget && window.jupyterapp.shell.currentWidget.context"
    )
    page.evaluate(
        "async () => { await window.jupyterapp.shell.currentWidget.context.ready; await window.jupyterapp.shell.currentWidget.sessionContext.ready; }"
    )
    if theme == "dark":
        page.evaluate(
            "async () => { await window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'}); }"
        )
        page.wait_for_selector("body[data-jp-theme-light='false']", state="attached")
    return page, folder / name


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_cell_to_a_resolved_variable(browser, lab, theme):
    messages: list[str] = []
    page, path = page_on(browser, lab, theme, messages)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_selector("text=resolved:", timeout=120_000)
    page.wait_for_function("document.querySelectorAll('.pg').length >= 2", timeout=30_000)
    page.wait_for_function(
        "[...document.querySelectorAll('.parrot-graph')].every(g => /(^| )(\\d+) calls? · \\2 done/.test(g.querySelector('svg').ariaLabel))",
        timeout=60_000,
    )
    graph = page.locator(".pg").first
    assert "write_code" in (graph.text_content() or "")
    assert "write_test" in (graph.text_content() or "")
    box = graph.bounding_box()
    assert box is not None
    assert box["width"] > 400
    page.keyboard.press("Escape")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"lab-{theme}.png")
    graph.screenshot(path=SCREENSHOTS / f"dag-{theme}.png")
    page.locator(".pg").last.screenshot(path=SCREENSHOTS / f"map-{theme}.png")
    page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")
    saved = json.loads(Path(path).read_text(encoding="utf-8"))
    html = [
        "".join(output["data"]["text/html"])
        for cell in saved["cells"]
        for output in cell["outputs"]
        if "text/html" in output.get("data", {})
    ]
    assert any("write_test" in text and "<svg" in text for text in html), "the saved notebook shows the graph"
    assert not [message for message in messages if "parrot" in message.lower()], messages
    page.close()
