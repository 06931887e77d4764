"""The trial that decides on a CPU in which way models are run: the fastest one that keeps the metric."""

import copy
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from xray.errors import InputError
from xray.inference.exported import ExportedNetwork
from xray.inference.findings import Findings
from xray.inference.openvino_files import INT8
from xray.inference.pipeline import Pipeline
from xray.inference.ways import PLAIN, QUANTISED, Way
from xray.models.device import bfloat16_gain, has_bfloat16, lower
from xray.structures.boxes import concatenate_with_masks

CPU_BATCH = 2
TRIAL = 32
"""Radiographs of a trial, the first ones."""
WORTH_A_COPY = 1.1
"""How many times faster one convolution must be for a trial of all models."""
ROUNDS = 2
"""How often each way is timed, in turn; the fastest time counts, as slower ones were disturbed."""

Loader = Callable[[], Pipeline]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a trial. pipeline: ready to run in `way`. why: in words.

    is_sure: whether other radiographs would lead to the same choice; False where these show too little.
    saved: seconds a radiograph that `way` saves against PyTorch in float32.
    """

    pipeline: Pipeline
    way: Way
    why: str
    is_sure: bool
    saved: float = 0.0


def lowered(pipeline: Pipeline, dtype: torch.dtype) -> Pipeline:
    """The pipeline in another precision; its models are changed in place."""
    if dtype != torch.float32:
        for loaded in pipeline.models:
            if isinstance(loaded.model, ExportedNetwork):
                loaded.model.lower(dtype)
            else:
                lower(loaded.model, dtype)
    return dataclasses.replace(pipeline, precision=dtype)


def fastest_way(
    pipeline: Pipeline,
    canvases: np.ndarray,
    sizes: Sequence[tuple[int, int]],
    batch_size: int = CPU_BATCH,
    others: Mapping[Way, Loader] | None = None,
    measured: Sequence[Mapping[str, Any]] = (),
    base: Way = PLAIN,
) -> Outcome:
    """The fastest of a pipeline in float32, its copy in bfloat16, and others, of those that keep the metric.

    canvases, sizes: as `Pipeline.find` takes them, of the radiographs to try. batch_size: radiographs at a time.
    others: further ways → a function that makes the pipeline; failures are named in `why`. measured: for each run,
    `measured_in` of its INT8 model. base: the way of the pipeline.
    """
    reasons: list[str] = []
    ways = {base: pipeline} | _others(pipeline, base, others or {}, reasons)
    seconds = _seconds(ways, canvases[:batch_size], sizes[:batch_size])
    for way in list(ways):
        if way != base and seconds[way] >= seconds[base]:
            reasons.append(f"{way.name} takes {seconds[way] / seconds[base]:.1f} times as long")
            del ways[way]
    if len(ways) == 1:
        return Outcome(pipeline, base, "; ".join(reasons) or "no other way is available", True)
    # Imported here: it compiles metrics, and most commands make no trial.
    from xray.inference.metric_moves import MOST_MOVE, are_small, expected_moves, in_words

    of = f"on the first {len(sizes)} radiographs"
    exact: Findings | None = None
    *order, _ = sorted(ways, key=lambda way: seconds[way])  # the last is float32
    for place, way in enumerate(order, 1):
        exact = exact or _findings_of(pipeline, canvases, sizes, batch_size)
        rough = _findings_of(ways[way], canvases, sizes, batch_size)
        categories = pipeline.categories if pipeline.detectors else {}
        moves = expected_moves(exact, rough, len(sizes), categories, pipeline.triplet)
        if not moves:
            why = f"too few findings {of} to estimate how {way.name} changes the metric"
            return Outcome(pipeline, base, why, False)
        if way == QUANTISED:
            moves = corrected(moves, measured)
        is_kept = min(moves.values()) > -MOST_MOVE if way == QUANTISED else are_small(moves)
        words = f"{seconds[base] / seconds[way]:.1f} × faster"
        expected = f"the metric is expected to move by {in_words(moves)} {of}"
        if is_kept:
            saved = (seconds[base] - seconds[way]) / len(sizes[:batch_size])
            if slower := [f"{each.name} {seconds[base] / seconds[each]:.1f} ×" for each in order[place:]]:
                words += f" ({', '.join(slower)})"
            return Outcome(ways[way], way, "; ".join([f"{words}, {expected}", *reasons]), True, saved)
        reasons.append(f"{way.name} is {words}, but {expected}")
    return Outcome(pipeline, base, "; ".join(reasons), True)


def _others(pipeline: Pipeline, base: Way, loaders: Mapping[Way, Loader], reasons: list[str]) -> dict[Way, Pipeline]:
    """The pipelines of other ways; told: why there is none of one."""
    pipelines: dict[Way, Pipeline] = {}
    gain = bfloat16_gain() if has_bfloat16() else 0.0
    if gain >= WORTH_A_COPY:
        pipelines[Way(base.runtime, "bf16")] = lowered(copy.deepcopy(pipeline), torch.bfloat16)
    elif gain:
        reasons.append(f"a convolution in bfloat16 takes {1 / gain:.1f} times as long on this processor")
    for way, load in loaders.items():
        try:
            pipelines[way] = load()
        except InputError as error:
            reasons.append(f"{way.name} cannot be tried: {error}")
    return pipelines


def corrected(moves: Mapping[str, float], measured: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Moves of INT8: those measured with a truth, and the additional loss on these radiographs.

    When an INT8 model was made, its move was measured on radiographs with a truth, and also estimated on some of them
    without it, as `moves` are here. Both estimates overstate the loss; what counts is by how much the one here is
    worse. measured: `measured_in` for each run; of several runs the mean is used.
    """
    result = dict(moves)
    for name, move in moves.items():
        known = [
            part[INT8][name] - part["exact"][name] + min(0.0, move - part["expected"][name])
            for part in measured
            if all(name in part.get(key, ()) for key in (INT8, "exact", "expected"))
        ]
        if known:
            result[name] = float(np.mean(known))
    return result


