"""Streaming edges on the real engine: the same text, and the first token one step after the input's last."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

import parrot_nb as P
from parrot_nb.engine.embedded import load_engine
from parrot_nb.runtime import events
from parrot_nb.tiny import default_model

WAIT_S = 120
STAGES = 4


def pipeline(stop: str = "") -> list[P.SemanticVariable]:
    """Each stage reads all that the one before wrote."""
    options = {"max_tokens": 100, "ignore_eos": True, **({"stop": stop} if stop else {})}
    step = P.SemanticFunction(
        "Rewrite this text.\n{{input:text}}\nThe text:\n{{output:rewritten}}",
        name="step",
        options=P.language.Options.checked(**options),
    )
    texts = [step("Peter will print the long report by Friday.")]
    for _ in range(STAGES - 1):
        texts.append(step(texts[-1]))
    return texts


def run(off: tuple[str, ...], stop: str = "") -> tuple[list[str], list[int], list[events.Event], list[int]]:
    def load(model: str, on_step):
        engine = load_engine(default_model(), name=model, dtype="float32", device="cpu", on_step=on_step)
        engine.capabilities = replace(engine.capabilities, streams_fills=True)  # which a CPU gains nothing by
        return engine

    with P.Session(loader=load, off=("memo", *off)) as session:
        P.SemanticFunction("warm{{output:y, max_tokens=1}}")().get(timeout=WAIT_S)
        texts = pipeline(stop)
        values = P.gather(*texts).get(perf=P.LATENCY, timeout=WAIT_S)
        decoded = [text.usage.decoded_tokens for text in texts]
        return values, decoded, session.events.since(0), [text.node.id for text in texts]


@pytest.mark.parametrize("stop", ["", "ay"])
def test_the_text_is_the_same(stop):
    streamed, decoded, log, _ = run((), stop)
    alone, decoded_alone, log_alone, _ = run(("streaming",), stop)
    assert (streamed, decoded) == (alone, decoded_alone)
    began = [e.call_id for e in log if isinstance(e, events.CallChanged) and e.phase == "streaming"]
    assert len(set(began)) == STAGES - 1
    assert not [e for e in log_alone if isinstance(e, events.CallChanged) and e.phase == "streaming"]


def test_the_first_token_is_one_step_away():
    _, _, log, variables = run(())
    for source, reader in pairwise(variables):
        end = next(
            i
            for i, e in enumerate(log)
            if isinstance(e, events.VariableChanged) and e.variable_id == source and e.state == "done"
        )
        first = next(i for i, e in enumerate(log) if isinstance(e, events.TextAppended) and e.variable_id == reader)
        steps = [e.step for e in log[end:first] if isinstance(e, events.StepRan)]
        # The step that wrote the last token is told after what came of it.
        assert len(steps) <= 2
        assert steps[-1].prefill_tokens <= 64, "what was left of the text, and the end of the prompt"
