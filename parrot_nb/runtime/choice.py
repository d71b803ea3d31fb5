"""The model that a session runs, and how it is loaded."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from parrot_nb.engine.protocol import Engine, StepListener
from parrot_nb.errors import SessionError
from parrot_nb.runtime.engines import check_settings
from parrot_nb.runtime.held import HeldModels
from parrot_nb.runtime.optimisations import OPTIMISATIONS

DEFAULT_MODEL = "parrot-tiny"
NOT_OF_ENGINES = ("engines", "sampling")  # settings that the pool of engines looks at


class ModelChoice:
    """The default model of a session and its settings; written by the runtime thread once the session runs.

    Args:
        model: hub id, path, or a model that the user holds; the embedded default when None.
        tokenizer: of a model that the user holds.
        default: the folder of the embedded default.
        settings: of `parrot_nb.engine.embedded.load_engine`, and `NOT_OF_ENGINES`.

    Attributes:
        said: the model as the user named it; None for the default.
        settings: by name.

    Raises:
        SessionError: a setting cannot be used.
        ModelError: a model that the user holds cannot be served.
    """

    def __init__(self, model: Any, tokenizer: Any, default: Callable[[], Path], settings: dict[str, Any]) -> None:
        self._held = HeldModels()
        self.said = None if model is None else self._held.named(model, tokenizer)
        self.settings = settings
        self._default = default
        self._numbers = itertools.count()
        check_settings(settings)

    @property
    def model(self) -> str:
        """The model of calls that name none."""
        return DEFAULT_MODEL if self.said is None else self.said

    def named(self, model: Any, tokenizer: Any, settings: Mapping[str, Any]) -> str:
        """Check settings for another model, and return the name that it goes by.

        Raises:
            SessionError: an unknown or unusable setting.
            ModelError: a model that the user holds cannot be served.
        """
        unknown = set(settings) - set(self.settings)
        if unknown:
            raise SessionError(f"Unknown model setting '{min(unknown)}': choose from {', '.join(self.settings)}.")
        check_settings(settings)
        return self._held.named(model, tokenizer)

    def holds(self, model: str | None) -> bool:
        """Whether the user holds that model."""
        return model is not None and self._held.has(model)

    @contextmanager
    def changed(self, model: str, settings: Mapping[str, Any]) -> Iterator[None]:
        """Make a model the default; if the body raises, the one before is it again."""
        before = self.said, self.settings
        self._numbers = itertools.count()
        self.said, self.settings = model, {**self.settings, **settings}
        try:
            yield
        except BaseException:
            self.said, self.settings = before
            raise
        finally:
            self._held.keep_only(self.said)

    def load(self, model: str, on_step: StepListener) -> Engine:
        """Load an engine of a model with these settings; blocks, in a thread of its own."""
        from parrot_nb.engine.embedded import load_engine

        source, tokenizer = self._held.get(model, self._default() if model == DEFAULT_MODEL else model)
        others = NOT_OF_ENGINES if model == self.model else (*NOT_OF_ENGINES, "revision")  # said of something else
        settings = {name: value for name, value in self.settings.items() if name not in others}
        settings["off"] = [name for name in settings["off"] if name not in OPTIMISATIONS]
        return load_engine(source, tokenizer=tokenizer, name=model, number=next(self._numbers), on_step=on_step, **settings)
