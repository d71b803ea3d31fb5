"""Chat frames give the ids that `apply_chat_template` gives for the whole conversation, for templates as models have them.

The templates are written anew in the shape that the models' makers document.
"""

from __future__ import annotations

import pytest
from built_tokenizers import byte_level, gemma, llama_legacy, llama_metaspace, split_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from parrot_nb.engine.codec import encode_parts
from parrot_nb.engine.embedded.codec import TokenizerCodec
from parrot_nb.errors import EngineError

LLAMA3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}{% set messages = messages[1:] %}
{%- else %}{% set system = '' %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' + 'Cutting Knowledge Date: December 2023\n\n' + system + '<|eot_id|>' }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
CHATML = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful assistant.<|im_end|>
' }}{% endif %}{{ '<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
QWEN3 = """{%- if tools %}{{ '<tool_call>' }}{% endif %}
{%- if messages[0].role == 'system' %}{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}{{ '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}
{%- elif message.role == 'assistant' %}{% set content = message.content %}
{%- if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}
{{- '<|im_start|>assistant\n' + content + '<|im_end|>\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"""
GEMMA3 = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{% set prefix = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}
{%- else %}{% set prefix = '' %}{% set turns = messages %}{% endif %}
{%- for message in turns %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '\n' + (prefix if loop.first else '') + message['content'] | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
MISTRAL = """{%- if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}
{%- else %}{% set system = '' %}{% set turns = messages %}{% endif %}
{{- bos_token }}
{%- for message in turns %}
{%- if message['role'] == 'user' %}{{ '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' }}
{%- else %}{{ ' ' + message['content'] + eos_token }}{% endif %}
{%- endfor %}"""
PHI3 = """{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"""
GPT_OSS = """{{- '<|start|>system<|message|>You are ChatGPT.\n\nReasoning: medium<|end|>' }}
{%- if messages[0].role == 'system' %}{{ '<|start|>developer<|message|># Instructions\n\n' + messages[0].content + '<|end|>' }}{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}{{ '<|start|>user<|message|>' + message.content + '<|end|>' }}
{%- elif message.role == 'assistant' %}
{{- '<|start|>assistant<|channel|>final<|message|>' + message.content }}
{%- if loop.last and not add_generation_prompt %}{{ '<|return|>' }}{% else %}{{ '<|end|>' }}{% endif %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"""
DEEPSEEK = """{{- bos_token }}{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% endif %}
{%- for message in messages %}
{%- if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}
{%- elif message['role'] == 'assistant' %}{{ '<｜Assistant｜>' + message['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"""


def tokenizer(kind, template, special, marks=(), *, bos=None, eos=None, rstrip=False):
    made = kind()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False, rstrip=rstrip) for token in special])
    made.add_tokens([AddedToken(token, special=False, normalized=False) for token in marks])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=bos, eos_token=eos)
    fast.chat_template = template
    return fast


IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA3_SPECIAL = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
OSS_SPECIAL = ["<|start|>", "<|message|>", "<|end|>", "<|return|>", "<|channel|>"]
PHI3_SPECIAL = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
DEEPSEEK_SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"]
THINK = ["<think>", "</think>", "<tool_call>"]
# Each with the token that ends an answer.
MODELS = {
    "llama3": (tokenizer(split_bytes, LLAMA3, LLAMA3_SPECIAL, bos="<|begin_of_text|>"), "<|eot_id|>"),
    "qwen2.5": (tokenizer(split_bytes, CHATML, IM, ["<tool_call>"], eos="<|im_end|>"), "<|im_end|>"),
    "qwen3": (tokenizer(split_bytes, QWEN3, IM, THINK), "<|im_end|>"),
    "smollm": (tokenizer(byte_level, CHATML, IM), "<|im_end|>"),
    "gemma3": (
        tokenizer(gemma, GEMMA3, ["<bos>", "<start_of_turn>", "<end_of_turn>"], ["\n", "\n\n", "\t"], bos="<bos>"),
        "<end_of_turn>",
    ),
    "mistral": (tokenizer(llama_legacy, MISTRAL, ["<s>", "</s>"], bos="<s>", eos="</s>"), "</s>"),
    "mistral-metaspace": (tokenizer(llama_metaspace, MISTRAL, ["<s>", "</s>"], bos="<s>", eos="</s>"), "</s>"),
    "phi3": (tokenizer(llama_legacy, PHI3, PHI3_SPECIAL, rstrip=True), "<|end|>"),
    "gpt-oss": (tokenizer(split_bytes, GPT_OSS, OSS_SPECIAL), "<|return|>"),
    "deepseek": (
        tokenizer(split_bytes, DEEPSEEK, DEEPSEEK_SPECIAL, THINK, bos="<｜begin▁of▁sentence｜>"), "<｜end▁of▁sentence｜>",
    ),
}  # fmt: skip
CODECS = {name: TokenizerCodec(made) for name, (made, _) in MODELS.items()}
# What these write before an answer is not what they write before the same answer later on: thoughts are left out.
FORGETFUL = ("qwen3", "gpt-oss", "deepseek", "mistral", "mistral-metaspace")
contents = st.text("ab Thequick\n\t.,'1é你", max_size=12)


