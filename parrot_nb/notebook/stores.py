"""`%parrot store`: open, list, clear and export the store of the session."""

from __future__ import annotations

import re
from datetime import datetime

from IPython.core.error import UsageError

from parrot_nb.notebook.commands import STORE_OPTIONS, STORE_WORDS
from parrot_nb.notebook.report import Report, clipped, report
from parrot_nb.runtime.store_file import Generation
from parrot_nb.session import Session

LISTED = 20  # of what was stored last
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def run_store(session: Session, arguments: list[str]) -> Report:
    """Do what `%parrot store` is told, and report it.

    Raises:
        UsageError: words that do not go together.
        SessionError: the store cannot be used.
    """
    files, said = _parsed(arguments)
    alone = [word for word in ("--clear", "--export", "--off") if word in said]
    if len(alone) + bool(files) > 1 or ("--messages" in said and "--export" not in said):
        raise UsageError("%parrot store takes a file, --clear, --export FILE or --off: one of them at a time.")
    limits = {name: _limit(word, said[word]) for word, name in STORE_OPTIONS.items() if word in said}
    if limits and not files:
        raise UsageError("--size and --days are said with the file, as in %parrot store results.db --size 200MB.")
    if "--off" in said:
        session.store.close()
        return report("Nothing is stored from now on; the file stays as it is.", [])
    if "--clear" in said:
        count = session.store.clear()
        return report(f"{count} texts were deleted; what this session remembers stays until %parrot reset.", [])
    if "--export" in said:
        count = session.store.export(said["--export"], messages="--messages" in said)
        return report(f"{count} texts were written to {said['--export']}.", [])
    if files:
        session.store.open(files[0], **limits)  # type: ignore[arg-type]
    if session.store.path is None:
        return report("Nothing is stored: %parrot store results.db keeps what is generated from then on.", [])
    return _listed(session)


def _parsed(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the files and the options with their values, empty for a switch."""
    files: list[str] = []
    said: dict[str, str] = {}
    words = list(arguments)
    while words:
        word, _, value = words.pop(0).partition("=")
        if word in STORE_OPTIONS or word == "--export":
            if not value and not words:
                raise UsageError(f"{word} needs a value.")
            said[word] = value or words.pop(0)
        elif word in STORE_WORDS:
            said[word] = ""
        elif word.startswith("--"):
            raise UsageError(f"%parrot store has no option '{word}': choose from {', '.join((*STORE_OPTIONS, *STORE_WORDS))}.")
        else:
            files.append(f"{word}={value}" if value else word)
    if len(files) > 1:
        raise UsageError(f"%parrot store takes one file, not '{files[0]}' and '{files[1]}'.")
    return files, said


def _limit(word: str, value: str) -> float:
    if word == "--days":
        try:
            days = float(value)
        except ValueError:
            days = 0.0
        if not 0 < days < 1e6:
            raise UsageError(f"--days must be a number of days above 0, not '{value}'.")
        return days
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", value, re.IGNORECASE)
    if match is None or not 1 <= float(match[1]) * UNITS[match[2].upper()] < 2**62:
        raise UsageError(f"--size must be a number of bytes, or like 200MB, not '{value}'.")
    return int(float(match[1]) * UNITS[match[2].upper()])


def _listed(session: Session) -> Report:
    count, num_bytes, bounds = session.store.size()
    size = f"{_size(num_bytes)} of {_size(bounds.max_bytes)}"
    title = f"{session.store.place}: {count} texts, {size}, kept for {bounds.max_days:g} days"
    if count > LISTED:
        title += f"; the last {LISTED}"
    rows = [_row(generation) for generation in session.store.generations(LISTED)]
    return report(title, rows, ("made", "function", "output", "prompt", "text", "model") if rows else None)


def _row(generation: Generation) -> tuple[str, ...]:
    output = generation.output if generation.kind == "value" else f"{generation.output} (thinking)"
    made = datetime.fromtimestamp(generation.made_s).astimezone().strftime("%Y-%m-%d %H:%M")
    prompt = generation.turns[-1][1] if generation.turns else ""
    refused = " (refused)" if generation.refused else ""
    return made, generation.function, output + refused, clipped(prompt), clipped(generation.value), generation.model


def _size(num_bytes: int) -> str:
    for unit, name in ((2**30, "GB"), (2**20, "MB"), (2**10, "kB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.3g} {name}"
    return f"{num_bytes} bytes"
