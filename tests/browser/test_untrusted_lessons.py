"""Lessons as a fresh clone has them: JupyterLab does not trust them, and every picture shows all the same."""

from __future__ import annotations

import base64
import html
import re
import shutil
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from notebook_pages import CURRENT, WAIT_MS, Face, NotebookPage, findings, weak_texts

from parrot_nb.lessons import lesson
from parrot_nb.notebook.pictures import CLASS

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LESSON = "03_one_prompt_many_users"  # with a graph, timelines, and a picture in Markdown

# The front end draws cells when they come into sight.
DRAWN = f"""(i) => {{
  {CURRENT}.content.widgets[i].node.scrollIntoView();
  return [...document.querySelectorAll('.jp-Notebook img')]
    .filter(image => image.complete && image.naturalWidth > 0 && image.clientWidth === image.naturalWidth).map(image => image.alt);
}}"""

PAPER = """async (png) => {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const canvas = Object.assign(document.createElement('canvas'), {width: image.width, height: image.height}).getContext('2d');
  canvas.drawImage(image, 0, 0);
  return [...canvas.getImageData(image.width / 2, 3, 1, 1).data].slice(0, 3);
}"""


def stored_pictures() -> set[str]:
    """Alternative texts of all pictures in the lesson, outputs and Markdown."""
    cells = nbformat.read(NOTEBOOKS / f"{LESSON}.ipynb", 4).cells
    outputs = [output.get("data", {}).get("text/html", "") for cell in cells for output in cell.get("outputs", [])]
    found = [html.unescape(alt) for text in outputs for alt in re.findall(rf'<img class="{CLASS}" alt="([^"]*)"', text)]
    return {
        *found,
        *(alt for cell in cells if cell.cell_type == "markdown" for alt in re.findall(r"!\[([^\]]*)\]\(", cell.source)),
    }


@pytest.mark.everywhere
def test_every_picture_shows(browser: Any, face: Face) -> None:
    shutil.copytree(NOTEBOOKS, face.folder, dirs_exist_ok=True)
    opened = NotebookPage(browser, face, face.folder / f"{LESSON}.ipynb", width=1400, height=1000)
    opened.open(kernel=False)
    assert not opened.page.evaluate("window.jupyterapp.shell.currentWidget.content.model.cells.get(0).trusted")
    wanted, drawn, until_s = stored_pictures(), set(), time.monotonic() + WAIT_MS / 1000
    assert len(wanted) >= 3
    while not wanted <= drawn:
        for i in range(opened.page.evaluate(f"{CURRENT}.content.widgets.length")):
            drawn |= set(opened.page.evaluate(DRAWN, i))
            opened.page.wait_for_timeout(50)
        assert time.monotonic() < until_s, f"not drawn: {wanted - drawn}"
    assert opened.page.locator(".jp-RenderedHTML svg").count() == 0
    picture = opened.page.locator(f"img.{CLASS}").first
    for theme, dark in (("Light", False), ("Dark", True)):
        opened.theme(theme)
        picture.scroll_into_view_if_needed()
        red, green, blue = opened.page.evaluate(PAPER, base64.b64encode(picture.screenshot()).decode())
        assert (red + green + blue < 3 * 128) == dark, (theme, red, green, blue)
        opened.shot(f"untrusted-{face.name}-{theme.lower()}", opened.page)
    the_quiz_opens_by_keyboard(opened)
    assert not opened.messages
    opened.page.close()


def the_quiz_opens_by_keyboard(opened: NotebookPage) -> None:
    """Without trust and without a kernel: a reason behind each choice, legible in both themes and on a narrow page."""
    quiz = lesson(3)
    box = opened.page.locator(".parrot-lesson").last
    opened.page.evaluate(f"{CURRENT}.content.widgets.at(-1).node.scrollIntoView()")
    box.scroll_into_view_if_needed()
    right = quiz.questions[0].letters.index(quiz.questions[0].right)
    choice, wrong = box.locator("details").nth(right), box.locator("details").nth(right + 1)
    assert not choice.get_by_text(quiz.questions[0].because[right]).is_visible()
    choice.locator("summary").focus()
    opened.page.keyboard.press("Enter")
    choice.get_by_text(f"Right. {plain(quiz.questions[0].because[right])}").wait_for(state="visible", timeout=WAIT_MS)
    wrong.locator("summary").click()
    wrong.get_by_text("Not right.").wait_for(state="visible", timeout=WAIT_MS)
    for theme in ("Light", "Dark"):
        opened.theme(theme)
        assert not findings(opened.page, ".parrot-lesson")
        assert not weak_texts(box)
        opened.shot(f"quiz-{opened.face.name}-{theme.lower()}", box)
    narrow = {"lab": 700, "notebook7": 360}[
        opened.face.name
    ]  # zoomed to 200 %; a phone, whose page JupyterLab's side bars would fill
    opened.page.set_viewport_size({"width": narrow, "height": 800})
    opened.shot(f"quiz-{opened.face.name}-narrow", box)
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth + 1")


def plain(text: str) -> str:
    """Text without the marks of code."""
    return text.replace("`", "")
