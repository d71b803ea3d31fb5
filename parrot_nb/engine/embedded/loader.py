"""Load a Hugging Face causal language model as an embedded engine, or say in one sentence why not."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parrot_nb.engine.embedded.checkpoint import KnownCheckpoint, known_checkpoint
from parrot_nb.engine.embedded.engine import STEP_TIMEOUT_S, EmbeddedEngine
from parrot_nb.engine.embedded.hugepages import HugePages
from parrot_nb.engine.embedded.tokenizer import known_tokenizer
from parrot_nb.engine.embedded.worker import Worker
from parrot_nb.engine.protocol import ModelInfo, StepListener
from parrot_nb.engine.settings import unusable_timeout
from parrot_nb.errors import ModelError, ModelLoadError, OutOfMemoryError, UnsupportedModelError

if TYPE_CHECKING:
    import torch

    from parrot_nb.engine.embedded.codec import TokenizerCodec
    from parrot_nb.engine.embedded.fused import FusedDecoder
    from parrot_nb.engine.embedded.model import Decoder, StepModel

PAGE_SIZE_TOKENS = 16
MAX_STEP_TOKENS = 1024  # chunk of a long prompt: long enough to fill the processor, short enough not to stall decodes
AUTO_CONTEXTS = 64  # "auto" KV memory holds so many full contexts at most: more would rarely be used
AUTO_CPU_SHARE, AUTO_CUDA_SHARE = 0.25, 0.80  # of the memory that is free once the weights are loaded
SMALL_MODEL_PARAMETERS = 100_000_000  # below, float32 is the faster dtype on CPUs without bfloat16 units, and exact
OPTIMISATIONS = ("sharing", "dedup", "two_phase", "fused", "graphs", "lookahead", "drafts", "huge_pages")
DTYPES = ("auto", "float32", "bfloat16", "float16")
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model in memory.

    Attributes:
        eos_token_id: the token or tokens that end a text, as far as the model's files say; None where they do not.
        note: the maker's word to who uses it.
        fuse: makes a fused decoder of this one, or raises LookupError; None where it is one.
    """

    decoder: Decoder
    num_parameters: int
    eos_token_id: int | Collection[int] | None
    note: str | None
    fuse: Callable[[], FusedDecoder] | None = None


