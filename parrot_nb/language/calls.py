"""Calls: applications of functions to variables."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from parrot_nb.language.handles import Handle
from parrot_nb.language.nodes import CallKind, Objective, Reach, State, TaskGroup, VariableNode

if TYPE_CHECKING:
    from parrot_nb.language.function import SemanticFunction
    from parrot_nb.language.joins import Collection, Concatenation
    from parrot_nb.language.native import NativeFunction
    from parrot_nb.language.options import Options
    from parrot_nb.language.race import First
    from parrot_nb.language.template import Segment

_call_ids = itertools.count(1)


@dataclass(eq=False, slots=True)
class Progress:
    """Progress of a call: a fold of the events that tell of it, written by its session alone.

    Attributes:
        submitted: whether its session has it.
        state: as that of a variable.
        objective: what was deduced for it.
        group: its task group, if it has one.
        engine: which ran it.
        error: why it has no result.
    """

    submitted: bool = False
    state: State = "pending"
    objective: Objective | None = None
    group: TaskGroup | None = None
    engine: str | None = None
    error: BaseException | None = None
    holds: tuple[Reach, ...] = ()  # on what it reads, until it is submitted


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Call(Handle):
    """One application of a function to variables: a node of the graph, and a value: nothing of it changes, but for what is told of its
    `progress`. A call of kind "join" is submitted when something first uses its output, so that the intermediate results of
    `"a" + x + "b"` never enter the graph.

    Attributes:
        function: held by reference, so redefining a name does not touch calls already made.
        kind: which of these functions it is; both of the middle ones are joins.
        inputs: parameter name -> variable, in order of the function's signature; none once its session has forgotten the call.
        output_names: names of the variables it writes, in order of the function's signature.
        options: the call's own options over its function's (the session's defaults are not in it).
        outputs: those variables.
        progress: what has become of it.
    """

    _noun, _remedy = "A call", "pass on the values of its outputs"

    function: SemanticFunction | NativeFunction | Concatenation | Collection | First
    kind: CallKind
    inputs: Mapping[str, VariableNode]
    output_names: tuple[str, ...]
    options: Options
    id: int = field(default_factory=lambda: next(_call_ids))
    outputs: tuple[VariableNode, ...] = field(init=False)
    progress: Progress = field(init=False, default_factory=Progress)

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", tuple(VariableNode(name, producer=self) for name in self.output_names))
        self.progress.holds = tuple(node.reach() for node in self.inputs.values() if node.producer is not None)

    def link(self) -> None:
        """Become a consumer of its inputs; done once, when the call is submitted."""
        for node in {node.id: node for node in self.inputs.values()}.values():
            node.add_consumer(self)
        self.progress.submitted = True
        self.progress.holds = ()  # from now on the session knows

    def keep(self, function: SemanticFunction | NativeFunction) -> None:
        """Stay with what the function was when the call was made: the function itself becomes another."""
        object.__setattr__(self, "function", function)

    def let_go(self) -> None:
        """The session has forgotten it: hold what it read no longer."""
        object.__setattr__(self, "inputs", {})

    @property
    def submitted(self) -> bool:
        """Whether its session has it."""
        return self.progress.submitted

    @property
    def state(self) -> State:
        """State of the call, as that of a variable."""
        return self.progress.state

    @property
    def objective(self) -> Objective | None:
        """Objective that was deduced for the call."""
        return self.progress.objective

    @property
    def group(self) -> TaskGroup | None:
        """Task group of the call, if it has one."""
        return self.progress.group

    @property
    def engine(self) -> str | None:
        """Name of the engine that ran the call."""
        return self.progress.engine

    @property
    def error(self) -> BaseException | None:
        """Reason why the call has no result."""
        return self.progress.error

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Segments of the function's template; none where no model runs it."""
        return self.semantic.template.segments if self.kind == "semantic" else ()

    @property
    def semantic(self) -> SemanticFunction:
        """The function of a semantic call."""
        assert self.kind == "semantic"
        return cast("SemanticFunction", self.function)

    @property
    def native(self) -> NativeFunction:
        """The function of a native call."""
        assert self.kind == "native"
        return cast("NativeFunction", self.function)

    @property
    def race(self) -> First:
        """The race that a call of kind "first" decides."""
        assert self.kind == "first"
        return cast("First", self.function)

    def readers(self) -> list[Call]:
        """The calls that read what it writes."""
        return [reader for node in self.outputs for reader in node.consumers]

    @property
    def name(self) -> str:
        """The function's name."""
        return str(self.function.name)

    def output(self, name: str) -> VariableNode:
        """The output variable called `name`."""
        return self.outputs[self.output_names.index(name)]

    def __repr__(self) -> str:
        return f"<call {self.name} #{self.id} {self.state}>"
