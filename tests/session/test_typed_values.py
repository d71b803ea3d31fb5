"""Typed outputs from the prompt to the value, in a runtime apart and in a thread: what is read, what is refused, what goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from typing import Annotated, Literal

import pydantic
import pytest

import parrot_nb as P
from parrot_nb.runtime.events import CallChanged, VariableChanged


@dataclasses.dataclass
class Task:
    title: Annotated[str, pydantic.Field(max_length=12)]
    days: Annotated[int, pydantic.Field(ge=0, le=9)]
    urgent: bool


class Even(pydantic.BaseModel):
    n: int = pydantic.Field(ge=0, le=99)

    @pydantic.field_validator("n")
    @classmethod
    def even(cls, n: int) -> int:
        if n % 2:
            raise ValueError("n must be even")
        return n


class Never(pydantic.BaseModel):
    n: Literal[7]

    @pydantic.model_validator(mode="after")
    def never(self):
        raise ValueError("nothing will do")


async def caught_error(variable: P.SemanticVariable) -> BaseException | None:
    """Wait for a variable: why it has no value."""
    (outcome,) = await asyncio.gather(variable, return_exceptions=True)
    return outcome if isinstance(outcome, BaseException) else None


def one_of(*texts: str):
    """A prompt whose model must write one of these texts."""
    return P.SemanticFunction("Say a word: {{output:word: Words}}", namespace={"Words": Literal[texts]})


def test_the_value_is_python_and_what_reads_it_gets_the_text(session):
    n = P.SemanticFunction("A number: {{output:n: int[0..99]}}")()
    assert isinstance(n, P.SemanticVariable)
    value = n.get()
    assert isinstance(value, int)
    assert 0 <= value <= 99
    assert n.text == str(value)
    assert n.finish in ("stop", "length")
    assert repr(n) == f"<variable n: {n.text!r}>"
    echo = P.SemanticFunction("{{input:n}}, {{output:more}}")(n)
    assert echo.producer.inputs["n"].text == n.text
    echo.get()

    @P.native_function
    def doubled(x: int) -> int:
        return 2 * x

    assert doubled(n).get() == 2 * value
    assert ("<" + n + ">").get() == f"<{value}>"
    assert P.gather(n, n).get() == [value, value]


def test_every_kind_of_type_gives_its_value(session):
    task = P.SemanticFunction("A task as JSON: {{output:task: Task, max_tokens=200, temperature=1.5, seed=3}}")()
    got = task.get()
    assert isinstance(got, Task)
    assert json.loads(task.text) == dataclasses.asdict(got)

    @P.semantic_function
    def mood(text) -> Literal["good", "bad"]:
        """{{input:text}} The mood is {{output:mood}}"""

    assert mood("What a day!").get() in ("good", "bad")
    assert P.SemanticFunction("Yes or no: {{output:b: bool}}")().get() in (True, False)
    assert one_of("東京 🗼").options(max_tokens=40)().get() == "東京 🗼"
    several = P.SemanticFunction("One: {{output:a: int[1..9]}} Two: {{output:b: 'x' | 'y'}} {{output:c}}")()
    assert isinstance(several.a.get(), int)
    assert several.b.get() in ("x", "y")
    assert isinstance(several.c.get(), str)


def test_a_type_is_what_a_map_gives(session):
    grade = P.SemanticFunction("Text: {{input:text}} Grade: {{output:grade: int[1..6]}}")
    grades = grade.map(["a", "b", "c"]).get()
    assert all(isinstance(g, int) and 1 <= g <= 6 for g in grades)


def test_a_stream_is_the_text(session):
    async def main() -> None:
        task = P.SemanticFunction("A task: {{output:task: Task, max_tokens=200}}").options(temperature=1.2, seed=1)()
        pieces = [piece async for piece in task.stream()]
        assert "".join(pieces) == task.text
        assert isinstance(await task, Task)

    asyncio.run(main())


def test_a_value_can_be_looked_at_while_it_is_written(session):
    async def main() -> None:
        task = P.SemanticFunction("A task: {{output:task: Task, max_tokens=200}}").options(temperature=1.2, seed=4)()
        assert task.partial() is None
        seen = [task.partial() async for _ in task.stream()]
        value = await task
        assert task.partial() is value
        whole = json.loads(task.text)
        for part in seen:
            if isinstance(part, dict):
                assert list(part) == list(whole)[: len(part)]
        text = P.SemanticFunction("Say: {{output:text}}")()
        assert text.partial() is None
        assert await text == text.partial()

    asyncio.run(main())


def test_what_was_said_before_belongs_to_the_value(session):
    task = P.SemanticFunction('A task: {{output:task: Task, begin=\'{"title": "Run\', max_tokens=200}}')()
    assert task.get().title.startswith("Run")
    assert task.text.startswith('{"title": "Run')


def test_a_value_that_is_cut_off_fails_with_what_it_had(session):
    task = P.SemanticFunction("A task: {{output:task: Task, max_tokens=20, temperature=1.5, seed=0}}")()
    after = P.SemanticFunction("{{input:task}} {{output:more}}")(task)
    with pytest.raises(P.TruncatedError, match=r"'task' of 'semantic' was not yet a value after max_tokens=20 \(it had '\{"):
        task.get()
    assert task.state == "failed"
    with pytest.raises(P.UpstreamError):
        after.get()
    stopped = P.SemanticFunction("A task: {{output:task: Task, stop='\"', max_tokens=200}}")()
    with pytest.raises(P.TruncatedError, match="ended by a stop string before it was a value"):
        stopped.get()


def test_a_text_cut_off_is_told_in_the_same_words_when_it_is_taken_from_the_memo(session):
    cut = P.SemanticFunction("A task: {{output:task: Task, max_tokens=20, temperature=1.5, seed=0}}")
    errors = [asyncio.run(caught_error(cut())) for _ in range(2)]
    assert isinstance(errors[0], P.TruncatedError)
    assert "after max_tokens=20" in str(errors[0])
    assert str(errors[0]) == str(errors[1])


def test_the_last_attempt_says_why_there_is_no_value(session):
    """Cut off each time: its own error, with the tokens of all attempts."""
    task = P.SemanticFunction("A task: {{output:task: Task, max_tokens=20, retries=2, temperature=1.5, seed=0}}")()
    with pytest.raises(P.TruncatedError, match="after max_tokens=20"):
        task.get()
    assert task.usage.attempts == 3


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("json", '{"a": 1, "a": 2}'),
        ("list", '[{"a": 1, "a": 2}]'),
        ("list[json]", '[{"a": 1, "a": 2}]'),
        ("dict[str, json]", '{"b": {"a": 1, "a": 2}}'),
        ("tuple[json, int]", '[{"a": 1, "a": 2}, 3]'),
    ],
)
def test_a_key_that_is_there_twice_is_refused_before_others_read_it(session, kind, text):
    twice = P.SemanticFunction(f"JSON: {{{{output:x: {kind}, begin={text!r}}}}}")()
    after = P.SemanticFunction("{{input:x}} {{output:more}}")(twice)
    with pytest.raises(P.CheckError, match="the key 'a' is there twice"):
        twice.get()
    with pytest.raises(P.UpstreamError):
        after.get()


@pytest.fixture
def few_digits():
    """Python set to read no number of more than 640 digits, which the type allows."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    yield
    sys.set_int_max_str_digits(before)


