"""A map over a table on the page: what has become of its rows, and the first of them, filling in as they come."""

from __future__ import annotations

from parrot_nb.errors import InputValueError
from parrot_nb.language.escaping import UNTYPESET, escape, visible
from parrot_nb.language.notify import message_of
from parrot_nb.language.text import to_text
from parrot_nb.notebook.report import Report, clipped
from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.static import ICONS, MUTED, SANS, WORD_COLORS
from parrot_nb.notebook.views import Bundle, View
from parrot_nb.notebook.widget.details import safe_repr
from parrot_nb.tables import Comparison, Evaluation, Row, Rows, Tuning

MAX_SHOWN = 10  # rows; each update sends them all


class RowsView(View):
    """A summary of a map and its first rows.

    Args:
        rows: of the map.
    """

    remedy = "This output is not updated: to_frame() waits for the rows."

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self._rows = rows

    def bundle(self, _state: GraphState) -> Bundle:
        """Return the summary and the first rows."""
        return rows_bundle(self._rows)

    def settled(self, _state: GraphState) -> bool:
        """Whether all rows have ended."""
        return self._rows.done()


def rows_bundle(rows: Rows) -> Bundle:
    """A map as it is now, as HTML and as text. Cells and values are somebody's words, and are shown as text."""
    counts = rows.counts
    shown = rows.head(MAX_SHOWN)
    inputs = list(dict.fromkeys(name for row in shown for name in row.inputs))
    outputs = [name if name not in inputs else f"{name} (output)" for name in rows.function.output_names]
    table = Report(
        _summary(rows),
        ("", *inputs, *outputs, "state"),
        tuple(
            (str(row.position), *(_cell(row.inputs.get(name)) for name in inputs), *_outputs(row, len(outputs)), row.state)
            for row in shown
        ),
    )
    words = " · ".join(
        f'<span style="color:{WORD_COLORS[state]}">{ICONS[state]}</span> {count:,} {state}' for state, count in counts.items()
    )
    line = f'<div class="{UNTYPESET}" style="font:12px {SANS};color:{MUTED};padding:3px 0 4px">{words}{escape(_more(rows, shown))}</div>'
    said = ", ".join(f"{ICONS[state]} {count:,} {state}" for state, count in counts.items())
    return {"text/html": table._repr_html_() + line, "text/plain": visible(f"{table!r}\n{said}{_more(rows, shown)}")}


def measured_html(measured: Evaluation | Comparison | Tuning) -> str:
    """A score, a comparison or a tuning as HTML."""
    headers, *rows = measured.table or [[]]
    return Report(measured.summary, tuple(headers), tuple(map(tuple, rows)))._repr_html_()


def _summary(rows: Rows) -> str:
    count = rows.num_rows
    known = "rows, more to come" if count is None else f"{count:,} row{'s' * (count != 1)}"
    return f"{rows.function.name}: {known}"


def _more(rows: Rows, shown: list[Row]) -> str:
    count = rows.num_rows
    if count is not None and count <= len(shown):
        return ""
    return f"; the first {len(shown)} are shown, to_frame() has all"


def _outputs(row: Row, count: int) -> list[str]:
    if row.error is not None:
        return [clipped(message_of(row.error)), *[""] * (count - 1)]
    if row.state != "done":
        return [""] * count
    return [_cell(value) for value in (row.value if count > 1 else [row.value])]


def _cell(value: object) -> str:
    """A cell's text on one line; of what has none, its repr."""
    try:
        return clipped(to_text(value, "a cell"))
    except InputValueError:
        return clipped(visible(safe_repr(value)))
    except Exception:  # cells are of anybody's classes
        return f"<{type(value).__name__}>"
