"""A variable as a cell's result, and the table of variables, in a real kernel."""

from __future__ import annotations

import re

import pytest

WRITE = "%%semantic write(x) -> y --max-tokens 40 --ignore-eos\nWrite {{input:x}}: {{output:y}}"


@pytest.fixture(scope="module", autouse=True)
def loaded(notebook):
    assert notebook.run("%load_ext parrot_nb\nimport parrot_nb as P\nimport pandas as pd").error is None
    assert notebook.run(WRITE).error is None


def shown(notebook, code: str) -> dict[str, str]:
    output = notebook.run(code)
    assert output.error is None, output.message
    return output.shown[-1]


def test_text_is_rendered_as_markdown_when_asked_for(notebook):
    notebook.run("doc = P.native_function(lambda: '# Title\\n\\n* one\\n* <b>two</b>', name='doc')()\ndoc.get()")
    bundle = shown(notebook, "doc.markdown")
    assert "<h1>Title</h1>\n<ul>\n<li>one</li>\n<li>&lt;b&gt;two&lt;/b&gt;</li>\n</ul>" in bundle["text/html"]
    assert "text/markdown" not in bundle, "JupyterLab would trust what is in it"
    assert "# Title" in bundle["text/plain"]
    assert "Markdown of" in notebook.value("repr(doc.markdown)")


def test_markdown_fills_in_while_it_is_written(notebook):
    output = notebook.run("late = write('late')\ndisplay(late.markdown)\nvalue = late.get()")
    rendered = [shown["text/html"] for shown in output.shown if "parrot-markdown" in shown.get("text/html", "")]
    assert rendered[-1] == notebook.run("print(late.markdown._repr_html_(), end='')").text
    notebook.run("from parrot_nb.language.markdown import markdown_html")
    assert notebook.run("print(late.markdown._repr_html_() == markdown_html(value))").text.strip() == "True"


def test_a_failure_is_shown_as_such(notebook):
    notebook.run("bad = P.native_function(lambda: {}['gone'], name='bad')()\nimport time; time.sleep(0.3)")
    bundle = shown(notebook, "bad.markdown")
    assert "KeyError" in bundle["text/html"]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("pd.DataFrame({'city': ['Rome', 'Oslo'], 'n': [1, 2]})", "text/html", "<table"),
        ("{'b': 1, 'a': ['x'] * 3}", "text/plain", "'a': ['x', 'x', 'x']"),
        ("42", "text/plain", "42"),
        (
            "__import__('IPython').display.SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"><rect/></svg>')",
            "text/html",
            '<img alt="typed"',
        ),
        ("__import__('IPython').display.Markdown('**strong**')", "text/html", "<strong>strong</strong>"),
        ("__import__('IPython').display.Latex('$x_1$')", "text/html", r"\[x_1\]"),
        (
            r"__import__('IPython').display.Latex(r'$\href{javascript:0}{x}$')",
            "text/html",
            r"<code>\[\href{javascript:0}{x}\]</code>",
        ),
    ],
)
def test_a_value_shows_itself_as_its_type_does(notebook, value, kind, expected):
    notebook.run(f"typed = P.native_function(lambda: {value}, name='typed')()\ntyped.get() and None")
    bundle = shown(notebook, "typed")
    assert expected in bundle[kind]
    assert "typed" in bundle["text/plain"]
    if kind == "text/html":
        assert "done" in bundle["text/html"], "the line above says what it is"


def test_several_values_stand_below_each_other(notebook):
    notebook.run(
        "two = P.gather(P.native_function(lambda: pd.DataFrame({'n': [1]}), name='frame')(), write('b'))\ntwo.get() and None"
    )
    html = shown(notebook, "two")["text/html"]
    assert "<table" in html
    assert html.index("frame</b>") < html.index("<table") < html.index("y</b>")


def test_the_table_of_variables(notebook):
    notebook.run("%parrot reset")
    notebook.run("frame = P.native_function(lambda t: [t], name='frame')(write('table'))\nframe.get()")
    text = notebook.value("%parrot vars")
    header, *rows = text.splitlines()[1:]
    assert re.split(r"\s{2,}", header) == ["call", "inputs", "variable", "type", "state", "value", "tokens"]
    assert re.match(r"#\d+ write\s+x = table\s+y\s+str\s+done\s+.*40$", rows[0])
    assert re.match(r"#\d+ frame\s+t = #\d+\s+frame\s+list\s+done\s+\[", rows[1])