def load_engine(
    model: str | Path,
    *,
    name: str | None = None,
    number: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    kv_memory: int | str | None = None,
    max_context: int | None = None,
    trust_remote_code: bool = False,
    page_size: int = PAGE_SIZE_TOKENS,
    max_step_tokens: int = MAX_STEP_TOKENS,
    off: Collection[str] = (),
    compile: bool = False,  # noqa: A002 - as torch calls it
    reproducible: bool = False,
    step_timeout: float = STEP_TIMEOUT_S,
    on_step: StepListener | None = None,
) -> EmbeddedEngine:
    """Load a model. Blocking: seconds to minutes.

    Args:
        model: hub id or local folder; weights as safetensors only.
        name: what to call the model; `model` when None.
        number: which of several engines of this model it is; the first is 0.
        device: "auto" (CUDA where there is one; of several GPUs each engine takes the next), "cpu", "cuda" or "cuda:N".
        dtype: "auto", "float32", "bfloat16" or "float16". Auto is the checkpoint's; on the CPU, small models and
            float16 checkpoints use float32.
        kv_memory: bytes for the KV cache, as a number or like "2GB"; when None, a share of the free memory.
        max_context: longest context in tokens; the model's when None.
        trust_remote_code: run Python code that comes with the model.
        page_size: tokens per page of the KV cache.
        max_step_tokens: most tokens that one step computes, but for a quarter more of ends and of what was left out too long.
        off: optimisations to do without, of `OPTIMISATIONS`; the text stays the same, to show what each is worth.
        compile: have torch.compile compile the layers: steps get shorter, loading takes twenty seconds more. On a CPU,
            for decoders of the Llama shape with up to 1 GB of weights in their layers; others run as without it: see `verdicts`.
        reproducible: let a text depend on its own prompt, options and seed only, in bfloat16 and float16 too, not on what is
            computed beside it; slower. On a CPU, for decoders of the Llama shape; others are refused.
        step_timeout: seconds after which an engine whose step has not ended is given up: its calls move to another, or fail.
        on_step: is told of every step, on the event loop.

    Raises:
        ModelLoadError: missing, damaged or unsafe files, or an unusable setting.
        UnsupportedModelError: an architecture that the engine cannot run.
        OutOfMemoryError: the device has no room for weights or cache.
    """
    import torch

    model_id = str(model)
    if Path(model_id).expanduser().is_dir():
        model_id = str(Path(model_id).expanduser())
    torch_device = _device(device, number)
    num_bytes = None if kv_memory is None else _num_bytes(kv_memory)
    if dtype not in DTYPES:
        raise ModelLoadError(f"Unknown dtype '{dtype}': choose from {', '.join(DTYPES)}.")
    if max_context is not None and (not isinstance(max_context, int) or isinstance(max_context, bool) or max_context < 2):
        raise ModelLoadError(f"max_context must be a whole number of tokens, at least 2, not {max_context!r}.")
    if (reason := unusable_timeout(step_timeout)) is not None:
        raise ModelLoadError(reason)
    if unknown := [name for name in off if name not in OPTIMISATIONS]:
        raise ModelLoadError(f"There is no optimisation '{unknown[0]}' to turn off: choose from {', '.join(OPTIMISATIONS)}.")
    _check_folder(model_id)
    # What is known here needs no model classes of transformers, whose import takes longer than all else; "fused" is what
    # takes their place, so without it they are needed.
    known = None if "fused" in off else known_checkpoint(model_id)
    config = None if known is not None else _config(model_id, trust_remote_code=trust_remote_code)
    codec = _codec(model_id, known, trust_remote_code=trust_remote_code)
    own_context_tokens = _own_context(config) if known is None else known.max_context_tokens
    max_context_tokens = own_context_tokens if max_context is None else min(own_context_tokens, max_context)

    def load() -> tuple[_Loaded, StepModel, int, bool]:
        from parrot_nb.engine.embedded.model import StepModel
        from parrot_nb.engine.embedded.trial import TEXT

        huge_pages = HugePages() if torch_device.type == "cpu" and "huge_pages" not in off else None
        if known is not None:
            loaded = _read(model_id, known, dtype, torch_device)
        else:
            loaded = _with_modules(model_id, config, dtype, torch_device, trust_remote_code=trust_remote_code)
        fuse = None if "fused" in off else loaded.fuse
        text = codec.encode(TEXT) or (0,)
        step_model = StepModel(loaded.decoder, off, fuse, compile=compile, text=text, reproducible=reproducible)
        step_model.prepare(page_size)
        num_pages = _num_pages(step_model.bytes_per_token(), max_context_tokens, num_bytes, page_size, torch_device)
        step_model.allocate(num_pages)
        settled = huge_pages is not None and huge_pages.settle(loaded.num_parameters * step_model.dtype.itemsize)
        return loaded, step_model, num_pages, settled

    # All torch work of an engine is done by one thread. OpenMP keeps a team of threads for every thread that has ever
    # computed; once there are more of them than cores, it lets them sleep between operations, and small steps take twice
    # the time.
    worker = Worker(f"parrot-engine-{name or Path(model_id).name}")
    try:
        loaded, step_model, num_pages, on_huge_pages = worker.submit(load).result()
    except BaseException as error:
        worker.shutdown(wait=False)
        if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
            raise OutOfMemoryError(
                f"'{model_id}' does not fit into the memory of {torch_device}: choose a smaller model or --kv-memory."
            ) from error
        raise
    info = ModelInfo(
        id=name or model_id,
        architecture=loaded.decoder.name,
        num_parameters=loaded.num_parameters,
        device=str(step_model.device),
        dtype=str(step_model.dtype).removeprefix("torch."),
        max_context_tokens=max_context_tokens,
        note=loaded.note,
        swapped=step_model.swapped + (("weights on huge pages",) if on_huge_pages else ()),
        verdicts=step_model.verdicts,
    )
    return EmbeddedEngine(
        name=(name or Path(model_id).name) + (f" #{number + 1}" if number else ""),
        info=info,
        model=step_model,
        worker=worker,
        codec=codec,
        eos_ids=_eos_ids(loaded.eos_token_id, codec.eos_token_id),
        num_pages=num_pages,
        page_size=page_size,
        max_step_tokens=max_step_tokens,
        step_timeout_s=step_timeout,
        on_step=on_step,
        off=off,
    )


def _device(device: str, number: int = 0) -> torch.device:
    import torch

    if device == "auto":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return torch.device("cpu") if not count else torch.device("cuda", number % count) if count > 1 else torch.device("cuda")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", str(device)):
        raise ModelLoadError(f"Unknown device '{device}': choose auto, cpu, cuda or cuda:N.")
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise ModelLoadError("There is no CUDA device here: use --device cpu.")
    found = torch.device(device)
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ModelLoadError(f"There is no device '{device}': the last one is cuda:{torch.cuda.device_count() - 1}.")
    return found


def _num_bytes(kv_memory: int | str) -> int:
    if isinstance(kv_memory, int) and not isinstance(kv_memory, bool):
        count = float(kv_memory)
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", str(kv_memory), re.IGNORECASE)
        if match is None:
            raise ModelLoadError(f"kv_memory must be a number of bytes or like 2GB, not {kv_memory!r}.")
        count = float(match[1]) * UNITS[match[2].upper()]
    if count < 1:
        raise ModelLoadError(f"kv_memory must be more than nothing, not {kv_memory!r}.")
    return int(count)


def _check_folder(model_id: str) -> None:
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


def _config(model_id: str, *, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model_id, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise _explained(model_id, error) from error
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"'{model_id}' is an encoder-decoder model ({config.model_type}): the embedded engine runs decoder-only language models."
        )
    return config


def _codec(model_id: str, known: KnownCheckpoint | None, *, trust_remote_code: bool) -> TokenizerCodec:
    from parrot_nb.engine.embedded.codec import TokenizerCodec

    if known is not None and known.family.plain_tokenizer and (plain := known_tokenizer(model_id)) is not None:
        return TokenizerCodec(plain)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_id, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise _explained(model_id, error, what="tokenizer") from error
    return TokenizerCodec(tokenizer)


