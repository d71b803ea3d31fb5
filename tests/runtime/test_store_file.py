"""The store's file: what it keeps and for how long, and what becomes of files that are damaged, foreign, newer or read-only."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from parrot_nb.engine.protocol import Constraint, GenerationEnd, Sampling, TokenScore
from parrot_nb.engine.scoring import ScoredChoice
from parrot_nb.runtime.store import name_of
from parrot_nb.runtime.store_file import DAY_S, Generation, StoreError, StoreFile, open_store

SCORES = (TokenScore("a", -0.1 - 1e-17, ((" b", -float("inf")),)),)
CHOICES = (ScoredChoice("yes", -0.25, 2, 0.75), ScoredChoice("no", -float("inf"), 1))
END = GenerationEnd("stop", (1, 2), 3, 4, 2, 0.1, 0.2, 0.3, 1, "lead", (0, 1, 2), SCORES, complete=True, choices=CHOICES)


def generation(text: str = "text\0é", **others) -> Generation:
    return Generation("m", "f", "y", "value", (("system", "s"), ("user", "q")), text, END, **others)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def file(path):
    opened = StoreFile(path)
    yield opened
    opened.close()


def test_a_generation_comes_back_as_it_was(file, path):
    file.write([(b"one", generation()), (b"two", generation("other"))], refused=[b"two"], used=[])
    file.close()
    again = StoreFile(path)
    found = again.find(b"one")
    assert {f.name: getattr(found.end, f.name) for f in fields(GenerationEnd)} == {
        f.name: getattr(END, f.name) for f in fields(GenerationEnd)
    }
    assert (found.text, found.messages, found.refused) == ("text\0é", (("system", "s"), ("user", "q")), False)
    assert again.find(b"two").refused
    assert again.find(b"three") is None
    assert [g.text for g in again.generations()] == ["other", "text\0é"]
    again.close()


def test_every_field_of_a_sampling_is_in_the_name():
    base = {"model": "w", "codec": "c", "token_ids": b"1234", "taken_back": b""}
    others = {
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.5, "top_k": 5, "min_p": 0.1, "seed": 7, "stop": ("x",), "ignore_eos": True,
        "repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": 0.5, "logprobs": 2, "constraint": Constraint("regex", "a"), "scoring": "mean",
    }  # fmt: skip
    names = {name_of(sampling=Sampling(8), **base)}
    for field in fields(Sampling):
        value = others.get(field.name)
        assert value is not None, f"Sampling has a new field '{field.name}': name a value of it here"
        names.add(name_of(sampling=Sampling(**{"max_tokens": 8, field.name: value}), **base))
    assert len(names) == 1 + len(fields(Sampling))
    changes = {"model": "v", "codec": "d", "token_ids": b"123", "taken_back": b"4"}
    names |= {name_of(sampling=Sampling(8), **{**base, name: value}) for name, value in changes.items()}
    names.add(name_of("w", "c", b"123", b"4", Sampling(8)))
    assert len(names) == 1 + len(fields(Sampling)) + len(changes) + 1


def test_it_is_bounded_by_size_and_throws_out_what_was_used_longest_ago(file):
    for i in range(10):
        file.write([(bytes([i]), generation("x" * 1000))], [], [])
    file._connection.execute("UPDATE generations SET used_s = used_s - 100000 + made_s - (SELECT max(made_s) FROM generations)")
    file.write([], [], used=[bytes([0])])
    file.set_bounds(max_bytes=file.num_bytes // 2, max_days=None)
    assert file.trim() > 4
    assert 3 <= len(file) <= 5
    assert file.find(bytes([0])) is not None
    assert file.find(bytes([1])) is None
    assert file.find(bytes([9])) is not None
    assert file.trim() == 0


def test_it_is_bounded_by_age(file):
    file.write([(b"old", generation()), (b"new", generation())], [], [])
    file._connection.execute("UPDATE generations SET made_s = made_s - ? WHERE name = ?", (3 * DAY_S, b"old"))
    file.set_bounds(max_bytes=None, max_days=2)
    assert file.trim() == 1
    assert file.find(b"old") is None
    assert file.find(b"new") is not None
    assert (file.clear(), len(file)) == (1, 0)


def written(path: Path) -> bytes:
    file = StoreFile(path)
    file.write([(bytes([i]), generation("x" * 5000)) for i in range(20)], [], [])
    file.close()
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["torn off", "first page", "in the middle", "other bytes"])
def test_a_damaged_store_is_set_aside_and_a_new_one_begun(path, damage):
    data = written(path)
    match damage:
        case "torn off":
            path.write_bytes(data[: len(data) // 2])
        case "first page":
            path.write_bytes(b"\0" * 60 + data[60:])
        case "in the middle":
            path.write_bytes(data[:4096] + b"\xff" * (len(data) - 8192) + data[-4096:])
        case "other bytes":
            path.write_bytes(b"no database at all")
    before = path.read_bytes()
    for number in (1, 2):
        path.write_bytes(before)
        file, notice = open_store(path)
        assert notice == f"'{path}' is damaged: it was moved to 'results.db.damaged-{number}', and a new store begins."
        assert len(file) == 0
        file.close()
    assert path.with_name("results.db.damaged-1").read_bytes() == before


def test_what_is_no_store_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("my notes")
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    newer = tmp_path / "newer.db"
    StoreFile(newer).close()
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    words = {
        "notes.txt": "is no store: name another file",
        "other.db": "SQLite file of another program: name another",
        "newer.db": "was written by a newer parrot_nb",
        ".": "is a folder: name a file in it",
        "nowhere/results.db": "There is no folder",
    }
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for name, said in words.items():
        with pytest.raises(StoreError, match=said):
            open_store(tmp_path / name)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_read_only_store_can_be_read(path, monkeypatch):
    written(path)
    connect = sqlite3.connect

    def read_only(place, **how):
        if not how.get("uri"):
            raise sqlite3.OperationalError(
                "attempt to write a readonly database"
            )  # root may write anywhere: only SQLite can say so here
        return connect(place, **how)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    file, notice = open_store(path)
    assert notice == f"'{path}' is read-only: texts are taken from it, and none are added."
    assert not file.can_write
    assert file.find(bytes([3])).text == "x" * 5000
    file.close()


def test_what_looks_damaged_and_may_not_be_written_stays_where_it_is(path, monkeypatch):
    data = written(path)
    path.write_bytes(data[: len(data) // 2])
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)  # root may write anywhere
    with pytest.raises(StoreError, match=r"is damaged, or is being written .*: get rights to write it, or name another file\."):
        open_store(path)
    assert path.read_bytes() == data[: len(data) // 2]


@pytest.mark.parametrize("method", ["is_dir", "stat"])
def test_a_place_without_rights_is_said(path, method, monkeypatch):
    def forbidden(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, method, forbidden)  # root may read anything
    with pytest.raises(
        StoreError, match=r"results.db' cannot be used as a store \(Permission denied\): see to its folder's rights"
    ):
        open_store(path)


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_store_file import generation
from parrot_nb.runtime.store_file import StoreFile
sys.stdin.readline()
file = StoreFile(Path({path!r}))
for i in range(30):
    file.write([((sys.argv[1] + str(i)).encode(), generation())], [], [])
print(len(file))
"""


def test_two_processes_write_at_once(path):
    code = WRITER.format(tests=str(Path(__file__).parent), path=str(path))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ}
        )
        for name in "ab"
    ]
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    counts = [int(writer.communicate(timeout=60)[0]) for writer in writers]
    assert max(counts) == 60
    file = StoreFile(path)
    assert len(file) == 60
    file.close()