def trimmed(text: str, trim: tuple[bool, bool]) -> str:
    text = text.lstrip() if trim[0] else text
    return text.rstrip() if trim[1] else text


def framed(name: str, users: list[str], answers: list[str], system: str | None) -> list[int]:
    """A conversation's ids from its frame."""
    codec = CODECS[name]
    frame, trims = codec.chat_frame(len(users), system), codec.chat_trims(len(users), system)
    parts: list[str | int] = []
    for i, user in enumerate(users):
        parts += [*frame[2 * i], trimmed(user, trims[i]), *frame[2 * i + 1], *answers[i : i + 1]]
    return encode_parts(codec, parts)


def expected(name: str, users: list[str], answers: list[str], system: str | None) -> list[int]:
    messages = [] if system is None else [{"role": "system", "content": system}]
    for i, user in enumerate(users):
        messages.append({"role": "user", "content": user})
        messages += [{"role": "assistant", "content": answer} for answer in answers[i : i + 1]]
    tokenizer, _ = MODELS[name]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False, return_dict=False)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=60, deadline=None)
@given(user=contents, system=st.one_of(st.none(), contents.filter(bool)))
def test_a_turn_has_the_ids_of_the_whole_conversation(name, user, system):
    assert framed(name, [user], [], system) == expected(name, [user], [], system)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in FORGETFUL])
@settings(max_examples=40, deadline=None)
@given(users=st.tuples(contents, contents), answer=contents.map(str.strip), system=st.one_of(st.none(), contents.filter(bool)))
def test_so_have_two_turns(name, users, answer, system):
    assert framed(name, list(users), [answer], system) == expected(name, list(users), [answer], system)


@pytest.mark.parametrize("name", MODELS)
def test_nobody_forges_what_a_template_writes(name):
    codec, (made, _) = CODECS[name], MODELS[name]
    everything = "".join(made.get_added_vocab())
    honest = [token_id for token_id in framed(name, ["a"], [], "b") if codec.is_control(token_id)]
    assert honest
    assert [i for i in framed(name, [everything], [], everything) if codec.is_control(i)] == honest


@pytest.mark.parametrize("name", MODELS)
def test_the_end_of_an_answer(name):
    made, end = MODELS[name]
    assert CODECS[name].turn_end_id == made.convert_tokens_to_ids(end)


def test_a_template_writes_its_bos_once():
    for name in ("llama3", "gemma3", "mistral", "deepseek"):
        made, _ = MODELS[name]
        assert framed(name, ["a"], [], None).count(made.bos_token_id) == 1


def test_the_first_word_joins_the_space_of_the_template():
    made, _ = MODELS["mistral"]
    tokens = made.convert_ids_to_tokens(framed("mistral", ["The quick"], [], None))
    assert "▁The" in tokens
    assert "The" not in tokens


def test_templates_that_trim_say_so():
    trims = {name: CODECS[name].chat_trims(1, None)[0] for name in MODELS}
    assert {name: trim for name, trim in trims.items() if any(trim)} == {
        "llama3": (True, True),
        "gemma3": (True, True),
        "phi3": (True, False),  # its tokens take the white space behind them
    }


def test_a_frame_is_made_once():
    frames = CODECS["llama3"]
    assert frames.chat_frame(2, "Be brief.") is frames.chat_frame(2, "Be brief.")


def test_templates_that_cannot_be_used():
    for template, reason in (
        ("{{ messages[0]['content'] }}", "drops"),
        ("{{ messages[0]['content'] }}{{ messages[0]['content'] }}", "repeats"),
        ("{{ nonsense.attribute.lost }}", "failed"),
        ("x" * 200_001, "characters"),
    ):
        codec = TokenizerCodec(tokenizer(byte_level, template, IM))
        assert codec.turn_end_id is None
        with pytest.raises(EngineError, match=f"{reason}.*--raw"):
            codec.chat_frame(2, None)
