"""Healed seams with everything else that a generation may have, held to a reference that looks at every token of the vocabulary.

Seeds, penalties, filters, stop strings, ends, log-probabilities, choices, guesses right and wrong, chunks, shared beginnings and
preemption, in any combination and side by side.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from checkpoints import all_pages_free, audit, open_engine
from hypothesis import given, settings
from hypothesis import strategies as st
from test_seams import folder as folder  # noqa: PLC0414 - a fixture
from test_seams import healed, reference_model, vocabulary

from parrot_kernels.references_elementwise import penalised_reference, sample_reference
from parrot_nb.engine.protocol import Constraint, GenerationEnd, Sampling

EOS = 1
TEXTS = (
    "the cat sat on th",
    "and the other ",
    "for i in range(1",
    "die Brücke, die Brü",
    "naïve café 東京 ",
    "x🙂",
    "print(\n",
    "return x\n\n",
)
BEFORE = "the cat sat on the mat and the rat sat "  # what several prompts begin with
CHOICES = ("the cat", "the cat sat", "the rat", "e other", "ücke", "cke", "é", "x + 1", "🙂🙂", "sat", "0):\n    print", " ")
TIGHT_PAGES = 11
PAGE_BYTES = 4 * 2 * 2 * 8 * 2 * 4  # of 4 tokens: two layers with two heads of 8 numbers of keys and of values, float32


@dataclass(frozen=True)
class Case:
    """A generation after a seam.

    Attributes:
        prompt: tokens that are filled.
        taken: tokens that are taken back.
        guesses: what its text may resemble: "none", the text "itself", or "another".
    """

    prompt: tuple[int, ...]
    taken: tuple[int, ...]
    sampling: Sampling
    guesses: str


@dataclass(frozen=True)
class Expected:
    """Result of a generation.

    Attributes:
        sampled: all tokens, the end token included.
        num_inside: how many of them only write again what was taken back.
        value: its text.
        finish: "stop" or "length".
        logprobs: of each token, under the model's own distribution.
    """

    sampled: tuple[int, ...]
    num_inside: int
    value: str
    finish: str
    logprobs: tuple[float, ...]


def by_hand(folder: Path, case: Case) -> Expected:
    """What a case writes by transformers' logits and the samplers' reference, step by step."""
    words, sampling = vocabulary(folder), case.sampling
    owed = b"".join(words[i] for i in case.taken)
    choices = None if sampling.constraint is None else [owed + choice.encode() for choice in json.loads(sampling.constraint.body)]
    penalties = sampling.repetition_penalty or 1.0, sampling.presence_penalty, sampling.frequency_penalty
    filters = sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p
    sampled: list[int] = []
    logprobs: list[float] = []
    said, num_inside, num_owed = b"", 0, len(owed)

    def value() -> str:
        return said[num_owed:].decode(errors="replace")

    def ended(finish: str, text: str) -> Expected:
        return Expected(tuple(sampled), num_inside, text, finish, tuple(logprobs))

    while True:
        with torch.inference_mode():
            raw = reference_model(folder)(torch.tensor([[*case.prompt, *sampled]])).logits[0, -1]
        allowed = None
        if choices is not None:
            left = [choice[len(said) :] for choice in choices if choice.startswith(said)]
            allowed = {i for i, word in words.items() if any(rest.startswith(word) for rest in left)}
            allowed |= {EOS} if b"" in left and (not sampling.ignore_eos or not allowed) else set()
        elif len(said) < num_owed:
            rest = owed[len(said) :]
            allowed = {i for i, word in words.items() if word.startswith(rest) or rest.startswith(word)}
        logits = penalised_reference(raw.double().tolist(), case.prompt, sampled, *penalties)
        if allowed is not None:
            logits = [x if i in allowed else -torch.inf for i, x in enumerate(logits)]
        token = sample_reference(logits, *filters, sampling.seed or 0, len(sampled))
        sampled.append(token)
        logprobs.append(float(raw.float().log_softmax(-1)[token]))
        if token == EOS and (choices is not None or not sampling.ignore_eos):
            return ended("stop", value())
        word = words.get(token, b"")
        num_inside += len(said) < num_owed and len(said) + len(word) <= num_owed
        said += word
        found = [value().find(stop) for stop in sampling.stop if stop in value()]
        if found:
            return ended("stop", value()[: min(found)])
        if choices is not None and not any(choice.startswith(said) and choice != said for choice in choices):
            return ended("stop", value())
        if len(sampled) - num_inside >= sampling.max_tokens:
            return ended("length", value())


@pytest.fixture(scope="module")
def engines(folder) -> Iterator[tuple]:
    """An engine with room, and one in which contexts push one another out; both make guesses and compute in chunks."""
    steps: Counter[str] = Counter()

    def count(record) -> None:
        steps["computed"] += record.prefill_tokens + record.decode_tokens

    loop = asyncio.new_event_loop()
    opened = [
        open_engine(folder, dtype="float32", device="cpu", max_step_tokens=9, kv_memory="1MB"),
        open_engine(folder, dtype="float32", device="cpu", max_step_tokens=9, kv_memory=PAGE_BYTES * TIGHT_PAGES, on_step=count),
    ]
    yield opened, loop.run_until_complete, steps
    for engine in opened:
        loop.run_until_complete(engine.close())
    loop.close()


@st.composite
def cases(draw, codec) -> Case:
    ids = codec.encode(draw(st.sampled_from(["", BEFORE])) + draw(st.sampled_from(TEXTS)), first=True)
    cuts = [
        count
        for count in range(1, min(4, len(ids)))
        if not 0x80 <= b"".join(codec.token_bytes(i) or b"a" for i in ids[-count:])[0] < 0xC0
    ]
    count = draw(st.sampled_from(cuts))
    sampling = Sampling(
        draw(st.integers(1, 10)), ignore_eos=draw(st.booleans()), logprobs=draw(st.sampled_from([None, None, 0, 3]))
    )
    if draw(st.booleans()):
        seed, top_k = draw(st.integers(0, 2**40)), draw(st.sampled_from([0, 0, 5]))
        sampling = replace(sampling, temperature=draw(st.sampled_from([0.7, 1.5])), seed=seed, top_k=top_k)
    if draw(st.booleans()):
        sampling = replace(sampling, repetition_penalty=draw(st.sampled_from([0.8, 1.3])), frequency_penalty=0.5)
    if draw(st.integers(0, 3)) == 0:  # log-probabilities are of tokens that were chosen: none is written because it is certain
        allowed = Constraint("choices", json.dumps(draw(st.lists(st.sampled_from(CHOICES), min_size=1, max_size=5, unique=True))))
        sampling = replace(sampling, constraint=allowed, max_tokens=40, logprobs=sampling.logprobs or 0)
    return Case(tuple(ids[:-count]), tuple(ids[-count:]), sampling, draw(st.sampled_from(["none", "itself", "another"])))


def check(case: Case, expected: Expected, value: str, end: GenerationEnd, codec, words) -> None:
    """Hold a generation's text, ids and log-probabilities to what the reference found."""
    assert (value, end.finish) == (expected.value, expected.finish)
    # Text before an unfinished character is looked at when that is whole.
    more = end.decoded_tokens - len(expected.sampled)
    assert more == 0 or (case.sampling.stop and 0 < more < 4)
    spelled = end.lead.encode() + b"".join(words.get(i, b"") for i in end.token_ids)
    assert spelled.decode(errors="replace") == value, "ids that cross an edge spell the value"
    whole = b"".join(words.get(i, b"") for i in end.context_ids)
    assert whole.decode(errors="replace") == codec.decode(case.taken) + value, "the context goes on from what was taken back"
    if case.sampling.logprobs is None:
        assert end.scores is None
        return
    assert end.scores is not None
    ends = expected.sampled[-1] == EOS and (case.sampling.constraint is not None or not case.sampling.ignore_eos)
    own = expected.logprobs[expected.num_inside : -1 if ends else None]
    assert [score.logprob for score in end.scores[: len(own)]] == pytest.approx(own[: len(end.scores)], abs=1e-3)
    assert len(end.scores) <= len(own) + more
    assert "".join(score.text for score in end.scores) == value
    assert all(len(score.others) == case.sampling.logprobs for score in end.scores)


