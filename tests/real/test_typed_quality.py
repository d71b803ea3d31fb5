"""A type costs a pretrained model no right answer: typed values are right at least as often as free text that is parsed."""

from __future__ import annotations

import pytest
from typed_quality import TASKS, count, first_json, first_label, first_number

import parrot_nb as P


def test_the_parser_of_free_text_is_lenient():
    assert first_json('Sure: ```json\n{"a": 1}\n```') == {"a": 1}
    assert first_json("{not json} none") is None
    assert first_number("about 1,200 or 7") == 1200
    assert first_label("positive", "negative")("It is Negative, not positive") == "negative"


@pytest.mark.minutes
def test_smollm2(smollm2_folder):
    with P.Session(model=smollm2_folder, device="cpu", dtype="float32", max_context=512):
        found = {name: (count(task, typed=True), count(task, typed=False)) for name, task in TASKS.items()}
    assert sum(len(task.cases) for task in TASKS.values()) == 60
    assert sum(typed for typed, _ in found.values()) >= sum(free for _, free in found.values()), found
