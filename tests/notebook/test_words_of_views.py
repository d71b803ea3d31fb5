"""Every attack of `tests/attacks/payloads.txt` through what tables, scores, plans, prompts and thoughts show, in a real kernel: their
HTML does nothing, their text says nothing that a terminal obeys, and there is no other format that a page might choose.

JupyterLab, Notebook 7, nbconvert and VS Code choose by MIME type, and trust HTML to different degrees: VS Code runs the scripts in
that of a trusted workspace.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "attacks"))

from page_audit import audit, payloads

PAYLOADS = payloads()
MARK = re.compile(r' data-parrot-view="[0-9a-f]{32}"')  # by which the page finds its own view
WIDGET = "application/vnd.jupyter.widget-view+json"
GIVEN_OUT = {"text/html", "text/plain", WIDGET}

LOAD = """%load_ext parrot_nb
import json, typing, parrot_nb as P
payloads = json.load(open('payloads.json'))

def fails(text):
    raise ValueError(text)"""

SHOWN = {
    "a map over a table": """for i in range(0, len(payloads), 10):
    rows = P.native_function(lambda x, y: x, name=payloads[i]).map([{'x': p, 'y': [p]} for p in payloads[i:i + 10]])
    rows.get()
    display(rows)""",
    "a map whose rows fail": """for i in range(0, len(payloads), 10):
    rows = P.native_function(lambda x: fails(x), name=payloads[i]).map([{'x': p} for p in payloads[i:i + 10]], on_error='keep')
    rows.get()
    display(rows)""",
    "an evaluation": """for p in payloads[::3]:
    table = [{'x': p, 'said': p}, {'x': 'other', 'said': p}]
    display(P.evaluate(P.native_function(lambda x: x, name=p), table, 'said'))""",
    "a comparison": """for p in payloads[::3]:
    same = P.native_function(lambda x: x, name=p)
    display(P.compare({p: same, 'other ' + p: same}, [{'x': p, 'said': p}], 'said'))""",
    "a plan": """for i in range(0, len(payloads), 20):
    calls = [P.SemanticFunction('Say {{input:x}} {{output:y}}', name=p)(p * 200) for p in payloads[i:i + 20]]
    display(P.plan(calls))
    for call in calls: call.cancel()""",
    "a prompt": """for p in payloads:
    try:
        display(P.SemanticFunction(p + ' {{input:x}} {{output:y}} ' + p, name=p))
    except P.TemplateError:  # some look like placeholders
        display(P.SemanticFunction(p.replace('{{', '{ {') + ' {{output:y}}', name=p))""",
    "a thought": """for p in payloads:
    late = P.variable(name=p)
    late.node.begin()
    late.node.think(p)
    late.set(p)
    display(late)
    display(late.markdown)""",
    "scored choices": """for i in range(0, len(payloads), 15):
    kind = typing.Literal[tuple(payloads[i:i + 15])]
    chosen = P.SemanticFunction('Say {{output:y: kind, score=True}}', name=payloads[i], namespace={'kind': kind})()
    chosen.get()
    display(chosen)""",
}


@pytest.fixture(scope="module", autouse=True)
def loaded(notebook):
    folder = Path(json.loads(notebook.value("__import__('json').dumps(__import__('os').getcwd())").strip("'")))
    (folder / "payloads.json").write_text(json.dumps(PAYLOADS), encoding="utf-8")
    output = notebook.run(LOAD)
    assert output.error is None, output.message


@pytest.mark.slow
@pytest.mark.parametrize("view", SHOWN)
def test_no_word_acts_in_what_a_view_gives_out(notebook, view):
    output = notebook.run(SHOWN[view])
    assert output.error is None, output.message
    bundles = output.shown
    assert len(bundles) >= len(PAYLOADS) // 20
    assert any("__pwned" in bundle["text/html"] for bundle in bundles), "the words are there"
    for bundle in bundles:
        assert {"text/html", "text/plain"} <= set(bundle) <= GIVEN_OUT
        assert not audit(MARK.sub("", bundle["text/html"])), bundle["text/plain"][:200]
        assert not re.search(r"[\x00-\x08\x0b-\x1f]", bundle["text/plain"])
