"""Which arithmetic a pipeline runs in, with the trial that decides it on a CPU, and how many radiographs at a time."""

import copy
import dataclasses
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from xray.errors import InputError, need
from xray.inference.exported import ExportedNetwork
from xray.inference.pipeline import Findings, Pipeline
from xray.inference.remembered import Choice, recall, remember
from xray.models.device import bfloat16_gain, inference_precision, largest_batch, lower, resolve_device
from xray.radiographs.decoding import Decoded, Undecodable
from xray.storage.places import as_given
from xray.structures.boxes import concatenate_with_masks

NAMES = {torch.float32: "32", torch.bfloat16: "bf16", torch.float16: "16"}
INT8 = "int8"
DTYPES = {name: dtype for dtype, name in NAMES.items()}

CPU_BATCH = 2
WORTH_A_TRIAL = 64
"""Radiographs from which on a trial pays."""
WORTH_A_COPY = 1.1
"""How many times faster one convolution must be for a trial of all models."""

TRIAL = 32
"""Radiographs of a trial, the first ones."""


class Journal(Protocol):
    """What of a PredictionJournal notes choices."""

    choices: dict[str, Any] | None

    def choose_once(self, choices: Mapping[str, Any]) -> dict[str, Any]: ...


def choose_precision(
    pipeline: Pipeline, journal: Journal, precision: str, batch_size: int, runs: Sequence[Path] = ()
) -> tuple[Pipeline, int, bool]:
    """Precision and batch size, as far as flags, device, or earlier commands decide; the journal notes them.

    precision: "auto", "32", "bf16" or "16". batch_size: 0 chooses. runs: the run directories, as `files_of` names them,
    beside which an earlier command may have left what it found.
    Returns the pipeline in that precision, the radiographs of a batch, and whether `choose_precision_by_trial`
    must follow.
    """
    chosen = journal.choices or {"precision": precision, "batch_size": batch_size}
    dtype: torch.dtype | None
    if quantised := [network for network in _exported(pipeline) if network.is_int8]:
        dtype = torch.float32
        print(f"precision {INT8}: {', '.join(dict.fromkeys(network.kept for network in quantised))}", file=sys.stderr)
    else:
        dtype = inference_precision(chosen["precision"], pipeline.device)
        if dtype is None and (known := remembered_precision(runs, runtime_of(pipeline))):
            dtype, why = known
            print(why, file=sys.stderr)
    if dtype is not None:
        pipeline = lowered(pipeline, dtype)
    batch_size = chosen["batch_size"] or default_batch_size(pipeline)
    if not chosen["batch_size"] and pipeline.device.type == "cuda":
        print(f"precision {NAMES[pipeline.precision]}, batches of {batch_size} radiographs", file=sys.stderr)
    if dtype is not None:
        name = INT8 if quantised else NAMES[dtype]
        journal.choose_once({"precision": name, "batch_size": batch_size})
    return pipeline, batch_size, dtype is None


def runtime_of(pipeline: Pipeline) -> str:
    """What runs its models: "torch", "onnx" or "openvino"."""
    return next((network.runtime for network in _exported(pipeline)), "torch")


def is_quantised(pipeline: Pipeline) -> bool:
    """Whether a model of it computes in INT8, which leaves no precision to choose."""
    return any(network.is_int8 for network in _exported(pipeline))


def _exported(pipeline: Pipeline) -> list[ExportedNetwork]:
    return [loaded.model for loaded in pipeline.models if isinstance(loaded.model, ExportedNetwork)]


def remembered_precision(runs: Sequence[Path], runtime: str = "torch") -> tuple[torch.dtype, str] | None:
    """What an earlier command found for these runs on such a processor, with a sentence; None where none did."""
    if (found := recall(runs, runtime)) is None:
        return None
    choice, file = found
    return DTYPES[choice.precision], f"precision {choice.precision}: {choice.why} (remembered in {as_given(file)})"


