"""Chat templates do what they do in transformers, and what would hang or fill the memory is refused."""

from __future__ import annotations

import pytest
from built_tokenizers import byte_level
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from parrot_nb.engine.embedded.codec import TokenizerCodec
from parrot_nb.engine.embedded.templates import compile_template
from parrot_nb.errors import EngineError

MESSAGES = [
    {"role": "system", "content": "Be <b>brief</b>."},
    {"role": "user", "content": " a\n"},
    {"role": "assistant", "content": "b"},
]
TEMPLATES = [
    "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' ~ m['content'] | trim }}\n{% endfor %}",
    "{%- for m in messages %}\n  {%- if m.role == 'system' %}{% continue %}{% endif %}{{ m.content }}{% break %}\n{% endfor -%}\n",
    "{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% if m.role == 'user' %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.found }}{{ ns.n * 3 - 2 ** 5 }}",
    "{{ messages | tojson }}{{ messages | tojson(indent=2) }}{{ messages[1:] | length }}",
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}{{ '%s is %d' % ('a', 7) }}{{ '-' * 20 }}",
    "{% macro show(m) %}[{{ m.content }}]{% endmacro %}{{ show(messages[0]) }}{{ dict(a=1)['a'] }}{{ messages[::-1][0].content }}",
    "{{ strftime_now('%Y') }}{% if tools %}tools{% endif %}{% if enable_thinking is defined %}{{ enable_thinking }}{% endif %}{{ undefined_name }}",
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}",
    "{{ messages.__class__ }}",
    "{{ namespace(__x=1) }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].content.__class__.__mro__ }}",
    "{% set ns = namespace() %}{% set ns._x = 1 %}",
]  # fmt: skip
HOSTILE = [
    "{{ 9**(9**9) }}",
    "{{ 'a' * 10**9 }}",
    "{{ ['a'] * 1000000000 }}",
    "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=99) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ range(1000000000) | list }}",
]


# As templates in use look from each turn at the whole conversation.
LOOKING_AROUND = [
    "{% set ns = namespace(last=0) %}{% for m in messages[::-1] %}{% set i = (messages|length - 1) - loop.index0 %}{% if m.role == 'user' and m.content is string and not m.content.startswith('<tool_response>') %}{% set ns.last = i %}{% endif %}{% endfor %}{% for m in messages %}{{ m.content }}{% if loop.index0 > ns.last %}.{% endif %}{% endfor %}",
    "{% set turns = messages %}{% for m in turns %}{{ m.content }}{% for later in turns[loop.index:] %}{% break %}{% endfor %}{% endfor %}",
    "{% for m in messages %}{{ m.content }}{% if messages is sequence and messages is not string and messages is defined %}.{% endif %}{% if (messages|first).role == (messages|last).role %}.{% endif %}{% endfor %}",
    "{% macro show(turns, i) %}{{ turns[i].content }}{% endmacro %}{% for m in messages %}{{ show(messages, loop.index0) }}{% endfor %}",
    "{% set ns = namespace(kept=[]) %}{% for m in messages %}{% set ns.kept = ns.kept + [m] %}{% endfor %}{% for m in ns.kept %}{{ m.content }}{% endfor %}",
]  # fmt: skip


def tokenizer_with(template: str) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level(), bos_token="<s>")
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_do_what_they_do_in_transformers(template):
    settings = {"add_generation_prompt": True, "enable_thinking": False}
    try:
        expected = tokenizer_with(template).apply_chat_template(MESSAGES, tokenize=False, **settings)
    except TemplateError:
        with pytest.raises(TemplateError):
            compile_template(template).render(messages=MESSAGES, bos_token="<s>", tools=None, **settings)
        return
    assert (
        compile_template(template).render(messages=MESSAGES, bos_token="<s>", tools=None, documents=None, **settings) == expected
    )


@pytest.mark.parametrize("template", LOOKING_AROUND)
def test_a_conversation_of_500_turns_is_within_the_budget(template):
    messages = [{"role": ("user", "assistant")[i % 2], "content": f"{i} " + "a" * 1000} for i in range(500)]
    text = compile_template(template).render(messages=messages)
    assert [word for word in text.replace(".", " ").replace("a", " ").split() if word.isdigit()] == [str(i) for i in range(500)]


@pytest.mark.parametrize("template", HOSTILE)
def test_what_would_hang_or_fill_the_memory_is_refused(template):
    codec = TokenizerCodec(tokenizer_with(template + "{{ messages[0].content }}"))
    with pytest.raises(EngineError, match="--raw"):
        codec.chat_frame(1, None)


def test_a_class_with_a_way_of_its_own_is_asked():
    class Own(PreTrainedTokenizerFast):
        def apply_chat_template(self, messages, **_settings):
            return "".join(f"[{message['content']}]" for message in messages)

    own = Own(tokenizer_object=byte_level())
    own.chat_template = "{{ 'something else' }}"
    assert TokenizerCodec(own).chat_frame(1, "Be brief.") == (("[Be brief.][",), ("]",))


def test_the_default_of_several_templates():
    tokenizer = tokenizer_with("")
    tokenizer.chat_template = {"default": "<{{ messages[0].content }}>", "tool_use": "no"}
    assert TokenizerCodec(tokenizer).chat_frame(1, None) == (("<",), (">",))
    tokenizer.chat_template = {"rag": "no"}
    with pytest.raises(EngineError, match=r"rag.*--raw"):
        TokenizerCodec(tokenizer).chat_frame(1, None)
