"""The runtime, which runs a graph on engines on its own side of the wire, and the log of all that happened.
`parrot_nb.runtime.runtime` is the whole of it; this door opens on what both sides need."""

from parrot_nb.runtime.events import EventLog
from parrot_nb.runtime.loop import RuntimeLoop
from parrot_nb.runtime.optimisations import OPTIMISATIONS

__all__ = ["OPTIMISATIONS", "EventLog", "RuntimeLoop"]
