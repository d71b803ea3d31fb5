"""The default model is an ordinary checkpoint, the same one every time, whatever happens to its folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb.errors import ModelLoadError
from parrot_nb.tiny import cache_folder, default_model
from parrot_nb.tiny.recipe import FILES, NOTE

MAKE = "from parrot_nb.tiny import default_model; import sys; sys.stdout.write(str(default_model()))"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PARROT_NB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARROT_NB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield default_model()


@pytest.fixture(scope="module")
def tokenizer(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.fixture(scope="module")
def model(folder):
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def start_making(cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKE],
        env=os.environ | {"PARROT_NB_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )


# What it is


def test_has_the_shape_that_parrot_tiny_will_have(model):
    import torch

    config = model.config
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert 2e6 <= model.num_parameters() <= 6e6
    assert model.dtype == torch.float32
    assert config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert config.num_key_value_heads < config.num_attention_heads
    assert config.max_position_embeddings == 4096


def test_says_that_it_is_untrained(folder):
    assert json.loads((folder / "config.json").read_text())["parrot_note"] == NOTE
    assert "untrained" in NOTE


def test_vocabulary_is_that_of_the_embedding_and_small(tokenizer, model):
    assert len(tokenizer) == model.config.vocab_size == model.get_input_embeddings().num_embeddings
    assert 1_000 <= len(tokenizer) <= 1_500


def test_special_tokens_are_single_ids_known_to_the_configs(tokenizer, model):
    end, turn_end = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|turn_end|>"])
    assert tokenizer.eos_token_id == end == model.config.eos_token_id
    assert model.generation_config.eos_token_id == [end, turn_end]
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
    assert len(tokenizer.encode("The planner said that the release is ready.")) <= 15


def test_greedy_text_is_varied_words(tokenizer, model):
    import torch

    for prompt in ["Write python code of a snake game.\nCode: ", "Summary:", "你好"]:
        ids = tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            out = model.generate(**ids, max_new_tokens=64, do_sample=False)
        text = tokenizer.decode(out[0, ids.input_ids.shape[1] :])
        assert out.shape[1] - ids.input_ids.shape[1] == 64
        assert text.isprintable(), text
        assert len(set(text.split())) >= 16, text


# How it comes about


def test_two_builds_are_the_same_to_the_byte(folder, cache):
    again = default_model()
    assert again != folder
    assert again.name == folder.name
    assert digests(again) == digests(folder)


def test_building_leaves_the_random_numbers_of_the_user_alone(cache):
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    default_model()
    assert torch.equal(torch.rand(3), expected)


def test_a_whole_folder_is_used_as_it_is(folder):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARROT_NB_CACHE", str(folder.parent))
        assert default_model() == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert list(folder.parent.iterdir()) == [folder]


def test_processes_at_once_agree(tmp_path, folder):
    makers = [start_making(tmp_path) for _ in range(3)]
    paths = {maker.communicate()[0] for maker in makers}
    assert [maker.returncode for maker in makers] == [0, 0, 0]
    (made,) = paths
    assert digests(Path(made)) == digests(folder)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def truncate(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def replace_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder")


def put_a_folder_where_a_file_was(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json" / "inner").mkdir(parents=True)


DAMAGES = [
    truncate,
    flip_a_bit,
    empty,
    replace_by_a_file,
    put_a_folder_where_a_file_was,
    lambda folder: (folder / "tokenizer.json").unlink(),
    lambda folder: (folder / "manifest.json").write_text("{"),
    lambda folder: (folder / "manifest.json").write_text("[]"),
    lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_made_whole(folder, cache, damage):
    copy = cache / folder.name
    shutil.copytree(folder, copy)
    damage(copy)
    assert default_model() == copy
    assert digests(copy) == digests(folder)
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_manifest_covers_every_file(folder):
    assert (
        set(json.loads((folder / "manifest.json").read_text()))
        == set(FILES)
        == {p.name for p in folder.iterdir()} - {"manifest.json"}
    )


def test_a_changed_recipe_gets_its_own_folder(folder, cache, monkeypatch):
    import importlib.metadata

    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.0.another")
    assert default_model().name != folder.name


def test_a_cache_that_cannot_be_written_is_an_error_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PARROT_NB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelLoadError, match="PARROT_NB_CACHE"):
        default_model()


# Where it lives


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "base/parrot_nb"),
        ("linux", None, "home/.cache/parrot_nb"),
        ("win32", "LOCALAPPDATA", "base/parrot_nb"),
        ("win32", None, "home/AppData/Local/parrot_nb"),
        ("darwin", None, "home/Library/Caches/parrot_nb"),
        ("darwin", "PARROT_NB_CACHE", "base"),
    ],
)
def test_cache_folder_follows_the_platform(tmp_path, monkeypatch, platform, variable, expected):
    for name in ["PARROT_NB_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "base"))
    assert cache_folder() == tmp_path / expected


def test_importing_loads_no_torch():
    program = (
        "import sys, parrot_nb.tiny; sys.exit(sorted({'torch', 'transformers', 'tokenizers', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
