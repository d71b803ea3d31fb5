"""How models think is found from their chat templates, and what is written around thoughts is what these write."""

from __future__ import annotations

import pytest
from built_tokenizers import byte_level
from test_frames import CHATML, CODECS, IM, tokenizer
from thinking_models import THINKERS

from parrot_nb.engine.codec import encode_parts
from parrot_nb.engine.embedded.codec import TokenizerCodec

MADE = {name: make() for name, make in THINKERS.items()}
# What a model is given before it thinks, before it answers without having thought, and what stands behind its thoughts.
WRITTEN = {
    "qwen3": ("<|im_start|>assistant\n<think>\n", "<|im_start|>assistant\n<think>\n\n</think>\n\n", "</think>\n\n"),
    "qwen3-special": ("<|im_start|>assistant\n<think>\n", "<|im_start|>assistant\n<think>\n\n</think>\n\n", "</think>\n\n"),
    "qwen3-text": ("<|im_start|>assistant\n<think>\n", "<|im_start|>assistant\n<think>\n\n</think>\n\n", "</think>\n\n"),
    "smollm3": ("<|im_start|>assistant\n<think>\n", "<|im_start|>assistant\n<think>\n\n</think>\n", "</think>\n"),
    "deepseek-r1": ("<｜Assistant｜><think>\n", "<｜Assistant｜><think>\n\n</think>\n\n", "</think>\n\n"),
    "deepseek-v3.1": ("<|assistant|><think>", "<|assistant|></think>", "</think>"),
    "gpt-oss": (
        "<|start|>assistant<|channel|>analysis<|message|>",
        "<|start|>assistant<|channel|>final<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_the_marks_of_a_model(name):
    made = MADE[name]
    codec = TokenizerCodec(made)
    marks = codec.thinking
    assert marks is not None
    asked = [{"role": "user", "content": "Why?"}]
    whole = made.apply_chat_template(
        asked, tokenize=False, add_generation_prompt=True, enable_thinking=True, thinking=True
    ).rpartition("Why?")
    before, after = codec.chat_frame(1, None, thinking=True)
    opens, empty, closes = WRITTEN[name]
    start = whole[0] + whole[1]
    behind = whole[2].partition(opens.partition("<think>")[0].partition("<|channel|>")[0])[0]

    def ids(text: str) -> list[int]:
        return made(start + behind + text, add_special_tokens=False)["input_ids"]

    assert encode_parts(codec, [*before, "Why?", *after, *marks.opens]) == ids(opens)
    assert encode_parts(codec, [*before, "Why?", *after, *marks.empty]) == ids(empty)
    assert codec.decode(encode_parts(codec, marks.closes, first=False)) == closes
    assert marks.always == (name in ("deepseek-r1", "gpt-oss"))


@pytest.mark.parametrize("name", [name for name in MADE if name != "gpt-oss"])
def test_without_thinking_the_frame_is_the_templates(name):
    made, codec = MADE[name], TokenizerCodec(MADE[name])
    before, after = codec.chat_frame(1, None)
    asked = [{"role": "user", "content": "Why?"}]
    expected = made.apply_chat_template(
        asked, add_generation_prompt=True, enable_thinking=False, thinking=False, return_dict=False
    )
    assert encode_parts(codec, [*before, "Why?", *after]) == expected


@pytest.mark.parametrize("name", ["llama3", "qwen2.5", "smollm", "gemma3", "mistral", "phi3"])
def test_models_that_do_not_think(name):
    assert CODECS[name].thinking is None


def test_a_template_that_only_removes_thoughts_thinks_on_demand():
    template = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")
    codec = TokenizerCodec(tokenizer(byte_level, template, IM, ["<think>", "</think>"]))
    assert codec.thinking is not None
    assert not codec.thinking.always
    assert codec.thinking.empty == ()
    assert codec.decode(encode_parts(codec, codec.thinking.opens)) == "<think>\n"


def test_a_template_that_opens_thoughts_where_it_is_told_to():
    template = CHATML.removesuffix("{% endif %}") + "{% if enable_thinking %}{{ '<think>' }}{% endif %}{% endif %}"
    codec = TokenizerCodec(tokenizer(byte_level, template, IM, ["<think>", "</think>"]))
    assert codec.thinking is not None
    assert not codec.thinking.always
    assert codec.decode(encode_parts(codec, codec.thinking.opens)) == "<think>"
    assert codec.decode(encode_parts(codec, codec.thinking.closes)) == "</think>"
    assert codec.chat_frame(1, None, thinking=True) == codec.chat_frame(1, None)


def test_only_qwens_makers_say_what_a_budget_ends_with():
    for name, made in MADE.items():
        codec = TokenizerCodec(made)
        cut = codec.decode(encode_parts(codec, codec.thinking.closes_cut, first=False))
        assert ("Considering the limited time by the user" in cut) == name.startswith("qwen3"), name
        assert cut.strip().startswith(("Considering", "</think>", "<|end|>"))
