"""`%parrot bench` in a real kernel: it says how far it is, and ends when it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

ENDLESS = "%parrot bench single --model default --dtype float32 --device cpu --repeat 10000 --shared 20 --out 3"
MARK = f"PARROT_TEST_{uuid4().hex}"  # in the environment of the kernel and of all that it starts
WAIT_S = 60
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at processes in /proc")


@pytest.fixture(autouse=True, scope="module")
def loaded(notebook):
    assert notebook.run(f"%load_ext parrot_nb\n%env {MARK}=1").error is None


def benchmarks() -> list[str]:
    """The processes of benchmarks that the kernel has started, directly or not."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if f"{MARK}=1".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:  # no process, or one that has ended
            continue
    return [command for command in found if "parrot_nb.bench" in command]


def begun(notebook) -> tuple[str, str | None]:
    """An endless benchmark that has started a system: the cell's id, and the comm of its button."""
    sent, button = notebook.send(ENDLESS), None
    while True:
        message: dict[str, Any] = notebook.client.get_iopub_msg(timeout=WAIT_S)
        content = message["content"]
        if message["msg_type"] == "comm_open" and content["data"]["state"].get("description") == "Cancel":
            button = content["comm_id"]
        if "starting parrot" in content.get("data", {}).get("text/plain", ""):
            return sent, button


@needs_proc
def test_an_interrupt_ends_it_and_all_its_processes(notebook):
    sent, _ = begun(notebook)
    assert len(benchmarks()) >= 2, "its own and that of a system"
    notebook.manager.interrupt_kernel()
    output = notebook.collect(sent)
    assert output.error == "BenchInterrupted"
    assert output.message.startswith("Interrupted: %parrot bench has ended")
    assert output.shown[-1]["text/plain"] == "single: cancelled"
    assert benchmarks() == []


@needs_proc
def test_its_button_ends_it_while_the_cell_waits(notebook):
    sent, button = begun(notebook)
    client = notebook.client
    asked = client.session.msg("list_subshell_request")
    client.control_channel.send(asked)
    (subshell,) = client.get_control_msg(timeout=WAIT_S)["content"]["subshell_id"]
    click = client.session.msg("comm_msg", {"comm_id": button, "data": {"method": "custom", "content": {"event": "click"}}})
    click["header"]["subshell_id"] = subshell  # where the front end sends it: whence the widget's last message came
    client.shell_channel.send(click)
    output = notebook.collect(sent)
    assert output.error is None, output.message
    assert not output.result
    assert [shown["text/plain"] for shown in output.shown[-2:]] in (["", "single: cancelled"], ["single: cancelled", ""])
    assert benchmarks() == []
    assert notebook.value("1 + 1") == "2"


def test_a_mistake_is_told_in_one_sentence(notebook):
    output = notebook.run("%parrot bench nothing")
    assert "There is no workload 'nothing'" in output.text + output.message
    assert output.shown[-1]["text/plain"] in ("", "nothing: not measured")
