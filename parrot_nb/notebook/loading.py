"""A model that is being loaded, on the page: how long it takes so far, and in its place what was loaded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from parrot_nb.engine.loads import LoadInterrupted
from parrot_nb.language.escaping import UNTYPESET, escape, visible
from parrot_nb.notebook.live import LiveViews
from parrot_nb.notebook.places import show_fixed
from parrot_nb.notebook.report import Report, Reports
from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.static import MUTED, SANS
from parrot_nb.notebook.views import Bundle, DrawnView
from parrot_nb.record.loading import loading_words

TICK_S = 1.0


def show_loading(views: LiveViews, model: str, load: Callable[[], object], status: Callable[[], Report | Reports]) -> None:
    """Load a model, here on the page; what stays there holds no time, so that a notebook that runs again reads the same.

    Raises:
        ParrotError: as `load` does.
        LoadInterrupted: the user interrupted the cell.
    """
    begun_s, over = time.monotonic(), threading.Event()
    last: Bundle = loading_bundle(f"{model} was not loaded.")
    final = False  # decided before it is drawn

    def render(state: GraphState) -> Bundle:
        nonlocal final
        final = over.is_set()
        return last if final else loading_bundle(loading_words(model, state.progress.get(model), time.monotonic() - begun_s))

    def ticking() -> None:
        while not over.wait(TICK_S):
            views.wake()

    moves = views.can_update and views.open(DrawnView(render, lambda: final))
    threading.Thread(target=ticking, name="parrot-loading", daemon=True).start()
    try:
        load()
        told = status()
        last = {"text/html": told._repr_html_(), "text/plain": repr(told)}
    except KeyboardInterrupt:
        raise LoadInterrupted(model) from None
    finally:
        over.set()
        views.flush_now(in_cell=True)
        if not moves:
            show_fixed(last, None)


def loading_bundle(text: str) -> Bundle:
    """Return a line about a load, as HTML and as text. The model's name is somebody's words."""
    return {
        "text/html": f'<div class="{UNTYPESET}" style="font:12px {SANS};color:{MUTED}">{escape(text)}</div>',
        "text/plain": visible(text),
    }