def _read(model_id: str, known: KnownCheckpoint, dtype: str, device: torch.device) -> _Loaded:
    """A checkpoint that is known here, without transformers' model classes."""
    import torch

    from parrot_nb.engine.embedded.weights import read_decoder

    first: torch.dtype = getattr(torch, known.dtype if dtype == "auto" else dtype)
    last = torch.float32 if dtype == "auto" and _float32_is_better(first, known.num_parameters, device) else first
    try:
        decoder = read_decoder(known, (first, last), device)
    except (torch.cuda.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise _explained(model_id, error) from error
    return _Loaded(decoder, known.num_parameters, known.eos_ids, known.note)


def _float32_is_better(found: torch.dtype, num_parameters: int, device: torch.device) -> bool:
    """Whether weights of a dtype become float32 if nobody said what they should."""
    import torch

    return device.type == "cpu" and (num_parameters < SMALL_MODEL_PARAMETERS or found == torch.float16)


def _with_modules(model_id: str, config: Any, dtype: str, device: torch.device, *, trust_remote_code: bool) -> _Loaded:
    """Whatever transformers can load, with its modules."""
    from parrot_nb.engine.embedded.fused import FusedDecoder
    from parrot_nb.engine.embedded.modules import ModulesDecoder

    module = _weights(model_id, config, dtype, device, trust_remote_code=trust_remote_code)
    generation_config = getattr(module, "generation_config", None)
    eos_token_id = getattr(generation_config, "eos_token_id", None)
    if eos_token_id is None:
        eos_token_id = getattr(config.get_text_config(), "eos_token_id", None)
    return _Loaded(
        ModulesDecoder(module),
        sum(p.numel() for p in module.parameters()),
        eos_token_id,
        getattr(config, "parrot_note", None),
        fuse=lambda: FusedDecoder.of(module),
    )


def _weights(model_id: str, config: Any, dtype: str, device: torch.device, *, trust_remote_code: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as hf_logging

    from parrot_nb.engine.embedded.modules import ATTENTION_NAME

    wanted = "auto" if dtype == "auto" else getattr(torch, dtype)
    bars_were_on = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()  # it would be drawn into whatever cell runs now; the event log tells of the load
    try:
        module, report = AutoModelForCausalLM.from_pretrained(
            model_id,
            config=config,
            dtype=wanted,
            attn_implementation=ATTENTION_NAME,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except (torch.cuda.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise _explained(model_id, error) from error
    finally:
        if bars_were_on:
            hf_logging.enable_progress_bar()
    for kind, problem in (("missing_keys", "lacks weights"), ("mismatched_keys", "has weights of another shape")):
        if report.get(kind):
            first = min(str(key[0] if isinstance(key, tuple) else key) for key in report[kind])
            raise ModelLoadError(
                f"'{model_id}' {problem} that its config.json asks for ('{first}' and {len(report[kind]) - 1} more): get its files again."
            )
    if dtype == "auto" and _float32_is_better(module.dtype, sum(p.numel() for p in module.parameters()), device):
        module = module.float()
    return module.to(device).eval()


def _own_context(config: Any) -> int:
    """Longest context of a model, in tokens."""
    text = config.get_text_config()
    own = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None) or 4096
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type")) if isinstance(rope, dict) else None
    if kind in ("longrope", "dynamic"):
        # These change all positions' angles once a text passes the original length, cached ones included.
        own = rope.get("original_max_position_embeddings") or getattr(text, "original_max_position_embeddings", None) or own
    return int(own)


def _num_pages(bytes_per_token: int, max_context_tokens: int, wanted: int | None, page_size: int, device: torch.device) -> int:
    page_bytes = bytes_per_token * page_size
    if wanted is None:
        share = AUTO_CUDA_SHARE if device.type == "cuda" else AUTO_CPU_SHARE
        enough = AUTO_CONTEXTS * -(-max_context_tokens // page_size)
        return max(min(int(_free_bytes(device) * share) // page_bytes, enough), 2)
    if wanted < 2 * page_bytes:
        raise ModelLoadError(f"kv_memory is too small: this model needs at least {2 * page_bytes} bytes for two pages.")
    if wanted > _free_bytes(device):
        raise OutOfMemoryError(
            f"{device} has {_free_bytes(device) / 2**30:.1f} GB free, less than --kv-memory asks for: lower it."
        )
    return wanted // page_bytes


def _free_bytes(device: torch.device) -> int:
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()  # what fusing has freed counts as taken until then
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**20
        return int(pages) * 4096 // 2  # no such file outside Linux: half of all memory is a careful guess


def _eos_ids(*sources: int | Collection[int] | None) -> frozenset[int]:
    """Tokens that end a text, of the first that names any; may be none."""
    for ids in sources:
        if ids is not None:
            return frozenset([ids] if isinstance(ids, int) else ids)
    return frozenset()


def _explained(model_id: str, error: Exception, what: str = "model") -> ModelError:
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