async def together(engine, group: list[Case], known: list[Expected]) -> list[tuple[str, GenerationEnd, list[str]]]:
    """Run cases side by side."""
    likely = {"none": lambda _: (), "itself": lambda e: e.sampled, "another": lambda e: e.sampled[::-1]}
    return await asyncio.gather(
        *(healed(engine, c.prompt, c.taken, c.sampling, likely[c.guesses](e)) for c, e in zip(group, known, strict=True))
    )


def hold(engines, folder, num_examples: int, *, derandomize: bool) -> Counter[str]:
    """Try so many groups of cases side by side; returns how often what happened."""
    opened, wait, _ = engines
    codec, words, seen = opened[0].codec, vocabulary(folder), Counter[str]()

    @settings(max_examples=num_examples, deadline=None, derandomize=derandomize)
    @given(st.data())
    def holds(data) -> None:
        group, known = [], []
        for drawn in data.draw(st.lists(cases(codec), min_size=1, max_size=5)):
            case, expected = drawn, by_hand(folder, drawn)
            if case.sampling.constraint is None and len(expected.value) > 1 and data.draw(st.booleans()):
                start = data.draw(st.integers(0, len(expected.value) - 1))
                stop = expected.value[start : start + data.draw(st.integers(1, 3))]
                if "\ufffd" not in stop:
                    case = replace(drawn, sampling=replace(drawn.sampling, stop=(stop,)))
                    expected = by_hand(folder, case)
            group.append(case)
            known.append(expected)
        engine = data.draw(st.sampled_from(opened))

        found = wait(together(engine, group, known))
        for case, expected, (value, end, _) in zip(group, known, found, strict=True):
            check(case, expected, value, end, codec, words)
            seen["guessed"] += end.guessed_tokens
            seen["shared"] += end.reused_tokens
            seen["stopped"] += bool(case.sampling.stop)
            seen["chosen"] += case.sampling.constraint is not None
            seen["seeded"] += case.sampling.seed is not None
        assert all_pages_free(engine)
        audit(engine)

    holds()
    return seen


