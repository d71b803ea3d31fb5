"""What a narrower dtype costs: the figures are those of transformers in float32, and mistakes are refused."""

from __future__ import annotations

import json
import math

import pytest
import torch
import transformers as hf

from parrot_nb.bench.__main__ import main
from parrot_nb.bench.quality import TEXT_FILE, rows, run
from parrot_nb.tiny import default_model

TEXT = "Anna sells the red car. Ben opens the green box. Anna vende el coche rojo. Ben abre la caja verde.\n"


def by_transformers(num_tokens: int) -> tuple[float, list[int]]:
    """Perplexity of the text, and the likeliest token at each place."""
    folder = str(default_model())
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([hf.AutoTokenizer.from_pretrained(folder)(TEXT, add_special_tokens=False).input_ids[:num_tokens]])
    with torch.inference_mode():
        logits = model(ids).logits[0, :-1]
    chosen = logits.log_softmax(-1).gather(-1, ids[0, 1:, None])
    return math.exp(-float(chosen.mean())), logits.argmax(-1).tolist()


def test_float32_is_what_transformers_computes_and_the_others_are_near_it():
    readings = run("default", ["bfloat16", "int8", "int4"], 40, TEXT)
    perplexity, choices = by_transformers(40)
    assert [one.setting for one in readings] == ["float32", "bfloat16", "int8", "int4"]
    assert readings[0].perplexity == pytest.approx(perplexity, rel=1e-4)
    assert list(readings[0].choices) == choices
    for one, allowed in zip(readings[1:], (0.05, 0.1, 0.5), strict=True):
        assert abs(one.perplexity / perplexity - 1) <= allowed
        assert len(one.choices) == len(choices)
        assert 0.5 <= one.agreement(readings[0]) <= 1
    assert len({tuple(one.log_likelihoods) for one in readings}) == 4, "each setting computes with weights of its own"
    assert rows(readings)[0][2:] == ("1.0000", "100.0 %")


def test_the_command_prints_a_table_and_writes_what_it_measured(tmp_path, capsys):
    told = tmp_path / "quality.json"
    assert main(["quality", "--quantize", "int8", "--tokens", "12", "--json", str(told)]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["weights", "float32", "int8"]
    assert "11 next tokens" in out
    assert [one["setting"] for one in json.loads(told.read_text())["readings"]] == ["float32", "int8"]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--quantize", "int3"], "There is no setting 'int3'"),
        (["--tokens", "1"], "at least two tokens"),
        (["--tokens", "0"], "--tokens"),
        (["--text", "nowhere.txt"], "nowhere.txt cannot be read"),
    ],
)
def test_mistakes_are_refused_in_a_sentence(arguments, fragment, capsys):
    assert main(["quality", *arguments]) == 2
    error = capsys.readouterr().err
    assert fragment in error
    assert error.count("\n") == 1


def test_the_text_is_shipped_and_long_enough():
    assert len(TEXT_FILE.read_text(encoding="utf-8").split()) > 1000
