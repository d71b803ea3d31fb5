"""What a model is told of refused attempts in a chat: the tokens that the engine holds when it writes again."""

from __future__ import annotations

import pytest

import parrot_nb as P
from parrot_nb.engine.embedded import EmbeddedEngine


@pytest.fixture
def prompts(monkeypatch):
    """Texts of all contexts on which something is generated."""
    told: list[str] = []
    generate = EmbeddedEngine.generate

    def recorded(engine, context, sampling, **how):
        told.append(engine.codec.decode([*engine._contexts[context].tokens, *how.get("taken_back", ())]))
        return generate(engine, context, sampling, **how)

    monkeypatch.setattr(EmbeddedEngine, "generate", recorded)
    return told


def refusing_once():
    seen = []

    def check(value: str) -> bool:
        seen.append(value)
        return len(seen) > 1

    return check, seen


@pytest.mark.parametrize(
    "source", ["So, {{input:x}}?{{output:y}}", "So, {{retry}}not {{attempt}} ({{error}}), {{/retry}}what?{{output:y}}"]
)
def test_it_stands_in_the_turn_of_the_user(prompts, source):
    check, seen = refusing_once()
    with P.Session(isolate=False, max_tokens=6) as session:
        ask = P.SemanticFunction(source).options(check=check, retries=1, feedback=True, chat=True)
        value = ask(*["who"] * len(ask.signature.parameters)).get()
        reused = session.calls()[-1].outputs[0].usage.reused_tokens
    first, second = prompts
    assert seen[1] == value
    where, what = (
        ("?", "\n\nAn earlier answer of yours was:\n{}\nThis will not do: the check 'check' said no. Answer again.")
        if "{{input" in source
        else ("So, ", "not {} (the check 'check' said no), ")
    )
    head, _, tail = first.partition(where)
    assert second == f"{head}{where}{what.format(seen[0])}{tail}"
    assert reused > 0, "the beginning of the prompt is not computed again"


def test_an_output_that_begins_with_a_text_begins_with_it_again(prompts):
    check, seen = refusing_once()
    with P.Session(isolate=False, max_tokens=6):
        P.SemanticFunction("So?{{output:y, begin='Well, '}}").options(check=check, retries=1, feedback=True, chat=True)().get()
    assert all(text.startswith("Well, ") for text in seen)
    assert all(text.rstrip().endswith("Well,") for text in prompts)
    assert seen[0] in prompts[1]


def test_a_block_among_control_tokens_stands_where_its_author_put_it(prompts):
    check, seen = refusing_once()
    source = "Be kind.{{retry}}Not {{attempt}}! {{/retry}} So<|turn_end|>what<|turn_end|>is it?{{output:y}}"
    with P.Session(isolate=False, max_tokens=6):
        P.SemanticFunction(source).options(check=check, retries=1, feedback=True, chat=False)().get()
    first, second = prompts
    assert first.count("<|turn_end|>") == 2
    assert second == first.replace("Be kind.", f"Be kind.Not {seen[0]}! ")
