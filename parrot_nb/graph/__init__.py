"""The DAG of a session and what is deduced from it: pure data structures and pure functions, no threads and no engine."""

from parrot_nb.graph.applications import Applications
from parrot_nb.graph.chains import Chain, chains, first_inputs
from parrot_nb.graph.critical import Cost, Reading, critical_paths
from parrot_nb.graph.dead import dead_calls, is_read_but_by
from parrot_nb.graph.explain import Explanation, explain
from parrot_nb.graph.graph import Graph
from parrot_nb.graph.objectives import deduce_objectives
from parrot_nb.graph.prefix import prefix_hash, prefix_hashes
from parrot_nb.graph.stages import stages, task_groups

__all__ = [
    "Applications",
    "Chain",
    "Cost",
    "Explanation",
    "Graph",
    "Reading",
    "chains",
    "critical_paths",
    "dead_calls",
    "deduce_objectives",
    "explain",
    "first_inputs",
    "is_read_but_by",
    "prefix_hash",
    "prefix_hashes",
    "stages",
    "task_groups",
]
