"""Tuning: a search over instructions and examples of a prompt, with a verdict from rows that the search has not seen."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from parrot_nb.errors import ArgumentError, CallError, is_cancelled
from parrot_nb.language import NativeFunction, SemanticFunction
from parrot_nb.language.instructions import instruction_of, with_instruction, with_written_instruction
from parrot_nb.language.notify import message_of
from parrot_nb.language.text import to_text
from parrot_nb.session.budget import Budget
from parrot_nb.tables import measuring
from parrot_nb.tables.binding import Function, bind_columns
from parrot_nb.tables.comparison import difference_of, p_value_of
from parrot_nb.tables.evaluation import Evaluation, evaluate, expected_of
from parrot_nb.tables.maps import read_table
from parrot_nb.tables.splits import Cells, Parts, example_sets, key_of, parts_of
from parrot_nb.tables.trials import START, Kind, Trial, Tuning

Variants = Sequence[str | SemanticFunction] | Mapping[str, str | SemanticFunction]
SHOWN_TO_WRITER = 8  # rows

WRITER = """This is a prompt for a language model. Double braces are filled in for each case.

{{input:prompt}}

These are cases, with the answers that are right:

{{input:cases}}

Write a better instruction for the lines above the first double braces. Say exactly what to answer and in which form. Write the \
instruction only.

{{output:instruction, max_tokens=200, temperature=1, top_p=0.95}}"""


@dataclass(frozen=True)
class _Task:
    """A tuning: what is measured, on which rows, and what it may cost."""

    function: SemanticFunction
    expected: str
    metric: str | Callable[[Any, Any], Any] | Function
    settings: Mapping[str, Any]
    columns: Mapping[str, Any]
    parts: Parts
    examples: Callable[[Cells, SemanticFunction], dict[str, Any]]
    budget: Budget | None

    def measured(self, function: SemanticFunction, rows: Sequence[Cells]) -> Evaluation | None:
        """Return a function's scores; None where rows were cancelled."""
        own = {name: value for name, value in self.columns.items() if name in function.signature.parameters}
        with measuring.apart():
            found = evaluate(function, rows, self.expected, self.metric, **self.settings, **own)
        cut = any(row.error is not None and is_cancelled(row.error) for row in found.rows.failed)
        return None if cut else found

    @property
    def why_cut(self) -> str:
        """Why rows were cancelled."""
        spent = self.budget is not None and not (self.budget.left_tokens and self.budget.left_s)
        return "the budget is used up" if spent else "its calls were cancelled"

    def has_room(self, trials: Iterable[Trial]) -> bool:
        """Whether the budget has room for one more trial and for measuring the choice, if their rows cost no more than the most
        expensive ones so far."""
        if self.budget is None:
            return True
        known = [each for trial in trials for each in trial.evaluations if each.scores]
        num_rows = len(self.parts.choosing) + len(self.parts.held_out)
        tokens = max((each.tokens["decoded"] / len(each.scores) for each in known), default=0.0)
        seconds = max((each.seconds / len(each.scores) for each in known), default=0.0)
        return num_rows * tokens <= self.budget.left_tokens and num_rows * seconds < self.budget.left_s


