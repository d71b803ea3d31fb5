"""The attention benchmark, small."""

from __future__ import annotations

import json

from parrot_nb.bench.kernels import PAGE, contexts, main


def test_contexts_share_what_they_say():
    rows = contexts(4, 64, 20)
    assert [row.num_cached_tokens + 1 for row in rows] == [84] * 4
    assert len(set.intersection(*(set(row.pages) for row in rows))) == 64 // PAGE
    halves = contexts(4, 64, 20, levels=2)
    assert len(set(halves[0].pages) & set(halves[1].pages)) == 4
    assert len(set(halves[0].pages) & set(halves[2].pages)) == 2
    assert not set(contexts(2, 0, 20)[0].pages) & set(contexts(2, 0, 20)[1].pages)


def test_on_the_cpu(tmp_path, capsys):
    file = tmp_path / "kernels.json"
    assert main(["--device", "cpu", "--case", "3,64,10", "--repeat", "1", "--json", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:7:2]] == [
        "3 x (64 shared + 10)",
        "3 x (32 + 32 in halves + 10)",
        "3 x 10 unshared",
    ]
    figures = json.loads(file.read_text())["figures"]
    assert {figure["system"] for figure in figures} == {"two-phase", "paged"}
    assert all(figure["seconds"] > 0 and figure["layers"] > 1 for figure in figures)
    ideal = {figure["case"]: figure["ideal_bytes"] for figure in figures}  # 4 Hkv D tokens + 4 B Hq D, in bf16
    assert ideal["3 x (64 shared + 10)"] == 4 * 4 * 64 * (64 + 3 * 10) + 4 * 3 * 8 * 64
    assert ideal["3 x (32 + 32 in halves + 10)"] == 4 * 4 * 64 * (3 * 32 + 3 * 10) + 4 * 3 * 8 * 64
    assert main(["--case", "3"]) == 2
