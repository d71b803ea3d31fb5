"""`python -m parrot_nb.bench typed`: what a type costs, and what certain tokens save.

Orders, each a nested JSON object of some 60 tokens, are written at the same time: with the type, and as many tokens each without
it, after the same prompts. Then the same with guesses, where tokens that the type forces are taken several a step; and one object of
many fields, in which half of the tokens or more are certain. What a type costs before its first token follows. Where `xgrammar` is
installed, `generate` of transformers writes the same orders with it. Ratios are of medians within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, make_dataclass
from pathlib import Path
from typing import Any, Literal

from parrot_nb.bench.models import KNOWN, find_model
from parrot_nb.bench.table import aligned, exit_code, machine, tell, where
from parrot_nb.bench.workloads import at_least_one
from parrot_nb.language import LATENCY, SemanticFunction, SemanticVariable, gather
from parrot_nb.language.type_expression import Bounded, Matching
from parrot_nb.session import Session

HEADER = ("", "tokens", "certain or guessed", "tokens/s", "x untyped", "time to value", "gain")
PEER = "xgrammar"
WITHOUT = ("memo", "drafts")  # what is turned off where nothing is guessed
NAME = Matching("[A-Z][a-z]{2,9}")
Customer = make_dataclass("Customer", [("name", NAME), ("surname", NAME), ("city", NAME)])
Item = make_dataclass(
    "Item", [("name", Matching("[a-z]{3,12}")), ("count", Bounded(int, 1, 20)), ("price", Bounded(int, 1, 500))]
)
Order = make_dataclass(
    "Order",
    [
        ("number", Bounded(int, 100, 999)), ("customer", Customer), ("item", Item), ("paid", bool),
        ("status", Literal["new", "sent", "returned"]),
    ],
)  # fmt: skip
SUBJECTS = ("lamp", "kettle", "chair", "novel", "camera", "jacket", "guitar", "mirror")
EXAMPLE = (
    '{"number": 100, "customer": {"name": "Anna", "surname": "Moser", "city": "Graz"}, '
    '"item": {"name": "table", "count": 2, "price": 150}, "paid": true, "status": "sent"}'
)
PROMPT = (
    f"Write orders of a shop as JSON.\nOrder 100, of a table: {EXAMPLE}\nOrder {{{{input:number}}}}, of a {{{{input:thing}}}}: "
)
SHEET = 'Fill in a sheet as JSON, such as {"question_01": true, "question_02": false}.\nSheet {{input:number}}: '
LIMIT_TOKENS = 300  # of an order; a model that lays out JSON with as much white space as it may needs so many
FIELD_TOKENS = 40  # of the large object, likewise


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the measurement.

    Attributes:
        texts: orders that are written at the same time.
        fields: of the large object.
        types: large types that are met for the first time.
        repeat: measured runs, of which the median counts.
    """

    texts: int = 16
    fields: int = 50
    types: int = 5
    repeat: int = 3


@dataclass(frozen=True, slots=True)
class Writing:
    """Measurements of texts that were written at the same time.

    Attributes:
        tokens: of all texts.
        guessed: those of them that took no step of their own.
        tokens_per_s: of all texts together while they were written: the sum of their rates, without the time before a first token
            (of the peer, which does not tell it, with that time).
        value_s: seconds from the calls to all values.
    """

    tokens: int
    guessed: int
    tokens_per_s: float
    value_s: float


@dataclass(frozen=True, slots=True)
class FirstUse:
    """Seconds that a type takes before its first token.

    Attributes:
        tables_s: for a model's vocabulary, once; a session builds them beside other work.
        defined_s: to define a function with a new type of many fields.
        compiled_s: to compile that type for the model, and to find out which tokens it can begin with.
    """

    tables_s: float
    defined_s: float
    compiled_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """All measurements.

    Attributes:
        rows: by name, as in the table.
        first_use: of a type.
        peer: None, or why the peer has no row.
    """

    rows: dict[str, Writing]
    first_use: FirstUse
    peer: str | None


def order_function(*, typed: bool) -> SemanticFunction[..., Any]:
    """The prompt that asks for an order."""
    source = f"{PROMPT}{{{{output:order{': Order' * typed}}}}}"
    return SemanticFunction(source, name="order", namespace={"Order": Order}).options(chat=False, max_tokens=LIMIT_TOKENS)


