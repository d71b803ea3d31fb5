"""Right answers of a pretrained model with a type and as free text that is parsed, on the same prompts, through the public surface.

    python tests/real/typed_quality.py MODEL [DTYPE]

prints the table of docs/pages/types.md. The parser of the free text is lenient: the first JSON object or array of the text, code
fences or not, the first number, the first label.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Literal

import parrot_nb as P

MAX_TOKENS = 60
Feeling = Literal["positive", "negative"]
Topic = Literal["sports", "food", "weather"]


@dataclass
class Person:
    name: str
    age: int
    city: str


@dataclass
class Task:
    """Questions of one kind: a prompt, the type of its answer, how free text is read, and cases with their right answers."""

    prompt: str
    kind: Any
    read: Callable[[str], Any]
    cases: tuple[tuple[str, Any], ...]


def first_json(text: str) -> Any:
    """The first JSON object of a text; None where there is none."""
    for found in re.finditer(r"\{", text):
        try:
            return json.JSONDecoder().raw_decode(text[found.start() :])[0]
        except ValueError:
            continue
    return None


def first_number(text: str) -> int | None:
    """The first whole number of a text."""
    found = re.search(r"-?\d[\d,]*", text)
    return int(found[0].replace(",", "")) if found else None


def first_label(*labels: str) -> Callable[[str], str | None]:
    """A reader that finds the first of these words."""

    def read(text: str) -> str | None:
        found = re.search("|".join(labels), text.lower())
        return found[0] if found else None

    return read


def person(name: str, age: int, city: str) -> dict[str, Any]:
    return {"name": name, "age": age, "city": city}


RECORDS = (
    ("Maria Lopez is 34 years old and lives in Madrid.", person("Maria Lopez", 34, "Madrid")),
    ("At 51, Tom Becker has moved to Berlin.", person("Tom Becker", 51, "Berlin")),
    ("Aiko Tanaka, 27, works as a nurse in Osaka.", person("Aiko Tanaka", 27, "Osaka")),
    ("My name is Paul Martin, I am 45 and I come from Lyon.", person("Paul Martin", 45, "Lyon")),
    ("Nina Olsen turned 62 last week. She lives in Bergen.", person("Nina Olsen", 62, "Bergen")),
    ("In Cairo, 19-year-old Samira Haddad studies law.", person("Samira Haddad", 19, "Cairo")),
    ("Jan Novak (38) repairs bicycles in Prague.", person("Jan Novak", 38, "Prague")),
    ("Grace Kim lives in Seoul and is 30.", person("Grace Kim", 30, "Seoul")),
    ("The oldest was Otto Klein, 88 years old, from Hamburg.", person("Otto Klein", 88, "Hamburg")),
    ("Lucy Brown, a teacher of 41, lives in Leeds.", person("Lucy Brown", 41, "Leeds")),
    ("Carlos Diaz is from Lima. He is 25 years old.", person("Carlos Diaz", 25, "Lima")),
    ("Ella Virtanen, who is 33, moved to Helsinki in May.", person("Ella Virtanen", 33, "Helsinki")),
    ("Peter Novy, aged 56, was born in Vienna and lives there.", person("Peter Novy", 56, "Vienna")),
    ("We spoke to Amina Diallo, 22, in Dakar.", person("Amina Diallo", 22, "Dakar")),
    ("Rome is where Luca Rossi, 47, has his shop.", person("Luca Rossi", 47, "Rome")),
    ("Sarah Cohen is a pilot. She is 39 and lives in Haifa.", person("Sarah Cohen", 39, "Haifa")),
    ("Ivan Petrov lives in Sofia; he is 70.", person("Ivan Petrov", 70, "Sofia")),
    ("A girl of 12, Emma Jones from Cardiff, won the prize.", person("Emma Jones", 12, "Cardiff")),
    ("Ravi Patel, 29 years, sells tea in Mumbai.", person("Ravi Patel", 29, "Mumbai")),
    ("The cook Marie Dupont is 58 and works in Paris.", person("Marie Dupont", 58, "Paris")),
)
AMOUNTS = (
    ("The chair costs 45 dollars.", 45), ("We sold 120 tickets on Monday.", 120), ("The train takes 35 minutes to the airport.", 35),
    ("There are 18 children in the class.", 18), ("The book has 312 pages.", 312), ("The bridge is 640 metres long.", 640),
    ("He ran 12 miles in the rain.", 12), ("The hotel has 85 rooms.", 85), ("Her garden holds 27 trees.", 27),
    ("The museum is 150 years old.", 150),
)  # fmt: skip
OPINIONS = (
    ("I love this phone, it works perfectly.", "positive"), ("The food was cold and tasted awful.", "negative"),
    ("What a wonderful hotel, we will come again.", "positive"), ("The seat was broken and the staff was rude.", "negative"),
    ("The best film that I have seen in years.", "positive"), ("It stopped working after two days.", "negative"),
    ("A waste of money.", "negative"), ("Great service and friendly people.", "positive"),
    ("I am very happy with these shoes.", "positive"), ("The room was dirty and loud.", "negative"),
    ("This is the worst coffee in town.", "negative"), ("Beautiful pictures and a moving story.", "positive"),
    ("I would not recommend it to anybody.", "negative"), ("Everything arrived on time and in perfect shape.", "positive"),
    ("The battery is terrible.", "negative"),
)  # fmt: skip
NEWS = (
    ("The team scored two goals in the last minute.", "sports"), ("Heavy rain and strong wind are expected tonight.", "weather"),
    ("Fry the onions in butter and add the rice.", "food"), ("She won the tennis match in three sets.", "sports"),
    ("Tomorrow will be sunny with some clouds.", "weather"), ("This bakery makes the best bread in town.", "food"),
    ("The runner broke the world record.", "sports"), ("Snow fell in the mountains all night.", "weather"),
    ("Bake the cake for forty minutes.", "food"), ("The coach praised his players after the game.", "sports"),
    ("A storm is moving towards the coast.", "weather"), ("The soup needs more salt and pepper.", "food"),
    ("The swimmer took the gold medal.", "sports"), ("Temperatures will fall below zero.", "weather"),
    ("We had fish with potatoes for dinner.", "food"),
)  # fmt: skip

TASKS = {
    "a record: name, age, city": Task(
        "Text: Ben Carter is a baker of 52 in Dublin.\n"
        'JSON: {"name": "Ben Carter", "age": 52, "city": "Dublin"}\n\nText: {{input:text}}\nJSON:',
        Person, first_json, RECORDS,
    ),
    "a number": Task(
        "Text: The box weighs 7 kilos.\nNumber: 7\n\nText: They planted 230 roses.\nNumber: 230\n\nText: {{input:text}}\nNumber:",
        int, first_number, AMOUNTS,
    ),
    "positive or negative": Task(
        "Review: The colours are lovely.\nSentiment: positive\n\nReview: It fell apart at once.\nSentiment: negative\n\n"
        "Review: {{input:text}}\nSentiment:",
        Feeling, first_label("positive", "negative"), OPINIONS,
    ),
    "sports, food or weather": Task(
        "Sentence: They lost the football match.\nTopic: sports\n\nSentence: Boil the eggs.\nTopic: food\n\n"
        "Sentence: It was a foggy morning.\nTopic: weather\n\nSentence: {{input:text}}\nTopic:",
        Topic, first_label("sports", "food", "weather"), NEWS,
    ),
}  # fmt: skip


def count(task: Task, *, typed: bool) -> int:
    """The number of right answers of the current session's model."""
    kind = ": Kind" if typed else ""
    source = f"{task.prompt}{{{{output:answer{kind}, max_tokens={MAX_TOKENS}}}}}"
    ask = P.SemanticFunction(source, name="ask", namespace={"Kind": task.kind}).options(chat=False)
    if not typed:
        ask = ask.options(stop="\n")
    right = 0
    for variable, (_, answer) in zip(ask.map([text for text, _ in task.cases]), task.cases, strict=True):
        try:
            value = variable.get() if typed else task.read(variable.get())
        except P.TruncatedError:
            continue
        right += (asdict(value) if is_dataclass(value) and not isinstance(value, type) else value) == answer
    return right


def main() -> None:
    """Print the table of the model named on the command line."""
    model, dtype = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "float32"
    print("| what is asked for | cases | with its type | free text, parsed |\n|---|---|---|---|")
    totals = [0, 0, 0]
    with P.Session(model=model, device="cpu", dtype=dtype):
        for name, task in TASKS.items():
            numbers = [len(task.cases), count(task, typed=True), count(task, typed=False)]
            totals = [total + number for total, number in zip(totals, numbers, strict=True)]
            print(f"| {name} | " + " | ".join(map(str, numbers)) + " |", flush=True)
    print("| all | " + " | ".join(map(str, totals)) + " |")


if __name__ == "__main__":
    main()
