"""The default model is an ordinary checkpoint inside the package, small and whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb.errors import ModelLoadError
from parrot_nb.tiny import checkpoint, default_model
from parrot_nb.tiny.checkpoint import FILES
from parrot_nb.tiny.tokens import make_tokenizer

MOST_BYTES = 12_000_000


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(default_model(), local_files_only=True)


@pytest.fixture(scope="module")
def model():
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(default_model(), local_files_only=True, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def test_it_is_small_and_whole():
    files = [path for path in default_model().iterdir() if path.name != "README.md"]
    assert {path.name for path in files} == set(FILES)
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES


def test_an_incomplete_installation_is_an_error_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_FOLDER", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelLoadError, match=r"model\.safetensors.*install parrot_nb again"):
        default_model()


def test_has_its_shape(model):
    import torch

    config = model.config
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert 2e6 <= model.num_parameters() <= 6e6
    assert model.dtype == torch.float32
    assert config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert config.num_key_value_heads < config.num_attention_heads
    assert config.max_position_embeddings == 4096


def test_the_tokenizer_is_the_one_that_the_code_makes(tmp_path):
    make_tokenizer().save(str(tmp_path / "tokenizer.json"))
    assert (tmp_path / "tokenizer.json").read_bytes() == (default_model() / "tokenizer.json").read_bytes()


def test_vocabulary_is_that_of_the_embedding(tokenizer, model):
    assert len(tokenizer) == model.config.vocab_size == model.get_input_embeddings().num_embeddings


def test_special_tokens_are_single_ids_known_to_the_configs(tokenizer, model):
    end, turn_end = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|turn_end|>"])
    assert tokenizer.eos_token_id == end
    assert model.config.eos_token_id == model.generation_config.eos_token_id == [end, turn_end]
    assert tokenizer.pad_token_id == end
    assert tokenizer.encode("<|turn_start|>") == [tokenizer.convert_tokens_to_ids("<|turn_start|>")]


def test_chat_template_writes_turns(tokenizer):
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Bye"},
    ]
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == (
        "<|turn_start|>system\nBe short.<|turn_end|>\n"
        "<|turn_start|>user\nHello<|turn_end|>\n"
        "<|turn_start|>assistant\nYes?<|turn_end|>\n"
        "<|turn_start|>user\nBye<|turn_end|>\n"
        "<|turn_start|>assistant\n"
    )
    assert tokenizer.apply_chat_template(turns[1:2], tokenize=False) == "<|turn_start|>user\nHello<|turn_end|>\n"


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_round_trips(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "text", ["", " ", "  two  spaces ", "a\r\n\tb\x00c", "don 't", "<|turn_end|>", "é e\u0301 \ufeff", "🦜👩‍👩‍👧", "12345"]
)
def test_awkward_text_round_trips(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_byte_has_a_token_and_digits_stay_single(tokenizer):
    assert tokenizer.unk_token is None
    assert len(tokenizer.encode("2024")) == 4
    assert len(tokenizer.encode("Ada: I will send the red budget by Friday.")) <= 12


def test_importing_loads_no_torch():
    program = (
        "import sys, parrot_nb.tiny; sys.exit(sorted({'torch', 'transformers', 'tokenizers', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
