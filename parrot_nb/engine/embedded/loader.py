"""Load a Hugging Face causal language model as an embedded engine, or say in one sentence why not."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parrot_nb.engine.deadline import may_end
from parrot_nb.engine.embedded.crew import Crew
from parrot_nb.engine.embedded.engine import STEP_TIMEOUT_S, EmbeddedEngine
from parrot_nb.engine.embedded.failures import lost_device
from parrot_nb.engine.embedded.held import check_module, check_placement
from parrot_nb.engine.embedded.hub import local_folder, plain_messages
from parrot_nb.engine.embedded.hugepages import HugePages
from parrot_nb.engine.embedded.parts import Parts, find_parts, held_parts
from parrot_nb.engine.embedded.placement import find_device, free_bytes, most_pages_for, num_bytes_of, num_pages_for
from parrot_nb.engine.embedded.pretrained import Facts, Loaded, eos_ids_of
from parrot_nb.engine.embedded.quantizing import Quantizer, find_quantize
from parrot_nb.engine.embedded.worker import Worker
from parrot_nb.engine.load_limits import LOAD_TIMEOUT_S, limited
from parrot_nb.engine.loads import Load, LoadProgress, current_load
from parrot_nb.engine.machine import Memory, cores, memory
from parrot_nb.engine.memory import forget_locals, return_freed
from parrot_nb.engine.protocol import ModelInfo, StepListener
from parrot_nb.engine.settings import unusable_timeout
from parrot_nb.errors import EngineError, ModelLoadError, OutOfMemoryError, ParrotError

if TYPE_CHECKING:
    from parrot_nb.engine.embedded.device import Device
    from parrot_nb.engine.embedded.model import StepModel

PAGE_SIZE_TOKENS = 16
MAX_STEP_TOKENS = 1024  # chunk of a long prompt: long enough to fill the processor, short enough not to stall decodes
OPTIMISATIONS = ("sharing", "dedup", "two_phase", "fused", "graphs", "lookahead", "drafts", "huge_pages", "threads")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@plain_messages
@limited
def load_engine(
    model: Any,
    *,
    tokenizer: Any = None,
    name: str | None = None,
    number: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    kv_memory: int | str | None = None,
    max_context: int | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
    page_size: int = PAGE_SIZE_TOKENS,
    max_step_tokens: int = MAX_STEP_TOKENS,
    off: Collection[str] = (),
    compile: bool = False,  # noqa: A002 - as torch calls it
    reproducible: bool = False,
    quantize: str = "none",
    step_timeout: float = STEP_TIMEOUT_S,
    load_timeout: float = LOAD_TIMEOUT_S,
    on_step: StepListener | None = None,
) -> EmbeddedEngine:
    """Load a model. Blocking: seconds to minutes.

    Args:
        model: hub id, also as "owner/name@revision"; local folder of safetensors files, of a LoRA adapter, or of a GGUF file; or
            a GGUF file itself; or a model of transformers that the caller holds, which is served in its dtype and on its
            device, and is the same afterwards.
        tokenizer: of a model that the caller holds.
        name: what to call the model; `model` when None.
        number: which of several engines of this model it is; the first is 0.
        device: "auto" (CUDA where there is one; of several GPUs each engine takes the next), "cpu", "cuda" or "cuda:N".
        dtype: "auto", "float32", "bfloat16" or "float16". Auto is the checkpoint's; on the CPU, small models and
            float16 checkpoints use float32.
        kv_memory: bytes for the KV cache, as a number or like "2GB", or like "30%" of the free memory; when None, a share of the free memory, on a GPU a smaller one at
            first, which grows as it is needed and is given back when the engine has nothing to do.
        max_context: longest context in tokens; the model's when None.
        trust_remote_code: run Python code that comes with the model.
        revision: branch, tag or commit of a model of the hub; its main branch when None.
        page_size: tokens per page of the KV cache.
        max_step_tokens: most tokens that one step computes, but for a quarter more of ends and of what was left out too long.
        off: optimisations to do without, of `OPTIMISATIONS`; the text stays the same, to show what each is worth.
        compile: have torch.compile compile the layers: steps get shorter, loading takes twenty seconds more. On a CPU,
            for decoders of the Llama shape with up to 1 GB of weights in their layers; others run as without it: see `verdicts`.
        reproducible: let a text depend on its own prompt, options and seed only, in bfloat16 and float16 too, not on what is
            computed beside it; slower. On a CPU, for decoders of the Llama shape; others are refused.
        quantize: "none", "int8" (a scale for each row) or "int4" (groups of 32): weights as small integers, computed with in bfloat16, on
            a CPU, for decoders of the Llama shape; others are refused.
        step_timeout: seconds after which an engine whose step has not ended is given up: its calls move to another, or fail.
        load_timeout: seconds that loading may take without downloads; `parrot_nb.engine.load_limits` says what memory it may take.
        on_step: is told of every step, on the event loop.

    Raises:
        ModelLoadError: missing, damaged or unsafe files, or an unusable setting.
        UnsupportedModelError: an architecture that the engine cannot run.
        OutOfMemoryError: the device has no room for weights or cache.
    """
    from parrot_nb.engine.embedded.device import Device

    held = None if isinstance(model, (str, Path)) else model
    if held is not None:
        check_module(held, tokenizer)
        check_placement(held, device, dtype)
    model_id = type(held).__name__ if held is not None else _path_or_id(model)
    torch_device = find_device(device, number) if held is None else next(held.parameters()).device
    num_bytes = None if kv_memory is None else num_bytes_of(kv_memory)
    _check_settings(dtype, max_context, step_timeout, off)
    quantizes, dtype = find_quantize(quantize, torch_device, dtype, held=held is not None, off=off)
    progress, shown, name = current_load(), name or Path(model_id).name, name or model_id
    if held is None:
        model_id = local_folder(model_id, revision, progress, code=trust_remote_code)
        progress.tell(LoadProgress("reading"))
        with progress.breakable(shown):
            parts = find_parts(
                model_id,
                dtype,
                torch_device,
                fused="fused" not in off,
                trust_remote_code=trust_remote_code,
                quantize=quantizes,
            )
    else:
        progress.tell(LoadProgress("reading"))  # from here on there is a limit in time
        with progress.breakable(shown):
            parts = held_parts(held, tokenizer)
    max_context_tokens = parts.own_context_tokens if max_context is None else min(parts.own_context_tokens, max_context)

    # All torch work of an engine is done by one thread. OpenMP keeps a team of threads for every thread that has ever
    # computed; once there are more of them than cores, it lets them sleep between operations, and small steps take twice
    # the time.
    used = Device(torch_device)
    worker = Worker(f"parrot-engine-{shown}", within=used.entered)
    try:
        with progress.breakable(shown, worker.break_off):
            loading = worker.submit(  # all is given, since a kept error keeps what a closure refers to
                _load,
                parts,
                used,
                progress,
                shown,
                held=held is not None,
                off=off,
                compiles=compile,
                reproducible=reproducible,
                quantizes=quantizes,
                page_size=page_size,
                num_bytes=num_bytes,
                max_context_tokens=max_context_tokens,
            )
            parts.codec.prepare()  # meanwhile
            facts, step_model, (num_pages, most_pages, room), on_huge_pages, quantized = loading.result()
    except BaseException as error:
        worker.break_off()  # where the tokenizer failed, nobody waits for the weights
        forget_locals(error)  # which hold weights, for as long as anybody keeps the error
        worker.finish(used.give_back)
        if (failure := _failure(error, model_id, used)) is not None:
            raise failure from error
        raise
    info = ModelInfo(
        id=name,
        architecture=facts.name,
        num_parameters=facts.num_parameters,
        device=str(step_model.device),
        dtype=str(step_model.dtype).removeprefix("torch."),
        max_context_tokens=max_context_tokens,
        note=facts.note,
        swapped=step_model.swapped + (("weights on huge pages",) if on_huge_pages else ()),
        recommended=facts.defaults.recommended,
        generation=facts.defaults.told,
        heals=facts.defaults.heals,
        verdicts=step_model.verdicts,
        room=room,
        # A decoder that computes in fixed blocks may differ in narrow dtypes, and promises not to depend on what ran beside it.
        fingerprint=parts.fingerprint
        and " ".join(
            [
                parts.fingerprint,
                str(step_model.dtype),
                *["reproducible"] * reproducible,
                *([] if quantizes is None else [quantizes.weights]),
            ]
        ),
        quantized=quantized,
    )
    return EmbeddedEngine(
        name=shown + (f" #{number + 1}" if number else ""),
        info=info,
        model=step_model,
        worker=worker,
        codec=parts.codec,
        eos_ids=eos_ids_of(facts.eos_token_id, parts.codec),
        num_pages=num_pages,
        most_pages=most_pages,
        page_size=page_size,
        max_step_tokens=max_step_tokens,
        step_timeout_s=step_timeout,
        on_step=on_step,
        off=off,
        defaults=facts.defaults,
        num_embeddings=step_model.num_embeddings,
    )


@cache
def _all_threads() -> int:
    """Threads that torch computes with unless told otherwise; asked before any crew changes them."""
    import torch

    return torch.get_num_threads()


def _load(
    parts: Parts,
    device: Device,
    progress: Load,
    shown: str,
    *,
    held: bool,
    off: Collection[str],
    compiles: bool,
    reproducible: bool,
    quantizes: Quantizer | None,
    page_size: int,
    num_bytes: float | None,
    max_context_tokens: int,
) -> tuple[Facts, StepModel, tuple[int, int | None, str], bool, str]:
    """Read weights and make a model and a cache of them, in the engine's thread. Returns also the pages of the cache, at first and at
    most, what limited them, whether the weights lie on huge pages, and what of them is quantised."""
    import torch

    from parrot_nb.engine.embedded.model import StepModel
    from parrot_nb.engine.embedded.trial import TEXT

    crew = None
    if device.place.type == "cpu" and may_end():  # in the runtime's own process
        follows, allowed = not reproducible and "threads" not in off, cores()
        most = min(_all_threads(), allowed.threads) if follows else _all_threads()
        torch.set_num_threads(most)  # a crew before may have left fewer
        crew = Crew(most, torch.set_num_threads, allowed_cores=allowed.count) if follows else None
    huge_pages = HugePages() if not held and device.place.type == "cpu" and "huge_pages" not in off else None
    loaded, no_triton = _read(parts, device)
    facts, give_back, step_model = loaded.facts, loaded.give_back, None
    try:
        progress.check(shown)
        step_model = StepModel(
            loaded.decoder,
            off,
            None if "fused" in off else loaded.fuse,
            compile=compiles,
            give_back=give_back,
            text=parts.codec.encode(TEXT) or (0,),
            reproducible=reproducible,
            device=device,
            no_triton=no_triton,
            max_context_tokens=max_context_tokens,
            crew=crew,
        )
        progress.tell(LoadProgress("compiling" if compiles else "packing"))
        del loaded  # whose weights would stay beside those that take their place
        step_model.prepare(page_size)
        quantized = "" if quantizes is None else quantizes.told(facts.name, step_model.verdicts)
        return_freed()  # so that the cache is sized by what is really free
        pages = _allocated(step_model, max_context_tokens, num_bytes, page_size)
    except BaseException:
        if step_model is not None:
            step_model.release()  # its graphs refer to it
        elif give_back is not None:
            give_back()
        raise
    return_freed()  # what reading left, a vocabulary of 262,144 tokens as text among it, before the rest is moved
    settled = huge_pages is not None and huge_pages.settle(facts.num_parameters * step_model.dtype.itemsize)
    return facts, step_model, pages, settled, quantized


def _read(parts: Parts, device: Device) -> tuple[Loaded, str | None]:
    """Read a model's weights; where Triton does not work, without it. Returns also why not."""
    from parrot_nb.engine.embedded import triton_use

    no_triton = triton_use.why_unusable(device)
    with triton_use.running(uses_triton=no_triton is None):
        return parts.read(), no_triton


