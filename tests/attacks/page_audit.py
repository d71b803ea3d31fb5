"""What a page would do with a piece of HTML: all in it that could act, load or disguise, found by a parser of HTML as browsers
have it, and by lists of what is harmless."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import html5lib
from drawn_pictures import drawn

MARKS = {"{NL}": "\n", "{TAB}": "\t", "{CR}": "\r", "{NUL}": "\0", "{ESC}": "\x1b", "{RLO}": "\u202e", "{BOM}": "\ufeff"}

ELEMENTS = frozenset(
    re.findall(
        r"\S+",
        """html head title style body section div span p pre code h1 h2 h3 h4 h5 h6 hr br b em i s strong bdi blockquote ol ul li a img
        table thead tbody tr th td details summary svg g path rect text map area""",
    )
)
ATTRIBUTES = frozenset(
    re.findall(
        r"\S+",
        """lang charset name content class style title tabindex role start dir target rel href open type border scope aria-label
        aria-hidden xmlns decoding usemap coords width height viewbox x y rx d fill text-anchor stroke xml:space space alt src valign halign""",
    )
)
PLAIN_META = [{"charset": "utf-8"}, {"name": "viewport", "content": "width=device-width"}]
STYLE_ACTS = re.compile(r"url\s*\(|expression|@import|behavior|position\s*:|image-set|\\", re.IGNORECASE)
LINK = re.compile(r"(https?://|mailto:|#)[\x21-\x7e]*", re.IGNORECASE)
PICTURE = re.compile(r"data:image/(png|svg\+xml);base64,[A-Za-z0-9+/=\n]+")
LOADS = {
    "src",
    "srcset",
    "action",
    "formaction",
    "poster",
    "background",
    "data",
    "ping",
    "manifest",
    "srcdoc",
    "cite",
    "codebase",
}
# MathJax does not look into these; nor into what carries a class that keeps it away.
SKIPPED = {"script", "noscript", "style", "textarea", "pre", "code", "annotation"}
FORMULA = re.compile(r"\$[^$]+\$|\\\(.+\\\)|\\\[.+\\\]|\\begin\{", re.DOTALL)
ACTING_TEX = re.compile(
    r"\\(href|url|class|cssId|style|data|html\w*|def|g?let|newcommand|renewcommand|newenvironment|require|unicode|includegraphics|"
    r"color|definecolor|rule|raise|lower|kern|hspace|csname|input|toggle|action|mmlToken|tag|label|ref|eqref)(?![A-Za-z])"
)


def payloads() -> list[str]:
    """The attacks of `payloads.txt`."""
    lines = (Path(__file__).parent / "payloads.txt").read_text(encoding="utf-8").split("\n")
    return [
        re.sub(r"\{[A-Z]+\}", lambda mark: MARKS.get(mark[0], mark[0]), x) for x in lines if x.strip() and not x.startswith(";;")
    ]


def audit(html: str, *, page: bool = False) -> list[str]:
    """What could act in HTML, as a page would parse it, and as it would after it was written out and parsed again.

    Args:
        html: as it is given out.
        page: whether it is a page of its own, not a part of one; that has no MathJax.
    """
    found = [f"a control character: U+{ord(c):04X}" for c in sorted(set(html)) if ord(c) < 32 and c not in "\t\n\r"]
    found += ["half a character"] * any(0xD800 <= ord(c) < 0xE000 for c in html)
    found += [f"in a picture: {what}" for what in audit(inside, page=page)] if (inside := drawn(html)) != html else []
    once = _parsed(html, page=page)
    found += _acts(once, page=page)
    again = html5lib.serialize(once, tree="etree", quote_attr_values="always", omit_optional_tags=False)
    if (mutated := _acts(_parsed(again, page=page), page=page)) and not found:
        found += [f"once written out and parsed again: {what}" for what in mutated]
    return found


def audit_svg(svg: bytes) -> list[str]:
    """What could act in an SVG file."""
    found = []
    for element in ET.fromstring(svg).iter():
        tag = _local(element.tag)
        if tag not in {"svg", "g", "title", "text", "polygon", "polyline", "path", "ellipse"}:
            found.append(f"<{tag}>")
        found += [
            f"{tag} {name}" for name in map(_local, element.attrib) if name.startswith("on") or name in ("href", "style", "src")
        ]
    return found


def _parsed(html: str, *, page: bool) -> ET.Element:
    parser = html5lib.HTMLParser(html5lib.getTreeBuilder("etree"), namespaceHTMLElements=False)
    return parser.parse(html) if page else parser.parseFragment(html, container="div")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _acts(root: ET.Element, *, page: bool) -> list[str]:
    found: list[str] = []

    def visit(element: ET.Element, typeset: bool) -> None:
        tag = _local(element.tag) if isinstance(element.tag, str) else "comment"
        attributes = {_local(name): value for name, value in element.attrib.items()}
        if tag == "DOCUMENT_FRAGMENT" or (page and tag == "meta" and attributes in PLAIN_META):
            pass
        elif tag not in ELEMENTS:
            found.append(f"<{tag}>")
        elif not page and tag in ("html", "head", "style", "body"):
            found.append(f"<{tag}> inside a page")
        found.extend(_attribute(tag, name, value) for name, value in attributes.items())
        classes = set(attributes.get("class", "").split())
        if "mathjax_ignore" in classes:
            typeset = False
        if "mathjax_process" in classes:
            typeset = True
        inside = typeset and tag not in SKIPPED
        words = [(element.text, inside), *((child.tail, inside) for child in element)]
        found.extend(
            f"a formula that acts: {text}"
            for text, seen in words
            if text and seen and FORMULA.search(text) and ACTING_TEX.search(text)
        )
        for child in element:
            visit(child, inside)

    visit(root, typeset=not page)
    return [what for what in found if what]


def _attribute(tag: str, name: str, value: str) -> str:
    if name.lower().startswith("on") or name.lower() not in ATTRIBUTES:
        return f"<{tag} {name}={value!r}>"
    if name == "href" and (tag != "a" or not LINK.fullmatch(value)):
        return f"<{tag} href={value!r}>"
    if name in LOADS and not (tag == "img" and PICTURE.fullmatch(value)):
        return f"<{tag} {name}={value!r}>"
    if name == "style" and STYLE_ACTS.search(value):
        return f"<{tag} style={value!r}>"
    return ""
