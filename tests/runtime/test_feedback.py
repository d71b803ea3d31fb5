"""What the prompt of an output that is written again says of the attempts before."""

from __future__ import annotations

import pytest
from shorthand import f, text_of

import parrot_nb as P
from parrot_nb.language import Template


def refusing(times: int):
    """A check that refuses so many texts, each with a reason of its own."""
    seen = []

    def check(text: str) -> bool:
        seen.append(text)
        if len(seen) <= times:
            raise ValueError(f"reason {len(seen)}.")
        return True

    return check


def prompts(session) -> list[str]:
    return [prompt.decode() for _, prompt in session.engine.order]


def test_a_raw_prompt_goes_on_after_what_was_refused_and_repeats_its_last_line(session):
    written = f("Of cats.\nWrite {{input:how}}: {{output:text}}").options(check=refusing(2), retries=2, feedback=True)("well")
    value = written.get()
    first = "Of cats.\nWrite well: "
    second = f"{first}{text_of(first)}\nThis will not do: reason 1.\nWrite well: "
    third = f"{second}{text_of(second)}\nThis will not do: reason 2.\nWrite well: "
    assert prompts(session) == [first, second, third]
    assert value == text_of(third)
    assert written.usage.attempts == 3


def test_a_block_says_it_where_and_as_its_author_likes(session):
    source = "Of {{input:x}}.\n{{retry}}Not {{ attempt }}: {{error}}!\n{{/retry}}Say: {{output:text, retries=2}} end"
    written = f(source).options(check=refusing(2))("cats and {{error}}")
    head = "Of cats and {{error}}.\n"
    first = f"{head}Say: "
    second = f"{head}Not {text_of(first)}: reason 1!\nSay: "
    third = f"{head}Not {text_of(first)}: reason 1!\nNot {text_of(second)}: reason 2!\nSay: "
    assert written.get() == text_of(third)
    assert prompts(session) == [first, second, third]


def test_what_was_written_before_stays_and_what_comes_after_goes_on_from_the_last_attempt(session):
    checked = f("A {{output:a}}\nB {{output:b}} C {{output:c}}").options(check=refusing(0), retries=1, feedback=True)()
    plain = f("A {{output:a}}\nB {{output:b}} C {{output:c}}")()
    assert [v.get() for v in checked] == [v.get() for v in plain]
    before = len(session.engine.order)
    refused_b = refusing(2)
    asked = []

    def second_alone(text: str) -> bool:
        asked.append(text)
        return len(asked) == 1 or refused_b(text)

    found = f("A {{output:a}}\nB {{output:b}} C {{output:c}}").options(check=second_alone, retries=2, feedback=True)()
    a, b, c = (v.get() for v in found)
    first = f"A {a}\nB "
    second = f"{first}{text_of(first)}\nThis will not do: reason 1.\nB "
    third = f"{second}{text_of(second)}\nThis will not do: reason 2.\nB "
    assert (b, c) == (text_of(third), text_of(f"{third}{b} C "))
    assert prompts(session)[before:][-1] == f"{third}{b} C "


def test_a_refused_value_is_no_placeholder_and_no_prompt(session):
    """What was written stands in the prompt as text, whatever it says."""
    template = Template.parse("x{{retry}}{{attempt}} {{error}}{{/retry}} y {{output:z}}")
    (retry,) = (segment.retry for segment in template.segments if getattr(segment, "retry", None))
    assert retry.told("{{error}}", "{{attempt}}") == "{{error}} {{attempt}}"


def test_feedback_without_another_attempt_is_refused(session):
    with pytest.raises(P.OptionError, match="asks for feedback, but is not written again: say retries=N"):
        f("Say: {{output:x}}", feedback=True)().get()
    with pytest.raises(P.OptionError, match="say retries=N"):
        f("{{retry}}No: {{error}}{{/retry}} Say: {{output:x}}")().get()
    assert f("{{retry}}No: {{error}}{{/retry}} Say: {{output:x}}", feedback=False)().get() == text_of(" Say: ")


@pytest.mark.parametrize(
    "source",
    [
        "a{{retry}}b{{attempt}}c{{error}}{{/retry}}d{{output:x}}",
        "{{retry}}b{{/retry}}{{output:x}}",
        "{{input:y}}{{retry}}b{{/retry}}{{output:x}} and \\{{ {{retry}}{{/retry}} \\{{{{output:z}}",
        "an input called {{retry}}: {{output:x}}",
    ],
)
def test_a_template_with_a_block_is_what_its_source_says(source):
    template = Template.parse(source)
    again = Template.parse(template.unparse())
    assert [s for s in again.segments if not hasattr(s, "line")] == [s for s in template.segments if not hasattr(s, "line")]
    assert [getattr(s, "retry", None) for s in again.segments] == [getattr(s, "retry", None) for s in template.segments]
    assert again.inputs == template.inputs


@pytest.mark.parametrize(
    ("source", "column", "message"),
    [
        ("a {{retry}}b{{/retry}} {{input:x}} {{output:y}}", 3, "right before its output"),
        ("a {{output:y}} {{retry}}b{{/retry}}", 16, "right before its output"),
        ("a {{retry}}b{{/retry}}{{retry}}c{{/retry}}{{output:y}}", 3, "right before its output"),
        ("a {{retry}}b {{input:x}}{{/retry}}{{output:y}}", 14, r"only \{\{attempt\}\}, \{\{error\}\} and text"),
    ],
)
def test_a_block_in_the_wrong_place_is_shown_where_it_stands(source, column, message):
    with pytest.raises(P.TemplateError, match=message) as caught:
        Template.parse(source)
    assert caught.value.column == column
