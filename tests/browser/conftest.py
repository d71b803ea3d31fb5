"""A real JupyterLab and a real Notebook 7."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from notebook_pages import Face

LABEXTENSION = Path(__file__).parents[2] / "parrot_nb" / "notebook" / "labextension"


# What each front end is started by; both can be driven through `window.jupyterapp` then.
SERVERS = {
    "lab": ["jupyterlab", "--LabApp.expose_app_in_browser=True"],
    "notebook7": ["notebook", "--JupyterNotebookApp.expose_app_in_browser=True"],
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of a page runs in JupyterLab; one that is marked so, in Notebook 7 too."""
    if "face" in metafunc.fixturenames:
        everywhere = metafunc.definition.get_closest_marker("everywhere")
        metafunc.parametrize("face", list(SERVERS) if everywhere else ["lab"], indirect=True, scope="module")


@pytest.fixture(scope="session")
def servers(tmp_path_factory) -> Iterator[Callable[[str], Face]]:
    """Starts the server of a front end when it is first asked for; its settings are its own."""
    with ExitStack() as stack:
        faces: dict[str, Face] = {}

        def face(name: str) -> Face:
            if name not in faces:
                faces[name] = stack.enter_context(serving(name, tmp_path_factory.mktemp(name)))
            return faces[name]

        yield face


@pytest.fixture(scope="module")
def face(request, servers) -> Face:
    """The front end that the test runs in."""
    return servers(request.param)


@contextmanager
def serving(name: str, home: Path) -> Iterator[Face]:
    folder = home / "work"
    folder.mkdir()
    # Where an installed package has it; the environment of the tests may be of an older state.
    shutil.copytree(LABEXTENSION, home / "data" / "labextensions" / "parrot-nb")
    settings = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_PATH": str(home / "data"),  # comes first: the environment's own extension may be older
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "kernels")]),
    }
    command = [
        sys.executable, "-m", *SERVERS[name], "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0",
        "--ip=127.0.0.1", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/status", timeout=2).close()
                break
            except (OSError, urllib.error.URLError):
                assert server.poll() is None, (home / "server.log").read_text()
                assert time.monotonic() < deadline, f"{name} did not start"
                time.sleep(0.2)
        yield Face(name, address, folder)
        server.terminate()
        server.wait(timeout=20)
