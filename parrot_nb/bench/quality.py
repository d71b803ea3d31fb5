"""`python -m parrot_nb.bench quality`: what a narrower dtype or quantised weights cost in quality.

A text of ours, parts of this project's guide, is read by the model in each setting: its perplexity, and at how many places the likeliest next
token is the one that float32 gives. As many rows are computed at a time as in a decoding step, so that what is judged are the products
that write texts, not the bfloat16 copies that read prompts.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from parrot_nb.bench.models import KNOWN, find_model
from parrot_nb.bench.table import aligned, exit_code, machine, tell, where
from parrot_nb.bench.workloads import at_least_one
from parrot_nb.engine.settings import QUANTIZATIONS
from parrot_nb.errors import UsageError

if TYPE_CHECKING:
    from parrot_nb.engine.embedded.decoder import Decoder
    from parrot_nb.engine.embedded.pretrained import Loaded

TEXT_FILE = Path(__file__).with_name("quality.txt")
SETTINGS = ("float32", "bfloat16", *(kind for kind in QUANTIZATIONS if kind != "none"))
ROWS = 4  # computed at a time: every quantised product multiplies integers then
PAGE_SIZE = 16
HEADER = ("weights", "perplexity", "x float32", "same next token as float32")


@dataclass(frozen=True, slots=True)
class Reading:
    """A text as a model reads it.

    Attributes:
        setting: dtype or quantisation of the model.
        log_likelihoods: of each token but the first, after those before it.
        choices: the likeliest token at each of these places.
        told: what is quantised.
    """

    setting: str
    log_likelihoods: Sequence[float]
    choices: Sequence[int]
    told: str = ""

    @property
    def perplexity(self) -> float:
        """Exponential of the mean negative log-likelihood."""
        return math.exp(-sum(self.log_likelihoods) / len(self.log_likelihoods))

    def agreement(self, other: Reading) -> float:
        """Share of places at which the likeliest token is that of another reading."""
        return sum(a == b for a, b in zip(self.choices, other.choices, strict=True)) / len(self.choices)


def read(setting: str, model: str, num_tokens: int, text: str | None = None) -> Reading:
    """Read a text with a model on the CPU.

    Args:
        setting: one of `SETTINGS`.
        model: hub id or path.
        num_tokens: of the text that are read at most.
        text: instead of `TEXT_FILE`.

    Raises:
        ModelError: the model cannot be loaded so.
    """
    import torch

    from parrot_nb.engine.embedded.hub import local_folder
    from parrot_nb.engine.embedded.parts import find_parts
    from parrot_nb.engine.embedded.quantizing import find_quantize
    from parrot_nb.engine.loads import current_load

    quantised, device = setting in QUANTIZATIONS, torch.device("cpu")
    asked = ("auto", setting) if quantised else (setting, "none")
    quantize, dtype = find_quantize(asked[1], device, asked[0], held=False, off=())
    folder = local_folder(model, None, current_load(), code=False)
    parts = find_parts(folder, dtype, device, fused=True, trust_remote_code=False, quantize=quantize)
    token_ids = parts.codec.encode(TEXT_FILE.read_text(encoding="utf-8") if text is None else text)
    token_ids = token_ids[: min(num_tokens, parts.own_context_tokens)]
    if len(token_ids) < 2:
        raise UsageError("A text of at least two tokens is needed: raise --tokens.")
    return _read(setting, _decoder(parts.read()), token_ids, "" if quantize is None else quantize.told("model", ()))


def _decoder(loaded: Loaded) -> Decoder:
    """The decoder to read with: the fused one where there is one."""
    try:
        return loaded.decoder if loaded.fuse is None else loaded.fuse().final()
    except LookupError:
        return loaded.decoder


def _read(setting: str, decoder: Decoder, token_ids: Sequence[int], told: str) -> Reading:
    import torch

    from parrot_kernels import AttentionPlan, ContextRows
    from parrot_nb.engine.embedded.cache import KVMemory
    from parrot_nb.engine.embedded.step import Run

    pages = list(range(-(-len(token_ids) // PAGE_SIZE)))
    memory = KVMemory(decoder.shapes, len(pages) * PAGE_SIZE, decoder.dtype, decoder.device)
    likelihoods: list[float] = []
    choices: list[int] = []
    inputs, targets = torch.tensor(token_ids[:-1]), torch.tensor(token_ids[1:])
    with torch.inference_mode():
        for start in range(0, len(inputs), ROWS):
            ids = inputs[start : start + ROWS]
            plan = AttentionPlan.build([ContextRows(start, len(ids), pages)], PAGE_SIZE, decoder.device)
            logits = decoder(ids, torch.arange(start, start + len(ids)), Run(plan, memory), torch.arange(len(ids))).float()
            after = targets[start : start + ROWS, None]
            likelihoods += logits.log_softmax(-1).gather(1, after)[:, 0].tolist()
            choices += logits.argmax(-1).tolist()
    return Reading(setting, likelihoods, choices, told)


def rows(readings: Sequence[Reading]) -> list[tuple[str, ...]]:
    """Return the table's lines; the first reading is the one in float32."""
    exact = readings[0]
    return [
        (
            one.setting,
            f"{one.perplexity:.3f}",
            f"{one.perplexity / exact.perplexity:.4f}",
            f"{100 * one.agreement(exact):.1f} %",
        )
        for one in readings
    ]


