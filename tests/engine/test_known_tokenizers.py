"""Tokenizers that are read without transformers are what it makes of them; all others are left to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import CONFIGS, READ_FROM_FILES
from tokenizers import AddedToken, processors
from transformers import AutoTokenizer, GemmaTokenizer

from parrot_nb.engine.embedded.checkpoint import known_checkpoint
from parrot_nb.engine.embedded.codec import TokenizerCodec
from parrot_nb.engine.embedded.families import FAMILIES
from parrot_nb.engine.embedded.tokenizer import KnownTokenizer, known_tokenizer
from parrot_nb.tiny import default_model

TEXTS = ["", " a", "Hello <|turn_end|><eos><bos>\n", "é🦜\t123  x", "<|endoftext|>"]
CHAT = "{% for m in messages %}{{ bos_token }}[{{ m.role }}] {{ m['content'] }}{% if not loop.last %}{{ eos_token }}{% endif %}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"


def change(path: Path, *leave_out: str, **changes: object) -> None:
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in settings.items() if key not in leave_out}))


@pytest.fixture
def folder(tmp_path):
    """A copy of the default model's small files, to change."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(default_model() / name, tmp_path)
    return tmp_path


def same(folder: Path) -> None:
    ours, theirs = TokenizerCodec(known_tokenizer(folder)), TokenizerCodec(AutoTokenizer.from_pretrained(folder))
    assert isinstance(ours._tokenizer, KnownTokenizer)
    for name in ("key", "opening_ids", "anchor", "eos_token_id", "has_chat_template", "control_ids", "turn_end_id", "vocab_size"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs.encode(text)
        assert ours.decode(ids) == theirs.decode(ids)
    control = sorted(ours.control_ids)
    assert ours.decode(control) == theirs.decode(control)
    assert ours.carried_over(control) == theirs.carried_over(control)
    if ours.has_chat_template:
        for turns, system in ((1, None), (2, "Be brief. <|turn_end|>"), (3, "")):
            assert ours.chat_frame(turns, system) == theirs.chat_frame(turns, system)


def test_the_default_models():
    same(default_model())


def test_that_of_smollm2(smollm2_folder):
    same(smollm2_folder)


def test_that_of_gemma(gemma_folder):
    same(gemma_folder)


def test_they_are_read_without_transformers(folder):
    code = "import sys; from parrot_nb.engine.embedded.tokenizer import known_tokenizer as known; from parrot_nb.engine.embedded.codec import TokenizerCodec as Codec; c = Codec(known(sys.argv[1])); c.prepare(); c.chat_frame(2, 'a'); print('transformers' in sys.modules, 'torch' in sys.modules)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.fixture(scope="module")
def saved_folder(tmp_path_factory):
    """A tokenizer of Gemma's class, as it saves itself."""
    folder = tmp_path_factory.mktemp("gemma")
    names = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<mask>": 4}
    tokens = ["\n", "<b>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab"]
    vocab = names | {token: len(names) + i for i, token in enumerate(tokens)}
    tokenizer = GemmaTokenizer(vocab=vocab, merges=[("▁", "a"), ("a", "b")])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ("\n", "<b>")])
    opening = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer.backend_tokenizer.post_processor = opening
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3_text"}))
    return folder


def test_gemmas(saved_folder, tmp_path):
    same(saved_folder)
    ours = TokenizerCodec(known_tokenizer(saved_folder))
    assert ours.opening_ids == (2,)
    assert (
        ours.encode(" ab\n<b>") == AutoTokenizer.from_pretrained(saved_folder)(" ab\n<b>", add_special_tokens=False)["input_ids"]
    )
    folder = shutil.copytree(saved_folder, tmp_path / "model")
    for name, changes in (
        ("config.json", {"model_type": "llama"}),
        ("tokenizer_config.json", {"unk_token": "<pad>"}),
        ("tokenizer.json", {"normalizer": None}),
        ("tokenizer.json", {"pre_tokenizer": None}),
        ("tokenizer.json", {"post_processor": None}),
    ):
        whole = (folder / name).read_bytes()
        assert known_tokenizer(folder) is not None
        change(folder / name, **changes)
        assert known_tokenizer(folder) is None
        (folder / name).write_bytes(whole)


def test_a_template_in_a_file_of_its_own(folder):
    change(folder / "tokenizer_config.json", "chat_template")
    (folder / "chat_template.jinja").write_text(
        CHAT.replace("{{ bos_token }}", "{{ 'a' + m['role'] + 'b' }}{{ messages[0]['role'] }}")
    )
    same(folder)
    change(folder / "tokenizer_config.json", chat_template=CHAT)
    assert known_tokenizer(folder) is None


