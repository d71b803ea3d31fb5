"""`%%parrot plan`: the calls of a cell, analysed and not run."""

from __future__ import annotations

from typing import Any

from IPython.core.error import UsageError

from parrot_nb.language.host import Entered
from parrot_nb.notebook.compare import compiled_cell, namespace
from parrot_nb.session import Plan, Session
from parrot_nb.session.plan_host import PlanEnd, PlanHost

FILE = "<plan>"  # what the cell's code is called in tracebacks


def plan_cell(shell: Any, session: Session, cell: str) -> Plan:
    """Build the calls of a cell, up to where it reads a value, and plan them. The notebook's variables stay as they are.

    Raises:
        UsageError: the cell is no plain Python code, or makes no calls.
    """
    code, host, note = compiled_cell(shell, cell, "plan"), PlanHost(session), ""
    entered = Entered(host)
    try:
        with namespace(shell, keep=False) as scope:
            exec(code, scope)  # noqa: S102 - the user's own cell, in the user's own namespace
    except PlanEnd as end:
        note = f"line {_line(end)} of the cell reads '{end}', so that what comes after it is not planned"
    finally:
        entered.leave()
    if not host.calls:
        raise UsageError("The cell makes no calls: there is nothing to plan.")
    made = session.plan(host.calls)
    made.note = note
    return made


def _line(end: PlanEnd) -> int:
    """Return the line of the cell that read a value; below the magic's own, so that it counts as the notebook does."""
    trace, line = end.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line + 1
