"""The benchmark: the paper's applications on parrot_nb and on other systems, in turn, with the same weights, prompts and
output lengths. `python -m parrot_nb.bench copilot` prints a table; `run` returns the figures."""

from parrot_nb.bench.runner import Result, Row, Run, run
from parrot_nb.bench.table import as_json, footer, render
from parrot_nb.bench.workloads import WORKLOADS, Sizes

__all__ = ["WORKLOADS", "Result", "Row", "Run", "Sizes", "as_json", "footer", "render", "run"]
