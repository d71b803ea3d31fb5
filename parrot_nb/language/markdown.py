"""A variable to be read as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parrot_nb.language.variable import SemanticVariable


class MarkdownView:
    """A variable whose text a notebook renders as Markdown, while it is written and when it is done.

    Args:
        variable: to show.
    """

    def __init__(self, variable: SemanticVariable) -> None:
        self.variable = variable

    def _repr_markdown_(self) -> str:
        return self.variable.node.text

    def __repr__(self) -> str:
        return f"<Markdown of {self.variable!r}>"
