"""`%%parrot compare --off sharing --off memo,drafts`: a cell under several settings, side by side.

Each setting has a session of its own on the same model, which forgets all before each run. The settings of a small model take
turns, so that what else the machine does falls on all of them. The notebook keeps the variables of the very first run, which
has the present settings.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from IPython.core.error import UsageError
from IPython.utils.capture import capture_output

from parrot_nb.errors import ParrotError
from parrot_nb.language import SemanticFunction
from parrot_nb.language.escaping import UNTYPESET, escape
from parrot_nb.notebook.commands import known_names
from parrot_nb.notebook.report import Report, report
from parrot_nb.notebook.static import INK, LINE, MUTED, SANS
from parrot_nb.notebook.timeaxis import duration
from parrot_nb.notebook.timeline import SPAN_COLORS, render_timeline_html, render_timeline_text
from parrot_nb.notebook.waiting import wait_in_cell
from parrot_nb.record import Timeline, TimelineFold, catch_up, summed
from parrot_nb.session import Session
from parrot_nb.tables import Rows

SMALL_PARAMETERS = 300_000_000  # of models of which several may be in memory at once, so that their runs can take turns
REPEATS = 3  # of each setting: fewer tell no difference from noise
WARM_UP = "Warm up.{{output:text, max_tokens=2, ignore_eos=True}}"  # a first step pays for what the process sets up once


@dataclass(frozen=True, slots=True)
class Run:
    """Outcome of the cell under one setting.

    Attributes:
        label: the setting.
        timeline: that of the run whose seconds are the median.
        same: whether its texts are those of the first run.
        seconds: of every run, the shortest first.
    """

    label: str
    timeline: Timeline
    same: bool
    seconds: tuple[float, ...] = ()

    @property
    def range_s(self) -> tuple[float, float]:
        """Seconds of the quickest and of the slowest run."""
        seconds = self.seconds or (self.timeline.busy_s,)
        return min(seconds), max(seconds)

    @property
    def figures(self) -> tuple[float, int, int, int, int]:
        """Seconds, tokens prefilled, reused and decoded, and steps."""
        used = summed(call.usage for call in self.timeline.calls)
        return (
            self.timeline.busy_s,
            used.prefilled_tokens,
            used.reused_tokens,
            used.decoded_tokens,
            len(self.timeline.steps),
        )


def settings_of(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Parse the magic's words into the names that each run after the first does without.

    Raises:
        UsageError: no `--off`, or a name that there is not.
    """
    found: list[tuple[str, ...]] = []
    left = list(words)
    while left:
        word, equals, value = left.pop(0).partition("=")
        if word != "--off":
            raise UsageError(f"%%parrot compare has no option '{word}': write --off NAME, once for each run to compare with.")
        if not equals:
            if not left or left[0].startswith("--"):
                raise UsageError(f"--off needs a name, or several with commas: choose from {', '.join(known_names())}.")
            value = left.pop(0)
        names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
        if unknown := next((name for name in names if name not in known_names()), None):
            raise UsageError(f"There is no '{unknown}' to turn off: choose from {', '.join(known_names())}.")
        if not names:
            raise UsageError(f"--off needs a name: choose from {', '.join(known_names())}.")
        found.append(names)
    if not found:
        raise UsageError("%%parrot compare needs something to compare with, such as --off sharing.")
    return list(dict.fromkeys(found))


def compare(shell: Any, session: Session, settings: Sequence[tuple[str, ...]], cell: str) -> Comparison:
    """Run a cell as it is, and without each of these; the notebook keeps the variables of the first run.

    Raises:
        UsageError: the cell is no plain Python code, or makes no calls.
    """
    code = compiled_cell(shell, cell, "compare")
    usual = tuple(session.choice.settings["off"])
    settings = [(), *settings]
    found: dict[tuple[str, ...], list[Timeline]] = {names: [] for names in settings}
    differing: set[tuple[str, ...]] = set()
    texts: list[str] = []
    together = sum(info.num_parameters for info in session.models()) <= SMALL_PARAMETERS
    order = settings * REPEATS if together else [names for names in settings for _ in range(REPEATS)]
    variants: dict[tuple[str, ...], Session] = {}
    with contextlib.ExitStack() as opened:
        for names in order:
            if names not in variants:
                if not together:
                    opened.close()
                variants[names] = opened.enter_context(_variant(session, (*usual, *names)))
            first = not any(found.values())
            kept = contextlib.nullcontext() if first else capture_output()
            with variants[names] as other, kept, namespace(shell, keep=first) as scope:
                other.reset()  # nothing is cached, and nothing known
                start = len(other.events)
                exec(code, scope)  # noqa: S102 - the user's own cell, in the user's own namespace
                mapped = [value for value in scope.values() if isinstance(value, Rows) and value.session is other]
                _finish(other, mapped)
                timeline = TimelineFold.of(other.events.since(start)).timeline()
                written = _written(other, mapped)
            if not timeline.calls:
                raise UsageError("The cell makes no calls: there is nothing to compare.")
            texts = texts or written
            differing |= {names} if written != texts else set()
            found[names].append(timeline)
    return Comparison(tuple(_run(names, timelines, same=names not in differing) for names, timelines in found.items()))


