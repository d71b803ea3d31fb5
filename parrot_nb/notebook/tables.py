"""Tables as still HTML and as text: of a map, an evaluation, a comparison or a tuning the summary and the first rows."""

from __future__ import annotations

from parrot_nb.language.escaping import UNTYPESET, escape, visible
from parrot_nb.language.notify import message_of
from parrot_nb.notebook.grid.cells import short_text
from parrot_nb.notebook.places import Bundle
from parrot_nb.notebook.report import Report, clipped
from parrot_nb.notebook.static import ICONS, MUTED, SANS, WORD_COLORS
from parrot_nb.tables import Comparison, Evaluation, Row, Rows, Tuning
from parrot_nb.tables.measuring import Measurement, Measuring

MAX_SHOWN = 10  # rows; each update sends them all


def still_bundle(source: Rows | Evaluation | Comparison | Tuning | Measuring, mark: str | None = None) -> Bundle:
    """What stands in a file of a map, an evaluation, a comparison or a tuning. Cells and values are somebody's words, and are shown as text.

    Args:
        source: what is shown, as it is now.
        mark: by which the page finds it.
    """
    match source:
        case Rows():
            html, plain = _rows_shown(source, _summary(source))
        case Tuning():
            headers, *cells = source.table or [[]]
            html = Report(source.summary, tuple(headers), tuple(map(tuple, cells)))._repr_html_()
            plain = repr(source)
        case Evaluation() | Comparison():
            sides = list(source.evaluations.values()) if isinstance(source, Comparison) else [source]
            headers, *cells = source.table or [[]]
            said = Report(source.summary, tuple(headers), tuple(map(tuple, cells)))
            html, plain = said._repr_html_(), repr(source)
            for each in sides:
                more, words = _rows_shown(each.rows, f"Rows of {each.name}")
                html, plain = f"{html}{more}", f"{plain}\n\n{words}"
        case _:
            shown = [_rows_shown(part.rows, _measured_so_far(part, is_over=source.is_over)) for part in source.parts]
            html, plain = "".join(html for html, _ in shown), "\n\n".join(plain for _, plain in shown)
    marked = "" if mark is None else f' data-parrot-view="{mark}"'
    return {"text/html": f'<div class="parrot-table {UNTYPESET}"{marked}>{html}</div>', "text/plain": plain}


def _measured_so_far(part: Measurement, *, is_over: bool) -> str:
    count, mean, interval = part.so_far()
    so_far = "" if is_over else " so far"
    said = f"{mean:.3f}{'' if interval is None else f' {interval!r}'} on {count:,} rows{so_far}" if count else "no row scored yet"
    return f"{part.name}, {part.metric}: {said}"


def _rows_shown(rows: Rows, title: str) -> tuple[str, str]:
    """A map as it is now, as HTML and as text."""
    counts = rows.counts
    shown = rows.head(MAX_SHOWN)
    inputs = list(dict.fromkeys(name for row in shown for name in row.inputs))
    outputs = [name if name not in inputs else f"{name} (output)" for name in rows.function.output_names]
    table = Report(
        title,
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
    return table._repr_html_() + line, visible(f"{table!r}\n{said}{_more(rows, shown)}")


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
    """A cell's text on one line; a gap in Python's words."""
    text = short_text(value)
    return clipped(repr(value) if text is None else text)
