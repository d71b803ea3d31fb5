"""The store in a session: what was generated once is taken from the file, in another session too, and no call fails for the file."""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import replace

import pytest
from hash_session import HashSession
from shorthand import WAIT_S, f, text_of, until

import parrot_nb as P
from parrot_nb.runtime import messages, store, store_file


class KnownSession(HashSession):
    """A session on hash engines whose weights are known again, as those of models that are loaded from files."""

    fingerprint = "hash"

    def _make(self, model, on_step):
        engine = super()._make(model, on_step)
        engine.model = replace(engine.model, fingerprint=self.fingerprint)
        return engine


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.db"


def num_generated(session: HashSession) -> int:
    return len(session.engine.order) if session.engines else 0


def sentences(recwarn) -> list[str]:
    """What the user was warned of."""
    return [str(warning.message) for warning in recwarn]


def values(session: HashSession, *variables: P.SemanticVariable) -> list[object]:
    return [variable.get(timeout=WAIT_S) for variable in variables]


def test_a_second_session_generates_nothing(path):
    step = f("Step {{input:x}}: {{output:y}} and {{output:z}}", max_tokens=12)
    with KnownSession(store=path) as first:
        made = values(first, *step.map(["a", "b"]).y, *step.map(["a", "b"]).z)
        assert num_generated(first) == 4
    with KnownSession(store=str(path)) as second:
        results = step.map(["a", "b"])
        assert values(second, *results.y, *results.z) == made
        assert num_generated(second) == 0
        usage = results.y[0].usage
        assert (usage.from_memo, usage.decoded_tokens, usage.prefilled_tokens) == (True, 0, 0)
        one = f("Step {{input:x}}: {{output:y}}", max_tokens=12)  # after which nothing else is generated
        assert one("c").get(timeout=WAIT_S) == text_of("Step c: ")
        assert num_generated(second) == 1


def test_two_sessions_use_one_store_at_once(path):
    step = f("Step {{input:x}}: {{output:y}}", max_tokens=12)
    with KnownSession(store=path) as first, KnownSession(store=path) as second:
        with first:
            made = values(first, *step.map(["a", "b", "c"]))
            assert len(first.store.generations()) == 3
        with second:
            there = step.map(["a", "b", "c", "d"])
            assert values(second, *there)[:3] == made
            assert [variable.usage.from_memo for variable in there] == [True, True, True, False]
            assert len(second.store.generations()) == 4


