"""Makes parrot-tiny: `python -m parrot_nb.tiny.train FOLDER`.

The same seed and machine make the same data and start; weights may differ in the last bits between kinds of processor.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from parrot_nb.tiny.lessons import BATCH_TOKENS, LENGTHS, Batch, batches
from parrot_nb.tiny.network import CONTEXT_TOKENS, Network, model_config
from parrot_nb.tiny.tokens import NO_TARGET, Encoder, write_tokenizer

SEED = 20_240_710
NUM_TOKENS = 120_000_000

_BATCHES_PER_STEP = 2
_MATRIX_RATE, _OTHER_RATE = 0.02, 3e-3
_WARMUP_STEPS = 100
# (share of all steps, share of the full rate): down to nothing, and thrice more from less than half
_RATES = (
    (0.0, 1.0), (0.30332, 1.0), (0.32771, 0.8507), (0.50002, 0.0), (0.50823, 0.45), (0.73333, 0.0), (0.74250, 0.5), (0.90000, 0.0), (0.91, 0.4), (1.0, 0.0),
)  # fmt: skip
_REPORT_STEPS = 100
_SAVE_STEPS = 400


def train(
    folder: Path, *, num_tokens: int, seed: int, device: str, compiled: bool, resume: bool, stop_after_steps: int | None = None
) -> None:
    """Train and write a checkpoint into `folder`, which is made if it does not exist.

    Args:
        folder: where the checkpoint and, while it is not finished, the state of training go.
        num_tokens: how much to train on, padding included.
        seed: of weights and data.
        device: a torch device.
        compiled: whether to use torch.compile, which needs a C++ compiler on the CPU.
        resume: whether to go on from the state in `folder`.
        stop_after_steps: leave off earlier, to be resumed.
    """
    from tokenizers import Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, CONTEXT_TOKENS)
    encoder = Encoder(Tokenizer.from_file(str(folder / "tokenizer.json")))
    torch.manual_seed(seed)
    network = Network().to(device)
    optimizers = _optimizers(network)
    num_steps = num_tokens // (_BATCHES_PER_STEP * BATCH_TOKENS)
    state_file = folder / "training.pt"
    first = 0
    if resume and state_file.exists():
        state = torch.load(state_file, map_location=device)
        network.load_state_dict(state["network"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first = state["step"]
    decoder = _compiled(network.model) if compiled else network.model
    report = Report()
    source = batches(encoder, num_tokens, seed)
    for step in range(num_steps):
        step_batches = [next(source) for _ in range(_BATCHES_PER_STEP)]
        if step < first:
            continue
        rate = _rate(step, num_steps)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_rate"] * rate
        for batch in step_batches:
            _learn(network, decoder, batch, device, report)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % _REPORT_STEPS == 0:
            report.show(step + 1, num_steps)
            report = Report()
        if (step + 1) % _SAVE_STEPS == 0 or step + 1 in {num_steps, stop_after_steps}:
            partial = state_file.with_suffix(".partial")
            torch.save(
                {"network": network.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step + 1}, partial
            )
            partial.replace(state_file)
            write_checkpoint(folder, network, encoder)
        if step + 1 == stop_after_steps:
            return


def _compiled(decoder: Any) -> Any:
    """One piece of machine code for each length of batch."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = 2 * len(LENGTHS)  # noqa: SLF001 - where torch keeps its settings
    return torch.compile(decoder, dynamic=False)


def _learn(network: Network, decoder: Any, batch: Batch, device: str, report: Report) -> None:
    """Add one batch's gradients."""
    ids = torch.zeros(len(batch.rows), batch.length, dtype=torch.long)
    targets = torch.full_like(ids, NO_TARGET)
    weights = torch.zeros(ids.shape)
    for i, row in enumerate(batch.rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        targets[i, : len(row.targets)] = torch.tensor(row.targets)
        # Long answers are easier by the token, short ones are as important: each counts by the root of its length.
        weights[i] = sum(target != NO_TARGET for target in row.targets) ** -0.5
    asked = targets != NO_TARGET
    hidden = decoder(ids.to(device))
    wanted = targets[asked].to(device)
    logits = network.logits(hidden[asked.to(device)])
    weight = weights[asked].to(device)
    losses = F.cross_entropy(logits, wanted, reduction="none")
    ((losses * weight).sum() / weight.sum() / _BATCHES_PER_STEP).backward()
    report.add(batch, asked, losses.detach(), (logits.detach().argmax(-1) == wanted))


def _optimizers(network: Network) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, Adam for embeddings and norms."""
    matrices = [p for name, p in network.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in network.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=_MATRIX_RATE, weight_decay=0.0, momentum=0.95)
    adam = torch.optim.AdamW(others, lr=_OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["full_rate"] = group["lr"]
    return [muon, adam]


def _rate(step: int, num_steps: int) -> float:
    """The share of the full rate: up at once, level, down to nothing."""
    done = step / num_steps
    for (start, high), (end, low) in pairwise(_RATES):
        if done < end:
            return min((step + 1) / _WARMUP_STEPS, high + (low - high) * (done - start) / (end - start))
    return 0.0


class Report:
    """Report on the last steps: loss, speed, and for each kind of case the share that came out right to the last token.

    Every case is new, so this is accuracy on unseen cases (of combinations that are trained on).
    """

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._tokens, self._loss, self._asked = 0, 0.0, 0
        self._right: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, batch: Batch, asked: Tensor, losses: Tensor, right: Tensor) -> None:
        """Take in a batch."""
        self._tokens += asked.numel()
        self._loss += float(losses.sum())
        self._asked += len(losses)
        wrong = torch.zeros(asked.shape, dtype=torch.bool)
        wrong[asked] = ~right.cpu()
        for label, row_wrong in zip(batch.labels, wrong.any(1).tolist(), strict=True):
            self._right[label].append(not row_wrong)

    def show(self, step: int, num_steps: int) -> None:
        """Write a line."""
        seconds = time.monotonic() - self._start
        shares = " ".join(f"{label}:{100 * sum(r) / len(r):.0f}" for label, r in sorted(self._right.items()))
        sys.stdout.write(
            f"{step}/{num_steps} loss {self._loss / self._asked:.4f} {self._tokens / seconds:,.0f} tok/s  {shares}\n"
        )
        sys.stdout.flush()


def write_checkpoint(folder: Path, network: Network, encoder: Encoder) -> None:
    """Write config, generation config and weights (as float16, which halves the file and changes no answer we know of)."""
    from safetensors.torch import save_file

    weights = {name: tensor.detach().half().contiguous().cpu() for name, tensor in network.state_dict().items()}
    if not all(math.isfinite(float(tensor.float().abs().max())) for tensor in weights.values()):
        raise FloatingPointError("A weight does not fit into float16.")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    ends = {"eos_token_id": [encoder.end_id, encoder.turn_end_id], "pad_token_id": encoder.end_id}
    for name, content in {
        "config.json": model_config(encoder.end_id, encoder.turn_end_id),
        "generation_config.json": {"do_sample": False, "parrot_heal": False, **ends},
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m parrot_nb.tiny.train", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the checkpoint goes")
    parser.add_argument("--tokens", type=int, default=NUM_TOKENS, help="how much to train on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", action="store_true", help="do not use torch.compile")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    said = parser.parse_args()
    train(
        said.folder, num_tokens=said.tokens, seed=said.seed, device=said.device, compiled=not said.no_compile, resume=said.resume
    )


if __name__ == "__main__":
    main()
