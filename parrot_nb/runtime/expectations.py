"""Hints to engines of what to expect: the constant beginnings of prompts whose calls are still waiting.

The graph knows which prompts will come, so an engine that must give up cached pages can keep those that are used soonest
(after KVFlow's steps-to-execution eviction). Calls of one function begin alike: they are told of as one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from parrot_nb.engine.protocol import Engine
from parrot_nb.graph.records import CallRecord
from parrot_nb.language.options import Options
from parrot_nb.runtime import prompt
from parrot_nb.runtime.stretches import PromptWriter


@dataclass(slots=True)
class _Group:
    """Waiting calls whose prompts begin alike; by id, which is the order in which they were made."""

    calls: dict[int, CallRecord] = field(default_factory=dict)
    token_ids: tuple[int, ...] | None = None  # None until an engine was there to ask


class Expectations:
    """Lives on the runtime loop.

    Args:
        engines_of: the engines that a call may run on, as far as they are loaded.
        options: the session's defaults.
    """

    def __init__(self, engines_of: Callable[[CallRecord], Sequence[Engine]], options: Options) -> None:
        self._engines_of = engines_of
        self._options = options
        self._groups: dict[Hashable, _Group] = {}

    def add(self, call: CallRecord) -> None:
        """A semantic call waits."""
        key = call.prompt
        group = self._groups.setdefault(key, _Group())
        group.calls[call.id] = call
        if group.token_ids is None:
            self._tell(key, group)

    def remove(self, call: CallRecord) -> None:
        """Remove a call that has started, or never will. Unknown calls are ignored."""
        key = call.prompt
        group = self._groups.get(key)
        if group is None or call.id not in group.calls:
            return
        was_next = next(iter(group.calls)) == call.id
        del group.calls[call.id]
        if not group.calls:
            del self._groups[key]
            for engine in self._engines_of(call) if group.token_ids else ():
                engine.forget(key)
        elif was_next:
            self._tell(key, group)

    def _tell(self, key: Hashable, group: _Group) -> None:
        call = next(iter(group.calls.values()))
        engines = self._engines_of(call)
        if not engines:
            return
        if group.token_ids is None:
            group.token_ids = self._beginning(call, engines[0])
        for engine in engines if group.token_ids else ():
            engine.expect(key, group.token_ids, call.id)

    def _beginning(self, call: CallRecord, engine: Engine) -> tuple[int, ...]:
        """The token ids up to the first variable, as far as its value cannot change them."""
        writer = PromptWriter(engine.codec)
        try:
            for operation in prompt.compile_prompt(call, engine.codec, self._options):
                if isinstance(operation, (prompt.FillVariable, prompt.Think, prompt.Generate)):
                    break
                prompt.add(operation, writer)
            return tuple(writer.take())
        except BaseException:  # a tokenizer's panic too
            return ()  # the call will fail with it when it starts
