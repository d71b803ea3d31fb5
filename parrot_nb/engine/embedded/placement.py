"""Where a model runs: its device, and the memory that the KV cache gets there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from parrot_nb.engine import machine
from parrot_nb.errors import ModelLoadError, OutOfMemoryError

if TYPE_CHECKING:
    import torch

AUTO_CONTEXTS = 64  # "auto" KV memory holds so many full contexts at most: more would rarely be used
AUTO_CPU_SHARE = 0.25  # of the memory that is free once the weights are loaded
AUTO_CUDA_SHARE, MOST_CUDA_SHARE = 0.20, 0.80  # at first, and as far as the cache may grow
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def find_device(device: str, number: int = 0) -> torch.device:
    """Return the device that is asked for; a CUDA device always with its index."""
    import torch

    from parrot_nb.engine.embedded.device import count_cuda

    count = count_cuda()
    if device == "auto":
        return torch.device("cuda", number % count) if count else torch.device("cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", str(device)):
        raise ModelLoadError(f"Unknown device '{device}': choose auto, cpu, cuda or cuda:N.")
    found = torch.device(device)
    if found.type == "cpu":
        return found
    if not count:
        raise ModelLoadError("There is no CUDA device here: use --device cpu.")
    if (found.index or 0) >= count:
        raise ModelLoadError(f"There is no device '{device}': the last one is cuda:{count - 1}.")
    return torch.device("cuda", found.index or 0)


def num_bytes_of(kv_memory: int | str) -> int | float:
    """Return the bytes that are asked for; for a percentage, the share of what is free as a number below 1."""
    share = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", str(kv_memory))
    if share is not None:
        if not 0 < float(share[1]) < 100:
            raise ModelLoadError(f"kv_memory must be more than nothing and less than all that is free, not {kv_memory!r}.")
        return float(share[1]) / 100
    if isinstance(kv_memory, int) and not isinstance(kv_memory, bool):
        count = float(kv_memory)
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", str(kv_memory), re.IGNORECASE)
        if match is None:
            raise ModelLoadError(f"kv_memory must be a number of bytes, or like 2GB or 30%, not {kv_memory!r}.")
        count = float(match[1]) * UNITS[match[2].upper()]
    if count < 1:
        raise ModelLoadError(f"kv_memory must be more than nothing, not {kv_memory!r}.")
    return int(count)


def num_pages_for(
    bytes_per_token: int, max_context_tokens: int, wanted: float | None, page_size: int, device: torch.device
) -> int:
    page_bytes = bytes_per_token * page_size
    if isinstance(wanted, float):
        wanted = int(free_bytes(device) * wanted)
    if wanted is None:
        share = AUTO_CUDA_SHARE if device.type == "cuda" else AUTO_CPU_SHARE
        return _automatic(share, page_bytes, max_context_tokens, page_size, device)
    if wanted < 2 * page_bytes:
        raise ModelLoadError(f"kv_memory is too small: this model needs at least {2 * page_bytes} bytes for two pages.")
    if wanted > free_bytes(device):
        raise OutOfMemoryError(
            f"{device} has {free_bytes(device) / 2**30:.1f} GB free, less than --kv-memory asks for: lower it."
        )
    return int(wanted) // page_bytes


def most_pages_for(
    bytes_per_token: int, max_context_tokens: int, wanted: float | None, page_size: int, device: torch.device
) -> int | None:
    """Return the number of pages that a cache may grow to; None where it does not grow, since its size was asked for, or since a
    CPU's memory is taken when it is first used."""
    if wanted is not None or device.type == "cpu":
        return None
    return _automatic(MOST_CUDA_SHARE, bytes_per_token * page_size, max_context_tokens, page_size, device)


def _automatic(share: float, page_bytes: int, max_context_tokens: int, page_size: int, device: torch.device) -> int:
    enough = AUTO_CONTEXTS * -(-max_context_tokens // page_size)
    return max(min(int(free_bytes(device) * share) // page_bytes, enough), 2)


def free_bytes(device: torch.device) -> int:
    """Return the bytes that a device has free; on a CPU, those that this process may take."""
    if device.type == "cuda":
        from parrot_nb.engine.embedded.device import Device

        return Device(device).free_bytes()  # what fusing has freed does not count as taken
    return machine.memory().free_bytes


def has_bfloat16(device: torch.device) -> bool:
    """Return True if a device has bfloat16 products, and does not only imitate them."""
    import torch

    if device.type == "cuda":
        from parrot_nb.engine.embedded.device import Device

        return Device(device).has_bfloat16
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
