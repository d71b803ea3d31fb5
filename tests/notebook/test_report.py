"""The small tables of `%parrot`, as HTML."""

import re

import pytest

from parrot_nb.notebook.report import report


@pytest.mark.parametrize(
    ("column", "right"),
    [
        (["1,200", "", "3"], True),
        (["12.5 ms", "3 s", "1 min 4 s"], True),
        (["24", "reused"], False),
        (["city 0", "7"], False),
    ],
)
def test_figures_stand_under_each_other_by_their_last_digit(column, right):
    html = report("title", [("name", cell) for cell in column], ("who", "what"))._repr_html_()
    aligned = re.findall(r'<t[hd] style="text-align:(\w+)', html)
    assert aligned == ["left", "right" if right else "left"] * (len(column) + 1)


def test_a_state_has_its_icon_and_what_is_shown_is_no_html():
    html = report("<title>", [("a<b", "failed"), ("failed one", "done")], ("name", "state"))._repr_html_()
    assert "✕</span> failed</td>" in html
    assert "✓</span> done</td>" in html
    assert ">failed one</td>" in html
    assert "a&lt;b" in html
    assert "&lt;title&gt;" in html


def test_a_name_or_a_value_that_reads_like_a_state_is_none():
    html = report("variables", [("done", "done", "failed")], ("name", "state", "value"))._repr_html_()
    assert re.findall(r"<td[^>]*>(.*?)</td>", html)[::2] == ["done", "failed"]
    assert html.count("✓") == 1
    assert "✕" not in html


def test_without_headers_the_first_column_names_the_second():
    html = report("title", [("KV pages", "12")])._repr_html_()
    assert "<th" not in html
    assert re.search(r'white-space:nowrap[^"]*">KV pages</td><td style="text-align:left">12', html)


def test_a_long_table_and_its_long_cells_fold():
    rows = [(f"#{i}", "word " * 40) for i in range(120)]
    table = report("calls", rows, ("call", "value"), folds=True)
    assert repr(table).splitlines()[-1] == "and 70 more"
    assert "word " * 40 not in repr(table)
    html = table._repr_html_()
    first, _, folded = html.partition(">70 more</summary>")
    assert first.count("<tr>") == 51
    assert folded.count("<tr>") == 71
    assert ("word " * 40) in html
