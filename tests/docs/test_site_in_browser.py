"""The site as a browser shows it: from its own files alone, in both schemes, within the page, and with a search that finds."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.browser

# Which of the pictures that are there twice can be seen.
SHOWN = """[...document.querySelectorAll("img[src$='#only-light'], img[src$='#only-dark']")]
    .filter(picture => picture.checkVisibility()).map(picture => picture.src.split('#only-')[1])"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_pages_stay_at_home_and_within_the_window(browser, address, pages):
    context = browser.new_context(color_scheme="light", reduced_motion="reduce")
    page = context.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    for name in pages:
        if name == "404.html":  # links from the root of wherever it will lie
            continue
        page.goto(f"{address}/{name}", wait_until="load")
        assert page.locator("h1").first.is_visible(), name
        for width in (1360, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the window"
    assert [url for url in asked if not url.startswith(address) and not url.startswith("data:")] == []
    assert said == []
    context.close()


def test_pictures_go_with_the_scheme(browser, address):
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        for name in ("index", "watching"):
            page.goto(f"{address}/{name}.html")
            assert page.evaluate(SHOWN) == [scheme]
        page.close()


def test_the_way_of_a_prompt_is_drawn_within_its_boxes(browser, address):
    page = browser.new_page(viewport={"width": 1360, "height": 900})
    page.goto(f"{address}/architecture.html")
    texts = page.locator("svg.way .box text").evaluate_all(
        """texts => texts.map(text => {
            let box = text.previousElementSibling
            while (box.tagName !== 'rect') box = box.previousElementSibling
            return [text.textContent, text.getBBox().x + text.getBBox().width, box.getBBox().x + box.getBBox().width]
        })"""
    )
    assert len(texts) > 30
    assert [words for words, end, edge in texts if end > edge] == []
    page.close()


def test_the_search_finds(browser, address):
    page = browser.new_page(viewport={"width": 1360, "height": 900})
    page.goto(f"{address}/index.html")
    page.locator("input.md-search__input").click()
    page.get_by_text("Type to start searching").wait_for(timeout=10_000)  # its index is there
    page.locator("input.md-search__input").press_sequentially("task group", delay=50)
    page.locator("a.md-search-result__link").first.wait_for(timeout=10_000)
    assert page.locator("a.md-search-result__link").count() > 1
    page.close()
