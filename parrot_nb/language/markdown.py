"""Markdown that a model wrote, as HTML in which nothing acts.

Whoever controls a text in a prompt controls a model's words, and JupyterLab shows `text/markdown` of a running kernel without
taking scripts out of it. So we render it ourselves, by markdown-it-py with raw HTML off, and clean what comes of that with
nh3: elements that lay out text stay, with no attribute but those in `ATTRIBUTES`. No picture is loaded (its address would
tell what a text knows to whoever is asked for it), and a link shows where it leads.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from parrot_nb.language.escaping import UNTYPESET, escape, visible
from parrot_nb.language.formulas import TYPESET, formulas_plugin
from parrot_nb.language.handles import Handle

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

    from parrot_nb.language.variable import SemanticVariable

MAX_CHARS = 40_000  # of a text: what follows is shown as it was written
MAX_BRACKETS = 2000  # the parser's time grows with the square of those that open no link
ADDRESS_CHARS = 300  # of a link or picture that are shown

TAGS = frozenset(
    [
        "a",
        "bdi",
        "blockquote",
        "br",
        "code",
        "del",
        "em",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "li",
        "ol",
        "p",
        "pre",
        "s",
        "span",
        "strong",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
        "ul",
    ]
)
ATTRIBUTES: dict[str, set[str]] = {
    "a": {"href", "target"},
    "bdi": {"dir"},
    "ol": {"start"},
    "td": {"style"},  # `text-align` alone, of a table's column
    "th": {"style"},
}
SCHEMES = {"http", "https", "mailto"}
_REACHABLE = re.compile(r"(?:https?://|mailto:|#)[\x21-\x7e]*", re.IGNORECASE)


class MarkdownView(Handle):
    """A variable whose text a notebook renders as Markdown, while it is written and when it is done.

    Args:
        variable: to show.
    """

    _noun, _remedy = "A view of a variable", "pass on what get() returns"

    def __init__(self, variable: SemanticVariable) -> None:
        self.variable = variable

    def _repr_html_(self) -> str:
        return markdown_html(self.variable.node.text)

    def __repr__(self) -> str:
        return f"<Markdown of {self.variable!r}>"


def markdown_html(text: str) -> str:
    """Markdown as HTML without script, styles, pictures or addresses that a page would load: safe in a page that trusts it.

    Tables and strikethrough are those of GitHub. Formulas are left to the page's MathJax if they only draw (see `formulas`).
    """
    text = visible(text)
    length = MAX_CHARS if text.count("[") <= MAX_BRACKETS else 0
    rendered = _parser().render(text[:length])
    if rest := text[length:]:
        rendered += f"<pre>{escape(rest)}</pre>"
    return f'<div class="parrot-markdown {UNTYPESET}">{_clean()(rendered)}</div>'


def is_reachable(address: str) -> bool:
    """True for an address that a link may lead to: a web page, a mail address, or a place in the same page."""
    return _REACHABLE.fullmatch(address) is not None


@cache
def _clean() -> Callable[[str], str]:
    import nh3

    def attribute(tag: str, name: str, value: str) -> str | None:
        return value if name != "href" or is_reachable(value) else None

    return nh3.Cleaner(
        tags=set(TAGS),
        attributes=ATTRIBUTES,
        attribute_filter=attribute,
        allowed_classes={"span": set(TYPESET.split())},
        filter_style_properties={"text-align"},
        url_schemes=set(SCHEMES),
        link_rel="noopener noreferrer",
    ).clean


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("js-default", {"html": False, "linkify": False, "typographer": False})
    parser.disable(["html_block", "html_inline"])
    parser.use(formulas_plugin)
    setattr(parser, "validateLink", lambda _: True)  # noqa: B010 - what may not be followed is shown as text, below
    for name, rule in (("link_open", _link_open), ("link_close", _link_close), ("image", _image)):
        parser.add_render_rule(name, rule)
    return parser


def _link_open(_renderer: Any, tokens: Any, index: int, _options: Any, env: Any) -> str:
    address = str(tokens[index].attrs["href"])
    inside = tokens[index + 1 :]
    told = inside[0].content if len(inside) > 1 and inside[0].type == "text" and inside[1].type == "link_close" else None
    env["opened"] = address, told
    if not is_reachable(address):
        return ""
    target = "" if address.startswith("#") else ' target="_blank"'
    return f'<a href="{escape(address)}"{target}>'


def _link_close(_renderer: Any, _tokens: Any, _index: int, _options: Any, env: Any) -> str:
    address, told = env["opened"]
    end = "</a>" if is_reachable(address) else ""
    return end if told == address else f"{end} {_shown(address)}"


def _image(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    """The words that stand for a picture, and where it is."""
    token = tokens[index]
    alt = renderer.renderInlineAsText(token.children or [], options, env)
    return f"<em>picture, not loaded:</em> {escape(alt)} {_shown(str(token.attrs['src']))}"


def _shown(address: str) -> str:
    """An address in parentheses; apart from the text before it, which may be set from right to left."""
    cut = address if len(address) <= ADDRESS_CHARS else f"{address[:ADDRESS_CHARS]}… ({len(address):,} characters)"
    return f'<bdi dir="ltr">({escape(cut)})</bdi>'
