"""A `get()` on a running loop: whatever else runs on that loop goes on while it waits for what only a task there can set."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shorthand import WAIT_S, f, text_of

import parrot_nb as P

# One task: numbers are sleeps in ms (None: one turn of the loop), strings events that are set or awaited.
STEPS = st.one_of(
    st.sampled_from([None, None, 0, 1]),
    st.tuples(st.sampled_from(["set", "wait"]), st.integers(0, 2)),
)
PROGRAMS = st.lists(st.lists(STEPS, max_size=6), min_size=1, max_size=6)


async def run_program(session, tasks, read) -> tuple[list, list, str]:
    """What each task did, in its order; what went wrong on the loop; and what was read."""
    loop, wrong = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: wrong.append(context))
    done: list[list] = [[] for _ in tasks]
    events = [asyncio.Event() for _ in range(3)]
    source = P.variable("source")
    answer = f("Ask {{input:x}}: {{output:y}}")(source)

    async def run(i_task: int) -> None:
        for step in tasks[i_task]:
            if isinstance(step, tuple):
                event = events[step[1]]
                if step[0] == "set":
                    event.set()
                else:
                    await event.wait()
            elif step is None:
                await asyncio.sleep(0)
            else:
                await asyncio.sleep(step / 1000)
            done[i_task].append(step)

    async def last() -> None:
        await asyncio.sleep(0.003)
        for event in events:
            event.set()
        await asyncio.gather(*running)
        source.set("now")

    running = [asyncio.create_task(run(i_task)) for i_task in range(len(tasks))]
    setting = asyncio.create_task(last())
    if read == "get":
        text = answer.get(timeout=WAIT_S)
    else:
        text = await answer
    await asyncio.gather(*running, setting)
    await asyncio.sleep(0)
    return done, wrong, text


@settings(max_examples=40, deadline=None)
@given(PROGRAMS)
def test_tasks_run_as_they_do_when_it_is_awaited(make_session, tasks):
    with make_session(max_tokens=12) as session:
        got, awaited = (asyncio.run(run_program(session, tasks, read)) for read in ("get", "await"))
    assert got == awaited == (tasks, [], text_of("Ask now: "))


def test_handles_that_the_outer_run_has_counted_all_run_once(session):
    """The outer turn of the loop has counted 200 handles when the first of them waits and the inner run takes the others."""
    ran, wrong = [], []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: wrong.append(context))
        source = P.variable("source")
        loop.call_soon(lambda: ran.append(source.get(timeout=WAIT_S)))
        for i in range(200):
            loop.call_soon(ran.append, i)
        loop.call_soon(source.set, "set")
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert ran == [*range(200), "set"]
    assert wrong == []


def test_sockets_processes_and_threads_are_served_meanwhile(session):
    async def main() -> list[str]:
        first, second, third = (P.variable(name) for name in ("first", "second", "third"))

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            writer.close()

        async def by_socket() -> None:
            async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"echo\n")
                first.set((await reader.read()).decode().strip())
                writer.close()

        async def by_process() -> None:
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", "print('process')", stdout=subprocess.PIPE)
            second.set((await process.communicate())[0].decode().strip())

        async def by_thread() -> None:
            third.set(await asyncio.to_thread(lambda: "thread"))

        running = [asyncio.create_task(one()) for one in (by_socket, by_process, by_thread)]
        values = P.gather(first, second, third).get(timeout=WAIT_S)
        await asyncio.gather(*running)
        return values

    assert asyncio.run(main()) == ["ECHO", "process", "thread"]


def test_a_task_in_the_context_of_the_waiting_one_runs_after_it(session):
    """`Context.run` refuses a context that is entered; the task must wait, and not be lost."""
    kept = contextvars.ContextVar("kept", default="nothing")
    order = []

    async def main() -> None:
        source = P.variable("source")

        async def same() -> None:
            order.append(("same", kept.get()))

        async def sets() -> None:
            await asyncio.sleep(0.01)
            source.set("set")

        context = contextvars.copy_context()

        async def waits() -> None:
            kept.set("mine")
            running = asyncio.create_task(same(), context=context)
            order.append(source.get(timeout=WAIT_S))
            await running

        await asyncio.gather(asyncio.create_task(waits(), context=context), sets())

    asyncio.run(main())
    assert order == ["set", ("same", "mine")]


def test_the_loop_and_asyncio_are_left_as_they_were(session):
    async def main() -> None:
        loop, source = asyncio.get_running_loop(), P.variable("source")
        before = type(loop), asyncio.Task, asyncio.Future, asyncio.run, asyncio.get_event_loop
        current = asyncio.current_task()
        setting = asyncio.create_task(asyncio.to_thread(source.set, "set"))
        assert source.get(timeout=WAIT_S) == "set"
        assert (type(loop), asyncio.Task, asyncio.Future, asyncio.run, asyncio.get_event_loop) == before
        assert asyncio.current_task() is current
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_until_complete(setting)
        assert {*asyncio.all_tasks()} <= {current, setting}
        await setting

    asyncio.run(main())


def test_what_needs_no_task_blocks_the_loop_and_leaves_it_alone():
    code = """
import asyncio, sys
import parrot_nb as P
from hash_engine import HashEngine

ran = []

async def main():
    running = asyncio.create_task(other())
    text = P.SemanticFunction("Say {{output:y}}", name="f")().get()
    assert not ran and text
    await running

async def other():
    ran.append(1)

with P.Session(model="hash", loader=lambda model, on_step: HashEngine(model), max_tokens=12):
    asyncio.run(main())