@pytest.mark.usefixtures("few_digits")
def test_what_the_notebook_refuses_is_not_told_as_done(session):
    number = P.SemanticFunction(f"A number: {{{{output:n: int, begin='{'7' * 700}'}}}}")()
    with pytest.raises(P.CheckError):
        number.get()
    session.reset()
    events = session.events.since(0)
    states = [e.state for e in events if isinstance(e, VariableChanged) and e.variable_id == number.node.id]
    assert states[-1] == "failed"
    assert [e.state for e in events if isinstance(e, CallChanged)][-1] == "failed"


def test_max_tokens_below_the_shortest_text_is_refused(session):
    with pytest.raises(P.OptionError, match="'task' of 'semantic' cannot be 'Task' in max_tokens=2: its shortest text"):
        P.SemanticFunction("A task: {{output:task: Task, max_tokens=2}}")().get()
    with pytest.raises(P.OptionError, match="'task' of 'plan' cannot be 'Task' in max_tokens=2: its shortest text"):
        P.SemanticFunction("A task: {{output:task: Task, max_tokens=2}}", name="plan").render()


def test_a_class_that_refuses_a_value_fails_the_call(session):
    never = P.SemanticFunction("Now: {{output:x: Never, max_tokens=60, temperature=1.5, seed=2}}")()
    with pytest.raises(P.CheckError, match=r"'x' of 'semantic' was refused: .*nothing will do.*; it was '{") as caught:
        never.get()
    assert caught.value.attempts[0][0] == never.text
    after = P.SemanticFunction("{{input:x}} {{output:more}}")(never)
    with pytest.raises(P.UpstreamError):
        after.get()
    results = [
        P.SemanticFunction("Even: {{output:x: Even, max_tokens=40}}").options(temperature=1.5, seed=s)() for s in range(12)
    ]
    for result in results:
        if isinstance(asyncio.run(caught_error(result)), P.CheckError):
            assert "n: n must be even" in str(result.error)
        else:
            assert result.get().n % 2 == 0
    assert {result.state for result in results} == {"done", "failed"}


