"""Peers write what parrot writes, on the same application."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from parrot_nb.bench import Sizes
from parrot_nb.bench.worker import counter, open_session, run_once
from parrot_nb.bench.workloads import text_writer
from parrot_nb.errors import EngineError, ParrotError

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
SMALL = Sizes(users=3, shared=30, own=3, out=5, chunks=2, chunk=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from checkpoints import checkpoint

    return str(checkpoint(tmp_path_factory.mktemp("peer"), "qwen3"))


def wrote(system: str, folder: str, workload: str):
    with open_session(system, model=folder, dtype="float32", device="cpu") as session:
        return run_once(session, workload, SMALL, text_writer(counter(session), 0))


@pytest.mark.parametrize("workload", ["copilot", "map_reduce"])
def test_the_same_texts_by_transformers(folder, workload):
    ours = wrote("parrot", folder, workload)
    for system in ("hf", "hf-cb"):
        theirs = wrote(system, folder, workload)
        assert theirs["texts"] == ours["texts"]
        assert theirs["decoded"] == ours["decoded"]
        assert theirs["reused"] == 0
        assert theirs["prefilled"] == ours["prefilled"] + ours["reused"]


class Server(BaseHTTPRequestHandler):
    """Continues a prompt of ids with the ids after its last one; the prompt's length decides whether it gives the ids."""

    def do_GET(self):
        self._reply({"data": [{"id": "counter"}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["temperature"] == 0
        assert asked["ignore_eos"] is True
        ids = [(asked["prompt"][-1] + i) % 50 + 64 for i in range(asked["max_tokens"] - self.server.short)]
        self._reply({"choices": [{"text": "x", "token_ids": ids}], "usage": {"completion_tokens": len(ids)}})

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
        running.short = 0
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_a_server(folder, server):
    address = f"http://127.0.0.1:{server.server_port}/v1"
    assert wrote(address, folder, "copilot")["decoded"] == 15
    server.short = 1
    with pytest.raises(EngineError, match="4 tokens in place of 5"):
        wrote(address, folder, "copilot")
    with pytest.raises(ParrotError, match="no OpenAI-compatible server"):
        wrote("http://127.0.0.1:1/v1", folder, "copilot")
