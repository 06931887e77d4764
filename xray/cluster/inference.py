"""Inference by the nodes of a Ray cluster: batches of findings, in order, as `inference.streaming` makes them.

Every actor loads the models, and decodes and runs them over one part of the radiographs after another. Batches hold the
same radiographs as on one machine, and precision and batch size are chosen once, for all nodes.
"""

import contextlib
import dataclasses
import functools
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from xray.cluster.decoding import Decoders, Item, check_seen, here, unseen_files
from xray.cluster.ray import Cluster
from xray.datasets.inputs import Inputs
from xray.datasets.originals import Original, in_original_pixels
from xray.datasets.store import ALL_FOLDS, open_store
from xray.errors import InputError
from xray.inference.pipeline import Pipeline
from xray.inference.pipeline_loading import load_pipeline
from xray.inference.precision import choose_precision, choose_precision_by_trial, trial_size
from xray.inference.prediction_journal import PredictionJournal
from xray.inference.streaming import Batch, consecutive, radiographs, run
from xray.inference.trial import CPU_BATCH, lowered
from xray.inference.ways import NAMES, Models
from xray.models.device import inference_precision, keep_freed_memory
from xray.radiographs.decoding import NO_GATE, Decoded
from xray.radiographs.image_check import Gate
from xray.structures.triplet import Triplet

PART = 32
"""Radiographs in one part, about."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What every actor must know.

    runs … prune, scales: as for `load_pipeline`. precision, batch_size: as chosen for all, or "auto" and 0. gate_image:
    as `Inputs` has it. cores: processes that decode. store: of the radiographs, None where they are files. maps:
    whether probability maps are wanted.
    """

    runs: tuple[Path, ...]
    device: Literal["cpu", "cuda"]
    flips: bool
    gate: Literal["soft", "hard"]
    gate_threshold: float | None
    triplet: Triplet | None
    prune: int
    precision: str
    batch_size: int
    timeout: float
    store: Path | None
    maps: bool
    scales: tuple[float, ...] = (1.0,)
    gate_image: Gate = NO_GATE
    cores: int = 1

    def load(self) -> Pipeline:
        """The models, in float32."""
        device = torch.device(self.device)
        options = (self.flips, self.gate, self.gate_threshold, self.triplet, self.prune)
        pipeline = load_pipeline(self.runs, device, *options, scales=self.scales)
        if device.type == "cpu":
            keep_freed_memory()
        return pipeline


@dataclasses.dataclass(frozen=True)
class _Part:
    """Radiographs from place `start` on: their files, with `originals` as `Inputs` has them, or rows of a store."""

    start: int
    paths: tuple[Path, ...] = ()
    rows: np.ndarray | None = None
    originals: tuple[Original, ...] = ()


def device_for(cluster: Cluster, device: str) -> Literal["cpu", "cuda"]:
    """What actors compute on, for --device: auto is the GPUs, where the cluster has any."""
    n_gpus = cluster.n_gpus
    if device == "cuda" and not n_gpus:
        raise InputError("--device cuda, but no node of the cluster has a GPU that Ray knows of: use --device cpu")
    return "cuda" if n_gpus and device != "cpu" else "cpu"


def choose_precision_for_all(plan: Plan, cluster: Cluster, inputs: Inputs, journal: PredictionJournal, n: int) -> Plan:
    """The plan with a precision and a batch size, which the journal notes; an actor chooses where a trial is needed.

    inputs: the radiographs to come. n: radiographs in all.
    """
    chosen = journal.choices
    if chosen and chosen.get("runtime", "torch") != "torch":
        raise InputError(
            "the radiographs before were done by OpenVINO on one machine: go on with --engine local, or give "
            "--overwrite to start again"
        )
    if chosen is None and plan.device == "cpu" and (dtype := inference_precision(plan.precision, torch.device("cpu"))):
        chosen = {"precision": NAMES[dtype], "batch_size": plan.batch_size or CPU_BATCH}
    if chosen is None:
        size = plan.batch_size or CPU_BATCH
        first = _part(inputs, 0, size * trial_size(n, size))
        make = functools.partial(_choosing, plan, n)
        ((chosen, words),) = cluster.in_order(make, [first], gpu=plan.device == "cuda")
        print(words, end="", file=sys.stderr)
    chosen = journal.choose_once(chosen)
    return dataclasses.replace(plan, precision=chosen["precision"], batch_size=chosen["batch_size"])