def choose_precision_by_trial(
    pipeline: Pipeline,
    journal: Journal,
    first: Sequence[Decoded | Undecodable],
    batch_size: int,
    n: int,
    runs: Sequence[Path] = (),
) -> Pipeline:
    """Of a CPU that has bfloat16: the pipeline in the precision that a trial on the first of `n` radiographs finds.

    first: `trial_size` of them, or what there is. runs: as for `choose_precision`; what a trial finds is remembered.
    """
    decoded = [item for item in first if isinstance(item, Decoded)]
    if n >= WORTH_A_TRIAL and decoded:
        sizes = [(item.width, item.height) for item in decoded]
        canvases = np.stack([item.canvas for item in decoded])
        pipeline, why, is_sure = faster_precision(pipeline, canvases, sizes, batch_size)
        name = NAMES[pipeline.precision]
        print(f"precision {name}: {why}", file=sys.stderr)
        if is_sure:
            remember(runs, Choice(name, why), runtime_of(pipeline))
    journal.choose_once({"precision": NAMES[pipeline.precision], "batch_size": batch_size})
    return pipeline


def trial_size(n: int, batch_size: int) -> int:
    """Batches of `batch_size` to be decoded before `choose_precision_by_trial`, of `n` radiographs."""
    return -(-TRIAL // batch_size) if n >= WORTH_A_TRIAL else 1


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
    if runtime == "openvino":
        need("--runtime openvino", "openvino", "openvino")
        if device not in ("auto", "cpu"):
            raise InputError(
                f"--device {device}, but --runtime openvino computes on the CPU: use cpu, or another runtime"
            )
        cpu = torch.device("cpu")
        return cpu, torch.float32 if precision == "int8" else inference_precision(precision, cpu)
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
            if isinstance(loaded.model, ExportedNetwork):
                loaded.model.lower(dtype)
            else:
                lower(loaded.model, dtype)
    return dataclasses.replace(pipeline, precision=dtype)


def faster_precision(
    pipeline: Pipeline, canvases: np.ndarray, sizes: Sequence[tuple[int, int]], batch_size: int = CPU_BATCH
) -> tuple[Pipeline, str, bool]:
    """A pipeline in float32, or its copy in bfloat16 where that is faster and the metrics are expected to be kept.

    canvases, sizes: as `Pipeline.find` takes them, of the radiographs to try. batch_size: at a time.
    Returns it, with why in words, and whether other radiographs would have led to the same choice: not where these
    show too little.
    """
    gain = bfloat16_gain()
    if gain < WORTH_A_COPY:
        return pipeline, f"a convolution in bfloat16 takes {1 / gain:.1f} times as long on this processor", True
    other = lowered(copy.deepcopy(pipeline), torch.bfloat16)
    first, seconds = slice(batch_size), []
    for candidate in (pipeline, other):
        candidate.forward(canvases[:1])  # the first time, weights are prepared
        start = time.perf_counter()
        candidate.find(canvases[first], sizes[first])
        seconds.append(time.perf_counter() - start)
    ratio = seconds[0] / seconds[1]
    if ratio <= 1:
        return pipeline, f"these models take {1 / ratio:.1f} times as long in bfloat16", True
    # Only now: it compiles metrics, and most commands make no trial.
    from xray.inference.metric_moves import are_small, expected_moves, in_words

    parts = [slice(start, start + batch_size) for start in range(0, len(sizes), batch_size)]
    exact, rough = (
        find_in_batches(candidate, [(canvases[part], sizes[part]) for part in parts]) for candidate in (pipeline, other)
    )
    categories = pipeline.categories if pipeline.detectors else {}
    moves = expected_moves(exact, rough, len(sizes), categories, pipeline.triplet)
    of = f"on the first {len(sizes)} radiographs"
    if not moves:
        return pipeline, f"too little is found {of} to tell what bfloat16 would do to the metric", False
    told = f"expected to move by {in_words(moves)} {of}"
    if not are_small(moves):
        return pipeline, f"bfloat16 is {ratio:.1f} × faster, but the metric is {told}", True
    return other, f"{ratio:.1f} × faster, the metric is {told}", True


def find_in_batches(
    pipeline: Pipeline, batches: Iterable[tuple[np.ndarray, Sequence[tuple[int, int]]]], with_maps: bool = True
) -> Findings:
    """`Pipeline.find` for batches of canvases and sizes, one at least, as one. with_maps: probability maps are kept."""
    parts, begin = [], 0
    for canvases, sizes in batches:
        found = pipeline.find(canvases, sizes)
        table = dataclasses.replace(found.table, images=found.table.images + begin)
        parts.append(((table, found.masks), found.maps if with_maps else None, found.labels))
        begin += len(sizes)
    tables, maps, labels = zip(*parts, strict=True)
    return Findings(
        *concatenate_with_masks(tables),
        maps=None if maps[0] is None else np.concatenate(maps),
        labels={label: np.concatenate([part[label] for part in labels]) for label in labels[0]},
    )
