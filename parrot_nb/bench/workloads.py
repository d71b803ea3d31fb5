"""The paper's applications, written as a user of parrot_nb writes them; only their text is made up.

Each takes its sizes in tokens and returns the variables that its user would read. Lengths of outputs are forced, so that
every system does the same work.
"""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from parrot_nb.errors import UsageError
from parrot_nb.language import (
    LATENCY,
    THROUGHPUT,
    SemanticFunction,
    SemanticVariable,
    VariableList,
    join,
    latency,
    native_function,
)
from parrot_nb.language.nodes import Perf
from parrot_nb.language.options import Options

WORDS = [
    "time",
    "person",
    "year",
    "way",
    "day",
    "thing",
    "man",
    "world",
    "life",
    "hand",
    "part",
    "child",
    "eye",
    "woman",
    "place",
    "work",
    "week",
    "case",
    "point",
    "government",
    "company",
    "number",
    "group",
    "problem",
    "fact",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "word",
    "business",
    "issue",
    "side",
    "kind",
]
SIGNS = string.ascii_letters + string.digits
MAY_BE_NOTHING = {"rate", "target", "seed"}


def at_least_one(option: str, value: int) -> int:
    """The value of an option of the command.

    Raises:
        UsageError: it is smaller.
    """
    if value < 1:
        raise UsageError(f"{option} must be at least 1, not {value}.")
    return value


@dataclass(frozen=True, slots=True)
class Sizes:
    """Size of an application, in tokens and counts; what a workload does not need it ignores.

    Attributes:
        apps: applications of the same kind at once.
        rate: requests that come in a second, at random; 0 for all at once.
        target: milliseconds between two tokens that a chat asks for; 0 for as fast as may be.
    """

    users: int = 16
    shared: int = 1990
    own: int = 3
    out: int = 64
    chunks: int = 8
    chunk: int = 512
    files: int = 6
    rounds: int = 1
    turns: int = 4
    apps: int = 1
    rate: int = 0
    target: int = 0
    seed: int = 0

    def but(self, **given: int) -> Sizes:
        """A copy with other values.

        Raises:
            UsageError: a value below 1, or below 0 for what may be nothing.
        """
        for name, value in given.items():
            if value < (least := 0 if name in MAY_BE_NOTHING else 1):
                raise UsageError(f"--{name} must be at least {least}, not {value}.")
        return replace(self, **given)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the sizes."""
        return tuple(field.name for field in fields(cls))


class Writer(Protocol):
    """Makes text."""

    def __call__(self, num_tokens: int, *key: Any) -> str:
        """A text of so many tokens, always the same for the same key, unlike that of other keys from its first word."""


Workload = Callable[[Sizes, Writer], list[SemanticVariable]]


def perf_of(workload: str, sizes: Sizes, index: int) -> Perf:
    """Return how an application's user reads its output of that index: waiting for it, but for a map-reduce beside chats."""
    if workload != "mixed":
        return LATENCY
    if index >= sizes.apps * sizes.turns:
        return THROUGHPUT
    return latency(tpot=sizes.target / 1000) if sizes.target else LATENCY


def text_writer(count_tokens: Callable[[str], int], seed: int | str) -> Writer:
    """A writer of texts that have exactly as many tokens as asked for, wherever the tokenizer allows that."""

    def write(num_tokens: int, *key: Any) -> str:
        rng = random.Random(f"{seed} {key}")  # noqa: S311 - made-up text, nothing to protect
        low, high = 0, num_tokens * 8 + 8
        text = " ".join(rng.choice(WORDS) for _ in range(num_tokens + 1))[:high]
        while low < high:  # the longest beginning that is not too long
            middle = (low + high + 1) // 2
            low, high = (middle, high) if count_tokens(text[:middle]) <= num_tokens else (low, middle - 1)
        return text[:low]

    return write


def function(name: str, template: str, num_tokens: int) -> SemanticFunction:
    """A prompt whose every output has exactly `num_tokens` tokens."""
    return SemanticFunction(
        template, name=name, options=Options.checked(max_tokens=num_tokens, ignore_eos=True, temperature=0.0, heal=False)
    )


def single(sizes: Sizes, text: Writer) -> list[SemanticVariable]:
    """One request, alone."""
    return [function("single", "{{input:prompt}}{{output:answer}}", sizes.out)(text(sizes.shared, "single"))]


def unshared(sizes: Sizes, text: Writer) -> list[SemanticVariable]:
    """Requests that have nothing in common."""
    ask = function("ask", "{{input:prompt}}{{output:answer}}", sizes.out)
    signs = [f"{SIGNS[i % len(SIGNS)]}{i:03}" for i in range(sizes.users)]  # the very first token differs
    return list(ask.map([f"{sign}{text(max(1, sizes.shared - len(sign)), 'unshared', sign)}" for sign in signs]))


def copilot(sizes: Sizes, text: Writer) -> list[SemanticVariable]:
    """One long prompt, many users (paper, figures 15 and 16)."""
    answer = function("copilot", text(sizes.shared, "copilot") + "{{input:query}}{{output:answer}}", sizes.out)
    return list(answer.map([text(sizes.own, "query", i) for i in range(sizes.users)]))


