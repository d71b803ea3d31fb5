"""How good parrot-tiny is: `python -m parrot_nb.tiny.evaluate` prints the table of its card.

Greedy answers by transformers' own `generate` to new cases, whose combinations of names and objects were never trained
on, compared with the right answer to the last character. Generated code is run as well.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from parrot_nb.tiny.cases import ANSWER, NUM_SIZES, Case
from parrot_nb.tiny.meetings import COMBINE, SUMMARIZE, draw_meeting, listed
from parrot_nb.tiny.tasks import TASKS
from parrot_nb.tiny.tokens import Encoder
from parrot_nb.tiny.words import Draw

NUM_CASES = 200
NUM_TRANSCRIPTS, NUM_CHUNKS = 5, 40

LEAST_PER_TASK, LEAST_ON_AVERAGE = 0.95, 0.98

_BATCH_ROWS = 32
_SPARE_TOKENS = 8  # an answer that does not end where it should is wrong; no need to see all of it
_SEED = "evaluation"

Answer = Callable[[Sequence[tuple[Case, bool]]], list[str]]


@dataclass(frozen=True, slots=True)
class Score:
    """Count of the cases that came out right.

    Attributes:
        task: a key of `tasks.TASKS`, or "map_reduce".
        cases: how many there were.
        exact: how many answers were right to the last character.
        runs: where the answer is code, how many ran and passed the assert; else None.
        examples: some wrong answers, as (prompt's inputs, right answer, given answer).
    """

    task: str
    cases: int
    exact: int
    runs: int | None = None
    examples: tuple[tuple[dict[str, str], str, str], ...] = ()

    @property
    def accuracy(self) -> float:
        """The share of exact answers."""
        return self.exact / self.cases


class Model:
    """The checkpoint, run by transformers in float32.

    Args:
        folder: the checkpoint.
        device: a torch device.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        import torch
        from tokenizers import Tokenizer
        from transformers import AutoModelForCausalLM

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._encoder = Encoder(self._tokenizer)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()

    def answers(self, cases: Sequence[tuple[Case, bool]]) -> list[str]:
        """The greedy answer to the first output of each case; the flag says whether as a chat."""
        prompts = [self._encoder.prompt(case, chat=chat) for case, chat in cases]
        room = [len(self._tokenizer.encode(case.turns()[0].answer).ids) + _SPARE_TOKENS for case, _ in cases]
        answers = [""] * len(cases)
        order = sorted(range(len(cases)), key=lambda i: (room[i], len(prompts[i])))
        for start in range(0, len(order), _BATCH_ROWS):
            rows = order[start : start + _BATCH_ROWS]
            for i, ids in zip(rows, self._generate([prompts[i] for i in rows], max(room[i] for i in rows)), strict=True):
                answers[i] = self._tokenizer.decode(ids)
        return answers

    def _generate(self, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        import torch

        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), self._encoder.end_id)
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):
            ids[i, width - len(prompt) :] = torch.tensor(prompt)
            mask[i, width - len(prompt) :] = 1
        device = self._model.device
        out = self._model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), max_new_tokens=max_new_tokens, do_sample=False
        )
        return [_until_end(row, {self._encoder.end_id, self._encoder.turn_end_id}) for row in out[:, width:].tolist()]


def _until_end(ids: list[int], ends: set[int]) -> list[int]:
    return ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))]


