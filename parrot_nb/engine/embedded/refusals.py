"""Models that cannot be loaded, each answered with one sentence: what is wrong, then what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from parrot_nb.errors import ModelError, ModelLoadError, UnsupportedModelError

NO_FOLDER = "There is no folder '{}': give a hub id, a folder with config.json and safetensors files, or a .gguf file."
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
OTHER_WEIGHTS = {
    ".h5": "TensorFlow", ".msgpack": "Flax", ".onnx": "ONNX", ".tflite": "TensorFlow Lite", ".mlmodel": "Core ML", ".npz": "NumPy",
}  # fmt: skip
READ_SUFFIXES = (
    ".safetensors",
    ".json",
    ".jinja",
    ".txt",
    ".model",
    ".tiktoken",
    ".spm",
    ".py",
)  # of files that loading may read
MAX_QUOTE_CHARS = 200  # of a foreign message


def check_folder(folder: Path) -> None:
    """Say what is wrong with a folder before transformers guesses that a hub id was meant.

    Raises:
        ModelError: it does not hold a checkpoint of safetensors files.
    """
    entries = sorted(folder.iterdir())
    if not entries:
        raise ModelLoadError(f"The folder '{folder}' is empty: give a folder with config.json and safetensors files.")
    if (folder / "model_index.json").is_file():
        raise UnsupportedModelError(
            f"'{folder}' is a diffusers pipeline, which makes images or the like: give the folder of a language model."
        )
    if (folder / "modules.json").is_file() or (folder / "config_sentence_transformers.json").is_file():
        raise UnsupportedModelError(
            f"'{folder}' is a sentence-transformers model, which turns texts into vectors and writes none: give the folder of a "
            "language model."
        )
    if not (folder / "config.json").is_file():
        raise ModelLoadError(f"The folder '{folder}' has no config.json: {_instead(folder, entries)}.")
    if not any(folder.glob("*.safetensors")):
        found, remedy = _weights_of_another_kind(entries)
        raise ModelLoadError(f"The folder '{folder}' has {found}: {remedy}.")
    check_all_contained(folder)
    for index in folder.glob("*.safetensors.index.json"):
        for name in sorted(set(placed(index).values())):
            check_contained(folder, name)
            if not name.endswith(".safetensors"):
                raise ModelLoadError(f"{index.name} in '{folder}' names '{name}', which is no safetensors file: get it again.")
            if not (folder / name).is_file():
                raise ModelLoadError(f"The folder '{folder}' lacks '{name}', which {index.name} names: get its files again.")


def _instead(folder: Path, entries: Sequence[Path]) -> str:
    """Return advice on what to give in place of a folder without a config."""
    if folder.name.startswith("models--") and any((folder / "snapshots").glob("*/config.json")):
        return f"it is the hub's cache of '{folder.name[8:].replace('--', '/')}': give that id"
    inner = [entry.name for entry in entries if entry.is_dir() and (entry / "config.json").is_file()]
    if inner:
        return f"give the folder in it that has one, such as '{folder / inner[-1]}'"
    if any(entry.name.startswith("consolidated") for entry in entries):
        return "its weights are in the maker's own format, so convert them to transformers' first"
    return "give a folder made by save_pretrained()"


def _weights_of_another_kind(entries: Sequence[Path]) -> tuple[str, str]:
    save = "save the model as safetensors, with save_pretrained()"
    if any(entry.suffix in PICKLES for entry in entries):
        return "only pickle weights, which can run code when loaded", save
    for entry in entries:
        if entry.suffix in OTHER_WEIGHTS:
            return f"only {OTHER_WEIGHTS[entry.suffix]} weights", save
    return "no weights", save


def check_contained(folder: Path, name: str) -> None:
    """Refuse a file that an index or a link places outside its folder; the hub's cache keeps a folder's files beside it."""
    home, file = folder.resolve(), (folder / name).resolve()
    homes = [home]
    if home.parent.name == "snapshots":
        homes.append(home.parent.parent / "blobs")
    if not any(file.is_relative_to(place) for place in homes):
        raise ModelLoadError(
            f"'{name}' in '{folder}' points outside that folder, to '{file}': copy the file into the folder if you trust it."
        )


def check_all_contained(folder: Path) -> None:
    """Refuse links of a folder that lead outside it, of all files that loading may read."""
    for entry in (*folder.iterdir(), *folder.glob("additional_chat_templates/*")):
        if entry.name.lower().endswith(READ_SUFFIXES):
            check_contained(folder, str(entry.relative_to(folder)))


def placed(index: Path) -> dict[str, str]:
    """Return which file holds each weight, as an index says. Raises ModelLoadError where it is none."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        found = None
    files = found.values() if isinstance(found, dict) else ()
    if not files or not all(isinstance(file, str) for file in files):
        raise ModelLoadError(f"{index.name} in '{index.parent}' is damaged: get it again.")
    return dict(found)


