"""A fingerprint knows a model's files again wherever they lie, and tells others apart."""

from __future__ import annotations

import asyncio
import os
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


def test_weights_saved_again_are_others_where_no_sample_tells(tmp_path):
    weights, found = tmp_path / "model.safetensors", set()
    data = bytearray(8 * WHOLE_BYTES)
    for time_s in (1_000, 1_001):
        weights.write_bytes(data)
        os.utime(weights, (time_s, time_s))
        found.add(fingerprint_of(Source(str(tmp_path), str(tmp_path))))
        data[WHOLE_BYTES + SAMPLE_BYTES] = 1
    assert len(found) == 2


def test_weights_in_the_hubs_cache_have_the_name_of_their_blob(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    weights = tmp_path / "snapshot" / "model.safetensors"

    def saved(name: str, time_s: int) -> str:
        blob = tmp_path / "blobs" / name
        blob.write_bytes(bytes(2 * WHOLE_BYTES))
        os.utime(blob, (time_s, time_s))
        weights.unlink(missing_ok=True)
        weights.symlink_to(blob)
        return fingerprint_of(Source(str(weights.parent), str(weights.parent)))

    assert saved("one", 1_000) == saved("one", 1_001) != saved("two", 1_001)


def test_an_engine_says_its_own_and_its_dtype():
    found = {dtype: loaded(default_model(), device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16")}
    assert found["float32"].split()[0] == found["bfloat16"].split()[0] == fingerprint(default_model())
    assert found["float32"] != found["bfloat16"]


def test_a_model_that_the_user_holds_has_none():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = default_model()
    assert loaded(AutoModelForCausalLM.from_pretrained(folder), tokenizer=AutoTokenizer.from_pretrained(folder)) == ""
