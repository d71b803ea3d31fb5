"""`make gpu`: parts that go on where they stopped, and what they write."""

from __future__ import annotations

import json

import pytest

from parrot_nb.bench import runner
from parrot_nb.bench.gpu import FIGURES, PART_S, PARTS, TABLE, Plan, commands, main, run_command, weight_bytes
from parrot_nb.bench.models import PREFIX, SHAPES
from parrot_nb.engine.embedded import device as device_module

RESULT = {"workload": "single", "model": PREFIX + "qwen3-0.6b", "rows": [
    {"system": "parrot", "error": None, "runs": [{"cold": True, "seconds": 2.0, "decoded_tokens": 256}, {"cold": False, "seconds": 1.0, "decoded_tokens": 256}]},
    {"system": "hf", "error": "no room", "runs": []},
]}  # fmt: skip
KERNELS = {"about": "", "figures": [{"case": "16 x 2048", "system": "two-phase", "seconds": 1e-5, "ideal_bytes": 10**7, "flop": 10**9, "ceiling_bytes_per_s": 2e12, "layers": 9}]}  # fmt: skip


class Runs:
    """Runs nothing: each command takes so long and ends so."""

    def __init__(self, **endings):
        self.endings, self.ran, self.now, self.limits = endings, [], 0.0, []

    def __call__(self, command, into, limit_s):
        self.ran.append(command.name)
        self.limits.append(limit_s)
        code, seconds = self.endings.get(command.name.replace(" ", "_"), (0, 1.0))
        self.now += min(seconds, limit_s)
        if code == 0 and command.measures:
            what = KERNELS if command.name == "kernels" else RESULT
            (into / f"{command.name}.json".replace(" ", "_")).write_text(json.dumps(what))
        return code, f"{command.name} says\n"


def plan(folder, runs, *, rehearse=False):
    return Plan(folder, rehearse=rehearse, run=runs, clock=lambda: runs.now)


def test_a_part_goes_on_after_what_failed(tmp_path):
    said, runs = [], Runs(mixed=(3, 5.0))
    assert not plan(tmp_path, runs).part("apps", said.append)
    assert runs.ran == ["copilot", "multi_agent", "mixed", "pipeline"]
    assert said[2] == "mixed: failed with 3 after 5 s"
    again = Runs()
    assert plan(tmp_path, again).part("apps", said.append)
    assert again.ran == ["mixed"]
    assert plan(tmp_path, Runs()).part("apps", said.append)


def test_a_part_ends_within_its_time(tmp_path):
    said, runs = [], Runs(copilot=(None, 1e9), multi_agent=(None, 1e9), mixed=(None, 1e9), pipeline=(None, 1e9))
    assert not plan(tmp_path, runs).part("apps", said.append)
    assert runs.now <= PART_S
    assert all(command.limit_s <= PART_S / 2 for part in PARTS for command in commands(part, rehearse=False))


def test_the_table_has_shares_of_the_bounds(tmp_path):
    runs = Runs()
    for part in PARTS:
        assert plan(tmp_path, runs).part(part, lambda _: None)
    table, figures = (tmp_path / TABLE).read_text(), json.loads((tmp_path / FIGURES).read_text())
    assert "| 16 x 2048 | two-phase | 10.0 | 50% | 100.00 |" in table
    share = 128 * weight_bytes("qwen3-0.6b") / 2e12
    assert f"| single small | qwen3-0.6b | parrot | 128 | {share:.0%} |" in table
    assert "| hf | did not run: no room | |" in table
    assert figures["machine"]["versions"]["torch"]
    assert set(figures["figures"]) == {
        "kernels",
        "step",
        "single small",
        "single large",
        "copilot",
        "multi_agent",
        "mixed",
        "pipeline",
    }


def test_what_was_rehearsed_is_not_taken_for_measured(tmp_path):
    plan(tmp_path, Runs(), rehearse=True).part("single", lambda _: None)
    assert "nothing here is a figure of a GPU" in (tmp_path / TABLE).read_text()
    with pytest.raises(ValueError, match="rehearsed"):
        plan(tmp_path, Runs())


def test_without_a_device_it_says_what_can_be_done(capsys):
    assert main(["--part", "kernels"]) == 2
    assert "REHEARSE=1" in capsys.readouterr().err


def test_weights_are_those_of_the_shapes():
    assert weight_bytes("qwen3-0.6b") == pytest.approx(2 * 0.596e9, rel=0.01)
    assert weight_bytes("qwen3-8b") == pytest.approx(2 * 7.57e9, rel=0.01), "its embedding is not read whole"
    assert set(SHAPES) >= {
        command.arguments[3].removeprefix(PREFIX)
        for part in PARTS
        for command in commands(part, rehearse=False)
        if "--model" in command.arguments
    }


def test_a_command_is_rehearsed(tmp_path):
    command = next(command for command in commands("kernels", rehearse=True) if command.measures)
    code, printed = run_command(command, tmp_path, 100)
    assert code == 0, printed
    assert json.loads((tmp_path / "kernels.json").read_text())["figures"]
    assert run_command(command, tmp_path, 0.01)[0] is None


@pytest.mark.parametrize(
    ("dtype", "device", "num_devices", "expected"),
    [
        ("best", "auto", 1, ("bfloat16",)),
        ("best", "cuda", 1, ("bfloat16",)),
        ("best", "cpu", 1, ("bfloat16", "float32")),
        ("best", "auto", 0, ("bfloat16", "float32")),
        ("float32", "cuda", 1, ("float32",)),
    ],
)
def test_no_float32_model_is_loaded_to_find_the_best_dtype_of_a_gpu(monkeypatch, dtype, device, num_devices, expected):
    monkeypatch.setattr(device_module, "count_cuda", lambda: num_devices)
    assert runner.candidates(dtype, device) == expected
