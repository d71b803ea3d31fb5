"""Errors of ours for requests that an engine refuses, and for failures of a step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from parrot_nb.engine.losses import device_is_lost
from parrot_nb.engine.memory import first_line, forget_locals, ran_out_of_memory
from parrot_nb.engine.protocol import ModelInfo, Verdict
from parrot_nb.errors import ContextLengthError, EngineError, EngineLostError, OutOfMemoryError

if TYPE_CHECKING:
    from parrot_nb.engine.embedded.engine import EmbeddedEngine


def as_engine_error(error: BaseException) -> EngineError:
    """A model's exception as one of ours, without what its frames refer to."""
    forget_locals(error)
    message = _message(error)
    if ran_out_of_memory(error):
        failure: EngineError = OutOfMemoryError(
            "The device ran out of memory in a step: lower --kv-memory, or load a smaller model."
        )
    elif isinstance(error, EngineError):
        return error
    else:
        failure = EngineError(f"The model failed in a step with {type(error).__name__}: {message}")
    failure.__cause__ = error
    return failure


def as_text_error(error: BaseException) -> EngineError:
    """An EngineError for an exception that a tokenizer raised over generated tokens."""
    if isinstance(error, EngineError):
        return error
    forget_locals(error)
    failure = EngineError(f"The tokenizer failed over the generated text with {type(error).__name__}: {_message(error)}")
    failure.__cause__ = error
    return failure


def wrong_number(num_chosen: int, num_samples: int) -> EngineError:
    """An EngineError for a step that chose another number of tokens than was asked for."""
    return EngineError(f"The model chose {num_chosen} tokens in a step that asked for {num_samples}.")


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # a foreign exception's own code
        return "(its message cannot be read)"


def too_long(num_tokens: int, max_context_tokens: int, model: ModelInfo) -> ContextLengthError:
    """Return the error that refuses a text of so many tokens, where a context ends sooner."""
    if max_context_tokens < model.max_context_tokens:
        return ContextLengthError(
            f"The text has {num_tokens} tokens, but the KV cache holds {max_context_tokens}: give it more with --kv-memory, or shorten the text."
        )
    return ContextLengthError(
        f"The text has {num_tokens} tokens, but the context of '{model.id}' ends at {max_context_tokens}: shorten it, or split it and use map()."
    )


def no_room(num_tokens: int, room_tokens: int) -> OutOfMemoryError:
    """An OutOfMemoryError for a text that needs a larger KV cache than a device has room for now."""
    return OutOfMemoryError(
        f"The text has {num_tokens} tokens, and the device has no memory for more than {room_tokens} now: free some of it, or "
        "shorten the text."
    )


def unknown_token(token_ids: Sequence[int], num_embeddings: int, model: ModelInfo) -> EngineError:
    """An EngineError for tokens of which one is not among those that a model knows."""
    token = next(token for token in token_ids if not 0 <= token < num_embeddings)
    return EngineError(
        f"The text has the token {token}, and '{model.id}' knows those below {num_embeddings}: use the tokenizer that came with "
        "the model."
    )


def stalled(model: ModelInfo, seconds: float) -> EngineLostError:
    """Return the error of an engine whose step has not ended in so many seconds."""
    return EngineLostError(
        f"A step of '{model.id}' has not ended in {seconds:g} s, so its engine was given up: P.Session(step_timeout=...) waits "
        "longer; call again, and the model is loaded anew once that step holds its memory no longer.",
        stalled=True,
    )


def lost_device(device: object, error: BaseException) -> EngineLostError:
    """An EngineLostError for a device on which every call fails until the process ends; does not return where the process is a
    runtime's own, which ends."""
    reason = f"{device} computes nothing more for this process, after {type(error).__name__} ({first_line(error)})"
    device_is_lost(reason)
    return EngineLostError(f"{reason}: restart the kernel.", stalled=True)  # an engine in its place would not run either


def as_lost(error: BaseException) -> EngineLostError:
    """Return the error by which an engine's contexts are told that it has ended."""
    if isinstance(error, EngineLostError):
        return error
    failure = EngineLostError(f"The engine failed with {type(error).__name__}: {error}; call again, it is loaded anew.")
    failure.__cause__ = error
    return failure


def note(engine: EmbeddedEngine, verdict: Verdict, lost: Collection[str]) -> None:
    """Note at an engine what its model decided in a step, and which parts no longer run. Called by the worker: one assignment."""
    swapped = tuple(part for part in engine.model.swapped if part not in lost)
    engine.model = replace(engine.model, swapped=swapped, verdicts=(*engine.model.verdicts, verdict))
