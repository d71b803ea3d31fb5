"""What a session recorded, told again: who did what when, and what it took. Pure functions of the event log."""

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

__all__ = ["SPAN_KINDS", "SPAN_WORDS", "CallTimes", "Span", "SpanKind", "Timeline", "TimelineFold", "summed"]