def test_a_map_is_one_row_of_the_table_of_variables_and_opens(notebook):
    notebook.run("%parrot reset")
    notebook.run(
        "ys = write.map(['a', 'b', 'c', 'd'])\none, two, three = write('e'), write('f'), write('g')\nP.gather(*ys, one, two, three).get()"
    )
    notebook.run("for x in 'hij': write(x).get()")
    title, _, *rows = notebook.value("%parrot vars").splitlines()
    assert title.startswith("10 calls")
    assert title.endswith("; each map in one row, %parrot vars --all has a row for each call")
    assert re.match(r"#\d+–#\d+ write × 4\s+x × 4\s+ys\[0–3\]\s+str\s+done\s+#\d+: .*160$", rows[0])
    assert [re.split(r"\s{2,}", row)[2] for row in rows[1:4]] == ["one", "two", "three"], "what has a name of its own has a row"
    assert re.match(r"#\d+–#\d+ write × 3\s+x × 3\s+y\s", rows[4])
    assert len(rows) == 5
    each = notebook.value("%parrot vars --all").splitlines()[2:]
    assert [re.split(r"\s{2,}", row)[2] for row in each] == [
        "ys[0]",
        "ys[1]",
        "ys[2]",
        "ys[3]",
        "one",
        "two",
        "three",
        "y",
        "y",
        "y",
    ]
    html = shown(notebook, "display(get_ipython().run_line_magic('parrot', 'vars'))")["text/html"]
    first = html.partition("<details")[2].partition("</details>")[0]
    assert all(f"#{number}: " in first for number in re.findall(r"#(\d+)–#(\d+)", rows[0])[0]), "a click shows each value"


def test_a_map_whose_calls_differ_in_state_says_how_many_are_in_each(notebook):
    notebook.run("%parrot reset")
    notebook.run(
        "def odd(n):\n    if n == 2: raise ValueError('two')\n    return n\nodds = P.native_function(odd).map([1, 2, 3])"
    )
    notebook.run("def settle(v):\n    try: v.get()\n    except P.ParrotError: pass\n_ = list(map(settle, odds))")
    assert "2 done, 1 failed" in notebook.value("%parrot vars")


SHY = """
class Drawing:
    drawn = 0
    def _repr_html_(self):
        Drawing.drawn += 1
        return f'<i>a drawing</i>'
drawing = P.native_function(Drawing, name='draw')()
drawing.get() and None
"""


@pytest.mark.parametrize("what", ["drawing", "P.gather([drawing, later])"])
def test_what_has_settled_shows_itself_once_while_its_cell_goes_on(notebook, what):
    """It is the user's code that draws, perhaps a large picture."""
    assert notebook.run(SHY).error is None
    long = "write.options(max_tokens=250, fresh=True)"
    output = notebook.run(f"later = {long}('later')\ndisplay({what})\nfor _ in range(3): {long}('more').get()")
    assert output.error is None, output.message
    assert any("<i>a drawing</i>" in shown.get("text/html", "") for shown in output.shown)
    assert notebook.value("Drawing.drawn") == "1"


def test_a_graph_that_has_settled_is_drawn_again_only_for_more_calls(notebook):
    """All that the cell does is counted: the graph of the session so far, and the growing one of the cell."""
    notebook.run("if 'later' in globals(): later.get()")  # of another test: until it ends the session has not settled
    notebook.run(
        "import parrot_nb.notebook.widget.view as view\nrender, drawn = view.render_graph_html, []\n"
        "view.render_graph_html = lambda state, mark: drawn.append(len(state.calls)) or render(state, mark)\n"
        "so_far = len(P.current_session().calls())"
    )
    output = notebook.run("%parrot graph\nwrite.options(max_tokens=250, fresh=True)('and').get() and None")
    assert output.error is None, output.message
    notebook.run("view.render_graph_html = render")
    times = int(notebook.value("sum(number == so_far for number in drawn)"))
    assert times <= 3, "when it was shown, when it had settled, and when the mark for the page was taken out of it"
    assert "write" in output.shown[-1]["text/plain"]
