"""Waiting for work that others may wait for too."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

T = TypeVar("T")


async def unbroken(work: asyncio.Future[T]) -> T:
    """Return the result of `work`, which goes on if whoever waits here is cancelled, and whose failure nobody need take.

    It stands for `asyncio.shield`, which from Python 3.14 on tells the loop's handler of a failure after that; ours fails all calls.
    """
    work.add_done_callback(_retrieved)
    await asyncio.wait({work})
    return work.result()


def _retrieved(work: asyncio.Future[Any]) -> None:
    """Take the failure, if there is one: untaken, it is told to the loop's handler when the future goes."""
    if not work.cancelled():
        work.exception()
