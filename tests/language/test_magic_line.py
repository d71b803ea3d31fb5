"""The line of a `%%semantic` cell."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from parrot_nb.errors import TemplateError
from parrot_nb.language import MAGIC_OPTIONS, Options, parse_line


def signature(line: str) -> str | None:
    parameters = parse_line(line).parameters
    return None if parameters is None else str(inspect.Signature(parameters))


@pytest.mark.parametrize(
    ("line", "name", "parameters", "outputs"),
    [
        ("", None, None, None),
        ("   ", None, None, None),
        ("f", "f", None, None),
        ("f()", "f", "()", None),
        (" write_code ( task ) -> code ", "write_code", "(task)", ("code",)),
        ("f(a, b) -> x, y", "f", "(a, b)", ("x", "y")),
        ("-> x", None, None, ("x",)),
        ("(a)->x", None, "(a)", ("x",)),
        ("f -> x", "f", None, ("x",)),
        (
            "f(a, tone='formal (very) -- so', n=3, xs=[1, 2]) -> x --seed 1",
            "f",
            "(a, tone='formal (very) -- so', n=3, xs=[1, 2])",
            ("x",),
        ),
        ("f(a: P.SemanticVariable, b: str = 'x')", "f", "(a, b='x')", None),
        ("f(a, *, b=1)", "f", "(a, *, b=1)", None),
        ("größe(maß) -> länge", "größe", "(maß)", ("länge",)),
        ("ﬁ -> ﬂ", "fi", None, ("fl",)),
        ("--raw", None, None, None),
        ("f --raw", "f", None, None),
        ("f(a=-1)", "f", "(a=-1)", None),
    ],
)
def test_the_signature(line, name, parameters, outputs):
    parsed = parse_line(line)
    assert (parsed.name, signature(line), parsed.outputs) == (name, parameters, outputs)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", {}),
        ("--model a/b-c --max-tokens 20", {"model": "a/b-c", "max_tokens": 20}),
        ("--model='C:\\new folder'", {"model": "C:\\new folder"}),
        (
            "--temperature 0.5 --top-p .9 --top-k 40 --min-p 0.1 --seed 7",
            {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": 7},
        ),
        ("--temperature=1e-1", {"temperature": 0.1}),
        (
            "--repetition-penalty 1.2 --presence-penalty -0.5 --frequency-penalty=2 --logprobs 5",
            {"repetition_penalty": 1.2, "presence_penalty": -0.5, "frequency_penalty": 2.0, "logprobs": 5},
        ),
        (r"--stop '\n\n' --stop END --stop 'a b' --stop \t", {"stop": ("\n\n", "END", "a b", "\t")}),
        (r"--stop 'a\\n' --stop \q", {"stop": ("a\\n", "\\q")}),
        ("--stop='--raw' --stop '-- x'", {"stop": ("--raw", "-- x")}),
        ("""--system "You're a 'poet' -- truly" """, {"system": "You're a 'poet' -- truly"}),
        ("--chat", {"chat": True}),
        ("--chat on --seed 1", {"chat": True, "seed": 1}),
        ("--chat auto", {}),
        ("--chat=off", {"chat": False}),
        ("--raw", {"chat": False}),
        ("--ignore-eos", {"ignore_eos": True}),
        ("--no-heal", {"heal": False}),
        ("--thinking", {"thinking": True}),
        ("--thinking --seed 1", {"thinking": True, "seed": 1}),
        ("--thinking on", {"thinking": True}),
        ("--thinking=off", {"thinking": False}),
        ("--thinking 300", {"thinking": 300}),
        (r"--begin '```python\n'", {"begin": "```python\n"}),
    ],
)
def test_the_options(options, said):
    assert parse_line(f"f(x) -> y {options}").options == Options(**said)
    assert parse_line(options).options == Options(**said)


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ("class(x)", 1, "keyword"),
        ("f(x", 2, "never closed"),
        ("f(x))", 5, "Expected '->'"),
        ("f(x) y", 6, "Expected '->'"),
        ("f[T](x)", 2, "Expected '->'"),
        ("1f(x)", 1, "Expected '->'"),
        ("f(x, x)", 6, "twice"),
        ("f(x=1, *, x)", 11, "twice"),
        ("f(x, class)", 6, "malformed"),
        ("f(1)", 3, "malformed"),
        ("f(x #)", 2, "malformed"),
        ("f(*args)", 4, "fixed number"),
        ("f(a, **more)", 8, "fixed number"),
        ("f(é='😀', b=g())", 12, "default of 'b'"),
        ("f(x) ->", 8, "missing"),
        ("f(x) -> ", 9, "missing"),
        ("f(x) -> a, , b", 12, "missing"),
        ("f(x) -> a, a", 12, "twice"),
        ("f(x) -> a.b", 9, "cannot be an output"),
        ("f(x) -> if", 9, "cannot be an output"),
        ("f --tokens 3", 3, "Unknown option '--tokens'"),
        ("f --max_tokens 3", 3, "Unknown option"),
        ("f --raw extra", 9, "Unknown option 'extra'"),
        ("f --raw=yes", 3, "takes no value"),
        ("f --max-tokens", 3, "needs a value"),
        ("f --max-tokens --raw", 3, "needs a value"),
        ("f --max-tokens=", 3, "must be a number"),
        ("f --max-tokens many", 3, "must be a number"),
        ("f --max-tokens 0", 3, "at least 1"),
        ("f --seed 1 --temperature nan", 12, "temperature must be"),
        ("f --temperature -1", 3, "temperature must be"),
        ("f --top-k 2147483648", 3, "below 2\\*\\*31"),
        ("f --repetition-penalty 0", 3, "repetition_penalty must be above 0"),
        ("f --presence-penalty 2.5", 3, "presence_penalty must be from -2 to 2"),
        ("f --logprobs 21", 3, "logprobs must be a whole number from 0 to 20"),
        ("f --logprobs few", 3, "must be a number"),
        ("f --stop ''", 3, "empty string"),
        ("f --stop=''", 3, "empty string"),
        ("f --chat maybe", 10, "Unknown option 'maybe'"),
        ("f --chat=maybe", 3, "auto, on or off"),
        ("f --chat=", 3, "auto, on or off"),
        ("f --thinking maybe", 3, "on, off or the most tokens"),
        ("f --thinking=0", 3, "at least 1"),
        ("f --thinking -1", 3, "at least 1"),
        ("f --stop 'a", 10, "never closed"),
        ("f --system 'a\ud800'", 3, "surrogate"),
    ],
)
def test_a_mistake_is_pointed_at(line, column, message):
    with pytest.raises(TemplateError, match=message) as caught:
        parse_line(line)
    assert (caught.value.line, caught.value.column, caught.value.text) == (1, column, line)


def test_the_column_can_be_the_cells():
    prefix = "%%semantic "
    with pytest.raises(TemplateError) as caught:
        parse_line("f(x", offset=len(prefix), prefix=prefix)
    assert (caught.value.column, caught.value.text) == (13, "%%semantic f(x")
    assert caught.value.caret().splitlines()[-1].index("^") == caught.value.caret().splitlines()[-2].index("(")


def test_every_option_of_the_line_is_documented_and_works():
    values = {
        "--model": "m",
        "--stop": "s",
        "--system": "t",
        "--top-p": "0.5",
        "--min-p": "0.5",
        "--check": "len",
        "--score": "mean",
    }
    for option, text in MAGIC_OPTIONS.items():
        assert text
        takes_value = option not in ("--raw", "--ignore-eos", "--fresh", "--no-heal", "--feedback")
        words = f"{option} {'on' if option == '--chat' else values.get(option, '1')}" if takes_value else option
        line = parse_line(words, namespace={"len": len})
        assert line.options.said() or line.check is len, option


def test_a_score_may_be_left_without_a_word():
    assert parse_line("f --score").options.score == "total"
    assert parse_line("f --score --raw").options.score == "total"
    assert parse_line("f --score mean").options.score == "mean"
    with pytest.raises(TemplateError, match="score must be True, False") as caught:
        parse_line("f --score best")
    assert caught.value.column == 3


PIECES = [
    "f",
    "(",
    ")",
    "x",
    ",",
    "=",
    "1",
    " ",
    "->",
    "--raw",
    "--stop",
    "--chat",
    "--seed",
    "'",
    '"',
    "\\",
    "*",
    ":",
    "é",
    "#",
    "\x00",
    "\ud800",
    "\n",
]


@given(st.text(st.characters(codec=None)) | st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
@example("f(x=" + "-" * 20000 + "1)")
@example("f(x=" + "(" * 5000 + ")" * 5001)
@example("f(x=1" + "0" * 5000 + ")")
@example("f(" + "x," * 50_000 + ")")
@example("--raw " * 50_000)
@example("'" * 50_001)
def test_any_line_parses_or_is_a_template_error_with_a_place(line):
    error = None
    try:
        parsed = parse_line(line)
    except TemplateError as raised:
        error = raised
    if error is None:
        inspect.Signature(parsed.parameters or ())
    else:
        assert 1 <= error.column <= len(line) + 1
        assert error.line == 1


@pytest.mark.timeout(30)  # quadratic work on so many takes minutes
def test_a_great_many_stop_strings():
    assert parse_line("--stop a " * 50_000).options.stop == ("a",) * 50_000
