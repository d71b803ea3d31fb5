"""A fingerprint knows a model's files again wherever they lie, and tells others apart."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.embedded.fingerprint import SAMPLE_BYTES, WHOLE_BYTES, fingerprint_of
from parrot_nb.engine.embedded.sources import Source, find_source
from parrot_nb.tiny import default_model


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(default_model(), tmp_path / "copy")


def fingerprint(folder) -> str:
    return fingerprint_of(find_source(str(folder)))


def loaded(model, **settings) -> str:
    """The fingerprint that an engine of this model says."""
    engine = load_engine(model, **settings)
    asyncio.run(engine.close())
    return engine.model.fingerprint


def test_a_copy_elsewhere_has_the_same_one_and_notes_beside_it_do_not_count(folder):
    (folder / "README.md").write_text("other words")
    assert fingerprint(folder) == fingerprint(default_model())


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json"])
def test_every_file_that_texts_depend_on_counts(folder, name):
    before, file = fingerprint(folder), folder / name
    file.write_text(file.read_text().rstrip() + "\n\n" if file.exists() else "{}")
    assert fingerprint(folder) != before


@pytest.mark.parametrize("place", [8, WHOLE_BYTES - 1, WHOLE_BYTES + SAMPLE_BYTES - 1, -1])
def test_the_ends_of_large_weights_are_read(tmp_path, place):
    weights = tmp_path / "model.safetensors"
    data = bytearray(8 * WHOLE_BYTES)
    weights.write_bytes(data)
    before = fingerprint_of(Source(str(tmp_path), str(tmp_path)))
    data[place] = 1
    weights.write_bytes(data)
    after = fingerprint_of(Source(str(tmp_path), str(tmp_path)))
    weights.write_bytes(data[:-1])
    assert len({before, after, fingerprint_of(Source(str(tmp_path), str(tmp_path)))}) == 3


def test_an_engine_says_its_own_and_its_dtype():
    found = {dtype: loaded(default_model(), device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16")}
    assert found["float32"].split()[0] == found["bfloat16"].split()[0] == fingerprint(default_model())
    assert found["float32"] != found["bfloat16"]


def test_a_model_that_the_user_holds_has_none():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = default_model()
    assert loaded(AutoModelForCausalLM.from_pretrained(folder), tokenizer=AutoTokenizer.from_pretrained(folder)) == ""
