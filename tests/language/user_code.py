"""What users write, for a type checker to read: `test_static_types.py` has pyright check it in strict mode. Nothing here runs.

Each `pyright: ignore` stands where a mistake has to be found; one that finds none is itself an error there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, assert_type

import parrot_nb as P


@dataclass
class Item:
    who: str
    days: int


@P.semantic_function
def write_code(task: str) -> str:
    """Write python code of {{input:task}}.
    Code: {{output:code}}"""
    ...


@P.semantic_function(max_tokens=64)
def count_of(text: str, unit: str = "words") -> int:
    """How many {{input:unit}} has {{input:text}}? {{output:n}}"""
    ...


@P.SemanticFunction
def item_in(text: str) -> Item:
    """{{input:text}} as JSON: {{output:item}}"""
    ...


@P.semantic_function
def who_and_when(text: str) -> tuple[Literal["Finn", "Emma"], int]:
    """{{input:text}} Who? {{output:who}} In how many days? {{output:days}}"""
    ...


@P.semantic_function
def write_test(task: P.SemanticVariable, code: P.SemanticVariable) -> P.SemanticVariable:
    """Write a test of {{input:task}}. {{input:code}} {{output:test}}"""
    ...


@P.semantic_function
def age_of(person: str | P.SemanticVariable[str]) -> P.SemanticVariable[int]:
    """How old is {{input:person}}? {{output:age}}"""
    ...


@P.semantic_function
def unsaid(text: str):
    """{{input:text}} {{output:a}} {{output:b}}"""
    ...


@P.native_function
def doubled(number: int, times: int = 2) -> int:
    return number * times


@P.native_function(name="fetched")
async def fetch(address: str) -> bytes:
    return address.encode()


@P.native_function
def longest(texts: list[str]) -> str:
    return max(texts, key=len)


def values_have_the_types_of_their_outputs() -> None:
    assert_type(write_code("a snake game"), P.SemanticVariable[str])
    assert_type(write_code("a snake game").get(perf=P.LATENCY), str)
    assert_type(count_of("a text", unit="lines").get(timeout=3.0), int)
    assert_type(item_in("Finn has three days").get().days, int)
    assert_type(age_of("Finn").get(), int)
    assert_type(doubled(21).get(), int)
    assert_type(fetch("a.txt").get(), bytes)
    assert_type(write_code.options(temperature=0.7)("a game").get(), str)
    assert_type(P.variable(value=3.5).get(), float)
    assert_type(P.SemanticVariable("text").get(), str)
    by_hand: P.SemanticVariable[int] = P.variable()
    by_hand.set(3)


async def values_are_awaited() -> None:
    assert_type(await count_of("a text"), int)
    assert_type(await count_of("a text").aget(P.THROUGHPUT), int)
    async for piece in write_code("a game").stream():
        assert_type(piece, str)
    code, count = await P.gather(write_code("a game"), count_of("a text"))
    assert_type(code, str)
    assert_type(count, int)


def parameters_take_values_and_variables_of_them() -> None:
    code = write_code("a snake game")
    assert_type(count_of(code).get(), int)
    assert_type(count_of(code, unit="lines").get(), int)
    assert_type(count_of(code, code).get(), int)
    assert_type(doubled(count_of(code)).get(), int)
    assert_type(doubled(count_of(code), times=3).get(), int)
    assert_type(age_of(person=code).get(), int)
    assert_type(write_test("a snake game", code), P.SemanticVariable[Any])
    assert_type(write_test(code, "print()"), P.SemanticVariable[Any])
    assert_type(longest([code, code]).get(), str)
    assert_type(longest(write_code.map(["a game", "a tool"])).get(), str)
    assert_type(longest(["a", "b"]).get(), str)


def several_outputs_are_unpacked() -> None:
    who, days = who_and_when("Finn has three days")
    assert_type(who.get(), Literal["Finn", "Emma"])
    assert_type(days.get(), int)
    assert_type(who_and_when("Finn").who, Any)
    a, b = unsaid("text")
    print(a.get(), b.get())
    whos, all_days = who_and_when.map(["Finn has three days", "Emma has two"])
    assert_type(whos.get(), list[Literal["Finn", "Emma"]])
    assert_type(all_days.get(), list[int])


def lists_have_the_types_of_their_items() -> None:
    counts = count_of.map(["a", "b"])
    assert_type(counts, P.VariableList[int])
    assert_type(counts.get(), list[int])
    assert_type(counts[0].get(), int)
    assert_type(counts[1:], P.VariableList[int])
    assert_type(doubled.map(counts).get(), list[int])
    assert_type([count.get() for count in counts], list[int])
    assert_type(P.gather(counts).get(), list[int])
    assert_type(P.gather(write_code("a"), count_of("b"), item_in("c")).get(), tuple[str, int, Item])
    assert_type(P.first(count_of("a"), count_of("b"), where=lambda n: n > 2).get(), int)
    assert_type(P.first(counts).get(), int)


def texts_are_joined() -> None:
    code = write_code("a game")
    assert_type("Code: " + code + "\n", P.SemanticVariable[str])
    assert_type(code + code, P.SemanticVariable[str])
    assert_type(P.join([code, count_of(code), "the end"], ", ").get(), str)
    assert_type(count_of("Texts: " + write_code.map(["a", "b"])).get(), int)


def mistakes_are_found() -> None:
    code = write_code("a snake game")
    write_code()  # pyright: ignore[reportCallIssue]
    write_code(3)  # pyright: ignore[reportCallIssue, reportArgumentType]
    write_code("a", "b")  # pyright: ignore[reportCallIssue]
    write_code(job="a game")  # pyright: ignore[reportCallIssue]
    doubled(code)  # pyright: ignore[reportCallIssue, reportArgumentType]
    print(code.get().value)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    number: int = code.get()  # pyright: ignore[reportAssignmentType]
    print(number + code)  # pyright: ignore[reportOperatorIssue, reportUnknownArgumentType]


def sessions_run_it(folder: str) -> None:
    with P.Session(model=folder, device="cpu", dtype="float32") as session:
        try:
            print(write_code("a game").get())
        except P.CheckError as error:
            print(error.attempts)
        session.cancel()
    tell = P.SemanticFunction("About {{input:topic}}: {{output:text}}")
    print(tell("parrots").get())
