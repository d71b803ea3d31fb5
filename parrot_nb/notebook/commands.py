"""The words of `%parrot`, and what each takes."""

from __future__ import annotations

from collections.abc import Mapping

from parrot_nb.runtime import OPTIMISATIONS

COMMANDS: Mapping[str, str] = {
    "model": "ID-or-path [--revision R --device D --dtype T --quantize none|int8|int4 --kv-memory 2GB --max-context N --engines N --step-timeout S --load-timeout S --sampling greedy|model --compile --reproducible --off NAMES --trust-remote-code]  load another model",
    "graph": "[--still]  show all calls that were made so far, as they go on; --still: as they are now",
    "timeline": "show what every call and every step of the engine did when",
    "vars": "[--all]  list the calls, what they read and what they wrote, a map in one row; --all: each call in its own",
    "store": "[FILE [--size 1GB --days 365] | --clear | --export FILE [--messages] | --off]  keep texts in a file, so that Restart and Run All generates nothing; alone, list what is in it",
    "export": "FILE  write report.html, app.py (a script that runs), trace.json (for Perfetto and P.replay) or graph.svg, .pdf, .png, .dot",
    "bench": "NAME [--systems parrot,hf --off sharing ...]  run a benchmark in processes of its own",
    "cancel": "cancel everything that runs",
    "reset": "cancel everything and forget all calls; models stay loaded",
    "help": "this list",
}
CELL_COMMANDS: Mapping[str, str] = {
    "compare": "--off NAMES [--off NAMES ...]  run the cell as it is and without these, and compare",
    "plan": "build the cell's calls and run none: tokens, what is shared or stored, what does not fit, likely seconds, advice",
    "show": "auto|graph|line|off  run the cell, and show so much of its calls; for all cells: %config Parrot.show",
}
MODEL_OPTIONS: Mapping[str, str] = {
    "--revision": "revision",
    "--device": "device",
    "--dtype": "dtype",
    "--quantize": "quantize",
    "--kv-memory": "kv_memory",
    "--max-context": "max_context",
    "--engines": "engines",
    "--step-timeout": "step_timeout",
    "--load-timeout": "load_timeout",
    "--sampling": "sampling",
    "--off": "off",
}

SWITCHES: Mapping[str, str] = {
    "--compile": "compile",
    "--reproducible": "reproducible",
    "--trust-remote-code": "trust_remote_code",
}
NUMBERS: Mapping[str, tuple[type[int | float], str]] = {  # those of them whose value is a number, and what kind it is
    "--max-context": (int, "a whole number"),
    "--engines": (int, "a whole number"),
    "--step-timeout": (float, "seconds"),
    "--load-timeout": (float, "seconds"),
}
STORE_OPTIONS: Mapping[str, str] = {"--size": "max_bytes", "--days": "max_days"}
STORE_WORDS = ("--clear", "--export", "--messages", "--off")


def known_names() -> tuple[str, ...]:
    """Return the names of optimisations that can be turned off: of the session, and of the embedded engine."""
    from parrot_nb.engine.embedded.loader import OPTIMISATIONS as OF_ENGINE

    return *OPTIMISATIONS, *OF_ENGINE
