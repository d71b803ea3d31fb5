"""`%parrot timeline` in a real kernel."""

from __future__ import annotations

import re

from drawn_pictures import drawn, pictures

WRITE = "%%semantic write(x) -> y --max-tokens 60 --ignore-eos\nWrite {{input:x}}: {{output:y}}"


def test_the_timeline_shows_what_ran_and_is_there_again_after_a_reset(notebook):
    assert notebook.run("%load_ext parrot_nb\nimport parrot_nb as P").error is None
    notebook.run(WRITE)
    assert "No call" in notebook.run("%parrot timeline").shown[0]["text/html"]
    notebook.run("whole = write(P.join(write.map(['a', 'b'])))\nwhole.get()")
    shown = notebook.run("%parrot timeline").shown[-1]
    assert len(pictures(shown["text/html"])) == 1
    assert "critical path" in shown["text/html"]
    assert re.search(r"write\s+3\s", shown["text/plain"]), shown["text/plain"]
    notebook.run("%parrot reset")
    assert "No call" in notebook.run("%parrot timeline").shown[-1]["text/plain"]


def test_it_grows_while_calls_run(notebook):
    output = notebook.run("later = write('later')\n%parrot timeline\nlater.get()")
    timelines = [drawn(shown["text/html"]) for shown in output.shown if "parrot-timeline" in shown["text/html"]]
    assert "60 tok" not in timelines[0]
    assert "60 tok" in timelines[-1]


def test_arguments_are_refused(notebook):
    output = notebook.run("%parrot timeline tomorrow")
    assert "takes no arguments" in output.text + output.message