def _allocated(model: StepModel, max_context_tokens: int, num_bytes: float | None, page_size: int) -> tuple[int, int | None, str]:
    """Give a model its KV cache; returns the number of pages, how many it may grow to, and what limited them, for people."""
    from parrot_nb.engine.embedded.device import measuring

    with measuring(model.device):
        before = memory() if model.device.type == "cpu" else Memory(free_bytes(model.device), str(model.device))
        wanted = model.bytes_per_token(), max_context_tokens, num_bytes, page_size, model.device
        num_pages, most_pages = num_pages_for(*wanted), most_pages_for(*wanted)
        model.allocate(num_pages)
    model.settle()  # compiles and captures, for which others need not wait
    taken = (most_pages or num_pages) * page_size * model.bytes_per_token()
    return (
        num_pages,
        most_pages,
        f"up to {taken / 2**30:.2g} GB, of what {before.source} allows",
    )


def _failure(error: BaseException, model_id: str, device: Device) -> EngineError | None:
    """Return the error to raise in place of one that a load met; None where that one says it all."""
    if isinstance(error, ParrotError):
        return None
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return OutOfMemoryError(
            f"'{model_id}' does not fit into the memory of {device.place}: choose a smaller model or --kv-memory."
        )
    return lost_device(device.place, error) if device.is_lost() else None


def _check_settings(dtype: str, max_context: int | None, step_timeout: float, off: Collection[str]) -> None:
    """Refuse settings that no model can be loaded with."""
    if dtype not in DTYPES:
        raise ModelLoadError(f"Unknown dtype '{dtype}': choose from {', '.join(DTYPES)}.")
    if max_context is not None and (not isinstance(max_context, int) or isinstance(max_context, bool) or max_context < 2):
        raise ModelLoadError(f"max_context must be a whole number of tokens, at least 2, not {max_context!r}.")
    if (reason := unusable_timeout("step_timeout", step_timeout)) is not None:
        raise ModelLoadError(reason)
    if unknown := [name for name in off if name not in OPTIMISATIONS]:
        raise ModelLoadError(f"There is no optimisation '{unknown[0]}' to turn off: choose from {', '.join(OPTIMISATIONS)}.")


def _path_or_id(model: str | Path) -> str:
    path = Path(model).expanduser()
    return str(path) if path.is_dir() else str(model)
