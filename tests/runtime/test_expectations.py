"""What an engine is told of calls that wait."""

from __future__ import annotations

import parrot_nb as P


def test_constant_beginnings_are_told_once_and_forgotten(make_session):
    with make_session(max_tokens=12) as session:
        first = P.SemanticFunction("Warm up {{input:x}}{{output:y}}", name="first")
        second = P.SemanticFunction("A long beginning, then {{input:x}}{{output:y}}", name="second")
        assert first("a").get(timeout=20)
        waits = P.variable("late")
        outputs = [second(waits) for _ in range(5)]
        session.flush()
        session.loads()  # the runtime has seen them
        made = session.engine
        (told,) = made.expected.values()
        assert told[0] == b"A long beginning, then "
        waits.set("now")
        P.gather(outputs).get(timeout=20)
        session.loads()
        assert made.expected == {}
        session.reset()
        assert made.num_cleared == 1
