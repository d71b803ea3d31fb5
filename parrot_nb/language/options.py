"""Options: one set of names everywhere, checked in one place, the most specific wins."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from parrot_nb.errors import OptionError

SAMPLING_NAMES = (
    "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
    "seed", "stop", "ignore_eos", "logprobs", "begin", "heal", "thinking", "retries", "feedback", "score",
)  # fmt: skip
FUNCTION_NAMES = (*SAMPLING_NAMES, "model", "chat", "system", "fresh")
MAX_INT32, MAX_INT64 = 2**31 - 1, 2**63 - 1  # engines keep counts and seeds in integers of these sizes
MIN_FLOAT32, MAX_FLOAT32 = 2.0**-126, (2.0 - 2.0**-23) * 2.0**127  # and their arithmetic is done in float32
MAX_LOGPROBS = 20
MAX_RETRIES = 100
SCORES = ("total", "mean")  # how the likelihoods of choices are compared


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """Settings of a generation. None means: not said here, ask the next less specific level.

    Attributes:
        max_tokens: most tokens to generate, in [1, 2**31).
        temperature: 0 is greedy.
        top_p: nucleus probability mass, in (0, 1].
        top_k: number of most likely tokens to choose from, in [0, 2**31); 0 is all.
        min_p: least probability, relative to the likeliest token's, in [0, 1].
        repetition_penalty: divisor of the positive logits, and factor of the negative ones, of every token in the prompt or in
            the output so far, above 0; 1 changes nothing. None at all levels is what the model's generation_config asks for.
        presence_penalty: amount subtracted from the logits of tokens in the output so far, in [-2, 2].
        frequency_penalty: amount subtracted for each time that a token is in the output so far, in [-2, 2].
        seed: makes a sample reproducible; in [0, 2**63).
        stop: strings that end the output; they are not part of it.
        ignore_eos: go on to `max_tokens` even past the model's end-of-sequence token.
        begin: text that the output begins with; it is part of the value, and the model goes on from there.
        heal: let the model choose the token that spans the seam between prompt text and output (token healing); False fills
            the prompt's last token as it stands. None heals, but for models whose makers say otherwise.
        logprobs: how many of the likeliest other tokens to report beside each token's log-probability, in [0, 20]; True is 0,
            False reports nothing.
        thinking: whether a model that can think before it answers does (`SemanticVariable.thinking`), or with a number, in how
            many tokens at most; None leaves thinking out where the chat template can.
        retries: how often an output may be written again whose type or check refuses it, in [0, 100]; each time with another seed,
            and after a greedy output at temperature 0.7. An output that may be written again does not stream.
        feedback: have the prompt of each further attempt say what was written before and why it would not do: in the `{{retry}}` block
            before the output, else at the end of the prompt. A prompt with such a block asks for it.
        score: write the likeliest of an output's choices, and report how likely each of them is (`SemanticVariable.scores`): "total"
            compares the log-likelihoods of their texts, which favours short ones, and "mean" those per token; True is "total", False
            writes a choice as any text. Where a prompt says nothing else, outputs that are no choices stay as they are.
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
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    ignore_eos: bool | None = None
    begin: str | None = None
    heal: bool | None = None
    logprobs: bool | int | None = None
    thinking: bool | int | None = None
    retries: int | None = None
    feedback: bool | None = None
    score: bool | str | None = None
    model: str | None = None
    chat: bool | None = None
    system: str | None = None
    fresh: bool | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Options) and _exact(self) == _exact(other)

    def __hash__(self) -> int:
        return hash(_exact(self))

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
        """Return these options where they say something, `less_specific` elsewhere."""
        own, others = _values(self), _values(less_specific)
        if own.count(None) == len(own):  # every call merges options a few times, and most say nothing
            return less_specific
        if others.count(None) == len(others):
            return self
        return Options(*[other if value is None else value for value, other in zip(own, others, strict=True)])

    def said(self) -> dict[str, Any]:
        """The options that say something, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}


_values: Callable[[Options], tuple[Any, ...]] = attrgetter(*(f.name for f in fields(Options)))


def _exact(options: Options) -> tuple[Any, ...]:
    """All that tells options apart: `logprobs=False` and 0 are equal numbers and say different things, as do `thinking=True` and 1."""
    return (*_values(options), options.logprobs is False, options.thinking is True)


# repetition_penalty and heal are not among them: where nobody says anything, the model's own count.
DEFAULTS = Options(
    max_tokens=256, temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0, frequency_penalty=0.0,
    stop=(), ignore_eos=False,
)  # fmt: skip


def _check(name: str, value: Any) -> Any:
    match name:
        case "max_tokens":
            return _integer(name, value, low=1, high=MAX_INT32, remedy="at least 1 and below 2**31")
        case "top_k":
            return _integer(name, value, low=0, high=MAX_INT32, remedy="0 (all tokens) or more, and below 2**31")
        case "seed":
            return _integer(name, value, low=0, high=MAX_INT64, remedy="a whole number from 0 to 2**63 - 1")
        case "retries":
            return _integer(name, value, low=0, high=MAX_RETRIES, remedy=f"a whole number from 0 to {MAX_RETRIES}")
        case "thinking":
            remedy = "True, False or the most tokens to think, at least 1"
            return value if isinstance(value, bool) else _integer(name, value, low=1, high=MAX_INT32, remedy=remedy)
        case "temperature":
            return _number(name, value, lambda v: 0 <= v <= MAX_FLOAT32, "0 (greedy) or more, and finite (at most 3.4e38)")
        case "top_p":
            return _number(name, value, lambda v: 0 < v <= 1, "above 0 and at most 1")
        case "min_p":
            return _number(name, value, lambda v: 0 <= v <= 1, "from 0 to 1")
        case "repetition_penalty":
            remedy = "above 0 (1 changes nothing), from 1.2e-38 to 3.4e38"
            return _number(name, value, lambda v: MIN_FLOAT32 <= v <= MAX_FLOAT32, remedy)
        case "presence_penalty" | "frequency_penalty":
            return _number(name, value, lambda v: -2 <= v <= 2, "from -2 to 2 (0 changes nothing)")
        case "logprobs":
            if isinstance(value, bool):
                return 0 if value else False
            remedy = f"a whole number from 0 to {MAX_LOGPROBS}, True or False"
            return _integer(name, value, low=0, high=MAX_LOGPROBS, remedy=remedy)
        case "score":
            if value is not False and value is not True and value not in SCORES:
                raise OptionError(f'score must be True, False, "total" or "mean", not {_shown(value)}.')
            return "total" if value is True else value
        case "stop":
            return _stop(value)
        case "ignore_eos" | "chat" | "fresh" | "heal" | "feedback":
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
