"""Results of tuning: trials, which of them was chosen, and whether it is better than the function as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from parrot_nb.language import SemanticFunction
from parrot_nb.language.escaping import visible
from parrot_nb.tables import frames
from parrot_nb.tables.comparison import Difference
from parrot_nb.tables.evaluation import Evaluation, aligned
from parrot_nb.tables.source import DictSource

START = "as it was"
Kind = Literal["start", "variant", "written", "examples"]


@dataclass(frozen=True)
class Trial:
    """A version of a function, with its scores.

    Attributes:
        name: of the trial.
        kind: "start" for the function as it was, "variant" for a prompt or instruction that was given, "written" for an instruction that
            a model wrote, "examples" for a set of examples before the best of these.
        function: that was tried.
        instruction: lines above the first placeholder of its prompt.
        num_examples: examples that it shows.
        choosing: its scores on the rows that trials are chosen by; None where calls were cancelled.
        held_out: its scores on the rows that the choice is measured on; None unless it is the function as it was or the chosen one.
    """

    name: str
    kind: Kind
    function: SemanticFunction = field(repr=False)
    instruction: str = field(repr=False)
    num_examples: int
    choosing: Evaluation | None = field(default=None, repr=False)
    held_out: Evaluation | None = field(default=None, repr=False)

    @property
    def evaluations(self) -> list[Evaluation]:
        """The measures that were made of it."""
        return [each for each in (self.choosing, self.held_out) if each is not None]


@dataclass(frozen=True)
class Tuning:
    """Trials of a function; made by `P.tune`.

    Attributes:
        trials: all of them, in order; the first is the function as it was.
        winner: the trial with the highest score on the rows that choose, the earliest of equals; the function as it was counts too.
        difference: of the winner to the function as it was, on the held-out rows; None where they are the same, or calls were
            cancelled.
        stopped: why trials were left out, in a sentence; empty where none was.
        num_left_out: rows that were not scored, since an example shows them or a held-out table has them.
    """

    trials: tuple[Trial, ...]
    winner: Trial
    difference: Difference | None
    stopped: str = ""
    num_left_out: int = 0
    backend: str | None = field(default=None, repr=False)

    @property
    def is_better(self) -> bool:
        """Whether the winner is better than the function as it was by more than chance, on rows that did not choose it."""
        return self.difference is not None and self.difference.is_real and self.difference.mean > 0

    @property
    def best(self) -> SemanticFunction:
        """The winner's function if it is better, else the function as it was."""
        return self.winner.function if self.is_better else self.trials[0].function

    @property
    def summary(self) -> str:
        """Sentence that says whether something is better, and by how much."""
        start, winner, difference = self.trials[0], self.winner, self.difference
        if winner is start:
            if start.choosing is None:
                return f"Nothing was measured. {self.stopped}".rstrip()
            if len(self.trials) == 1:
                return f"Nothing was tried beside the function as it was. {self.stopped}".rstrip()
            said = f"no trial scored higher than the function as it was on the {_rows(start.choosing)} that choose"
            return f"Nothing better was found: {said}. {self.stopped}".rstrip()
        if difference is None:
            return f"Nothing is shown: '{winner.name}' scored highest, and was not measured on held-out rows. {self.stopped}".rstrip()
        assert winner.held_out is not None, "a difference is one of held-out scores"
        by = f"{difference.mean:+.3f} {difference.interval!r}, p = {difference.p_value:.3g} ({difference.test}) on "
        by += f"{_rows(winner.held_out)} held out"
        if self.is_better:
            said = f"'{winner.name}' is better than the function as it was: {by}."
        elif difference.is_real:
            said = f"Nothing better was found: '{winner.name}' scored highest where trials were chosen, and is worse elsewhere: {by}."
        else:
            said = f"Nothing is shown to be better: '{winner.name}' scored highest, by no more than chance: {by}."
        return f"{said} {self.stopped}".rstrip()

    @property
    def table(self) -> list[list[str]]:
        """A line for each trial: scores where trials are chosen and where they are measured, and costs, with headers."""
        rows = [
            [
                "",
                "examples",
                "score",
                "interval",
                "held out",
                "its interval",
                "failed",
                "prefilled",
                "reused",
                "decoded",
                "seconds",
            ]
        ]
        for trial in self.trials:
            scores = [part for each in (trial.choosing, trial.held_out) for part in _score(each)]
            tokens = [f"{_tokens(trial, kind):,}" for kind in ("prefilled", "reused", "decoded")]
            failed = str(sum(each.num_failed for each in trial.evaluations))
            mark = " (chosen)" if trial is self.winner and len(self.trials) > 1 else ""
            seconds = f"{sum(each.seconds for each in trial.evaluations):.1f}"
            rows.append([f"{trial.name}{mark}", str(trial.num_examples), *scores, failed, *tokens, seconds])
        return rows

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return a dict for each trial: what it is, its scores with their intervals, and its costs."""
        found = []
        for trial in self.trials:
            row: dict[str, Any] = {
                "trial": trial.name,
                "kind": trial.kind,
                "instruction": trial.instruction,
                "examples": trial.num_examples,
                "chosen": trial is self.winner,
            }
            for place, each in (("", trial.choosing), ("held_out_", trial.held_out)):
                interval = None if each is None else each.interval
                row[f"{place}score"] = None if each is None else each.score
                row[f"{place}low"] = None if interval is None else interval.low
                row[f"{place}high"] = None if interval is None else interval.high
            row["failed"] = sum(each.num_failed for each in trial.evaluations)
            row |= {f"{kind}_tokens": _tokens(trial, kind) for kind in ("prefilled", "reused", "decoded")}
            row["seconds"] = sum(each.seconds for each in trial.evaluations)
            found.append(row)
        return found

    def to_frame(self, *, backend: str | None = None) -> Any:
        """Return the trials as a data frame, one row each, with the columns of `to_dicts`.

        Args:
            backend: "pandas" or "polars"; that of the table that was given, or the one that is loaded, if None.

        Raises:
            ArgumentError: no library is loaded.
        """
        return frames.to_frame(DictSource(self.to_dicts()), (), True, backend or self.backend)

    def __repr__(self) -> str:
        return visible("\n".join([self.summary, *aligned(self.table)]))


def _rows(measured: Evaluation) -> str:
    count = len(measured.scores)
    return f"{count:,} row{'s' * (count != 1)}"


def _score(measured: Evaluation | None) -> Sequence[str]:
    return ("", "") if measured is None else (f"{measured.score:.3f}", repr(measured.interval))


def _tokens(trial: Trial, kind: str) -> int:
    return sum(each.tokens[kind] for each in trial.evaluations)
