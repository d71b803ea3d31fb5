"""Models that the user holds, by the names under which a session serves them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from parrot_nb.errors import SessionError


class HeldModels:
    """Models of transformers with their tokenizers."""

    def __init__(self) -> None:
        self._models: dict[str, tuple[Any, Any]] = {}

    def named(self, model: Any, tokenizer: Any) -> str:
        """Return the name of a model: its id or path, or the class of one that the user holds, which is kept here.

        Raises:
            SessionError: a tokenizer for a model that brings its own.
            ModelError: a model that cannot be served.
        """
        if isinstance(model, (str, Path)):
            if tokenizer is not None:
                raise SessionError("tokenizer goes with a model that you hold: a model by its id or path brings its own.")
            return str(model)
        from parrot_nb.engine.embedded import check_module

        check_module(model, tokenizer)
        kind = name = type(model).__name__
        for number in itertools.count(2):
            if name not in self._models or self._models[name][0] is model:
                break
            name = f"{kind} #{number}"  # what serves another one now still goes by the name that it has
        self._models[name] = model, tokenizer
        return name

    def has(self, name: str) -> bool:
        """Whether a model goes by that name."""
        return name in self._models

    def keep_only(self, name: str | None) -> None:
        """Let go of all models but this one."""
        self._models = {known: held for known, held in self._models.items() if known == name}

    def get(self, name: str, otherwise: Any) -> tuple[Any, Any]:
        """A model and its tokenizer; where the user holds none of that name, what is given and no tokenizer."""
        return self._models.get(name, (otherwise, None))
