"""Models of the hub: what is fetched, resumed, refused and found again without a network, against a stand-in."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import transformers as hf
from checkpoints import SHAPE, random_checkpoint
from model_hub import ModelHub

from parrot_nb.engine.embedded.hub import HubId, hub_id, local_folder
from parrot_nb.engine.loads import Load
from parrot_nb.errors import ModelLoadError

FETCH = """
import json, sys
from parrot_nb.engine.embedded.hub import local_folder
from parrot_nb.engine.loads import Load
from parrot_nb.errors import ModelLoadError

told = []
for name, revision in json.loads(sys.argv[1]):
    try:
        said = {"folder": local_folder(name, revision, Load(told.append))}
    except ModelLoadError as error:
        said = {"kind": type(error).__name__, "error": str(error)}
    said["told"] = [(p.phase, p.done_files, p.num_files, p.done_bytes, p.num_bytes) for p in told]
    told.clear()
    print(json.dumps(said), flush=True)
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


@pytest.fixture
def hub():
    with ModelHub() as opened:
        yield opened


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A model of 400 kB, with twins of its weights that nobody here needs."""
    folder = random_checkpoint(tmp_path_factory.mktemp("small"), hf.LlamaConfig(**SHAPE))
    for twin in ("pytorch_model.bin", "model.onnx", "model-q4.gguf", "consolidated.safetensors", "model.fp16.safetensors"):
        (folder / twin).write_bytes(b"x" * 10_000)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (folder / "README.md").write_text("a model")
    (folder / "modeling_own.py").write_text("raise SystemExit")
    return folder


@pytest.fixture(scope="module")
def medium(tmp_path_factory) -> Path:
    """A model of 40 MB, which takes a while to come: the library takes it in pieces of 10 MB."""
    config = hf.LlamaConfig(**SHAPE | {"hidden_size": 512, "intermediate_size": 1500})
    return random_checkpoint(tmp_path_factory.mktemp("medium"), config)


def fetch(hub: ModelHub, cache: Path, *wanted: str | tuple[str, str | None], **more: str) -> list[dict]:
    """What a process of its own gets of the hub, one answer for each id."""
    pairs = [one if isinstance(one, tuple) else (one, None) for one in wanted]
    done = subprocess.run(
        [sys.executable, "-c", FETCH, json.dumps(pairs)],
        env=hub.environment(cache, **more),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no bars, no warnings"
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_only_what_is_needed_is_fetched_and_told(hub, small, tmp_path):
    hub.add("acme/smol", small)
    (got,) = fetch(hub, tmp_path, "acme/smol")
    needed = {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "model.safetensors",
    }
    assert set(hub.downloads()) == needed
    assert {path.name for path in Path(got["folder"]).iterdir()} == needed
    for name in needed:
        assert (Path(got["folder"]) / name).read_bytes() == (small / name).read_bytes()
    size = sum((small / name).stat().st_size for name in needed)
    assert got["told"][0] == ["downloading", 0, len(needed), 0, size]
    assert got["told"][-1] == ["downloading", len(needed), len(needed), size, size]


def test_shards_are_those_of_the_index(hub, tmp_path):
    folder = random_checkpoint(tmp_path / "sharded", hf.LlamaConfig(**SHAPE), max_shard_size="40KB")
    shards = {path.name for path in folder.glob("model-*.safetensors")}
    assert len(shards) > 1
    (folder / "model-99999-of-99999.safetensors").write_bytes(b"of an older upload")
    hub.add("acme/sharded", folder)
    (got,) = fetch(hub, tmp_path / "cache", "acme/sharded")
    assert {path.name for path in Path(got["folder"]).glob("*.safetensors")} == shards
    (folder / min(shards)).unlink()
    hub.sent.clear()
    (got,) = fetch(hub, tmp_path / "other", "acme/sharded")
    assert min(shards) in got["error"]
    assert "model-" not in " ".join(hub.downloads()).replace("model.safetensors.index.json", ""), "no shard in vain"


def test_revisions(hub, small, medium, tmp_path):
    hub.add("acme/smol", small).revisions["v2"] = medium
    main, tag, other = fetch(hub, tmp_path, "acme/smol", "acme/smol@v2", ("acme/smol", "v2"))
    assert main["folder"] != tag["folder"] == other["folder"]
    assert json.loads((Path(tag["folder"]) / "config.json").read_text())["hidden_size"] == 512
    unknown, local = fetch(hub, tmp_path, "acme/smol@v3", (str(small), "v2"))
    assert "no revision 'v3'" in unknown["error"]
    assert "only models of the hub have revisions" in local["error"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("a/b", None), HubId("a/b")),
        (("a/b@c", None), HubId("a/b", "c")),
        (("a/b@refs/pr/1", None), HubId("a/b", "refs/pr/1")),
        (("a/b", "c"), HubId("a/b", "c")),
        (("a/b@c", "c"), HubId("a/b", "c")),
    ],
)
def test_ids_with_revisions(given, expected):
    assert hub_id(*given) == expected


@pytest.mark.parametrize(("model", "revision"), [("a/b@c", "d"), ("a/b@", None)])
def test_ids_that_contradict_themselves(model, revision):
    with pytest.raises(ModelLoadError, match="revision"):
        hub_id(model, revision)


@pytest.mark.parametrize("path", ["/nowhere/at/all", "./here", "~/model", "file.gguf", "a/b/c"])
def test_paths_are_left_as_they_are(path):
    assert local_folder(path, None, Load()) == path


def test_what_is_cached_needs_no_hub(hub, small, tmp_path):
    hub.add("acme/smol", small)
    (first,) = fetch(hub, tmp_path, "acme/smol")
    hub.sent.clear()
    (again,) = fetch(hub, tmp_path, "acme/smol")
    assert (again["folder"], hub.downloads(), again["told"]) == (first["folder"], [], [])
    hub.requests.clear()
    (offline, other) = fetch(hub, tmp_path, "acme/smol", "acme/other", HF_HUB_OFFLINE="1")
    assert offline["folder"] == first["folder"]
    assert "HF_HUB_OFFLINE" in other["error"]
    assert hub.requests == []
    nobody = "http://127.0.0.1:9"  # where nothing listens
    without, missing = fetch(hub, tmp_path, "acme/smol", "acme/other", HF_ENDPOINT=nobody)
    assert without["folder"] == first["folder"]
    assert "cannot be reached" in missing["error"]
    hub.repositories["acme/smol"].refusal = (503, "Busy")
    (busy,) = fetch(hub, tmp_path, "acme/smol")
    assert busy["folder"] == first["folder"]


def test_a_half_fetched_model_is_not_taken_for_a_whole_one(hub, small, tmp_path):
    hub.add("acme/smol", small)
    (first,) = fetch(hub, tmp_path, "acme/smol")
    (Path(first["folder"]) / "model.safetensors").unlink()
    (offline,) = fetch(hub, tmp_path, "acme/smol", HF_HUB_OFFLINE="1")
    assert "not complete" in offline["error"]


def test_refusals_say_what_to_do(hub, small, medium, tmp_path):
    hub.add("acme/gated", small, refusal=(403, "GatedRepo"))
    hub.add("acme/late", small, files_refusal=(401, "GatedRepo"))  # as the hub does: all may list a gated repository
    hub.add("acme/old", small, moved_to="acme/new")
    hub.add("acme/new", small)
    hub.add("acme/huge", small, sizes={"model.safetensors": 10**16})
    hub.add("acme/forbidden", small, files_refusal=(403, "Blocked"))
    pickled, gguf = tmp_path / "pickled", tmp_path / "gguf"
    for folder, weights in ((pickled, "pytorch_model.bin"), (gguf, "model.Q4_K_M.gguf")):
        shutil.copytree(small, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.gguf", "*.onnx"))
        (folder / weights).write_bytes(b"x")
        hub.add(f"acme/{folder.name}", folder)
    cases = {
        "acme/gated": ("accept its licence", f"{hub.address}/acme/gated", "HF_TOKEN"),
        "acme/late": ("accept its licence", "HF_TOKEN"),
        "acme/unknown": ("no model 'acme/unknown'", "HF_TOKEN"),
        "acme/huge": ("10000000.0 GB", "HF_HOME"),
        "acme/forbidden": ("403",),
        "acme/pickled": ("pickle",),
        "acme/gguf": ("GGUF",),
        "a--b/c": ("no model 'a--b/c'",),
    }
    *refused, renamed = fetch(hub, tmp_path / "cache", *cases, "acme/old")
    for (name, words), said in zip(cases.items(), refused, strict=True):
        assert all(word in said["error"] for word in words), said
        assert said["error"].endswith("."), said
        assert "\n" not in said["error"], said
        assert len(said["error"]) < 260, said
        assert name.split("/")[1] in said["error"]
    assert Path(renamed["folder"], "model.safetensors").read_bytes() == (small / "model.safetensors").read_bytes()


@pytest.mark.parametrize("where", ["refusal", "files_refusal"])
def test_an_overloaded_hub_is_given_up_soon(hub, small, tmp_path, where):
    hub.add("acme/busy", small, **{where: (503, "Busy")})
    (got,) = fetch(hub, tmp_path, "acme/busy")
    assert "overloaded" in got["error"]
    assert len(hub.requests) <= 6, "the library alone asks for 23 seconds"


STOPPED = """
import sys, threading
from parrot_nb.engine.embedded.hub import local_folder
from parrot_nb.engine.loads import Load, LoadStoppedError

load = Load(lambda progress: load.stop() if progress.done_bytes > 2_000_000 else None)
try:
    local_folder("acme/medium", None, load)
except LoadStoppedError as error:
    sys.stdout.write(str(error))
"""


def test_a_stopped_download_is_resumed(hub, medium, tmp_path):
    hub.add("acme/medium", medium, rate=15e6)
    done = subprocess.run(
        [sys.executable, "-c", STOPPED], env=hub.environment(tmp_path), capture_output=True, text=True, timeout=60, check=True
    )
    assert "goes on where it ended" in done.stdout
    assert done.stderr == ""
    time.sleep(0.2)
    size = (medium / "model.safetensors").stat().st_size
    sent = hub.sent["model.safetensors"]
    assert 2_000_000 < sent < size
    hub.repositories["acme/medium"].rate = None
    (got,) = fetch(hub, tmp_path, "acme/medium")
    assert Path(got["folder"], "model.safetensors").read_bytes() == (medium / "model.safetensors").read_bytes()
    assert hub.sent["model.safetensors"] - sent < size, "only the rest"