def sheet_function(num_fields: int, name: str = "question", *, typed: bool = True) -> SemanticFunction[..., Any]:
    """The prompt that asks for an object of many fields."""
    sheet = make_dataclass("Sheet", [(f"{name}_{i:02}", bool) for i in range(1, num_fields + 1)])
    source = f"{SHEET}{{{{output:sheet{': Sheet' * typed}}}}}"
    limit = FIELD_TOKENS * (num_fields + 1)
    return SemanticFunction(source, name="sheet", namespace={"Sheet": sheet}).options(chat=False, max_tokens=limit)


class Measuring:
    """Two sessions of one model, and what is asked of them.

    Args:
        plain: the one without guesses.
        guessing: the one with guesses.
        sizes: how much is asked.
    """

    def __init__(self, plain: Session, guessing: Session, sizes: Sizes) -> None:
        self._sessions = {False: plain, True: guessing}
        self._sizes = sizes

    def rows(self) -> dict[str, Writing]:
        """Measure all rows of the table but the peer's."""
        orders, sheets = f"{self._sizes.texts} orders", f"an object of {self._sizes.fields} fields"
        sheet = [(1,)]
        return {
            **self._compared(orders, order_function(typed=True), order_function(typed=False), order_inputs(self._sizes.texts)),
            **self._compared(sheets, sheet_function(self._sizes.fields), sheet_function(self._sizes.fields, typed=False), sheet),
        }

    def _compared(
        self, name: str, typed: SemanticFunction[..., Any], free: SemanticFunction[..., Any], inputs: Sequence[Sequence[Any]]
    ) -> dict[str, Writing]:
        """A text without its type, with it, and with guesses too."""
        lengths = [variable.usage.decoded_tokens for variable in self._written(typed, inputs, guessing=False)]
        self._written(typed, inputs, guessing=True)  # so that everything has run once
        free = free.options(ignore_eos=True)
        found: dict[str, list[Writing]] = {}
        for _ in range(self._sizes.repeat):
            found.setdefault(f"{name}, untyped", []).append(self._measured(free, inputs, lengths, guessing=False))
            found.setdefault(f"{name}, typed", []).append(self._measured(typed, inputs, guessing=False))
            found.setdefault(f"{name}, typed, with guesses", []).append(self._measured(typed, inputs, guessing=True))
        return {row: median(runs) for row, runs in found.items()}

    def _measured(
        self,
        function: SemanticFunction[..., Any],
        inputs: Sequence[Sequence[Any]],
        lengths: Sequence[int] = (),
        *,
        guessing: bool,
    ) -> Writing:
        began_s = time.perf_counter()
        written = self._written(function, inputs, lengths, guessing=guessing)
        value_s = time.perf_counter() - began_s
        usages = [variable.usage for variable in written]
        rates = [(usage.decoded_tokens - 1) / usage.decode_s for usage in usages if usage.decode_s]
        return Writing(
            sum(usage.decoded_tokens for usage in usages), sum(usage.guessed_tokens for usage in usages), sum(rates), value_s
        )

    def _written(
        self,
        function: SemanticFunction[..., Any],
        inputs: Sequence[Sequence[Any]],
        lengths: Sequence[int] = (),
        *,
        guessing: bool,
    ) -> list[SemanticVariable[Any]]:
        """The variables, once all values are there; each of so many tokens where lengths are given."""
        with self._sessions[guessing]:
            functions = [function.options(max_tokens=count) for count in lengths] or [function] * len(inputs)
            variables = [each(*given) for each, given in zip(functions, inputs, strict=True)]
            gather(variables).get(perf=LATENCY)
        return variables


def order_inputs(count: int) -> list[tuple[int, str]]:
    """Number and subject of each order."""
    return [(101 + i, SUBJECTS[i % len(SUBJECTS)]) for i in range(count)]


def median(runs: Sequence[Writing]) -> Writing:
    """Medians of several runs."""
    return Writing(
        runs[0].tokens,
        runs[0].guessed,
        statistics.median(run.tokens_per_s for run in runs),
        statistics.median(run.value_s for run in runs),
    )


