"""Functions that wait for variables, of all sessions of the process, and the circles that they must not close."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence

from parrot_nb.errors import SessionError
from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import VariableNode


class WaitingFunctions:
    """A table of the variables that native functions and conditions wait for.

    One table serves the whole process: a function of one session may read a variable of another.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: dict[int, tuple[VariableNode, ...]] = {}  # by call

    def begin(self, call: Call, nodes: Sequence[VariableNode]) -> None:
        """Note that the function of a call waits for these variables. Of two functions that begin to wait for each other, the
        second is told.

        Raises:
            SessionError: a variable cannot have its value before the call has ended.
        """
        with self._lock:
            if (node := needs(nodes, call, self._waits)) is not None:
                raise SessionError(f"'{call.name}' waits for '{node.name}', which waits for '{call.name}': it would never end.")
            self._waits[call.id] = tuple(node for node in (*self._waits.get(call.id, ()), *nodes) if not node.final)

    def end(self, call: Call, nodes: Sequence[VariableNode]) -> None:
        """Note that the function of a call waits for these variables no longer."""
        ended = {node.id for node in nodes}
        with self._lock:
            if left := tuple(node for node in self._waits.get(call.id, ()) if node.id not in ended):
                self._waits[call.id] = left
            else:
                self._waits.pop(call.id, None)

    def forget(self, calls: Iterable[int]) -> None:
        """Drop functions that have ended, by the ids of their calls."""
        with self._lock:
            for call_id in calls:
                self._waits.pop(call_id, None)

    def after_fork(self) -> None:
        """Start anew in a child process, where no function runs and nobody will release the lock."""
        self.__init__()  # type: ignore[misc]


waiting_functions = WaitingFunctions()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=waiting_functions.after_fork)


def needs(nodes: Sequence[VariableNode], call: Call, waits: dict[int, tuple[VariableNode, ...]]) -> VariableNode | None:
    """Return the first of `nodes` that cannot have its value before `call` has ended, None if all can.

    A call can end once its inputs are there and what its function waits for; a `P.first` once one of its inputs is there. Takes time
    in proportion to the unfinished calls behind `nodes`.

    Args:
        nodes: variables that the function of `call` is about to read.
        call: a native call, or one whose condition runs.
        waits: the variables that functions wait for, by call.
    """
    search = _Search(call, waits)
    search.add(nodes)
    if call.id not in search.found:
        return None
    can_end = search.solve()
    return next((node for node in nodes if not _is_there(node) and node.producer.id not in can_end), None)  # type: ignore[union-attr]


class _Search:
    """The unfinished calls behind some variables, each with those that it waits for.

    Args:
        call: the call that is taken to end never.
        waits: the variables that functions wait for, by call.
    """

    def __init__(self, call: Call, waits: dict[int, tuple[VariableNode, ...]]) -> None:
        self.found: set[int] = set()
        self._call = call
        self._waits = waits
        self._num_missing: dict[int, int] = {}  # what a call waits for yet; the inputs of a `P.first` are one together
        self._readers: dict[int, list[int]] = {}  # calls that wait for a call
        self._choices: dict[int, list[int]] = {}  # calls of `P.first` that have a call's output among their inputs

    def add(self, nodes: Sequence[VariableNode]) -> None:
        """Find the calls behind these variables."""
        pending = _producers(nodes)
        while pending:
            _, call = pending.popitem()
            if call.id in self.found:
                continue
            self.found.add(call.id)
            if call is not self._call:
                pending |= self._sources(call)

    def _sources(self, call: Call) -> dict[int, Call]:
        """Note what a call waits for, and return the calls that produce it."""
        inputs, needed = tuple(call.inputs.values()), _producers(self._waits.get(call.id, ()))
        choices: dict[int, Call] = {}
        if call.kind != "first":
            needed |= _producers(inputs)
        elif not any(_is_there(node) and node.error is None for node in inputs):  # else one of them has come
            choices = _producers(inputs)  # none where all have failed: it is about to fail
        self._num_missing[call.id] = len(needed) + bool(choices)
        for source in needed:
            self._readers.setdefault(source, []).append(call.id)
        for source in choices:
            self._choices.setdefault(source, []).append(call.id)
        return needed | choices

    def solve(self) -> set[int]:
        """Return the calls that can end."""
        can_end: set[int] = set()
        chosen: set[int] = set()
        pending = [call_id for call_id, count in self._num_missing.items() if not count]
        while pending:
            ended = pending.pop()
            can_end.add(ended)
            first = [reader for reader in self._choices.get(ended, ()) if reader not in chosen]
            chosen.update(first)
            for reader in (*self._readers.get(ended, ()), *first):
                self._num_missing[reader] -= 1
                if not self._num_missing[reader]:
                    pending.append(reader)
        return can_end


def _is_there(node: VariableNode) -> bool:
    """Whether a variable waits for no call: it is final, or a user sets it."""
    return node.final or node.producer is None


def _producers(nodes: Sequence[VariableNode]) -> dict[int, Call]:
    return {node.producer.id: node.producer for node in nodes if not node.final and node.producer is not None}
