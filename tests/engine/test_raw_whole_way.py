"""A bos that the author of a raw prompt or the chat template writes, through the public surface: once, and never from a value."""

from __future__ import annotations

import shutil

import pytest
from checkpoints import NUM_BYTES
from tokenizers import processors
from transformers import AutoTokenizer

import parrot_nb as P

WAIT_S = 120
BOS = NUM_BYTES
TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


@pytest.fixture
def opening(checkpoints, tmp_path):
    """A checkpoint whose tokenizer opens every text with its bos, and whose chat template writes that too."""
    folder = shutil.copytree(checkpoints("llama"), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def test_a_bos_that_is_written_is_not_doubled(opening):
    tokenizer = AutoTokenizer.from_pretrained(opening)
    assert tokenizer("a").input_ids[0] == BOS, "the tokenizer opens texts by itself"
    marked = P.SemanticFunction("<bos>Say: {{input:x}}.{{output:y, max_tokens=3, heal=False}}", name="marked")
    plain = P.SemanticFunction("Say: {{input:x}}.{{output:y, max_tokens=3, heal=False}}", name="plain")
    value = "<bos>Hi"  # text, whatever it spells
    with P.Session(model=opening, device="cpu", dtype="float32", max_context=128):
        raw = [function.options(chat=False) for function in (marked, plain)]
        variables = [function(value) for function in raw]
        texts = [variable.get(timeout=WAIT_S) for variable in variables]
        ids = [
            [token for part in function.render(x=value) for token in part.token_ids]
            for function in [*raw, plain.options(chat=True)]
        ]
    assert ids[0] == ids[1] == [BOS, *bytes_of(tokenizer, f"Say: {value}.")]
    assert texts[0] == texts[1]
    assert {variable.usage.prefilled_tokens + variable.usage.reused_tokens for variable in variables} == {len(ids[0])}
    assert ids[2] == [BOS, *bytes_of(tokenizer, f"[user]Say: {value}.[assistant]")]


def bytes_of(tokenizer, text: str) -> list[int]:
    """The tokens of a text's bytes, which has no token but these."""
    ((chars, _),) = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    return tokenizer.convert_tokens_to_ids(list(chars))
