"""A real IPython kernel, and what a cell printed, showed and raised."""

from __future__ import annotations

import os
import queue
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).parents[2]
WAIT_S = 60


@dataclass
class Output:
    """What came from one cell. `shown` are its displays and their updates, `displayed` the displays alone."""

    text: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    shown: list[dict[str, Any]] = field(default_factory=list)
    displayed: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    message: str = ""


class Notebook:
    """A kernel and a client; `run` is a cell."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), "IPYTHONDIR": str(folder)}
        self.manager = KernelManager()
        self.manager.kernel_cmd = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager.start_kernel(env=environment, cwd=str(folder))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=WAIT_S)

    def send(self, code: str) -> str:
        return self.client.execute(code)

    def collect(self, sent: str, *, until: str | None = None) -> Output:
        """What came from a cell up to its end, or up to its first display if `until` is "display"."""
        output, deadline = Output(), time.monotonic() + WAIT_S
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=deadline - time.monotonic())
            except queue.Empty:
                raise AssertionError(f"the cell did not end: {output}") from None
            if message["parent_header"].get("msg_id") != sent:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                output.text += content["text"]
            elif kind == "execute_result":
                output.result = content["data"]
            elif kind in ("display_data", "update_display_data"):
                output.shown.append(content["data"])
                output.displayed += [content["data"]] if kind == "display_data" else []
                if until == "display":
                    return output
            elif kind == "error":
                output.error, output.message = content["ename"], "\n".join(content["traceback"])
            elif kind == "status" and content["execution_state"] == "idle":
                return output

    def run(self, code: str) -> Output:
        return self.collect(self.send(code))

    def value(self, expression: str) -> str:
        """The text of an expression's value."""
        output = self.run(expression)
        assert output.error is None, output.message
        return output.result["text/plain"]

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def open_notebook(tmp_path_factory) -> Iterator[Callable[[], Notebook]]:
    """Opens another kernel, with the environment of that moment."""
    opened: list[Notebook] = []

    def open_one() -> Notebook:
        opened.append(Notebook(tmp_path_factory.mktemp("kernel")))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def notebook(tmp_path_factory) -> Iterator[Notebook]:
    opened = Notebook(tmp_path_factory.mktemp("kernel"))
    yield opened
    opened.close()
