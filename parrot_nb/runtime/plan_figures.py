"""Figures of calls that have not run, as data that crosses from the runtime to the notebook."""

from __future__ import annotations

from typing import Literal

import msgspec


class PlannedCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call as it would run.

    Attributes:
        id: of the call.
        name: of its function.
        kind: "semantic", "native", "join" or "first".
        source: where its texts come from: "model", "memo", "store", or "" for what no model writes.
        prompt_tokens: tokens of the prompt, with what is put before later outputs; those of texts that do not exist yet are estimated.
        exact: whether none is.
        shared_tokens: of these, computed already for a call before it in the plan.
        cached_tokens: of these, in the engine's cache now.
        output_tokens: tokens that it will probably write.
        most_output_tokens: tokens that it may write at most.
        pages: of the KV cache that it takes beside what it shares.
        problem: why it will fail, in a sentence; empty where nothing says so.
    """

    id: int
    name: str
    kind: str
    source: Literal["model", "memo", "store", ""] = ""
    prompt_tokens: int = 0
    exact: bool = True
    shared_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    most_output_tokens: int = 0
    pages: int = 0
    problem: str = ""

    @property
    def filled_tokens(self) -> int:
        """Prompt tokens that the engine must compute."""
        return max(0, self.prompt_tokens - max(self.shared_tokens, self.cached_tokens)) if self.source == "model" else 0


class PlannedModel(msgspec.Struct, frozen=True):
    """A model that planned calls run on.

    Attributes:
        id: of the model.
        max_context_tokens: the longest context, of the model and of its KV cache.
        page_size_tokens: tokens of a page.
        num_pages: pages that the KV cache may have.
        pages: pages that the calls take if all run side by side, each shared one once.
        measured: whether the engine has measured its own steps; else usual ones are assumed.
    """

    id: str
    max_context_tokens: int
    page_size_tokens: int
    num_pages: int
    pages: int
    measured: bool


class PlanFigures(msgspec.Struct, frozen=True):
    """A plan.

    Attributes:
        calls: in order; what has ended is not among them.
        models: that they run on.
        seconds: predicted for all of them, if they write as much as is likely.
        most_seconds: predicted if each output has as many tokens as it may.
        advice: sentences about the order of prompts' parts.
    """

    calls: tuple[PlannedCall, ...]
    models: tuple[PlannedModel, ...]
    seconds: float
    most_seconds: float
    advice: tuple[str, ...] = ()
