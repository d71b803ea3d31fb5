"""Whether somebody sits before this notebook, and how their clicks reach us while a cell runs."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any, Protocol

from parrot_nb.notebook.places import Place, place_of

# A page never forgets a module that it imported, so graphs share one: each of their own is a few lines that wait for it.
SHARED = """function shared(key) {
  const made = {};
  made.promise = new Promise((resolve) => { made.resolve = resolve; });
  return globalThis[Symbol.for(key)] ??= made;
}
"""
HOLDS = (
    SHARED
    + """export default { initialize({ model }) {
  const url = URL.createObjectURL(new Blob([model.get("code")], { type: "text/javascript" }));
  shared(model.get("key")).resolve(import(url).finally(() => URL.revokeObjectURL(url)));
} };"""
)
DRAWS = (
    SHARED
    + """export default { async initialize(given) {
  return (await shared(given.model.get("key")).promise).default.initialize(given);
} };"""
)


class Shown(Protocol):
    """A view whose widget the page keeps until it is told otherwise."""

    def gone(self) -> None:
        """The output that held it was cleared."""


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
        self._in_cells: dict[str, weakref.WeakSet[Shown]] = {}

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
    def cell(self) -> str | None:
        """The page's own name of the cell that runs, where it has one."""
        if self._kernel is None:
            return None
        named = (self._kernel.get_parent("shell") or {}).get("metadata", {}).get("cellId")
        return named if isinstance(named, str) else None

    def shows(self, cell: str | None, view: Shown) -> None:
        """Note that a cell of the page holds a widget of this view."""
        if cell is not None:
            self._in_cells.setdefault(cell, weakref.WeakSet()).add(view)

    def begins(self, cell: str | None) -> None:
        """A cell of the page runs anew: what it showed is cleared, and a widget whose picture was out of sight never hears of it."""
        if cell is not None:
            for view in self._in_cells.pop(cell, ()):
                view.gone()

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
def module_text(name: str) -> str:
    """An ES module as `make widget` builds it: "graph" or "table"."""
    return resources.files(__package__).joinpath("static", f"{name}.js").read_text(encoding="utf-8")


@cache
def widget_class() -> type[Any]:
    """The widget; made late, since what it stands on takes a while to import."""
    import anywidget
    import traitlets

    class DrawnWidget(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
        """A graph or a table in the page's memory. `key` names the module that draws it, `graph` is its structure, `live` the rows
        at the time it was made, `mark` what the still picture carries."""

        _esm = DRAWS
        key = traitlets.Unicode().tag(sync=True)
        graph = traitlets.Dict().tag(sync=True)
        live = traitlets.Dict().tag(sync=True)
        mark = traitlets.Unicode().tag(sync=True)

    return DrawnWidget


@cache
def holder_class() -> type[Any]:
    """The widget that gives the page a module."""
    import anywidget
    import traitlets

    class ModuleWidget(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
        """A module's text, and the name by which what it draws waits for it."""

        _esm = HOLDS
        key = traitlets.Unicode().tag(sync=True)
        code = traitlets.Unicode().tag(sync=True)

    return ModuleWidget


_holders: dict[str, Any] = {}  # by module, for the kernel's life, so that a page that is opened later gets it with what it draws


@cache
def module_key(name: str) -> str:
    """Name of a module in the page; another version's is another."""
    return f"parrot_nb {hashlib.sha256(module_text(name).encode()).hexdigest()[:16]}"


def hold_module(name: str) -> None:
    """Give the page a module, unless it has it."""
    if name not in _holders or _holders[name].comm is None:  # closed, as by `Widget.close_all()`
        _holders[name] = holder_class()(key=module_key(name), code=module_text(name))


def make_widget(
    name: str, mark: str, graph: dict[str, Any], live: dict[str, Any], on_message: Callable[[dict[str, Any]], None]
) -> Any:
    """A new widget that a module draws; `on_message` hears what the page says, on the subshell's thread."""
    hold_module(name)
    widget = widget_class()(key=module_key(name), mark=mark, graph=graph, live=live)
    widget.on_msg(lambda _widget, content, _buffers: on_message(content))
    return widget


def close_widget(widget: Any) -> None:
    """Take a widget off the page, and the models of its own that ipywidgets made beside it and leaves there."""
    for part in ("style", "layout"):
        if (own := getattr(widget, part, None)) is not None:
            own.close()
    widget.close()


def _warm() -> None:
    widget_class()
