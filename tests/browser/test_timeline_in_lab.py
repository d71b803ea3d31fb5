"""Timeline, comparison and replay in a real JupyterLab, in both themes."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
pytestmark = [pytest.mark.browser, pytest.mark.slow]

SHARED = "You are a careful assistant who answers in one short sentence and never in two, whatever the question may be. "
CELLS = [
    "%load_ext parrot_nb\nimport parrot_nb as P",
    f"%%semantic write(x) -> y --max-tokens 24 --ignore-eos\n{SHARED}Write of {{{{input:x}}}}: {{{{output:y}}}}",
    "%%semantic check(text) -> note --max-tokens 12 --ignore-eos\nCheck this: {{input:text}} Note: {{output:note}}",
    "drafts = write.map([f'city {i}' for i in range(30)])\nchecks = check.map(drafts[:3])\nwhole = write(P.join(checks))\nwhole.get() and None",
    "%parrot timeline",
    "%parrot",
    "%%parrot compare --off sharing,dedup\nvalues = write.map(['rain', 'snow', 'sun']).get()",
    "%parrot export trace.json",
    "P.replay('trace.json', speed=4)",
    "print('all', 'done')",
]

# Every text of the pictures, with the contrast of its colour to what is behind it.
CONTRAST = """() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const rgb = color => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data; };
    const light = c => { const [r, g, b] = [c[0], c[1], c[2]].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
    const behind = node => { for (let n = node; n; n = n.parentElement) { const c = rgb(getComputedStyle(n).backgroundColor); if (c[3] > 200) return c; } return [255, 255, 255]; };
    return [...document.querySelectorAll('.parrot-timeline text')].filter(t => t.textContent.trim()).map(t => {
        const [a, b] = [light(rgb(getComputedStyle(t).fill)), light(behind(t.closest('div')))].sort((x, y) => y - x);
        return [t.textContent, (a + .05) / (b + .05)];
    });
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pictures_in_a_notebook(browser, lab, theme):
    address, folder = lab
    name = f"timeline-{theme}.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=[new_code_cell(c) for c in CELLS], metadata=kernel), folder / name)
    page = browser.new_page(viewport={"width": 1360, "height": 5200})
    messages: list[str] = []
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(f"{address}/lab/workspaces/{theme}-timeline/tree/{name}")
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.context?.isReady")
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.ready; }")
    wanted = "JupyterLab Dark" if theme == "dark" else "JupyterLab Light"
    page.evaluate("async theme => { await window.jupyterapp.commands.execute('apputils:change-theme', {theme}); }", wanted)
    page.wait_for_selector(f"body[data-jp-theme-light='{'false' if theme == 'dark' else 'true'}']", state="attached")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_selector("text=all done", timeout=120_000)
    timelines = page.locator(".parrot-timeline")
    assert timelines.count() == 4, "of the session, two of the comparison, of the replay"
    assert "write ×31" in (timelines.first.text_content() or "")
    assert timelines.first.locator("svg[role=img] title").count() > 20
    assert timelines.last.locator("svg[role=img]").get_attribute("aria-label") == timelines.first.locator(
        "svg[role=img]"
    ).get_attribute("aria-label")
    frames = timelines.evaluate_all("nodes => nodes.map(n => [n.scrollWidth, n.clientWidth])")
    assert all(needed <= there for needed, there in frames), "no picture is wider than its cell"
    low = [(text, round(ratio, 1)) for text, ratio in page.evaluate(CONTRAST) if ratio < 4.5]
    assert not low, low
    page.keyboard.press("Escape")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"timeline-page-{theme}.png")
    timelines.first.screenshot(path=SCREENSHOTS / f"timeline-{theme}.png")
    page.locator(".parrot-compare").screenshot(path=SCREENSHOTS / f"compare-{theme}.png")
    assert not messages
    page.close()
