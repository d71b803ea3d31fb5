"""Every causal architecture of transformers either writes what `generate` writes or is refused; none is served wrongly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import transformers as hf
from architectures import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, outcome, quietly

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "architectures.md"
ROW = re.compile(r"\| `([\w-]+)` \| `(\w+)` \| (equal|refused|not tried) \| ([^|]*)\|")
# A part that is tried in every run, one of each kind of attention; the verdict is known.
SERVED = (
    "llama", "stablelm", "gemma2", "gemma3n_text", "gemma4_text", "gpt_oss", "deepseek_v3", "llama4_text", "cohere2", "olmo2", "gptj",
    "opt", "smollm3", "glm4", "granitemoe",
)  # fmt: skip
REFUSED = (
    "bloom",
    "mpt",
    "falcon",
    "falcon_h1",
    "moshi",
    "blenderbot",
    "diffllama",
    "doge",
    "mamba",
    "qwen3_next",
    "bert",
    "rwkv",
)


@pytest.fixture(autouse=True)
def quiet():
    quietly()
    torch.set_num_threads(1)


@pytest.mark.parametrize("model_type", SERVED)
def test_architectures_that_are_served_write_what_generate_writes(model_type, tmp_path):
    found = outcome(model_type, tmp_path)
    assert found.verdict == "equal", found.detail


@pytest.mark.parametrize("model_type", REFUSED)
def test_architectures_that_would_write_other_text_are_refused(model_type, tmp_path):
    found = outcome(model_type, tmp_path)
    assert found.verdict == "refused", found.detail
    assert "embedded engine" in found.detail
    assert len(found.detail) < 400


@pytest.mark.architectures
@pytest.mark.parametrize("model_type", MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
def test_no_architecture_is_served_wrongly(model_type, tmp_path):
    found = outcome(model_type, tmp_path)
    assert found.verdict != "wrong", found.detail


def test_the_table_of_the_docs_has_a_row_for_each_and_none_is_wrong():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    parts = [ROW.fullmatch(line) for line in rows]
    assert all(parts), [line for line, part in zip(rows, parts, strict=True) if part is None]
    verdicts = {part[1]: part[3] for part in parts}
    assert len(verdicts) == len(rows)
    of_version = re.search(r"`transformers` (\S+),", PAGE.read_text(encoding="utf-8"))
    assert of_version is not None
    if of_version[1] == hf.__version__:  # another version has other classes
        classes = {part[1]: part[2] for part in parts}
        assert classes == dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert {verdicts[name] for name in SERVED} == {"equal"}
    assert {verdicts[name] for name in REFUSED} == {"refused"}
    assert [part[1] for part in parts if part[3] == "not tried" and not part[4].strip()] == [], "each says why"
    assert sum(verdict == "not tried" for verdict in verdicts.values()) < 5
