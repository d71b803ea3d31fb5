"""`python -m parrot_nb.bench typed`: what it measures and the shape of what it prints, over tiny sizes."""

from __future__ import annotations

import json
import re

import pytest

from parrot_nb.bench import typed
from parrot_nb.bench.__main__ import main
from parrot_nb.bench.models import find_model
from parrot_nb.bench.typed import Figures, FirstUse, Sizes, Writing, footer, render, rows

MADE = Figures(
    {
        "16 orders, untyped": Writing(960, 0, 400.0, 3.0),
        "16 orders, typed": Writing(960, 0, 390.0, 3.1),
        "16 orders, typed, with guesses": Writing(960, 480, 600.0, 2.0),
    },
    FirstUse(0.31, 0.002, 0.011),
    "xgrammar is not installed",
)


@pytest.mark.minutes
def test_texts_are_measured_with_their_types_and_without(tmp_path, capsys):
    file = tmp_path / "figures.json"
    sizes = ("--texts", "2", "--fields", "3", "--types", "1", "--repeat", "1")
    assert typed.main([*sizes, "--device", "cpu", "--json", str(file)]) == 0
    table, said = capsys.readouterr().out.split("\n\n")
    lines = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()]
    kinds = ("untyped", "typed", "typed, with guesses")
    names = [f"{what}, {kind}" for what in ("2 orders", "an object of 3 fields") for kind in kinds]
    assert [line[0] for line in lines[1:7]] == names
    assert "typed on default in float32" in said
    figures = json.loads(file.read_text())["figures"]
    measured = {name: row for name, row in figures["rows"].items() if name in names}
    assert list(measured) == names
    for what in ("2 orders", "an object of 3 fields"):
        assert len({measured[f"{what}, {kind}"]["tokens"] for kind in kinds}) == 1, "all of the same length"
        assert measured[f"{what}, typed"]["guessed"] == 0 < measured[f"{what}, typed, with guesses"]["guessed"]
    assert min(figures["first_use"].values()) > 0


def test_what_a_type_costs_before_its_first_token_is_measured():
    found = typed.first_use(find_model("default"), Sizes(types=1, fields=3))
    assert min(found.tables_s, found.defined_s, found.compiled_s) > 0


def test_the_table():
    lines = {line[0]: line[1:] for line in rows(MADE)}
    assert lines["16 orders, untyped"] == ("960", "", "400", "", "3.00 s", "")
    assert lines["16 orders, typed"] == ("960", "", "390", "0.97", "3.10 s", "")
    assert lines["16 orders, typed, with guesses"] == ("960", "50%", "600", "1.50", "2.00 s", "1.55")
    assert lines["that type, compiled for the model"][4] == "11 ms"
    assert {len(line) for line in rows(MADE)} == {len(typed.HEADER)}
    assert render(rows(MADE), markdown=True).splitlines()[1].count("---") == len(typed.HEADER)
    assert "without a peer: xgrammar is not installed" in footer(MADE, "default", "float32")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--texts", "0"], "--texts must be at least 1"), (["--model", "random:gpt-9"], "no random model 'gpt-9'")],
)
def test_mistakes_are_one_sentence(arguments, told, capsys):
    assert main(["typed", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
