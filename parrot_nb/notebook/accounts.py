"""Table of token counts and timings of a session's calls."""

from __future__ import annotations

from parrot_nb.notebook.report import Report, report
from parrot_nb.notebook.timeaxis import duration
from parrot_nb.record import FunctionUsage, Timeline, TimelineFold, account, total
from parrot_nb.session import Session

HEADERS = ("function", "calls", "prefilled", "reused", "decoded", "guessed", "from memo", "waited", "computed")


def accounts_of(session: Session) -> Report | None:
    """The table of a session; None before its first call."""
    return accounts(TimelineFold.of(session.events.since(0)).timeline())


def accounts(timeline: Timeline) -> Report | None:
    """Tokens and seconds by function, and all together where there are several; None where nothing ran."""
    rows = account(timeline)
    if not rows:
        return None
    shown = [_row(row) for row in ([*rows, total(rows)] if len(rows) > 1 else rows)]
    return report("What the calls took: tokens, and seconds of all calls added up", shown, HEADERS)


def _row(row: FunctionUsage) -> tuple[str, ...]:
    used = row.usage
    counts = (used.prefilled_tokens, used.reused_tokens, used.decoded_tokens, used.guessed_tokens, row.num_from_memo)
    seconds = (duration(s) if s else "" for s in (row.waited_s, row.computed_s))
    return (row.function, f"{row.num_calls:,}", *(f"{n:,}" if n else "" for n in counts), *seconds)
