"""Messages between the two sides of a session: data alone, no object of the user's.

The notebook tells (`Told`): submissions, reads, cancels, questions, and what its own functions gave. The runtime says (`Said`):
the events of `parrot_nb.runtime.events`, what came of variables, which of the user's functions, conditions and checks are wanted,
and answers. Both sides keep the order in which things were said.
"""

from __future__ import annotations

import msgspec

from parrot_nb.engine.protocol import EngineLoad, ModelInfo
from parrot_nb.language.host import RenderedSegment
from parrot_nb.language.nodes import CallKind, LatencyTarget, Objective, Path, Perf, Span, State, TokenLogprob
from parrot_nb.language.options import Options
from parrot_nb.language.template import Constant, Input, Output
from parrot_nb.runtime.events import (
    CallAdded,
    CallChanged,
    GroupDeduced,
    ModelChanged,
    ModelLoading,
    ObjectiveDeduced,
    Said,
    SessionReset,
    StepRan,
    TextAppended,
    ThinkingAppended,
    VariableAdded,
    VariableChanged,
)
from parrot_nb.runtime.plan_figures import PlanFigures

VERSION = 4  # of these messages; two sides of different versions refuse each other

Setting = bool | int | float | str | tuple[str, ...] | None


class Told(msgspec.Struct, frozen=True, tag=True, tag_field="do", omit_defaults=True):
    """Data that the notebook tells the runtime."""


class Start(Told, frozen=True):
    """The first message: what the session is.

    Attributes:
        model: hub id or path; None for the embedded default.
        default_folder: where that is.
        settings: of `parrot_nb.session.Session`, from `device` to `sampling`.
        options: the session's defaults.
        store: path of the file in which generations outlive the session; None for none.
    """

    version: int
    model: str | None
    default_folder: str
    settings: dict[str, Setting]
    options: Options
    policy: str
    store: str | None = None


class Given(msgspec.Struct, frozen=True, omit_defaults=True):
    """A variable whose value the runtime does not know, or does not know yet.

    Attributes:
        held: whether a user may read it later; what nobody holds is forgotten with the last call that reads it.
        state: "pending" where it will be set later.
        spans: the value as text; None where it is not text.
        written: text that stands for such a value; None where nothing asks for one, or it has none.
        refusal: why it has none.
        shown: a few words for such a value.
        note: what must be said beside it.
        error: why it has no value.
    """

    id: int
    name: str
    held: bool = False
    state: State = "done"
    spans: tuple[Span, ...] | None = None
    written: str | None = None
    refusal: str | None = None
    shown: str = ""
    note: str | None = None
    error: BaseException | None = None


