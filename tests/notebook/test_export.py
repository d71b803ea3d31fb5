"""What `%parrot export` writes: a page, a script that runs and gives the same, a trace that plays."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from drawn_pictures import drawn

ROOT = Path(__file__).parents[2]
LONG = "It rained.\nThen it stopped, and \"all\" was \\quiet\\ again; nobody said a word of it to 'anyone' at all."

CELLS = [
    "%load_ext parrot_nb\nimport parrot_nb as P\nimport re as regex\nfrom textwrap import shorten\nLIMIT = 40",
    "%%semantic write(task, tone='dry') -> text --max-tokens 10 --ignore-eos\nWrite of {{task}}, {{input:tone}}:\n  {{text}}",
    "%%semantic check --max-tokens 6 --ignore-eos\nCheck {{input:text}} Note: {{output:note}} So: {{output:verdict, stop='\\n'}}",
    '@P.semantic_function(max_tokens=8, ignore_eos=True)\ndef name_it(text):\n    """Name it.\n\n    {{input:text}}\n    Name: {{output:title}}"""',
    "def helper(text):\n    return shorten(regex.sub('[aeiou]', '*', text), LIMIT)\n\n@P.native_function\ndef masked(text, *more, mark='!'):\n    # it has a comment\n    return helper(text) + ''.join(more) + mark",
    f"story = {LONG!r}\ndraft = write('rain')\nchecked = check(draft)\nhidden = masked(draft, checked.note, mark='?')",
    "drafts = write.map(['sun', 'snow', 'fog', story], tone='warm')\nall_of_them = check('All: ' + P.join(drafts) + '\\nend', )",
    "titles = name_it.map(drafts)\nbest = P.first(name_it('a b'), where=lambda t: len(t) > 0)",
    "same = write('rain')\nother = write.options(max_tokens=3)('rain', 'dry')\nwhole = P.join([hidden, best], ' / ')\nwhole.get()",
    "size = P.native_function(len)(drafts)\nsize.get(), P.gather(draft, checked, hidden, drafts, all_of_them, titles, same, other).get() and None",
]


@pytest.fixture(scope="module", autouse=True)
def ran(notebook):
    for cell in CELLS:
        output = notebook.run(cell)
        assert output.error is None, output.message
    return Path(notebook.value("__import__('os').getcwd()").strip("'"))


def run_script(path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    done = subprocess.run([sys.executable, str(path)], env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_script_runs_by_itself_and_says_what_the_notebook_says(notebook, ran):
    output = notebook.run("%parrot export app.py")
    assert output.error is None, output.message
    text = (ran / "app.py").read_text()
    printed = run_script(ran / "app.py")
    for name in ("hidden", "drafts", "titles", "best", "other", "whole", "size", "same"):
        value = notebook.run(f"print({name}.get())").text.rstrip("\n")
        assert f"{name}: {value}\n" in printed, f"{name}\n{printed}\n{text}"
    for shown in (
        "with P.Session():",
        "import re as regex",
        "from textwrap import shorten",
        "LIMIT = 40",
        "# it has a comment",
        "drafts = write.map(",
        "name_it.map(text=drafts)",
        "write.options(max_tokens=3)('rain', 'dry')",
        'TASK = """',
        "check('All: ' + P.join(drafts) + '\\nend')",
        "len_2(drafts)",
        "masked(draft, checked.note, mark='?')",
    ):
        assert shown in text, f"{shown}\n{text}"
    assert text.count("= write('rain', 'dry')") == 1, "a call that was made twice is made once"
    subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F,E9", ran / "app.py"], check=True)


def test_the_page_needs_nothing_else_and_holds_everything(notebook, ran):
    assert notebook.run("%parrot export report.html").error is None
    html = (ran / "report.html").read_text()
    assert "<script" not in html
    assert set(re.findall(r"(?:https?:)?//[a-z][^\"' )]*", html)) <= {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"(?:src|href)=", html)
    assert "prefers-color-scheme: dark" in html
    for shown in (
        "parrot-tiny",
        "Qwen3ForCausalLM",
        "torch",
        "Timeline",
        "Accounting",
        "write ×",
        "KV pages",
        "nobody said a word",
    ):
        assert shown in html, shown
    value = notebook.run("import html; print(html.escape(whole.get()))").text.strip()
    assert value in html


