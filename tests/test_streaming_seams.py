"""Healed outputs that stream into a later prompt as they are written, or are taken from the memo: the same texts and ids as those
that come at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_seams_whole_way import WAIT_S, f, filled
from test_seams_whole_way import healed as healed  # noqa: PLC0414 - a fixture
from transformers import AutoTokenizer

import parrot_nb as P
from parrot_nb.engine.embedded import load_engine
from parrot_nb.runtime import events
from parrot_nb.tiny import default_model

TOKENIZER = AutoTokenizer.from_pretrained(default_model())
LONG = 48  # tokens: an edge carries 32 at once
ENDS = (": ", ":", ":\n", " the ", "\n- ", " (", " caf", "é ", " = '")
BEGINS = ("", "", " Once upon", "def ", "é", "- ")
STOPS = ((), (), ("a",), ("\n",), ("er", "th"))


def load(model: str, on_step):
    engine = load_engine(default_model(), name=model, dtype="float32", device="cpu", kv_memory="64MB", on_step=on_step)
    engine.capabilities = replace(engine.capabilities, streams_fills=True)  # which a CPU gains nothing by
    return engine


def opened(*off: str) -> P.Session:
    return P.Session(loader=load, off=off, chat=False, heal=True, ignore_eos=True)


@pytest.fixture(scope="module")
def sessions() -> Iterator[tuple[P.Session, P.Session, P.Session]]:
    """A session whose fills stream, one that waits for values, and one with a memo besides."""
    with opened("memo") as streaming, opened("memo", "streaming") as waiting, opened() as remembering:
        yield streaming, waiting, remembering


def chain(functions: list[P.SemanticFunction], x: str) -> list[P.SemanticVariable]:
    """Each function reads what the one before writes."""
    variables = [functions[0](x)]
    for function in functions[1:]:
        variables.append(function(variables[-1]))
    return variables


def run(session: P.Session, functions: list[P.SemanticFunction], x: str) -> tuple[list[P.SemanticVariable], list[str], int]:
    """Variables and values of a chain, and how many of its calls were filled with what was being written."""
    seen = len(session.events)
    with session:
        variables = chain(functions, x)
        values = P.gather(*variables).get(perf=P.LATENCY, timeout=WAIT_S)
    news = session.events.since(seen)
    return variables, values, len({e.call_id for e in news if isinstance(e, events.CallChanged) and e.phase == "streaming"})


def filled_with(session: P.Session, variable: P.SemanticVariable) -> list[int]:
    """The ids that a prompt which reads a variable is filled with; they spell its value."""
    with session:
        ids, _ = filled(f("Read: {{input:y}}{{output:z, heal=False}}"), y=variable)
    assert TOKENIZER.decode(ids) == f"Read: {variable.get()}"
    return ids


@pytest.mark.parametrize(("begin", "end"), [("", ": "), ("", " caf"), (" Once upon", ":")])
def test_what_streams_is_filled_as_render_shows_it_and_the_rest_is_the_likeliest(sessions, healed, begin, end):
    streaming, *_ = sessions
    told = f", begin='{begin}'" if begin else ""
    write = f(f"Write {{{{input:x}}}}{end}{{{{output:y, max_tokens={LONG}{told}}}}}", name="write")
    read = f("The text: {{input:y}}\nA title" + end + "{{output:title, max_tokens=8}}", name="read")
    (text, title), values, num_streamed = run(streaming, [write, read], "a short story")
    assert num_streamed == 1
    with streaming:
        ids, taken_back = filled(write, x="a short story")
        assert taken_back
        assert values[0] == begin + healed(ids, taken_back, LONG)[0]
        ids, taken_back = filled(read, y=text)
        (segment,) = (s for s in read.render(y=text) if s.name == "y")
    assert segment.text == values[0]
    assert values[1] == healed(ids, taken_back, 8)[0]
    assert title.usage.prefilled_tokens + title.usage.reused_tokens == len(ids)


def same(logprobs, others) -> bool:
    """True if these are the same tokens, about as likely."""
    return [one.text for one in logprobs] == [other.text for other in others] and [
        one.logprob for one in logprobs
    ] == pytest.approx([other.logprob for other in others], abs=1e-3)


def hold(sessions, num_examples: int, *, derandomize: bool) -> int:
    """Compare so many chains that stream with the same ones that wait, and that are remembered; returns how many calls were filled with
    what was being written."""
    streamed = [0]

    @settings(max_examples=num_examples, deadline=None, derandomize=derandomize)
    @given(st.data())
    def holds(data) -> None:
        functions = []
        for stage in range(data.draw(st.integers(2, 3))):
            begin, stop = data.draw(st.sampled_from(BEGINS)), data.draw(st.sampled_from(STOPS))
            options = {"max_tokens": data.draw(st.sampled_from([LONG, LONG + 20, 3])), "stop": stop or None}
            if data.draw(st.booleans()):
                options |= {"temperature": 1.2, "seed": data.draw(st.integers(0, 2**40))}
            if data.draw(st.integers(0, 3)) == 0:
                options |= {"logprobs": 0, "repetition_penalty": 1.2}
            told = f', begin="{begin}"' if begin else ""
            body = f"Step {stage}.\n{{{{input:x}}}}{data.draw(st.sampled_from(ENDS))}{{{{output:y{told}}}}}"
            functions.append(f(body, name="step", **{name: value for name, value in options.items() if value is not None}))
        word = data.draw(st.sampled_from(["a short story", "Peter", "naïve 東京", "x = 1\n"]))
        (variables, values, num_streamed), *others = (run(session, functions, word) for session in (*sessions, sessions[2]))
        streamed[0] += num_streamed
        assert others[0][2] == others[2][2] == 0
        assert all(variable.usage.from_memo for variable in others[2][0])
        ids = [filled_with(sessions[0], variable) for variable in variables]
        for session, (found, texts, _) in zip((*sessions[1:], sessions[2]), others, strict=True):
            assert texts == values
            for one, other in zip(found, variables, strict=True):
                assert one.finish == other.finish
                assert same(one.logprobs or (), other.logprobs or ())
            assert [filled_with(session, variable) for variable in found] == ids

    holds()
    return streamed[0]


def test_chains_of_healed_outputs_stream_what_they_write(sessions):
    assert hold(sessions, 5, derandomize=True)


@pytest.mark.minutes
def test_more_chains_of_healed_outputs_stream_what_they_write(sessions):
    hold(sessions, 200, derandomize=False)
