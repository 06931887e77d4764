"""Models whose products are of 8-bit integers (post-training quantisation), kept only where the metric is.

NNCF finds each layer's range on radiographs that the model was trained on. Only what computes features is quantised:
never what makes boxes of them, whose coordinates 8 bits cannot hold. Where the metric of a held-out fold is not kept,
more layers stay in float32 and it is tried again: the ones that make the outputs, then those before them, too.
"""

import contextlib
import dataclasses
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from xray.datasets.source import TRAIN, VAL
from xray.datasets.store import Store, fold_in_words
from xray.errors import InputError
from xray.evaluation.evaluate import evaluate
from xray.file_names import CONFIG_FILE
from xray.inference.exported import check_bits
from xray.inference.findings import Findings
from xray.inference.loaded import RUN_TASK
from xray.inference.metric_moves import MOST_MOVE, expected_moves
from xray.inference.metric_moves import in_words as moves_in_words
from xray.inference.openvino_files import INT8, KEPT, MEASURED
from xray.inference.pipeline import Pipeline
from xray.inference.pipeline_loading import load_pipeline
from xray.inference.trial import CPU_BATCH, TRIAL, find_in_batches
from xray.models.weights import load_deployed
from xray.radiographs.canvas import rescaled
from xray.structures.predictions import Predictions

LINEAR = ("Convolution", "GroupConvolution", "MatMul")
PLACES = {"ROIAlign": 1, "Gather": 1}
"""Operations that take features as their first input; the others say where."""
CALIBRATION = 200
"""Radiographs at most."""
METRICS = {"map40": "mAP@0.4", "coco_ap": "COCO AP", "dice": "Dice", "mean_auroc": "AUROC"}
OF_TASK = {"detection": ("map40", "coco_ap"), "segmentation": ("dice",), "classification": ("mean_auroc",)}
OF_TASK[RUN_TASK] = OF_TASK["detection"] + OF_TASK["segmentation"]


