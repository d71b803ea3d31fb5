"""Files of a model that claim what is not there are refused with one sentence, before anything is built of them."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import pytest
import transformers

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.embedded.claims import MAX_CONFIG_BYTES
from parrot_nb.errors import ModelLoadError

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from checkpoints import change_config, checkpoint
from gguf_files import random_llama, write_gguf

LINES = (Path(__file__).parent / "lying_configs.txt").read_text(encoding="utf-8").splitlines()
LIES = [line for line in LINES if line and not line.startswith("#")]


@pytest.fixture
def nothing_is_built(monkeypatch):
    def built(*args, **kwargs):
        raise AssertionError("transformers was asked")

    for name in ("AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"):
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", built)


def refused(folder, *fragments: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        load_engine(folder)
    said = str(caught.value)
    assert all(fragment in said for fragment in fragments), said
    assert "\n" not in said
    assert len(said) < 400
    assert said.endswith(".")


@pytest.mark.parametrize("lie", LIES)
def test_a_config_that_its_weights_belie(folder, lie, nothing_is_built):
    change_config(folder, **json.loads(lie))
    refused(folder, "config.json")


def test_the_sentence_says_what_is_claimed_and_what_is_held(folder):
    change_config(folder, num_hidden_layers=3000)
    refused(folder, "num_hidden_layers = 3000", "weights are of 3 layers", "several times cannot be run")
    change_config(folder, num_hidden_layers=3, vocab_size=10**9)
    refused(folder, "vocab_size = 1000000000", "none of its weights has that size")


def test_a_generation_config_of_wrong_types(folder, nothing_is_built):
    (folder / "generation_config.json").write_text('{"eos_token_id": ["</s>"]}')
    refused(folder, "generation_config.json", "eos_token_id")


def test_a_table_of_positions_is_as_long_as_its_weight(tmp_path, nothing_is_built):
    gpt2 = checkpoint(tmp_path / "gpt2", "gpt2")
    change_config(gpt2, n_positions=1_000_000)
    refused(gpt2, "n_positions = 1000000", "256 positions")


def test_a_config_of_any_length(folder, nothing_is_built):
    change_config(folder, layer_types=["full_attention"] * (MAX_CONFIG_BYTES // 10))
    refused(folder, "config.json", "MB")
    (folder / "config.json").write_text('{"a": ' + "[" * 100_000)
    refused(folder, "config.json", "damaged")


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**8, 7, 0])
def test_a_header_of_another_length_than_it_says(folder, length, nothing_is_built):
    weights = folder / "model.safetensors"
    weights.write_bytes(struct.pack("<Q", length) + weights.read_bytes()[8:])
    refused(folder, "safetensors", "damaged")


INDICES = [
    ({"a": "model.bin"}, "no safetensors file"),
    ({"a": 7}, "damaged"),
    ({"a": ["part.safetensors"]}, "damaged"),
    ({}, "damaged"),
    ([], "damaged"),
    ({"a": "part.safetensors"}, "the weight 'a', which it has not"),
    ({"a": "../../part.safetensors"}, "outside that folder"),
    ({"a": "gone.safetensors"}, "lacks 'gone.safetensors'"),
]  # fmt: skip


@pytest.mark.parametrize(("placed", "said"), INDICES)
def test_an_index_of_what_is_not_there(folder, placed, said, nothing_is_built):
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    refused(folder, said)


READ = ["tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json", "model.safetensors", "chat_template.jinja", "vocab.txt", "merges.txt", "tokenizer.model", "additional_chat_templates/tools.jinja"]  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_link_that_leads_outside(folder, tmp_path, name, nothing_is_built):
    link, elsewhere = folder / name, tmp_path / "elsewhere"
    link.parent.mkdir(exist_ok=True)
    elsewhere.write_text("{}")
    link.unlink(missing_ok=True)
    link.symlink_to(elsewhere)
    refused(folder, f"'{name}'", "points outside that folder")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("gguf") / "llama")


LYING_METADATA = [
    {"llama.block_count": 1_000_000_000},
    {"llama.block_count": "2"},
    {"llama.embedding_length": 1_000_000},
    {"llama.feed_forward_length": 1_000_000_000},
    {"llama.attention.head_count": 0},
    {"llama.context_length": 4_000_000_000},
    {"llama.context_length": "long"},
    {"llama.expert_count": 1_000_000_000},
    {"split.count": "two"},
    {"general.alignment": "32"},
]


@pytest.mark.parametrize("metadata", LYING_METADATA)
def test_metadata_of_a_gguf_file(llama, tmp_path, metadata, monkeypatch):
    import gguf

    add = gguf.GGUFWriter.add_key_value

    def change(writer, key, value, kind, *args, **kwargs):
        if key in metadata:
            value = metadata[key]
            kind = gguf.GGUFValueType.STRING if isinstance(value, str) else gguf.GGUFValueType.UINT32
        add(writer, key, value, kind, *args, **kwargs)

    monkeypatch.setattr(gguf.GGUFWriter, "add_key_value", change)
    absent = {key: value for key, value in metadata.items() if not key.startswith("llama.") or "expert" in key}
    file = write_gguf(tmp_path / "model.gguf", llama, values=absent)
    for name in ("AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"):
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", None)
    refused(file, "model.gguf")
