"""What a session does, it does alike with a runtime in a process of its own and with one in a thread."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from side import WAIT_S, pid_of, until, write

import parrot_nb as P
from parrot_nb.runtime import messages
from parrot_nb.tiny import default_model

ENDLESS = {"ignore_eos": True, "max_tokens": 400, "fresh": True}


def test_it_is_where_it_says(session, isolate):
    write()("a").get(timeout=WAIT_S)
    assert session.place.startswith("in a process of its own" if isolate else "in a thread of this process")
    assert [model.id for model in session.models()] == ["parrot-tiny"]


def test_calls_chains_and_joins(session):
    step = write()
    first = step("a")
    second = step(first)
    values = (first.get(timeout=WAIT_S), second.get(timeout=WAIT_S))
    assert values[0]
    assert step(values[0]).get(timeout=WAIT_S) == values[1]
    assert ("<" + first + "|" + second + ">").get(timeout=WAIT_S) == f"<{values[0]}|{values[1]}>"
    assert P.join([first, second], " + ").get(timeout=WAIT_S) == " + ".join(values)
    assert P.gather(first, second).get(timeout=WAIT_S) == list(values)


def test_several_outputs_of_one_call(session):
    two = P.SemanticFunction("A{{output:a, max_tokens=3}}B{{output:b, max_tokens=2}}", name="two")
    result = two()
    assert [result.b.get(timeout=WAIT_S), result.a.get(timeout=WAIT_S)] == [result.b.node.value, result.a.node.value]
    assert result.a.usage.decoded_tokens <= 3


def test_streams_are_the_values(session):
    async def pieces(variable):
        return [piece async for piece in variable.stream()]

    async def read():
        streamed = write(max_tokens=30, ignore_eos=True, fresh=True)("a")
        heard = await pieces(streamed)
        return heard, await streamed, await pieces(streamed)

    heard, value, again = asyncio.run(read())
    assert "".join(heard) == value == "".join(again)
    assert len(heard) > 1


def test_an_edge_streams(session):
    first = write(max_tokens=30, ignore_eos=True, fresh=True)("a")
    second = write()(first)
    value = second.get(timeout=WAIT_S)
    assert write(fresh=True)(first.get()).get(timeout=WAIT_S) == value


def test_options_reach_the_engine(session):
    draw = write(temperature=3.0, seed=5, max_tokens=12, fresh=True)
    assert draw("a").get(timeout=WAIT_S) == draw("a").get(timeout=WAIT_S)
    assert len(set(draw.options(seed=6).map(range(6)).get(timeout=WAIT_S))) > 3
    plain = write(max_tokens=12, ignore_eos=True)("a")
    text = plain.get(timeout=WAIT_S)
    assert (plain.usage.decoded_tokens, plain.finish) == (12, "length")
    begun = write(begin="Well, ")("a").get(timeout=WAIT_S)
    assert begun.startswith("Well, ")
    stop = text[len(text) // 2]
    stopped = write(max_tokens=12, ignore_eos=True, stop=stop)("a")
    assert stopped.get(timeout=WAIT_S) == text.split(stop)[0]
    assert stopped.finish == "stop"


def test_options_that_cannot_be_used_are_refused_at_once(session):
    with pytest.raises(P.OptionError, match="temperature"):
        write().options(temperature=-1)
    with pytest.raises(P.ModelLoadError, match="no folder"):
        write(model="/nowhere/at/all")("a").get(timeout=WAIT_S)


@pytest.mark.parametrize(
    "settings", [{"device": object()}, {"dtype": int}, {"max_context": 2**70}, {"kv_memory": 1 + 2j}], ids=lambda s: next(iter(s))
)
def test_settings_that_are_no_data_are_refused_at_once(session, isolate, settings):
    with pytest.raises(P.SessionError, match=f"{next(iter(settings))} must be a plain number or string"):
        P.Session(isolate=isolate, **settings)
    with pytest.raises(P.SessionError, match="must be a plain number or string"):
        session.load_model(str(default_model()), **settings)


def test_logprobs_and_usage(session):
    variable = write(logprobs=2, max_tokens=5, ignore_eos=True, fresh=True)("a")
    value = variable.get(timeout=WAIT_S)
    assert "".join(token.text for token in variable.logprobs) == value
    assert all(token.logprob <= 0 and len(token.others) == 2 for token in variable.logprobs)
    assert variable.usage.decoded_tokens == 5
    assert variable.usage.prefilled_tokens + variable.usage.reused_tokens > 0
    assert variable.usage.prefill_s > 0


def test_a_model_that_cannot_think_does_not(session):
    variable = write(thinking=False)("a")
    assert variable.get(timeout=WAIT_S) == write()("a").get(timeout=WAIT_S)
    assert variable.thinking is None


def test_equal_calls_are_made_once(session):
    first = write()("memo")
    value = first.get(timeout=WAIT_S)
    again = write()("memo")
    assert again.get(timeout=WAIT_S) == value
    assert again.usage.from_memo
    anew = write(fresh=True)("memo")
    assert anew.get(timeout=WAIT_S) == value
    assert not anew.usage.from_memo
    session.reset()
    after = write()("memo")
    assert after.get(timeout=WAIT_S) == value
    assert not after.usage.from_memo


def test_cancelling_ends_what_runs_and_what_waits_for_it(session):
    endless = write(**ENDLESS)("a")
    behind = write()(endless)
    beside = write()("b")
    session.flush()
    until(lambda: endless.state == "running", "the call")
    endless.cancel()
    with pytest.raises(P.CallCancelledError):
        endless.get(timeout=WAIT_S)
    with pytest.raises(P.ParrotError):
        behind.get(timeout=WAIT_S)
    assert beside.get(timeout=WAIT_S)
    assert endless.state == "cancelled"


def test_cancelling_everything(session):
    started, released = threading.Event(), threading.Event()

    @P.native_function
    def slow(x):
        started.set()
        released.wait(WAIT_S)

    @P.native_function
    async def sleeping(x):
        await asyncio.sleep(WAIT_S)

    variables = [write(**ENDLESS)("a"), slow("a"), sleeping("a")]
    session.flush()
    assert started.wait(WAIT_S)
    session.cancel()
    for variable in variables:
        with pytest.raises(P.CallCancelledError):
            variable.get(timeout=WAIT_S)
    released.set()
    assert write()("after").get(timeout=WAIT_S)


def test_a_reset_cancels_frees_and_forgets(session):
    known = write()("a")
    value = known.get(timeout=WAIT_S)
    endless = write(**ENDLESS)("a")
    session.flush()
    session.reset()
    assert endless.state == "cancelled"
    (load,) = session.loads().values()
    assert (load.free_pages, load.num_contexts) == (load.num_pages, 0)
    assert session.idle
    assert session.calls() == []
    assert write()(known).get(timeout=WAIT_S) == write()(value).get(timeout=WAIT_S), "its value is the user's"
    assert known.get() == value


def test_what_a_reset_took_away_cannot_be_an_input(session):
    endless = write(**ENDLESS)("a")
    session.flush()
    session.reset()
    with pytest.raises(P.CallCancelledError):
        endless.get(timeout=WAIT_S)
    behind = write()(endless)
    with pytest.raises(P.ParrotError, match="cancelled"):
        behind.get(timeout=WAIT_S)


def test_a_timeout_leaves_the_call_running(session):
    empty = P.variable(name="empty")
    waiting = write()(empty)
    with pytest.raises(P.GetTimeoutError, match="still pending"):
        waiting.get(timeout=0.05)
    empty.set("a")
    assert waiting.get(timeout=WAIT_S) == write()("a").get(timeout=WAIT_S)


def test_variables_that_other_threads_set_later(session):
    empty = [P.variable(name=f"late{i}") for i in range(20)]
    results = [write()(variable) for variable in empty]
    session.flush()
    threads = [threading.Thread(target=variable.set, args=(str(i),)) for i, variable in enumerate(empty)]
    for thread in threads:
        thread.start()
    assert [r.get(timeout=WAIT_S) for r in results] == [write()(str(i)).get(timeout=WAIT_S) for i in range(20)]
    with pytest.raises(P.AlreadySetError):
        empty[0].set("again")


def test_a_value_that_has_no_text_is_refused_where_it_is_read_as_text(session):
    thing = object()
    made = P.native_function(lambda: thing)()
    read, kept = write()(made), P.native_function(lambda x: x)(made)
    assert kept.get(timeout=WAIT_S) is thing
    with pytest.raises(P.ParrotError, match="object"):
        read.get(timeout=WAIT_S)


def test_a_name_that_is_no_name_is_refused_at_once(session):
    with pytest.raises(P.ArgumentError, match="value="):
        P.variable(object())
    with pytest.raises(P.InputValueError, match="name"):
        P.variable(name="\ud800")


def test_many_threads_read_at_once(session):
    step = write(fresh=True)
    texts, errors = {}, []

    def read(i):
        try:
            with_own = [step(f"{i} {j}") for j in range(3)]
            texts[i] = [variable.get(timeout=WAIT_S) for variable in with_own]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert not errors
    assert sorted(texts) == list(range(8))


def test_a_value_of_another_session_is_an_input_and_its_call_is_not(session, isolate):
    with P.Session(isolate=isolate, max_tokens=4) as other:
        known = write()("a")
        value = known.get(timeout=WAIT_S)
        endless = write(**ENDLESS)("b")
        other.flush()
        assert not other.idle
        with session, pytest.raises(P.SessionError, match="another session"):
            write()(endless)
    result = write()(known)
    assert result.get(timeout=WAIT_S) == write()(value).get(timeout=WAIT_S)
    assert endless.state == "cancelled"


def test_two_sessions_at_once(session, isolate):
    with P.Session(isolate=isolate, temperature=3.0, seed=1) as other:
        theirs = write(max_tokens=12).map(range(4))
        other.flush()
        with session:  # entered again, it stays open
            ours = write(max_tokens=12).map(range(4))
            values = ours.get(timeout=WAIT_S)
        assert values != theirs.get(timeout=WAIT_S)
        assert not isolate or pid_of(session) != pid_of(other)


def test_the_prompt_as_the_model_gets_it(session):
    segments = write().render(x="a")
    assert [segment.text for segment in segments if segment.name == "x"] == ["a"]
    known = write()("b")
    known.get(timeout=WAIT_S)
    assert [s.token_ids for s in write().render(x=known) if s.kind == "input"] == [known.node.spans[0].token_ids]


def test_what_is_told_of_a_call(session):
    variable = write()(write()("a"))
    variable.get(perf=P.LATENCY, timeout=WAIT_S)
    told = str(P.explain(variable))
    assert "write" in told
    assert variable.objective == P.LATENCY


def test_a_map_of_five_hundred(session):
    values = write(max_tokens=2).map(range(500)).get(timeout=WAIT_S)
    assert len(values) == 500
    assert values[499] == write(max_tokens=2)(499).get(timeout=WAIT_S)


def test_a_session_that_is_not_eager_runs_what_is_read(isolate):
    with P.Session(isolate=isolate, eager=False, max_tokens=4) as lazy:
        unread, read = write()("a"), write()("b")
        assert read.get(timeout=WAIT_S)
        until(lambda: lazy.idle, "the end")
        assert unread.state == "pending"
        assert unread.get(timeout=WAIT_S)


def test_another_model_while_calls_wait_and_the_one_before_when_it_fails(session):
    value = write()("a").get(timeout=WAIT_S)
    with pytest.raises(P.ModelLoadError, match="no folder"):
        session.load_model("/nowhere/at/all")
    again = write()("a")
    assert again.get(timeout=WAIT_S) == value
    info = session.load_model(str(default_model()), max_context=64)
    assert info.max_context_tokens == 64
    assert write()("a").get(timeout=WAIT_S) == value
    with pytest.raises(P.ContextLengthError):
        write()("a " * 200).get(timeout=WAIT_S)


def test_a_closed_session_says_so_and_its_values_stay(isolate):
    with P.Session(isolate=isolate, max_tokens=4) as session:
        known = write()("a")
        value = known.get(timeout=WAIT_S)
        endless = write(**ENDLESS)("a")
        session.flush()
        unsent = write()("unsent")
    assert (known.get(), known.state) == (value, "done")
    assert (endless.state, unsent.state) == ("cancelled", "cancelled")
    with pytest.raises(P.CallCancelledError, match="closed"):
        unsent.get(timeout=WAIT_S)
    with pytest.raises(P.SessionError, match="closed"), session:
        pass
    session.close()
    assert not session.is_open


def test_a_read_is_told_with_the_calls_that_it_needs(session, monkeypatch):
    """Told after them, it came too late for calls that end at once: they ran for less than was asked."""
    link, told = session._connection.started(), []

    def post(message, post=link.post):
        if isinstance(message, (messages.Submission, messages.Reading)):
            told.append(message)
        post(message)

    monkeypatch.setattr(link, "post", post)
    text = write()("a")
    text.get(timeout=WAIT_S)
    assert [type(message) for message in told] == [messages.Submission]
    assert told[0].reading == messages.Reading((text.node.id,), P.LATENCY)
    again = write()("b")
    session.flush()
    again.get(timeout=WAIT_S)
    assert [type(message) for message in told[1:]] == [messages.Submission, messages.Reading]


def test_what_moves_to_another_runtime_moves_with_its_most_urgent_reader(monkeypatch):
    with P.Session(isolate=True, max_tokens=4) as session:
        told = []
        kind = type(session._connection.started())

        def post(link, message, post=kind.post):
            if isinstance(message, messages.Submission):
                told.append(message.reading)
            post(link, message)

        later = P.variable("later")
        slow, urgent = write()(later), write()(later)
        session.read([slow.node], P.THROUGHPUT)
        session.read([urgent.node], P.LATENCY)
        monkeypatch.setattr(kind, "post", post)
        session.load_model(str(default_model()))
        later.set("a")
        assert urgent.get(timeout=WAIT_S) == slow.get(timeout=WAIT_S)
    assert told == [messages.Reading((urgent.node.id,), P.LATENCY)]


def test_the_process_of_the_model_before_goes_with_it():
    with P.Session(isolate=True, max_tokens=4) as session:
        write()("a").get(timeout=WAIT_S)
        before = pid_of(session)
        session.load_model(str(default_model()), max_context=64)
        after = pid_of(session)
        assert before != after
        until(lambda: not Path(f"/proc/{before}").exists() or not Path("/proc/self").exists(), "its process to end")
        os.kill(after, 0)