def _run(names: tuple[str, ...], timelines: Sequence[Timeline], *, same: bool) -> Run:
    ordered = sorted(timelines, key=lambda timeline: timeline.busy_s)
    label = f"without {', '.join(names)}" if names else "as it is"
    return Run(label, ordered[len(ordered) // 2], same, tuple(timeline.busy_s for timeline in ordered))


def compiled_cell(shell: Any, cell: str, word: str) -> Any:
    """The code of a cell under `%%parrot WORD`. Raises UsageError where it is no plain Python."""
    try:
        source = shell.transform_cell(cell)
        return compile(ast.parse(source, f"<{word}>"), f"<{word}>", "exec", dont_inherit=True)
    except SyntaxError as error:
        hint = ": use get() in place of await" if "await" in str(error) else ""
        raise UsageError(f"%%parrot {word} runs plain Python code{hint} ({error.msg}, line {error.lineno}).") from None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


@contextlib.contextmanager
def _variant(session: Session, off: tuple[str, ...]) -> Iterator[Session]:
    """A session like this one, warm, whose calls those made inside are."""
    loads: Mapping[str, Any] = {**session.choice.settings, "off": tuple(dict.fromkeys(off))}
    kind: dict[str, Any] = {"eager": session.eager, "isolate": session.isolate, "loader": session.loader}
    other = Session(session.choice.said, policy=session.policy, **kind, **loads, **session.options.said())
    other.waiter = wait_in_cell
    with other:
        SemanticFunction(WARM_UP)().get()
        yield other


@contextlib.contextmanager
def namespace(shell: Any, *, keep: bool) -> Iterator[dict[str, Any]]:
    """The notebook's variables, put back afterwards unless they are to be kept."""
    scope: dict[str, Any] = shell.user_ns
    before = dict(scope)
    try:
        yield scope
    finally:
        if not keep:
            for name in [name for name in scope if name not in before]:
                del scope[name]
            scope.update(before)


def _written(session: Session, mapped: Sequence[Rows]) -> list[Any]:
    """Texts of the calls; of maps over tables, whose calls are not kept, the values of the rows."""
    if mapped:
        return [rows.outputs(position) for rows in mapped for position in range(len(rows))]
    return [node.text for node in session.variables() if node.producer is not None and node.state == "done"]


def _finish(session: Session, mapped: Sequence[Rows]) -> None:
    """Wait for the calls that the cell made and did not read, as the cell's end would have them run."""
    for rows in mapped if session.eager else ():
        with contextlib.suppress(ParrotError):  # of a row, which it keeps
            rows.get()
    session.flush()
    catch_up(session)  # it knows the calls now
    if session.eager:
        wait_in_cell(session, [node for node in session.variables() if node.producer is not None and not node.final], None)
    catch_up(session)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The runs of a cell: a table, and a timeline for each setting."""

    runs: tuple[Run, ...]

    def table(self) -> Report:
        """A row for each setting; the ratio is of its median seconds to those of the first."""
        first_s = self.runs[0].figures[0]
        rows = []
        for run in self.runs:
            seconds, *counts = run.figures
            spread = " to ".join(dict.fromkeys(map(duration, run.range_s)))
            rows.append(
                (run.label, duration(seconds), spread, self._ratio(run, first_s), *(f"{n:,}" for n in counts), self._said(run))
            )
        headers = ("setting", "median", "range", "ratio", "prefilled", "reused", "decoded", "steps", "")
        return report(f"The cell under several settings, {_times(len(self.runs[0].seconds) or 1)} each", rows, headers)

    def _ratio(self, run: Run, first_s: float) -> str:
        """A ratio where the ranges are apart; else they tell no difference."""
        (low, high), (first_low, first_high) = run.range_s, self.runs[0].range_s
        if run is not self.runs[0] and low <= first_high and first_low <= high:
            return "no difference"
        return f"{run.figures[0] / first_s:.2f}×" if first_s else ""

    @staticmethod
    def _said(run: Run) -> str:
        return "" if run.same else "other text"

    def __repr__(self) -> str:
        return "\n\n".join([repr(self.table()), *(f"{run.label}: {render_timeline_text(run.timeline)}" for run in self.runs)])

    def _repr_html_(self) -> str:
        return f'<div class="parrot-compare {UNTYPESET}">{self._bars()}{"".join(self._timelines())}</div>'

    def _timelines(self) -> Iterator[str]:
        most_s = max(run.figures[0] for run in self.runs)
        for run in self.runs:
            picture = render_timeline_html(run.timeline, least_s=most_s)
            opened = " open" if run is self.runs[0] or len(self.runs) <= 3 else ""
            yield (
                f'<details{opened} style="padding-top:10px"><summary style="font:600 13px {SANS};color:{INK};cursor:pointer">'
                f"{escape(run.label)}</summary>{picture}</details>"
            )

    def _bars(self) -> str:
        """The table, its seconds as bars to one scale."""
        table = self.table()
        most = max(run.figures[0] for run in self.runs) or 1.0
        cell = f"padding:4px 16px 4px 0;border-bottom:1px solid {LINE};white-space:nowrap"
        number = f"{cell};text-align:right;font-variant-numeric:tabular-nums"
        head = "".join(
            f'<th style="{number if i else cell};color:{MUTED};font-weight:600;text-align:{"right" if i else "left"}">{escape(h)}</th>'
            for i, h in enumerate(table.headers)
        )
        rows = []
        for run, row in zip(self.runs, table.rows, strict=True):
            length = 160 * run.figures[0] / most
            shade = f"background-color:{SPAN_COLORS['decode']};opacity:{1 if run is self.runs[0] else 0.6}"
            bar = f'<span style="display:inline-block;height:10px;border-radius:2px;width:{length:.0f}px;{shade}"></span>'
            cells = "".join(f'<td style="{number}">{escape(c)}</td>' for c in row[1:])
            rows.append(f'<tr><td style="{cell};text-align:left;font-weight:600">{escape(row[0])}<br>{bar}</td>{cells}</tr>')
        return (
            f'<table style="border-collapse:collapse;font:13px {SANS};color:{INK};margin:0 0 6px"><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table>"
        )
