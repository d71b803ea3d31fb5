"""A model that is loading, in words."""

from __future__ import annotations

from parrot_nb.engine.loads import LoadPhase, LoadProgress

DOING: dict[LoadPhase, str] = {"reading": "reading files", "packing": "packing weights", "compiling": "compiling layers"}
MB = 10**6


def loading_words(model: str, progress: LoadProgress | None, waited_s: float) -> str:
    """Return the progress of loading a model, on one line."""
    if progress is None:
        return f"loading {model} · {waited_s:.0f} s"
    if progress.phase != "downloading":
        return f"loading {model} · {DOING[progress.phase]} · {waited_s:.0f} s"
    parts = [f"downloading {model}", f"{progress.done_files} of {progress.num_files} files"]
    parts.append(f"{_mb(progress.done_bytes)} of {_mb(progress.num_bytes)} MB")
    if progress.bytes_per_s:
        parts.append(f"{_mb(int(progress.bytes_per_s))} MB/s")
        parts.append(f"{_duration((progress.num_bytes - progress.done_bytes) / progress.bytes_per_s)} left")
    return " · ".join(parts)


def _mb(num_bytes: int) -> str:
    mb = num_bytes / MB
    return f"{mb:,.0f}" if mb >= 10 else f"{mb:.1f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
