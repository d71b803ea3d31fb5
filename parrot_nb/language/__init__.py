"""The user's language: templates, semantic and native functions, variables and their joins. Knows no engine, no graph
and no notebook; calls are handed to a host (`host.py`)."""

from parrot_nb.language.function import SemanticFunction, semantic_function
from parrot_nb.language.grammar import Grammar, grammar
from parrot_nb.language.line import MAGIC_OPTIONS, MagicLine, parse_line
from parrot_nb.language.markdown import MarkdownView
from parrot_nb.language.native import NativeFunction, native_function
from parrot_nb.language.nodes import LATENCY, THROUGHPUT, LatencyTarget, Objective, TokenLogprob, Usage
from parrot_nb.language.options import Options
from parrot_nb.language.own_text import as_text
from parrot_nb.language.perf import latency
from parrot_nb.language.picks import Vote, best, vote
from parrot_nb.language.race import first
from parrot_nb.language.scored import choose
from parrot_nb.language.template import Constant, Input, Output, Segment, Template
from parrot_nb.language.together import gather, join
from parrot_nb.language.type_expression import TYPES
from parrot_nb.language.variable import SemanticVariable, VariableList, variable

__all__ = [
    "LATENCY",
    "MAGIC_OPTIONS",
    "THROUGHPUT",
    "TYPES",
    "Constant",
    "Grammar",
    "Input",
    "LatencyTarget",
    "MagicLine",
    "MarkdownView",
    "NativeFunction",
    "Objective",
    "Options",
    "Output",
    "Segment",
    "SemanticFunction",
    "SemanticVariable",
    "Template",
    "TokenLogprob",
    "Usage",
    "VariableList",
    "Vote",
    "as_text",
    "best",
    "choose",
    "first",
    "gather",
    "grammar",
    "join",
    "latency",
    "native_function",
    "parse_line",
    "semantic_function",
    "variable",
    "vote",
]
