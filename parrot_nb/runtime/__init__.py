"""What runs a graph on engines: the executor and its scheduler on one event loop, and the log of all that happened."""

from parrot_nb.runtime.events import EventLog
from parrot_nb.runtime.executor import OPTIMISATIONS
from parrot_nb.runtime.loop import RuntimeLoop
from parrot_nb.runtime.runtime import Runtime

__all__ = ["OPTIMISATIONS", "EventLog", "Runtime", "RuntimeLoop"]