def test_without_a_store_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with KnownSession() as session:
        values(session, f("Step {{input:x}}: {{output:y}}", max_tokens=4)("a"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("options", "known"), [({"temperature": 0.5}, False), ({"temperature": 0.5, "seed": 3}, True)])
def test_samples_are_kept_as_the_memo_keeps_them(path, options, known):
    step = f("Step {{input:x}}: {{output:y}}", max_tokens=4, **options)
    for _ in range(2):
        with KnownSession(store=path) as session:
            values(session, step("a"))
            again = num_generated(session)
    assert again == (0 if known else 1)


def test_other_weights_options_or_prompts_are_other_texts(path):
    step = f("Step {{input:x}}: {{output:y}}", max_tokens=4)
    with KnownSession(store=path) as session:
        values(session, step("a"))
    with KnownSession(store=path) as session:
        values(session, step("b"), step.options(max_tokens=5)("a"), step.options(seed=1, temperature=1.0)("a"))
        assert num_generated(session) == 3
    other = type("Other", (KnownSession,), {"fingerprint": "other"})
    with other(store=path) as session:
        values(session, step("a"))
        assert num_generated(session) == 1


def test_fresh_generates_anew_and_off_stores_nothing(path):
    step = f("Step {{input:x}}: {{output:y}}", max_tokens=4)
    with KnownSession(store=path, off=("memo",)) as session:
        values(session, step("a"))
        assert session.store.generations() == []
    with KnownSession(store=path) as session:
        values(session, step("a"))
    with KnownSession(store=path) as session:
        values(session, step.options(fresh=True)("a"))
        assert num_generated(session) == 1
        assert len(session.store.generations()) == 1


def test_a_store_that_is_opened_later_keeps_what_is_used_from_then_on(path):
    step = f("Step {{input:x}}: {{output:y}}", max_tokens=4)
    with KnownSession() as session:
        values(session, step("a"), step("b"))
        session.store.open(path)
        assert session.store.generations() == []
        values(session, step("a"))
        assert [generation.turns for generation in session.store.generations()] == [(("user", "Step a: "),)]
        session.store.close()
        values(session, step("c"))
        session.store.open(path)
        assert len(session.store.generations()) == 1
        assert session.store.clear() == 1
        values(session, step("a"))
        assert len(session.store.generations()) == 1
        assert num_generated(session) == 3


def test_models_without_files_are_not_stored_and_that_is_said_once(path, recwarn):
    step = f("Step {{input:x}}: {{output:y}}", max_tokens=4)
    with HashSession(store=path) as session:
        values(session, step("a"), step("b"))
        assert session.store.generations() == []
        session.flush()
    (said,) = sentences(recwarn)
    assert said.startswith("Texts of 'hash' are not stored")


def test_what_a_check_refused_is_marked_and_is_no_example(path):
    lines = path.with_name("lines.jsonl")
    asked: list[str] = []

    def every_other(text: str) -> bool:
        asked.append(text)
        return len(asked) % 2 == 0

    step = f("Step {{input:x}}: {{output:y}}", max_tokens=12, retries=2).options(check=every_other)
    for generated in (2, 0):
        with KnownSession(store=path) as session:
            step("a").get(timeout=WAIT_S)
            assert num_generated(session) == generated
            assert sorted(generation.refused for generation in session.store.generations()) == [False, True]
            assert session.store.export(lines, messages=True) == 1


def test_the_export_has_prompts_and_texts(path):
    lines = path.with_name("lines.jsonl")
    with KnownSession(store=path) as session:
        step = P.SemanticFunction(
            "Step {{input:x}}: {{output:y, begin='Well, '}}", name="step", options=P.language.Options(max_tokens=6)
        )
        value = step("é").get(timeout=WAIT_S)
        assert session.store.export(lines) == 1
        record = json.loads(lines.read_text())
        assert record["messages"] == [{"role": "user", "content": "Step é: "}]
        assert {"function": "step", "output": "y", "model": "hash", "text": value, "refused": False}.items() <= record.items()
        assert session.store.export(lines, messages=True) == 1
        assert json.loads(lines.read_text()) == {
            "messages": [{"role": "user", "content": "Step é: "}, {"role": "assistant", "content": value}]
        }


def test_no_call_fails_for_a_full_disk(path, monkeypatch, recwarn):
    step = f("Step {{input:x}}: {{output:y}}", max_tokens=12)
    opened = store_file.StoreFile._opened

    def small(self):
        connection = opened(self)
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
        return connection

    monkeypatch.setattr(store_file.StoreFile, "_opened", small)
    with KnownSession(store=path) as session:
        assert values(session, *step.map([str(i) for i in range(40)])) == [text_of(f"Step {i}: ") for i in range(40)]
        session.store.generations()
        values(session, *step.map([str(i) for i in range(50)]))
    (said,) = sentences(recwarn)
    assert "could not be written (its disk is full)" in said
    assert "make room" in said


@pytest.mark.parametrize("noticed", ["by a call", "by a command"])
def test_no_call_fails_for_a_file_that_is_damaged_while_it_is_used(path, noticed, recwarn, monkeypatch):
    monkeypatch.setattr(store_file, "CHECKED_BYTES", 0)  # as of a file that is too large to be checked at once
    step = f("Step {{input:x}}: {{output:y}}", max_tokens=12)
    names = [str(i) for i in range(60)]
    with KnownSession(store=path) as session:
        values(session, *step.map(names))
    with KnownSession(store=path) as session:
        if noticed == "by a command":
            values(session, *step.map(names))  # SQLite has read the file
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] + b"\xff" * (len(data) // 2))
        if noticed == "by a command":
            assert session.store.generations() == []
        assert values(session, *step.map(names)) == [text_of(f"Step {name}: ") for name in names]
        assert session.store.generations()
        session.flush()
    assert sentences(recwarn) == [f"'{path}' is damaged: it was moved to 'results.db.damaged-1', and a new store begins."]
    with KnownSession(store=path) as session:
        values(session, step("59"))
        assert num_generated(session) == 0


@pytest.mark.parametrize("what", ["newer", "folder"])
def test_a_session_goes_on_without_a_store_that_cannot_be_used(path, what, recwarn):
    if what == "folder":
        path.mkdir()
    else:
        store_file.StoreFile(path).close()
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    with KnownSession(store=path) as session:
        (said,) = sentences(recwarn)
        assert what in said
        assert said.endswith(". Nothing is stored.")
        assert session.store.path is None
        values(session, f("Step {{input:x}}: {{output:y}}", max_tokens=4)("a"))
        with pytest.raises(P.SessionError, match=what):
            session.store.open(path)
        with pytest.raises(P.SessionError, match="Nothing is stored: open a store first"):
            session.store.export("lines.jsonl")


def test_a_store_stays_within_its_limit_while_it_is_used(path):
    step = f("Step {{input:x}}: {{output:y}}", max_tokens=12)
    with KnownSession(store=path) as session:
        session.store.open(path, max_bytes=20_000)
        for i in range(20):
            values(session, *step.map([f"{i} {j}" for j in range(10)]))
            _, num_bytes, bounds = session.store.size()
            assert num_bytes <= 1.3 * bounds.max_bytes  # with what one write may add
        assert num_bytes > 0.5 * bounds.max_bytes


def test_texts_reach_the_file_within_a_second_though_nobody_asks(path):
    with KnownSession(store=path) as session:
        values(session, f("Step {{input:x}}: {{output:y}}", max_tokens=4)("a"))
        other = store_file.StoreFile(path)
        until(lambda: len(other) == 1, "the writing")
        other.close()


@pytest.mark.parametrize("where", ["open_store", "find", "write", "trim"])
def test_calls_go_on_after_an_error_that_is_none_of_sqlites(path, where, monkeypatch, recwarn):
    def forbidden(*_args, **_options):
        raise PermissionError("Not allowed")

    monkeypatch.setattr(store if where == "open_store" else store_file.StoreFile, where, forbidden)
    with KnownSession(store=path) as session:
        step = f("Step {{input:x}}: {{output:y}}", max_tokens=4)
        for name in "abc":
            assert values(session, step(name)) == [text_of(f"Step {name}: ")[:4]]
            session.store.generations()
        session.flush()
    (said,) = sentences(recwarn)
    assert said.startswith(f"'{path}' cannot be used (PermissionError: Not allowed): nothing is stored")


def test_a_text_is_generated_where_the_disk_does_not_answer(path, monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(store, "FIND_S", 0.01)
    monkeypatch.setattr(store_file.StoreFile, "find", lambda *_: answered.wait())
    with KnownSession(store=path) as session:
        values(session, f("Step {{input:x}}: {{output:y}}", max_tokens=4)("a"))
        answered.set()


@pytest.mark.parametrize("name", ["x" * 300 + ".db", "a\0b.db"])
def test_a_session_begins_without_a_store_of_an_impossible_name(path, name, recwarn):
    with KnownSession(store=path.with_name(name)) as session:
        values(session, f("Step {{input:x}}: {{output:y}}", max_tokens=4)("a"))
    (said,) = sentences(recwarn)
    assert "cannot be used as a store (" in said
    assert said.endswith("or name another file. Nothing is stored.")


def test_stored_texts_are_found_while_another_process_writes(path, monkeypatch):
    step = f("Step {{input:x}}: {{output:y}}", max_tokens=4)
    with KnownSession(store=path) as session:
        values(session, step("a"))
    monkeypatch.setattr(store_file, "BUSY_S", 600.0)
    monkeypatch.setattr(store, "WRITE_S", 0.05)
    write, attempts = store_file.StoreFile.write, []

    def counted(self, *what):
        attempts.append(what)
        return write(self, *what)

    monkeypatch.setattr(store_file.StoreFile, "write", counted)
    with KnownSession(store=path) as session:
        assert len(session.store.generations()) == 1
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        values(session, step("b"))
        until(lambda: len(attempts) >= 3, "attempts to write")
        values(session, step("a"))
        assert num_generated(session) == 1
        other.execute("COMMIT")
        other.close()
        assert len(session.store.generations()) == 2


def store_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "parrot-store"}


def test_a_session_that_ends_without_being_closed_leaves_no_store_open(path):
    before = store_threads()
    with KnownSession(store=path) as session:
        values(session, f("Step {{input:x}}: {{output:y}}", max_tokens=4)("a"))
        assert store_threads() > before
        session._connection.end()
        assert store_threads() <= before
        assert len(session.store.generations()) == 1


def test_of_two_stores_opened_at_once_the_last_is_used_and_the_other_closed(path):
    with KnownSession(store=path) as session:
        values(session, f("Step {{input:x}}: {{output:y}}", max_tokens=4)("a"))
        before = store_threads()
        for number, name in ((-1, "second.db"), (-2, "third.db")):
            session.on_loop(session.runtime.handle, messages.Query(number, messages.UseStore(str(path.with_name(name)))))
        memo = session.runtime._executor.memo
        until(lambda: path.with_name("third.db").exists() and not session.runtime._answering, "both stores")
        assert memo.store.path.name == "third.db"
        assert len(store_threads()) == len(before)


def test_a_store_that_looks_damaged_and_is_only_read_is_not_moved(path, monkeypatch, recwarn):
    step = f("Step {{input:x}}: {{output:y}}", max_tokens=4)
    with KnownSession(store=path) as session:
        values(session, step("a"))
    opened = store_file.StoreFile._opened

    def read_only(self):
        self.can_write = False
        return opened(self)

    def damaged(*_):
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(store_file.StoreFile, "_opened", read_only)
    monkeypatch.setattr(store_file.StoreFile, "find", damaged)
    with KnownSession(store=path) as session:
        values(session, step("a"))
        session.flush()
    assert "is read-only" in sentences(recwarn)[0]
    assert "could not be read (database disk image is malformed): nothing is stored" in sentences(recwarn)[-1]
    assert [file.name for file in path.parent.glob("*damaged*")] == []
