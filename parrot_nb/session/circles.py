"""Functions that wait for variables, of all sessions of the process, and the circles that they must not close."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from parrot_nb.errors import SessionError
from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import VariableNode
from parrot_nb.language.notify import notified

Waits = dict[int, tuple[VariableNode, ...]]
Refusals = weakref.WeakKeyDictionary[VariableNode, set[int]]
Told = Callable[[SessionError], None]

SEARCHING_SHARE = 0.1  # of a core, at most, for circles that choices may close


@dataclass(frozen=True, slots=True)
class Suspect:
    """A function that waits for itself but for other choices of a `P.first`.

    Attributes:
        call: of the function.
        told: ends it with an error. Called on a thread of the table's.
    """

    call: Call
    told: Told


class WaitingFunctions:
    """A table of the variables that native functions and conditions wait for.

    One table serves the whole process: a function of one session may read a variable of another. A circle that leads through a
    `P.first` may close long after its functions have begun to wait, when the other choices have failed or were refused: all who can
    get into one are looked at again then, in one pass over the calls behind them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: Waits = {}  # by call
        self._suspects: dict[int, Suspect] = {}  # by call
        self._refused: Refusals = weakref.WeakKeyDictionary()  # by output of a `P.first`, its inputs that its condition refused
        self._watched: weakref.WeakSet[VariableNode] = weakref.WeakSet()
        self._changed = False
        self._searches = False

    def begin(self, call: Call, nodes: Sequence[VariableNode], told: Told) -> None:
        """Note that the function of a call waits for these variables. Of two functions that begin to wait for each other, the
        second is told.

        Args:
            call: of the function.
            nodes: variables that it waits for.
            told: hears of a circle that closes only while it waits, on a thread of the table's.

        Raises:
            SessionError: a variable cannot have its value before the call has ended.
        """
        with self._lock:
            search = _Search(call, self._waits, self._refused)
            if (node := search.blocked(nodes)) is not None:
                raise _circle(call, node)
            self._waits[call.id] = tuple(node for node in (*self._waits.get(call.id, ()), *nodes) if not node.final)
            if not search.leads_back:
                return
            self._suspects[call.id] = Suspect(call, told)
            fresh = [node for node in search.alternatives if node not in self._watched]
            self._watched.update(fresh)
        for node in fresh:
            node.watch_end(self._look_again)

    def refused(self, call: Call, node: VariableNode) -> None:
        """Note that the condition of a `P.first` does not take one of its inputs."""
        with self._lock:
            self._refused.setdefault(call.outputs[0], set()).add(node.id)
        self._look_again()

    def end(self, call: Call, nodes: Sequence[VariableNode]) -> None:
        """Note that the function of a call waits for these variables no longer."""
        ended = {node.id for node in nodes}
        with self._lock:
            if left := tuple(node for node in self._waits.get(call.id, ()) if node.id not in ended):
                self._waits[call.id] = left
            else:
                self._forget(call.id)

    def forget(self, calls: Iterable[int]) -> None:
        """Drop functions that have ended, by the ids of their calls."""
        with self._lock:
            for call_id in calls:
                self._forget(call_id)

    def _forget(self, call_id: int) -> None:
        self._waits.pop(call_id, None)
        self._suspects.pop(call_id, None)

    def _look_again(self) -> None:
        """A choice has ended. Returns at once: it is called by whoever hears that, who must not search."""
        with self._lock:
            if not self._suspects:
                return
            self._changed = True
            begins, self._searches = not self._searches, True
        if begins:
            threading.Thread(target=self._search, name="parrot-circles", daemon=True).start()

    def _search(self) -> None:
        """Search for circles that have closed until no choice has ended meanwhile."""
        while True:
            with self._lock:
                if not self._changed:
                    self._searches = False
                    return
                self._changed = False
                began_s = time.monotonic()
                closed = circles([suspect.call for suspect in self._suspects.values()], self._waits, self._refused)
                told = [partial(self._suspects.pop(call.id).told, _circle(call, node)) for call, node in closed]
            for tell in told:
                notified(tell)
            time.sleep((time.monotonic() - began_s) * (1 / SEARCHING_SHARE - 1))

    def after_fork(self) -> None:
        """Start anew in a child process, where no function runs and nobody will release the lock."""
        self.__init__()  # type: ignore[misc]


waiting_functions = WaitingFunctions()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=waiting_functions.after_fork)


def _circle(call: Call, node: VariableNode) -> SessionError:
    return SessionError(f"'{call.name}' waits for '{node.name}', which waits for '{call.name}': it would never end.")


def needs(nodes: Sequence[VariableNode], call: Call, waits: Waits, refused: Refusals | None = None) -> VariableNode | None:
    """Return the first of `nodes` that cannot have its value before `call` has ended, None if all can.

    A call can end once its inputs are there and what its function waits for; a `P.first` once one of its inputs is there that its
    condition does not refuse. Takes time in proportion to the unfinished calls behind `nodes`.

    Args:
        nodes: variables that the function of `call` is about to read.
        call: a native call, or one whose condition runs.
        waits: the variables that functions wait for, by call.
        refused: ids of inputs that conditions refused, by the output of their `P.first`.
    """
    return _Search(call, waits, weakref.WeakKeyDictionary() if refused is None else refused).blocked(nodes)


