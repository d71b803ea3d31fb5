"""All that the side panel says of one row: the same as of a call of the graph, also when the call itself is gone."""

from __future__ import annotations

from typing import Any

from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import Usage
from parrot_nb.notebook import errors
from parrot_nb.notebook.grid.cells import full_text
from parrot_nb.notebook.widget.details import MAX_CHARS, details, prompt_segments, safe_repr
from parrot_nb.runtime.events import now_s
from parrot_nb.session import Session
from parrot_nb.tables import Row, Rows

PHASES = ("queued", "prefill", "decode")


def row_details(rows: Rows, position: int, session: Session) -> dict[str, Any]:
    """Return the contents of the panel for a row.

    Args:
        rows: of the map.
        position: of the row.
        session: that runs it, which knows why a call runs as it does.
    """
    row = rows[position]
    try:
        call = rows.call(position)
    except Exception:  # its cells cannot be used, which is its error
        call = None
    if call is not None and row.state == "running":
        return details(call, (), None, now_s(), session)
    outputs = _outputs(rows, row)
    return {
        "prompt": [] if call is None or call.kind != "semantic" else _prompt(call, outputs),
        "sharers": 0,
        "inputs": [
            {"parameter": name, "name": name, "producer": None, **_shown("done", cell)} for name, cell in row.inputs.items()
        ],
        "outputs": outputs,
        "why": [],
        "tokens": _tokens(row.usage),
        "seconds": [(phase, round(spent, 3)) for phase in PHASES if (spent := getattr(row.usage, f"{phase}_s"))],
        "engine": None,
        "error": [] if row.error is None else errors.rendered(row.error),
    }


def _outputs(rows: Rows, row: Row) -> list[dict[str, Any]]:
    values = rows.outputs(row.position)
    names = rows.function.output_names
    return [
        {"name": name, "finish": None, "note": None, "thinking": None, "scores": [], **_shown(row.state, value)}
        for name, value in zip(names, [None] * len(names) if values is None else values, strict=True)
    ]


def _prompt(call: Call, outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The prompt as the row's call had it: what was written stands in place of its outputs."""
    written = {output["name"]: output for output in outputs}
    return [
        {**segment, **{key: written[segment["name"]][key] for key in ("state", "text", "cut")}, "taken_back": ""}
        if segment["kind"] == "output" and segment.get("name") in written
        else segment
        for segment in prompt_segments(call, 0)
    ]


def _shown(state: str, value: Any) -> dict[str, Any]:
    text = full_text(value) if value is not None else ""
    text = safe_repr(value) if text is None else text  # NaN and its like
    return {"state": state, "text": text[:MAX_CHARS], "cut": max(0, len(text) - MAX_CHARS)}


def _tokens(usage: Usage) -> dict[str, Any]:
    counted = {kind: getattr(usage, f"{kind}_tokens") for kind in ("prefilled", "reused", "decoded", "guessed")}
    return {**counted, "memo": usage.from_memo}
