"""Types that no value of fits into `max_tokens`: found by the tokenizer, and never wrongly among choices."""

from __future__ import annotations

import pytest

from parrot_nb.bench.models import find_model
from parrot_nb.language import Template
from parrot_nb.runtime.shortest import too_long


@pytest.fixture(scope="module")
def codec():
    from transformers import AutoTokenizer

    from parrot_nb.engine.embedded.codec import TokenizerCodec

    return TokenizerCodec(AutoTokenizer.from_pretrained(find_model("default")))


def form_of(expression: str):
    kind = Template.parse(f"{{{{output:x: {expression}}}}}").types["x"]
    assert kind is not None
    return kind.form


def test_a_choice_of_fewer_tokens_counts_though_it_has_more_characters(codec):
    rare, common = "žżź", " the"
    assert len(rare) < len(common)
    assert len(codec.encode(rare)) > len(codec.encode(common)) == 1
    form = form_of(f'"{rare}" | "{common}"')
    assert too_long(form, 1, codec) is None
    alone = form_of(f'"{rare}"')
    most = len(codec.encode(rare))
    assert too_long(alone, most - 1, codec) == (rare, most)
    assert too_long(alone, most, codec) is None


def test_the_shortest_json_is_laid_out_as_it_is_written(codec):
    form = form_of("tuple[int, bool, None]")
    assert form.least == "[0, true, null]"
    most = len(codec.encode(form.least))
    assert too_long(form, most - 1, codec) == (form.least, most)
    assert too_long(form, most, codec) is None


def test_what_has_no_known_shortest_text_is_never_refused(codec):
    assert too_long(form_of("/a{500}/"), 1, codec) is None
