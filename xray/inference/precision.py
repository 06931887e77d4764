"""Which arithmetic a command's models run in, as its journal notes it, and how many radiographs at a time."""

import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from xray.datasets.store_files import dtype_of
from xray.errors import InputError
from xray.inference.exported import ExportedNetwork
from xray.inference.openvino_files import INT8
from xray.inference.pipeline import Pipeline
from xray.inference.remembered import Choice, remember
from xray.inference.trial import CPU_BATCH, TRIAL, fastest_way, lowered
from xray.inference.ways import DTYPES, NAMES, QUANTISED, WORTH_A_TRIAL, Models, Start, Way, considered
from xray.models.device import largest_batch
from xray.radiographs.decoding import Decoded, Undecodable


class Journal(Protocol):
    """The part of a PredictionJournal that notes choices."""

    choices: dict[str, Any] | None

    def choose_once(self, choices: Mapping[str, Any]) -> dict[str, Any]: ...


def choose_precision(
    pipeline: Pipeline, journal: Journal, models: Models, start: Start, batch_size: int
) -> tuple[Pipeline, int, bool]:
    """The pipeline and the batch size, as far as flags, device or earlier commands decide them; the journal notes both.

    pipeline: what `models.load(start.way)` gave. batch_size: 0 chooses.
    Returns the pipeline in its precision, the radiographs of a batch, and whether `choose_precision_by_trial` must
    follow. Raises InputError where the journal was begun with a model that no longer exists.
    """
    if (noted := journal.choices) is not None:
        pipeline = _as_noted(pipeline, noted, models, start)
        return pipeline, noted["batch_size"], False
    if start.why:
        print(start.why, file=sys.stderr)
    dtype = DTYPES[INT8] if is_quantised(pipeline) else start.dtype
    if dtype is not None:
        pipeline = lowered(pipeline, dtype)
    size = batch_size or default_batch_size(pipeline)
    if not batch_size and pipeline.device.type == "cuda":
        print(f"precision {NAMES[pipeline.precision]}, batches of {size} radiographs", file=sys.stderr)
    if dtype is not None:
        way = Way(runtime_of(pipeline), INT8 if is_quantised(pipeline) else NAMES[dtype])
        journal.choose_once(_note(way, size, start.models))
    return pipeline, size, dtype is None


def _note(way: Way, batch_size: int, models: Sequence[str]) -> dict[str, Any]:
    return {**dataclasses.asdict(way), "batch_size": batch_size, "models": list(models)}


def _as_noted(pipeline: Pipeline, noted: Mapping[str, Any], models: Models, start: Start) -> Pipeline:
    """The pipeline in the way in which the radiographs before were done."""
    way = Way(noted.get("runtime", "torch"), noted["precision"])  # a cluster notes none
    is_same = way.runtime == runtime_of(pipeline) and (way.precision == INT8) == is_quantised(pipeline)
    if not is_same:
        pipeline = models.load(way)
    now = start.models if is_same else models.others().get(way, ())
    if list(now) != noted.get("models", []):
        raise InputError(
            f"the radiographs before were done with {way.name} and other files of OpenVINO than there are now: give "
            "--overwrite to start again"
        )
    return lowered(pipeline, DTYPES[way.precision])


def runtime_of(pipeline: Pipeline) -> str:
    """The runtime of its models: "torch", "onnx" or "openvino"."""
    return next((network.runtime for network in _exported(pipeline)), "torch")


def is_quantised(pipeline: Pipeline) -> bool:
    """Whether one of its models computes in INT8, so that there is no precision to choose."""
    return any(network.is_int8 for network in _exported(pipeline))


def _exported(pipeline: Pipeline) -> list[ExportedNetwork]:
    return [loaded.model for loaded in pipeline.models if isinstance(loaded.model, ExportedNetwork)]


def ready(models: Models, start: Start) -> Pipeline:
    """The pipeline of a process that takes radiographs as they come: float32 where nothing else decides."""
    pipeline = models.load(start.way)
    return lowered(pipeline, DTYPES["32"] if start.dtype is None or is_quantised(pipeline) else start.dtype)


def choose_precision_by_trial(
    pipeline: Pipeline,
    journal: Journal,
    models: Models,
    first: Sequence[Decoded | Undecodable],
    batch_size: int,
    n: int,
) -> Pipeline:
    """On a CPU with a choice: the pipeline in the way that a trial on the first of `n` radiographs selects.

    first: `trial_size` radiographs, or fewer if there are no more. The result of a trial is remembered beside the
    weights.
    """
    decoded = [item for item in first if isinstance(item, Decoded)]
    way, used = Way(runtime_of(pipeline), "32"), tuple[str, ...]()
    if n >= WORTH_A_TRIAL and decoded:
        sizes = [(item.width, item.height) for item in decoded]
        canvases = np.stack([item.canvas for item in decoded])
        others = models.others()
        loaders = {each: functools.partial(_loaded, models, each) for each in others}
        measured = models.measured() if QUANTISED in others else ()
        outcome = fastest_way(pipeline, canvases, sizes, batch_size, loaders, measured, way)
        pipeline, way, used = outcome.pipeline, outcome.way, others.get(outcome.way, ())
        print(f"precision {way.name}: {outcome.why}", file=sys.stderr)
        if outcome.is_sure:
            choice = Choice(way.precision, outcome.why, way.runtime, used, considered(others), round(outcome.saved, 4))
            remember(models.runs, choice, models.runtime)
    journal.choose_once(_note(way, batch_size, used))
    return pipeline


def _loaded(models: Models, way: Way) -> Pipeline:
    return lowered(models.load(way), DTYPES[way.precision])


def trial_size(n: int, batch_size: int) -> int:
    """Batches of `batch_size` to be decoded before `choose_precision_by_trial`, of `n` radiographs."""
    return -(-TRIAL // batch_size) if n >= WORTH_A_TRIAL else 1


def default_batch_size(pipeline: Pipeline) -> int:
    """Radiographs of a batch: as many as a GPU's memory allows, 2 on a CPU."""
    size = pipeline.canvas_size
    if pipeline.device.type != "cuda":
        return CPU_BATCH
    return largest_batch(lambda n: pipeline.forward(np.zeros((n, size, size), dtype=dtype_of(pipeline.bits))))
