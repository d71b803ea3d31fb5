"""What a step costs on a GPU besides computing, counted on a stand-in: launches, copies, waits, and what runs while what is read."""

from __future__ import annotations

import asyncio
import random

import pytest
import torch
from checkpoints import PRIORITY, write
from predicted import Assumed, Launches, predict
from standin import StandIn
from standin_tensors import inner

from parrot_nb.engine.embedded import graphs, load_engine
from parrot_nb.engine.embedded.step import StepBatch, StepContext
from parrot_nb.engine.protocol import Sampling

LAYERS = 3
SAMPLED = Sampling(max_tokens=100, temperature=0.6, top_p=0.95, top_k=20, ignore_eos=True)
GREEDY = Sampling(max_tokens=100, ignore_eos=True)


@pytest.fixture(scope="module")
def used(checkpoints):
    """A stand-in and a model loaded on it, with graphs for 1 to 16 rows."""
    folder, before = checkpoints("qwen3"), (graphs.LADDER, graphs.MIXED)
    graphs.LADDER, graphs.MIXED = (1, 4, 16), (16, 32)
    with StandIn(operation_s=1e-3) as standin:
        engine = load_engine(folder, device="cuda", dtype="float32", kv_memory="256KB", page_size=4)
        yield standin, engine
        engine._worker.finish(engine._model.release)
        engine._worker.ended.result(30)
    graphs.LADDER, graphs.MIXED = before


@pytest.fixture
def standin(used):
    used[0].counts.launches.clear(), used[0].counts.copies.clear(), used[0].counts.waits.clear()
    used[0].counts.replays = 0
    return used[0]


@pytest.fixture
def step(used):
    """Has the engine's worker compute a step."""
    _, engine = used
    return lambda *parts, copies=(): engine._worker.submit(engine._model.step, StepBatch(parts, copies)).result(30)


def decoding(number, start, *, after=None, token=7, sampling=GREEDY):
    pages = tuple(range(10 * number, 10 * number + 10))
    return StepContext((token,), start, pages, sampling, seed=1, position=5, generation=number, after=after)


def test_a_decode_step_is_one_copy_one_replay_and_one_fetch(step, standin):
    step(decoding(0, 8), decoding(1, 9))
    before = sum(standin.counts.launches.values())
    standin.counts.copies.clear()
    chosen = step(decoding(0, 9, after=0, token=0), decoding(1, 10, after=1, token=0))
    assert standin.counts.copies == {"pinned": 1, "fetched": 1}
    assert sum(standin.counts.launches.values()) == before
    assert standin.counts.replays == 2
    assert not standin.counts.waits
    assert len(chosen.choices()) == 2
    assert standin.counts.waits == {"event": 1}


def test_a_step_is_read_while_the_one_planned_ahead_of_it_runs(step, standin):
    first = step(decoding(0, 8))
    second = step(decoding(0, 9, after=0, token=0))
    (token,) = first.choices()
    after_first = standin.now
    (following,) = second.choices()
    assert token.token is not None
    assert following.token is not None
    assert standin.now - after_first > 20e-3, (
        "at least the operations of a step, which did not have to end before the first was read"
    )


def test_what_was_chosen_is_the_same_however_late_it_is_read(step):
    first = step(decoding(0, 8, sampling=SAMPLED))
    late = step(decoding(0, 9, after=0, token=0, sampling=SAMPLED))
    (one,), (other,) = first.choices(), late.choices()
    assert step(decoding(0, 8, sampling=SAMPLED)).choices() == [one]
    assert step(decoding(0, 9, token=one.token, sampling=SAMPLED)).choices() == [other]


def test_a_graph_has_at_most_ten_launches_a_layer(used):
    standin, _ = used
    per_layer = {"mm", "rms_norm_triton", "rope_and_write_triton", "gated_triton", "attention_tiled", "addmm"}
    found = {}
    for graph in standin.graphs:
        if graph.ended:
            inside = sum(count for name, count in graph.launches.items() if name in per_layer)
            found.setdefault((inside - 2) / LAYERS, []).append(
                sum(graph.launches.values()) - inside
            )  # the last norm and the head
    assert set(found) == {10, 11}, "11 where rows may be packed into large tiles: these are launched by themselves"
    assert max(max(others) for others in found.values()) <= 20, "whatever the number of layers"
    assert len(found[10]) == 3
    assert len(found[11]) == 3, "of decode steps only 16 rows can be packed so; a prompt's rows always are"


