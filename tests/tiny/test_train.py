"""Training makes a checkpoint that transformers computes alike, and goes on where it stopped."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from parrot_nb.tiny import default_model
from parrot_nb.tiny.lessons import BATCH_TOKENS, LENGTHS, STAGES, _rejoined, batches
from parrot_nb.tiny.network import Network
from parrot_nb.tiny.tasks import EXERCISES, TASKS
from parrot_nb.tiny.tokens import NO_TARGET, Encoder
from parrot_nb.tiny.train import train
from parrot_nb.tiny.words import Draw

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def encoder():
    return Encoder(Tokenizer.from_file(str(default_model() / "tokenizer.json")))


def test_batches_are_full_repeatable_and_grow(encoder):
    stages = [replace(stage, until_tokens=stage.until_tokens / 32) for stage in STAGES]
    made = list(batches(encoder, 300 * BATCH_TOKENS, seed=1, stages=stages))
    assert len(made) == 300
    for batch in made:
        assert batch.length in LENGTHS
        assert len(batch.rows) == len(batch.labels) == BATCH_TOKENS // batch.length
        assert all(0 < len(row.ids) <= batch.length for row in batch.rows)
        assert all(any(target != NO_TARGET for target in row.targets) for row in batch.rows)
    assert made[:20] == list(batches(encoder, 20 * BATCH_TOKENS, seed=1, stages=stages))
    assert made[:20] != list(batches(encoder, 20 * BATCH_TOKENS, seed=2, stages=stages))
    first, last = made[: int(stages[0].until_tokens / BATCH_TOKENS)], made[-50:]
    assert max(batch.length for batch in first) <= 192 < 512 <= max(batch.length for batch in last)
    tasks = {label.split("/")[0] for batch in made for label in batch.labels}
    assert tasks == {*TASKS, *EXERCISES}


def test_the_network_computes_what_transformers_computes_from_its_weights(tmp_path, encoder):
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    network = Network()
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(default_model() / "model.safetensors").items()})
    reference = AutoModelForCausalLM.from_pretrained(default_model(), dtype=torch.bfloat16).eval()
    exact = AutoModelForCausalLM.from_pretrained(default_model(), dtype=torch.float32).eval()
    batch = next(batches(encoder, BATCH_TOKENS, seed=2))
    ids = torch.tensor(batch.rows[0].ids)[None]
    with torch.inference_mode():
        ours = network.logits(network.model(ids))
        theirs, right = reference(ids).logits.float(), exact(ids).logits
    assert (ours - right).abs().max() <= 2 * (theirs - right).abs().max() + 0.05


@pytest.mark.minutes
def test_training_learns_and_resumes(tmp_path):
    """Half, then the rest, is the same as all at once."""
    settings = {"num_tokens": 16 * BATCH_TOKENS, "seed": 3, "device": "cpu", "compiled": False}
    train(tmp_path / "whole", **settings, resume=False)
    train(tmp_path / "halves", **settings, resume=False, stop_after_steps=4)
    half = (tmp_path / "halves" / "model.safetensors").read_bytes()
    train(tmp_path / "halves", **settings, resume=True)
    whole = (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert (tmp_path / "halves" / "model.safetensors").read_bytes() == whole != half
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not any(report.values()), report
    assert model.num_parameters() == sum(p.numel() for p in Network().parameters())


def test_the_command_explains_itself():
    done = subprocess.run(
        [sys.executable, "-m", "parrot_nb.tiny.train", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--resume" in done.stdout


def test_inputs_may_stand_in_the_prompt(encoder):
    case = TASKS["ask"](Draw("rejoined"), 1)
    turn = case.turns()[0]
    apart = encoder.encode(case, chat=False)
    joined = encoder.encode(case, chat=False, rejoin=lambda fills: ["".join(fills)])
    one_text = encoder.encode(case, chat=False, rejoin=lambda fills: ["".join(fills)], split=list)
    assert len(joined.ids) < len(apart.ids) < len(one_text.ids)
    assert [t for t in joined.targets if t != NO_TARGET] == [t for t in apart.targets if t != NO_TARGET]
    assert turn.fills == case.turns()[0].fills


def test_what_is_rejoined_is_the_same_text():
    for seed in range(50):
        pieces = ["Question: ", "Who has to print it?", "\nAnswer: "]
        joined = _rejoined(Draw(seed), pieces)
        assert "".join(joined) == "".join(pieces)
    assert {len(_rejoined(Draw(seed), pieces)) for seed in range(50)} == {1, 2, 3}
