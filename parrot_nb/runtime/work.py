"""State of a call between its submission and its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from parrot_nb.engine.protocol import Engine
from parrot_nb.graph.records import CallRecord
from parrot_nb.runtime.fitting import Cut
from parrot_nb.runtime.fleet import Slot
from parrot_nb.runtime.memo import MemoContext


@dataclass(eq=False, slots=True)
class Work:
    """State of a call that has not ended.

    Attributes:
        missing: ids of the variables that it cannot start without.
        wanted: whether somebody wants its outputs.
        ahead: begun though inputs are missing, since they are being written.
        task: what runs it, once started.
        slot: where a prompt runs.
        engine: which is there, once it is loaded.
        num_moves: engines that were lost under it.
        context: of the prompt that it is filling or generating.
        cuts: inputs that were cut to what fits.
    """

    call: CallRecord
    missing: set[int] = field(default_factory=set)
    wanted: bool = False
    ahead: bool = False
    task: asyncio.Task[None] | None = None
    slot: Slot | None = None
    engine: Engine | None = None
    num_moves: int = 0
    context: MemoContext | None = None
    cuts: list[Cut] = field(default_factory=list)

    @property
    def followed(self) -> bool:
        """Whether other calls take over what it generates."""
        return self.context is not None and self.context.followed