def first_use(folder: str, sizes: Sizes) -> FirstUse:
    """Measure what a type costs before its first token, with the tokenizer of a model."""
    from transformers import AutoTokenizer

    from parrot_nb.engine.embedded.codec import TokenizerCodec
    from parrot_nb.engine.protocol import Constraint

    codec = TokenizerCodec(AutoTokenizer.from_pretrained(folder))

    async def started_s(function: SemanticFunction[..., Any]) -> float:
        (kind,) = function.template.types.values()
        began_s = time.perf_counter()
        grammar = await codec.grammars.start(Constraint(kind.form.kind, kind.form.body), ())
        grammar.matcher.compute_bitmask()
        return time.perf_counter() - began_s

    async def all_s() -> FirstUse:
        tables_s = await started_s(order_function(typed=True))  # the type itself is small
        defined: list[float] = []
        compiled: list[float] = []
        for i in range(sizes.types):
            began_s = time.perf_counter()
            function = sheet_function(sizes.fields, f"answer_{i}")
            defined.append(time.perf_counter() - began_s)
            compiled.append(await started_s(function))
        return FirstUse(tables_s, statistics.median(defined), statistics.median(compiled))

    return asyncio.run(all_s())


def measure_peer(folder: str, dtype: str, device: str, sizes: Sizes, prompts: Sequence[Sequence[int]]) -> dict[str, Writing]:
    """Measure `generate` of transformers with the masks of `xgrammar`, and with none on as many tokens, in one batch."""
    import torch
    import xgrammar  # type: ignore[import-not-found, unused-ignore]
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging
    from xgrammar.contrib.hf import LogitsProcessor  # type: ignore[import-not-found, unused-ignore]

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device)
    (kind,) = order_function(typed=True).template.types.values()
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=model.config.vocab_size)
    compiled = xgrammar.GrammarCompiler(info).compile_json_schema(kind.form.body, any_whitespace=False)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)

    def written(*, typed: bool, length: int | None = None) -> tuple[Writing, int]:
        began_s = time.perf_counter()
        out = model.generate(
            ids, attention_mask=mask, do_sample=False, pad_token_id=pad, max_new_tokens=length or LIMIT_TOKENS, min_new_tokens=length,
            logits_processor=[LogitsProcessor(compiled)] if typed else [],
        )[:, longest:]  # fmt: skip
        texts = tokenizer.batch_decode(out, skip_special_tokens=True)
        if typed:
            for text in texts:
                kind.read(text)
        value_s = time.perf_counter() - began_s
        tokens = int(
            out.numel() if not typed else sum(len(tokenizer.encode(text, add_special_tokens=False)) + 1 for text in texts)
        )
        return Writing(tokens, 0, tokens / value_s, value_s), out.shape[1]

    _, length = written(typed=True)  # compiles the grammar
    typed, free = [], []
    for _ in range(sizes.repeat):
        free.append(written(typed=False, length=length)[0])
        typed.append(written(typed=True)[0])
    name = f"{sizes.texts} orders, transformers"
    return {f"{name}, untyped": median(free), f"{name} and {PEER}, typed": median(typed)}


def run(
    sizes: Sizes,
    *,
    model: str = KNOWN,
    device: str = "auto",
    dtype: str = "float32",
    tell: Callable[[str], None] = lambda _: None,
) -> Figures:
    """Measure everything.

    Args:
        sizes: how much.
        model: "default", "random:SHAPE", a hub id or a folder.
        device: "auto", "cpu" or "cuda".
        dtype: of the model's weights.
        tell: hears what is being done.

    Raises:
        UsageError: no such shape.
        ParrotError: the model cannot be loaded.
    """
    folder = find_model(model)
    settings: dict[str, Any] = {"model": folder, "device": device, "dtype": dtype}
    tell("loading the model twice: without guesses, and with them")
    with Session(**settings, off=WITHOUT) as plain, Session(**settings, off=WITHOUT[:1]) as guessing:
        tell("writing")
        rows = Measuring(plain, guessing, sizes).rows()
        with plain:
            prompts = [prompt_ids(order_function(typed=True), given) for given in order_inputs(sizes.texts)]
        where_it_ran = plain.models()[0].device
    tell("meeting types for the first time")
    met = first_use(folder, sizes)
    missing = None if importlib.util.find_spec(PEER) is not None else f"{PEER} is not installed"
    if missing is None:
        tell(f"writing with transformers and {PEER}")
        rows |= measure_peer(folder, dtype, where_it_ran, sizes, prompts)
    return Figures(rows, met, missing)