@pytest.mark.parametrize("name", [name for name in READ_FROM_FILES if FAMILIES[CONFIGS[name]().model_type].plain_tokenizer])
def test_those_of_other_checkpoints(checkpoints, tmp_path, name):
    assert known_checkpoint(checkpoints(name)) is not None
    same(checkpoints(name))
    folder = shutil.copytree(checkpoints(name), tmp_path / "model")
    change(folder / "tokenizer_config.json", chat_template=CHAT)
    same(folder)
    change(folder / "tokenizer_config.json", "bos_token", "eos_token")
    same(folder)


def test_a_tokenizer_that_opens_texts(folder):
    opening = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|turn_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"<|turn_start|>": {"id": "<|turn_start|>", "ids": [1], "tokens": ["<|turn_start|>"]}}}  # fmt: skip
    change(folder / "tokenizer.json", post_processor=opening)
    same(folder)
    assert TokenizerCodec(known_tokenizer(folder)).opening_ids == (1,)


NOT_KNOWN = {
    "a key nobody knows": {"unheard_of": None},
    "a class with a way of its own": {"tokenizer_class": "Qwen2TokenizerFast"},
    "no class": {"tokenizer_class": None},
    "code of its own": {"auto_map": {"AutoTokenizer": ["a.B", None]}},
    "a special token that is not there": {"bos_token": "<|begin|>"},
    "a special token with properties": {"eos_token": {"content": "<|endoftext|>", "lstrip": True}},
    "special tokens by name": {"extra_special_tokens": {"image_token": "<|turn_start|>"}},
    "an opening of its own": {"add_bos_token": True},
    "several templates": {"chat_template": [{"name": "default", "template": "x"}]},
}  # fmt: skip


@pytest.mark.parametrize("changes", NOT_KNOWN.values(), ids=NOT_KNOWN.keys())
def test_what_is_not_understood_is_left_to_transformers(folder, changes):
    assert known_tokenizer(folder) is not None
    change(folder / "tokenizer_config.json", **changes)
    assert known_tokenizer(folder) is None


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__ }}",
        "{{ messages[0].__class__ }}",
        "{{ messages['content'] }}",
        "{{ messages[True]['content'] }}",
        "{{ messages[9]['content'] }}",
        "{{ messages[0]['content']['role'] }}",
        "{% for m in messages %}{{ m.__class__ }}{% endfor %}",
        "{% for m in messages %}{{ m['content'].__class__ }}{% endfor %}",
        "{% for m in messages %}{{ m[m.role] }}{% endfor %}",
        "{% for m in messages %}{{ m.items }}{% endfor %}",
        "{% for m in messages %}{{ m.content | trim }}{% endfor %}",
        "{% for m in messages %}{{ m.content.strip() }}{% endfor %}",
        "{% for m in messages %}{{ loop.cycle }}{% endfor %}",
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
        "{% for loop in messages %}{{ loop.first }}{% endfor %}",
        "{% for messages in messages %}{{ messages.role }}{% endfor %}",
        "{% for m in messages %}{% for c in m.content %}{{ c }}{% endfor %}{% endfor %}",
        "{% for m in messages[1:] %}{{ m.role }}{% endfor %}",
        "{{ range }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception('no') }}",
        "{% set x = 1 %}{{ x }}",
        "{% macro f() %}{% endmacro %}",
        "{% include 'x' %}",
        "{% for m in messages %}{{ m.role * 1000000000 }}{% endfor %}",
        "{% generation %}x{% endgeneration %}",
        "{% for m in",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{% for m in messages %}" * 30 + "x" + "{% endfor %}" * 30,
        "{{ 'x' * 10 ** 12 }}",
        "x" * 10_001,
    ],
    ids=lambda template: template[:60],
)  # fmt: skip
def test_templates_that_do_more_than_write_the_messages_are_left_to_transformers(folder, template):
    change(folder / "tokenizer_config.json", chat_template=template)
    assert known_tokenizer(folder) is None


def test_files_that_are_not_understood_are_left_to_transformers(folder):
    for name in ("chat_templates", "special_tokens_map.json", "added_tokens.json", "vocab.json", "tekken.json"):
        (folder / name).write_text("{}")
        assert known_tokenizer(folder) is None
        (folder / name).unlink()
    assert known_tokenizer(folder) is not None
    cut = {"truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}}
    for changes in (cut, {"model": {"type": "BPE"}}):
        whole = (folder / "tokenizer.json").read_bytes()
        change(folder / "tokenizer.json", **changes)
        assert known_tokenizer(folder) is None
        (folder / "tokenizer.json").write_bytes(whole)
    (folder / "tokenizer.json").write_text("[" * 100_000)
    assert known_tokenizer(folder) is None
    (folder / "tokenizer.json").unlink()
    assert known_tokenizer(folder) is None
