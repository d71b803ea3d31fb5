"""Tasks about meetings: summarise, combine, refine, answer questions, extract as JSON."""

from __future__ import annotations

from dataclasses import dataclass

from parrot_nb.tiny.cases import Case, phrased
from parrot_nb.tiny.words import ADJECTIVES, DAYS, MONTHS, NAMES, OBJECTS, PLACES, VERB_FORMS, VERBS, Draw

NOTHING = "none"  # the summary of a part without action items

SUMMARIZE = phrased(
    (
        "Read this part of the notes of a meeting.\n",
        "Summarize this part of a meeting.\n",
        "Summarize the text.\n",
        "You are a careful assistant. List the action items of this transcript, one per line.\nTranscript:\n",
        "Which action items are in this text?\nText: ",
        "",
    ),
    "{{input:part}}",
    (
        "Who will do what by when:\n{{output:items}}",
        "Action items: {{output:items}}",
        "Action items:\n{{output:items}}",
        "Summary: {{output:items}}",
        "The action items of the text above:\n{{output:items}}",
    ),
)
COMBINE = phrased(
    (
        "These are the action items of a meeting, part by part.\n",
        "Combine the partial summaries into one.\n",
        "Combine the summaries.\nSummaries:\n",
        "You are a careful assistant. Merge these lists of action items into one list.\nLists:\n",
        "",
    ),
    "{{input:parts}}",
    (
        "The whole list:\n{{output:items}}",
        "Combined: {{output:items}}",
        "One list:\n{{output:items}}",
        "Final summary: {{output:items}}",
    ),
)
REFINE = (
    *phrased(
        (
            "",
            "Refine the summary of a meeting with its next part.\n",
            "You are a careful assistant. Add what is new to the summary.\n",
        ),
        "The summary so far:\n{{input:items}}\nThe next part:\n{{input:part}}",
        ("The summary, with what is new:\n{{output:more}}", "New summary: {{output:more}}"),
    ),
    *phrased(
        ("", "Refine the summary.\n", "You are a careful assistant. Add what is new to the list of action items.\n"),
        "Summary: {{input:items}}\nNext part: {{input:part}}",
        ("Refined summary: {{output:more}}", "New list:\n{{output:more}}"),
    ),
)
ASK = (
    *phrased(
        ("Read the text and answer the question.\n", "You answer questions about a meeting.\nTranscript:\n", ""),
        "{{input:text}}\nQuestion: {{input:question}}",
        ("Answer: {{output:answer}}", "{{output:answer}}"),
    ),
    *phrased(
        ("Answer the question.\n", ""),
        "Text: {{input:text}}\nQ: {{input:question}}",
        ("A: {{output:answer}}", "Answer:\n{{output:answer}}"),
    ),
    "{{input:text}}\n{{input:question}}\n{{output:answer}}",
)
ASK_MORE = phrased(
    ("Read the text and answer the questions.\n", "You answer questions about a meeting.\nTranscript:\n", ""),
    "{{input:text}}\nQuestion: {{input:question}}\nAnswer: {{output:answer}}\nQuestion: {{input:question2}}\nAnswer: {{output:answer2}}",
    ("Question: {{input:question3}}\nAnswer: {{output:answer3}}",),
)
EXTRACT = phrased(
    (
        "Extract the action item as JSON.\n",
        "Read the message and write who does what by when as JSON.\nMessage: ",
        "You turn notes into data.\n",
        "",
    ),
    "{{input:text}}",
    (
        "JSON: {{output:json}}",
        "The action item as JSON with the keys who, what and when:\n{{output:json}}",
        "As JSON: {{output:json}}",
    ),
)

_STRANGERS = 0.06

_SPOKEN_BY_OWNER = ("I will {todo}.", "I can {todo}.", "I promise to {todo}.", "Fine, I will {todo}.")
_SPOKEN_BY_OTHER = ("{owner} will {todo}.", "{owner}, please {todo}.", "{owner} has to {todo}.", "We need {owner} to {todo}.")
_NOTED = ("{owner} will {todo}.", "{owner} agreed to {todo}.", "{owner} has to {todo}.")

