"""Accounts of a recorded session: who did what when, trace files, replays. Pure functions of the event log."""

from parrot_nb.record.accounting import FunctionUsage, account, total
from parrot_nb.record.catch_up import catch_up
from parrot_nb.record.progress import ProgressLine
from parrot_nb.record.replay import Replay, replay
from parrot_nb.record.timeline import (
    SPAN_KINDS,
    SPAN_WORDS,
    CallTimes,
    Span,
    SpanKind,
    Timeline,
    TimelineFold,
    summed,
)
from parrot_nb.record.trace import read_trace, trace_of, write_trace

__all__ = [
    "SPAN_KINDS",
    "SPAN_WORDS",
    "CallTimes",
    "FunctionUsage",
    "ProgressLine",
    "Replay",
    "Span",
    "SpanKind",
    "Timeline",
    "TimelineFold",
    "account",
    "catch_up",
    "read_trace",
    "replay",
    "summed",
    "total",
    "trace_of",
    "write_trace",
]