class Made(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A call.

    Attributes:
        inputs: parameter name and variable, in order.
        outputs: id and name of each variable that it writes, and whether a user may read it.
        options: which of the submission's options it has.
        prompt: which of the submission's prompts it runs; None where it runs none.
        parts: of a join of texts: None stands for the next input. None where a join is a list of values.
        has_condition: whether a "first" asks which value will do.
        cell: number of the cell that made it.
        checked: names of the outputs whose values the notebook is asked about before they are anything to others.
    """

    id: int
    name: str
    kind: CallKind
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[int, str, bool], ...]
    options: int
    prompt: int | None = None
    parts: tuple[str | None, ...] | None = None
    has_condition: bool = False
    cell: int | None = None
    checked: tuple[str, ...] = ()


class Reading(Told, frozen=True):
    """Notice that somebody reads these variables."""

    variable_ids: tuple[int, ...]
    perf: Perf


class Submission(Told, frozen=True):
    """Calls, in order, with the prompts that they run, their options, both told once for all calls that share them, and the
    variables that they read from outside. `eager` runs them though nobody has asked yet; `reading` is who has asked meanwhile, so that
    nothing runs for less than that."""

    prompts: tuple[tuple[Constant | Input | Output, ...], ...]
    options: tuple[Options, ...]
    values: tuple[Given, ...]
    calls: tuple[Made, ...]
    eager: bool
    reading: Reading | None = None


class Cancelling(Told, frozen=True):
    """Cancel the calls that write these variables; all calls where None. With `readers` their reader gave up: cancel what
    runs for it alone."""

    variable_ids: tuple[int, ...] | None
    readers: bool = False
    why: str = "was cancelled"


class Lost(Told, frozen=True):
    """Notice that no user holds these variables any more."""

    variable_ids: tuple[int, ...]


class ValueSet(Told, frozen=True):
    """A user has set a variable."""

    value: Given


class FunctionEnded(Told, frozen=True):
    """A native function has ended: with a value, which is what the variable `like` has if that is given, or with an error."""

    call_id: int
    value: Given
    like: int | None = None


class Judged(Told, frozen=True):
    """Whether a user's condition accepts a value; `error` is what it raised, `reason` why a check refuses."""

    call_id: int
    variable_id: int
    accepted: bool
    error: BaseException | None = None
    reason: str = ""


class Render(msgspec.Struct, frozen=True, tag=True, tag_field="ask"):
    """A function's prompt as the model would get it."""

    name: str
    segments: tuple[Constant | Input | Output, ...]
    values: tuple[tuple[str, Given], ...]
    options: Options


class LoadModel(msgspec.Struct, frozen=True, tag=True, tag_field="ask"):
    """Make a model the default, and load it now."""

    model: str
    settings: dict[str, Setting]


class Models(msgspec.Struct, frozen=True, tag=True, tag_field="ask"):
    """The models that are loaded, and what their engines do."""


class IsIdle(msgspec.Struct, frozen=True, tag=True, tag_field="ask"):
    """Whether nothing runs."""


class Describe(msgspec.Struct, frozen=True, tag=True, tag_field="ask"):
    """Describe what was deduced of a call."""

    call_id: int


class Reset(msgspec.Struct, frozen=True, tag=True, tag_field="ask"):
    """Cancel everything and forget it."""


class Close(msgspec.Struct, frozen=True, tag=True, tag_field="ask"):
    """Cancel everything and close the engines."""


class UseStore(msgspec.Struct, frozen=True, tag=True, tag_field="ask"):
    """Keep generations in this file from now on, and in the one before no longer; None for none. The one before is written first."""

    path: str | None


class SyncStore(msgspec.Struct, frozen=True, tag=True, tag_field="ask"):
    """Write to the store's file what has not been written yet."""


class Split(msgspec.Struct, frozen=True, tag=True, tag_field="ask"):
    """A text in pieces of at most so many tokens; `model` is whose tokenizer counts, None for the session's."""

    text: str
    tokens: int
    overlap: int
    model: str | None


class PlanCalls(msgspec.Struct, frozen=True, tag=True, tag_field="ask"):
    """Plan calls, which are not run; `submission` tells all that they read."""

    submission: Submission


Question = Render | LoadModel | Models | IsIdle | Describe | Reset | Close | UseStore | SyncStore | PlanCalls | Split


class Query(Told, frozen=True):
    """A question; the answer has its number."""

    number: int
    question: Question


class Abandoned(Told, frozen=True):
    """Notice that nobody waits for the answer any more."""

    number: int


Message = (
    Start | Submission | Reading | Cancelling | Lost | ValueSet | FunctionEnded | Judged | Query | Abandoned
)  # fmt: skip


class Outcome(Said, frozen=True, gc=True):
    """Outcome of a variable; said before the event that it is final. An error in it may hold whatever it has met.

    Attributes:
        spans: the value as text; None where it is not text, and so with the notebook's own functions.
        thought: whether the model thought before it.
        like: the variable whose value it has taken over; None where it has one of its own.
        error: why it has no value.
    """

    variable_id: int
    spans: tuple[Span, ...] | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    thought: bool = False
    like: int | None = None
    num_thinking_tokens: int = 0
    taken_back: str = ""
    error: BaseException | None = None


class FunctionWanted(Said, frozen=True):
    """A native function is to run now. What it returns is wanted with `objective`."""

    call_id: int
    objective: Objective


class FunctionUnwanted(Said, frozen=True):
    """Notice that nobody wants what a native function, a condition or a check of this call returns any more."""

    call_id: int


class ConditionAsked(Said, frozen=True):
    """Will this value do?"""

    call_id: int
    variable_id: int
    objective: Objective


class CheckAsked(Said, frozen=True):
    """Is this text, which obeys the type of an output, a value?"""

    call_id: int
    variable_id: int
    text: str
    objective: Objective


class StoreNotice(Said, frozen=True):
    """A sentence about the store for the user."""

    text: str


class Description(msgspec.Struct, frozen=True):
    """Properties that were deduced of a call."""

    path: Path | None = None
    placed: str | None = None
    target: LatencyTarget | None = None


class Answer(Said, frozen=True, gc=True):
    """The answer to a query: the one of these that belongs to its question, or an error."""

    number: int
    segments: tuple[RenderedSegment, ...] = ()
    models: tuple[ModelInfo, ...] = ()
    loads: dict[str, EngineLoad] = msgspec.field(default_factory=dict)
    description: Description | None = None
    plan: PlanFigures | None = None
    texts: tuple[str, ...] = ()
    idle: bool = False
    error: BaseException | None = None


Item = (
    VariableAdded | CallAdded | CallChanged | ObjectiveDeduced | GroupDeduced | TextAppended | ThinkingAppended | VariableChanged
    | StepRan | ModelChanged | ModelLoading | SessionReset
    | Outcome | FunctionWanted | FunctionUnwanted | ConditionAsked | CheckAsked | StoreNotice | Answer
)  # fmt: skip


__all__ = [
    "VERSION", "Abandoned", "Answer", "Cancelling", "CheckAsked", "Close", "ConditionAsked", "Describe", "Description", "FunctionEnded",
    "FunctionUnwanted", "FunctionWanted", "Given", "IsIdle", "Item", "Judged", "LoadModel", "Lost", "Made", "Message", "Models",
    "Outcome", "PlanCalls", "Query", "Question", "Reading", "Render", "Reset", "Split", "Start", "StoreNotice", "Submission", "SyncStore", "Told", "UseStore",
    "ValueSet",
]  # fmt: skip
