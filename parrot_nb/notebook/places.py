"""Where an output lands, and whether it can be changed there later."""

from __future__ import annotations

import sys
from enum import Enum
from typing import Any

from IPython import get_ipython
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.display import display

Bundle = dict[str, str]

OUTSIDE = (
    "comm_msg",
    "comm_open",
    "comm_close",
)  # requests of the page that belong to no cell: a button's click, a slider's move


class Place(Enum):
    """Place of an output that is made now.

    Attributes:
        CELL: it stands under its cell and can be updated.
        CAPTURED: `%%capture` keeps it, to be shown later.
        FIXED: it stays as it is: a terminal, an Output widget, the callback of a widget.
    """

    CELL = "cell"
    CAPTURED = "captured"
    FIXED = "fixed"


def place_of(kernel: Any) -> Place:
    """The place of what this thread displays now.

    Args:
        kernel: of the shell; None in a terminal.
    """
    if _captures():
        return Place.CAPTURED
    if kernel is None:
        return Place.FIXED
    header = (kernel.get_parent("shell") or {}).get("header", {})
    if header.get("msg_type") in OUTSIDE or _in_output_widget(header.get("msg_id")):
        return Place.FIXED
    return Place.CELL


class Display:
    """One output that is updated.

    Args:
        bundle: what it shows first.
        place: where, which is not FIXED.
    """

    def __init__(self, bundle: Bundle, place: Place) -> None:
        self._publisher = None if place is Place.CAPTURED else get_ipython().display_pub
        self._captured = dict(bundle)  # a capture keeps this very object
        self._id = display(self._captured, raw=True, display_id=True).display_id

    def update(self, bundle: Bundle) -> None:
        """Show something else in its place, whatever captures the outputs of the cell that runs now."""
        publisher = self._publisher
        if publisher is None:
            self._captured.clear()
            self._captured.update(bundle)
            if _captures():
                return
            publisher = get_ipython().display_pub  # it may have been shown by now
        publisher.publish(data=bundle, metadata={}, transient={"display_id": self._id}, update=True)


def show_fixed(bundle: Bundle, said: str | None) -> None:
    """Show something that stays as it is.

    Args:
        bundle: what.
        said: a line below: how to see what becomes of it; None where that is all.
    """
    if said is not None:
        bundle = dict(bundle)
        if "text/html" in bundle:
            bundle["text/html"] += f'<div style="font:12px system-ui,sans-serif;opacity:.7;padding:2px 0">{said}</div>'
        bundle["text/plain"] = f"{bundle.get('text/plain', '')}\n{said}"
    display(bundle, raw=True)


def _captures() -> bool:
    shell = get_ipython()
    return shell is not None and isinstance(shell.display_pub, CapturingDisplayPublisher)


def _in_output_widget(msg_id: str | None) -> bool:
    """Whether an Output widget takes what this request displays: it never hears of updates."""
    outputs = sys.modules.get("ipywidgets.widgets.widget_output")
    widgets = sys.modules.get("ipywidgets.widgets.widget")
    if outputs is None or widgets is None or msg_id is None:
        return False
    live = getattr(widgets, "_instances", None) or getattr(widgets.Widget, "widgets", None) or {}
    return any(isinstance(one, outputs.Output) and one.msg_id == msg_id for one in list(live.values()))
