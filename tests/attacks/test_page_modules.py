"""What the interactive graph and the prompt cells do in a page: they write texts as texts, and no other way is in their sources."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "parrot_nb" / "notebook"
SOURCES = sorted((NOTEBOOK / "widget" / "frontend" / "src").glob("*.ts"))
BUILT = [*sorted((NOTEBOOK / "widget" / "static").glob("*.js")), NOTEBOOK / "labextension" / "static" / "remoteEntry.js"]
# Ways by which a string becomes elements, script or an address. Icons alone come in as markup, each a constant.
WAYS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|parseFromString|srcdoc|setHTML|"
    r"\beval\s*\(|new Function|\bhref\b|\.src\s*=|window\.open|location\s*[.=]|\bfetch\s*\(|XMLHttpRequest|WebSocket|\bimport\s*\("
)
# What stands in a source for good: icons, and the address of a file that the page itself has made.
KNOWN = {"dom.ts": ["element.innerHTML = SHAPES[name];"], "table_file.ts": ["link.href = address;"]}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_sources_write_texts_as_texts(source):
    ways = [line.strip() for line in source.read_text(encoding="utf-8").splitlines() if WAYS.search(line)]
    assert ways == KNOWN.get(source.name, [])


@pytest.mark.parametrize("module", BUILT, ids=lambda path: path.name)
def test_what_is_shipped_has_no_other_way(module):
    others = [found for found in WAYS.findall(module.read_text(encoding="utf-8")) if found != "innerHTML"]
    assert others == (["href"] if module.name == "table.js" else [])
    assert module.read_text(encoding="utf-8").count("innerHTML") <= 1


def test_icons_are_constants():
    source = next(path for path in SOURCES if path.name == "dom.ts").read_text(encoding="utf-8")
    shapes = source[source.index("const SHAPES = {") : source.index("} as const;")]
    assert "${" not in shapes
    assert set(re.findall(r"<(\w+)", shapes)) <= {"circle", "path", "rect"}
