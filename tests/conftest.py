"""Settings of all tests, and fixtures of several parts.

`pytest --cpu-kind plain` takes away what only some machines have: oneDNN, Triton, huge pages and malloc's settings, as on macOS
and ARM builds. Older x86 CPUs need no option: `ATEN_CPU_CAPABILITY` and `ONEDNN_MAX_CPU_ISA` make torch and oneDNN do without
what newer ones have. Processes that a test starts run on the machine as it is.

`pytest --device stand-in tests/engine` has the engines of these tests compute on a stand-in for a CUDA device.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis.internal.conjecture.engine as hypothesis_engine
import pytest
from hypothesis import Phase, settings

sys.path.insert(0, str(Path(__file__).parent / "real"))

from pretrained import GEMMA, SMOLLM2, UnavailableError

from parrot_nb.session import Session

SHRINKING_S = 20  # hypothesis's own limit is five minutes, and its "explain" phase, which traces all calls, has none
CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


Session.isolates = False  # most tests look into the runtime, or need a thousand of them; both kinds have tests of their own

settings.register_profile("parrot", parent=settings(), phases=[phase for phase in Phase if phase is not Phase.explain])
settings.load_profile("parrot")
hypothesis_engine.MAX_SHRINKING_SECONDS = SHRINKING_S


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register `--cpu-kind` and `--device`."""
    parser.addoption(
        "--cpu-kind",
        choices=("here", "plain"),
        default="here",
        help="here: all that this machine has; plain: no oneDNN, no Triton, nothing of Linux",
    )
    parser.addoption(
        "--device",
        choices=("cpu", "stand-in"),
        default="cpu",
        help="stand-in: the engines of tests/engine compute on a stand-in for a CUDA device, with its streams, graphs and copies",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take away what a plain machine lacks, before any test imports the product."""
    if config.getoption("--cpu-kind") != "plain":
        return
    sys.modules["triton"] = None  # type: ignore[assignment]  # so that importing it fails
    import torch

    from parrot_nb.engine.embedded import hugepages

    torch.backends.mkldnn.enabled = False
    hugepages._libc = functools.cache(lambda: None)


@pytest.fixture(scope="module")  # not longer: while it is open, playwright's event loop runs on this thread
def browser() -> Iterator[object]:
    """Chromium; the test is skipped where there is none, unless this is CI."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs Chromium: install it (Debian: apt-get install chromium).")
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.hookimpl(tryfirst=True)  # before pytest looks at marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by the pretrained model that they ask for, and leave out Gemma's, and those of minutes, unless they are asked for."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        if any(name.startswith("smollm2_") for name in names):
            item.add_marker("real")
        if any(name.startswith("gemma_") for name in names):
            item.add_marker("gemma")
    for mark in ("gemma", "minutes", "architectures"):
        if mark in config.option.markexpr or (mark == "gemma" and os.environ.get(GEMMA.variable)):
            continue
        if left_out := [item for item in items if item.get_closest_marker(mark)]:
            items[:] = [item for item in items if not item.get_closest_marker(mark)]
            config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what a test printed or logged pass between processes: some of it is no text on purpose."""
    report = yield
    report.sections = [(name, _sound(text)) for name, text in report.sections]
    if isinstance(report.longrepr, str) or report.failed:
        told = str(report.longrepr)
        report.longrepr = report.longrepr if told == _sound(told) else _sound(told)
    return report


def _sound(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _there(get: Callable[[], Path]) -> Path:
    """A pretrained model's file or folder; the test is skipped where it cannot be fetched, unless this is CI."""
    try:
        return get()
    except UnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs the pretrained model: {error}")
        pytest.skip(f"no pretrained model: {error}")


@pytest.fixture(scope="session")
def smollm2_folder(request: pytest.FixtureRequest) -> Path:
    """SmolLM2-135M-Instruct in bfloat16, as `save_pretrained` writes it."""
    if not os.environ.get(SMOLLM2.variable):
        request.getfixturevalue("smollm2_gguf")  # where it cannot be fetched, that is tried once
    return _there(SMOLLM2.folder)


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The GGUF file (Q4_1) that `smollm2_folder` is made from."""
    return _there(SMOLLM2.gguf)


@pytest.fixture(scope="session")
def gemma_folder() -> Path:
    """Gemma 3 270M in bfloat16, a base model without chat template; its tests run with `make test-models` alone."""
    return _there(GEMMA.folder)


@pytest.fixture(scope="session")
def gemma_gguf() -> Path:
    """The GGUF file (Q4_K_M) that `gemma_folder` is made from."""
    return _there(GEMMA.gguf)
