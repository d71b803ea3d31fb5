"""Chat templates of reasoning models, written anew in the shape that their makers document, and tokenizers with their marks."""

from __future__ import annotations

from built_tokenizers import byte_level
from test_frames import DEEPSEEK, DEEPSEEK_SPECIAL, GPT_OSS, IM, OSS_SPECIAL, QWEN3, THINK, tokenizer

SMOLLM3 = """{{- '<|im_start|>system\nReasoning: ' + ('/think' if enable_thinking else '/no_think') + '<|im_end|>\n' }}
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}
{%- if not enable_thinking %}{{ '<think>\n\n</think>\n' }}{% endif %}{% endif %}"""
DEEPSEEK31 = """{{- bos_token }}{%- for m in messages %}
{%- if m.role == 'user' %}{{ '<|user|>' + m.content }}{% else %}{{ '<|assistant|></think>' + m.content + '<|end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' + ('<think>' if thinking else '</think>') }}{% endif %}"""
SPECIAL = ["<s>", "<|user|>", "<|assistant|>", "<|end|>"]

THINKERS = {
    "qwen3": lambda: tokenizer(byte_level, QWEN3, IM, THINK, eos="<|im_end|>"),
    "qwen3-special": lambda: tokenizer(byte_level, QWEN3, [*IM, *THINK], eos="<|im_end|>"),
    "qwen3-text": lambda: tokenizer(byte_level, QWEN3, IM, eos="<|im_end|>"),
    "smollm3": lambda: tokenizer(byte_level, SMOLLM3, IM, THINK, eos="<|im_end|>"),
    "deepseek-r1": lambda: tokenizer(
        byte_level, DEEPSEEK, DEEPSEEK_SPECIAL, THINK, bos=DEEPSEEK_SPECIAL[0], eos=DEEPSEEK_SPECIAL[1]
    ),
    "deepseek-v3.1": lambda: tokenizer(byte_level, DEEPSEEK31, SPECIAL, THINK, bos="<s>", eos="<|end|>"),
    "gpt-oss": lambda: tokenizer(byte_level, GPT_OSS, OSS_SPECIAL, eos="<|return|>"),
}
