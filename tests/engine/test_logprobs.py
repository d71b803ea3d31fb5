"""Log-probabilities of what is generated: those of transformers' logits, whatever is chosen from them and however."""

from __future__ import annotations

import asyncio
import itertools

import pytest
import torch
from checkpoints import NUM_BYTES, PRIORITY, _reference_model, open_engine, run, write
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb.engine.embedded.detokenize import Detokenizer
from parrot_nb.engine.protocol import GenerationEnd, Sampling

PROMPT = [7, 50, 99, 200, 3, 18, 77]
NUM_TOKENS = 24


async def end_after(engine, prompt, sampling, likely=()) -> tuple[str, GenerationEnd]:
    context = engine.open(PRIORITY)
    engine.fill(context, prompt)
    text = ""
    async for piece in engine.generate(context, sampling, likely=likely):
        text += piece.text
        end = piece.end
    engine.free(context)
    return text, end


def raw_logprobs(folder, tokens: list[int]) -> torch.Tensor:
    """log_softmax after each token, by transformers."""
    with torch.no_grad():
        return _reference_model(folder)(torch.tensor([tokens])).logits[0].float().log_softmax(-1)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"repetition_penalty": 1.5, "presence_penalty": 1.0},
        {"temperature": 1.3, "top_k": 20, "seed": 8, "frequency_penalty": -0.5},
    ],
)
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_they_are_those_of_the_raw_distribution(checkpoints, name, how):
    folder, num_others = checkpoints(name), 5
    asked = Sampling(NUM_TOKENS, ignore_eos=True, logprobs=num_others, **how)
    unasked = Sampling(NUM_TOKENS, ignore_eos=True, **how)

    async def main(engine):
        _, plain = await end_after(engine, PROMPT, unasked)
        crowd = end_after(engine, PROMPT[1:], unasked), end_after(engine, PROMPT, asked, likely=plain.token_ids)
        return plain, (await asyncio.gather(*crowd))[1]

    plain, (text, end) = run(open_engine(folder), main)
    assert plain.scores is None
    assert end.token_ids == plain.token_ids
    assert end.guessed_tokens > 0
    assert len(end.scores) == NUM_TOKENS
    assert "".join(score.text for score in end.scores) == text
    if any(token >= NUM_BYTES for token in end.token_ids) or len(end.token_ids) < NUM_TOKENS:
        pytest.fail("this test wants text without control tokens")
    want = raw_logprobs(folder, [*PROMPT, *end.token_ids])[len(PROMPT) - 1 : -1]
    for row, token, score in zip(want, end.token_ids, end.scores, strict=True):
        assert score.logprob == pytest.approx(float(row[token]), abs=1e-4)
        row[token] = -torch.inf
        assert [logprob for _, logprob in score.others] == pytest.approx(row.topk(num_others).values.tolist(), abs=1e-4)


def test_each_row_gets_as_many_others_as_it_asked_for(checkpoints):
    async def main(engine):
        samplings = [Sampling(3, ignore_eos=True, logprobs=count) for count in (0, 20, 3)]
        return await asyncio.gather(*(end_after(engine, PROMPT, sampling) for sampling in samplings))

    found = run(open_engine(checkpoints("qwen3")), main)
    assert [[len(score.others) for score in end.scores] for _, end in found] == [[0] * 3, [20] * 3, [3] * 3]
    assert [s.logprob for s in found[0][1].scores] == pytest.approx([s.logprob for s in found[1][1].scores], abs=1e-4)
    for score in found[1][1].scores:
        logprobs = [logprob for _, logprob in score.others]
        assert logprobs == sorted(logprobs, reverse=True)
        assert score.text not in [text for text, _ in score.others if text.isascii()]


def test_a_stop_string_cuts_them_with_the_text(checkpoints):
    folder = checkpoints("llama")

    async def main(engine):
        whole, end = await end_after(engine, PROMPT, Sampling(NUM_TOKENS, ignore_eos=True, logprobs=1))
        stop = whole[6:9]
        cut = await end_after(engine, PROMPT, Sampling(NUM_TOKENS, ignore_eos=True, logprobs=1, stop=(stop,)))
        context = engine.open(PRIORITY)
        engine.fill(context, PROMPT)
        stopped = await write(engine, context, Sampling(NUM_TOKENS, logprobs=1, stop=(whole[0],)))
        return whole, end, stop, cut, stopped

    whole, end, stop, (text, cut), (nothing, none) = run(open_engine(folder), main)
    assert text == whole[: whole.index(stop)]
    assert "".join(score.text for score in cut.scores) == text
    whole_scores = end.scores[: len(cut.scores)]
    assert [score.logprob for score in cut.scores] == pytest.approx([score.logprob for score in whole_scores], abs=1e-4)
    assert [score.others[0][0] for score in cut.scores] == [score.others[0][0] for score in whole_scores]
    assert (nothing, none.scores) == ("", ())


def pieces_of(text: str, cuts: list[int]) -> list[bytes]:
    data = text.encode()
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="ab é🙂漢", max_size=12),
    st.lists(st.integers(0, 60), max_size=20),
    st.lists(st.text(alphabet="ab é🙂", min_size=1, max_size=3), max_size=2),
)
def test_texts_of_tokens_in_a_row_are_the_text(text, cuts, stops):
    tokens = pieces_of(text, cuts)
    detokenizer = Detokenizer(lambda ids: b"".join(tokens[i] for i in ids).decode(errors="replace"), (), lambda _: None, stops)
    for i in range(len(tokens)):
        detokenizer.feed(i)
        if detokenizer.stopped_at is not None:
            break
    detokenizer.finish()
    texts = detokenizer.token_texts()
    assert "".join(texts) == detokenizer.text
    assert len(texts) <= len(tokens)
    if detokenizer.stopped_at is None:
        assert len(texts) == len(tokens)
        if all(token.decode(errors="ignore").encode() == token for token in tokens):
            assert texts == [token.decode() for token in tokens]
