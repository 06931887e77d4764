"""The part of predictions that a comparison needs, kept beside a report, so that the predictions can be compared later.

`scored.npz` holds, of the radiographs that were scored: the predicted boxes, the pixels that masks share with the
truth, and the scores of labels. The truth stays in the dataset directory.
"""

import dataclasses
from pathlib import Path

import numpy as np

from xray.datasets.fingerprint import fingerprint
from xray.datasets.predicted_categories import CategoryIds
from xray.datasets.predicted_images import ImageIds
from xray.datasets.prediction_ids import read_any_predictions
from xray.datasets.store import Store
from xray.errors import InputError, spelled
from xray.evaluation.evaluate import Evaluation, evaluate
from xray.evaluation.labels import LabelScores
from xray.file_names import PREDICTIONS, VALIDATED
from xray.files import complete
from xray.structures.boxes import BoxTable
from xray.structures.probability_maps import read_maps

SCORED = "scored.npz"
VERSION = 1
HUNDREDTH = 100.0


@dataclasses.dataclass(frozen=True)
class Scored:
    """Predictions of n radiographs.

    image_ids: source ids, in the order of the dataset's rows. annotations: hash of these radiographs' truth.
    boxes: `images` in [0, n); None where the predictions hold no boxes. masks: category → (n, 3) int64, pixels that
    both masks have, of the predicted one, of the true one. labels: name → (n,) float64, NaN where the truth is not
    known; a classifier's beside a map or rows have " (classifier)" behind the name.
    """

    image_ids: tuple[str, ...]
    annotations: str
    boxes: BoxTable | None
    masks: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


def scored_of(evaluation: Evaluation, annotations: str) -> Scored:
    """The predictions of an evaluation. annotations: `annotations_sha256` of the `fingerprint` of its radiographs."""
    alignment, masks = evaluation.alignment, evaluation.masks
    of_masks = {}
    if masks:
        sums = np.stack([masks.intersections, masks.predicted, masks.true], axis=2)
        of_masks = {name: sums[:, k] for k, name in enumerate(masks.categories.values())}
    curves = evaluation.labels.curves if evaluation.labels else ()
    return Scored(
        tuple(record["source_id"] for record in alignment.records),
        annotations,
        evaluation.boxes.alignment.predictions if evaluation.boxes else None,
        of_masks,
        {curve.label.full_name: _in_place(curve.label, len(alignment)) for curve in curves},
    )


def _in_place(label: LabelScores, n: int) -> np.ndarray:
    scores = np.full(n, np.nan)
    scores[label.places] = label.scores
    return scores


def write_scored(path: Path, scored: Scored) -> None:
    """Writes `scored.npz`, complete or not at all."""
    columns: dict[str, np.ndarray] = {
        "version": np.array(VERSION),
        "image_ids": np.array(scored.image_ids, dtype=np.str_),
        "annotations": np.array(scored.annotations),
        "mask_names": np.array(list(scored.masks), dtype=np.str_),
        "label_names": np.array(list(scored.labels), dtype=np.str_),
    }
    if scored.masks:
        columns["masks"] = np.stack(list(scored.masks.values()))
    if scored.labels:
        columns["labels"] = np.stack(list(scored.labels.values()))
    if scored.boxes is not None:
        table = scored.boxes
        columns |= {"box_images": table.images.astype(np.int32), "box_labels": table.labels.astype(np.int32)}
        columns |= {"box_scores": table.scores, "boxes": _compact(table.boxes)}
    with complete(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **columns)  # type: ignore[arg-type]  # NumPy: each could be its `allow_pickle`


def _compact(boxes: np.ndarray) -> np.ndarray:
    """Coordinates in hundredths of a pixel, which files hold, as integers, if that loses nothing."""
    whole = np.rint(boxes * HUNDREDTH)
    is_exact = np.abs(whole).max(initial=0) < 2**31 and np.array_equal(whole / HUNDREDTH, boxes)
    return whole.astype(np.int32) if is_exact else boxes


def read_scored(path: Path) -> Scored:
    """Reads what `write_scored` wrote. Raises InputError if it is missing, damaged or something else."""
    try:
        with np.load(path, allow_pickle=False) as content:
            columns = {name: content[name] for name in content.files}
        if int(columns["version"]) != VERSION:
            raise ValueError(f"version {columns['version']}")
        n = len(columns["image_ids"])
        boxes = None
        if "boxes" in columns:
            edges = columns["boxes"]
            edges = edges / HUNDREDTH if edges.dtype == np.int32 else edges
            boxes = BoxTable.of(columns["box_images"], columns["box_labels"], edges, columns["box_scores"])
            if len(boxes) and not (boxes.images.min() >= 0 and boxes.images.max() < n):
                raise ValueError("a box of a radiograph that is not there")
        masks = dict(zip(columns["mask_names"].tolist(), columns.get("masks", ()), strict=True))
        labels = dict(zip(columns["label_names"].tolist(), columns.get("labels", ()), strict=True))
        if any(part.shape != (n, 3) for part in masks.values()) or any(part.shape != (n,) for part in labels.values()):
            raise ValueError("its tables differ in length")
        return Scored(tuple(columns["image_ids"].tolist()), str(columns["annotations"]), boxes, masks, labels)
    except FileNotFoundError:
        raise InputError(
            f"{path.parent} holds no {SCORED}: give a predictions file, or a folder that {spelled('evaluate')} wrote"
        ) from None
    except Exception as error:  # whatever NumPy and zipfile raise on damaged bytes
        raise InputError(f"{path} is damaged ({type(error).__name__}): run {spelled('evaluate')} again") from None


def file_of(side: Path) -> Path:
    """The file of one side of a comparison; the folder itself where there is none in it."""
    names = (SCORED, PREDICTIONS, VALIDATED)
    return next((side / name for name in names if (side / name).is_file()), side)


def read_side(
    path: Path,
    store: Store,
    split: str | None,
    fold: int | None,
    threshold: float,
    ids: ImageIds = "auto",
    category_ids: CategoryIds = "auto",
) -> Scored:
    """One side of a comparison: a predictions file, a folder with such a file, a run directory with that of its
    validation, or a folder that tools/evaluate.py wrote.

    split, fold: the radiographs to score of a file. ids, category_ids: what its ids mean.
    Raises InputError if nothing of the kind is there.
    """
    if path.is_dir() and (path / SCORED).is_file():
        if split is not None or fold is not None:
            raise InputError(f"{path} was scored already: --split and --fold choose among the predictions of a file")
        return read_scored(path / SCORED)
    file = file_of(path)
    if file.is_dir():
        raise InputError(
            f"{path} holds neither {SCORED}, nor predictions.json, nor validation/predictions.json: give a predictions "
            f"file, a run directory, or what {spelled('evaluate')} wrote"
        )
    predictions = read_any_predictions(file, store, ids, category_ids)
    result = evaluate(store, predictions, read_maps(file.parent), split, fold, threshold=threshold, with_coco=False)
    return scored_of(result, fingerprint(store, result.alignment.rows)["annotations_sha256"])


def rows_of(scored: Scored, store: Store) -> np.ndarray:
    """(n,) the rows of its radiographs in a dataset. Raises InputError if the dataset lacks one."""
    missing = [name for name in scored.image_ids if name not in store.index_of]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(scored.image_ids)} radiographs (such as {missing[0]!r}) are not in {store.path}: "
            "give the dataset that they were scored on as --data-path"
        )
    return np.array([store.index_of[name] for name in scored.image_ids], dtype=np.int64)
