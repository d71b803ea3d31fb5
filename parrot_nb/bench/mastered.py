"""The paper's applications on what parrot-tiny has learnt, so that every output can be checked.

Each comes with its right answers. An output is as long as its right answer, on every system; so speeds compare, and what
a model writes is right or wrong to the last character. Lengths of texts are in tokens, up to a line of a transcript.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from parrot_nb.bench.workloads import Sizes, over_time
from parrot_nb.language import SemanticFunction, SemanticVariable, join, native_function
from parrot_nb.language.options import Options
from parrot_nb.tiny.meetings import (
    ASK,
    COMBINE,
    REFINE,
    SUMMARIZE,
    Item,
    draw_items,
    draw_meeting,
    draw_people,
    draw_question,
    listed,
    transcript,
)
from parrot_nb.tiny.programs import ACCEPT, PLAN, REVIEW, REVISE, WRITE_CODE, draw_function, module_of
from parrot_nb.tiny.words import Draw

TOKENS_PER_LINE = 14
LINES_PER_ITEM = 5
CHAT = "{{input:history}}\nQuestion: {{input:question}}\nAnswer: {{output:answer}}"  # as ASK_MORE goes on

Checked = list[tuple[SemanticVariable, str]]
Application = Callable[[], Checked]
Count = Callable[[str], int]


def prepare(workload: str, sizes: Sizes, count: Count) -> Application:
    """Return a function that builds an application's calls and returns what its user reads, each output with its right answer.

    Args:
        workload: of `APPLICATIONS`.
        sizes: as for made-up texts; `own` and `out` follow from the texts.
        count: how many tokens a text has.
    """
    return APPLICATIONS[workload](sizes, _Prompts(count), Draw(f"bench {workload} {sizes.seed}", held_out=True))


class _Prompts:
    """Makes calls whose outputs are as long as they should be."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._num_tokens: dict[str, int] = {}

    def know(self, *answers: str) -> None:
        """Count the tokens of right answers, before the clock starts."""
        self._num_tokens |= {answer: self._count(answer) for answer in answers}

    def call(self, name: str, template: str, right: str, *, chat: bool | None = None, **inputs: Any) -> Any:
        """A call whose only output should be `right`."""
        options = Options.checked(max_tokens=self._num_tokens[right], ignore_eos=True, temperature=0.0, chat=chat, heal=False)
        return SemanticFunction(template, name=name, options=options)(**inputs)


