"""Which arithmetic a pipeline runs in, with the trial that decides it on a CPU, and how many radiographs at a time."""

import copy
import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from xray.errors import need
from xray.inference.pipeline import Findings, Pipeline
from xray.models.device import bfloat16_gain, inference_precision, largest_batch, lower, resolve_device
from xray.radiographs.decoding import Decoded, Undecodable
from xray.structures.boxes import BoxTable, box_iou

NAMES = {torch.float32: "32", torch.bfloat16: "bf16", torch.float16: "16"}

CPU_BATCH = 2
WORTH_A_TRIAL = 32
"""Radiographs from which on a trial pays."""
WORTH_A_COPY = 1.1
"""How many times faster one convolution must be for a trial of all models."""

SURE = 0.1
"""Boxes with a lower score need not agree: which of many faint ones suppression leaves is chance."""
LEAST_IOU = 0.9
MOST_DIFFERENCE = 0.02
"""Of scores, of labels' probabilities, and of masks' mean probability."""


class Journal(Protocol):
    """What of a PredictionJournal notes choices."""

    choices: dict[str, Any] | None

    def choose_once(self, choices: Mapping[str, Any]) -> dict[str, Any]: ...


def choose_precision(
    pipeline: Pipeline, journal: Journal, precision: str, batch_size: int
) -> tuple[Pipeline, int, bool]:
    """Precision and batch size, as far as flags, device or an interrupted command decide; the journal notes them.

    precision: "auto", "32", "bf16" or "16". batch_size: 0 chooses.
    Returns the pipeline in that precision, the radiographs of a batch, and whether `choose_precision_by_trial`
    must follow.
    """
    chosen = journal.choices or {"precision": precision, "batch_size": batch_size}
    dtype = inference_precision(chosen["precision"], pipeline.device)
    if dtype is not None:
        pipeline = lowered(pipeline, dtype)
    batch_size = chosen["batch_size"] or default_batch_size(pipeline)
    if not chosen["batch_size"] and pipeline.device.type == "cuda":
        print(f"precision {NAMES[pipeline.precision]}, batches of {batch_size} radiographs", file=sys.stderr)
    if dtype is not None:
        journal.choose_once({"precision": NAMES[dtype], "batch_size": batch_size})
    return pipeline, batch_size, dtype is None


def choose_precision_by_trial(
    pipeline: Pipeline, journal: Journal, first: Sequence[Decoded | Undecodable], batch_size: int, n: int
) -> Pipeline:
    """Of a CPU that has bfloat16: the pipeline in the precision that a trial on the first of `n` radiographs finds."""
    decoded = [item for item in first if isinstance(item, Decoded)]
    if n >= WORTH_A_TRIAL and decoded:
        sizes = [(item.width, item.height) for item in decoded]
        pipeline, why = faster_precision(pipeline, np.stack([item.canvas for item in decoded]), sizes)
        print(why, file=sys.stderr)
    journal.choose_once({"precision": NAMES[pipeline.precision], "batch_size": batch_size})
    return pipeline


def default_batch_size(pipeline: Pipeline) -> int:
    """Radiographs of a batch: as many as a GPU's memory allows, 2 on a CPU."""
    size = pipeline.canvas_size
    if pipeline.device.type != "cuda":
        return CPU_BATCH
    return largest_batch(lambda n: pipeline.forward(np.zeros((n, size, size), dtype=np.uint8)))


def place_of(device: str, precision: str, runtime: str = "torch") -> tuple[torch.device, torch.dtype | None]:
    """Where models run and in what precision, None where a trial is to choose it. Values as of the flags.

    Raises InputError for what this machine, or this installation, cannot do.
    """
    if runtime == "onnx":
        need("--runtime onnx", "export", "onnx", "onnxruntime")
        from xray.inference.onnx_runtime import onnx_device

        return onnx_device(device), torch.float32
    place = resolve_device(device)
    return place, inference_precision(precision, place)


def lowered(pipeline: Pipeline, dtype: torch.dtype) -> Pipeline:
    """The pipeline in another precision; its models are changed in place."""
    if dtype != torch.float32:
        for loaded in pipeline.models:
            lower(loaded.model, dtype)
    return dataclasses.replace(pipeline, precision=dtype)


def faster_precision(
    pipeline: Pipeline, canvases: np.ndarray, sizes: Sequence[tuple[int, int]]
) -> tuple[Pipeline, str]:
    """A pipeline in float32, or its copy in bfloat16 where that is faster and agrees on these radiographs.

    canvases, sizes: as `Pipeline.find` takes them. Returns it with a sentence that says what was chosen and why.
    """
    gain = bfloat16_gain()
    if gain < WORTH_A_COPY:
        return pipeline, f"precision 32: a convolution in bfloat16 takes {1 / gain:.1f} times as long on this processor"
    other = lowered(copy.deepcopy(pipeline), torch.bfloat16)
    findings, seconds = [], []
    for candidate in (pipeline, other):
        candidate.forward(canvases[:1])  # the first time, weights are prepared
        start = time.perf_counter()
        findings.append(candidate.find(canvases, sizes))
        seconds.append(time.perf_counter() - start)
    if difference := disagreement(findings[0], findings[1], len(sizes)):
        return pipeline, f"precision 32: in bfloat16, {difference}"
    ratio = seconds[0] / seconds[1]
    if ratio <= 1:
        return pipeline, f"precision 32: bfloat16 agrees, but takes {1 / ratio:.1f} times as long"
    return other, f"precision bf16: it agrees with 32 on the first {len(sizes)} radiographs and is {ratio:.1f} × faster"


def disagreement(exact: Findings, rough: Findings, n_images: int) -> str:
    """Where two findings of the same radiographs differ by more than is tolerable, in words; empty where nowhere."""
    for image in range(n_images):
        one, other = (findings.table.select(findings.table.images == image) for findings in (exact, rough))
        if reason := _unmatched(one, other) or _unmatched(other, one):
            return f"{reason} of radiograph {image + 1}"
    if exact.maps is not None and (difference := float(np.abs(exact.maps - rough.maps).mean())) >= MOST_DIFFERENCE:
        return f"masks' probabilities differ by {difference:.3f} on average"
    for label, column in exact.labels.items():
        if (difference := float(np.abs(column - rough.labels[label]).max())) >= MOST_DIFFERENCE:
            return f"the probability of {label} differs by {difference:.3f}"
    return ""


def _unmatched(table: BoxTable, other: BoxTable) -> str:
    overlaps = box_iou(table.boxes, other.boxes)
    same = (table.labels[:, None] == other.labels) & (overlaps > LEAST_IOU)
    differences = np.where(same, np.abs(table.scores[:, None] - other.scores), np.inf).min(axis=1, initial=np.inf)
    sure = table.scores >= SURE
    if np.isinf(differences[sure]).any():
        return "a box is not found again"
    if (differences[sure] >= MOST_DIFFERENCE).any():
        return f"a score differs by {differences[sure].max():.3f}"
    return ""
