"""Lessons as a fresh clone has them: JupyterLab does not trust them, and every picture shows all the same."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import pytest
from notebook_pages import WAIT_MS, Face, NotebookPage

from parrot_nb.notebook.pictures import CLASS

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LESSON = "03_one_prompt_many_users"  # with a graph, timelines, and a picture in Markdown

NOT_DRAWN = """() => [...document.querySelectorAll('.jp-Notebook img')]
  .filter(image => !(image.complete && image.naturalWidth > 0 && image.clientWidth === image.naturalWidth)).map(image => image.alt)"""

PAPER = """async (png) => {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const canvas = Object.assign(document.createElement('canvas'), {width: image.width, height: image.height}).getContext('2d');
  canvas.drawImage(image, 0, 0);
  return [...canvas.getImageData(image.width / 2, 3, 1, 1).data].slice(0, 3);
}"""


@pytest.mark.everywhere
def test_every_picture_shows(browser: Any, face: Face) -> None:
    shutil.copytree(NOTEBOOKS, face.folder, dirs_exist_ok=True)
    opened = NotebookPage(browser, face, face.folder / f"{LESSON}.ipynb", width=1400, height=1000)
    opened.open(kernel=False)
    assert not opened.page.evaluate("window.jupyterapp.shell.currentWidget.content.model.cells.get(0).trusted")
    for cell in opened.page.locator(".jp-Notebook .jp-Cell").all():
        cell.scroll_into_view_if_needed()
    assert opened.page.locator(f".jp-Notebook img.{CLASS}").count() >= 2
    opened.page.wait_for_function(f"!({NOT_DRAWN})().length", timeout=WAIT_MS)
    assert opened.page.locator(".jp-RenderedHTML svg").count() == 0
    picture = opened.page.locator(f"img.{CLASS}").first
    for theme, dark in (("Light", False), ("Dark", True)):
        opened.theme(theme)
        picture.scroll_into_view_if_needed()
        red, green, blue = opened.page.evaluate(PAPER, base64.b64encode(picture.screenshot()).decode())
        assert (red + green + blue < 3 * 128) == dark, (theme, red, green, blue)
        opened.shot(f"untrusted-{face.name}-{theme.lower()}", opened.page)
    assert not opened.messages
    opened.page.close()