def _seconds(ways: Mapping[Way, Pipeline], canvases: np.ndarray, sizes: Sequence[tuple[int, int]]) -> dict[Way, float]:
    for pipeline in ways.values():
        pipeline.forward(canvases[:1])  # the first time, weights are prepared and models compiled
    times: dict[Way, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, pipeline in ways.items():
            start = time.perf_counter()
            pipeline.find(canvases, sizes)
            times[way].append(time.perf_counter() - start)
    return {way: min(seconds) for way, seconds in times.items()}


def _findings_of(
    pipeline: Pipeline, canvases: np.ndarray, sizes: Sequence[tuple[int, int]], batch_size: int
) -> Findings:
    parts = [slice(start, start + batch_size) for start in range(0, len(sizes), batch_size)]
    return find_in_batches(pipeline, [(canvases[part], sizes[part]) for part in parts])


def find_in_batches(
    pipeline: Pipeline, batches: Iterable[tuple[np.ndarray, Sequence[tuple[int, int]]]], with_maps: bool = True
) -> Findings:
    """`Pipeline.find` over one or more batches of canvases and sizes, joined to one result. with_maps: probability maps
    are kept."""
    parts, begin = [], 0
    for canvases, sizes in batches:
        findings = pipeline.find(canvases, sizes)
        table = dataclasses.replace(findings.table, images=findings.table.images + begin)
        parts.append(((table, findings.masks), findings.maps if with_maps else None, findings.labels))
        begin += len(sizes)
    tables, maps, labels = zip(*parts, strict=True)
    return Findings(
        *concatenate_with_masks(tables),
        maps=None if maps[0] is None else np.concatenate(maps),
        labels={label: np.concatenate([part[label] for part in labels]) for label in labels[0]},
        has_places=pipeline.has_places,
    )