def tune(
    function: SemanticFunction,
    table: Any,
    /,
    expected: str,
    metric: str | Callable[[Any, Any], Any] | Function = "exact",
    *,
    variants: Variants = (),
    write: int = 0,
    writer: str | Function | None = None,
    examples: int | Sequence[Any] = 0,
    sets: int = 4,
    budget: Budget | None = None,
    trials: int | None = None,
    held_out: Any = 0.5,
    seed: int = 0,
    output: str | None = None,
    tolerance: float = 0.0,
    confidence: float = 0.95,
    **columns: Any,
) -> Tuning:
    """Search for a better prompt: try other instructions, then examples before the best of them, and measure what was chosen.

    The table is parted at random. Trials are chosen by their score on one part; the function as it was and the chosen one are measured on
    the part that is held out, and compared row by row, so that the search cannot flatter itself. Rows with equal inputs stay together,
    and rows that examples show are never scored.

    Args:
        function: semantic, without examples; `variants` and `examples` have what else is to be tried.
        table: a data frame or an iterable of dicts.
        expected: column that says what is right.
        metric: as for `evaluate`.
        variants: instructions, each in the place of the lines above the prompt's first placeholder; whole prompts with the same
            placeholders; or semantic functions; with names of your own in a dict.
        write: instructions that a model writes, from the prompt and rows that are not scored.
        writer: id of the model that writes them, the function's own if None; or a function with the parameters `prompt` and `cases`
            that returns an instruction.
        examples: examples that a set has, taken from rows that are not scored; or the sets themselves, each a table.
        sets: sets that are drawn.
        budget: what the search may take in tokens and seconds, as `P.budget(...)`; a trial begins only if it and the last measure
            probably fit.
        trials: the most trials, the function as it was among them; all if None.
        held_out: share of rows that are held out, or a table of them.
        seed: of parting the table, drawing sets, and writing.
        output: as for `evaluate`.
        tolerance: as for `evaluate`.
        confidence: of the intervals, and of what is called better.
        columns: as for `f.map`.

    Raises:
        ArgumentError: nothing to try, too few rows, or what `evaluate` refuses.
    """
    _check(function, write, sets, trials, budget)
    if isinstance(examples, int) and (isinstance(examples, bool) or examples < 0):
        raise ArgumentError(f"examples must be a whole number, at least 0, or a list of tables, not {examples!r}.")
    table, _ = expected_of(table, expected)
    rows = read_table(table, "P.tune()")
    held = _share(held_out) if isinstance(held_out, (int, float)) else read_table(expected_of(held_out, expected)[0], "P.tune()")
    bound = bind_columns(function, list(dict.fromkeys(key for row in rows for key in row)), columns, dicts=True)
    scored = output or function.output_names[0]

    def inputs(row: Cells) -> dict[str, Any]:
        return {name: row.get(column) for name, column in bound.columns.items()}

    def example(row: Cells, shown: SemanticFunction) -> dict[str, Any]:
        defaults = {name: each.default for name, each in shown.signature.parameters.items() if each.default is not each.empty}
        said = {name: row[name] for name in shown.output_names if name in row}
        if metric != "regex" and expected in row:
            said.setdefault(scored, row[expected])
        return {**defaults, **bound.constants, **{n: c for n, c in inputs(row).items() if c is not None}, **said}

    given = [] if isinstance(examples, int) else [read_table(each, "P.tune()") for each in _tables(examples)]
    size = examples if isinstance(examples, int) else 0
    parts = parts_of(
        rows,
        lambda row: inputs(row).values(),
        held_out=held,
        shown={key_of(inputs(row).values()) for each in given for row in each},
        pool_rows=max(size, min(1, write)),
        seed=seed,
    )
    settings = {"output": output, "tolerance": tolerance, "confidence": confidence}
    task = _Task(function, expected, metric, settings, columns, parts, example, budget)
    drawn = example_sets(parts.pool, lambda row: row.get(expected), size, sets, seed) if size else given
    named = _variants(function, variants)
    present = list(dict.fromkeys(key for row in rows for key in row))
    for variant in named.values():  # before anything is measured
        own = {name: value for name, value in columns.items() if name in variant.signature.parameters}
        bind_columns(variant, present, own, dicts=True)
    if not (named or write or drawn):
        raise ArgumentError("P.tune() has nothing to try: give variants=[...], examples=N or write=N.")
    free = _free_name([*function.signature.parameters, *function.output_names, *(key for row in rows for key in row)])
    with budget or contextlib.nullcontext():
        found = _search(task, named, _writing(task, write, writer, seed, free), drawn, trials)
    return replace(found, num_left_out=parts.num_left_out, backend=_library_of(table))


