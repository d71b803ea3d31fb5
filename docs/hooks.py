"""What the site takes from outside `pages/`, so that nothing has to be written twice, and how prompts look on its pages."""

from __future__ import annotations

import html
import re
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
}

INCLUDE = re.compile(r"^<!-- include: (?P<path>\S+)(?: # (?P<heading>.+?))? -->$", re.MULTILINE)
MAGICS = re.compile(r"^<!-- magics: (?P<what>semantic|parrot|cells) -->$", re.MULTILINE)
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
    return MAGICS.sub(lambda match: _magics(match["what"]), markdown)


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


def _magics(what: str) -> str:
    """The tables that `%%semantic?` and `%parrot help` print."""
    from parrot_nb.language import MAGIC_OPTIONS
    from parrot_nb.notebook.commands import CELL_COMMANDS, COMMANDS

    table, mark = {"semantic": (MAGIC_OPTIONS, ""), "parrot": (COMMANDS, "%parrot "), "cells": (CELL_COMMANDS, "%%parrot ")}[what]
    rows = []
    for name, text in table.items():
        # What a word takes is set off from what it does by two spaces.
        takes, _, does = text.rpartition("  ")
        rows.append(f"| `{' '.join(f'{mark}{name} {takes}'.split())}` | {does} |".replace("[auto|on|off]", "[auto\\|on\\|off]"))
    return "\n".join(["| you write | what it does |", "|---|---|", *rows])


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
