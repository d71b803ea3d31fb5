"""The documentation builds without a warning, its links lead somewhere, every public name is in it, and it fetches nothing."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import parrot_nb as P

ROOT = Path(__file__).parents[2]
PAGES = {
    "index.html",
    "prompts.html",
    "types.html",
    "tables.html",
    "watching.html",
    "results.html",
    "models.html",
    "promises.html",
    "lessons.html",
    "teaching.html",
    "reading-the-paper.html",
    "environments.html",
    "benchmark.html",
    "paper-figures.html",
    "parrot-tiny.html",
    "architectures.html",
    "architecture.html",
    "development.html",
    "reference/index.html",
    "reference/writing.html",
    "reference/tables.html",
    "reference/session.html",
    "reference/errors.html",
    "reference/magics.html",
    "reference/engine.html",
    "reference/scheduling.html",
    "reference/kernels.html",
}
# Deeper names that a reader of the reference relies on.
DEEPER = [
    "parrot_nb.engine.protocol.Engine",
    "parrot_nb.engine.protocol.Engine.fill",
    "parrot_nb.engine.protocol.Engine.generate",
    "parrot_nb.engine.codec.Codec",
    "parrot_nb.engine.embedded.load_engine",
    "parrot_nb.runtime.policies.Parrot",
    "parrot_nb.runtime.simulate.simulate",
    "parrot_nb.runtime.synthetic.map_reduce",
    "parrot_nb.runtime.recorded.recorded",
]
# What a browser loads by itself, as far as a page names it.
LOADS = {
    "script": "src", "img": "src", "source": "src", "iframe": "src", "embed": "src", "audio": "src", "video": "src",
    "object": "data", "link": "href", "use": "href", "image": "href",
}  # fmt: skip
# Addresses in the theme's script that are fetched only on pages that have diagrams of another kind or name a repository, or by
# browsers too old to watch sizes.
OF_THE_THEME = (
    "https://unpkg.com/mermaid@11/dist/mermaid.min.js",
    "https://api.github.com/repos/",
    "https://api.github.com/users/",
    "https://${e}/api/v4/projects/",
    "https://unpkg.com/resize-observer-polyfill",
)
NAMES_ONLY = ("http://www.w3.org/",)  # a namespace is a name and no address


def test_it_builds_without_a_warning(build):
    _, done = build
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr + done.stdout


def test_the_pages_are_these(pages):
    assert set(pages) - {"404.html"} == PAGES


def test_links_lead_to_something_in_the_site(site, pages):
    broken = []
    for address, page in pages.items():
        for tag, attributes in page.tags:
            link = urlsplit(attributes.get(LOADS.get(tag, "href"), ""))
            if link.scheme or link.netloc or not (link.path or link.fragment) or address == "404.html":
                continue
            target = (site / address).parent / unquote(link.path) if link.path else site / address
            found = pages.get(target.resolve().relative_to(site.resolve()).as_posix())
            if not target.is_file() or (link.fragment and found is not None and unquote(link.fragment) not in found.ids):
                broken.append(f"{address}: {link.geturl()}")
    assert not [link for link in broken if "__" not in link]  # __name is for scripts of the theme


@pytest.mark.parametrize("name", P.__all__)
def test_every_public_name_is_in_the_reference(pages, name):
    value = getattr(P, name)
    paths = {f"parrot_nb.{name}", f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"}
    told = [text for page in pages.values() for path, text in page.described.items() if path in paths]
    assert len(told) == 1, f"{name} is there {len(told)} times"
    assert told[0].strip(), f"{name} has no words"
    if inspect.isclass(value) or inspect.isfunction(value):
        assert plain(told[0]).startswith(plain((inspect.getdoc(value) or "").split("\n\n")[0])[:40])


def plain(text: str) -> str:
    return " ".join(text.replace("`", "").replace("*", "").split())


def test_so_are_the_engine_protocol_the_policies_and_the_kernels(pages):
    described = {path: text for page in pages.values() for path, text in page.described.items()}
    kernels = re.findall(r'^    "(\w+)",$', (ROOT / "kernels/parrot_kernels/__init__.py").read_text(), re.MULTILINE)
    assert len(kernels) > 10
    missing = [path for path in DEEPER if not described.get(path, "").strip()]
    missing += [
        name
        for name in kernels
        if not any(path.startswith("parrot_kernels.") and path.endswith(f".{name}") for path in described)
    ]
    assert not missing


def test_what_belongs_to_a_session_is_there_by_name(pages):
    written = pages["reference/session.html"].described
    for name in ("load_model", "models", "loads", "cancel", "reset", "close"):
        assert written[f"parrot_nb.Session.{name}"].strip()


def test_nothing_is_fetched_from_elsewhere(site, pages):
    found = [
        f"{address}: <{tag}> {attributes[LOADS[tag]]}"
        for address, page in pages.items()
        for tag, attributes in page.tags
        if tag in LOADS and is_elsewhere(attributes.get(LOADS[tag], ""))
    ]
    for path in site.rglob("*.css"):
        loads = re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)", path.read_text(encoding="utf-8"))
        found += [f"{path.name}: {address}" for address in loads if is_elsewhere(address)]
    assert not found


def test_the_scripts_know_no_address_that_these_pages_would_need(site, pages):
    known = {
        address
        for path in site.rglob("*.js")
        for address in re.findall(r"[\"'`](https?://[^\"'`\s]+)", path.read_text(encoding="utf-8"))
        if not address.startswith(NAMES_ONLY)
    }
    assert [address for address in known if not address.startswith(OF_THE_THEME)] == []
    classes = {name for page in pages.values() for _, attributes in page.tags for name in attributes.get("class", "").split()}
    assert not classes & {"mermaid", "md-source"}


def is_elsewhere(address: str) -> bool:
    return bool(urlsplit(address).netloc)


def test_figures_are_the_readmes(pages):
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## How fast it is\n")[1].split("\n## ")[0]
    rows = [row for row in section.splitlines() if row.startswith("| ")]
    assert len(rows) == 5
    for row in rows:
        assert plain(" ".join(cell for cell in row.split("|"))) in pages["benchmark.html"].text


def test_what_can_be_turned_off_is_what_the_program_knows():
    from parrot_nb.notebook.commands import known_names

    table = (ROOT / "docs/pages/benchmark.md").read_text(encoding="utf-8").split("## What can be turned off")[1].split("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == sorted(known_names())


def test_files_that_the_architecture_names_are_there():
    named = re.findall(
        r"`((?:tests|parrot_nb|kernels)/[\w/.]*)`", (ROOT / "docs/pages/architecture.md").read_text(encoding="utf-8")
    )
    assert len(named) > 15
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_all_lessons_and_pictures_are_in_it(site):
    assert {path.name for path in (ROOT / "notebooks").glob("*.ipynb")} == {path.name for path in (site / "notebooks").iterdir()}
    assert {path.name for path in (ROOT / "docs").glob("*.png")} == {path.name for path in (site / "pictures").iterdir()}