def refuse_file(path: Path) -> NoReturn:
    """A file that is no model by itself."""
    if path.suffix in PICKLES:
        raise ModelLoadError(
            f"'{path}' holds pickle weights, which can run code when loaded: save the model as safetensors, with "
            "save_pretrained(), and give that folder."
        )
    if path.suffix == ".safetensors":
        raise ModelLoadError(f"'{path}' is a single file: give the folder that holds it with its config.json.")
    raise ModelLoadError(f"'{path}' is no model file: give a folder with config.json and safetensors files, or a .gguf file.")


def several_gguf_files(folder: Path, names: Sequence[str]) -> NoReturn:
    """A folder that leaves the choice open."""
    listed = ", ".join(f"'{name}'" for name in names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    raise ModelLoadError(f"The folder '{folder}' has several GGUF files: give one of {listed} with its folder.")


def refuse_adapter_weights(folder: Path) -> NoReturn:
    """An adapter without weights that can be loaded."""
    if (folder / "adapter_model.bin").exists():
        raise ModelLoadError(
            f"The adapter in '{folder}' has only pickle weights, which can run code when loaded: save it as safetensors, with "
            "save_pretrained() of a newer peft."
        )
    remedy = (
        "delete adapter_config.json if the weights are merged already" if (folder / "config.json").exists() else "save it again"
    )
    raise ModelLoadError(f"The adapter in '{folder}' has no adapter_model.safetensors: {remedy}.")


def check_architecture(model: str, config: Any) -> None:
    """Refuse what writes no text, by its config.

    Args:
        model: hub id or folder.
        config: of transformers.

    Raises:
        UnsupportedModelError: the checkpoint's class has no language model's head.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"'{model}' is an encoder-decoder model ({config.model_type}): the embedded engine runs decoder-only language models."
        )
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as WRITERS

    if getattr(config, "auto_map", None):  # code of its own; its author says what it is
        return
    names = [name for name in getattr(config, "architectures", None) or () if isinstance(name, str)]
    if not names and config.model_type in WRITERS:
        return
    if any(name in WRITERS.values() for name in names):
        return
    if config.model_type in WRITERS and any(name.endswith("ForConditionalGeneration") for name in names):
        return  # its text part
    raise UnsupportedModelError(f"'{model}' is {_kind(names, config.model_type)}: give a model whose class is a ...ForCausalLM.")


KINDS = {
    "ForMaskedLM": "an encoder that fills in masked words", "ForPreTraining": "an encoder", "ForSequenceClassification": "a classifier of texts",
    "ForTokenClassification": "a classifier of words", "ForQuestionAnswering": "a model that marks answers in a text",
    "ForMultipleChoice": "a model that picks answers", "ForImageClassification": "a classifier of images", "ForObjectDetection": "a detector in images",
    "ForConditionalGeneration": "a multimodal model whose text part transformers does not load by itself",
    "ForCTC": "a speech recogniser", "Model": "a model without a head that writes text, as for embeddings or vision",
}  # fmt: skip


def _kind(names: Sequence[str], model_type: str) -> str:
    for name in names:
        for ending, kind in KINDS.items():
            if name.endswith(ending):
                return f"{kind} ({name})"
    return f"no causal language model ({names[0] if names else model_type})"


def quoted(error: BaseException | str) -> str:
    """The first sentence of a foreign message, whole and without its full stop; what is too long ends in an ellipsis."""
    text = " ".join(str(error).split())
    first = re.split(r"(?<=[.!?])\s+(?=[A-Z`'\"(<])", text, maxsplit=1)[0].rstrip(".: ")
    if len(first) <= MAX_QUOTE_CHARS:
        return first
    return first[:MAX_QUOTE_CHARS].rpartition(" ")[0].rstrip(",;:([ ") + " …"


def explained(model_id: str, error: BaseException, what: str = "model") -> ModelError:
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
        return ModelLoadError(f"The safetensors file of '{model_id}' is damaged or cut short ({quoted(error)}): get it again.")
    if (
        "does not recognize this architecture" in text
        or "Unrecognized model" in text
        or "Unrecognized configuration class" in text
        or ("GGUF" in text and "not supported yet" in text)
    ):
        return UnsupportedModelError(
            f"'{model_id}' is of an architecture that transformers does not know as a causal language model ({quoted(error)}): "
            "update transformers, or choose another model."
        )
    if isinstance(error, KeyError) and "parrot" in text:  # a table of attention classes that does not know ours
        return UnsupportedModelError(
            f"'{model_id}' has attention of its own, which cannot be replaced: the embedded engine cannot run it."
        )
    if "does not appear to have a file named" in text or "no file named" in text:
        return ModelLoadError(
            f"'{model_id}' has no safetensors weights: save the model with save_pretrained(), which writes them."
        )
    if isinstance(error, OSError) and not Path(model_id).exists():
        return ModelLoadError(
            f"'{model_id}' cannot be had from the hub or its cache ({quoted(error)}): check the id and the network, or give a "
            "local folder."
        )
    if what == "tokenizer":
        return ModelLoadError(
            f"'{model_id}' has no usable tokenizer ({kind}: {quoted(error)}): put its tokenizer.json into the folder."
        )
    return ModelLoadError(f"'{model_id}' cannot be loaded ({kind}: {quoted(error)}): check its files, or choose another model.")