class LostMetricError(InputError):
    """8 bits do not keep the metric, whatever stays in float32."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """Names of a graph's operations. rest: those that compute no features. heads: the layers of `LINEAR`, grouped by
    how many of their kind follow on the way to an output: [0] make the outputs."""

    rest: tuple[str, ...]
    heads: tuple[tuple[str, ...], ...]


def parts_of(model: Any) -> Parts:
    """What of an openvino.Model computes features, and how far from the outputs."""
    operations = model.get_ordered_ops()
    feeds = {op.get_friendly_name(): list(_features(op)) for op in operations}
    kinds = {op.get_friendly_name(): op.get_type_name() for op in operations}
    linear = [name for name, kind in kinds.items() if kind in LINEAR]
    # Backwards, the operations come after what they feed: how many layers at least follow each.
    follow: dict[str, int] = dict.fromkeys(linear, 0)
    for op in reversed(operations):
        name = op.get_friendly_name()
        if name in follow:
            for source in feeds[name]:
                after = follow[name] + (kinds[name] in LINEAR)
                # The longest way counts: a layer whose output feeds another one makes no output itself.
                follow[source] = max(follow.get(source, 0), after)
    layers = [tuple(name for name in linear if follow[name] == number) for number in range(max(follow.values()) + 1)]
    trivial = ("Constant", "Parameter", "Result")
    rest = tuple(name for name, kind in kinds.items() if name not in follow and kind not in trivial)
    return Parts(rest, tuple(layers))


def _features(op: Any) -> Iterator[str]:
    for number in range(PLACES.get(op.get_type_name(), op.get_input_size())):
        yield op.input_value(number).get_node().get_friendly_name()


def attempts(parts: Parts, has_boxes: bool) -> list[tuple[str, tuple[str, ...]]]:
    """What stays in float32, in words and as names of layers: ever more of them."""
    outputs = parts.heads[0]
    heads = outputs + (parts.heads[1] if len(parts.heads) > 2 else ())
    first = ("nothing but boxes", ()) if has_boxes else ("nothing", ())
    names = [first, (_listed("the layers of the outputs", outputs), outputs), (_listed("the heads", heads), heads)]
    return names[1:] if has_boxes else names


def _listed(what: str, names: Sequence[str]) -> str:
    return f"{what} ({', '.join(names[:4])}{', …' if len(names) > 4 else ''})"


def quantise(model: Any, canvases: Sequence[np.ndarray], float32: Sequence[str]) -> Any:
    """An openvino.Model → one whose feature layers compute in 8 bits, but for those named in `float32`.

    canvases: (S, S) uint8 each.
    """
    names = [*parts_of(model).rest, *float32]
    # NNCF draws a bar on stdout, which is for results.
    with _quietly(), warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(sys.stderr):
        nncf = _nncf()
        return nncf.quantize(
            model.clone(),
            nncf.Dataset([canvas[None, None] for canvas in canvases]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(canvases),
            ignored_scope=nncf.IgnoredScope(names=names, validate=False),
        )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without log messages, such as that PyTorch's compiler of extensions sees no GPU."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _nncf() -> Any:
    """NNCF, silent, and without the library by which it reports its use to its makers."""
    known = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        import nncf
    finally:
        if known is None:
            del sys.modules["openvino_telemetry"]
        else:
            sys.modules["openvino_telemetry"] = known
    nncf.set_log_level(logging.ERROR)
    return nncf


def calibration_canvases(store: Store, fold: int | str, size: int) -> list[np.ndarray]:
    """Up to `CALIBRATION` radiographs of the other folds (fold "val": of all), evenly chosen, each (size, size) uint8.

    Raises InputError where the dataset has no such fold, or nothing else.
    """
    rows = store.rows(split=TRAIN) if isinstance(fold, str) else store.rows(not_fold=fold)
    if not len(rows):
        raise InputError(f"{store.path} has nothing but fold {fold}: others are needed to find the ranges of 8 bits")
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(CALIBRATION, len(rows))).astype(int))]
    return [np.array(rescaled(store.shown(row), size)) for row in chosen]


def part_of(fold: int | str) -> dict[str, Any]:
    """A fold, or "val" for the validation split, as `Store.rows` and `evaluate` take it."""
    return {"split": fold} if isinstance(fold, str) else {"fold": fold}


def metrics_on(pipeline: Pipeline, store: Store, fold: int | str, task: str) -> dict[str, float]:
    """Name → value of the metrics of a task that a pipeline reaches on a fold, or on the validation split
    ("val"), as far as its truth defines them.

    Raises InputError where it defines none.
    """
    if task == RUN_TASK and store.categories == pipeline.segmenters[0].categories:
        # The dataset is the segmenter's, and knows nothing of what the detector on the same trunk finds.
        task, categories = "segmentation", pipeline.segmenters[0].categories
        pipeline = dataclasses.replace(pipeline, detectors=(), pairs=(), categories=categories)
    rows = store.rows(**part_of(fold))
    found = _found(pipeline, store, rows, with_maps=False)
    predictions = Predictions(tuple(store.records[row]["source_id"] for row in rows), found.table, found.masks)
    values = evaluate(store, predictions, **part_of(fold)).metrics
    known = {METRICS[name]: float(values[name]) for name in OF_TASK[task] if np.isfinite(values.get(name, np.nan))}
    if not known:
        raise InputError(
            f"{fold_in_words(fold)} of {store.path} defines no {' or '.join(METRICS[name] for name in OF_TASK[task])}: "
            "give --check-data a dataset directory with the truth that the model was trained for"
        )
    return known


def _found(pipeline: Pipeline, store: Store, rows: np.ndarray, with_maps: bool) -> Findings:
    groups = [rows[start : start + CPU_BATCH] for start in range(0, len(rows), CPU_BATCH)]
    console = Console(stderr=True)
    columns, is_seen = Progress.get_default_columns(), console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not is_seen) as progress:
        batches = (
            (
                np.stack([rescaled(store.shown(row), pipeline.canvas_size) for row in group]),
                [(store.records[row]["width"], store.records[row]["height"]) for row in group],
            )
            for group in progress.track(groups, description="measuring")
        )
        return find_in_batches(pipeline, batches, with_maps)


def expected_on(exact: Pipeline, rough: Pipeline, store: Store, fold: int | str) -> dict[str, float]:
    """What `expected_moves` expects on some radiographs of a fold; no truth is needed."""
    rows = store.rows(**part_of(fold))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(TRIAL, len(rows))).astype(int))]
    ours, theirs = (_found(pipeline, store, rows, with_maps=True) for pipeline in (exact, rough))
    return expected_moves(ours, theirs, len(rows), exact.categories if exact.detectors else {}, exact.triplet)


def is_kept(exact: dict[str, float], rough: dict[str, float]) -> bool:
    """Whether no metric has fallen by `MOST_MOVE`."""
    return all(rough[name] - value > -MOST_MOVE for name, value in exact.items())


def in_words(exact: dict[str, float], rough: dict[str, float]) -> str:
    """Such as "mAP@0.4 0.4187 → 0.4179 (-0.0008)"."""
    return ", ".join(
        f"{name} {value:.4f} → {rough[name]:.4f} ({rough[name] - value:+.4f})" for name, value in exact.items()
    )


@dataclasses.dataclass(frozen=True)
class Quantised:
    """A model in 8 bits. values: its metrics. expected: the moves that are expected of it without a truth.

    float32: what of it is not in 8 bits, in words.
    """

    model: Any
    values: dict[str, float]
    expected: dict[str, float]
    float32: str


def best_quantised(
    model: Any,
    has_boxes: bool,
    canvases: Sequence[np.ndarray],
    measure: Callable[[Any], tuple[dict[str, float], dict[str, float]]],
    exact: dict[str, float],
    tell: Callable[[str], None],
) -> Quantised:
    """The quantised model with the fewest layers in float32 that keeps the metric.

    measure: gives the metrics of a model, and the moves that are expected of it. exact: the metrics of the run; a
    metric that they lack, as the dataset has no truth of it, is kept where its expected move is small. tell: is told
    of each attempt. Raises LostMetricError with all numbers where none keeps it.
    """
    tried = []
    for what, names in attempts(parts_of(model), has_boxes):
        quantised = quantise(model, canvases, names)
        rough, expected = measure(quantised)
        unknown = {name: move for name, move in expected.items() if name not in exact}
        words = in_words(exact, rough)
        if unknown:
            words += f", without a truth expected to move by {moves_in_words(unknown)}"
        tell(f"INT8 with {what} in float32: {words}")
        if is_kept(exact, rough) and all(move > -MOST_MOVE for move in unknown.values()):
            if any(rough[name] - value >= MOST_MOVE for name, value in exact.items()):
                tell(f"a rise of {MOST_MOVE} or more is chance, and so might be a fall: check on more radiographs")
            return Quantised(quantised, rough, expected, what)
        tried.append(f"{words} with {what} in float32")
    raise LostMetricError(f"INT8 loses {MOST_MOVE} or more of the metric, nothing was written: {'; '.join(tried)}")


def quantised_run(run: Path, prune: int, store: Store, fold: int, temporary: Path) -> tuple[Any, str]:
    """A run directory of any task → its quantised openvino.Model, with what became of the metric, and that in words.

    fold: of the dataset, which measures; -1 chooses. temporary: a .xml file that may be written over.
    Raises InputError for a dataset that does not fit, and LostMetricError where the metric is not kept.
    """
    from xray.export.openvino import save, to_openvino
    from xray.inference.openvino_runtime import PLACE

    description, _ = load_deployed(run)
    check_bits(run, description)
    task = str(description["task"])
    held_back = fold_of(run, fold)
    pipeline = load_pipeline([run], torch.device("cpu"), flips=False, prune=prune)
    canvases = calibration_canvases(store, held_back, pipeline.canvas_size)
    exact = metrics_on(pipeline, store, held_back, task)

    def measure(model: Any) -> tuple[dict[str, float], dict[str, float]]:
        save(model, temporary)
        quantised = load_pipeline([temporary], torch.device("cpu"), flips=False, runtime="openvino")
        return metrics_on(quantised, store, held_back, task), expected_on(pipeline, quantised, store, held_back)

    def tell(words: str) -> None:
        print(words, file=sys.stderr)

    has_boxes = bool(pipeline.detectors)
    best = best_quantised(to_openvino(run, prune), has_boxes, canvases, measure, exact, tell)
    place = (
        f"on the {len(store.rows(**part_of(held_back)))} radiographs of {fold_in_words(held_back)} of {store.path.name}"
    )
    kept = f"{in_words(exact, best.values)} {place}"
    if unknown := {name: move for name, move in best.expected.items() if name not in exact}:
        kept += f", {moves_in_words(unknown)} expected without a truth"
    measured = {"exact": exact, INT8: best.values, "expected": best.expected, "prune": prune}
    best.model.set_rt_info(kept, [PLACE, KEPT])
    best.model.set_rt_info(json.dumps(measured), [PLACE, MEASURED])
    return best.model, f"{kept}; in float32 stays {best.float32}"


def write_quantised(run: Path, out: Path, store: Store, prune: int = 0, fold: int = -1) -> str:
    """Writes `quantised_run` to a .xml file and its .bin; returns what became of the metric, in words."""
    from xray.export.openvino import save, writing

    with writing(out) as temporary:
        model, words = quantised_run(run, prune, store, fold, temporary)
        save(model, temporary)
    return words


def fold_of(run: Path, fold: int) -> int | str:
    """The fold to check on: as given, or with -1 what the run's training held back ("val" for the dataset's validation
    split), else 0."""
    if fold >= 0:
        return fold
    import yaml

    try:
        known = yaml.safe_load((run / CONFIG_FILE).read_text())["fold"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return 0
    if known == VAL:
        return VAL
    return known if isinstance(known, int) and not isinstance(known, bool) and known >= 0 else 0