def test_the_trace_is_read_by_replay_in_a_kernel_without_a_session(notebook, ran):
    assert notebook.run("%parrot export trace.json").error is None
    trace = json.loads((ran / "trace.json").read_text())
    assert {"traceEvents", "parrot_nb"} <= trace.keys()
    output = notebook.run("P.replay('trace.json', speed=50)")
    assert output.error is None, output.message
    kinds = ["timeline" if "parrot-timeline" in s["text/html"] else "graph" for s in output.shown]
    assert {"graph", "timeline"} <= set(kinds)
    last = dict(zip(kinds, output.shown, strict=True))
    assert "name_it" in drawn(last["graph"]["text/html"])
    assert "write 2</text>" in drawn(last["timeline"]["text/html"])
    program = (
        "import sys, parrot_nb as P\nr = P.replay('trace.json', speed=1e9)\n"
        "print(sum(1 for _ in r) == len(r) > 50, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    done = subprocess.run([sys.executable, "-c", program], cwd=ran, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True False"


def test_parrot_sums_by_function(notebook):
    shown = notebook.value("%parrot")
    line = next(line for line in shown.splitlines() if line.startswith("write "))
    counts = notebook.value(
        "[(sum(u.prefilled_tokens for u in us), sum(u.reused_tokens for u in us), sum(u.decoded_tokens for u in us), sum(u.from_memo for u in us))"
        " for us in [[n.usage for n in P.current_session().variables() if n.producer is not None and n.producer.name == 'write']]]"
    )
    for number in re.findall(r"\d+", counts):
        assert re.search(rf"\b{int(number):,}\b", line) or number == "0", (line, counts)
    assert "computed" in shown
    assert re.search(r"^all\s+\d+", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("export", "takes one file"),
        ("export a.py b.py", "takes one file"),
        ("export report.txt", ".html for a report"),
        ("export report", ".html for a report"),
        ("export nowhere/at/all/report.html", "no folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_in_a_sentence(notebook, line, told):
    output = notebook.run(f"%parrot {line}")
    assert told in output.text + output.message
    assert len(output.message.splitlines()) <= 2


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (["%parrot reset", "%parrot export app.py"], "nothing to export"),
        (["%parrot reset", "P.native_function(len)({1, 2}).get()", "%parrot export app.py"], None),
        (["%parrot reset", "name = 3\n@P.native_function\ndef filter(t):\n    return t * name\n@P.native_function\ndef g(t):\n    return filter.function(t)\ng('a').get()", "%parrot export app.py"], "'filter', which 'g' uses"),
        (["%parrot reset", "P.native_function(len)(open('app.py')) and None", "%parrot export app.py"], "nothing|no call"),
        (["%parrot reset", "P.native_function(type)(object()).get() and None", "%parrot export app.py"], "which a script cannot hold"),
        (
            ["%parrot reset", "def outer(n):\n    return P.native_function(lambda t: t * n)\nouter(2)('a').get()", "%parrot export app.py"],
            "function around it",
        ),
        (
            ["%parrot reset", "held = object()\n@P.native_function\ndef uses():\n    return str(held)\nuses().get()", "%parrot export app.py"],
            "'held', which 'uses' uses",
        ),
        (
            ["%parrot reset", "import functools\n@P.native_function\n@functools.cache\ndef known(t):\n    return t\nknown('a').get()", "%parrot export app.py"],
            "decorator @functools.cache",
        ),
    ],
)  # fmt: skip
def test_what_a_script_cannot_hold_is_named(notebook, cells, told):
    for cell in cells:
        output = notebook.run(cell)
    if told is None:
        assert output.error is None
    else:
        assert re.search(told, output.message), output