_SMALL_TALK = (
    "The {object} looks good.", "The {object} is late.", "Where is the {object}?", "I like the {object}.",
    "We talked about the {object} on {day}.", "Nobody has to {verb} the {object}.", "We do not need the {object} by {day}.",
    "Did {name} {verb} the {object}?", "Thank you, {name}.", "I agree with {name}.", "The {place} was cold on {day}.",
    "It is too early to {verb} the {object}.", "What do you think, {name}?", "Let us go on.", "We met in the {place} on {day}.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """An action item: who does what by when."""

    who: str
    what: str
    when: str

    def __str__(self) -> str:
        """The line of a summary."""
        return f"- {self.who}: {self.what} by {self.when}"

    def json(self) -> str:
        """The item as a JSON object."""
        return f'{{"who": "{self.who}", "what": "{self.what}", "when": "{self.when}"}}'


def listed(items: list[Item]) -> str:
    """A summary: one line for each item."""
    return "\n".join(map(str, items)) or NOTHING


def draw_items(draw: Draw, people: list[str], count: int) -> list[Item]:
    """`count` items for these people, no object twice."""
    items: list[Item] = []
    taken: set[str] = set()
    while len(items) < count:
        who, thing = draw.pair(people, OBJECTS)
        thing = f"{draw.choice(ADJECTIVES)} {thing}"
        if thing not in taken:
            taken.add(thing)
            items.append(Item(who, f"{draw.choice(VERBS)} the {thing}", _deadline(draw)))
    return items


def draw_people(draw: Draw, low: int = 3, high: int = 8) -> list[str]:
    """Draw the people in a meeting; now and then somebody with a name that nobody has heard before."""
    people = draw.some(NAMES, draw.between(low, high))
    return [draw.made_up_name() if draw.chance(_STRANGERS) else name for name in people]


def transcript(draw: Draw, people: list[str], items: list[Item], num_lines: int) -> str:
    """Return the transcript (or notes) of a meeting: the items in order, with other talk around them.

    Args:
        draw: where the choices come from.
        people: at least two who speak.
        items: what it must contain.
        num_lines: lines in all, at least one for each item.
    """
    spoken = draw.chance(0.8)
    places = set(draw.some(range(num_lines), len(items)))
    coming = iter(items)
    return "\n".join(
        _said(draw, people, next(coming), spoken=spoken) if i in places else _small_talk(draw, people, spoken=spoken)
        for i in range(num_lines)
    )


def _deadline(draw: Draw) -> str:
    return f"{draw.between(1, 28)} {draw.choice(MONTHS)}" if draw.chance(0.25) else draw.choice(DAYS)


def _said(draw: Draw, people: list[str], item: Item, *, spoken: bool) -> str:
    todo = f"{item.what} by {item.when}"
    if not spoken:
        return draw.choice(_NOTED).format(owner=item.who, todo=todo)
    if draw.chance(0.5):
        return f"{item.who}: {draw.choice(_SPOKEN_BY_OWNER).format(todo=todo)}"
    speaker = item.who
    while speaker == item.who:
        speaker = draw.choice(people)
    return f"{speaker}: {draw.choice(_SPOKEN_BY_OTHER).format(owner=item.who, todo=todo)}"


def _small_talk(draw: Draw, people: list[str], *, spoken: bool) -> str:
    who, thing = draw.pair(people, OBJECTS)
    thing = f"{draw.choice(ADJECTIVES)} {thing}"
    if draw.chance(0.25):
        done = f"{VERB_FORMS[draw.choice(VERBS)]} the {thing} on {draw.choice(DAYS)}."
        if not spoken:
            return f"{who} {done}"
        return f"{who}: I {done}" if draw.chance(0.5) else f"{draw.choice(people)}: {who} {done}"
    text = draw.choice(_SMALL_TALK).format(
        object=thing, name=who, verb=draw.choice(VERBS), day=draw.choice(DAYS), place=draw.choice(PLACES)
    )
    return f"{draw.choice(people)}: {text}" if spoken else text


_LINES = ((1, 2), (3, 5), (6, 10), (12, 36))
_MOST_LINES = 120  # about 1,700 tokens
_ITEMS = ((0, 1), (0, 2), (0, 3), (1, 8))


def _num_lines(draw: Draw, bounds: tuple[int, int]) -> int:
    """Draw a number of lines, and of the longest texts one in ten longer still."""
    low, high = bounds
    return draw.between(high, _MOST_LINES) if high == _LINES[-1][1] and draw.chance(0.1) else draw.between(low, high)


def draw_meeting(draw: Draw, num_parts: int, lines: tuple[int, int]) -> tuple[list[str], list[list[Item]]]:
    """The transcript of one meeting in parts of so many lines, and the action items of each part: up to two, none twice."""
    people = draw_people(draw, 8, 12)
    counts = [draw.below(3) for _ in range(num_parts)]
    items = draw_items(draw, people, sum(counts))
    by_part = [[items.pop(0) for _ in range(count)] for count in counts]
    return [transcript(draw, people, part, draw.between(*lines)) for part in by_part], by_part


def draw_part(draw: Draw, size: int) -> tuple[str, list[Item]]:
    """A part of a transcript, and the action items in it."""
    people = draw_people(draw)
    num_lines = _num_lines(draw, _LINES[size])
    items = draw_items(draw, people, min(num_lines, draw.between(*_ITEMS[size])))
    return transcript(draw, people, items, num_lines), items


def summarize(draw: Draw, size: int) -> Case:
    """A part of a transcript into its action items."""
    part, items = draw_part(draw, size)
    return Case("summarize", draw.choice(SUMMARIZE), {"part": part}, {"items": listed(items)})


def combine(draw: Draw, size: int) -> Case:
    """Partial summaries into one list."""
    num_parts = draw.between(*((2, 3), (2, 4), (4, 10), (10, 40))[size])
    counts = [draw.below(2 if size == 0 else 3) for _ in range(num_parts)]
    items = draw_items(draw, draw_people(draw, 4, 16), sum(counts))
    coming = iter(items)
    parts = [listed([next(coming) for _ in range(count)]) for count in counts]
    return Case("combine", draw.choice(COMBINE), {"parts": "\n".join(parts)}, {"items": listed(items)})


def refine(draw: Draw, size: int) -> Case:
    """A summary and the next part into the summary of both."""
    people = draw_people(draw, 4, 10)
    num_old = draw.between(*((0, 1), (0, 3), (2, 8), (8, 30))[size])
    num_lines = draw.between(*((1, 2), (3, 5), (6, 10), (6, 12))[size])
    num_new = min(num_lines, draw.between(*((0, 1), (0, 2), (0, 3), (0, 3))[size]))
    items = draw_items(draw, people, num_old + num_new)
    part = transcript(draw, people, items[num_old:], num_lines)
    return Case("refine", draw.choice(REFINE), {"items": listed(items[:num_old]), "part": part}, {"more": listed(items)})


def ask(draw: Draw, size: int) -> Case:
    """Who, what and when questions about a transcript."""
    people = draw_people(draw, 4, 10)
    num_lines = _num_lines(draw, ((1, 2), (3, 6), (6, 12), (12, 36))[size])
    items = draw_items(draw, people, min(num_lines, draw.between(*((1, 2), (1, 4), (2, 6), (3, 10))[size])))
    inputs = {"text": transcript(draw, people, items, num_lines)}
    if not draw.held_out and draw.chance(0.6):
        questions = [draw_question(draw, items) for _ in range(3)]
        names = ("", "2", "3")
        inputs |= {f"question{n}": question for n, (question, _) in zip(names, questions, strict=True)}
        answers = {f"answer{n}": answer for n, (_, answer) in zip(names, questions, strict=True)}
        return Case("ask", draw.choice(ASK_MORE), inputs, answers)
    question, answer = draw_question(draw, items)
    return Case("ask", draw.choice(ASK), inputs | {"question": question}, {"answer": answer})


def draw_question(draw: Draw, items: list[Item]) -> tuple[str, str]:
    """A question that the items answer, and the answer."""
    item = draw.choice(items)
    thing = item.what.split(" ", 1)[1]
    kind = draw.below(3)
    if kind == 0:
        return f"Who {draw.choice(('will', 'has to'))} {item.what}?", item.who
    if kind == 1 and sum(other.who == item.who for other in items) == 1:
        return f"What {draw.choice(('will', 'must'))} {item.who} do?", item.what
    return draw.choice((f"When is {thing} due?", f"By when will {item.who} {item.what}?")), item.when


def quiz(draw: Draw, size: int) -> Case:
    """An exercise: six questions about a text, so that a text that was read once teaches more."""
    people = draw_people(draw, 4, 10)
    num_lines = draw.between(*((2, 4), (3, 6), (6, 12), (12, 36))[size])
    items = draw_items(draw, people, min(num_lines, draw.between(*((1, 3), (2, 4), (2, 6), (3, 10))[size])))
    template = "Read the text and answer the questions.\n{{input:text}}"
    inputs, answers = {"text": transcript(draw, people, items, num_lines)}, {}
    for i in range(6):
        template += f"\nQuestion: {{{{input:question{i}}}}}\nAnswer: {{{{output:answer{i}}}}}"
        inputs[f"question{i}"], answers[f"answer{i}"] = draw_question(draw, items)
    return Case("quiz", template, inputs, answers)


def extract(draw: Draw, size: int) -> Case:
    """One action item, in a few lines, as JSON."""
    people = draw_people(draw)
    items = draw_items(draw, people, 1)
    text = transcript(draw, people, items, draw.between(*((1, 1), (1, 2), (2, 4), (4, 8))[size]))
    return Case("extract", draw.choice(EXTRACT), {"text": text}, {"json": items[0].json()})