def test_an_equal_text_is_generated_once_and_types_tell_generations_apart(session):
    def number(kind: str):
        return P.SemanticFunction(f"A number: {{{{output:n: {kind}, max_tokens=6}}}}")

    first, again, other = (number(kind)() for kind in ("int[0..9]", "int[0..9]", "'many' | 'few'"))
    assert first.get() == again.get()
    assert other.get() in ("many", "few")
    assert again.usage.from_memo or first.usage.from_memo
    assert not other.usage.from_memo


def test_what_cannot_be_compiled_fails_the_call_alone(session):
    hostile = P.SemanticFunction("{{input:x}} {{output:n: /(a|b)*a(a|b){400}/, max_tokens=500}}").options(temperature=1.0, seed=1)
    with pytest.raises((P.ConstraintError, P.TruncatedError)):
        hostile("x").get()
    assert one_of("yes", "no")().get() in ("yes", "no")


def small(n: int) -> bool:
    return n < 30


def test_what_a_check_refuses_is_written_again_from_the_same_prompt(session):
    """Whichever seed: what is accepted passes, and the attempts and their tokens are counted."""
    number = P.SemanticFunction("A number from the hat: {{output:n: int[10..99], check=small, retries=60, max_tokens=8}}")
    results = [number.options(temperature=1.5, seed=seed)() for seed in range(6)]
    for result in results:
        assert result.get() < 30
        assert result.usage.attempts >= 1
        assert result.usage.decoded_tokens >= result.usage.attempts
    again = max(results, key=lambda result: result.usage.attempts)
    assert again.usage.attempts > 1
    equal = number.options(temperature=1.5, seed=results.index(again), fresh=True)()
    assert equal.get() == again.get()  # a seed fixes all attempts
    assert equal.usage.attempts == again.usage.attempts
    greedy = number()
    assert greedy.get() < 30  # what was greedy at first is sampled then

    async def pieces() -> list[str]:
        return [piece async for piece in again.stream()]

    assert "".join(asyncio.run(pieces())) == again.text  # nothing of what was refused


def test_attempts_that_are_all_refused_are_all_told(session):
    word = P.SemanticFunction("A word: {{output:w: 'yes' | 'no'}}", check=lambda w: w == "maybe").options(retries=2)()
    with pytest.raises(
        P.CheckError, match=r"'w' of 'semantic' was refused 3 times, at last: the check '<lambda>' said no"
    ) as caught:
        word.get()
    assert len(caught.value.attempts) == 3
    assert {text for text, _ in caught.value.attempts} <= {"yes", "no"}
    after = P.SemanticFunction("{{input:w}} {{output:more}}")(word)
    with pytest.raises(P.UpstreamError) as upstream:
        after.get()
    assert upstream.value.__cause__ is word.error


def test_a_check_may_raise_and_holds_for_untyped_outputs_too(session):
    def long_enough(text: str) -> bool:
        assert len(text) >= 1000, "too short"
        return True

    @P.semantic_function(check=long_enough, max_tokens=4)
    def write(topic):
        """Write of {{input:topic}}: {{output:text}}"""

    with pytest.raises(P.CheckError, match="refused: too short"):
        write("cats").get()
    with pytest.raises(P.CheckError, match="returned None: let it return True or False"):
        write.options(check=lambda _: None)("cats").get()
    assert isinstance(write.options(check=lambda _: True)("cats").get(), str)


def test_an_output_after_one_that_was_written_again_reads_what_was_accepted(session):
    both = P.SemanticFunction(
        "First {{output:n: int[10..99], check=small, retries=60, max_tokens=8}} and {{output:rest}}"
    ).options(chat=False)
    outputs = both.options(temperature=1.5, seed=5)()
    assert outputs.n.get() < 30
    alone = P.SemanticFunction("First {{input:n}} and {{output:rest}}").options(chat=False, temperature=1.5, seed=5)(outputs.n)
    assert alone.get() == outputs.rest.get()
