"""The flags that say how models are run, checked without importing torch: those of commands, and of the API."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from annotated_types import Interval

from xray.flags import Prune, Share, check_ranges, require
from xray.flags.wrong import about_device

CHOICES = {
    "gate": ("soft", "hard"),
    "precision": ("auto", "32", "bf16", "16", "int8"),
    "runtime": ("auto", "torch", "onnx", "openvino"),
}

PRECISIONS = {
    "auto": CHOICES["precision"],
    "torch": ("auto", "32", "bf16", "16"),
    "onnx": ("auto", "32"),
    "openvino": ("auto", "32", "bf16", "int8"),
}
"""Precisions of each runtime."""
WHY = {
    "auto": "int8 is OpenVINO's",
    "torch": "int8 is OpenVINO's, leave --runtime out",
    "onnx": "the file has its own",
    "openvino": "16 needs a GPU",
}
"""For each runtime, why it has no others."""


class _Ranges:
    """Values of the command's flags and of the API's arguments alike."""

    gate_threshold: Share | None
    prune: Prune
    batch_size: Annotated[int, Interval(ge=0, le=4096)]
    scales: tuple[Annotated[float, Interval(ge=0.25, le=4)], ...]


def check_options(options: Any) -> None:
    """Raises FlagError for the first value that is out of range, or contradicts another.

    options: has device, gate, gate_threshold, triplet, prune, precision, batch_size, runtime and scales, as
    `xray infer` does.
    """
    for name, choices in CHOICES.items():
        require(getattr(options, name) in choices, name, getattr(options, name), " or ".join(choices))
    device = re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", str(options.device))
    wanted = f"auto, cpu or cuda{about_device(str(options.device))}"
    require(device is not None, "device", repr(options.device), wanted)
    check_ranges(options, _Ranges)
    words = " ".join(f"{scale:g}" for scale in options.scales)
    require(0 < len(set(options.scales)) == len(options.scales), "scales", words or "empty", "numbers that all differ")
    if options.gate == "soft":
        require(
            options.gate_threshold is None, "gate-threshold", options.gate_threshold, "left out, or with --gate hard"
        )
    check_precision(options.precision, options.runtime)
    if options.runtime in ("onnx", "openvino") or options.precision == "int8":
        flag = "--precision int8" if options.precision == "int8" else f"--runtime {options.runtime}"
        require(options.prune == 0, "prune", options.prune, f"0 with {flag}: the file has its own")
        require(options.scales == (1.0,), "scales", words, f"1 with {flag}: the file has a canvas of one size")
    check_triplet(options.triplet)


def check_precision(precision: str, runtime: str) -> None:
    """Raises FlagError for a --precision that --runtime does not have; auto has all."""
    wanted, more = PRECISIONS[runtime], WHY[runtime]
    text = f"{', '.join(wanted[:-1])} or {wanted[-1]} with --runtime {runtime}: {more}"
    require(precision in wanted, "precision", precision, text)


def check_triplet(triplet: Sequence[float] | None) -> None:
    """Raises FlagError if --triplet is given and is not (top, min area, bottom) in [0, 1] with bottom <= top."""
    if triplet:
        fits = len(triplet) == 3 and all(0 <= value <= 1 for value in triplet) and triplet[2] <= triplet[0]
        require(fits, "triplet", " ".join(map(str, triplet)), "three numbers in [0, 1], BOTTOM not above TOP")
