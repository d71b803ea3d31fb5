"""A session whose model is quantised: it says so, and takes no text of other weights for its own."""

from __future__ import annotations

import pytest
from side import WAIT_S, write

import parrot_nb as P
from parrot_nb.notebook.magics import model_rows

SENTENCE = "Say {{input:x}}: {{output:y}}"


def test_texts_of_other_weights_are_not_taken_from_the_store(tmp_path):
    step = write(SENTENCE, max_tokens=12)
    used = {}
    for kind in ("none", "int4", "int4"):
        with P.Session(store=tmp_path / "results.db", device="cpu", dtype="bfloat16", quantize=kind, isolate=False) as session:
            said = step("a")
            said.get(timeout=WAIT_S)
            used.setdefault(kind, []).append(said.usage.from_memo)
            shown = dict(model_rows(session))
            assert ("quantised" in shown) == (kind != "none")
            if kind != "none":
                assert "MB of bfloat16 weights as" in shown["quantised"]
    assert used == {"none": [False], "int4": [False, True]}


def test_a_kind_that_is_not_known_fails_the_call_in_a_sentence():
    with P.Session(quantize="int3", isolate=False) as session:
        said = write(SENTENCE)("a")
        with pytest.raises(P.ModelLoadError, match="Unknown quantisation 'int3': choose from none, int8, int4"):
            said.get(timeout=WAIT_S)
        assert session.models() == []
