"""Which device and which arithmetic a command runs with."""

import torch

from xray.command import InputError


def resolve_device(device: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` → a torch device. Raises InputError if it is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise InputError(f"--device {device} is unknown: use auto, cpu or cuda") from None
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


def lightning_precision(precision: str, device: torch.device) -> str:
    """The config's precision ("auto", "32", "bf16", "16") as Lightning's name for it."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "32"
    if precision == "16" and device.type == "cpu":
        raise InputError("--precision 16 needs a GPU: use bf16 or 32 on the CPU")
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[precision]
