"""Which contexts of a step that failed are at fault: they are tried again in halves, until only those that fail are left."""

from __future__ import annotations

from collections.abc import Sequence

from parrot_nb.engine.embedded.context import Context


class Suspects:
    """Contexts of failed steps that are still to be tried again, in groups.

    A step of n contexts that fails is followed by at most 2n - 2 tries: each is a node of a binary tree over the contexts. With
    one context at fault these are at most 2 log2(n), rounded up. Each context is in a step that passes, or fails alone; so no
    fault of one reaches another.
    """

    def __init__(self) -> None:
        self._groups: list[list[Context]] = []  # the last one is tried first

    def next(self) -> list[Context] | None:
        """The contexts to try now, alone; None where nobody is suspected."""
        while self._groups:
            group = [c for c in self._groups.pop() if not c.freed and c.failure is None and c.num_pending > 0]
            if group:
                self._groups.append(group)
                return group
        return None

    def passed(self, contexts: Sequence[Context]) -> None:
        """Clear contexts of a step that has passed, or that has no room for a try."""
        if not self._groups:
            return
        cleared = set(contexts)
        self._groups = [rest for group in self._groups if (rest := [c for c in group if c not in cleared])]

    def failed(self, contexts: Sequence[Context]) -> Context | None:
        """Suspect the contexts of a step that has failed, in the order of the step: neighbours share pages. Returns the one at
        fault if it was alone; else None."""
        self.passed(contexts)
        if len(contexts) == 1:
            return contexts[0]
        middle = len(contexts) // 2
        self._groups += [list(half) for half in (contexts[middle:], contexts[:middle]) if half]
        return None

    def clear(self) -> None:
        """Suspect nobody."""
        self._groups.clear()
