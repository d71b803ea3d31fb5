"""A session as a file: a page to read, a script to run, a trace to look at or to play again, the graph for a paper. The suffix
says which."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parrot_nb.errors import TraceError
from parrot_nb.language import SemanticVariable, VariableList
from parrot_nb.notebook.dot import FORMATS, SOURCES, drawn
from parrot_nb.notebook.page import page, version_of
from parrot_nb.notebook.script import script_of
from parrot_nb.notebook.state import GraphState
from parrot_nb.record import catch_up, write_trace
from parrot_nb.runtime.events import Event, SessionReset
from parrot_nb.session import Session

KINDS = {".html": "a page", ".py": "a script", ".json": "a trace"} | dict.fromkeys([*FORMATS, *SOURCES], "the graph")
USUAL = {
    "device": "auto",
    "dtype": "auto",
    "kv_memory": None,
    "max_context": None,
    "trust_remote_code": False,
    "compile": False,
    "sampling": "greedy",
    "reproducible": False,
    "quantize": "none",
}


def export(session: Session, path: str | Path, namespace: Mapping[str, Any] | None = None) -> str:
    """Write a session as `.html` (a report that needs nothing else), `.py` (its calls as a script), `.json` (a trace for
    Perfetto and `P.replay`), or its graph as `.svg`, `.pdf`, `.png` (drawn by Graphviz) or `.dot` (to be drawn by it);
    returns a sentence that says what was written.

    Args:
        session: whose calls are written, those that still run as far as they have come.
        path: of the file; one that is there is replaced.
        namespace: of the notebook, for the names of variables.

    Raises:
        TraceError: another suffix, no such folder, nothing to export, no Graphviz, or what a script cannot hold.
    """
    target = Path(path).expanduser()
    if target.suffix.lower() not in KINDS:
        raise TraceError(
            f"'{path}' says by its suffix what to write: .html for a report, .py for a script, .json for a trace, "
            ".svg, .pdf, .png or .dot for the graph."
        )
    if not target.parent.is_dir():
        raise TraceError(f"There is no folder '{target.parent}': make it first.")
    session.flush()
    catch_up(session)
    events = _since_reset(session.events.since(0))
    if not session.calls():
        raise TraceError("There is nothing to export: make a call first.")
    made_by = version_of("parrot-nb")
    try:
        match target.suffix.lower():
            case ".html":
                target.write_text(page(events, session.variables(), session.models()), encoding="utf-8")
            case ".py":
                names, lists = _names(namespace or {})
                text = script_of(session.calls(), names, lists, _settings(session), version=made_by)
                target.write_text(text, encoding="utf-8")
            case suffix if suffix in FORMATS or suffix in SOURCES:
                state = GraphState()
                state.add(events)
                target.write_bytes(drawn(state, suffix))
            case _:
                write_trace(target, events, made_by=f"parrot_nb {made_by or ''}".strip())
    except OSError as error:
        raise TraceError(f"'{target}' cannot be written: {error.strerror or error}.") from None
    return f"{KINDS[target.suffix.lower()]} of {len(session.calls())} calls: {target} ({_size(target.stat().st_size)})"


def _since_reset(log: list[Event]) -> list[Event]:
    """Return the events since the last reset: those that it has forgotten are not written."""
    resets = [i for i, event in enumerate(log) if isinstance(event, SessionReset)]
    return log[resets[-1] + 1 :] if resets else log


def _names(namespace: Mapping[str, Any]) -> tuple[dict[int, str], dict[int, str]]:
    """Return the notebook's names for its variables, by node, the shortest of several; and in which list each is."""
    names: dict[int, str] = {}
    lists: dict[int, str] = {}
    for name, value in sorted(namespace.items(), key=lambda item: (len(item[0]), item[0])):
        if name.startswith("_"):
            continue
        if isinstance(value, SemanticVariable):
            names.setdefault(value.node.id, name)
        elif isinstance(value, tuple) and hasattr(value, "_fields") and all(isinstance(v, SemanticVariable) for v in value):
            for field, variable in zip(value._fields, value, strict=True):
                names.setdefault(variable.node.id, f"{name}.{field}")
        elif isinstance(value, VariableList) and len(value):
            names.setdefault(value[0].node.id, name)
            lists = {**dict.fromkeys((node.id for node in value.nodes), name), **lists}
    return names, lists


def _settings(session: Session) -> dict[str, Any]:
    """Return the settings that a script must give to get such a session."""
    said: dict[str, Any] = {} if session.choice.said is None else {"model": session.choice.said}
    said |= {k: v for k, v in session.choice.settings.items() if k in USUAL and v != USUAL[k]}
    if session.choice.settings["off"]:
        said["off"] = list(session.choice.settings["off"])
    return {**said, **session.options.said()}


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1000:.0f} kB" if num_bytes < 1e6 else f"{num_bytes / 1e6:.1f} MB"