def circles(calls: Sequence[Call], waits: Waits, refused: Refusals) -> list[tuple[Call, VariableNode]]:
    """Return those of `calls` whose functions wait for themselves, each with the variable through which it does.

    Takes time in proportion to the unfinished calls behind all of them together.

    Args:
        calls: whose functions wait.
        waits: the variables that functions wait for, by call.
        refused: ids of inputs that conditions refused, by the output of their `P.first`.
    """
    return _Search(None, waits, refused).circles(calls)


class _Search:
    """The unfinished calls behind some variables, each with those that it waits for.

    Args:
        call: the call that is taken to end never, if one is.
        waits: the variables that functions wait for, by call.
        refused: inputs that conditions refused, by the output of their `P.first`.

    Attributes:
        alternatives: inputs of these `P.first` that may still come.
    """

    def __init__(self, call: Call | None, waits: Waits, refused: Refusals) -> None:
        self.alternatives: list[VariableNode] = []
        self._sources: dict[int, list[int]] = {}  # calls that a call waits for, of all that were found
        self._call = call
        self._waits = waits
        self._refused = refused
        self._num_missing: dict[int, int] = {}  # what a call waits for yet; the inputs of a `P.first` are one together
        self._readers: dict[int, list[int]] = {}  # calls that wait for a call
        self._choices: dict[int, list[int]] = {}  # calls of `P.first` that have a call's output among their inputs

    @property
    def leads_back(self) -> bool:
        """Whether the call is behind these variables, if perhaps as one of several choices."""
        return self._call is not None and self._call.id in self._sources

    def blocked(self, nodes: Sequence[VariableNode]) -> VariableNode | None:
        """The first of these variables that cannot have its value before the call has ended."""
        self._add(_producers(nodes))
        if not self.leads_back:
            return None
        can_end = self._solve()
        return next((node for node in nodes if not _is_there(node) and node.producer.id not in can_end), None)  # type: ignore[union-attr]

    def circles(self, calls: Sequence[Call]) -> list[tuple[Call, VariableNode]]:
        """The calls that wait for themselves, each with the first of its function's variables that does."""
        self._add({call.id: call for call in calls})
        can_end = self._solve()
        stuck = [call for call in calls if call.id not in can_end]
        if not stuck:
            return []
        ring = _rings(
            {call: [s for s in sources if s not in can_end] for call, sources in self._sources.items() if call not in can_end}
        )
        found = []
        for call in stuck:
            waited = (node for node in self._waits.get(call.id, ()) if not _is_there(node))
            node = next((node for node in waited if ring.get(node.producer.id) == ring[call.id]), None)  # type: ignore[union-attr]
            if node is not None:
                found.append((call, node))
        return found

    def _add(self, pending: dict[int, Call]) -> None:
        while pending:
            _, call = pending.popitem()
            if call.id in self._sources:
                continue
            self._sources[call.id] = []
            if call is not self._call:
                pending |= self._note(call)

    def _note(self, call: Call) -> dict[int, Call]:
        """Note what a call waits for, and return the calls behind it."""
        inputs, needed = tuple(call.inputs.values()), _producers(self._waits.get(call.id, ()))
        if call.kind != "first":
            needed |= _producers(inputs)
            choices: dict[int, Call] = {}
        else:
            choices = _producers(inputs)  # none where all have failed: it is about to fail
            self.alternatives += [node for node in inputs if not _is_there(node)]
        has_to_choose = bool(choices) and not self._has_come(call, inputs)
        self._num_missing[call.id] = len(needed) + has_to_choose
        self._sources[call.id] = [*needed, *(choices if has_to_choose else ())]
        for source in needed:
            self._readers.setdefault(source, []).append(call.id)
        for source in choices if has_to_choose else ():
            self._choices.setdefault(source, []).append(call.id)
        return needed | choices

    def _has_come(self, call: Call, inputs: Sequence[VariableNode]) -> bool:
        """Whether one of a choice's inputs is there that its condition has not refused, or not yet."""
        refused = self._refused.get(call.outputs[0], ())
        return any(_is_there(node) and node.error is None and node.id not in refused for node in inputs)

    def _solve(self) -> set[int]:
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


def _rings(sources: dict[int, list[int]]) -> dict[int, int]:
    """Return the strongly connected component of each call, as the id of one call in it (Kosaraju's algorithm).

    Args:
        sources: calls that a call waits for, each of which has an entry too.
    """
    order: list[int] = []
    seen: set[int] = set()
    readers: dict[int, list[int]] = {call: [] for call in sources}
    pending = [(call, False) for call in sources]
    while pending:
        call, is_left = pending.pop()
        if is_left:
            order.append(call)
        elif call not in seen:
            seen.add(call)
            pending.append((call, True))
            for source in sources[call]:
                readers[source].append(call)
                pending.append((source, False))
    ring: dict[int, int] = {}
    for root in reversed(order):
        reached = [root]
        while reached:
            if (call := reached.pop()) not in ring:
                ring[call] = root
                reached += readers[call]
    return ring
