"""What `import parrot_nb as P` offers: exactly these names, each documented, each there without a model."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import parrot_nb as P
from parrot_nb import errors

ROOT = Path(__file__).parents[1]

# Notebooks outside this repository use these names: one that goes, or is renamed, breaks them.
PUBLIC = [
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
ERRORS = [name for name in PUBLIC if name.endswith("Error")]


def test_the_public_names_are_these():
    assert P.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(P, name)
    documented = type(value) if isinstance(value, P.Objective) else value
    assert (inspect.getdoc(documented) or "").strip()


@pytest.mark.parametrize("name", [name for name in PUBLIC if inspect.isclass(getattr(P, name))])
def test_a_class_has_a_docstring_of_its_own(name):
    assert (vars(getattr(P, name)).get("__doc__") or "").strip(), "an inherited docstring says nothing of this class"


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_a_parrot_error(name):
    assert issubclass(getattr(P, name), P.ParrotError)


def test_no_error_is_left_out():
    """The tree says that it has every one, and so do the names that can be caught."""
    defined = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, P.ParrotError)}
    assert defined == set(errors.__all__) == set(ERRORS)
    drawn = re.findall(r"^ *(?:[│ ]*[├└]── )?(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    assert sorted(drawn) == sorted(defined)


def test_errors_are_also_what_python_calls_them():
    assert issubclass(P.TemplateError, SyntaxError)
    assert issubclass(P.GetTimeoutError, TimeoutError)
    assert issubclass(P.UsageError, TypeError)


def test_a_session_takes_every_setting_of_another():
    with P.Session(load_timeout=90.0, step_timeout=30.0, engines=2) as session:
        settings = session.choice.settings
    with P.Session(**settings) as again:
        assert again.choice.settings == settings


def test_looking_at_all_public_names_starts_no_thread_and_loads_no_model():
    program = (
        "import sys, threading, parrot_nb as P\n"
        "[getattr(P, name) for name in P.__all__]\n"
        "loaded = sorted({'torch', 'transformers', 'IPython', 'ipykernel', 'numpy'} & set(sys.modules))\n"
        "sys.stdout.write(f'{threading.active_count()} {loaded}')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1 []"), done.stderr
