"""Models that cannot be loaded, each answered with one sentence: what is wrong, then what to do."""

from __future__ import annotations

from pathlib import Path

from parrot_nb.errors import ModelError, ModelLoadError, UnsupportedModelError


def check_folder(model_id: str) -> None:
    """Say what is wrong with a local folder before transformers guesses that a hub id was meant."""
    folder = Path(model_id).expanduser()
    if not folder.is_dir():
        looks_local = folder.exists() or folder.is_absolute() or model_id.startswith((".", "~")) or model_id.count("/") > 1
        if looks_local:
            raise ModelLoadError(
                f"There is no folder '{model_id}': give a hub id or a folder with config.json and safetensors files."
            )
        return
    if not (folder / "config.json").is_file():
        raise ModelLoadError(f"The folder '{model_id}' has no config.json: give a folder made by save_pretrained().")
    if not any(folder.glob("*.safetensors")):
        other = any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth"))
        found = "only pickle weights, which can run code when loaded" if other else "no weights"
        raise ModelLoadError(f"The folder '{model_id}' has {found}: save the model as safetensors, with save_pretrained().")


def explained(model_id: str, error: Exception, what: str = "model") -> ModelError:
    """Transformers' exception as one sentence with the remedy."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if "trust_remote_code" in text:
        return ModelLoadError(
            f"'{model_id}' brings Python code of its own: load it with --trust-remote-code if you trust its author."
        )
    if (
        "SafetensorError" in kind
        or ("safetensor" in text.lower() and "header" in text.lower())
        or "incomplete metadata" in text.lower()
    ):
        return ModelLoadError(f"The safetensors file of '{model_id}' is damaged or cut short ({text[:120]}): get it again.")
    if (
        "does not recognize this architecture" in text
        or "Unrecognized model" in text
        or "Unrecognized configuration class" in text
    ):
        return UnsupportedModelError(
            f"'{model_id}' is of an architecture that transformers does not know as a causal language model ({text[:160]})."
        )
    if "does not appear to have a file named" in text or "no file named" in text:
        return ModelLoadError(
            f"'{model_id}' has no safetensors weights: save the model with save_pretrained(), which writes them."
        )
    if isinstance(error, OSError) and not Path(model_id).is_dir():
        return ModelLoadError(
            f"'{model_id}' cannot be had from the hub or its cache ({text[:160]}): check the id and the network, or give a local folder."
        )
    if what == "tokenizer":
        return ModelLoadError(
            f"'{model_id}' has no usable tokenizer ({kind}: {text[:160]}): put its tokenizer.json into the folder."
        )
    return ModelLoadError(f"'{model_id}' cannot be loaded ({kind}: {text[:200]}).")
