"""Options: one set of names everywhere, checked in one place, the most specific wins."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from parrot_nb.errors import OptionError

SAMPLING_NAMES = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "ignore_eos",
    "begin",
    "heal",
    "thinking",
)
FUNCTION_NAMES = (*SAMPLING_NAMES, "model", "chat", "system", "fresh")


@dataclass(frozen=True, slots=True)
class Options:
    """How text is generated. None means: not said here, ask the next less specific level.

    Attributes:
        max_tokens: most tokens to generate, at least 1.
        temperature: 0 is greedy.
        top_p: nucleus probability mass, in (0, 1].
        top_k: most likely tokens to choose from; 0 is all.
        min_p: least probability, relative to the likeliest token's, in [0, 1].
        seed: makes a sample reproducible; in [0, 2**63).
        stop: strings that end the output; they are not part of it.
        ignore_eos: go on to `max_tokens` even past the model's end-of-sequence token.
        begin: text that the output begins with; it is part of the value, and the model goes on from there.
        heal: let the model choose the token that spans the seam between prompt text and output (token healing); False fills
            the prompt's last token as it stands.
        thinking: whether a model that can think before it answers does (`SemanticVariable.thinking`), or with a number, in how
            many tokens at most; None leaves thinking out where the chat template can.
        model: hub id or local folder of the model to run on.
        chat: use the tokenizer's chat template; None is "where it has one".
        system: text of a system turn (chat only).
        fresh: generate anew also what has been generated before and would come out the same.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    ignore_eos: bool | None = None
    begin: str | None = None
    heal: bool | None = None
    thinking: bool | int | None = None
    model: str | None = None
    chat: bool | None = None
    system: str | None = None
    fresh: bool | None = None

    @classmethod
    def checked(cls, **values: Any) -> Options:
        """Options from user input.

        Raises:
            OptionError: an unknown name or an unusable value; says which and what would do.
        """
        known = {f.name for f in fields(cls)}
        for name in values:
            if name not in known:
                raise OptionError(f"Unknown option '{name}': choose from {', '.join(sorted(known))}.")
        return cls(**{name: _check(name, value) for name, value in values.items() if value is not None})

    def over(self, less_specific: Options) -> Options:
        """These options where they say something, `less_specific` elsewhere."""
        return replace(less_specific, **self.said())

    def said(self) -> dict[str, Any]:
        """The options that say something, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}


DEFAULTS = Options(max_tokens=256, temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, stop=(), ignore_eos=False, heal=True)


def _check(name: str, value: Any) -> Any:
    match name:
        case "max_tokens":
            return _integer(name, value, low=1, remedy="at least 1")
        case "top_k":
            return _integer(name, value, low=0, remedy="0 (all tokens) or more")
        case "seed":
            return _integer(name, value, low=0, high=2**63 - 1, remedy="a whole number from 0 to 2**63 - 1")
        case "thinking":
            remedy = "True, False or the most tokens to think, at least 1"
            return value if isinstance(value, bool) else _integer(name, value, low=1, remedy=remedy)
        case "temperature":
            return _number(name, value, lambda v: v >= 0, "0 (greedy) or more, and finite")
        case "top_p":
            return _number(name, value, lambda v: 0 < v <= 1, "above 0 and at most 1")
        case "min_p":
            return _number(name, value, lambda v: 0 <= v <= 1, "from 0 to 1")
        case "stop":
            return _stop(value)
        case "ignore_eos" | "chat" | "fresh" | "heal":
            if not isinstance(value, bool):
                raise OptionError(f"{name} must be True or False, not {value!r}.")
            return value
        case _:
            if not isinstance(value, str) or not value:
                raise OptionError(f"{name} must be a non-empty string, not {_shown(value)}.")
            return _whole_text(name, value)


def _integer(name: str, value: Any, *, low: int, high: int | None = None, remedy: str) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        raise OptionError(f"{name} must be {remedy}, not {_shown(value)}.")
    return int(value)


def _number(name: str, value: Any, accept: Any, remedy: str) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        usable = number and math.isfinite(value) and accept(value)
    except OverflowError:  # a whole number beyond all floats
        usable = False
    if not usable:
        raise OptionError(f"{name} must be {remedy}, not {_shown(value)}.")
    return float(value)


def _stop(value: Any) -> tuple[str, ...]:
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, (list, tuple)) or not all(isinstance(s, str) for s in strings):
        raise OptionError(f"stop must be a string or a list of strings, not {_shown(value)}.")
    if not all(strings):
        raise OptionError("stop must not hold an empty string: it would end every output at once.")
    return tuple(_whole_text("stop", text) for text in strings)


def _whole_text(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise OptionError(f"{name} holds half a character (lone surrogate) at position {error.start}: take it out.") from None
    return text


def _shown(value: Any, limit: int = 60) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out whole numbers of thousands of digits
        return "a number of that size"
    return text if len(text) <= limit else text[: limit - 1] + "…"
