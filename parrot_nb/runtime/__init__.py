"""What runs a graph on engines: the executor and its scheduler on one event loop, and the log of all that happened."""

from parrot_nb.runtime.engines import EnginePool
from parrot_nb.runtime.events import EventLog
from parrot_nb.runtime.executor import OPTIMISATIONS, Executor
from parrot_nb.runtime.loop import RuntimeLoop
from parrot_nb.runtime.memo import Memo
from parrot_nb.runtime.scheduler import Scheduler

__all__ = ["OPTIMISATIONS", "EnginePool", "EventLog", "Executor", "Memo", "RuntimeLoop", "Scheduler"]