assert ran and "nest_asyncio2" not in sys.modules
"""
    run_script(code)


def test_a_timeout_ends_the_wait(session):
    async def main() -> int:
        source, ticks = P.variable("source"), 0

        async def count() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        counting = asyncio.create_task(count())
        with pytest.raises(P.GetTimeoutError, match=r"'y' is still pending after 0\.1 s"):
            f("{{input:x}} {{output:y}}")(source).get(timeout=0.1)
        with pytest.raises(P.GetTimeoutError, match="'source'"):
            source.get(timeout=0)
        counting.cancel()
        return ticks

    assert asyncio.run(main()) > 1


@pytest.mark.parametrize("read", ["get", "await"])
def test_cancelling_the_task_ends_the_wait(session, read):
    async def main() -> None:
        source, after = P.variable("source"), []

        async def waits() -> None:
            try:
                if read == "get":
                    source.get(timeout=WAIT_S)
                else:
                    await source
            finally:
                after.append("left")

        waiting = asyncio.create_task(waits())
        asyncio.get_running_loop().call_later(0.05, waiting.cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert after == ["left"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waits(), 0.05)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await waits()

    asyncio.run(main())


def test_a_loop_that_stops_ends_the_wait(session):
    loop, left = asyncio.new_event_loop(), []

    async def waits() -> None:
        try:
            P.variable("source").get(timeout=WAIT_S)
        except asyncio.CancelledError:
            left.append("cancelled")
            raise

    waiting = loop.create_task(waits())
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    assert left == ["cancelled"]
    assert waiting.cancelled() or loop.run_until_complete(asyncio.wait([waiting]))
    loop.close()


def test_a_second_one_inside_is_refused_with_its_remedy(session):
    """The first could return only after it; where it waits for what follows the first, neither ever would."""

    async def main() -> None:
        first, second = P.variable("first"), P.variable("second")

        async def inside() -> str:
            try:
                with pytest.raises(P.SessionError, match=r"'second' waits for 'second', .* or await second instead of get\(\)"):
                    second.get()
                assert f("Say {{output:y}}")().get(timeout=WAIT_S) == text_of("Say ")
            finally:
                first.set("go on")
            return await second

        running = asyncio.create_task(inside())
        assert first.get(timeout=WAIT_S) == "go on"
        second.set("end")
        assert await running == "end"

    asyncio.run(main())


def test_each_thread_may_wait_on_a_loop_of_its_own(session):
    both, values = threading.Barrier(2), []

    async def main(name: str) -> None:
        source = P.variable(name)

        async def sets() -> None:
            await asyncio.to_thread(both.wait, WAIT_S)  # both are waiting now
            source.set(name)

        setting = asyncio.create_task(sets())
        values.append(source.get(timeout=WAIT_S))
        await setting

    threads = [threading.Thread(target=asyncio.run, args=(main(name),)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(values) == ["a", "b"]


def test_async_native_functions_are_told_to_await(session):
    @P.native_function
    async def blocks() -> str:
        return P.variable("source").get()

    with pytest.raises(P.SessionError, match="await the variable instead"):
        blocks().get(timeout=WAIT_S)


def test_a_loop_that_tornado_shares_is_refused(session):
    code = """
import asyncio
import parrot_nb as P
from tornado.ioloop import IOLoop

async def main():
    IOLoop.current()
    try:
        P.variable("source").get()
    except P.SessionError as error:
        assert "await source instead" in str(error)
    else:
        raise AssertionError

with P.Session(model="none"):
    asyncio.run(main())
"""
    run_script(code)


INTERRUPTED = """
import asyncio, os, signal, sys, threading, time
import parrot_nb as P
from hash_engine import HashEngine

session = P.Session(model="hash", loader=lambda model, on_step: HashEngine(model), max_tokens=12)

def read():
    {read}

async def main():
    other = asyncio.create_task(spin())
    await asyncio.sleep(0)
    threading.Thread(target=interrupt).start()
    try:
        read()
    except BaseException as error:
        print("left", type(error).__name__)
        raise
    finally:
        print("other is", "ended" if other.done() else "alive")
        other.cancel()

def interrupt():
    while not waits():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

def waits():
    frame = sys._current_frames()[threading.main_thread().ident]
    found = set()
    while frame is not None:
        found.add((frame.f_code.co_name, os.path.basename(frame.f_code.co_filename)))
        frame = frame.f_back
    return ("_run_once", "nest_asyncio2.py") in found or {{("wait_until_final", "waiting.py"), ("wait", "threading.py")}} <= found

async def spin():
    while True:
        sum(range(1000))
        await asyncio.sleep(0)

try:
    with session:
        {run}
except KeyboardInterrupt:
    print("interrupted")
"""
EMPTY, HANGS = 'P.variable("source").get()', 'P.SemanticFunction("HANG {{output:y}}", name="f")().get()'
RUNNER = "asyncio.run(main())"
PLAIN = """loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(main())
        finally:
            loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True))"""


@pytest.mark.parametrize(
    ("read", "run", "printed"),
    [
        (EMPTY, RUNNER, ["left CancelledError", "interrupted"]),
        (EMPTY, PLAIN, ["left KeyboardInterrupt", "other is alive", "interrupted"]),
        (HANGS, RUNNER, ["left CancelledError", "interrupted"]),
        (HANGS, PLAIN, ["left KeyboardInterrupt", "other is alive", "interrupted"]),
    ],
)
def test_one_interrupt_ends_a_script(read, run, printed):
    lines = run_script(INTERRUPTED.format(read=read, run=run)).splitlines()
    assert [line for line in lines if line in printed] == printed, lines
    assert "other is ended" not in lines


def run_script(code: str) -> str:
    """What a script prints; it must end by itself and without an error."""
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout
