"""Messages of the notebook about calls and values: handles as data."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from parrot_nb.errors import InputValueError
from parrot_nb.language.calls import Call
from parrot_nb.language.joins import Concatenation
from parrot_nb.language.nodes import VariableNode
from parrot_nb.language.options import Options
from parrot_nb.language.race import First
from parrot_nb.language.template import Segment
from parrot_nb.language.text import to_text
from parrot_nb.runtime.messages import Given, Made, Reading, Submission
from parrot_nb.session.foreign import described, sound

SHOWN_CHARS = 10_000  # of a value that is not text, in the log


class Outgoing:
    """Knows which variables the runtime knows. Used under the session's lock."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._told: set[int] = set()  # by the last submission, and known once that is posted
        self._told_text: set[int] = set()
        self._pending: dict[int, VariableNode] = {}  # that users will set, and that are to be watched from now on
        self._watched: weakref.WeakSet[VariableNode] = weakref.WeakSet()
        self._shown: weakref.WeakKeyDictionary[VariableNode, str] = weakref.WeakKeyDictionary()
        self._with_text: set[int] = set()  # of these, values that are not text and whose text was told

    def clear(self) -> None:
        """The runtime knows nothing any more."""
        self._known.clear()
        self._with_text.clear()

    def take_pending(self) -> Iterator[VariableNode]:
        """The variables whose values are to be told when users have set them; after an interrupt, those left once more."""
        while self._pending:
            number, node = next(iter(self._pending.items()))
            yield node
            del self._pending[number]

    def lost(self, node: VariableNode) -> None:
        """The runtime may forget a variable."""
        self._known.discard(node.id)
        self._with_text.discard(node.id)

    def describe(self, calls: Sequence[Call]) -> None:
        """Call the `repr` of what users give to calls. The one method that is used without the lock: it may take long."""
        for call in calls:
            for node in call.inputs.values():
                if node.producer is None and node.state == "done" and node.spans is None and node not in self._shown:
                    self._shown[node] = shown_of(node.value)

    def submission(self, batch: Sequence[tuple[Call, int | None]], *, eager: bool, reading: Reading | None) -> Submission:
        """Calls, each with the number of the cell that made it, and who reads variables at the same time."""
        self._told, self._told_text = set(), set()
        prompts: dict[int, int] = {}
        segments: list[tuple[Segment, ...]] = []
        options: dict[Options, int] = {}
        values: dict[int, Given] = {}
        calls = []
        for call, cell in batch:
            prompt = None
            if call.kind == "semantic":
                prompt = prompts.setdefault(id(call.segments), len(segments))
                if prompt == len(segments):
                    segments.append(call.segments)
            for node in call.inputs.values():
                if (given := self._given(node, needs_text(call))) is not None:
                    values[node.id] = given
            calls.append(_made(call, options.setdefault(call.options, len(options)), prompt, cell))
            self._told |= {node.id for node in call.outputs}
        return Submission(tuple(segments), tuple(options), tuple(values.values()), tuple(calls), eager, reading)

    def posted(self) -> None:
        """The last submission was posted; where an interrupt came before that, its values are told again with the next one."""
        self._known |= self._told
        self._with_text |= self._told_text

    def _given(self, node: VariableNode, needs_text: bool) -> Given | None:
        """Return what the runtime must be told of a variable that a call reads, if anything."""
        with_text = node.id in self._with_text or node.id in self._told_text
        tells_text = needs_text and node.final and node.spans is None and not with_text
        if (node.id in self._known or node.id in self._told) and not tells_text:
            return None
        if node.producer is not None and not node.final:
            return None  # it is on its way
        if node.reachable:
            self._told.add(node.id)
        if not node.final and node not in self._watched:
            self._pending[node.id] = node
            self._watched.add(node)
        if tells_text:
            self._told_text.add(node.id)
        return given(node, needs_text=needs_text, shown=self._shown.get(node))


def needs_text(call: Call) -> bool:
    """Whether a call reads the text of its inputs, or hands it on to one that may."""
    return call.kind in ("semantic", "first") or isinstance(call.function, Concatenation)


def given(node: VariableNode, *, needs_text: bool, shown: str | None = None) -> Given:
    """A variable as data; `shown` is what its value looks like, where that is known."""
    held = node.reachable
    if not node.final:
        return Given(node.id, node.name, held, "pending")
    if node.error is not None:
        return Given(node.id, node.name, held, node.state, error=node.error)
    if node.spans is not None:
        return Given(node.id, node.name, held, spans=node.spans, note=node.note)
    return given_value(node.id, node.name, node.value, held=held, needs_text=needs_text, note=node.note, shown=shown)


def given_value(
    variable_id: int, name: str, value: Any, *, held: bool, needs_text: bool, note: str | None = None, shown: str | None = None
) -> Given:
    """A value that is not text, as data."""
    written, refusal = text_of(value, f"variable '{name}'") if needs_text else (None, None)
    shown = shown_of(value) if shown is None else shown
    return Given(variable_id, name, held, written=written, refusal=refusal, shown=shown, note=note)


def shown_of(value: Any) -> str:
    """Return the text by which views show a value that is not text."""
    return sound(described(value)[:SHOWN_CHARS])


def text_of(value: Any, where: str) -> tuple[str | None, str | None]:
    """The text of a value, or why it has none."""
    try:
        return to_text(value, where), None
    except InputValueError as error:
        return None, str(error)
    except BaseException as error:  # the value's own methods
        return None, f"{where} cannot be turned into text ({type(error).__name__}): turn it into a string first."


def _made(call: Call, options: int, prompt: int | None, cell: int | None) -> Made:
    parts = call.function.parts if isinstance(call.function, Concatenation) else None
    return Made(
        call.id,
        call.name,
        call.kind,
        tuple((name, node.id) for name, node in call.inputs.items()),
        tuple((node.id, node.name, node.reachable) for node in call.outputs),
        options,
        prompt,
        parts,
        isinstance(call.function, First) and call.function.where is not None,
        cell,
        call.semantic.checked if call.kind == "semantic" else (),
    )
