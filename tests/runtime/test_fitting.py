"""Texts cut by tokens: inputs that say `fit`, and long texts in pieces."""

from __future__ import annotations

import hash_engine
import pytest
from hash_engine import ByteCodec, HashEngine
from hash_session import HashSession
from hypothesis import given, settings
from hypothesis import strategies as st
from shorthand import WAIT_S, f

import parrot_nb as P
from parrot_nb.engine.codec import Thinking
from parrot_nb.engine.protocol import Sampling
from parrot_nb.graph.records import ValueRecord
from parrot_nb.language.nodes import Span
from parrot_nb.runtime.fitting import MARK, fit_known, longest, pieces
from parrot_nb.runtime.prompt import FillVariable, Generate, Think

CONTEXT = 1000  # pages of one token


class SmallSession(HashSession):
    """A session whose engine's contexts hold `CONTEXT` tokens."""


@pytest.fixture
def session():
    with SmallSession(max_tokens=12) as s:
        yield s


LONG = " ".join(f"word{i}" for i in range(1000))


def filled(session, function: P.SemanticFunction, **inputs) -> tuple[str, P.SemanticVariable]:
    """The prompt that the engine got, and the output."""
    variable = function(**inputs)
    variable.get(timeout=WAIT_S)
    return session.engine.order[-1][1].decode(), variable


@pytest.mark.parametrize("fit", ["end", "start", "middle"])
def test_a_long_input_is_cut_where_it_is_said_and_that_is_told(session, fit):
    sums = f(f'Sum up: {{{{input:doc, fit="{fit}"}}}}\nIn short: {{{{output:y}}}}')
    prompt, variable = filled(session, sums, doc=LONG)
    doc = prompt.removeprefix("Sum up: ").removesuffix("\nIn short: ")
    first, _, last = doc.partition(MARK)
    match fit:
        case "end":
            assert LONG.startswith(doc)
            assert doc.endswith(" ")
        case "start":
            assert LONG.endswith(doc)
        case "middle":
            assert LONG.startswith(first)
            assert LONG.endswith(last)
            assert len(first) == pytest.approx(len(last), rel=0.1)
    assert 0.9 * CONTEXT < len(prompt) + 12 <= CONTEXT
    assert variable.usage.cut_tokens == len(LONG) - len(doc.encode())
    assert f"'doc' was cut from {len(LONG):,} to {len(doc.encode()):,} tokens" in variable.node.note
    assert "".join(segment.text for segment in sums.render(doc=LONG)) == prompt
    assert sums.options(fresh=True).estimate(doc=LONG).calls[0].prompt_tokens == len(prompt.encode())


def test_what_fits_is_left_alone(session):
    sums = f('Sum up: {{input:doc, fit="middle"}} {{output:y}}')
    prompt, variable = filled(session, sums, doc="short")
    assert prompt == "Sum up: short "
    assert (variable.usage.cut_tokens, variable.node.note) == (0, "hashes, not language")


def test_two_inputs_share_the_room_and_what_stands_beside_them_counts(session):
    both = f('{{input:a, fit="end"}}|{{input:b, fit="start"}}|{{input:c}}|{{output:y}}')
    prompt, variable = filled(session, both, a="a" * 2000, b="b" * 1000, c="c" * 300)
    a, b, c = (len(part) for part in prompt.split("|")[:3])
    assert c == 300
    assert a == pytest.approx(2 * b, rel=0.1)
    assert len(prompt) + 12 <= CONTEXT
    assert variable.usage.cut_tokens == 3000 - a - b


def test_an_input_that_is_written_meanwhile_is_cut_too(session):
    step = f("Step {{input:x}}: {{output:y}}", max_tokens=900, ignore_eos=True)
    sums = f('Sum up: {{input:doc, fit="end"}}. {{output:y}}')
    prompt, variable = filled(session, sums, doc="a " * 400 + step("a"))
    assert len(prompt) + 12 <= CONTEXT or variable.usage.cut_tokens == 0


def test_without_room_the_call_fails_and_says_why(session):
    sums = f('{{input:rest}}{{input:doc, fit="end"}} {{output:y}}')
    variable = sums(rest="r" * 995, doc=LONG)
    with pytest.raises(P.ContextLengthError, match="'doc' cannot be cut to what fits: what stands beside it leaves no room"):
        variable.get(timeout=WAIT_S)


def refusing_once():
    seen = []

    def check(text: str) -> bool:
        seen.append(text)
        return len(seen) > 1

    return check


def test_an_attempt_that_is_told_again_has_the_cut_input_and_room(session):
    sums = f('Sum up: {{input:doc, fit="end"}}\nIn short: {{output:y}}')
    told = sums.options(check=refusing_once(), retries=1, feedback=True)
    prompt, variable = filled(session, told, doc=LONG)
    first = session.engine.order[-2][1].decode()
    assert prompt.startswith(first)
    assert len(prompt.encode()) + 12 <= CONTEXT
    assert variable.usage.attempts == 2


