"""Cases are what `%%semantic` would make of them, and their answers are right by rules written a second time."""

from __future__ import annotations

import json
import re

import pytest

import parrot_nb as P
from parrot_nb.tiny import default_model, meetings, messages, programs
from parrot_nb.tiny.cases import ANSWER, NUM_SIZES, Case
from parrot_nb.tiny.meetings import NOTHING
from parrot_nb.tiny.tasks import EXERCISES, TASKS
from parrot_nb.tiny.tokens import NO_TARGET, Encoder
from parrot_nb.tiny.words import Draw

ALL = (*TASKS.values(), *EXERCISES.values())
AGREED = re.compile(
    r"^(?:(?P<speaker>\w+): )?"
    r"(?:(?:Fine, )?I (?:will|can|promise to)|(?:We need )?(?P<owner>\w+)(?:,? (?:will|please|has to|agreed to|to))) "
    r"(?P<what>\w+ the \w+ \w+) by (?P<when>\w+(?: \w+)?)\.$",
    re.MULTILINE,
)


def cases(task: str, count: int = 120, *, held_out: bool = False) -> list[Case]:
    draw = Draw(f"test {task}", held_out=held_out)
    return [TASKS[task](draw, i % NUM_SIZES) for i in range(count)]


def agreed(text: str) -> list[tuple[str, str, str]]:
    """Who does what by when, read from a transcript by a rule."""
    return [(m["owner"] or m["speaker"], m["what"], m["when"]) for m in AGREED.finditer(text)]


def lines(items: list[tuple[str, str, str]]) -> str:
    return "\n".join(f"- {who}: {what} by {when}" for who, what, when in items) or NOTHING


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_makes_the_same_cases(task):
    assert cases(task, 20) == cases(task, 20)
    assert cases(task, 20) != cases(task, 20, held_out=True)


@pytest.mark.parametrize("task", TASKS)
def test_every_phrasing_is_used_and_none_repeats_another(task):
    made = {case.template for case in cases(task, 900)}
    module = next(m for m in (meetings, messages, programs) if hasattr(m, task))
    families = [name for name in vars(module) if name == task.upper() or name.startswith(f"{task.upper()}_")]
    phrasings = [template for name in families for template in getattr(module, name)]
    assert len(set(phrasings)) == len(phrasings) >= 3
    assert made == set(phrasings)


def test_summaries():
    for case in cases("summarize"):
        assert case.answers["items"] == lines(agreed(case.inputs["part"]))


def test_combined():
    for case in cases("combine"):
        kept = [line for line in case.inputs["parts"].split("\n") if line != NOTHING]
        assert case.answers["items"] == ("\n".join(kept) or NOTHING)


def test_refined():
    for case in cases("refine"):
        old = [] if case.inputs["items"] == NOTHING else [case.inputs["items"]]
        new = agreed(case.inputs["part"])
        assert case.answers["more"] == "\n".join(old + ([lines(new)] if new else [])) or (not old and not new)


@pytest.mark.parametrize("make", [meetings.ask, meetings.quiz])
def test_answers_to_questions(make):
    draw = Draw("questions")
    for i in range(300):
        case = make(draw, i % NUM_SIZES)
        items = agreed(case.inputs["text"])
        for name, question in case.inputs.items():
            if name == "text":
                continue
            answer = case.answers[name.replace("question", "answer")]
            if question.startswith("Who"):
                possible = {who for who, what, _ in items if what in question}
            elif question.startswith("What"):
                possible = {what for who, what, _ in items if f" {who} " in question}
            elif question.startswith("When"):
                possible = {when for _, what, when in items if what.split(" ", 1)[1] in question}
            else:
                possible = {when for who, what, when in items if f"{who} {what}" in question}
            assert possible == {answer}, case


def test_json():
    for case in cases("extract"):
        assert [tuple(json.loads(case.answers["json"]).values())] == agreed(case.inputs["text"])


def test_a_not_turns_a_sentiment():
    praise, blame = "|".join(messages._PRAISE), "|".join(messages._BLAME)
    seen = set()
    for case in cases("sentiment", 400):
        said = re.search(rf"is (not )?(?:({praise})|({blame}))\.", case.inputs["message"])
        if said is None:
            assert case.answers["word"] == "neutral"
        else:
            assert case.answers["word"] == ("positive" if bool(said[2]) != bool(said[1]) else "negative")
        seen.add((case.answers["word"], bool(said and said[1])))
    assert len(seen) == 5


def test_urgency_follows_the_cue():
    for case in cases("urgency", 300):
        message = case.inputs["message"]
        found = {
            word
            for word, cues in messages._URGENCY_CUES.items()
            for cue in cues
            if re.search(re.escape(cue).replace(r"\{day\}", r"\w+").replace(r"\{object\}", r"\w+ \w+"), message)
        }
        assert found == {case.answers["word"]}