def _search(
    task: _Task,
    variants: Mapping[str, SemanticFunction],
    written: Callable[[], tuple[Mapping[str, SemanticFunction], str]],
    sets: Sequence[Sequence[Cells]],
    most: int | None,
) -> Tuning:
    function, parts = task.function, task.parts
    start = Trial(START, "start", function, instruction_of(function), 0)
    start = replace(start, held_out=task.measured(function, parts.held_out))
    start = replace(start, choosing=task.measured(function, parts.choosing))
    if start.choosing is None or start.held_out is None:
        unmeasured = replace(start, choosing=None)
        return Tuning((unmeasured,), unmeasured, None, f"The search ended before any trial: {task.why_cut}.")
    found = [start]
    stopped = ""

    def tried(name: str, kind: Kind, candidate: SemanticFunction, instruction: str, num_examples: int = 0) -> bool:
        nonlocal stopped
        if most is not None and len(found) >= most:
            stopped = f"Further trials were left out, since there may be {most}."
        elif not task.has_room(found):
            stopped = "Further trials were left out, since the budget has no room for them."
        else:
            scores = task.measured(candidate, parts.choosing)
            found.append(Trial(name, kind, candidate, instruction, num_examples, scores))
            if scores is None:
                stopped = f"The search ended during '{name}': {task.why_cut}."
        return not stopped

    kept = min(len(sets), (most or 0) // 2)  # trials that examples are sure of
    first = [(name, "variant", each) for name, each in variants.items()]
    unwritten = ""
    if task.has_room(found):
        instructions, unwritten = written()
        first += [(name, "written", each) for name, each in instructions.items()]
    if most is not None and len(first) > most - 1 - kept:
        stopped = f"Further trials were left out, since there may be {most}."
        first = first[: most - 1 - kept]
    left_out = f"{unwritten} {stopped}".strip()
    stopped = ""
    for name, kind, each in first:
        if not tried(name, kind, each, _instruction(each)):  # type: ignore[arg-type]
            break
    base = _best(found)
    if sets and not stopped and base.function.has_examples:
        left_out = f"{left_out} Sets of examples were left out, since '{base.name}' shows examples of its own.".strip()
    for number, rows in enumerate(sets if not stopped and not base.function.has_examples else (), start=1):
        shown = base.function.with_examples([task.examples(row, base.function) for row in rows])
        name = f"examples {number}" if base is start else f"{base.name} + examples {number}"
        if not tried(name, "examples", shown, base.instruction, len(rows)):
            break
    stopped = stopped or left_out
    winner = _best(found)
    if winner is start:
        return Tuning(tuple(found), start, None, stopped)
    measured = replace(winner, held_out=task.measured(winner.function, parts.held_out))
    found[found.index(winner)] = measured
    if measured.held_out is None:
        return Tuning(
            tuple(found), measured, None, stopped or f"The search ended before the choice was measured: {task.why_cut}."
        )
    first_scores, scores = start.held_out.scores, measured.held_out.scores
    confidence = task.settings["confidence"]
    difference = difference_of(winner.name, first_scores, scores, p_value_of(first_scores, scores), confidence)
    return Tuning(tuple(found), measured, difference, stopped)


def _best(trials: Sequence[Trial]) -> Trial:
    return max((trial for trial in trials if trial.choosing is not None), key=lambda trial: trial.choosing.score)  # type: ignore[union-attr]


def _variants(function: SemanticFunction, variants: Variants) -> dict[str, SemanticFunction]:
    """Functions to try, by names that are all different."""
    if isinstance(variants, (str, SemanticFunction)):
        raise ArgumentError("P.tune(): variants is a list: put the one that you have in brackets.")
    given = variants.items() if isinstance(variants, Mapping) else ((f"variant {i}", each) for i, each in enumerate(variants, 1))
    return {str(name): _variant(function, each) for name, each in given}


def _variant(function: SemanticFunction, given: str | SemanticFunction) -> SemanticFunction:
    if isinstance(given, SemanticFunction):
        if set(given.output_names) != set(function.output_names):
            raise ArgumentError(
                f"P.tune(): a variant writes {', '.join(given.output_names)}, and {function.name}() writes "
                f"{', '.join(function.output_names)}: give its outputs the same names."
            )
        return given
    if not isinstance(given, str):
        raise ArgumentError(f"P.tune(): a variant is a text or a semantic function, not {type(given).__name__}.")
    if "{{" not in given.replace("\\{{", ""):
        return with_instruction(function, given)
    return SemanticFunction(
        given,
        name=function.name,
        outputs=function.output_names,
        options=function.settings,
        types=function.template.types,
        check=function.check,
        parameters=_parameters_read(function, given),
    )


def _parameters_read(function: SemanticFunction, source: str) -> list[inspect.Parameter] | None:
    """The function's parameters that a prompt reads, with their defaults; None where it reads others, which is refused later."""
    read = SemanticFunction(
        source, name=function.name, outputs=function.output_names, types=function.template.types
    ).signature.parameters
    known = function.signature.parameters
    return [each for name, each in known.items() if name in read] if read.keys() <= known.keys() else None


def _check_writer(writer: Function) -> None:
    """Refuse a writer that cannot be called with what it is given."""
    try:
        writer.signature.bind(prompt="", cases="")
    except TypeError as error:
        raise ArgumentError(
            f"P.tune(): writer is called with prompt= and cases=, which {writer.name}() does not take: {error}."
        ) from None
    if len(writer.output_names) != 1:
        raise ArgumentError(
            f"P.tune(): writer writes one instruction, and {writer.name}() has {len(writer.output_names)} outputs."
        )


def _writing(
    task: _Task, count: int, writer: str | Function | None, seed: int, parameter: str
) -> Callable[[], tuple[dict[str, SemanticFunction], str]]:
    """A function that has a model write instructions, and returns the function with each of them, equal ones once, and why there are
    fewer than were asked for."""
    if writer is not None and not isinstance(writer, (str, SemanticFunction, NativeFunction)):
        raise ArgumentError(f"P.tune(): writer is a model's id or a function, not {type(writer).__name__}.")
    if isinstance(writer, (SemanticFunction, NativeFunction)):
        _check_writer(writer)
    function = task.function

    def write() -> tuple[dict[str, SemanticFunction], str]:
        cases = [_case(task, row) for row in task.parts.pool[:SHOWN_TO_WRITER]]
        given = {"prompt": function.template.source, "cases": "\n\n".join(cases)}
        calls = []
        for number in range(count):
            writes: Function
            if isinstance(writer, NativeFunction):
                writes = writer
            elif isinstance(writer, SemanticFunction):
                writes = writer.options(seed=seed + number)
            else:
                model = writer or function.settings.model
                writes = SemanticFunction(WRITER, name="write_instruction", namespace={}).options(seed=seed + number)
                writes = writes if model is None else writes.options(model=model)
            calls.append(writes(**given))
        texts: dict[str, None] = {}
        failures: list[CallError] = []
        for call in calls:
            try:
                text = to_text(call.get(), "an instruction").strip()
            except CallError as error:  # that instruction is not among the trials
                failures.append(error)
                continue
            if text and text != instruction_of(function):
                texts[text] = None
        why = f"{len(failures)} of {count} instructions could not be written: {message_of(failures[0])}" if failures else ""
        return {f"written {i}": with_written_instruction(function, text, parameter) for i, text in enumerate(texts, start=1)}, why

    return write if count else lambda: ({}, "")


def _case(task: _Task, row: Cells) -> str:
    cells = task.examples(row, task.function)
    return "\n".join(f"{name}: {value}" for name, value in cells.items())


def _instruction(function: SemanticFunction) -> str:
    """The instruction of a trial's prompt, also one that went in as data."""
    written = [each.default for each in function.signature.parameters.values() if each.name.startswith(WRITTEN)]
    return str(written[0]) if written else instruction_of(function)


WRITTEN = "written_instruction"


def _free_name(taken: Iterable[Any]) -> str:
    names, name = set(taken), WRITTEN
    while name in names:
        name += "_"
    return name


def _tables(examples: Any) -> Sequence[Any]:
    """Sets of examples; one table alone is a set."""
    if isinstance(examples, (Mapping, str)) or not isinstance(examples, Iterable):
        raise ArgumentError(f"P.tune(): examples is a number or a list of tables, not {type(examples).__name__}.")
    if not isinstance(examples, Sequence) or (examples and isinstance(examples[0], Mapping)):
        return [examples]
    return examples


def _share(held_out: float) -> float:
    if not 0 < held_out < 1:
        raise ArgumentError(f"held_out must be a share between 0 and 1, such as 0.5, or a table, not {held_out!r}.")
    return float(held_out)


def _check(function: Any, write: Any, sets: Any, trials: Any, budget: Any) -> None:
    if not isinstance(function, SemanticFunction):
        raise ArgumentError(f"P.tune() takes a semantic function, not {type(function).__name__}: only a prompt can be tuned.")
    if function.has_examples:
        raise ArgumentError("P.tune() takes a function without examples: give the one that with_examples() was called on.")
    for name, value, least in (("write", write, 0), ("sets", sets, 1), ("trials", trials, 2)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ArgumentError(f"{name} must be a whole number, at least {least}, not {value!r}.")
    if budget is not None and not isinstance(budget, Budget):
        raise ArgumentError(f"budget must be P.budget(tokens=N, seconds=S), not {budget!r}: say trials=N to bound their number.")


def _library_of(table: Any) -> str | None:
    """The library of a data frame, if it is one that frames can be made of."""
    module = type(table).__module__.split(".")[0]
    return module if module in ("pandas", "polars") else None
