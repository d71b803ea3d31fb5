"""What the site takes from outside `pages/`, so that nothing has to be written twice, and how prompts look on its pages."""

from __future__ import annotations

import html
import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

# Pages that are files of the repository, by their address in the site.
PAGES = {"paper-figures.md": "docs/paper-figures.md", "parrot-tiny.md": "parrot_nb/tiny/weights/README.md"}

# Where the site has what files of the repository link to.
LINKS = {
    "docs/paper-figures.md": "paper-figures.md",
    "kernels/README.md": "reference/kernels.md",
    "parrot_nb/tiny/weights/README.md": "parrot-tiny.md",
    "docs/pages/prompts.md": "prompts.md",
    "docs/pages/models.md": "models.md",
    "docs/pages/architectures.md": "architectures.md",
    "docs/pages/environments.md": "environments.md",
    "docs/pages/development.md": "development.md",
}

INCLUDE = re.compile(r"^<!-- include: (?P<path>\S+)(?: # (?P<heading>.+?))? -->$", re.MULTILINE)
TABLE = re.compile(r"^<!-- table: (?P<what>semantic|parrot|cells|workloads|lessons) -->$", re.MULTILINE)
PLACEHOLDER = re.compile(r"\\?\{\{(?:[^{}\"']|\"[^\"]*\"|'[^']*')*\}\}")


def on_config(config: MkDocsConfig) -> None:
    """Two more kinds of fence: a cell that begins with `%%semantic`, and what a cell prints."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences += [{"name": name, "class": name, "format": _fence} for name in ("semantic", "output")]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Pictures, lessons and pages that lie elsewhere in the repository."""
    for path in sorted((ROOT / "docs").glob("*.png")):
        files.append(File.generated(config, f"pictures/{path.name}", abs_src_path=str(path)))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
    for address, path in PAGES.items():
        files.append(File.generated(config, address, abs_src_path=str(ROOT / path)))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put in the sections, pictures and tables that the page names."""
    markdown = INCLUDE.sub(lambda match: _included(match["path"], match["heading"], page), markdown)
    return TABLE.sub(lambda match: TABLES[match["what"]](), markdown)


def _included(path: str, heading: str | None, page: Page) -> str:
    """A file, or what stands in it under a heading.

    Raises:
        PluginError: it has no such heading.
    """
    text = (ROOT / path).read_text(encoding="utf-8")
    if heading is not None:
        found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        if found is None:
            raise PluginError(f"{page.file.src_uri} includes '{heading}' of {path}, which has no such heading.")
        text = found[1].strip()
    for link, address in LINKS.items():
        text = text.replace(f"]({link})", f"]({'../' * page.file.src_uri.count('/')}{address})")
    return text


def _semantic_options() -> str:
    """What `%%semantic?` lists."""
    from parrot_nb.language import MAGIC_OPTIONS

    return _options(MAGIC_OPTIONS, "")


def _parrot_words() -> str:
    """What `%parrot help` lists."""
    from parrot_nb.notebook.commands import COMMANDS

    return _options(COMMANDS, "%parrot ")


def _cell_words() -> str:
    """What `%parrot help` lists of whole cells."""
    from parrot_nb.notebook.commands import CELL_COMMANDS

    return _options(CELL_COMMANDS, "%%parrot ")


def _options(words: Mapping[str, str], before: str) -> str:
    rows = []
    for word, text in words.items():
        takes, _, does = text.rpartition("  ")  # what a word takes is set off by two spaces
        written = f"{before}{word} {takes}".strip().replace("|", "\\|")
        rows.append((f"`{written}`", does))
    return _table(("you write", "what it does"), rows)


def _workloads() -> str:
    """The benchmark's applications, as their docstrings say."""
    from parrot_nb.bench.workloads import WORKLOADS

    return _table(("name", "what it is"), [(f"`{name}`", inspect.getdoc(make) or "") for name, (make, _) in WORKLOADS.items()])


def _lessons() -> str:
    """The notebooks: their titles, and the first sentences below these."""
    rows = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        title, about = "".join(cells[0]["source"]).split("\n\n")[:2]
        rows.append((path.name[:2], f"[**{title.removeprefix('# ')}**](notebooks/{path.name})<br>{about}"))
    return _table(("", "what it is about"), rows)


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"| {left} | {right} |" for left, right in (head, ("---", "---"), *rows))


TABLES = {
    "semantic": _semantic_options,
    "parrot": _parrot_words,
    "cells": _cell_words,
    "workloads": _workloads,
    "lessons": _lessons,
}


def _fence(source: str, language: str, *_: Any, **__: Any) -> str:
    """A prompt with its first line and its placeholders marked; or what was printed, as it is."""
    text = html.escape(source, quote=False)
    if language == "semantic":
        first, newline, body = text.partition("\n")
        body = PLACEHOLDER.sub(lambda match: f'<span class="{_kind(match[0])}">{match[0]}</span>', body)
        text = f'<span class="magic">{first}</span>{newline}{body}'
    return f'<div class="highlight {language}"><pre><code>{text}\n</code></pre></div>'


def _kind(placeholder: str) -> str:
    if placeholder.startswith("\\"):
        return "braces"
    return "writes" if "output:" in placeholder else "reads"
