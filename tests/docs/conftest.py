"""The site, built once, and what its pages hold."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])


@dataclass
class Built:
    """A page.

    Attributes:
        tags: every tag with its attributes.
        ids: what can be linked to.
        described: of each documented name, the first paragraph below its heading.
        text: all words, white space as single blanks.
    """

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    described: dict[str, str] = field(default_factory=dict)
    text: str = ""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Built()
        self._name: str | None = None  # documented, and its first paragraph is still to come
        self._in_paragraph = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.page.tags.append((tag, attributes))
        if "id" in attributes:
            self.page.ids.add(attributes["id"])
        classes = attributes.get("class", "").split()
        if "doc-heading" in classes and "id" in attributes:
            self._name = attributes["id"]
            self.page.described[self._name] = ""
        self._in_paragraph = self._in_paragraph or (tag == "p" and self._name is not None and "doc-class-bases" not in classes)

    def handle_endtag(self, tag: str) -> None:
        if tag == "p" and self._in_paragraph:
            self._in_paragraph, self._name = False, None

    def handle_data(self, data: str) -> None:
        self.page.text += data
        if self._in_paragraph and self._name is not None:
            self.page.described[self._name] += data


def read(path: Path) -> Built:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.page.text = " ".join(reader.page.text.split())
    return reader.page


@pytest.fixture(scope="session")
def build(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of the site, and how building it went."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "docs/mkdocs.yml", "-d", str(folder)]
    environment = {**os.environ, "PYTHONPATH": PATHS, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    return folder, done


@pytest.fixture(scope="session")
def site(build) -> Path:
    folder, done = build
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def pages(site) -> Iterator[dict[str, Built]]:
    """Every page by its address."""
    return {path.relative_to(site).as_posix(): read(path) for path in sorted(site.rglob("*.html"))}