def test_translations_agree_in_gender():
    feminine = {spanish for spanish, gender in messages._NOUNS.values() if gender == messages._FEMININE}
    for case in cases("translate"):
        assert len(case.answers["spanish"].split(" y ")) == len(case.inputs["sentence"].split(" and "))
        for clause in case.answers["spanish"].rstrip(".").split(" y "):
            article, noun, adjective = re.search(r" (el|la|un|una) (\w+) (\w+)", clause).groups()
            assert (noun in feminine) == (article in {"la", "una"})
            assert not (adjective.endswith("o") and noun in feminine)
            assert not (adjective.endswith("a") and noun not in feminine)


@pytest.mark.parametrize("task", ["write_code", "write_test", "revise"])
def test_right_code_runs_and_wrong_code_does_not(task):
    for case in cases(task):
        right = next(iter(case.answers.values()))
        exec(case.program.replace(ANSWER, right), {})
        wrong = right.replace("return ", "return None and ") if "return" in right else right.replace("==", "!=", 1)
        with pytest.raises((AssertionError, NameError, TypeError)):
            exec(case.program.replace(ANSWER, wrong), {})


def test_reviews_name_the_flaw():
    accepted = 0
    for case in cases("review", 300):
        review, task, code = case.answers["review"], case.inputs["task"], case.inputs["code"]
        if review == programs.ACCEPT:
            accepted += 1
            name = re.search(r"def (\w+)", code)[1]
            assert f"function {name} " in task
        elif named := re.search(r"The (name|argument|number|word) should be (\w+), not (\w+)\.", review):
            assert re.search(rf"\b{named[2]}\b", task)
            assert re.search(rf"\b{named[3]}\b", code)
            assert named[2] != named[3]
        else:
            should, does = re.fullmatch(r"It should (.+), not (.+)\.", review).groups()
            assert should != does
    assert 60 < accepted < 150


def test_the_reviewed_becomes_right():
    for case in cases("revise"):
        same = case.inputs["code"] == case.answers["revised"]
        assert same == (case.inputs["review"] == programs.ACCEPT)


def test_sums_are_right():
    draw = Draw("sums")
    for _ in range(100):
        case = programs.sums(draw, 0)
        for test in case.answers.values():
            exec(f"{case.inputs['code']}\n{test}", {})


def test_checklists_say_what_differs():
    draw, seen = Draw("checklists"), set()
    for _ in range(300):
        case = programs.checklist(draw, 0)
        name, argument, body = re.fullmatch(r"def (\w+)\((\w+)\):\n    return (.+)", case.inputs["code"]).groups()
        task = case.inputs["task"]
        assert case.answers["name"] == ("yes" if f" {name} " in task else "no")
        assert case.answers["argument"] == ("yes" if re.search(rf"\b{argument}\b", task.split(" that ")[1]) else "no")
        numbers = re.findall(r"\d", task.split(" that ")[1]), re.findall(r"\d", body)
        if numbers[0] and numbers[1]:
            assert case.answers["constant"] == ("yes" if numbers[0] == numbers[1] else "no")
        seen |= set(case.answers.items())
    assert len(seen) == 8


# As token ids


@pytest.fixture(scope="module")
def encoder():
    from tokenizers import Tokenizer

    return Encoder(Tokenizer.from_file(str(default_model() / "tokenizer.json")))


@pytest.fixture(scope="module")
def session():
    with P.Session(device="cpu", dtype="float32") as opened:
        yield opened


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_ids_are_those_of_a_session(session, encoder, task, chat):
    for case in cases(task, 12):
        function = P.SemanticFunction(case.template, name=task).options(chat=chat, heal=False)
        inputs = {name: text for name, text in case.inputs.items() if f"{{{{input:{name}}}}}" in case.template}
        with session:
            rendered = function.render(**inputs)
        theirs = []
        for segment in rendered:
            if segment.kind == "output":
                break
            theirs += segment.token_ids
        assert encoder.prompt(case, chat=chat) == theirs


@pytest.mark.parametrize("chat", [True, False])
def test_targets_are_the_answers_and_their_ends(encoder, chat):
    draw = Draw("targets")
    for make in ALL:
        case = make(draw, 1)
        encoded = encoder.encode(case, chat=chat, system="Be brief." if chat else None)
        assert len(encoded.ids) == len(encoded.targets)
        wanted = [target for target in encoded.targets if target != NO_TARGET]
        end = encoder.turn_end_id if chat else encoder.end_id
        tokens, answers = [], []
        for target in wanted:
            if target == end:
                answers.append(encoder._tokenizer.decode(tokens))
                tokens = []
            else:
                tokens.append(target)
        assert not tokens
        assert answers == [turn.answer for turn in case.turns()]
        for position, target in enumerate(encoded.targets[:-1]):
            if target not in {NO_TARGET, end}:
                assert encoded.ids[position + 1] == target
