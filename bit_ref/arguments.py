"""Keyword arguments that code passes to transformers' ``from_pretrained`` and ``save_pretrained``.

Each is honoured where it changes anything here, taken silently where there is nothing to do, or refused in one line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

NOTHING_TO_DO = frozenset(
    {
        "_commit_hash",
        "_fast_init",
        "_from_auto",
        "_from_pipeline",
        "adapter_name",
        "allow_all_kernels",
        "generation_config",
        "low_cpu_mem_usage",
        "mirror",
        "offload_buffers",
        "offload_folder",
        "offload_state_dict",
        "tqdm_class",
        "trust_remote_code",
        "weights_only",
    }
)
"""Any value is right: loading takes little memory, runs no code, reads no pickle and leaves nothing on a disk."""


class Refusal(NamedTuple):
    """The values of an argument that ask for nothing, and what is said of any other."""

    harmless: tuple[Any, ...]
    why: str


_ONE_DEVICE = "bit_ref keeps a model on one device; wrap the loaded one in DistributedDataParallel or FSDP"
_FLOATS = "bit_ref computes in floating point; quantise the loaded model"
_SAFETENSORS = "bit_ref reads safetensors only, never a pickle"
_KERNELS = "bit_ref computes with PyTorch's own kernels"

REFUSED: dict[str, Refusal] = {
    "use_safetensors": Refusal((None, True), _SAFETENSORS),
    "from_tf": Refusal((None, False), _SAFETENSORS),
    "from_flax": Refusal((None, False), _SAFETENSORS),
    "gguf_file": Refusal((None,), _SAFETENSORS),
    "quantization_config": Refusal((None,), _FLOATS),
    "load_in_8bit": Refusal((None, False), _FLOATS),
    "load_in_4bit": Refusal((None, False), _FLOATS),
    "tp_plan": Refusal((None,), _ONE_DEVICE),
    "tp_size": Refusal((None, 1), _ONE_DEVICE),
    "device_mesh": Refusal((None,), _ONE_DEVICE),
    "distributed_config": Refusal((None,), _ONE_DEVICE),
    "use_kernels": Refusal((None, False), _KERNELS),
    "kernel_config": Refusal((None,), _KERNELS),
    "adapter_kwargs": Refusal((None, {}), "an adapter is loaded by peft: PeftModel.from_pretrained(model, adapter)"),
    "attn_implementation": Refusal((None, "eager"), "BiT has no attention, and so no implementation of it to choose"),
    "experts_implementation": Refusal(
        (None, "eager"), "BiT has no experts, and so no implementation of them to choose"
    ),
}

SAVING: dict[str, Refusal] = {
    "safe_serialization": Refusal((None, True), "bit_ref writes safetensors only, which every library here reads"),
    "distributed_checkpoint": Refusal((None, False), "bit_ref saves a whole model; gather its state dict first"),
}
SAVING_WITHOUT_EFFECT = frozenset({"save_function", "save_original_format", "save_peft_format"})
"""accelerate has code pass ``save_function``; bit_ref's writer stays, since each of its files appears whole."""

AUTOMATIC = ("auto", "balanced", "balanced_low_0", "sequential")
"""Words for ``device_map`` that spread a model over several devices; BiT, of 3.7 GB at most, goes on one."""
UNITS = {"": 1, **{f"{letter}B": 1000**n for n, letter in enumerate("KMGT", 1)}}
UNITS |= {f"{letter}IB": 1024**n for n, letter in enumerate("KMGT", 1)}


def settle(
    options: dict[str, Any], refused: Mapping[str, Refusal] = REFUSED, ignored: frozenset[str] = NOTHING_TO_DO
) -> None:
    """Take what is settled here out of ``options``. Raises ValueError for a value that cannot be honoured."""
    for name in [*options]:
        if name in ignored:
            del options[name]
        elif name in refused:
            value = options.pop(name)
            if value not in refused[name].harmless:
                raise ValueError(f"{name}={str(value)[:80]}: {refused[name].why}")


def renamed(name: str, key_mapping: Mapping[str, str]) -> str:
    """The name of a stored tensor after the first of the patterns, regular expressions, that is found in it."""
    for pattern, replacement in key_mapping.items():
        new, found = re.subn(pattern, replacement, name)
        if found:
            return new
    return name


def chosen_device(device_map: Any, max_memory: Mapping[Any, int | str] | None, size: int) -> torch.device:
    """The one device for a model of ``size`` bytes.

    ``device_map`` is a device, a dictionary of modules → device, or one of ``AUTOMATIC``: the first GPU, or else the
    CPU, whose limit in ``max_memory`` the model keeps. Raises ValueError for several devices, the disk, and where
    no device has room.
    """
    if isinstance(device_map, Mapping):
        devices = {str(device) for device in device_map.values()}
        if len(devices) != 1 or "disk" in devices:
            raise ValueError(f"device_map={dict(device_map)}: {_ONE_DEVICE}")
        device_map = next(iter(device_map.values()))
    if device_map in AUTOMATIC:
        return _with_room(max_memory or {}, size)
    try:
        return torch.device(device_map)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device_map={device_map} is neither a device nor one of {', '.join(AUTOMATIC)}") from error


def _with_room(max_memory: Mapping[Any, int | str], size: int) -> torch.device:
    devices: list[int | str] = [*range(torch.cuda.device_count()), "cpu"]
    limits = {device: _bytes(limit) for device, limit in max_memory.items()}
    for device in devices:
        if size <= limits.get(device, size):
            return torch.device(device)
    raise ValueError(f"max_memory={dict(max_memory)} leaves no device for the {size} bytes of the model")


def _bytes(limit: int | str) -> int:
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+) *([KMGT]?I?B|)", str(limit).strip().upper())
    if not found or found[2] not in UNITS:
        raise ValueError(f"max_memory has {limit!r}, which is no number of bytes, such as 2000000000, 2GB or 2GiB")
    return int(float(found[1]) * UNITS[found[2]])
