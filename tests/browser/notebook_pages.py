"""A notebook in a browser, in JupyterLab or Notebook 7, and what a look at its page tells: contrasts, and axe's findings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from axe_playwright_python.sync_playwright import Axe
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import TimeoutError as PageTimeoutError

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
WAIT_MS = 60_000  # the machine may do other work
# What a front end complains of by itself, without anything of ours in it.
OWN_COMPLAINTS = {"notebook7": {"Cannot read properties of undefined (reading 'schema')"}}
CURRENT = "window.jupyterapp?.shell.currentWidget"

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

# The contrast of every text against what is painted behind it, by WCAG's formula. axe looks at no text of an SVG.
CONTRASTS = """(root) => {
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
  const opacity = (element) => element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1;
  const light = (colour) => {
    const [r, g, b] = colour.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = {}, walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility({visibilityProperty: true})) continue;
    if (element.closest('title')) continue;
    const style = getComputedStyle(element), below = ground(element);
    const ink = rgba(element instanceof SVGElement ? style.fill : style.color);
    ink[3] *= opacity(element);
    const [a, b] = [light(over(ink, below)), light(below)].sort((x, y) => y - x);
    const name = element.getAttribute('class') || `${element.tagName} ${walker.currentNode.textContent.trim().slice(0, 24)}`;
    found[name] = Math.min(found[name] ?? 99, (a + 0.05) / (b + 0.05));
  }
  return found;
}"""


@dataclass(frozen=True)
class Face:
    """A running Jupyter server, and the front end that one sees it by."""

    name: str  # "lab" or "notebook7"
    address: str
    folder: Path

    def url(self, path: Path) -> str:
        place = f"lab/workspaces/{path.stem}/tree" if self.name == "lab" else "notebooks"
        return f"{self.address}/{place}/{path.name}"


class NotebookPage:
    """A notebook in a page. It holds what the page complained of in `messages`."""

    def __init__(self, browser: Any, face: Face, path: Path, *, width: int = 1240, height: int = 1000) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.face = face
        self.path = path
        self.messages: list[str] = []
        self.appeared_ms: list[float] = []  # of each run that showed a graph: how long after its start
        self.cell = 0
        self.page.on("console", lambda message: self._complained(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self._complained(str(error)))

    @classmethod
    def of(cls, browser: Any, face: Face, name: str, cells: list[str], **size: int) -> NotebookPage:
        """A new notebook with these cells, open and with a kernel."""
        path = face.folder / f"{name}.ipynb"
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}  # else JupyterLab asks which
        nbformat.write(new_notebook(cells=[new_code_cell(source) for source in cells], metadata=kernel), path)
        opened = cls(browser, face, path, **size)
        opened.open()
        return opened

    def open(self, *, kernel: bool = True) -> None:
        self.page.goto(self.face.url(self.path))
        is_open = f"{CURRENT}?.context?.isReady && {CURRENT}.content.widgets.length"
        try:
            self.page.wait_for_function(is_open, timeout=WAIT_MS)
        except PageTimeoutError:  # seen once in a whole run; why is not known, and what a page shows is what is tested here
            self.page.reload()
            self.page.wait_for_function(is_open, timeout=2 * WAIT_MS)
        if kernel:
            self.page.evaluate(f"async () => {{ await {CURRENT}.sessionContext.ready; }}")

    def close(self) -> None:
        """With its kernel."""
        self.page.evaluate(f"async () => {{ await {CURRENT}.sessionContext.shutdown(); }}")
        self.page.close()

    def _complained(self, text: str) -> None:
        if text not in OWN_COMPLAINTS.get(self.face.name, ()):
            self.messages.append(text)

    def theme(self, name: str) -> None:
        """Light or Dark."""
        wanted = f"JupyterLab {name}"
        self.page.evaluate(
            "async (theme) => { await window.jupyterapp.commands.execute('apputils:change-theme', {theme}); }", wanted
        )
        self.page.wait_for_selector(f"body[data-jp-theme-name='{wanted}']", state="attached")
        self.page.wait_for_timeout(300)  # transitions of colours

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
        appeared_ms = self.page.evaluate("window.seen.appeared_ms")
        self.appeared_ms += [appeared_ms] if appeared_ms is not None else []

    def run(self, cell: int) -> None:
        self.start(cell)
        self.finish()

    def code_cell(self, cell: int) -> Any:
        return self.page.locator(".jp-CodeCell").nth(cell)

    def output(self, cell: int) -> str:
        return str(self.code_cell(cell).locator(".jp-OutputArea").text_content())

    @property
    def graph(self) -> Any:
        """That of the cell that ran last."""
        return self.code_cell(self.cell).locator(".pg")

    def summary(self, expected: str) -> None:
        self.graph.locator(".pg-summary", has_text=expected).wait_for(timeout=WAIT_MS)

    def shot(self, name: str, what: Any = None) -> None:
        """A picture of a part of the page, by default of the graph."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(200)  # transitions
        (self.graph if what is None else what).screenshot(path=SCREENSHOTS / f"{name}.png")

    def saved(self) -> dict[str, Any]:
        self.page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")
        return dict(json.loads(self.path.read_text(encoding="utf-8")))


def weak_texts(part: Any) -> dict[str, float]:
    """Texts inside a part of a page with less than 4.5 to 1, and what they have."""
    return {text: round(ratio, 2) for text, ratio in part.evaluate(CONTRASTS).items() if ratio < 4.5}


def findings(page: Any, selector: str) -> list[str]:
    """What axe calls serious or critical inside all that match a selector."""
    assert page.locator(selector).count(), f"nothing on the page is {selector}"
    found = Axe().run(page, selector, {"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {rule['help']}: {[(node['target'], node['html'][:160]) for node in rule['nodes'][:3]]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]
