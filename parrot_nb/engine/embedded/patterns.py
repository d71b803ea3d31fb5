"""Regular expressions of a tokenizer, tried on texts that make bad ones run for ever, before any text depends on them.

The library that runs them holds the interpreter's lock meanwhile, so that no other thread could break them off. It gives a match up
after ten million steps, a quarter of a second, and begins anew at the next character: a text of a thousand characters takes minutes.
The texts here grow from a few characters on, and the first that takes too long is the last, so that a trial ends after a second or two
whatever the expression.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from parrot_nb.engine.embedded.vocabulary import parts_of
from parrot_nb.errors import ModelLoadError

# Of Qwen, Llama 3, GPT-4o and Falcon, and of the many that took theirs; tests try them.
KNOWN = frozenset({
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
})  # fmt: skip
MAX_PATTERN_CHARS = 20_000  # the longest in use have about 1,000
MAX_PATTERNS = 64
# Thread time, not clock time: a busy machine is no reason. Honest expressions need a microsecond a character.
FREE_S, S_PER_CHAR = 0.05, 1e-5
SHORT_CHARS, LONG_CHARS = (12, 18, 22, 26, 64), (256, 1024, 4096)
LETTERS = (
    "a",
    "A",
    "1",
    " ",
    "\n",
    "\r",
    "\t",
    "!",
    "'",
    "_",
    "é",
    "你",
    "\u0301",
)  # of every class that tokenizers part texts by
ENDS = ("", "!", "1", "\x00", "\n")
NAMED = re.compile(r"\\[pP]\{[^}]*\}|\\.|\(\?[^:)]*[:)]?|\{\d*,?\d*\}")  # of an expression: what is not meant as it stands
LITERAL = re.compile(r"[^\\[\](){}.*+?|^$]+")
MAX_WORDS = 40


def check_patterns(name: str, backend: Any) -> None:
    """Refuse a tokenizer one of whose regular expressions runs too long, or fails, on any of the texts.

    Args:
        name: of the model, for messages.
        backend: the tokenizer.

    Raises:
        ModelLoadError: it has one, or too many, or too long ones.
    """
    found = dict.fromkeys(_patterns(parts_of(backend)))
    if len(found) > MAX_PATTERNS or any(len(pattern) > MAX_PATTERN_CHARS for pattern in found):
        raise ModelLoadError(
            f"The tokenizer of '{name}' has more or longer regular expressions than any in use: choose another model."
        )
    for pattern in found:
        if pattern not in KNOWN and not is_quick(pattern):
            shown = pattern if len(pattern) <= 60 else f"{pattern[:60]}…"
            raise ModelLoadError(
                f"The tokenizer of '{name}' has a regular expression that can run for hours on a short text ({shown!r}): choose "
                "another model, or put a tokenizer.json without it into its folder."
            )


def _patterns(part: Any) -> Iterator[str]:
    """The regular expressions in parts of a tokenizer, as data."""
    if isinstance(part, dict):
        if isinstance(expression := part.get("Regex"), str):
            yield expression
        for inner in part.values():
            yield from _patterns(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _patterns(inner)


def is_quick(pattern: str) -> bool:
    """Whether an expression takes no longer on any of the texts than it may, and fails on none."""
    from tokenizers import Regex, normalizers

    try:
        replace: Callable[[str], str] = normalizers.Replace(Regex(pattern), "").normalize_str
        for text in _texts(pattern):
            start_s = time.thread_time()
            replace(text)
            if time.thread_time() - start_s > FREE_S + S_PER_CHAR * len(text):
                return False
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # Rust's panic is no Exception: it gave up, or cannot compile the expression
        return False
    return True


def _texts(pattern: str) -> Iterator[str]:
    """Texts that repeat a word, after a beginning and before an end that may keep the whole from matching; short ones first."""
    runs = list(dict.fromkeys(LITERAL.findall(NAMED.sub("(", pattern))))
    chars = list(dict.fromkeys("".join(runs)))[:8]
    words = [*LETTERS, *chars, *runs[:8], *(a + b for a in chars[:4] for b in chars[:4] if a != b), "a ", " a", "a1", "\n "]
    words = list(dict.fromkeys(words))[:MAX_WORDS]
    begins = ["", *runs[:2]]
    ends = [*ENDS, *("\x00" + run for run in runs[-3:])]  # an expression is not tried at all where a text lacks what it must hold
    for num_chars in SHORT_CHARS:
        for word in words:
            body = (word * num_chars)[:num_chars]
            yield from (begin + body + end for begin in begins for end in ends)
    for num_chars in LONG_CHARS:
        yield from (begin + (word * num_chars)[:num_chars] + ends[-1] for word in words for begin in begins)
