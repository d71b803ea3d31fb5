"""A model of the hub in a real kernel: one line that tells how far it has come, interrupts, and what closing stops."""

from __future__ import annotations

import re
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "engine"))

import transformers as hf
from checkpoints import SHAPE, random_checkpoint
from model_hub import ModelHub

MODEL_MB = 40  # of acme/smol in float32


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub with a model of 40 MB."""
    config = hf.LlamaConfig(**SHAPE | {"hidden_size": 512, "intermediate_size": 1500})
    folder = random_checkpoint(tmp_path_factory.mktemp("model"), config)
    with ModelHub() as opened:
        opened.add("acme/smol", folder, rate=20e6)
        opened.add("acme/slow", folder, rate=1e6)
        opened.add("acme/gated", folder, refusal=(403, "GatedRepo"))
        yield opened


@pytest.fixture(scope="module")
def kernel(hub, open_notebook, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        for name, value in hub.environment(tmp_path_factory.mktemp("cache")).items():
            patch.setenv(name, value)
        opened = open_notebook()
    assert opened.run("%load_ext parrot_nb\nimport parrot_nb as P").error is None
    return opened


def test_one_line_tells_how_far_it_has_come(kernel):
    output = kernel.run("%parrot model acme/smol --max-context 64 --kv-memory 8MB")
    assert output.error is None, output.message
    assert output.text == "", "no bars, nothing red"
    texts = [shown["text/plain"] for shown in output.shown]
    assert "acme/smol: LlamaForCausalLM" in texts[-1], texts
    told = [
        found
        for text in texts
        if (found := re.match(r"downloading acme/smol · (\d) of (\d) files · ([\d.]+) of ([\d.]+) MB", text))
    ]
    assert told, texts
    assert {found[2] for found in told} == {told[0][2]}
    sizes = [float(found[3]) for found in told]
    assert sizes == sorted(sizes)
    assert any(" MB/s · " in text and text.endswith(" left") for text in texts)


def test_an_interrupt_is_one_sentence_and_the_session_goes_on(kernel, hub):
    sent = kernel.send("%parrot model acme/slow --max-context 64 --kv-memory 8MB")
    while not hub.sent.get("model.safetensors"):
        time.sleep(0.05)
    kernel.collect(sent, until="display")
    time.sleep(1.0)
    kernel.manager.interrupt_kernel()
    output = kernel.collect(sent)
    assert output.error == "LoadInterrupted"
    assert output.message == "Interrupted: acme/slow was not loaded; what was downloaded is kept, and the session goes on."
    assert output.text == ""
    assert kernel.value("P.current_session().default_model") == "'acme/smol'"
    alive = "any('download' in t.name or 'load' in t.name for t in __import__('threading').enumerate())"
    while kernel.value(alive) == "True":  # the test ends in time, or the kernel's limit does it
        time.sleep(0.1)


def test_a_refusal_is_one_sentence(kernel, hub):
    output = kernel.run("%parrot model acme/gated")
    assert output.error == "ModelLoadError"
    assert output.message.count("\n") == 0
    assert f"accept its licence at {hub.address}/acme/gated" in output.message


def test_closing_ends_a_download(kernel, hub):
    """The prompt waits for a download of 40 seconds."""
    before = hub.sent["model.safetensors"]
    output = kernel.run(
        "import threading\n"
        "s = P.Session(model='acme/slow', max_tokens=3)\n"
        "def read():\n"
        "    try: s.render(f, {})\n"
        "    except P.ParrotError as error: print(type(error).__name__)\n"
        "@P.semantic_function(chat=False)\n"
        "def f():\n"
        "    '''Say {{output:x}}'''\n"
        "t = threading.Thread(target=read); t.start()\n"
        "import time\n"
        "while not any(type(event).__name__ == 'ModelLoading' for event in s.events.since(0)): time.sleep(0.02)\n"
        "time.sleep(0.5); s.close(); t.join(); print('closed')"
    )
    assert output.error is None, output.message
    assert "closed" in output.text
    assert hub.sent["model.safetensors"] - before < 20e6


def test_sessions_that_are_closed_leave_no_threads_and_no_memory(kernel):
    """With views on the page; %parrot model in turn."""
    code = (
        "import gc, threading\n"
        "from pathlib import Path\n"
        "%parrot model acme/smol --max-context 64 --kv-memory 8MB\n"
        "%parrot model parrot-tiny --max-context 64 --kv-memory 8MB\n"
        "P.current_session().close()\n"
        "print(sum(t.name.startswith('parrot') and t.name != 'parrot-warm-up' for t in threading.enumerate()), end=' ')\n"
        "from parrot_nb.notebook.live import LiveViews\n"
        "from parrot_nb.engine.embedded import EmbeddedEngine\n"
        "gc.collect()\n"
        "print(*[sum(type(o) is kind for o in gc.get_objects()) for kind in (EmbeddedEngine, LiveViews)], end=' ')\n"
        "lines = Path('/proc/self/status').read_text().splitlines()\n"
        "print(next(int(l.split()[1]) // 1024 for l in lines if l.startswith('VmRSS')))"
    )
    rounds = [kernel.run(code) for _ in range(5)]
    assert [one.error for one in rounds] == [None] * 5, [one.message for one in rounds]
    threads, engines, views, _ = map(int, rounds[-1].text.split())
    assert (threads, engines) == (0, 0)
    assert views <= 1, "IPython keeps the traceback of the last error, which was one of a load"
    mb = [int(one.text.split()[-1]) for one in rounds]
    # A leak of models shows in every round. A single rise may be memory that malloc keeps, or what a process sets up once.
    assert min(later - earlier for earlier, later in pairwise(mb)) < MODEL_MB, mb
