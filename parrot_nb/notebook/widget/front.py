"""Whether somebody sits before this notebook, and how their clicks reach us while a cell runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

from parrot_nb.notebook.places import Place, place_of


class FrontEnd:
    """The page that a kernel's outputs go to.

    A kernel's messages from the page wait while a cell runs, unless they go to a subshell, a thread of its own: ours
    takes those of the graphs, so that one can cancel what a cell waits for.

    Args:
        kernel: of the shell; None outside Jupyter.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._subshell: str | None = None
        self._asked = False

    @property
    def has_person(self) -> bool:
        """Whether the cell that runs came from a client that a person uses: one that can be asked for input.

        Tools that execute notebooks cannot, and they would write the state of every widget, with ids that differ from run
        to run, into the file.
        """
        if self._kernel is None:
            return False
        request = self._kernel.get_parent("shell") or {}
        return bool(request.get("content", {}).get("allow_stdin"))

    @property
    def place(self) -> Place:
        """Place of an output that this thread makes now."""
        return place_of(self._kernel)

    @property
    def in_terminal(self) -> bool:
        """Whether outputs are lines between prompts."""
        return self._kernel is None

    def warm_up(self) -> None:
        """Import what the first graph needs, in a thread, and make the subshell (main thread)."""
        if self._kernel is None:
            return
        threading.Thread(target=_warm, name="parrot-warm-up", daemon=True).start()
        self._open_subshell()

    def route(self, comm: Any) -> None:
        """Let the messages of a comm come while a cell runs. Where the kernel knows no such way they come after it; its
        interrupt button works always."""
        self._open_subshell()
        if self._asked and hasattr(comm, "_reply_subshell_for"):
            comm._reply_subshell_for = lambda _data, default: self._subshell or default  # noqa: SLF001 - guarded

    def _open_subshell(self) -> None:
        channel = getattr(self._kernel, "shell_channel_thread", None)
        create = getattr(getattr(channel, "manager", None), "_create_subshell", None)
        loop = getattr(channel, "io_loop", None)
        if self._asked or create is None or loop is None:
            return
        self._asked = True

        def open_now() -> None:
            self._subshell = create()

        loop.add_callback(open_now)


@cache
def module_text() -> str:
    """The ES module that draws graphs, as `make widget` builds it."""
    return resources.files(__package__).joinpath("static", "graph.js").read_text(encoding="utf-8")


@cache
def widget_class() -> type[Any]:
    """The widget; made late, since what it stands on takes a while to import."""
    import anywidget
    import traitlets

    class GraphWidget(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
        """A graph in the page's memory. `graph` is its structure, `live` the rows at the time it was made, `mark` what the
        still picture carries."""

        _esm = module_text()
        graph = traitlets.Dict().tag(sync=True)
        live = traitlets.Dict().tag(sync=True)
        mark = traitlets.Unicode().tag(sync=True)

    return GraphWidget


def make_widget(mark: str, graph: dict[str, Any], live: dict[str, Any], on_message: Callable[[dict[str, Any]], None]) -> Any:
    """A new widget; `on_message` hears what the page says, on the subshell's thread."""
    widget = widget_class()(mark=mark, graph=graph, live=live)
    widget.on_msg(lambda _widget, content, _buffers: on_message(content))
    return widget


def _warm() -> None:
    widget_class()
