"""Peers write what parrot writes, on the same application."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from parrot_nb.bench import Sizes, run
from parrot_nb.bench.worker import counter, open_session, run_once
from parrot_nb.bench.workloads import text_writer
from parrot_nb.errors import ContextLengthError, EngineError, ParrotError

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
SMALL = Sizes(users=3, shared=30, own=3, out=5, chunks=2, chunk=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from checkpoints import checkpoint

    return str(checkpoint(tmp_path_factory.mktemp("peer"), "qwen3"))


def wrote(system: str, folder: str, workload: str, sizes: Sizes = SMALL):
    with open_session(system, model=folder, dtype="float32", device="cpu") as session:
        return run_once(session, workload, sizes, text_writer(counter(session), 0))


@pytest.mark.parametrize("workload", ["copilot", "map_reduce"])
def test_the_same_texts_by_transformers(folder, workload):
    ours = wrote("parrot", folder, workload)
    for system in ("hf", "hf-cb"):
        theirs = wrote(system, folder, workload)
        assert theirs["texts"] == ours["texts"]
        assert theirs["decoded"] == ours["decoded"]
        assert theirs["reused"] == 0
        assert theirs["prefilled"] == ours["prefilled"] + ours["reused"]


def test_continuous_batching_forgets_when_told(folder, tmp_path, monkeypatch):
    """It keeps what it computed from batch to batch, and a cold run must not find that."""
    longer = shutil.copytree(folder, tmp_path / "longer")  # than a block of 256 tokens
    config = json.loads((longer / "config.json").read_text())
    (longer / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
    folder = str(longer)
    from transformers.generation.continuous_batching.cache import PagedAttentionCache

    found = []
    search = PagedAttentionCache.search_prefix_match

    def noted(self, request_id, prompt_ids):
        found.append(search(self, request_id, prompt_ids))
        return found[-1]

    monkeypatch.setattr(PagedAttentionCache, "search_prefix_match", noted)
    sizes = SMALL.but(users=2, shared=600)
    with open_session("hf-cb", model=folder, dtype="float32", device="cpu") as session:
        write = text_writer(counter(session), 0)
        runs = []
        for cold in (True, False, True):
            if cold:
                session.reset()
            runs.append((run_once(session, "copilot", sizes, write)["texts"], sum(found)))
            found.clear()
    (first, cached), (again, cached_warm), (last, cached_cold) = runs
    assert first == again == last
    assert cached == cached_cold < cached_warm
    with open_session("parrot", model=folder, dtype="float32", device="cpu") as session:
        assert run_once(session, "copilot", sizes, text_writer(counter(session), 0))["texts"] == first


def test_a_peer_says_that_a_text_is_too_long(folder):
    with pytest.raises(ContextLengthError, match="'hf' has room for"):
        wrote("hf", folder, "copilot", SMALL.but(users=1, shared=10_000))


class Server(BaseHTTPRequestHandler):
    """Continues a prompt of ids with the ids after its last one; the prompt's length decides whether it gives the ids."""

    def do_GET(self):
        self._reply({"data": [{"id": "counter"}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["temperature"] == 0
        assert asked["ignore_eos"] is True
        ids = [(asked["prompt"][-1] + i) % 50 + 64 for i in range(asked["max_tokens"] - self.server.short)]
        self.server.prompts.append(tuple(asked["prompt"]))
        usage = {} if self.server.silent else {"usage": {"completion_tokens": len(ids)}}
        self._reply({"choices": [{"text": "x", "token_ids": ids}], **usage})

    def _reply(self, message):
        body = json.dumps(message).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.short, running.silent, running.prompts = 0, False, []
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_a_server(folder, server):
    address = f"http://127.0.0.1:{server.server_port}/v1"
    assert wrote(address, folder, "copilot")["decoded"] == 15
    server.short = 1
    with pytest.raises(EngineError, match="4 tokens in place of 5"):
        wrote(address, folder, "copilot")
    server.silent = True
    with pytest.raises(EngineError, match="something else than OpenAI's completions protocol"):
        wrote(address, folder, "copilot")
    with pytest.raises(ParrotError, match="no OpenAI-compatible server"):
        wrote("http://127.0.0.1:1/v1", folder, "copilot")


def test_a_cold_run_on_a_server_has_new_texts(folder, server):
    """Its cache cannot be cleared from outside."""
    address = f"http://127.0.0.1:{server.server_port}/v1"
    result = run("copilot", systems=[address], model=folder, device="cpu", sizes=[SMALL], repeat=2)
    (row,) = result.rows
    assert row.error is None
    assert row.dtype == "its own"
    assert [r.cold for r in row.runs] == [True, False, True, False]
    assert {(r.prefilled_tokens, r.reused_tokens, r.decoded_tokens) for r in row.runs} == {(None, None, 15)}
    runs = [frozenset(server.prompts[at : at + 3]) for at in range(0, len(server.prompts), 3)]
    assert len(runs) == 6  # two to warm up
    assert runs[2] == runs[3] != runs[4] == runs[5]
    assert len(set(runs)) == 4
