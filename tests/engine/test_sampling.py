"""Sampling against a brute-force reading of its definition, in float64."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb.engine.embedded.sampling import filtered, mixed, sample
from parrot_nb.engine.protocol import Sampling


def brute_force(logits: list[float], s: Sampling) -> dict[int, float]:
    """Token -> probability: temperature, then top-k, then top-p, then min-p."""
    top = max(logits)
    weight = {i: math.exp((x - top) / s.temperature) for i, x in enumerate(logits)}
    ranked = sorted(weight, key=lambda i: -weight[i])
    if s.top_k:
        ranked = ranked[: s.top_k]
    total = sum(weight[i] for i in ranked)
    kept, mass = [], 0.0
    for i in ranked:
        if mass >= s.top_p and s.top_p < 1:
            break
        kept.append(i)
        mass += weight[i] / total
    total = sum(weight[i] for i in kept)
    best = max(weight[i] for i in kept) / total
    kept = [i for i in kept if weight[i] / total >= s.min_p * best]
    total = sum(weight[i] for i in kept)
    return {i: weight[i] / total for i in kept}


distinct = st.lists(st.integers(-60, 60), min_size=2, max_size=20, unique=True).map(lambda xs: [x / 10 for x in xs])
samplings = st.builds(
    Sampling,
    max_tokens=st.just(1),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 3, 50]),
    top_p=st.sampled_from([1.0, 0.93, 0.51, 0.013]),
    min_p=st.sampled_from([0.0, 0.053, 0.41]),
)


@settings(max_examples=300, deadline=None)
@given(distinct, samplings)
def test_filters_keep_exactly_what_their_definition_keeps(logits, sampling):
    expected = brute_force(logits, sampling)
    probabilities = torch.softmax(filtered(torch.tensor(logits, dtype=torch.float64), sampling), -1)
    assert {i for i, p in enumerate(probabilities.tolist()) if p > 0} == set(expected)
    assert all(abs(probabilities[i].item() - p) < 1e-9 for i, p in expected.items())


def test_samples_follow_the_distribution():
    logits, sampling = [1.0, 0.0, 2.0, -1.0, 0.5], Sampling(max_tokens=1, temperature=0.8, top_k=4)
    expected, count = brute_force(logits, sampling), 4000
    drawn = sample(torch.tensor([logits] * count), [sampling] * count, list(range(count)), [3] * count)
    chi_square = sum((drawn.count(i) - p * count) ** 2 / (p * count) for i, p in expected.items())
    assert set(drawn) == set(expected)
    assert chi_square < 16.3, "p < 0.001 with 3 degrees of freedom"


def test_a_sample_depends_on_seed_and_position_alone():
    row, sampling = torch.randn(64, generator=torch.Generator().manual_seed(0)), Sampling(max_tokens=1, temperature=2.0)
    alone = sample(row[None], [sampling], [5], [9])
    crowd = sample(torch.stack([row * 2, row, row]), [sampling] * 3, [5, 5, 6], [9, 9, 9])
    assert crowd[1] == alone[0]
    assert len({sample(row[None], [sampling], [5], [k])[0] for k in range(20)}) > 5
    assert len({mixed(seed, position) for seed in range(100) for position in range(100)}) == 10_000


def test_greedy_is_argmax_and_unusable_rows_say_so():
    logits = torch.tensor([[0.0, 3.0, 1.0], [0.0, float("nan"), 1.0], [float("-inf")] * 3, [float("-inf"), 0.0, float("-inf")]])
    greedy = Sampling(max_tokens=1)
    assert sample(logits, [greedy] * 4, [0] * 4, [0] * 4) == [1, None, None, 1]
    tiny = Sampling(max_tokens=1, temperature=1e-30)
    assert sample(logits[:1], [tiny], [0], [0]) == [1]
