"""Variables on the page, each filling in as it comes; of a long list the first ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from parrot_nb.language.escaping import UNTYPESET
from parrot_nb.language.nodes import VariableNode
from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.static import ICONS, MUTED, SANS, STATE_ORDER
from parrot_nb.notebook.values import shown_state, variables_bundle
from parrot_nb.notebook.views import Bundle, View

MAX_SHOWN = 30  # of a list; nobody reads more in one output, and each update sends them all


class VariablesView(View):
    """Variables, each filling in as it comes.

    Args:
        nodes: the variables.
        markdown: whether their text is Markdown.
    """

    remedy = "This output is not updated: get() waits for the value."

    def __init__(self, nodes: Sequence[VariableNode], *, markdown: bool = False) -> None:
        super().__init__()
        self._nodes = nodes
        self._shown = nodes if len(nodes) <= MAX_SHOWN else nodes[:MAX_SHOWN]
        self._markdown = markdown
        self._kept: dict[int, Bundle] = {}  # how values that are there show themselves, which is the user's code: asked for once
        self._holds = [node.reach() for node in nodes]  # what is on the page is read, though no name may hold it

    def bundle(self, _state: GraphState) -> Bundle:
        """Return the texts of the variables, and in words how many more there are."""
        bundle = variables_bundle(self._shown, self._kept, markdown=self._markdown)
        if len(self._shown) == len(self._nodes):
            return bundle
        counts = Counter(map(shown_state, self._nodes))
        states = ", ".join(f"{ICONS[state]} {counts[state]} {state}" for state in STATE_ORDER if counts[state])
        said = f"{len(self._nodes)} variables: {states}; the first {MAX_SHOWN} are shown, get() has the values of all."
        html = f'<div class="{UNTYPESET}" style="font:12px {SANS};color:{MUTED};padding:3px 0 4px">{said}</div>'
        return {"text/html": html + bundle["text/html"], "text/plain": f"{said}\n{bundle['text/plain']}"}

    def settled(self, _state: GraphState) -> bool:
        """Whether all are final."""
        return all(node.final for node in self._nodes)
