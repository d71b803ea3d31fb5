"""Where the benchmark's random models are kept."""

from __future__ import annotations

import sys

import pytest

from parrot_nb.bench.models import cache_folder


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "base/parrot_nb"),
        ("linux", None, "home/.cache/parrot_nb"),
        ("win32", "LOCALAPPDATA", "base/parrot_nb"),
        ("win32", None, "home/AppData/Local/parrot_nb"),
        ("darwin", None, "home/Library/Caches/parrot_nb"),
        ("darwin", "PARROT_NB_CACHE", "base"),
    ],
)
def test_cache_folder_follows_the_platform(tmp_path, monkeypatch, platform, variable, expected):
    for name in ["PARROT_NB_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "base"))
    assert cache_folder() == tmp_path / expected
