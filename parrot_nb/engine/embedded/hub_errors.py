"""Errors for a hub that does not hand out a model, each as one sentence that says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parrot_nb.errors import ModelLoadError

if TYPE_CHECKING:
    from parrot_nb.engine.embedded.hub import HubId

OVERLOADED = {408, 429, 500, 502, 503, 504}


def is_unreachable(error: BaseException, *, only_overloaded: bool = False) -> bool:
    """True if the hub did not answer, or answered that it cannot now; `only_overloaded` leaves a missing network out."""
    error = _origin(error)
    if (status := _status(error)) is not None:
        return status in OVERLOADED
    if _is_timeout(error):
        return True
    return not only_overloaded and _is_of_network(error)


def explained(model: HubId, error: Exception) -> ModelLoadError:
    """An exception of `huggingface_hub` as a sentence with the remedy."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        DisabledRepoError,
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"{constants.ENDPOINT}/{model.repo}"
    match error := _origin(error):
        case GatedRepoError():
            said = (
                f"'{model}' is gated: accept its licence at {page}, set HF_TOKEN to a token of that account, and load it again."
            )
        case RevisionNotFoundError():
            said = f"'{model.repo}' has no revision '{model.revision or 'main'}': {page}/branches lists what it has."
        case RepositoryNotFoundError() | HFValidationError():
            said = (
                f"The hub has no model '{model.repo}' that may be read from here: check the id, or give a local folder; if it is "
                "private, set HF_TOKEN to a token that may read it."
            )
        case DisabledRepoError():
            said = f"The hub has disabled '{model.repo}': choose another model; {page} may say why."
        case EntryNotFoundError() if _status(error) is not None:
            said = f"'{model}' changed while it was fetched: load it again."
        case _ if _status(error) == 429:
            said = f"The hub refuses '{model}' for now, for too many requests: wait a few minutes, or set HF_TOKEN."
        case _ if _status(error) in OVERLOADED or _is_timeout(error):
            said = f"The hub is overloaded or too slow to answer for '{model}': try again in some minutes; what has come is kept."
        case _ if _status(error) is not None:
            said = f"The hub refuses '{model}' with HTTP status {_status(error)}: check HF_TOKEN, or look at {page}."
        case _ if _is_of_network(error):
            said = f"The hub at {constants.ENDPOINT} cannot be reached for '{model}': check the network, or give a local folder."
        case OSError():
            said = f"'{model}' cannot be written to '{constants.HF_HUB_CACHE}' ({error.strerror or type(error).__name__}): set HF_HOME."
        case _:
            said = f"'{model}' cannot be downloaded ({type(error).__name__}): try again, or give a local folder."
    return ModelLoadError(said)


def _status(error: BaseException) -> int | None:
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _is_timeout(error: BaseException) -> bool:
    return isinstance(error, TimeoutError) or any("Timeout" in kind.__name__ for kind in type(error).__mro__)


def _is_of_network(error: BaseException) -> bool:
    """The classes are those of whichever HTTP library `huggingface_hub` is built on, or Python's own."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, ConnectionError) or bool(names & {"TransportError", "NetworkError", "LocalEntryNotFoundError"})


def _origin(error: Any) -> Any:
    """Return the error that the library met before it looked into its cache and found nothing there either."""
    if type(error).__name__ == "LocalEntryNotFoundError":
        return error.__cause__ or error.__context__ or error
    return error
