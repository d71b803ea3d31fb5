"""An SVG as an image with its own colours, for pages that show no inline SVG or none of the page's variables to it.

JupyterLab removes the tags of inline SVG from an untrusted notebook and leaves its letters, but shows an image whose data
stands in its address. Such an image cannot read the page's variables: it is a card with a paper and colours of its own,
light or dark as the page's `color-scheme` says, and legible on any page either way.
"""

from __future__ import annotations

import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from parrot_nb.language.escaping import escape

LIGHT = (
    "--jp-layout-color0:#fff;--jp-layout-color1:#fff;--jp-ui-font-color1:#1f2328;--jp-ui-font-color2:#59636e;"
    "--jp-border-color0:#9aa3ad;--jp-border-color1:#d1d9e0;--jp-brand-color1:#1668c4;--jp-success-color1:#1a7f4b;"
    "--jp-error-color1:#c62828;--jp-warn-color1:#b45f06"
)
DARK = (
    "--jp-layout-color0:#14171b;--jp-layout-color1:#14171b;--jp-ui-font-color1:#e9edf1;--jp-ui-font-color2:#a3adb8;"
    "--jp-border-color0:#6a747f;--jp-border-color1:#3a424b;--jp-brand-color1:#6cb0ff;--jp-success-color1:#56c489;"
    "--jp-error-color1:#ff8a80;--jp-warn-color1:#f0a958"
)
COLORS = f"<style>svg{{{LIGHT}}}@media (prefers-color-scheme:dark){{svg{{{DARK}}}}}</style>"
PAPER = '<rect width="100%" height="100%" rx="6" style="fill:var(--jp-layout-color1)"/>'
CLASS = "parrot-picture"  # by it a page says which colours it takes
CHAR_PX = 7.0  # width of a letter that carries a title, about

Box = tuple[float, float, float, float]


def picture(svg: str, alt: str) -> str:
    """Return an SVG as an `<img>` of its own size, its titles as tooltips where the page takes image maps.

    Args:
        svg: well-formed, `width` and `height` in pixels on its first tag; colours may be Jupyter's variables.
        alt: what the picture shows, in words.
    """
    opening, rest = re.split(r"(?<=>)", svg, maxsplit=1)
    width, height = (float(re.search(rf' {side}="([\d.]+)"', opening)[1]) for side in ("width", "height"))  # type: ignore[index]
    drawn = re.sub(r"<title>.*?</title>", "", f"{opening}{COLORS}{PAPER}\n{rest}", flags=re.DOTALL)
    areas = "".join(
        f'<area coords="{",".join(f"{edge:.0f}" for edge in box)}" title="{escape(title)}">\n' for box, title in _titled(svg)
    )
    name = f"p{hashlib.sha256(svg.encode()).hexdigest()[:10]}"  # the same for the same picture, else not
    return (
        f'<img class="{CLASS}" alt="{escape(alt)}" width="{width:.0f}" height="{height:.0f}" decoding="sync"'
        f'{f""" usemap="#{name}" """.rstrip() if areas else ""} style="display:block;max-width:none" src="{_address(drawn)}">'
        + (f'<map name="{name}">\n{areas}</map>' if areas else "")
    )


def _address(svg: str) -> str:
    """Return an SVG as an address, a line for each of its own: a change of one line changes one line of a stored notebook."""
    lines = [line.encode() for line in f"{svg}\n".splitlines(keepends=True)]
    coded = [base64.b64encode(line[:-1] + b" " * (-len(line) % 3) + line[-1:]).decode() for line in lines]
    return "data:image/svg+xml;base64," + "\n".join(coded)


def _titled(svg: str) -> list[tuple[Box, str]]:
    """Return where a picture has titles; inner parts before the outer, since in an image map the first counts."""
    found: list[tuple[Box, str]] = []

    def visit(element: ET.Element) -> None:
        for child in element:
            visit(child)
        title = next((child.text for child in element if _local(child) == "title"), None)
        boxes = list(_boxes(element))
        if title and boxes:
            left, top, right, bottom = zip(*boxes, strict=True)
            found.append(((min(left), min(top), max(right), max(bottom)), title))

    visit(ET.fromstring(svg))  # noqa: S314 - drawn by us, with all texts escaped
    return found


def _boxes(element: ET.Element) -> Iterator[Box]:
    """Yield the boxes of what an element draws itself, or its direct children; paths have none."""
    for part in (element, *element):
        if _local(part) == "rect":
            x, y, width, height = (float(part.get(name, 0)) for name in ("x", "y", "width", "height"))
            yield x, y, x + width, y + height
        elif part is element and _local(part) == "text":
            x, y = float(part.get("x", 0)), float(part.get("y", 0))
            width = CHAR_PX * sum(len(words or "") for words in (element.text, *(child.tail for child in element)))
            left = x - width if element.get("text-anchor") == "end" else x
            yield left, y - 12, left + width, y + 4


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]
