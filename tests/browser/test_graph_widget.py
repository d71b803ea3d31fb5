"""The interactive graph, as somebody with a mouse, a keyboard or a screen reader meets it in JupyterLab."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
pytestmark = [pytest.mark.browser, pytest.mark.slow]
WAIT_MS = 20_000

CELLS = [
    "%load_ext parrot_nb\nimport parrot_nb as P",
    """%%semantic summarize(part) -> summary --max-tokens 150
You summarise minutes of meetings.
Minutes: {{input:part}}
Summary: {{output:summary, ignore_eos=True}}""",
    """%%semantic combine(summaries) -> whole --max-tokens 400
Combine these summaries into one.
{{input:summaries}}
All in all: {{output:whole, ignore_eos=True}}""",
    """minutes = [f"Part {i}: Ana will write the report by day {i}." for i in range(4)]
whole = combine(summarize.map(minutes))
value = whole.get(perf=P.LATENCY, timeout=60)""",
    """late = P.variable(name="late")
stuck = combine(late)
other = summarize("something else")
stuck.get(timeout=120)""",
    """stuck = combine(late)
stuck.get(timeout=120)""",
    """@P.native_function
def shortest(texts):
    raise ValueError("no text is short enough")

picked = shortest(summarize.map(minutes[:2]))
final = combine("Picked: " + picked)
final.get(timeout=60)""",
    """many = summarize.options(max_tokens=12).map([f"Part {i}: Ben will call." for i in range(40)])
many.get(timeout=120);""",
    """crowd = summarize.map([f"Part {i}: Dora will send {i} copies." for i in range(500)])
