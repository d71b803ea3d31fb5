"""Work that several wait for goes on when one of them gives up, and its failure is nobody else's."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from parrot_nb.engine.waits import unbroken


def told(main) -> list[str]:
    """What the loop's handler of failures hears while `main` runs, and when its futures go."""
    heard: list[str] = []

    async def whole() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["message"]))
        await main()
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(whole())
    return heard


def test_who_gives_up_does_not_end_the_work():
    async def main():
        work = asyncio.get_running_loop().create_future()
        first, second = (asyncio.create_task(unbroken(work)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        work.set_result(7)
        assert await second == 7
        assert first.cancelled()

    assert told(main) == []


def test_a_failure_after_everybody_gave_up_is_told_to_nobody():
    async def main():
        goes_on = Event()

        def fail():
            goes_on.wait(60)
            raise ValueError("too late")

        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(fail)
            waits = asyncio.create_task(unbroken(asyncio.wrap_future(job)))
            await asyncio.sleep(0)
            waits.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits
            goes_on.set()
            assert isinstance(await asyncio.to_thread(job.exception), ValueError)
        assert not job.cancelled()

    assert told(main) == []


def test_a_failure_reaches_who_waits():
    async def main():
        async def fail():
            raise ValueError("no tables")

        with pytest.raises(ValueError, match="no tables"):
            await unbroken(asyncio.create_task(fail()))

    assert told(main) == []