def gpts(sizes: Sizes, text: Writer) -> list[SemanticVariable]:
    """Four applications with a long prompt each, their users mixed (paper, figure 17)."""
    prompts = [text(max(1, round(sizes.shared * share)), "gpts", i) for i, share in enumerate((1.0, 0.15, 0.23, 0.27))]
    apps = [function(f"app{i}", prompt + "{{input:query}}{{output:answer}}", sizes.out) for i, prompt in enumerate(prompts)]
    queries = over_time([text(sizes.own, "gpts query", i) for i in range(sizes.users)], sizes)
    return [apps[i % len(apps)](query) for i, query in enumerate(queries)]


def over_time(queries: Sequence[str], sizes: Sizes) -> list[Any]:
    """Requests at the rate asked for: what comes later is a variable that has no value yet."""
    if not sizes.rate:
        return list(queries)
    rng, at_s, coming = random.Random(sizes.seed), 0.0, []  # noqa: S311 - when requests come is nothing to protect
    for query in queries:
        coming.append(arrived(query, at_s))
        at_s += rng.expovariate(sizes.rate)
    return coming


@native_function
async def arrived(query: str, at_s: float) -> str:
    """A request's text, when it comes."""
    await asyncio.sleep(at_s)
    return query


def chain(sizes: Sizes, text: Writer) -> list[SemanticVariable]:
    """Summaries of long documents, each chunk refining what was written of those before (paper, figures 11 and 12)."""
    begin = function("summarise", "Summarise. Text: {{input:chunk}} Summary: {{output:summary}}", sizes.out)
    refine = function(
        "refine", "Refine the summary. So far: {{input:before}} Next text: {{input:chunk}} Summary: {{output:summary}}", sizes.out
    )
    summaries: list[Any] = [begin(text(sizes.chunk, "chunk", 0, *_number(app))) for app in range(sizes.apps)]
    for i in range(1, sizes.chunks):
        for app, summary in enumerate(summaries):
            summaries[app] = refine(summary, text(sizes.chunk, "chunk", i, *_number(app)))
    return summaries


def _number(app: int) -> tuple[int, ...]:
    """Return the key that tells the texts of applications at once apart."""
    return (app,) if app else ()


def map_reduce(sizes: Sizes, text: Writer) -> list[SemanticVariable]:
    """Summary of a long document, its chunks at once (paper, figure 14)."""
    summarise = function("map", "Summarise. Text: {{input:chunk}} Summary: {{output:summary}}", sizes.out)
    combine = function("reduce", "Combine the summaries. {{input:summaries}} Summary: {{output:summary}}", sizes.out)
    parts = summarise.map([text(sizes.chunk, "chunk", i) for i in range(sizes.chunks)])
    return [combine(join(parts))]


def multi_agent(sizes: Sizes, text: Writer) -> list[SemanticVariable]:
    """An architect, coders, reviewers and revisions of a program of several files (paper, figure 18)."""
    design = function("architect", text(sizes.own, "task") + " Design the files of this program. {{output:design}}", sizes.out)()
    role = text(sizes.shared, "role")
    code = function("coder", role + " Design: {{input:design}} Write file {{input:name}}. {{output:code}}", sizes.out)
    review = function("reviewer", role + " Program: {{input:program}} Review file {{input:name}}. {{output:review}}", sizes.out)
    revise = function("reviser", role + " File: {{input:code}} Review: {{input:review}} Revise it. {{output:revised}}", sizes.out)
    names = [f"file_{i}.py" for i in range(sizes.files)]
    files: VariableList | Sequence[Any] = code.map(design=design, name=names)
    for _ in range(sizes.rounds):
        program = join(files)
        reviews = review.map(program=program, name=names)
        files = revise.map(code=list(files), review=list(reviews))
    return list(files)


def pipeline(sizes: Sizes, text: Writer) -> list[SemanticVariable]:
    """Texts that are rewritten again and again: each stage reads all that the one before wrote."""
    write = function("write", "{{input:task}} Write it. {{output:text}}", sizes.out)
    rewrite = function("rewrite", "Rewrite this text. {{input:text}} Better: {{output:better}}", sizes.out)
    texts: Any = write.map([text(max(1, sizes.own), "pipeline", i) for i in range(sizes.users)])
    for _ in range(1, sizes.chunks):
        texts = rewrite.map(texts)
    return list(texts)


def mixed(sizes: Sizes, text: Writer) -> list[SemanticVariable]:
    """Chats beside a map-reduce (paper, figure 19)."""
    turn = function("chat", "{{input:history}} User: {{input:message}} Assistant: {{output:answer}}", sizes.out)
    answers: list[SemanticVariable] = []
    for app in range(sizes.apps):
        history: Any = text(sizes.chunk, "history", *_number(app))
        for i in range(sizes.turns):
            message = text(max(sizes.own, 8), "message", i, *_number(app))
            answer = turn(history, message)
            history = history + " User: " + message + " Assistant: " + answer
            answers.append(answer)
    return [*answers, *map_reduce(sizes, text)]


DEFAULTS = Sizes()
WORKLOADS: dict[str, tuple[Workload, Sizes]] = {
    "single": (single, DEFAULTS.but(users=1, shared=128, out=128)),
    "unshared": (unshared, DEFAULTS.but(shared=256)),
    "copilot": (copilot, DEFAULTS),
    "gpts": (gpts, DEFAULTS.but(own=8)),
    "chain": (chain, DEFAULTS.but(out=50)),
    "map_reduce": (map_reduce, DEFAULTS.but(out=50)),
    "multi_agent": (multi_agent, DEFAULTS.but(own=100, shared=400)),
    "pipeline": (pipeline, DEFAULTS.but(users=1, own=20, out=500, chunks=5)),
    "mixed": (mixed, DEFAULTS.but(out=50)),
}