crowd.get(timeout=120);""",
]
MAP_REDUCE, STUCK, STUCK_AGAIN, FAILING, MANY, CROWD = 3, 4, 5, 6, 7, 8

# Notes what a graph goes through, since a fast run may be over before a test looks.
WATCH = """() => {
  const seen = window.seen = {states: new Set(), texts: new Set(), flowing: false, appeared_ms: null, running: null};
  const start = performance.now(), before = document.querySelectorAll('.pg').length;
  new MutationObserver(() => {
    const graphs = document.querySelectorAll('.pg');
    if (graphs.length > before && seen.appeared_ms === null) {
      seen.appeared_ms = performance.now() - start;
      seen.running = graphs[graphs.length - 1].closest('.jp-Cell').querySelector('.jp-InputPrompt').textContent.includes('*');
    }
    const last = graphs[graphs.length - 1];
    for (const node of last ? last.querySelectorAll('.pg-node') : []) {
      seen.states.add(node.dataset.state);
      const text = node.querySelector('.pg-writing .pg-text');
      if (text && node.textContent.includes('combine')) seen.texts.add(text.textContent);
    }
    seen.flowing ||= Boolean(last && last.querySelector('.pg-flow.pg-on'));
  }).observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
}"""

# Frames that the page draws in a while, by the second.
FRAMES = """async (ms) => {
  const start = performance.now();
  for (let frames = 0; ; frames++) {
    const now = await new Promise(requestAnimationFrame);
    if (now - start > ms) return frames * 1000 / (now - start);
  }
}"""

# The contrast of every text in a graph against what is painted behind it; by WCAG's formula.
CONTRASTS = """(graph) => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return a ? [r, g, b, a / 255] : [0, 0, 0, 0];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const ground = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const layer = rgba(getComputedStyle(e).backgroundColor);
      layers.push(layer);
      if (layer[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = {}, walker = document.createTreeWalker(graph, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility({visibilityProperty: true})) continue;
    const style = getComputedStyle(element), below = ground(element);
    const ink = over(rgba(element instanceof SVGElement ? style.fill : style.color), below);
    const [a, b] = [light(ink), light(below)].sort((x, y) => y - x);
    const name = element.getAttribute('class') || element.tagName;
    found[name] = Math.min(found[name] ?? 99, (a + 0.05) / (b + 0.05));
  }
  return found;
}"""


class Lab:
    """A notebook in a page."""

    def __init__(self, page: Any, path: Path) -> None:
        self.page = page
        self.path = path
        self.messages: list[str] = []
        self.cell = 0
        page.on("console", lambda message: self.messages.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.messages.append(str(error)))

    def open(self, address: str, *, kernel: bool = True) -> None:
        self.page.goto(f"{address}/lab/workspaces/{self.path.stem}/tree/{self.path.name}")
        widget = "window.jupyterapp && window.jupyterapp.shell.currentWidget"
        self.page.wait_for_function(f"{widget} && {widget.split(' && ')[1]}.context", timeout=WAIT_MS)
        self.page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.context.ready; }")
        if kernel:
            self.page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.ready; }")

    def theme(self, name: str) -> None:
        self.page.evaluate(
            "async (theme) => { await window.jupyterapp.commands.execute('apputils:change-theme', {theme}); }",
            f"JupyterLab {name}",
        )
        self.page.wait_for_selector(f"body[data-jp-theme-name='JupyterLab {name}']", state="attached")

    def start(self, cell: int) -> None:
        """Run a cell without waiting for it."""
        self.cell = cell
        self.page.evaluate(WATCH)
        self.page.evaluate(
            """(cell) => {
              window.jupyterapp.shell.currentWidget.content.activeCellIndex = cell;
              window.ended = window.jupyterapp.commands.execute('notebook:run-cell');
            }""",
            cell,
        )

    def finish(self) -> None:
        self.page.evaluate("async () => { await window.ended; }")

    def run(self, cell: int) -> None:
        self.start(cell)
        self.finish()

    def output(self, cell: int) -> str:
        return str(self.page.locator(".jp-CodeCell").nth(cell).locator(".jp-OutputArea").text_content())

    @property
    def graph(self) -> Any:
        """That of the cell that ran last."""
        return self.page.locator(".jp-CodeCell").nth(self.cell).locator(".pg")

    def summary(self, expected: str) -> None:
        self.graph.locator(".pg-summary", has_text=expected).wait_for(timeout=WAIT_MS)

    def shot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(300)  # transitions
        self.graph.screenshot(path=SCREENSHOTS / f"{name}.png")

    def saved(self) -> dict[str, Any]:
        self.page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")
        return dict(json.loads(self.path.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def opened(browser: Any, lab: tuple[str, Path]) -> Iterator[Lab]:
    address, folder = lab
    path = folder / "graph.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in CELLS], metadata=kernel), path)
    notebook = Lab(browser.new_page(viewport={"width": 1240, "height": 1000}), path)
    notebook.open(address)
    for cell in range(MAP_REDUCE):
        notebook.run(cell)
    yield notebook
    notebook.page.close()


@pytest.fixture
def map_reduce(opened: Lab) -> Lab:
    """With the map-reduce run, once."""
    if opened.page.locator(".pg").count() == 0:
        opened.run(MAP_REDUCE)
    return opened


def test_a_run_can_be_watched(opened: Lab) -> None:
    opened.run(MAP_REDUCE)
    opened.summary("6 of 6 calls done")
    seen = opened.page.evaluate("() => ({...seen, states: [...seen.states], texts: seen.texts.size})")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    (SCREENSHOTS / "appeared.txt").write_text(f"The graph appeared {seen['appeared_ms']:.0f} ms after the cell's start.\n")
    assert seen["running"], "the graph is there before the run ends"
    assert {"pending", "running", "done"} <= set(seen["states"])
    assert seen["texts"] > 1, "the value is seen as it is written"
    assert seen["flowing"], "an edge whose source is being written flows"
    assert opened.graph.locator(".pg-group").inner_text() == "task group of 4"
    assert opened.graph.locator(".pg-node").count() == 6
    tops = opened.graph.evaluate("g => [...g.querySelectorAll('.pg-card')].slice(0, 4).map((n) => n.getBoundingClientRect().y)")
    assert tops == sorted(tops), "calls that are alike stand in their order"
    assert not opened.page.locator(".parrot-graph").first.is_visible(), "the still picture waits behind it"


def test_a_node_tells_all_about_its_call(map_reduce: Lab) -> None:
    graph = map_reduce.graph
    graph.locator(".pg-node", has_text="summarize").first.click()
    graph.locator(".pg-prompt").wait_for(timeout=WAIT_MS)
    panel = graph.locator(".pg-panel").inner_text()
    for said in ("shared with 3 other calls", "Objective", "LATENCY", "Task group", "prefilled", "decode"):
        assert said in panel
    assert graph.locator(".pg-prompt .pg-input").inner_text().startswith("Part 0: Ana")
    assert graph.locator(".pg-prompt .pg-shared").first.inner_text().startswith("You summarise minutes")
    assert len(graph.locator(".pg-prompt .pg-output").inner_text()) > 20
    map_reduce.shot("widget-panel")
    graph.get_by_label("Close the details").click()
    assert not graph.locator(".pg-panel").is_visible()


def test_an_edge_tells_of_its_variable(map_reduce: Lab) -> None:
    map_reduce.page.keyboard.press("Escape")
    hit = map_reduce.graph.locator(".pg-hit").last.bounding_box()
    assert hit is not None
    map_reduce.page.mouse.move(hit["x"] + hit["width"] / 2, hit["y"] + hit["height"] / 2)
    tooltip = map_reduce.graph.locator(".pg-tooltip")
    tooltip.wait_for(timeout=WAIT_MS)
    assert "text done" in tooltip.inner_text()


def test_the_keyboard_reaches_everything(map_reduce: Lab) -> None:
    page, graph = map_reduce.page, map_reduce.graph
    assert graph.locator(".pg-node[tabindex='0']").count() == 1
    graph.locator(".pg-node[tabindex='0']").focus()

    def here() -> str:
        return str(page.evaluate("document.activeElement.getAttribute('aria-label')"))

    first = page.evaluate("document.activeElement.dataset.key")
    for key, expected in (("ArrowRight", "join"), ("ArrowRight", "combine"), ("ArrowLeft", "join"), ("ArrowLeft", "summarize")):
        page.keyboard.press(key)
        assert here().startswith(expected)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert here().startswith("summarize")
    page.keyboard.press("Enter")
    graph.locator(".pg-prompt").wait_for(timeout=WAIT_MS)
    page.keyboard.press("Escape")
    assert not graph.locator(".pg-panel").is_visible()
    assert here().startswith("summarize"), "the focus is back where it was"
    assert page.evaluate("document.activeElement.closest('.pg') !== null")
    assert first
    page.wait_for_function("document.querySelector('.pg [role=status]').textContent === '6 of 6 calls done'", timeout=WAIT_MS)


def test_zoom_and_pan(map_reduce: Lab) -> None:
    page, graph = map_reduce.page, map_reduce.graph

    def camera() -> str:
        return str(graph.locator(".pg-stage").evaluate("stage => stage.style.transform"))

    at_first = camera()
    graph.get_by_label("Zoom in").click()
    nearer = camera()
    frame = graph.locator(".pg-frame").bounding_box()
    assert frame is not None
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] - 20
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y - 30, steps=4)
    page.mouse.up()
    assert len({at_first, nearer, camera()}) == 3
    assert not graph.locator(".pg-panel").is_visible(), "a drag opens nothing"
    graph.get_by_label("Fit the whole graph").click()
    assert camera() == at_first
    graph.locator(".pg-node[tabindex='0']").focus()
    page.keyboard.press("+")
    assert camera() != at_first
    page.keyboard.press("0")
    assert camera() == at_first


def test_a_call_can_be_cancelled_while_its_cell_waits(map_reduce: Lab) -> None:
    opened = map_reduce
    opened.start(STUCK)
    opened.graph.locator(".pg-node", has_text="combine").click()
    opened.graph.locator(".pg-prompt").wait_for(timeout=WAIT_MS)  # answered though the cell blocks
    opened.graph.get_by_label("Cancel this call").click()
    opened.finish()
    assert "CallCancelledError" in opened.output(STUCK)
    opened.summary("1 of 2 calls done · 1 cancelled")

    opened.start(STUCK_AGAIN)
    opened.graph.get_by_label("Cancel all").click()
    opened.finish()
    assert "CallCancelledError" in opened.output(STUCK_AGAIN)


def test_a_failure_shows_its_cause(map_reduce: Lab) -> None:
    map_reduce.run(FAILING)
    map_reduce.summary("failed")
    map_reduce.graph.locator(".pg-node", has_text="shortest").first.click()
    error = map_reduce.graph.locator(".pg-error")
    error.wait_for(timeout=WAIT_MS)
    assert "ValueError: no text is short enough" in error.inner_text()
    map_reduce.shot("widget-failed")


def test_a_stack_opens_and_closes(map_reduce: Lab) -> None:
    opened = map_reduce
    opened.run(MANY)
    opened.summary("40 of 40 calls done")
    assert opened.graph.locator(".pg-node").count() == 1
    assert "×40" in opened.graph.locator(".pg-stack").inner_text()
    opened.graph.locator(".pg-stack").click()
    assert opened.graph.locator(".pg-mini").count() == 40
    assert opened.graph.locator(".pg-open-head").inner_text() == "summarize ×40 · 40 done"
    opened.shot("widget-open-stack")
    opened.graph.get_by_label("Stack the calls of summarize").click()
    assert opened.graph.locator(".pg-node").count() == 1


def test_500_nodes_that_are_being_written_stay_fluent(map_reduce: Lab) -> None:
    opened, frames = map_reduce, {}
    opened.start(CROWD)
    opened.graph.locator(".pg-stack").click(timeout=WAIT_MS)
    assert opened.graph.locator(".pg-mini").count() == 500
    opened.graph.locator(".pg-mini[data-state='running']").first.wait_for(timeout=WAIT_MS)
    frames["all 500 in sight"] = opened.page.evaluate(FRAMES, 1500)
    for _ in range(4):
        opened.graph.get_by_label("Zoom in").click()
    opened.page.wait_for_timeout(400)
    frames["texts in sight"] = opened.page.evaluate(FRAMES, 1500)
    figures = ", ".join(f"{where}: {count:.0f}" for where, count in frames.items())
    (SCREENSHOTS / "frames.txt").write_text(f"Frames a second while 500 calls run: {figures}.\n")
    opened.shot("widget-500")
    opened.graph.get_by_label("Cancel all").click()
    opened.finish()
    opened.summary("cancelled")
    assert min(frames.values()) > 10, f"{figures}: far from the 30 that it should be, even on a busy machine"


@pytest.mark.parametrize("theme", ["Dark", "Light"])
def test_all_text_can_be_read(map_reduce: Lab, theme: str) -> None:
    opened = map_reduce
    opened.theme(theme)
    opened.run(FAILING)
    opened.summary("failed")
    for name in ("shortest", "summarize"):
        opened.graph.locator(".pg-node", has_text=name).first.click()
        opened.graph.locator(".pg-prompt" if name == "summarize" else ".pg-error").wait_for(timeout=WAIT_MS)
        opened.page.wait_for_timeout(250)  # transitions of colours
        contrasts = opened.graph.evaluate(CONTRASTS)
        assert {"pg-name", "pg-text", "pg-summary", "pg-why"} <= {key.split()[0] for key in contrasts}
        weak = {key: round(value, 2) for key, value in contrasts.items() if value < 4.5}
        assert not weak, f"{theme}, {name}: under 4.5 to 1: {weak}"
    opened.shot(f"widget-{theme.lower()}")


def test_what_is_saved_shows_the_graph_without_a_kernel(map_reduce: Lab, browser: Any, lab: tuple[str, Path]) -> None:
    saved = map_reduce.saved()
    assert "widgets" not in saved["metadata"]
    outputs = [output["data"] for cell in saved["cells"] for output in cell["outputs"] if "data" in output]
    assert all(set(data) == {"text/html", "text/plain"} for data in outputs)
    pictures = ["".join(data["text/html"]) for data in outputs]
    assert "6 calls · 6 done" in pictures[0]
    assert not any("data-parrot-view" in picture for picture in pictures), "nothing that differs from run to run"

    reopened = Lab(browser.new_page(viewport={"width": 1240, "height": 1000}), map_reduce.path)
    reopened.page.route(re.compile(r"/api/(sessions|kernels)"), lambda route: route.abort())
    reopened.open(lab[0], kernel=False)
    reopened.page.locator(".parrot-graph svg").first.wait_for(timeout=WAIT_MS)
    assert "combine" in str(reopened.page.locator(".parrot-graph").first.text_content())
    assert "model not found" not in str(reopened.page.locator(".jp-Notebook").text_content())
    reopened.page.close()


def test_the_page_has_no_complaints(map_reduce: Lab) -> None:
    assert not map_reduce.messages
