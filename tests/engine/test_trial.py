"""Trials: a decoder that computes the model is taken in every dtype, one that does not is refused, and the figures say why."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as hf
from checkpoints import CONFIGS, SHAPE, change_config, random_checkpoint, run
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb.engine.embedded import fused, load_engine
from parrot_nb.engine.embedded.linear import Linear
from parrot_nb.engine.embedded.module_weights import fused_decoder
from parrot_nb.engine.embedded.modules import ATTENTION_NAME, ModulesDecoder
from parrot_nb.engine.embedded.trial import BEYOND, SHORT, TIMES, Outcome, Trial, deviation

pytestmark = pytest.mark.cpu_kinds
NARROW = [torch.bfloat16, torch.float16]
DTYPES = [torch.float32, *NARROW]
NAMES = ["llama", "qwen2", "qwen3", "mistral", "phi3", "gemma", "gemma2", "gemma3"]
TOKENS = [ord(char) for char in "It was a quiet morning, and nobody had come yet."]


def model_of(name: str, dtype: torch.dtype):
    torch.manual_seed(3)
    model = hf.AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation=ATTENTION_NAME).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def trial_of(decoder, page_size: int = 16) -> Trial:
    return Trial(TOKENS, page_size, decoder.shapes, decoder.device)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_both_decoders_compute_in_float32_with_weights_of_a_narrower_dtype(name, dtype):
    model = model_of(name, dtype)
    plain = ModulesDecoder(model)
    trial = trial_of(plain)
    before = trial.logits(plain, dtype)
    truth = trial.logits(ModulesDecoder(copy.deepcopy(model).float()), torch.float32)
    with plain.in_float32():
        torch.testing.assert_close(trial.logits(plain, torch.float32), truth, rtol=1e-4, atol=1e-4)
    assert torch.equal(trial.logits(plain, dtype), before), "the weights are as they were"
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    torch.testing.assert_close(trial.logits(fused_decoder(model).widened(), torch.float32), truth, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("page_size", [1, 4, 16])
def test_a_trial_has_prompts_of_several_lengths_and_a_step_of_one_row(page_size):
    decoder = ModulesDecoder(model_of("llama", torch.float32))
    sizes, one_row = [], []

    def spy(token_ids, positions, run, rows):
        sizes.append([segment.num_rows for segment in run.plan.segments])
        one_row.append(int(positions[-1]))
        return decoder(token_ids, positions, run, rows)

    logits = trial_of(decoder, page_size).logits(spy, torch.float32)
    assert sizes == [sorted({1, min(SHORT, page_size), page_size, page_size + BEYOND}), [1]]
    assert one_row[-1] == page_size + BEYOND, "it follows what was computed before"
    whole = hf.AutoModelForCausalLM.from_config(decoder.model.config, attn_implementation="eager").eval()
    whole.load_state_dict(decoder.model.state_dict())
    with torch.inference_mode():
        expected = whole(torch.tensor([[TOKENS[i % len(TOKENS)] for i in range(page_size + BEYOND + 1)]])).logits[0]
    torch.testing.assert_close(logits[-page_size - BEYOND - 1 :], expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """Deep and chaotic: in bfloat16, two right ways of computing it differ by a tenth of its largest logit and more."""
    shape = SHAPE | {
        "num_hidden_layers": 16,
        "hidden_size": 72,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 8,
    }
    folder = random_checkpoint(tmp_path_factory.mktemp("deep"), hf.LlamaConfig(**shape))
    change_config(folder, unheard_of=1)  # so that transformers' classes are used
    return folder


async def nothing(engine) -> None:
    pass


def verdict_of(folder, dtype):
    engine = load_engine(folder, dtype=str(dtype).removeprefix("torch."))
    run(engine, nothing)
    (verdict,) = engine.model.verdicts
    assert ("norms" in engine.model.swapped) == (verdict.outcome == "taken")
    return verdict


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_right_decoder_is_taken_however_much_rounding_is_amplified(deep, dtype):
    verdict = verdict_of(deep, dtype)
    assert (verdict.part, verdict.outcome) == ("fused decoder", "taken")
    assert "in float32 its logits deviate by" in verdict.reason
    if dtype == torch.bfloat16:
        found, own = map(float, re.search(r"by ([\d.]+) % from float32, the model's own by ([\d.]+) %", verdict.reason).groups())
        assert min(found, own) > 5, "the test needs a model on which a tolerance of so many percent would refuse it"
        assert found < TIMES * own


WRONG = {
    "scale": lambda layer: replace(layer, sizes=replace(layer.sizes, scale=layer.sizes.scale * 1.1)),
    "eps": lambda layer: replace(layer, sizes=replace(layer.sizes, eps=0.05)),
    "window": lambda layer: replace(layer, sizes=replace(layer.sizes, window=16)),
    "norms": lambda layer: replace(layer, attention_norm=layer.mlp_norm, mlp_norm=layer.attention_norm),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("wrong", WRONG)
def test_another_function_is_refused_in_every_dtype(deep, monkeypatch, wrong, dtype):
    right = fused.Layer.of
    monkeypatch.setattr(fused.Layer, "of", lambda *given, **how: WRONG[wrong](right(*given, **how)))
    verdict = verdict_of(deep, dtype)
    assert verdict.outcome == "refused"
    assert re.search(r"in float32 its logits deviate by [\d.]+ % from the model's own, where 0.1 % is allowed", verdict.reason)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_the_same_function_with_worse_roundings_is_refused(deep, monkeypatch, dtype):
    call = Linear.__call__
    monkeypatch.setattr(Linear, "__call__", lambda self, x: call(self, x) * (1 + 0.5 * torch.rand(1, dtype=x.dtype)))
    verdict = verdict_of(deep, dtype)
    assert verdict.outcome == "refused"
    assert "is allowed" not in verdict.reason, "in float32 it is right"


@pytest.mark.parametrize("name", ["gpt2", "mixtral"])
def test_a_model_without_a_fused_decoder_is_told_so(checkpoints, name):
    engine = load_engine(checkpoints(name))
    run(engine, nothing)
    (verdict,) = engine.model.verdicts
    assert verdict.outcome == "unavailable"
    assert f"there is none for {engine.model.architecture}, only for Llama" in verdict.reason


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 5),
    width=st.integers(1, 9),
    worst=st.booleans(),
    nan_row=st.one_of(st.none(), st.integers(0, 4)),
    seed=st.integers(0, 2**31),
)
def test_deviation(rows, width, worst, nan_row, seed):
    rng = np.random.default_rng(seed)
    expected, found = rng.normal(size=(rows, width)), rng.normal(size=(rows, width))
    left = [row for row in range(rows) if row != nan_row]
    squares = ((found - expected)[left] ** 2).mean(1)
    size = math.sqrt((expected[left] ** 2).mean()) if left else 1.0
    is_off = math.sqrt(squares.max() if worst else squares.mean()) / size if left else 0.0
    if nan_row is not None and nan_row < rows:
        expected[nan_row, 0] = found[nan_row] = math.nan
    result = deviation(torch.tensor(found).float(), torch.tensor(expected).float(), worst=worst)
    assert result == pytest.approx(is_off, rel=1e-3)
    if left:
        found[left[0], 0] = math.nan
        assert deviation(torch.tensor(found).float(), torch.tensor(expected).float(), worst=worst) == math.inf


def test_figures_in_words():
    assert str(Outcome(torch.float32, 3e-6)) == "in float32 its logits deviate by less than 0.001 % from the model's own"
    outcome = Outcome(torch.bfloat16, 0.002, 0.04, 0.02)
    assert str(outcome) == (
        "in float32 its logits deviate by 0.2 % from the model's own, where 0.1 % is allowed; "
        "in bfloat16 its logits deviate by 4 % from float32, the model's own by 2 %"
    )
    assert not outcome.passed
    assert Outcome(torch.bfloat16, 0.0005, 0.04, 0.02).passed
    assert not Outcome(torch.bfloat16, 0.0005, 0.04, 0.01).passed
    assert not Outcome(torch.bfloat16, 0.0005, math.inf, 0.01).passed
    assert Outcome(torch.bfloat16, 0.0005, 0.009, 0.0).passed, "a few roundings are always allowed"
