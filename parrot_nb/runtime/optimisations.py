"""Optimisations that a session can do without, to see what each is worth."""

OPTIMISATIONS = ("memo", "dead_work", "prefill_ahead", "streaming")  # engines have their own
