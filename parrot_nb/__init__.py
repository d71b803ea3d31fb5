"""parrot_nb: prompts are functions, their results are semantic variables, and the calls form a DAG that an engine in
this process executes. In a notebook: `%load_ext parrot_nb`; in a script: `import parrot_nb as P`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parrot_nb.errors import (
    AlreadySetError,
    ArgumentError,
    CallCancelledError,
    CallError,
    CheckError,
    ConstraintError,
    ContextLengthError,
    EngineError,
    EngineLostError,
    GetTimeoutError,
    InputValueError,
    ModelError,
    ModelLoadError,
    NativeFunctionError,
    NonFiniteError,
    OptionError,
    OutOfMemoryError,
    ParrotError,
    SessionError,
    TemplateError,
    TraceError,
    TruncatedError,
    UnsupportedModelError,
    UpstreamError,
    UsageError,
)
from parrot_nb.graph import explain
from parrot_nb.language import (
    LATENCY,
    THROUGHPUT,
    LatencyTarget,
    NativeFunction,
    Objective,
    SemanticFunction,
    SemanticVariable,
    TokenLogprob,
    VariableList,
    Vote,
    as_text,
    best,
    choose,
    first,
    gather,
    grammar,
    join,
    latency,
    native_function,
    semantic_function,
    variable,
    vote,
)
from parrot_nb.record import replay
from parrot_nb.session import Session, budget, current_session, plan, split
from parrot_nb.tables import Comparison, Evaluation, Row, Rows, Trial, Tuning, compare, evaluate, reduce, tune

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__version__ = "0.1.0"

__all__ = [
    "LATENCY",
    "THROUGHPUT",
    "AlreadySetError",
    "ArgumentError",
    "CallCancelledError",
    "CallError",
    "CheckError",
    "Comparison",
    "ConstraintError",
    "ContextLengthError",
    "EngineError",
    "EngineLostError",
    "Evaluation",
    "GetTimeoutError",
    "InputValueError",
    "LatencyTarget",
    "ModelError",
    "ModelLoadError",
    "NativeFunction",
    "NativeFunctionError",
    "NonFiniteError",
    "Objective",
    "OptionError",
    "OutOfMemoryError",
    "ParrotError",
    "Row",
    "Rows",
    "SemanticFunction",
    "SemanticVariable",
    "Session",
    "SessionError",
    "TemplateError",
    "TokenLogprob",
    "TraceError",
    "Trial",
    "TruncatedError",
    "Tuning",
    "UnsupportedModelError",
    "UpstreamError",
    "UsageError",
    "VariableList",
    "Vote",
    "as_text",
    "best",
    "budget",
    "choose",
    "compare",
    "current_session",
    "evaluate",
    "explain",
    "first",
    "gather",
    "grammar",
    "join",
    "latency",
    "native_function",
    "plan",
    "reduce",
    "replay",
    "semantic_function",
    "split",
    "tune",
    "variable",
    "vote",
]


def load_ipython_extension(ip: InteractiveShell) -> None:
    """`%load_ext parrot_nb`: the magics, the live views and the interrupt handling. Loads no model and no torch."""
    from parrot_nb.notebook import load_ipython_extension as load

    load(ip)


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """The extension of JupyterLab and Notebook 7 in this package, for `jupyter labextension develop`."""
    return [{"src": "notebook/labextension", "dest": "parrot-nb"}]


def unload_ipython_extension(ip: InteractiveShell) -> None:
    """`%unload_ext parrot_nb`: take all of it back and close the default session."""
    from parrot_nb.notebook import unload_ipython_extension as unload

    unload(ip)