def prompt(number, length, *, start=0, sampling=GREEDY, guessed=0):
    tokens, pages = tuple(range(30, 30 + length)), tuple(range(10 * number, 10 * number + 10 * (1 + length // 40)))
    return StepContext(tokens, start, pages, sampling, seed=1, position=0, generation=number, num_guessed=guessed)


@pytest.mark.parametrize(
    "parts",
    [
        (prompt(3, 20), decoding(0, 10)),
        (prompt(3, 9, sampling=None), decoding(0, 10), decoding(1, 8)),
        (prompt(3, 5, start=7, sampling=SAMPLED, guessed=3), decoding(0, 10)),
        (prompt(3, 32),),
        (prompt(3, 3, sampling=None),),
    ],
    ids=["prompt and text", "part of a prompt and texts", "guesses", "a prompt that just fits", "no sample"],
)
def test_a_step_of_few_rows_with_a_prompt_is_one_replay(step, standin, parts):
    found = step(*parts).choices()
    assert standin.counts.copies == {"pinned": 1, "fetched": 1} if found else {"pinned": 1}
    assert standin.counts.waits == {"event": 1}
    assert standin.counts.replays == 1
    assert not standin.counts.launches


def test_a_long_prompt_runs_without_a_graph_and_sends_its_inputs_in_one_copy(step, standin):
    step(prompt(3, 32), decoding(0, 10)).choices()
    assert standin.counts.copies == {"pinned": 1, "fetched": 1}
    assert standin.counts.waits == {"event": 1}
    assert standin.counts.replays == 0
    assert sum(standin.counts.launches.values()) > 11 * LAYERS


@pytest.mark.parametrize("seed", range(3))
def test_graphs_choose_what_steps_without_them_do(used, step, standin, seed):
    """The same steps, in the same order, on the same KV; the tokens of texts go on from those that the device chose."""
    _, engine = used
    model, rng = engine._model, random.Random(seed)
    sizes = [(rng.randrange(1, 14), rng.choice([GREEDY, SAMPLED])) for _ in range(2)]

    def texts():
        found = []
        first = step(*(prompt(2 * i, size, sampling=sampling) for i, (size, sampling) in enumerate(sizes)))
        ahead = [decoding(2 * i, size, after=i, token=0, sampling=sampling) for i, (size, sampling) in enumerate(sizes)]
        mixed = step(prompt(6, 11, sampling=None), *ahead)
        again = [decoding(2 * i, size + 1, after=i, token=0, sampling=sampling) for i, (size, sampling) in enumerate(sizes)]
        guesses = prompt(8, 6, sampling=SAMPLED, guessed=4)
        for chosen in (first, mixed, step(*again, guesses), step(prompt(6, 4, start=11, sampling=SAMPLED))):
            found += [choice.token for choice in chosen.choices()]
        return found

    captured, before = texts(), standin.counts.replays
    assert before == 4
    graphs_of_model, model._graphs = model._graphs, None
    try:
        assert texts() == captured
        assert standin.counts.replays == before
    finally:
        model._graphs = graphs_of_model


def test_pages_are_copied_by_indices_that_are_moved_once(step, standin):
    step(decoding(0, 8), copies=((1, 2, 3), (4, 5, 2))).choices()
    assert standin.counts.copies == {"pinned": 2, "fetched": 1}
    assert standin.counts.launches == {"index_select": 2 * LAYERS, "index_copy_": 2 * LAYERS}


def test_copies_of_pages_are_exact(used, step):
    _, engine = used
    keys = inner(engine._model._memory.keys[0])
    with torch.inference_mode():
        keys.copy_(torch.arange(keys.numel(), dtype=torch.float32).view(keys.shape))
    before = keys.clone()
    step(decoding(0, 8), copies=((20, 21, 3), (21, 22, 4))).choices()
    now = keys
    assert torch.equal(now[84:87], before[80:83])
    assert torch.equal(now[88:92], before[84:88]), "as it was before the step, though it is written in the same one"
    assert torch.equal(now[87], before[87])


def test_a_prompt_without_a_sample_is_waited_for_too(step, standin):
    prompt = StepContext(tuple(range(30, 50)), 0, tuple(range(30, 36)), None, seed=1, position=0, generation=6)
    chosen = step(prompt)
    assert chosen.choices() == []
    assert standin.counts.waits == {"event": 1}, "or steps would be queued without end, and take no time as far as anybody knows"


def test_an_engine_plans_ahead_without_waiting_for_all(used, standin):
    _, engine = used

    async def main():
        context = engine.open(PRIORITY)
        engine.fill(context, [1, 2, 3])
        await write(engine, context, Sampling(max_tokens=12, ignore_eos=True))
        engine.free(context)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert standin.counts.replays >= 11
    assert set(standin.counts.waits) == {"event"}
    assert "pageable" not in standin.counts.copies
    assert "fetched and waited for" not in standin.counts.copies


def test_predictions_follow_from_launches_bytes_and_the_host():
    step, share = predict("qwen3-0.6b", 1, Launches(10, 20), 1e-4, Assumed())
    more, less = predict("qwen3-0.6b", 1, Launches(20, 20), 1e-4, Assumed())
    assert more - step == pytest.approx(28 * 10 * Assumed().launch_s)
    assert 0 < less < share < 1
    assert predict("qwen3-0.6b", 1, Launches(0, 0), 0.5, Assumed())[0] == 0.5, "the host's time where that is longer"
    assert predict("qwen3-0.6b", 1, Launches(0, 0), 0, Assumed(attained=1.0))[1] == pytest.approx(1, rel=0.01)
