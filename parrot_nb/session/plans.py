"""Plans: what calls would run, and what it would take, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from parrot_nb.errors import UsageError
from parrot_nb.language.calls import Call
from parrot_nb.language.escaping import UNTYPESET, escape, visible
from parrot_nb.language.nodes import FINAL_STATES
from parrot_nb.language.variable import SemanticVariable, VariableList, host_of
from parrot_nb.runtime import messages
from parrot_nb.runtime.messages import Answer, Question
from parrot_nb.runtime.plan_figures import PlanFigures, PlannedCall, PlannedModel
from parrot_nb.session.outgoing import Outgoing
from parrot_nb.session.sessions import current_session

MAX_PROBLEMS = 5  # that are shown; more are counted
HEADERS = ("function", "calls", "known", "prompt tokens", "shared", "cached", "to fill", "to write")


@dataclass(frozen=True, slots=True)
class _Row:
    """Sums over the calls of one function."""

    name: str
    calls: Sequence[PlannedCall]

    def cells(self) -> tuple[str, ...]:
        running = [call for call in self.calls if call.source == "model"]
        known = len([call for call in self.calls if call.source in ("memo", "store")])
        exact = all(call.exact for call in self.calls)
        sums = [sum(getattr(call, name) for call in running) for name in ("shared_tokens", "cached_tokens", "filled_tokens")]
        likely, most = (sum(getattr(call, name) for call in running) for name in ("output_tokens", "most_output_tokens"))
        prompt = f"{'' if exact else 'about '}{sum(call.prompt_tokens for call in self.calls):,}"
        written = f"{likely:,}" if likely == most else f"about {likely:,}, at most {most:,}"
        return (self.name, f"{len(self.calls):,}", f"{known:,}", prompt, *(f"{count:,}" for count in sums), written)


class Plan:
    """Figures of calls that have not run, shown as a table in text or HTML.

    Args:
        figures: as the runtime gave them.
        note: what must be said beside it.

    Attributes:
        calls: a `PlannedCall` for each call that has not ended, in order.
        models: a `PlannedModel` for each model that they run on.
        seconds: predicted, if texts are as long as the function's last ones (at first, as long as they may be).
        most_seconds: predicted, if every text is as long as it may be.
        advice: sentences about the order of prompts' parts.
        problems: sentences about calls that will fail, such as prompts that do not fit.
    """

    def __init__(self, figures: PlanFigures, note: str = "") -> None:
        self.calls: tuple[PlannedCall, ...] = figures.calls
        self.models: tuple[PlannedModel, ...] = figures.models
        self.seconds = figures.seconds
        self.most_seconds = figures.most_seconds
        self.advice: tuple[str, ...] = figures.advice
        self.problems: tuple[str, ...] = tuple(call.problem for call in figures.calls if call.problem)
        self.note = note

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(call.prompt_tokens for call in self.calls)

    @property
    def filled_tokens(self) -> int:
        """Prompt tokens that the engine must compute."""
        return sum(call.filled_tokens for call in self.calls)

    @property
    def output_tokens(self) -> int:
        """Tokens that will probably be written."""
        return sum(call.output_tokens for call in self.calls)

    def __repr__(self) -> str:
        table = [HEADERS, *self._table()]
        widths = [max(len(row[i]) for row in table) for i in range(len(HEADERS))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
            for row in table
        ]
        return visible("\n".join([self._title(), *(lines if self._table() else []), *(f"{a}: {b}" for a, b in self._facts())]))

    def _repr_html_(self) -> str:
        table = self._table()
        head = "".join(f'<th style="text-align:{"right" if i else "left"}">{name}</th>' for i, name in enumerate(HEADERS))
        rows = "".join(
            "<tr>"
            + "".join(f'<td style="text-align:{"right" if i else "left"}">{escape(cell)}</td>' for i, cell in enumerate(row))
            + "</tr>"
            for row in table
        )
        html = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if table else ""
        facts = "".join(f"<div><b>{escape(name)}</b> {escape(said)}</div>" for name, said in self._facts())
        return f'<div class="{UNTYPESET}"><div><b>{escape(self._title())}</b></div>{html}{facts}</div>'

    def _title(self) -> str:
        semantic = [call for call in self.calls if call.kind == "semantic"]
        known = sum(call.source in ("memo", "store") for call in semantic)
        others = sum(call.kind == "native" for call in self.calls)
        natives = f" and {others} of native functions" if others else ""
        found = f", {known} of them known already" if known else ""
        return f"Plan: {len(semantic)} call{'s' * (len(semantic) != 1)} of prompts{natives}{found}; nothing was run"

    def _table(self) -> list[tuple[str, ...]]:
        functions: dict[str, list[PlannedCall]] = {}
        for call in self.calls:
            if call.kind == "semantic":
                functions.setdefault(call.name, []).append(call)
        return [_Row(name, calls).cells() for name, calls in functions.items()]

    def _facts(self) -> list[tuple[str, str]]:
        facts = []
        for model in self.models:
            pages = f"{model.pages:,} pages of {model.page_size_tokens} tokens if all run side by side, of {model.num_pages:,}"
            facts.append((f"KV cache of {model.id}", pages))
        if any(call.source == "model" for call in self.calls):
            by = (
                "by the steps that were measured"
                if all(model.measured for model in self.models)
                else "by usual steps: none was measured yet"
            )
            most = "" if _shown_s(self.most_seconds) == _shown_s(self.seconds) else f", at most {_shown_s(self.most_seconds)}"
            facts.append(("time", f"about {_shown_s(self.seconds)}{most} ({by})"))
        facts += [("problem", said) for said in self.problems[:MAX_PROBLEMS]]
        if len(self.problems) > MAX_PROBLEMS:
            facts.append(("problem", f"{len(self.problems) - MAX_PROBLEMS} more calls will fail"))
        facts += [("advice", said) for said in self.advice]
        return [*facts, ("note", self.note)] if self.note else facts


def plan(*variables: Any) -> Plan:
    """Plan what reading these variables would run: exact tokens of each prompt, what is shared, cached or known, what does not
    fit, and the likely seconds. Loads the model if need be and runs nothing.

    Args:
        variables: variables, and lists of them.

    Raises:
        UsageError: no variables, or something else among them.
        SessionError: the session is closed.
        ModelError: the model cannot be had.
    """
    handles = list(_handles(variables))
    if not handles:
        raise UsageError("P.plan() takes variables: give it what a call returned.")
    host = host_of(handles) or current_session()
    made: Plan = host.plan([node.producer for node in (handle.node for handle in handles) if node.producer is not None])
    return made


def _handles(variables: Iterable[Any]) -> Iterable[SemanticVariable]:
    for variable in variables:
        if isinstance(variable, SemanticVariable):
            yield variable
        elif isinstance(variable, (list, tuple, VariableList)):
            yield from _handles(variable)
        else:
            raise UsageError(f"P.plan() takes variables, not {type(variable).__name__}: give it what a call returned.")


def make_plan(ask: Callable[[Question], Answer], calls: Sequence[Call]) -> Plan:
    """A plan of calls, and of what they wait for.

    Args:
        ask: asks the runtime.
        calls: submitted or not.
    """
    outgoing, unfinished = Outgoing(), _unfinished(calls)
    outgoing.describe(unfinished)
    submission = outgoing.submission([(call, None) for call in unfinished], eager=False, reading=None)
    figures = ask(messages.PlanCalls(submission)).plan
    assert figures is not None, "the runtime answers with a plan"
    return Plan(figures)


def _unfinished(calls: Iterable[Call]) -> list[Call]:
    """Calls that have not ended, and those behind them, in the order in which they were made."""
    found: dict[int, Call] = {}
    stack = list(calls)
    while stack:
        call = stack.pop()
        if call.id in found or call.state in FINAL_STATES:
            continue
        found[call.id] = call
        stack += [node.producer for node in call.inputs.values() if node.producer is not None and not node.final]
    return [found[call_id] for call_id in sorted(found)]


def _shown_s(seconds: float) -> str:
    if seconds < 1:
        return f"{max(1, round(seconds * 1000))} ms"
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {round(seconds % 60)} s"
