"""Comparison: whether one function is better than another on the same rows, or only seems so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parrot_nb.errors import ArgumentError
from parrot_nb.language import NativeFunction, SemanticFunction
from parrot_nb.language.escaping import visible
from parrot_nb.tables.binding import Function
from parrot_nb.tables.evaluation import Evaluation, aligned, evaluate, expected_of
from parrot_nb.tables.intervals import Interval, are_binary, difference_interval, holm, mcnemar, sign_flip
from parrot_nb.tables.measuring import together


@dataclass(frozen=True, slots=True)
class Difference:
    """A function beside the first one, row by row.

    Attributes:
        name: of the function.
        mean: of its scores less those of the first.
        interval: of that mean, for rows of this kind; None without rows.
        num_better: rows on which it scores higher.
        num_worse: rows on which it scores lower.
        p_value: how likely a difference of this size would be if there were none, adjusted (Holm) where several are compared.
        test: "McNemar" for scores 0 and 1, else "sign flips".
        is_real: True if the p-value is below what the confidence leaves.
    """

    name: str
    mean: float
    interval: Interval | None
    num_better: int
    num_worse: int
    p_value: float
    test: str
    is_real: bool

    def __repr__(self) -> str:
        said = "a real difference" if self.is_real else "no difference that is more than chance"
        return f"<{self.name}: {self.mean:+.3f} {self.interval!r}, p = {self.p_value:.3g} ({self.test}): {said}>"


@dataclass(frozen=True)
class Comparison:
    """Several functions on the same rows; made by `P.compare`.

    Attributes:
        evaluations: of each function, by name.
        differences: of each but the first, to the first, by name.
    """

    evaluations: Mapping[str, Evaluation]
    differences: Mapping[str, Difference]

    @property
    def summary(self) -> str:
        """Line that says what was compared."""
        count = len(next(iter(self.evaluations.values())).scores)
        return f"{len(self.evaluations)} functions on {count:,} row{'s' * (count != 1)}"

    @property
    def table(self) -> list[list[str]]:
        """Scores, differences to the first function, and costs, with headers."""
        rows = [
            ["", "score", "interval", "difference", "its interval", "p", "failed", "prefilled", "reused", "decoded", "seconds"]
        ]
        for name, each in self.evaluations.items():
            beside = ["", "", ""]
            if (difference := self.differences.get(name)) is not None:
                chance = "" if difference.is_real else " (chance)"
                beside = [f"{difference.mean:+.3f}", repr(difference.interval), f"{difference.p_value:.3g}{chance}"]
            tokens = [f"{each.tokens[kind]:,}" for kind in ("prefilled", "reused", "decoded")]
            score = [name, f"{each.score:.3f}", repr(each.interval)]
            rows.append([*score, *beside, str(each.num_failed), *tokens, f"{each.seconds:.1f}"])
        return rows

    def __repr__(self) -> str:
        return visible("\n".join([self.summary, *aligned(self.table)]))


def compare(
    functions: Sequence[Function] | Mapping[str, Function],
    table: Any,
    /,
    expected: str,
    metric: str | Callable[[Any, Any], Any] | Function = "exact",
    *,
    output: str | None = None,
    tolerance: float = 0.0,
    confidence: float = 0.95,
    **columns: Any,
) -> Comparison:
    """Evaluate several functions on the same rows, one after the other, and say how each differs from the first.

    Args:
        functions: two or more; with names of your own in a dict.
        table: as for `evaluate`.
        expected: as for `evaluate`.
        metric: as for `evaluate`.
        output: as for `evaluate`; each function that has several outputs needs it.
        tolerance: as for `evaluate`.
        confidence: of the intervals, and of what is called real.
        columns: as for `f.map`; each goes to the functions that have such a parameter.

    Raises:
        ArgumentError: fewer than two functions, or what `evaluate` refuses.
    """
    named = _named(functions)
    if strange := next((c for c in columns if not any(c in f.signature.parameters for f in named.values())), None):
        raise ArgumentError(f"P.compare(): none of the functions has a parameter '{strange}': check the spelling.")
    table, _ = expected_of(table, expected)
    with together(list(named)):
        evaluations = {
            name: evaluate(
                function,
                table,
                expected,
                metric,
                output=output if len(function.output_names) > 1 else None,
                tolerance=tolerance,
                confidence=confidence,
                **{column: value for column, value in columns.items() if column in function.signature.parameters},
            )
            for name, function in named.items()
        }
    first, *others = evaluations.items()
    p_values = holm([p_value_of(first[1].scores, other.scores) for _, other in others])
    differences = {
        name: difference_of(name, first[1].scores, other.scores, p_value, confidence)
        for (name, other), p_value in zip(others, p_values, strict=True)
    }
    return Comparison(evaluations, differences)


def _named(functions: Sequence[Function] | Mapping[str, Function]) -> dict[str, Function]:
    """Functions by names that are all different."""
    given = list(functions.items()) if isinstance(functions, Mapping) else [(None, each) for each in functions]
    named: dict[str, Function] = {}
    seen: Counter[str] = Counter()
    for own, function in given:
        if not isinstance(function, (SemanticFunction, NativeFunction)):
            raise ArgumentError(
                f"P.compare() takes semantic and native functions, not {type(function).__name__}: decorate it first."
            )
        name = own or function.name
        seen[name] += 1
        named[name if seen[name] == 1 else f"{name} #{seen[name]}"] = function
    if len(named) < 2:
        raise ArgumentError("P.compare() needs two functions or more: P.evaluate() measures one.")
    return named


def p_value_of(first: Sequence[float], second: Sequence[float]) -> float:
    """Return how likely a difference of this size between two functions' scores of the same rows would be if there were none: by
    McNemar's exact test for scores 0 and 1, else by flipping signs."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    if are_binary(first, second):
        return mcnemar(sum(d < 0 for d in differences), sum(d > 0 for d in differences))
    return sign_flip(differences)


def difference_of(name: str, first: Sequence[float], second: Sequence[float], p_value: float, confidence: float) -> Difference:
    """Return how the second scores differ from the first, row by row.

    Args:
        name: of the second function.
        first: scores.
        second: scores of the same rows.
        p_value: of the difference, adjusted where there are several.
        confidence: of the interval, and of what is called real.
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    mean = sum(differences) / len(differences) if differences else float("nan")
    return Difference(
        name,
        mean,
        difference_interval(first, second, confidence),
        sum(d > 0 for d in differences),
        sum(d < 0 for d in differences),
        p_value,
        "McNemar" if are_binary(first, second) else "sign flips",
        p_value < 1 - confidence,
    )
