"""The embedded engine: any Hugging Face causal language model on the local CPU or GPU, in the notebook's own process.
Importing it loads no torch; `load_engine` does."""

from parrot_nb.engine.embedded.engine import EmbeddedEngine
from parrot_nb.engine.embedded.held import check_module
from parrot_nb.engine.embedded.loader import load_engine

__all__ = ["EmbeddedEngine", "check_module", "load_engine"]
