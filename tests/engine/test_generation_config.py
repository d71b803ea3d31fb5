"""What generation_config.json does to greedy `generate` is done here too, or the user is told that it is not."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers as hf
from checkpoints import PRIORITY, run, write

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.embedded.defaults import ModelDefaults
from parrot_nb.engine.protocol import Sampling

PROMPT = [7, 50, 99, 200, 3, 18, 77, 50, 99]
NUM_TOKENS = 20


@pytest.fixture
def with_config(checkpoints, tmp_path):
    """`with_config(name, **settings)`: a checkpoint whose generation_config.json says this besides."""

    def make(name: str, **settings: object):
        folder = shutil.copytree(checkpoints(name), tmp_path / "model", dirs_exist_ok=True)
        path = folder / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
        return folder

    return make


def generated(folder, **length: int) -> list[int]:
    """What `generate` writes by itself with the folder's own generation_config, of that length, past any end of the text."""
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    model.generation_config.eos_token_id = None
    ids = torch.tensor([PROMPT])
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **length)
    return out[0, len(PROMPT) :].tolist()


def written(folder, **how: object) -> tuple[list[int], object]:
    engine = load_engine(folder, kv_memory="1MB", page_size=4)

    async def main(engine):
        context = engine.open(PRIORITY)
        engine.fill(context, PROMPT)
        return (await write(engine, context, Sampling(NUM_TOKENS, ignore_eos=True, **how)))[1]

    return list(run(engine, main).token_ids), engine.model


@pytest.mark.parametrize("name", ["llama", "llama by modules"])
@pytest.mark.parametrize("which", ["repetition_penalty", "suppress_tokens", "begin_suppress_tokens", "all"])
def test_greedy_equals_generate(with_config, checkpoints, name, which):
    plain, info = written(checkpoints(name))
    assert (info.generation, info.recommended) == ((), ())
    settings = {
        "repetition_penalty": 1.3,
        "suppress_tokens": [*plain[1:4], 100_000, -1],
        "begin_suppress_tokens": [plain[0]],
    }
    asked = settings if which == "all" else {which: settings[which]}
    folder = with_config(name, **asked)
    expected = [token for token in generated(folder, max_new_tokens=NUM_TOKENS) if token < 256]
    assert expected != plain
    found, info = written(folder)
    assert found == expected
    assert len(info.generation) == len(asked)
    for told, setting in zip(info.generation, asked, strict=True):
        assert told.startswith(setting)
        assert "not done" not in told


@pytest.mark.parametrize("name", ["qwen3", "qwen3 by modules"])
def test_the_user_overrules_the_penalty(with_config, checkpoints, name):
    plain, _ = written(checkpoints(name))
    folder = with_config(name, repetition_penalty=1.4)
    assert written(folder)[0] != plain
    assert written(folder, repetition_penalty=1.0)[0] == plain
    assert written(folder, repetition_penalty=1.2)[0] == written(checkpoints(name), repetition_penalty=1.2)[0]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_what_is_not_done_is_told(with_config, checkpoints, name):
    plain, _ = written(checkpoints(name))
    found, info = written(with_config(name, no_repeat_ngram_size=3, num_beams=4, bad_words_ids=[[5]] * 40, min_length=0))
    assert found == plain
    assert len(info.generation) == 3
    assert all("not done here" in told and "\n" not in told and len(told) < 200 for told in info.generation)


@pytest.mark.parametrize("name", ["llama", "llama by modules"])
@pytest.mark.parametrize(("setting", "value"), [("max_new_tokens", 5), ("max_length", len(PROMPT) + 5)])
def test_a_length_that_the_files_ask_for_is_told(with_config, checkpoints, name, setting, value):
    plain, _ = written(checkpoints(name))
    folder = with_config(name, **{setting: value})
    assert generated(folder) == plain[:5]  # `generate` ends there where the call says no length
    found, info = written(folder)
    assert found == plain
    (told,) = info.generation
    assert told.startswith(f"{setting}={value}")
    assert "not done here" in told
    assert "max_tokens" in told


@pytest.mark.parametrize("name", ["llama", "llama by modules"])
def test_recommendations_of_sampling_change_nothing(with_config, checkpoints, name):
    plain, _ = written(checkpoints(name))
    recommended = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.05}
    found, info = written(with_config(name, do_sample=True, **recommended))
    assert found == plain
    assert dict(info.recommended) == recommended
    assert info.generation == ()
    _, info = written(with_config(name, do_sample=False, **recommended))
    assert info.recommended == ()


def test_every_setting_that_changes_greedy_generate_is_known():
    """transformers lists what builds its logits processors; a setting that is new there must be looked at here."""
    import inspect

    from transformers.generation.utils import GenerationMixin

    from parrot_nb.engine.embedded.defaults import LENGTHS, NOT_DONE, NOT_DONE_IN_SAMPLING, RECOMMENDED

    source = inspect.getsource(GenerationMixin._get_logits_processor)
    read = {name for name in hf.GenerationConfig().to_dict() if f"generation_config.{name} " in source.replace(")", " ")}
    done = {"repetition_penalty", "suppress_tokens", "begin_suppress_tokens"}
    changes_no_choice = {"renormalize_logits", "do_sample", "num_return_sequences", "use_cache"}
    assert {"no_repeat_ngram_size", "suppress_tokens"} <= read
    assert read <= done | set(NOT_DONE) | set(NOT_DONE_IN_SAMPLING) | set(LENGTHS) | set(RECOMMENDED) | changes_no_choice


@pytest.mark.parametrize(
    "config",
    [
        {"repetition_penalty": "1.1"},
        {"repetition_penalty": 0},
        {"repetition_penalty": float("nan")},
        {"repetition_penalty": 10**400},
        {"repetition_penalty": True},
        {"suppress_tokens": 5},
        {"begin_suppress_tokens": ["a"]},
        {"suppress_tokens": [True]},
    ],
)
def test_what_cannot_be_used_is_told_and_does_nothing(config):
    found = ModelDefaults.of(config)
    assert (found.repetition_penalty, found.suppressed) == (1.0, None)
    (told,) = found.told
    assert "not done here" in told


def test_what_cannot_be_recommended_is_left_out():
    config = {
        "do_sample": True,
        "temperature": -1,
        "top_p": 0,
        "top_k": 2.5,
        "min_p": "x",
        "repetition_penalty": 1.05,
        "typical_p": 0.9,
    }
    found = ModelDefaults.of(config)
    assert found.recommended == (("repetition_penalty", 1.05),)
    assert ["typical_p" in told for told in found.told] == [False, True]
    assert ModelDefaults.of({"do_sample": True, "top_p": 0.9}).recommended == (("temperature", 1.0), ("top_p", 0.9))