def test_an_attempt_without_room_fails_as_the_one_before(session, monkeypatch):
    monkeypatch.setattr(hash_engine, "MAX_CONTEXT_TOKENS", 100)
    ask = f("Of {{input:x}}: {{output:y}}").options(check=refusing_once(), retries=1, feedback=True)
    with pytest.raises(P.CheckError, match="said no") as caught:
        ask("x" * 60).get(timeout=WAIT_S)
    assert len(caught.value.attempts) == 1
    assert isinstance(caught.value.__cause__, P.ContextLengthError)


def test_thoughts_without_a_budget_have_a_quarter_of_the_context():
    doc = ValueRecord(1, "doc")
    doc.resolve((Span(LONG),))
    marks = Thinking(opens=(), closes=(), closes_cut=(), past=(), empty=(), stop="</think>", always=False)
    think = Think("y", Sampling(12), None, 12, marks, "")
    operations = [FillVariable("doc", 0, "end"), think, Generate("y", Sampling(12), False, "", 1)]
    (cut,) = fit_known(operations, {"doc": doc}, ByteCodec(), num_tokens=0, most_context_tokens=CONTEXT)
    assert 0.65 * CONTEXT < cut.after_tokens <= 0.75 * CONTEXT


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ('{{input:x, fit="left"}}{{output:y}}', "fit must be one of 'middle', 'end', 'start'"),
        ("{{input:x, fit=1}}{{output:y}}", "fit must be one of"),
        ('{{input:x, fit="end", max_tokens=3}}{{output:y}}', "An input takes no options but fit"),
        ("{{input:x, max_tokens=3}}{{output:y}}", "An input takes no options but fit"),
        ('{{input:x}}{{output:y, fit="end"}}', "fit belongs to an input"),
    ],
)
def test_mistakes_are_said(template, said):
    with pytest.raises(P.TemplateError, match=said):
        f(template)


def test_a_template_with_fit_can_be_written_down():
    template = f('{{input:x, fit="end"}}{{output:y}}').template
    assert P.language.Template.parse(template.unparse()).segments[0].fit == "end"


class WordCodec(ByteCodec):
    """A token for each word with the white space before it, and one more for each text."""

    def encode(self, text, *, first=False):
        return [0, *range(len(text.split()))]


TEXT = st.text(alphabet="ab .\n!é…", max_size=200)


@settings(max_examples=200, deadline=None)
@given(TEXT, st.integers(2, 20), st.booleans())
def test_pieces_are_small_enough_and_together_the_text(text, tokens, words):
    codec = WordCodec() if words else ByteCodec()
    found = pieces(text, max(tokens, 4), 0, codec)
    assert "".join(found) == text
    assert all(found)
    assert all(len(codec.encode(piece)) <= max(tokens, 4) for piece in found)


@settings(max_examples=100, deadline=None)
@given(TEXT, st.integers(8, 20), st.integers(1, 3))
def test_with_overlap_each_piece_begins_in_the_one_before(text, tokens, overlap):
    ends = {0}  # where the piece before may have ended: a text may repeat itself
    for piece in pieces(text, tokens, overlap, ByteCodec()):
        assert len(piece.encode()) <= tokens
        ends = {
            place + len(piece)
            for end in ends
            for place in range(max(0, end - overlap), end + 1)
            if text.startswith(piece, place) and place + len(piece) > end
        }
    assert len(text) in ends


def test_pieces_end_at_paragraphs_and_sentences_where_that_can_be():
    text = "One sentence. Another one.\n\nA paragraph of its own. It ends."
    assert pieces(text, 40, 0, ByteCodec()) == ["One sentence. Another one.\n\n", "A paragraph of its own. It ends."]
    assert pieces(text, 20, 0, ByteCodec())[0] == "One sentence. "


def test_the_longest_is_found_in_few_trials():
    tried = []

    def count(n: int) -> int:
        tried.append(n)
        return n // 4 + n // 97

    found = longest(100_000, 5_000, count)
    assert 4_900 <= count(found) <= 5_000
    assert len(tried) < 20


def test_split_counts_with_the_models_tokenizer(session):
    assert P.split("abc def ghi", tokens=5) == ["abc ", "def ", "ghi"]
    for wrong in ({"tokens": 0}, {"tokens": 10, "overlap": 5}, {"tokens": 10, "overlap": -1}):
        with pytest.raises(P.ArgumentError):
            P.split("abc", **wrong)
    with pytest.raises(P.ArgumentError, match="takes a text, not list"):
        P.split(["abc"], tokens=3)
    assert isinstance(session.engine, HashEngine)
