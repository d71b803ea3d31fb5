"""A model's fingerprint: a short name for its files, by which texts of the same model are known again.

It costs some reads, not a pass over the weights: every file's name and size, small files whole, and of a large one its first and
last bytes, samples in between, and when it was written; of one in the hub's cache its name there instead, which says its content.
So two models have one fingerprint only if all that is equal, and weights saved again into their folder have another. A copy whose
files are as old as the original's is known again; one with the time of copying is not.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from parrot_nb.engine.embedded.sources import TOKENIZER_FILES, Source

READ = (".json", ".jinja", ".model", ".py", ".safetensors", ".tiktoken", ".txt")  # endings of files that texts depend on
WHOLE_BYTES = 2**20  # files up to this size are read whole; of others as much at the beginning, where the names and shapes are
NUM_SAMPLES, SAMPLE_BYTES = 64, 4096


def fingerprint_of(source: Source) -> str:
    """Return the fingerprint of a model's files, as 32 hexadecimal digits; see the module for what it promises.

    Args:
        source: where the files are, on this machine.

    Raises:
        OSError: a file cannot be read.
    """
    digest = blake2b(digest_size=16)
    for path in _files(source):
        digest.update(f"{path.name}|{path.stat().st_size}|".encode())
        digest.update(_sampled(path))
        digest.update(_version(path).encode())
    return digest.hexdigest()


def _files(source: Source) -> list[Path]:
    """The files that texts depend on, weights before the tokenizer's."""
    if source.gguf is not None:
        return [Path(source.model) / source.gguf]
    model = [path for folder in (Path(source.model), source.adapter) if folder is not None for path in _of_folder(folder)]
    if source.tokenizer == source.model:
        return model
    return model + [path for path in _of_folder(Path(source.tokenizer)) if path.name in TOKENIZER_FILES]


def _of_folder(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in READ and path.is_file())


def _version(path: Path) -> str:
    """Return what tells a large file from the same one before a change that its samples miss: its blob's name, or its time."""
    if (status := path.stat()).st_size <= WHOLE_BYTES:
        return ""
    resolved = path.resolve()
    return resolved.name if resolved.parent.name == "blobs" else str(status.st_mtime_ns)


def _sampled(path: Path) -> bytes:
    """Return a hash of a file's bytes: of all, or of a large file's first, of samples, and of the last."""
    digest, size = blake2b(digest_size=16), path.stat().st_size
    with path.open("rb") as file:
        digest.update(file.read(WHOLE_BYTES))
        rest = max(0, size - WHOLE_BYTES)
        for i_sample in range(NUM_SAMPLES if rest else 0):
            file.seek(WHOLE_BYTES + max(0, rest - SAMPLE_BYTES) * i_sample // (NUM_SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.digest()