def run(
    model: str, settings: Sequence[str], num_tokens: int, text: str | None = None, tell: Callable[[str], None] = lambda _: None
) -> list[Reading]:
    """Read the text in float32 and in each of these settings."""
    if unknown := [name for name in settings if name not in SETTINGS]:
        raise UsageError(f"There is no setting '{unknown[0]}' of a model's weights: choose from {', '.join(SETTINGS)}.")
    readings = []
    folder = find_model(model)
    for setting in dict.fromkeys((SETTINGS[0], *settings)):
        tell(f"reading in {setting}")
        readings.append(read(setting, folder, num_tokens, text))
    return readings


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(
        prog="python -m parrot_nb.bench quality",
        description="Perplexity of a text, and agreement with float32, by dtype and quantisation of a model's weights; on the CPU.",
    )
    line.add_argument(
        "model", nargs="?", default=KNOWN, help="default (parrot-tiny), random:SHAPE, a hub id, a folder or a .gguf file"
    )
    line.add_argument(
        "--quantize", default=",".join(SETTINGS[1:]), help=f"rows beside float32, with commas between: {', '.join(SETTINGS[1:])}"
    )
    line.add_argument("--tokens", type=int, default=2048, help="of the text that are read at most")
    line.add_argument("--text", type=Path, help="file to read instead of the text that is shipped")
    line.add_argument("--json", type=Path, help="write everything that was measured there")
    line.add_argument("--markdown", action="store_true", help="print a Markdown table")
    return line


def main(arguments: Sequence[str]) -> int:
    """Run the command; 2 for a mistake in it."""
    asked = parser().parse_args(arguments)

    def measure() -> list[Reading]:
        settings = [name.strip() for name in asked.quantize.split(",") if name.strip()]
        return run(asked.model, settings, at_least_one("--tokens", asked.tokens), _text(asked.text), tell)

    def report(readings: list[Reading]) -> int:
        sys.stdout.write(f"{aligned(HEADER, rows(readings), markdown=asked.markdown)}\n\n{footer(readings, asked.model)}\n")
        if asked.json is not None:
            told = {"machine": machine(), "model": asked.model, "readings": [asdict(one) for one in readings]}
            asked.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        return 0

    return exit_code(measure, report)


def footer(readings: Sequence[Reading], model: str) -> str:
    """Under the table: what it is about and how to get it again."""
    command = " ".join(["python -m parrot_nb.bench", *sys.argv[1:]])
    told = [f"{one.setting}: {one.told}" for one in readings if one.told]
    return "\n".join([f"{len(readings[0].choices)} next tokens of a text by {model}; {command}", *told, where()])


def _text(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The text {path} cannot be read ({type(error).__name__}): give --text another.") from error
