"""What the engine samples; the filters and the noise themselves are tested with their kernel."""

from __future__ import annotations

import math

import torch

from parrot_nb.engine.embedded.sampling import sample
from parrot_nb.engine.protocol import Sampling


def test_every_row_is_sampled_as_it_asked():
    logits, count = [1.0, 0.0, 2.0, -1.0, 0.5], 3000
    drawn = sample(
        torch.tensor([logits] * count),
        [
            Sampling(max_tokens=1, temperature=0.8, top_k=4),
            Sampling(max_tokens=1),
            Sampling(max_tokens=1, temperature=5.0, min_p=0.6),
        ]
        * (count // 3),
        list(range(count)),
        [3] * count,
    )
    assert set(drawn[1::3]) == {2}
    assert set(drawn[2::3]) == {0, 1, 2, 4}
    weight = {i: math.exp(x / 0.8) for i, x in enumerate(logits) if i != 3}
    expected = {i: w / sum(weight.values()) * count / 3 for i, w in weight.items()}
    assert set(drawn[::3]) == set(expected)
    chi_square = sum((drawn[::3].count(i) - n) ** 2 / n for i, n in expected.items())
    assert chi_square < 16.3, "p < 0.001 with 3 degrees of freedom"


def test_a_sample_depends_on_seed_and_position_alone():
    row, sampling = torch.randn(64, generator=torch.Generator().manual_seed(0)), Sampling(max_tokens=1, temperature=2.0)
    alone = sample(row[None], [sampling], [5], [9])
    crowd = sample(torch.stack([row * 2, row, row]), [sampling] * 3, [5, 5, 6], [9, 9, 9])
    assert crowd[1] == alone[0]
    assert len({sample(row[None], [sampling], [2**62 + 5], [k])[0] for k in range(20)}) > 5


def test_greedy_is_argmax_and_unusable_rows_say_so():
    logits = torch.tensor([[0.0, 3.0, 1.0], [0.0, float("nan"), 1.0], [float("-inf")] * 3, [float("-inf"), 0.0, float("-inf")]])
    greedy = Sampling(max_tokens=1)
    assert sample(logits, [greedy] * 4, [0] * 4, [0] * 4) == [1, None, None, 1]
    tiny = Sampling(max_tokens=1, temperature=1e-30)
    assert sample(logits[:1], [tiny], [0], [0]) == [1]