def test_all_that_a_healed_generation_may_have(engines, folder):
    seen = hold(engines, folder, 20, derandomize=True)
    assert all(seen[what] for what in ("guessed", "shared", "stopped", "chosen", "seeded")), seen


def test_those_that_push_one_another_out_write_the_same(engines, folder):
    (_, tight), wait, steps = engines
    group = []
    for number, text in enumerate(TEXTS):
        ids = tight.codec.encode(f"{number}{text}{text}", first=True)
        count = 1 if (tight.codec.token_bytes(ids[-1]) or b"a")[0] < 0x80 else 4  # the last whole character
        how = {"temperature": 1.2, "seed": number} if number % 2 else {}
        sampling = Sampling(10, ignore_eos=True, logprobs=number % 3, **how)
        group.append(Case(tuple(ids[:-count]), tuple(ids[-count:]), sampling, ("none", "itself", "another")[number % 3]))
    known = [by_hand(folder, case) for case in group]
    steps.clear()
    found = wait(together(tight, group, known))
    for case, expected, (value, end, _) in zip(group, known, found, strict=True):
        check(case, expected, value, end, tight.codec, vocabulary(folder))
    told = sum(end.prefilled_tokens + end.decoded_tokens - end.guessed_tokens for _, end, _ in found)
    assert steps["computed"] > told, "none was preempted"


@pytest.mark.minutes
def test_more_of_all_that_a_healed_generation_may_have(engines, folder):
    hold(engines, folder, 1_000, derandomize=False)
