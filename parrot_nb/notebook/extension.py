"""The IPython extension: all that `%load_ext parrot_nb` puts into a notebook, and `%unload_ext` takes out again."""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import Callable
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from traitlets import Bool, Enum, Int, Unicode
from traitlets.config import Configurable

from parrot_nb.language import MarkdownView, SemanticFunction, SemanticVariable, VariableList
from parrot_nb.notebook.completion import make_matcher
from parrot_nb.notebook.errors import ErrorHandler
from parrot_nb.notebook.executions import SHOWS, Execution, Executions
from parrot_nb.notebook.kernel import require_kernel
from parrot_nb.notebook.live import LiveViews
from parrot_nb.notebook.magics import ParrotMagics
from parrot_nb.notebook.prompts import prompt_html, prompt_text
from parrot_nb.notebook.reloading import start_updating
from parrot_nb.notebook.replays import show_replay
from parrot_nb.notebook.showing import show_of, without_show_line
from parrot_nb.notebook.table_views import TableViews
from parrot_nb.notebook.waiting import wait_in_cell
from parrot_nb.notebook.widget import FrontEnd
from parrot_nb.record import Replay
from parrot_nb.session import Session, default_session_or_none, sessions, spare

PROMPT_FORMATS: dict[str, Callable[..., Any]] = {
    "text/html": prompt_html,
    "text/plain": lambda function, printer, _cycle: printer.text(prompt_text(function)),
}


class Parrot(Configurable):
    """`%config Parrot`."""

    eager = Bool(default_value=True, help="Run calls that nobody has read when their cell ends.").tag(config=True)
    model = Unicode(help="Hub id, folder or .gguf file of the model of a new session; empty is parrot-tiny.").tag(config=True)
    device = Unicode(help="Device of a new session's model, such as 'cpu' or 'cuda:1'; empty is a GPU if there is one.").tag(
        config=True
    )
    max_tokens = Int(0, help="Longest output of a new session in tokens; 0 is 256.").tag(config=True)
    show = Enum(
        SHOWS,
        default_value="auto",
        help="What a cell shows of its calls: 'graph', one 'line' that opens to it, 'off', or 'auto' for a graph where something ran.",
    ).tag(config=True)


