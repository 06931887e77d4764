"""The device and the arithmetic of a command, the size of its batches, and how it keeps memory."""

import contextlib
import ctypes
import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from xray.errors import InputError
from xray.flags.wrong import about_device

LARGEST_BATCH = 64
"""The most radiographs of a batch that `largest_batch` tries."""


def resolve_device(device: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` → a torch device. Raises InputError if it is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise InputError(f"--device {device} is unknown: use auto, cpu or cuda{about_device(device)}") from None
    if resolved.type not in ("cpu", "cuda"):
        raise InputError(f"--device {device} is not supported: use auto, cpu or cuda")
    if resolved.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError("--device cuda, but PyTorch sees no CUDA GPU here: use --device cpu, or check the driver")
        if resolved.index is not None and resolved.index >= torch.cuda.device_count():
            raise InputError(
                f"--device {device}, but there are {torch.cuda.device_count()} GPUs: their numbers start at 0"
            )
    return resolved


LightningPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]
LIGHTNING_NAMES: dict[str, LightningPrecision] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def lightning_precision(precision: str, device: torch.device) -> LightningPrecision:
    """The config's precision ("auto", "32", "bf16", "16") as Lightning's name for it.

    auto is decided by the device alone here; `xray.training.precision` decides it for a training.
    """
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "32"
    if precision == "16" and device.type == "cpu":
        raise InputError("--precision 16 needs a GPU: use bf16 or 32 on the CPU")
    return LIGHTNING_NAMES[precision]


def inference_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """The type in which convolutions are computed, for the config's "auto", "32", "bf16" or "16".

    None for auto on a CPU that has bfloat16, which a trial must decide. Raises InputError if the device cannot.
    """
    if precision == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
        return None if has_bfloat16() else torch.float32
    if precision == "16" and device.type == "cpu":
        raise InputError("--precision 16 needs a GPU: use bf16 or 32 on the CPU")
    return {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}[precision]


LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""The environment variables with which a user limits the instructions that oneDNN, and so PyTorch, may use: the first
that is not empty counts, the second being its older name."""
WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
"""Values of LIMITS that leave no bfloat16 (oneDNN's page "CPU Dispatcher Control"). An unknown value limits nothing."""
WITHOUT_AMX = (*WITHOUT_BFLOAT16, "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512", "AVX2_VNNI_2")


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 and LIMITS let PyTorch use it: AMX, AVX-512 BF16, or BF16 on Arm.

    PyTorch itself asks the processor alone: under a limit it would compute in bfloat16 by slow detours.
    """
    x86 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if x86:
        return _limit() not in WITHOUT_BFLOAT16
    is_sve = torch.backends.cpu.get_cpu_capability().startswith("SVE")
    return is_sve and "bf16" in of_processor().get("Features", "").split()


def has_amx() -> bool:
    """Whether this processor has AMX (which multiplies tiles of bfloat16) and PyTorch may use it."""
    is_there = torch.cpu._is_amx_tile_supported() and torch.backends.mkldnn.is_available()
    return bool(is_there and _limit() not in WITHOUT_AMX)


def _limit() -> str:
    return next((value for name in LIMITS if (value := os.environ.get(name))), "").upper()


@functools.cache
def of_processor() -> dict[str, str]:
    """The entries of the first processor in Linux' /proc/cpuinfo, such as "vendor_id" and "flags"; empty elsewhere."""
    entries: dict[str, str] = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            key, _, value = line.partition(":")
            entries.setdefault(key.strip(), value.strip())
    return entries


@torch.inference_mode()
def bfloat16_gain(repeats: int = 5) -> float:
    """How many times faster than float32 one convolution is in bfloat16, on this CPU: below 1, slower.

    Some processors have the instruction at half the rate of float32's.
    """
    times = []
    for dtype in (torch.float32, torch.bfloat16):
        features = torch.zeros((1, 128, 64, 64), dtype=dtype).contiguous(memory_format=torch.channels_last)
        weight = torch.zeros((128, 128, 3, 3), dtype=dtype).contiguous(memory_format=torch.channels_last)
        runs = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            F.conv2d(features, weight, padding=1)
            runs.append(time.perf_counter() - start)
        times.append(min(runs))  # the others were disturbed
    return times[0] / times[1]


def lower(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Keeps the weights of convolutions and linear layers in `dtype`, in place; to be run under `torch.autocast`."""
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.ndim >= 2 and not isinstance(module, nn.Embedding):
            weight.data = weight.data.to(dtype)
            if module.bias is not None:
                module.bias.data = module.bias.data.to(dtype)
    return model


def largest_batch(attempt: Callable[[int], object]) -> int:
    """The largest power of two, up to LARGEST_BATCH, of radiographs that `attempt` runs within the GPU's memory."""
    size = 1
    while size < LARGEST_BATCH:
        try:
            attempt(size * 2)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        size *= 2
    return size


def keep_freed_memory() -> bool:
    """Makes this process keep the memory of freed tensors for the next ones; returns whether that was possible.

    The allocator of GNU's C library gives large blocks back to the system at once. Getting them back, a page at a time
    and zeroed, took a quarter of the time of a detector on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, mmap_max, arena_max = -1, -4, -8
    return all(mallopt(*option) == 1 for option in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (arena_max, 1)))
