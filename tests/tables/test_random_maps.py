"""Maps under random hands: whatever is asked of them meanwhile, every row ends once, with its own value or error."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading

import pytest
from hash_engine import HashEngine
from shorthand import WAIT_S, f, text_of

import parrot_nb as P

ASKED = {
    "iterate": lambda rows, draw: [row.state for row in itertools.islice(rows, draw.randint(0, 40))],
    "cancel": lambda rows, draw: rows.cancel(),
    "look": lambda rows, draw: (rows.counts, rows.failed, rows.head(5), repr(rows)),
    "retry": lambda rows, draw: rows.retry(),
    "get": lambda rows, draw: rows.get(timeout=draw.choice([0, 0.01])),
    "threads": lambda rows, draw: beside_each_other(rows.to_dicts),
}


def beside_each_other(read) -> None:
    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def shout(text: str) -> str:
    if "FAIL" in text:
        raise ValueError(text)
    return text.upper()


@pytest.mark.parametrize("seed", range(24))
def test_every_row_ends_once(seed):
    draw = random.Random(seed)
    count = draw.choice([1, 3, 17, 100, 300])
    cells = [draw.choice([str(n), str(n), None, f"FAIL {n}"]) for n in range(count)]
    function, value = draw.choice(
        [(f("Say {{input:text}}: {{output:said}}"), lambda cell: text_of(f"Say {cell}: ")), (P.native_function(shout), str.upper)]
    )
    table = [{"text": cell} for cell in cells]
    with P.Session(model="hash", loader=lambda model, _: HashEngine(model), max_tokens=12):
        rows = function.map(draw.choice([list, iter])(table))
        for asked in draw.choices(list(ASKED), k=4):
            with contextlib.suppress(P.GetTimeoutError):
                ASKED[asked](rows, draw)
        rows.get(timeout=WAIT_S)
        given = rows.retry().get(timeout=WAIT_S)  # what was cancelled, and what fails again
        assert given == [None if cell is None or "FAIL" in cell else value(cell) for cell in cells]
        assert rows.counts == {state: n for state, n in (("done", count - given.count(None)), ("failed", given.count(None))) if n}