class Extension:
    """Everything that one shell holds of us.

    Args:
        ip: the shell.
    """

    def __init__(self, ip: Any) -> None:
        self.ip = ip
        self.config = Parrot(parent=ip)
        self._views: dict[Session, LiveViews] = {}  # of open sessions
        self.executions = Executions()
        self._front = FrontEnd(getattr(ip, "kernel", None))
        self._matcher = make_matcher(ip)
        self._errors = ErrorHandler(ip)
        self._tables = TableViews(self.views, self.executions, self._front)

    def load(self) -> None:
        """Register everything."""
        ip = self.ip
        ip.register_magics(ParrotMagics(ip, self.views, self._front))
        for event, callback in self._events:
            ip.events.register(event, callback)
        self._errors.install()
        self._stop_updating = start_updating(lambda: [call for session in self._views for call in session.calls()])
        formatter = ip.display_formatter.ipython_display_formatter
        formatter.for_type(SemanticVariable, lambda variable: self._show([variable]))
        formatter.for_type(VariableList, lambda variables: self._show(list(variables)))
        for kind in (tuple, list):
            formatter.for_type(kind, self._show_several)
        formatter.for_type(MarkdownView, lambda view: self._show([view.variable], markdown=True))
        self._tables.install(formatter)
        formatter.for_type(Replay, lambda replay: show_replay(replay, self._front))
        for mime, shown in PROMPT_FORMATS.items():
            ip.display_formatter.formatters[mime].for_type(SemanticFunction, shown)
        ip.input_transformers_cleanup.insert(0, without_show_line)
        if self._matcher is not None:
            ip.Completer.custom_matchers.append(self._matcher)
        ip.configurables.append(self.config)
        self.config.observe(self._apply_config, "eager")
        self.config.observe(self._choose_settings, ["model", "device", "max_tokens"])
        self._choose_settings()
        sessions.on_default_session = self._adopt
        if (session := default_session_or_none()) is not None:
            self._adopt(session)
        if _runs_cell(ip):  # it has begun already
            self.executions.begin(Execution(None, ip.execution_count, self.config.show, self._front.cell))
        self._front.warm_up()

    def unload(self) -> None:
        """Take everything back, and close the default session."""
        ip = self.ip
        for event, callback in self._events:
            ip.events.unregister(event, callback)
        self._errors.remove()
        self._stop_updating()
        ip.magics_manager.magics["cell"].pop("semantic", None)
        ip.magics_manager.magics["cell"].pop("parrot", None)
        ip.magics_manager.magics["line"].pop("parrot", None)
        ip.magics_manager.registry.pop("ParrotMagics", None)
        for kind in (SemanticVariable, VariableList, tuple, list, MarkdownView, Replay):
            ip.display_formatter.ipython_display_formatter.pop(kind, None)
        self._tables.remove(ip.display_formatter.ipython_display_formatter)
        for mime in PROMPT_FORMATS:
            ip.display_formatter.formatters[mime].pop(SemanticFunction, None)
        ip.input_transformers_cleanup.remove(without_show_line)
        if self._matcher is not None:
            ip.Completer.custom_matchers.remove(self._matcher)
        ip.configurables.remove(self.config)
        sessions.on_default_session = None
        sessions.default_settings.clear()
        if (default := default_session_or_none()) is not None:
            default.close()
        spare.dismiss()
        for session in list(self._views):
            self._close_views(session)

    def views(self, session: Session) -> LiveViews:
        """The live views of a session, made at first need and closed with it."""
        if session not in self._views:
            self._views[session] = LiveViews(session, self.executions, self._front)
            session.when_closed(lambda: self._close_views(session))
        return self._views[session]

    def _close_views(self, session: Session) -> None:
        if (views := self._views.pop(session, None)) is not None:
            views.close()
            session.observer = None

    def _adopt(self, session: Session) -> None:
        """A default session was made: it belongs to this notebook."""
        session.observer = self.views(session)
        session.waiter = wait_in_cell
        session.eager = self.config.eager
        session.cell = self.executions.number

    def _apply_config(self, change: Any) -> None:
        if (session := default_session_or_none()) is not None:
            session.eager = change["new"]

    def _choose_settings(self, _change: Any = None) -> None:
        """Note what the next default session shall be made with; what is empty is left to it."""
        said = {name: getattr(self.config, name) for name in ("model", "device", "max_tokens")}
        sessions.default_settings.clear()
        sessions.default_settings.update({name: value for name, value in said.items() if value})

    @property
    def _events(self) -> list[tuple[str, Callable[..., None]]]:
        return [("pre_run_cell", self._begin_cell), ("post_run_cell", self._end_cell), ("post_execute", self._end_callback)]

    def _begin_cell(self, info: Any = None) -> None:
        show = show_of(getattr(info, "raw_cell", ""), self.config.show)
        if self.executions.here() is None:  # a cell that is run by another shows its outputs there
            self._front.begins(self._front.cell)
        self.executions.begin(Execution(info, self.ip.execution_count, show, self._front.cell))

    def _end_cell(self, result: Any = None) -> None:
        execution = self.executions.here()
        if execution is None or not execution.is_of(getattr(result, "info", None)):
            return
        try:
            self._finish(execution, result)
        finally:  # whatever interrupts that: the cell is over
            self.executions.end(execution)

    def _finish(self, execution: Execution, result: Any) -> None:
        """Send on what a cell called, and show what it has to show."""
        if (session := default_session_or_none()) is None:
            return
        stopped = session.take_interrupted()
        if stopped and isinstance(getattr(result, "error_in_exec", None), (KeyboardInterrupt, asyncio.CancelledError)):
            session.cancel_reading(stopped)
        session.flush()
        self.views(session).end_cell(execution)

    def _end_callback(self) -> None:
        """A cell or a callback of the page ends; the first of these sends on its calls itself."""
        session = default_session_or_none()
        if session is not None and self.executions.here() is None:
            self.views(session).end_callback()

    def _show_several(self, values: Any) -> None:
        """Show a tuple or list of variables, as a call of several outputs returns it; others are IPython's to show."""
        if not values or not all(isinstance(value, SemanticVariable) for value in values):
            raise NotImplementedError
        self._show(list(values))

    def _show(self, variables: list[SemanticVariable], *, markdown: bool = False) -> None:
        for variable in variables:
            variable.submit()  # what is looked at shall fill in
        session = default_session_or_none() or sessions.current_session()
        self.views(session).show_variables([variable.node for variable in variables], markdown=markdown)


def _runs_cell(ip: Any) -> bool:
    """True if this thread runs a cell of the shell whose end will be told; of a silent one, the start of a shell or a callback it is not."""
    frame = sys._getframe(1)  # noqa: SLF001 - IPython does not say what it runs
    while frame is not None:
        if (
            frame.f_code is InteractiveShell.run_cell_async.__code__
            and frame.f_locals["self"] is ip
            and not frame.f_locals["silent"]
        ):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


_extensions: weakref.WeakKeyDictionary[Any, Extension] = weakref.WeakKeyDictionary()


def load_ipython_extension(ip: Any) -> None:
    """Load into a shell; harmless when loaded already. Refuses one whose kernel is too old."""
    if ip not in _extensions:
        require_kernel(ip)
        _extensions[ip] = Extension(ip)
        _extensions[ip].load()


def unload_ipython_extension(ip: Any) -> None:
    """Take everything out of a shell; harmless when not loaded."""
    extension = _extensions.pop(ip, None)
    if extension is not None:
        extension.unload()
