"""Generation settings that a model's generation_config.json imposes on every generation, and those that it recommends.

`transformers` lets this file change greedy `generate` in some twenty ways. Those in use by language models, a penalty on
repetition and tokens that must not be chosen, are done here as well; of the others the user is told. Settings of sampling are
no more than recommendations, since generation here is greedy unless the user asks for something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from parrot_nb.engine.embedded.step import Suppressed
from parrot_nb.engine.protocol import Sampling

FILE = "generation_config.json"
# Settings that change what `generate` chooses and that are not done here, each with the values that change nothing.
NOT_DONE: Mapping[str, tuple[Any, ...]] = {
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "bad_words_ids": ([],),
    "sequence_bias": ({}, []),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "forced_bos_token_id": (),
    "forced_eos_token_id": ([],),
    "exponential_decay_length_penalty": (),
    "guidance_scale": (1,),
    "remove_invalid_values": (False,),
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0,),
    "dola_layers": (),
    "constraints": ([],),
    "force_words_ids": ([],),
    "watermarking_config": (),
    "stop_strings": ("", []),
    "max_time": (),
    "token_healing": (False,),
}
NOT_DONE_IN_SAMPLING: Mapping[str, tuple[Any, ...]] = {"typical_p": (1,), "epsilon_cutoff": (0,), "eta_cutoff": (0,), "top_h": ()}
LENGTHS = ("max_new_tokens", "max_length")  # where a text of `generate` ends whose call says no length
RECOMMENDED: Mapping[str, Callable[[Any], bool]] = {
    "temperature": lambda value: value >= 0,
    "top_p": lambda value: 0 < value <= 1,
    "top_k": lambda value: value >= 0 and value == int(value) and value < 2**31,
    "min_p": lambda value: 0 <= value <= 1,
    "repetition_penalty": lambda value: 1e-30 < value < 1e30,
}
SHOWN_CHARS = 40


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """Generation settings in a model's files.

    Attributes:
        repetition_penalty: of a generation that says none itself; 1 changes nothing.
        suppressed: tokens that must not be chosen; None for none.
        recommended: sampling options by name, in the order of `RECOMMENDED`; none where the files do not ask for sampling.
        told: for the user, a sentence about each setting that changes or shortens greedy texts.
        heals: False if its makers say, by `parrot_heal`, that it was trained on prompts that end at seams as they stand.
    """

    repetition_penalty: float = 1.0
    suppressed: Suppressed | None = None
    recommended: tuple[tuple[str, float], ...] = ()
    told: tuple[str, ...] = ()
    heals: bool = True

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelDefaults:
        """Read the settings of a generation_config; what cannot be used is told of, and does nothing."""
        told: list[str] = []
        penalty = 1.0
        asked = config.get("repetition_penalty")
        if asked is not None and not _usable("repetition_penalty", asked):
            told.append(_not_done("repetition_penalty", asked))
        elif asked is not None and asked != 1:
            penalty = float(asked)
            told.append(f"repetition_penalty={penalty:g} is what its files ask for: say another to change it, 1 to turn it off.")
        always, first = (_tokens(config, name, told) for name in ("suppress_tokens", "begin_suppress_tokens"))
        if always:
            told.append(f"suppress_tokens: {len(always)} tokens are never chosen, as its files ask for.")
        if first:
            told.append(f"begin_suppress_tokens: {len(first)} tokens are never chosen first, as its files ask for.")
        samples = config.get("do_sample") is True
        for name, neutral in {**NOT_DONE, **(NOT_DONE_IN_SAMPLING if samples else {})}.items():
            value = config.get(name)
            if value is not None and value not in neutral:
                told.append(_not_done(name, value))
        told += [_not_done_length(name, config[name]) for name in LENGTHS if config.get(name) is not None]
        suppressed = Suppressed(always, first) if always or first else None
        return cls(
            penalty, suppressed, _recommended(config) if samples else (), tuple(told), config.get("parrot_heal") is not False
        )

    def over(self, sampling: Sampling) -> Sampling:
        """The sampling of a generation, with the model's penalty where it says none itself."""
        if sampling.repetition_penalty is not None or self.repetition_penalty == 1:
            return sampling
        return replace(sampling, repetition_penalty=self.repetition_penalty)


NO_DEFAULTS = ModelDefaults()


def read_defaults(folder: str | Path) -> ModelDefaults:
    """The defaults of the model in a folder; none where it has no such file, or an unreadable one."""
    try:
        config = json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return NO_DEFAULTS
    return ModelDefaults.of(config) if isinstance(config, dict) else NO_DEFAULTS


def _usable(name: str, value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        return number and isfinite(value) and RECOMMENDED[name](value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _tokens(config: Mapping[str, Any], name: str, told: list[str]) -> tuple[int, ...]:
    value = config.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(token, int) and not isinstance(token, bool) for token in value):
        told.append(_not_done(name, value))
        return ()
    return tuple(token for token in dict.fromkeys(value) if token >= 0)  # -1 stood for "none" in old files


def _recommended(config: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    said = {name: config.get(name) for name in RECOMMENDED}
    if said["temperature"] is None:
        said["temperature"] = 1.0  # what `generate` samples with where the file does not say
    return tuple(
        (name, int(value) if name == "top_k" else float(value))
        for name, value in said.items()
        if value is not None and _usable(name, value)
    )


def _not_done(name: str, value: Any) -> str:
    return f"{name}={_shown(value)} is asked for by its files and not done here: texts can differ from those of transformers' generate."


def _not_done_length(name: str, value: Any) -> str:
    return f"{name}={_shown(value)}, where its files end a text, is not done here: max_tokens says how long a text may get."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"