class _Slip:
    """Stands in for the journal on a node: keeps what was chosen."""

    def __init__(self) -> None:
        self.choices: dict[str, Any] | None = None

    def choose_once(self, choices: Mapping[str, Any]) -> dict[str, Any]:
        self.choices = dict(choices)
        return self.choices


def _choosing(plan: Plan, n: int) -> Callable[[_Part], Any]:
    loaded, reader = plan.load(), _Reader(plan)
    models = Models(plan.runs, plan.device, plan.precision, "torch")

    def work(part: _Part) -> tuple[dict[str, Any], str]:
        slip, lines = _Slip(), io.StringIO()
        with contextlib.redirect_stderr(lines):
            start = models.start(n)
            pipeline, batch_size, undecided = choose_precision(loaded, slip, models, start, plan.batch_size)
            if undecided:
                first = list(reader(part, pipeline))
                choose_precision_by_trial(pipeline, slip, models, first, batch_size, n)
        assert slip.choices is not None
        return slip.choices, lines.getvalue()

    return work


def find(plan: Plan, cluster: Cluster, inputs: Inputs) -> Iterator[Batch]:
    """The findings of all radiographs, batch after batch. Their canvases stay on the nodes.

    plan: after `choose_precision_for_all`.
    """
    gpu, n, size = plan.device == "cuda", len(inputs), plan.batch_size
    least = max(1, min(PART, n // (4 * max(1, cluster.n_actors(gpu)))))
    length = -(-least // size) * size
    parts = [_part(inputs, start, length) for start in range(0, n, length)]
    make = functools.partial(_finding, dataclasses.replace(plan, cores=cluster.cores_of(gpu)))
    for part, (batches, unseen) in zip(parts, cluster.in_order(make, parts, gpu), strict=True):
        check_seen(unseen)
        for batch in batches:
            yield _back(batch, part.start, inputs.paths)


def _finding(plan: Plan) -> Callable[[_Part], Any]:
    pipeline, reader = plan.load(), _Reader(plan)
    dtype = inference_precision(plan.precision, pipeline.device)
    assert dtype is not None  # `choose_precision_for_all` has decided
    pipeline = lowered(pipeline, dtype)

    def work(part: _Part) -> tuple[list[Batch], list[Path]]:
        batches: list[Batch] = []
        stream = consecutive(reader(part, pipeline), plan.batch_size)
        run(pipeline, stream, lambda batch: batches.append(_light(batch, plan.maps)))
        return batches, [] if plan.store else unseen_files([item for batch in batches for item in batch.items])

    return work


class _Reader:
    """What reads the radiographs of a part on a node, be they files or rows of a dataset directory."""

    def __init__(self, plan: Plan) -> None:
        self._store = None if plan.store is None else open_store(plan.store, pseudo_for=ALL_FOLDS)
        self._decode = Decoders(plan.cores) if plan.store is None else None
        self._timeout, self._gate = plan.timeout, plan.gate_image

    def __call__(self, part: _Part, pipeline: Pipeline) -> Iterator[Item]:
        size, bits = pipeline.canvas_size, pipeline.bits
        if self._decode is not None:
            return in_original_pixels(self._decode(part.paths, size, self._timeout, bits, self._gate), part.originals)
        # Their names are of no interest here.
        assert part.rows is not None
        inputs = Inputs(("",) * len(part.rows), store=self._store, rows=part.rows)
        return radiographs(inputs, size, 0, self._timeout, bits=bits)


def _part(inputs: Inputs, start: int, length: int) -> _Part:
    if inputs.rows is not None:
        return _Part(start, rows=inputs.rows[start : start + length])
    paths = tuple(path.absolute() for path in inputs.paths[start : start + length])
    return _Part(start, paths, originals=inputs.originals[start : start + length])


def _light(batch: Batch, maps: bool) -> Batch:
    """Without the canvases; maps, where they are wanted, in the 256 steps that they have."""
    nothing = np.zeros((0, 0), dtype=np.uint8)
    items = [dataclasses.replace(i, canvas=nothing) if isinstance(i, Decoded) else i for i in batch.items]
    wanted = batch.findings.maps if maps else None
    steps = None if wanted is None else np.rint(wanted * 255).astype(np.uint8)
    return Batch(items, dataclasses.replace(batch.findings, maps=steps))


def _back(batch: Batch, start: int, paths: Sequence[Path]) -> Batch:
    items = [here(item, start, paths[start + item.index] if paths else item.path) for item in batch.items]
    steps = batch.findings.maps
    maps = None if steps is None else steps.astype(np.float32) / 255
    return Batch(items, dataclasses.replace(batch.findings, maps=maps))