def fresh_cases(task: str, count: int) -> list[tuple[Case, bool]]:
    """Cases of all sizes, with combinations never trained on; every other one as a chat."""
    draw = Draw(f"{_SEED} {task}", held_out=True)
    return [(TASKS[task](draw, i // 2 % NUM_SIZES), i % 2 == 0) for i in range(count)]


def score(answer: Answer, task: str, count: int) -> Score:
    """A task's score."""
    cases = fresh_cases(task, count)
    answers = answer(cases)
    right = [case.turns()[0].answer for case, _ in cases]
    wrong = [
        (dict(case.inputs), wanted, given)
        for (case, _), wanted, given in zip(cases, right, answers, strict=True)
        if wanted != given
    ]
    programs = [
        case.program.replace(ANSWER, given) for (case, _), given in zip(cases, answers, strict=True) if case.program is not None
    ]
    return Score(task, count, count - len(wrong), sum(_run(programs)) if programs else None, tuple(wrong[:5]))


def score_map_reduce(answer: Answer, num_transcripts: int = NUM_TRANSCRIPTS) -> Score:
    """How many of the action items of transcripts in `NUM_CHUNKS` parts a map-reduce recovers: one reduce for all parts."""
    wanted = found = 0
    examples: list[tuple[dict[str, str], str, str]] = []
    for i in range(num_transcripts):
        draw = Draw(f"{_SEED} map-reduce {i}", held_out=True)
        parts, by_part = draw_meeting(draw, NUM_CHUNKS, (6, 10))
        items = [item for part in by_part for item in part]
        most = "- \n" * 60  # only its length matters: how much a summary may write
        mapped = answer([(Case("summarize", SUMMARIZE[0], {"part": part}, {"items": most}), True) for part in parts])
        lines = listed(items)
        reduced = answer([(Case("combine", COMBINE[0], {"parts": "\n".join(mapped)}, {"items": lines}), True)])[0]
        got = set(reduced.split("\n"))
        wanted += len(items)
        found += sum(str(item) in got for item in items)
        if reduced != lines:
            examples.append(({}, lines, reduced))
    return Score("map_reduce", wanted, found, examples=tuple(examples))


_RUNNER = """
import json, sys
passed = []
for program in json.load(open(sys.argv[1])):
    try:
        exec(program, {})
        passed.append(True)
    except BaseException:
        passed.append(False)
json.dump(passed, sys.stdout)
"""


def _run(programs: list[str]) -> list[bool]:
    """Return which programs end without an error; they run in a Python of their own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "programs.json"
        file.write_text(json.dumps(programs), encoding="utf-8")
        done = subprocess.run(  # noqa: S603 - our own interpreter, on code of a model that we trained
            [sys.executable, "-I", "-c", _RUNNER, str(file)], capture_output=True, check=True, timeout=120, cwd=folder
        )
    passed: list[bool] = json.loads(done.stdout)
    return passed


def table(scores: Sequence[Score]) -> str:
    """The scores as a Markdown table, the average of the tasks below."""
    rows = ["| task | cases | exact | runs and passes |", "|---|---|---|---|"]
    for s in scores:
        runs = "" if s.runs is None else f"{s.runs / s.cases:.1%}"
        rows.append(f"| {s.task} | {s.cases} | {s.accuracy:.1%} | {runs} |")
    tasks = [s for s in scores if s.task in TASKS]
    rows.append(f"| *average of the tasks* | | {sum(s.accuracy for s in tasks) / len(tasks):.1%} | |")
    return "\n".join(rows)


def main() -> int:
    """The command; its exit status is 1 where a score is below what is promised."""
    from parrot_nb.tiny.checkpoint import default_model

    parser = argparse.ArgumentParser(prog="python -m parrot_nb.tiny.evaluate", description=__doc__)
    parser.add_argument("--folder", type=Path, help="another checkpoint than the one in the package")
    parser.add_argument("--cases", type=int, default=NUM_CASES, help="cases per task (default: %(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--wrong", action="store_true", help="show wrong answers")
    parser.add_argument("--json", type=Path, help="write the scores to this file")
    said = parser.parse_args()
    model = Model(said.folder or default_model(), said.device)
    scores = [*(score(model.answers, task, said.cases) for task in TASKS), score_map_reduce(model.answers)]
    sys.stdout.write(table(scores) + "\n")
    if said.wrong:
        for s in scores:
            for inputs, right, given in s.examples:
                sys.stdout.write(f"\n{s.task} {inputs}\nright: {right}\ngiven: {given}\n")
    if said.json:
        said.json.write_text(json.dumps([asdict(s) for s in scores], indent=2) + "\n", encoding="utf-8")
    return 0 if good_enough(scores) else 1


def good_enough(scores: Sequence[Score]) -> bool:
    """Whether the scores keep what the card promises."""
    accuracies = [s.accuracy for s in scores if s.task in TASKS]
    return (
        all(s.accuracy >= LEAST_PER_TASK and (s.runs is None or s.runs / s.cases >= LEAST_PER_TASK) for s in scores)
        and sum(accuracies) / len(accuracies) >= LEAST_ON_AVERAGE
    )


if __name__ == "__main__":
    sys.exit(main())