def _num_lines(num_tokens: int) -> int:
    return max(2, num_tokens // TOKENS_PER_LINE)


def _part(draw: Draw, num_tokens: int) -> tuple[str, list[Item]]:
    """A transcript of about so many tokens, and what was agreed in it."""
    people = draw_people(draw, 4, 8)
    lines = _num_lines(num_tokens)
    items = draw_items(draw, people, draw.between(1, max(1, lines // LINES_PER_ITEM)))
    return transcript(draw, people, items, lines), items


def _asked(draw: Draw, items: list[Item], count: int) -> list[tuple[str, str]]:
    return [draw_question(draw, items) for _ in range(count)]


def single(sizes: Sizes, prompts: _Prompts, draw: Draw) -> Application:
    """One request, alone: a summary."""
    part, items = _part(draw, sizes.shared)
    right = listed(items)
    prompts.know(right)
    return lambda: [(prompts.call("summarize", SUMMARIZE[0], right, part=part), right)]


def unshared(sizes: Sizes, prompts: _Prompts, draw: Draw) -> Application:
    """Summaries of texts that come first in their prompts and have nothing in common."""
    parts = [_part(draw, sizes.shared) for _ in range(sizes.users)]
    rights = [listed(items) for _, items in parts]
    prompts.know(*rights)
    return lambda: [
        (prompts.call("summarize", SUMMARIZE[-1], right, part=part), right)
        for (part, _), right in zip(parts, rights, strict=True)
    ]


def _shared(prompts: _Prompts, text: str, questions: Sequence[tuple[Any, str]], name: str) -> Checked:
    template = ASK[0].replace("{{input:text}}", text)
    return [(prompts.call(name, template, answer, question=question), answer) for question, answer in questions]


def copilot(sizes: Sizes, prompts: _Prompts, draw: Draw) -> Application:
    """One long transcript, many users with a question each."""
    text, items = _part(draw, sizes.shared)
    questions = _asked(draw, items, sizes.users)
    prompts.know(*(answer for _, answer in questions))
    return lambda: _shared(prompts, text, questions, "copilot")


def gpts(sizes: Sizes, prompts: _Prompts, draw: Draw) -> Application:
    """Four transcripts, their users mixed."""
    texts = [_part(draw, round(sizes.shared * share)) for share in (1.0, 0.15, 0.23, 0.27)]
    asked = [_asked(draw, texts[i % 4][1], 1)[0] for i in range(sizes.users)]
    prompts.know(*(right for _, right in asked))

    def build() -> Checked:
        answers: Checked = []
        for i, question in enumerate(over_time([question for question, _ in asked], sizes)):
            answers += _shared(prompts, texts[i % 4][0], [(question, asked[i][1])], f"app{i % 4}")
        return answers

    return build


def chain(sizes: Sizes, prompts: _Prompts, draw: Draw) -> Application:
    """The action items of a long transcript, each part refining the list."""
    meetings = []
    for _ in range(sizes.apps):
        parts, items = _meeting(draw, sizes)
        rights = [listed([item for part in items[: i + 1] for item in part]) for i in range(len(parts))]
        prompts.know(*rights)
        meetings.append(list(zip(parts, rights, strict=True)))

    def refined(meeting: list[tuple[str, str]]) -> tuple[SemanticVariable, str]:
        (first, right), *others = meeting
        summary: Any = prompts.call("summarize", SUMMARIZE[0], right, part=first)
        for part, right in others:
            summary = prompts.call("refine", REFINE[0], right, items=summary, part=part)
        return summary, right

    return lambda: [refined(meeting) for meeting in meetings]


def map_reduce(sizes: Sizes, prompts: _Prompts, draw: Draw) -> Application:
    """The action items of a long transcript, its parts at once."""
    parts, items = _meeting(draw, sizes)
    mapped = [listed(part) for part in items]
    right = listed([item for part in items for item in part])
    prompts.know(*mapped, right)

    def build() -> Checked:
        lists = [prompts.call("summarize", SUMMARIZE[0], answer, part=part) for part, answer in zip(parts, mapped, strict=True)]
        return [(prompts.call("combine", COMBINE[0], right, parts=join(lists)), right)]

    return build


def _meeting(draw: Draw, sizes: Sizes) -> tuple[list[str], list[list[Item]]]:
    lines = _num_lines(sizes.chunk)
    return draw_meeting(draw, sizes.chunks, (lines, lines))


@native_function
def line_of(plan: str, i_line: int) -> str:
    """One line of a plan; nothing where the plan is shorter."""
    lines = plan.split("\n")
    return lines[i_line] if i_line < len(lines) else ""


def multi_agent(sizes: Sizes, prompts: _Prompts, draw: Draw) -> Application:
    """An architect plans functions; coders write them, reviewers look at them, and they are revised."""
    functions = [draw_function(draw) for _ in range(sizes.files)]
    plan = "\n".join(function.task for function in functions)
    prompts.know(plan, ACCEPT, *(function.code for function in functions))

    def build() -> Checked:
        planned = prompts.call("architect", PLAN[0], plan, module=module_of(functions))
        files: list[Any] = []
        for i, function in enumerate(functions):
            task = line_of(planned, i)
            code = prompts.call("coder", WRITE_CODE[0], function.code, task=task)
            for _ in range(sizes.rounds):
                review = prompts.call("reviewer", REVIEW[0], ACCEPT, task=task, code=code)
                code = prompts.call("reviser", REVISE[0], function.code, code=code, review=review)
            files.append(code)
        return [(code, function.code) for code, function in zip(files, functions, strict=True)]

    return build


def pipeline(sizes: Sizes, prompts: _Prompts, draw: Draw) -> Application:
    """Code that is revised again and again, though nothing is wrong with it."""
    functions = [draw_function(draw) for _ in range(sizes.users)]
    prompts.know(*(function.code for function in functions))

    def build() -> Checked:
        answers: Checked = []
        for function in functions:
            code = prompts.call("coder", WRITE_CODE[0], function.code, task=function.task)
            for _ in range(1, sizes.chunks):
                code = prompts.call("reviser", REVISE[0], function.code, code=code, review=ACCEPT)
            answers.append((code, function.code))
        return answers

    return build


def mixed(sizes: Sizes, prompts: _Prompts, draw: Draw) -> Application:
    """Questions about a text, one after another, beside a map-reduce."""
    chats = []
    for _ in range(sizes.apps):
        text, items = _part(draw, sizes.chunk)
        questions = _asked(draw, items, sizes.turns)
        prompts.know(*(answer for _, answer in questions))
        chats.append((text, questions))
    background = map_reduce(sizes, prompts, draw)

    def build() -> Checked:
        answers: Checked = []
        for text, questions in chats:
            history: Any = "Read the text and answer the questions.\n" + text
            for question, right in questions:
                answer = prompts.call("chat", CHAT, right, chat=False, history=history, question=question)
                history = history + "\nQuestion: " + question + "\nAnswer: " + answer
                answers.append((answer, right))
        return [*answers, *background()]

    return build


APPLICATIONS: dict[str, Callable[[Sizes, _Prompts, Draw], Application]] = {
    "single": single,
    "unshared": unshared,
    "copilot": copilot,
    "gpts": gpts,
    "chain": chain,
    "map_reduce": map_reduce,
    "multi_agent": multi_agent,
    "pipeline": pipeline,
    "mixed": mixed,
}
SIZES = Sizes(shared=1_000, chunk=140, rounds=1, turns=3)
DEFAULT_SIZES: dict[str, Sizes] = dict.fromkeys(APPLICATIONS, SIZES) | {
    "single": SIZES.but(users=1, shared=400),
    "unshared": SIZES.but(shared=256),
}
