"""The prompt grammar: what is a placeholder, what is kept to the byte, and where a mistake stands."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from parrot_nb.errors import TemplateError
from parrot_nb.language import Constant, Input, Options, Output, Template


def shape(source: str, **settings) -> list[object]:
    """The segments without their positions."""
    found: list[object] = []
    for segment in Template.parse(source, **settings).segments:
        if isinstance(segment, Constant):
            found.append(segment.text)
        elif isinstance(segment, Input):
            found.append(("in", segment.name))
        else:
            said = segment.options.said()
            found.append(("out", segment.name, said) if said else ("out", segment.name))
    return found


@pytest.mark.parametrize(
    ("source", "segments"),
    [
        ("", []),
        ("plain", ["plain"]),
        ("{{input:x}}", [("in", "x")]),
        ("{{output:y}}", [("out", "y")]),
        ("{{x}}", [("in", "x")]),
        ("a{{ input : x }}b{{\toutput\n:\ny\n}}c", ["a", ("in", "x"), "b", ("out", "y"), "c"]),
        ("{{input:x: str}}{{output:y:str}}", [("in", "x"), ("out", "y")]),
        ("{{output:y, max_tokens=20}}", [("out", "y", {"max_tokens": 20})]),
        ("{{output:y : str , stop='}}', seed = 1 }}", [("out", "y", {"stop": ("}}",), "seed": 1})]),
        ('{{output:y, stop=["a,b", "{{x}}"]}}', [("out", "y", {"stop": ("a,b", "{{x}}")})]),
        ('{{output:y, stop="\\n\\n"}}', [("out", "y", {"stop": ("\n\n",)})]),
        ('{{output:y, stop="\\\\d\\d"}}', [("out", "y", {"stop": ("\\d\\d",)})]),
        ('{{output:y, stop="it\'s \\"}}\\""}}', [("out", "y", {"stop": ('it\'s "}}"',)})]),
        ("{{output:y,\n  temperature=0.5,\r\n  top_p=.9,}}", [("out", "y", {"temperature": 0.5, "top_p": 0.9})]),
        ("{{output:é, ignore_eos=True}}", [("out", "é", {"ignore_eos": True})]),
        ("{{input:ﬁ}}", [("in", "fi")]),
        ("{{input:input}}{{output:output}}", [("in", "input"), ("out", "output")]),
        ("{{input}}{{output}}", [("in", "input"), ("in", "output")]),
        ("\\{{x}}", ["{{x}}"]),
        ("\\\\{{x}}", ["\\{{x}}"]),
        ("{{{x}}}", ["{", ("in", "x"), "}"]),
        ("\\{{{{x}}", ["{{", ("in", "x")]),
        ('{"a": {"b": [1, {}]}}', ['{"a": {"b": [1, {}]}}']),
        ("\\frac{1}{2} \\{a\\} }} { } {", ["\\frac{1}{2} \\{a\\} }} { } {"]),
        ("a\r\nb\x00c\u2028d\x0c", ["a\r\nb\x00c\u2028d\x0c"]),
        ("{{output:a}}{{input:a}}{{a}}", [("out", "a"), ("in", "a"), ("in", "a")]),
        ("{{input:x}}{{input:x}}", [("in", "x"), ("in", "x")]),
    ],
)
def test_what_a_prompt_is_cut_into(source, segments):
    assert shape(source) == segments


def test_a_bare_name_is_what_the_signature_says():
    template = Template.parse("{{a}} {{b}} {{input:a}}", outputs=["a"])
    assert template.segments[0] == Output("a", Options(), 1, 1)
    assert (template.inputs, template.outputs) == (("b",), ("a",))


def test_inputs_are_what_is_needed_from_outside_in_order():
    template = Template.parse("{{input:b}}{{output:o}}{{input:a}}{{input:o}}{{input:b}}{{output:p}}")
    assert (template.inputs, template.outputs) == (("b", "a"), ("o", "p"))


def test_positions_are_lines_and_characters():
    source = "é😀 {{input:a}}\r\n\n\t{{output:b}} \\{{ {{{input:c}}"
    found = [(s.line, s.column) for s in Template.parse(source).segments if not isinstance(s, Constant)]
    assert found == [(1, 4), (3, 2), (3, 20)]


@pytest.mark.parametrize(
    ("source", "line", "column", "message"),
    [
        ("a\n {{input:x", 2, 2, "never closed"),
        ("{{", 1, 1, "never closed"),
        ("{{output:y, stop='a}}", 1, 18, "string is never closed"),
        ("{{output:y, stop='a\nb'}}", 1, 18, "string is never closed"),
        ("{{output:y, max_tokens=3", 1, 1, "never closed"),
        ("{{}}", 1, 1, "empty placeholder"),
        ("ab {{ \n }}", 1, 4, "empty placeholder"),
        ("{{input:}}", 1, 1, "empty placeholder"),
        ('{{"a": 1}}', 1, 1, "literal braces"),
        ("{{input:x {{input:y}} }}", 1, 11, "inside a placeholder"),
        ("{{output:x, stop={{input:y}} }}", 1, 18, "inside a placeholder"),
        ("{{input:class}}", 1, 9, "keyword"),
        ("{{None}}", 1, 3, "keyword"),
        ("{{1x}}", 1, 1, "Expected a name"),
        ("{{input:x y}}", 1, 11, "Expected }}"),
        ("{{a.b}}", 1, 4, "Expected }}"),
        ("x\r\n{{a-b}}", 2, 4, "Expected }}"),
        ("{{x}", 1, 1, "never closed"),
        ("{{x} }}", 1, 4, "Expected }}"),
        ("{{input:x, seed=1}}", 1, 1, "takes no options"),
        ("{{output:a}}\n{{output:a}}", 2, 1, "already an output"),
        ("{{input:a}}\n {{output:a}}", 2, 2, "read before it is written"),
        ("{{output:x: list[sr], seed=1}}", 1, 18, "'sr' is not known"),
        ("{{output:x:}}", 1, 12, "An empty type"),
        ("{{output:x, tokens=1}}", 1, 13, "Unknown option 'tokens'"),
        ("{{output:x, model='m'}}", 1, 13, "Unknown option 'model'"),
        ("é {{output:x, stop='é😀',  seed=-1}}", 1, 27, "seed must be"),
        ("{{output:x,\n seed=1,\n max_tokens=0}}", 3, 2, "max_tokens must be at least 1"),
        ("{{output:x, frequency_penalty='a'}}", 1, 13, "frequency_penalty must be from -2 to 2"),
        ("{{output:x, logprobs=-1}}", 1, 13, "logprobs must be"),
        ("{{output:x, max_tokens=1.5}}", 1, 13, "max_tokens must be"),
        ("{{output:x, temperature=-1}}", 1, 13, "temperature must be"),
        ("{{output:x, temperature=1e999}}", 1, 13, "temperature must be"),
        (f"{{{{output:x, temperature=1{'0' * 400}}}}}", 1, 13, "temperature must be"),
        (f"{{{{output:x, seed=0x{'f' * 5000}}}}}", 1, 13, "seed must be"),
        ("{{output:x, stop=''}}", 1, 13, "empty string"),
        ("{{output:x, stop='\\ud800'}}", 1, 13, "surrogate"),
        ("{{output:x, stop=b'a'}}", 1, 13, "stop must be"),
        ("{{output:x, stop=f'a'}}", 1, 13, "plain number"),
        ("{{output:x, seed=None}}", 1, 13, "must have a value"),
        ("{{output:x, seed=1, seed=2}}", 1, 21, "twice"),
        ("{{output:x, **y}}", 1, 13, "Unknown option"),
        ("{{output:x, 3}}", 1, 12, "malformed"),
        ("{{output:x, seed}}", 1, 12, "malformed"),
        ("{{output:x, seed=}}", 1, 12, "malformed"),
        ("{{output:x, seed=1) + f(}}", 1, 12, "malformed"),
        ("{{output:x, seed=1)(seed=2}}", 1, 12, "malformed"),
        ("{{output:x, seed=1 # why}}", 1, 12, "malformed"),
        ("{{output:x, seed=\x00}}", 1, 12, "malformed"),
        ("a\n\ud800 {{input:x}}", 2, 1, "lone surrogate U+D800"),
    ],
)
def test_a_mistake_is_pointed_at(source, line, column, message):
    with pytest.raises(TemplateError, match=message.replace("+", r"\+")) as caught:
        Template.parse(source, filename="<cell>")
    error = caught.value
    assert (error.lineno, error.offset) == (error.line, error.column) == (line, column)
    assert error.text == source.split("\n")[line - 1].rstrip("\r")
    assert error.filename == "<cell>"
    assert isinstance(error, SyntaxError)


@given(st.text())
@example("\\")
@example("\r\n}}\x00{")
def test_text_without_double_braces_is_one_constant_kept_to_the_byte(text):
    text = text.replace("{{", "{ ")
    template = Template.parse(text)
    assert template.segments == ((Constant(text),) if text else ())
    assert template.source == text


NASTY = st.lists(
    st.sampled_from(
        [
            "{{",
            "}}",
            "{",
            "}",
            "\\",
            "input:",
            "output:",
            "x",
            "y",
            " ",
            ",",
            "=",
            ":",
            "'",
            '"',
            "seed=1",
            "stop=",
            "str",
            "\n",
            "\r",
            "\x00",
            "(",
            ")",
            "[",
            "1",
            "é",
            "#",
            "\ud800",
            "**",
            "f'",
            "lambda:0",
            "-",
        ]
    ),
    max_size=30,
).map("".join)


@given(NASTY | st.text(st.characters(codec=None)))
@example("{{output:x, " + "(" * 5000 + "}}")
@example("{{output:x, seed=" + "-" * 20000 + "1}}")
@example("{{output:x, seed=" + "1+" * 20000 + "1}}")
def test_any_text_parses_or_is_a_template_error_with_a_place(text):
    template, error = outcome(text)
    if error is None:
        assert plain(Template.parse(template.unparse())) == plain(template)
    else:
        lines = text.split("\n")
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1
        assert error.msg


def outcome(text: str) -> tuple[Template | None, TemplateError | None]:
    try:
        return Template.parse(text), None
    except TemplateError as error:
        return None, error


def plain(template: Template) -> list[object]:
    return [
        s.text if isinstance(s, Constant) else (type(s), s.name, s.options if isinstance(s, Output) else None)
        for s in template.segments
    ]


NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=3).map(lambda name: name + "_")
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 10**9),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1, exclude_min=True),
        "seed": st.integers(0, 2**63 - 1),
        "stop": st.lists(st.text(min_size=1), max_size=3),
        "ignore_eos": st.booleans(),
        "begin": st.text(min_size=1),
        "heal": st.booleans(),
        "thinking": st.booleans() | st.integers(2, 10**6),
    },
).map(lambda said: Options.checked(**said))
SEGMENTS = st.lists(
    st.builds(Constant, st.text("ab{}\\ \r\n", min_size=1)) | st.builds(Input, NAMES) | st.builds(Output, NAMES, OPTIONS)
)


@given(SEGMENTS)
def test_random_templates_round_trip(segments):
    kept: list[object] = []
    used: set[str] = set()
    for segment in segments:
        if isinstance(segment, Output) and segment.name in used:
            continue
        if isinstance(segment, Constant) and kept and isinstance(kept[-1], Constant):
            continue
        if isinstance(segment, Constant):
            # A backslash right before a placeholder, or before its third brace, would escape it: no source parses to that.
            kept.append(Constant(re.sub(r"(\\+\{?)+$", "", segment.text) or "."))
            continue
        used.add(segment.name)
        kept.append(segment)
    template = Template("", tuple(kept), (), ())
    again = Template.parse(template.unparse())
    assert plain(again) == plain(template)
    assert again.unparse() == template.unparse()


@pytest.mark.timeout(30)  # quadratic work on a megabyte takes much longer
@pytest.mark.parametrize(
    ("body", "num_segments"),
    [
        ("x" * 10**6, 1),
        ("{ }" * 333_333, 1),
        ("\\{{" * 300_000, 1),
        ("{{input:x}}\n" * 80_000, 160_000),
        ("}}" * 500_000, 1),
        ("\n" * 10**6 + "{{input:x}}", 2),
    ],
    ids=["letters", "braces", "escapes", "placeholders", "closings", "lines"],
)
def test_a_body_of_a_megabyte(body, num_segments):
    template = Template.parse(body)
    assert len(template.segments) == num_segments
    assert plain(Template.parse(template.unparse())) == plain(template)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "body",
    [
        "{" * 10**6,
        "{{input:" + " " * 10**6,
        "{{output:x, stop=" + "'a'," * 250_000,
        "{{x" + "}" * 10**6,
        "{{x: a" + " " * 10**6 + "b}}",
    ],
    ids=["braces", "no name", "no end", "closings", "type"],
)
def test_a_malformed_body_of_a_megabyte_ends_as_well(body):
    template, error = outcome(body)
    assert (template is None) == (error is not None)
    assert error is None or error.line == 1
    assert (error is None) == body.startswith("{{x}}")
