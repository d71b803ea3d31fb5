"""Waiting for the log: what a session tells its runtime is recorded a moment later."""

from __future__ import annotations

from typing import Protocol


class Recorded(Protocol):
    """A session, or what replays one."""

    @property
    def idle(self) -> bool:
        """Whether nothing runs; the runtime answers when it has done all that it was told before."""


def catch_up(session: Recorded) -> None:
    """Return when all that the session told its runtime before is done and in its log, as is the end of every call whose value
    somebody has read: a round trip through the runtime."""
    _ = session.idle