def prompt_ids(function: SemanticFunction[..., Any], inputs: Sequence[Any]) -> list[int]:
    """The token ids of a prompt up to its output."""
    ids: list[int] = []
    for segment in function.render(*inputs):
        if segment.kind == "output":
            break
        ids += segment.token_ids
    return ids


def rows(figures: Figures) -> list[tuple[str, ...]]:
    """The table, below its `HEADER`: typed texts are set against the untyped ones before them, and guesses against none."""
    lines: list[tuple[str, ...]] = []
    free: Writing | None = None
    for name, row in figures.rows.items():
        typed = ", typed" in name
        without = figures.rows.get(name.removesuffix(", with guesses"))
        lines.append(
            (
                name,
                str(row.tokens),
                f"{row.guessed / row.tokens:.0%}" if row.guessed else "",
                f"{row.tokens_per_s:.0f}",
                f"{row.tokens_per_s / free.tokens_per_s:.2f}" if typed and free is not None else "",
                f"{row.value_s:.2f} s",
                f"{without.value_s / row.value_s:.2f}" if without is not None and without is not row else "",
            )
        )
        free = free if typed else row
    met = figures.first_use
    lines += [
        (name, "", "", "", "", f"{1e3 * seconds:.0f} ms", "")
        for name, seconds in (
            ("first type of a model", met.tables_s),
            ("a function with a new type of many fields, defined", met.defined_s),
            ("that type, compiled for the model", met.compiled_s),
        )
    ]
    return lines


def render(lines: Sequence[tuple[str, ...]], *, markdown: bool = False) -> str:
    """The table as text."""
    return aligned(HEADER, lines, markdown=markdown)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(
        prog="python -m parrot_nb.bench typed", description="What a type of an output costs, and what certain tokens save."
    )
    own = Sizes()
    line.add_argument("--model", default=KNOWN, help="default (parrot-tiny), random:SHAPE, a hub id or a folder")
    line.add_argument("--device", default="auto", help="auto, cpu or cuda")
    line.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    line.add_argument("--threads", type=int, help="of torch; as the environment has it if not given")
    line.add_argument("--texts", type=int, default=own.texts, help="orders that are written at the same time")
    line.add_argument("--fields", type=int, default=own.fields, help="of the large object")
    line.add_argument("--types", type=int, default=own.types, help="large types that are met for the first time")
    line.add_argument("--repeat", type=int, default=own.repeat, help="measured runs")
    line.add_argument("--json", type=Path, help="write everything that was measured there")
    line.add_argument("--markdown", action="store_true", help="print a Markdown table")
    return line


def main(arguments: Sequence[str]) -> int:
    """Run the command; 2 for a mistake in it."""
    asked = parser().parse_args(arguments)

    def measure() -> Figures:
        sizes = Sizes(**{name: at_least_one(f"--{name}", getattr(asked, name)) for name in Sizes.__slots__})
        if asked.threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(at_least_one("--threads", asked.threads))
        return run(sizes, model=asked.model, device=asked.device, dtype=asked.dtype, tell=tell)

    def report(figures: Figures) -> int:
        sys.stdout.write(f"{render(rows(figures), markdown=asked.markdown)}\n\n{footer(figures, asked.model, asked.dtype)}\n")
        if asked.json is not None:
            told = {"machine": machine(), "model": asked.model, "dtype": asked.dtype, "figures": asdict(figures)}
            asked.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        return 0

    return exit_code(measure, report)


def footer(figures: Figures, model: str, dtype: str) -> str:
    """Under the table: what it is about and how to get it again."""
    command = " ".join(["python -m parrot_nb.bench", *sys.argv[1:]])
    missing = [f"without a peer: {figures.peer}"] if figures.peer else []
    return "\n".join([f"typed on {model} in {dtype}; {command}", *missing, where()])
