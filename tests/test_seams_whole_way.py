"""Healed seams through the public surface, on the embedded engine."""

from __future__ import annotations

import asyncio

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import parrot_nb as P
from parrot_nb.tiny import default_model

WAIT_S = 120


@pytest.fixture(scope="module")
def session():
    with P.Session(max_tokens=12, chat=False, ignore_eos=True, heal=True) as s:
        yield s


@pytest.fixture(scope="module")
def healed():
    """healed(ids, taken_back, num_tokens): value and ids by transformers alone, looking at every token of the vocabulary."""
    torch.set_num_threads(1)
    folder = default_model()
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    words = {i: tokenizer.decode([i]).encode() for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids}
    words = {i: word for i, word in words.items() if "\ufffd".encode() not in word}

    def value(ids: list[int], taken_back: str, num_tokens: int) -> tuple[str, list[int]]:
        owed, written, count = taken_back.encode(), list[int](), 0
        while count < num_tokens:
            with torch.inference_mode():
                logits = model(torch.tensor([ids + written])).logits[0, -1]
            fits = (
                [i for i, word in words.items() if word.startswith(owed) or owed.startswith(word)] if owed else range(len(logits))
            )
            written.append(max(fits, key=lambda i: float(logits[i])))
            word = words.get(written[-1], b"")
            count += len(word) > len(owed) or not owed
            owed = owed[len(word) :]
        return tokenizer.decode(written, skip_special_tokens=True)[len(taken_back) :], written

    return value


def f(template: str, name: str = "f", **options) -> P.SemanticFunction:
    return P.SemanticFunction(template, name=name, options=P.language.Options.checked(**options))


def filled(function, **inputs) -> tuple[list[int], str]:
    segments = function.render(**inputs)
    return [token for s in segments for token in s.token_ids], next(s.taken_back for s in segments if s.kind == "output")


@pytest.mark.parametrize(
    "template",
    [
        "Write {{input:x}}: {{output:y}}",
        "Write {{input:x}}:{{output:y}}",
        "{{input:x}} is\n{{output:y}}",
        "So {{input:x}}{{output:y}}",
    ],
)
def test_what_render_shows_is_filled_and_the_rest_is_the_likeliest(session, healed, template):
    function = f(template)
    ids, taken_back = filled(function, x="a short story")
    assert taken_back
    assert "".join(s.text for s in function.render(x="a short story")).endswith(taken_back)
    value = function("a short story")
    assert value.get(timeout=WAIT_S) == healed(ids, taken_back, 12)[0]
    assert value.usage.prefilled_tokens + value.usage.reused_tokens == len(ids)


def test_off(session, healed):
    function = f("Write {{input:x}}: {{output:y, heal=False}}")
    ids, taken_back = filled(function, x="a short story")
    assert taken_back == ""
    assert function("a short story").get(timeout=WAIT_S) == healed(ids, "", 12)[0]


def test_a_model_that_was_trained_on_seams_as_they_stand_is_healed_only_where_somebody_says_so():
    with P.Session(max_tokens=4) as plain:
        prompt = f("Write {{input:x}}: {{output:y}}", chat=False)
        assert filled(prompt, x="this")[1] == ""
        assert filled(prompt.options(heal=True), x="this")[1] == " "
        value, same = prompt("this"), prompt.options(heal=False)("this")
        assert value.get(timeout=WAIT_S) == same.get(timeout=WAIT_S)
        assert value.node.taken_back == "" == same.node.taken_back
        assert plain.models()[0].heals is False


def test_after_an_earlier_output(session, healed):
    both = f("Write {{input:x}}: {{output:first}}\nAnd then {{output:second}}")
    first, second = both("a short story")
    ids, taken_back = filled(f("Write {{input:x}}: {{output:first}}"), x="a short story")
    value, written = healed(ids, taken_back, 12)
    assert first.get(timeout=WAIT_S) == value
    *between, _ = AutoTokenizer.from_pretrained(default_model())("\nAnd then ", add_special_tokens=False).input_ids
    taken_back = next(s.taken_back for s in reversed(both.render(x="a short story")))
    text = [token for token in written if token > 2]  # past the end of a text, control tokens come too, and are left out
    assert second.get(timeout=WAIT_S) == healed(ids + text + between, taken_back, 12)[0]


def test_the_ids_that_cross_an_edge_spell_the_value(session):
    write = f("Write {{input:x}}: {{output:y}}")
    read = f("The text: {{input:y}}\nA title: {{output:title}}")
    value = write("a short story")
    title = read(value)
    assert title.get(timeout=WAIT_S)
    shown = next(s for s in read.render(y=value) if s.name == "y")
    assert shown.text == value.get()
    assert "".join(s.text for s in read.render(y=value)) == f"The text: {value.get()}\nA title: "


def test_equal_prompts_with_and_without_healing_are_not_taken_for_one_another(session):
    healed_value = f("Say {{input:x}}: {{output:y}}")("this")
    plain = f("Say {{input:x}}: {{output:y, heal=False}}")("this")
    P.gather(healed_value, plain).get(timeout=WAIT_S)
    again = f("Say {{input:x}}: {{output:y}}")("this"), f("Say {{input:x}}: {{output:y, heal=False}}")("this")
    assert [v.get(timeout=WAIT_S) for v in again] == [healed_value.get(), plain.get()]
    assert all(v.usage.from_memo for v in again)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.2, "seed": 5}])
def test_a_hundred_at_once_are_what_they_are_alone(session, options):
    write = f("Item {{input:x}} is {{output:y, max_tokens=6}}", fresh=True, **options)
    together = write.map(range(40)).get(timeout=WAIT_S)
    assert [write(i).get(timeout=WAIT_S) for i in (0, 17, 39)] == [together[i] for i in (0, 17, 39)]


@pytest.mark.parametrize("chat", [True, False])
def test_a_value_begins_as_told(session, chat):
    write = f("Write code of {{input:x}}. {{output:y, begin='def main(', heal=True}}", chat=chat)
    value = write("a game")

    async def pieces():
        return [piece async for piece in value.stream()]

    streamed = asyncio.run(pieces())
    assert value.get(timeout=WAIT_S).startswith("def main(")
    assert "".join(streamed) == value.get()
    assert streamed[0].startswith("def main(")
    begin, output = write.render(x="a game")[-2:]
    assert (begin.kind, begin.name, begin.text, output.kind) == ("begin", "y", "def main(", "output")
    assert "".join(s.text for s in f("Read: {{input:y}}{{output:z}}").render(y=value)) == f"Read: {value.get()}"


def test_begin_continues_the_model_s_own_choice(session, healed):
    """What was begun is filled like any constant, its end healed: the value is what the reference writes after it."""
    write = f("Write {{input:x}}:{{output:y, begin=' Once upon'}}")
    ids, taken_back = filled(write, x="a tale")
    assert write("a tale").get(timeout=WAIT_S) == " Once upon" + healed(ids, taken_back, 12)[0]


def test_constants_and_plain_values_are_one_text(session):
    tokenizer = AutoTokenizer.from_pretrained(default_model())
    function = f("Write {{input:x}}s now: {{output:y, heal=False}}")
    for x in ("cat", "", " ", "a b", "run\n"):
        ids, _ = filled(function, x=x)
        assert ids == tokenizer(f"Write {x}s now: ", add_special_tokens=False).input_ids
