"""Predictions as COCO results JSON: what infer writes, and fuse, evaluate and every other detector's output share.

A file is a list of `{"image_id": source id, "category_id", "bbox": [x, y, width, height], "score", "category_name"}`,
with a `segmentation` (COCO RLE at original size) where there is a mask. For VinBig, category 15 is "No finding" with
bbox [0, 0, 1, 1] and the probability that the radiograph is normal. Other tools number images and categories in their
own ways, and need not write the category's name: `xray.datasets.prediction_ids` says what their numbers mean.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xray.errors import InputError
from xray.files import complete
from xray.findings import NO_FINDING, NO_FINDING_BOX, NO_FINDING_NAME
from xray.structures.boxes import BoxTable, xywh_to_xyxy, xyxy_to_xywh
from xray.structures.masks import MaskError, box_around, check_segmentation
from xray.structures.values import finite_number, whole_number

NO_FINDING_CATEGORY = NO_FINDING + 1
LARGEST = 1e9
"""Pixels: coordinates of predictions are within plus and minus this, which no radiograph comes near, so that areas do
not overflow."""
AS_WRITTEN = 1e-4
"""By how much numbers differ that are the same: files hold scores with few decimals."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predicted boxes of a set of radiographs.

    image_ids: source ids; `table.images` are indices into it.
    table: the boxes, "No finding" rows (category 15) among them where there are any.
    masks: row of the table → COCO RLE {"size": [height, width], "counts": str}, for the rows that have a mask.
    is_foreign: ids are those of a file, and their meaning is not decided yet: image ids may be numbers, and
        categories may have other numbers than in the dataset, whose ids `datasets.prediction_ids.resolve` gives them.
    names, files: category id → name, and image id → file name, as far as a foreign file has them.
    """

    image_ids: tuple[str | int, ...]
    table: BoxTable
    masks: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
    is_foreign: bool = False
    names: dict[int, str] = dataclasses.field(default_factory=dict)
    files: dict[str | int, str] = dataclasses.field(default_factory=dict)


def is_no_finding(table: BoxTable) -> np.ndarray:
    """(N,) bool, the rows that are the probability of "No finding"."""
    found: np.ndarray = (table.labels == NO_FINDING_CATEGORY) & is_unit_box(table)
    return found


def is_unit_box(table: BoxTable) -> np.ndarray:
    """(N,) bool, the rows with the box of "No finding"."""
    found: np.ndarray = (table.boxes == NO_FINDING_BOX).all(axis=1)
    return found


def with_no_finding_after(before: BoxTable, after: BoxTable) -> BoxTable:
    """`after` with "No finding" rows that follow its boxes, where they followed those of `before`.

    before, after: rows of the same images, before and after their boxes have changed; those of `before` come first in
    `after`. A row follows the boxes where it is 1 − the surest one's score, or 1 without a box; any other, such as a
    classifier's, knows more than the boxes and stays.
    """
    rows = np.flatnonzero(is_no_finding(after))
    n_images = max((int(table.images.max(initial=-1)) for table in (before, after)), default=-1) + 1
    surest = np.zeros((2, n_images))
    for number, table in enumerate((before, after)):
        boxes = table.select(~is_no_finding(table))
        np.maximum.at(surest[number], boxes.images, boxes.scores)
    scores, images = after.scores.copy(), after.images[rows]
    follows = np.abs(scores[rows] - (1 - surest[0, images])) <= AS_WRITTEN
    scores[rows[follows]] = 1 - surest[1, images[follows]]
    return dataclasses.replace(after, scores=scores)


def read_predictions(path: Path | str) -> Predictions:
    """Reads a COCO results file, ids as they stand there; images are numbered in order of first appearance.

    Raises InputError if the file is missing, not JSON, or a row lacks a field or holds a value out of range
    (boxes finite with sides ≥ 0, scores in [0, 1]); the message names the row.
    """
    path = Path(path)
    try:
        rows = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"no predictions at {path} ({error.strerror}): give a predictions.json written by infer"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name} is not JSON ({error}): give a predictions.json written by infer") from None
    if not isinstance(rows, list):
        raise InputError(f"{path.name} holds a {type(rows).__name__}, not a list: COCO results are a list of boxes")
    return _parse(rows, path.name)


def _parse(rows: list[Any], name: str) -> Predictions:
    index: dict[str | int, int] = {}
    images, labels, boxes, scores = [], [], [], []
    masks: dict[int, dict[str, Any]] = {}
    names: dict[int, str] = {}
    files: dict[str | int, str] = {}
    for number, row in enumerate(rows):
        try:
            x, y, width, height = _box(row)
            label, score = row["category_id"], _number(row["score"])
            label = label if type(label) is int else whole_number(label)
            image_id = row["image_id"]
            if isinstance(image_id, str):
                # What no file name can be; it could not be written into any table either.
                image_id.encode("utf-8", "surrogateescape")
            else:
                image_id = whole_number(image_id)
            if label is None or image_id is None:
                raise ValueError("an id is missing")
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            why = f"it has no {error.args[0]}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
            raise InputError(
                f"{name}, row {number} is not a COCO result ({why}): it needs image_id, category_id, score, and bbox "
                "[x, y, width, height] or segmentation"
            ) from None
        if not (np.isfinite([x, y, x + width, y + height]).all() and width >= 0 and height >= 0):
            raise InputError(f"{name}, row {number} has bbox {row['bbox']}: it must be finite with sides of at least 0")
        if max(abs(x), abs(y), abs(x + width), abs(y + height)) > LARGEST:
            raise InputError(f"{name}, row {number} has bbox {row['bbox']}: no coordinate may be beyond {LARGEST:g}")
        if not abs(label) < 2**62:
            raise InputError(f"{name}, row {number} has category_id {str(label)[:20]}: it must be smaller than 2^62")
        if not 0 <= score <= 1:
            raise InputError(f"{name}, row {number} has score {score}: it must lie between 0 and 1")
        images.append(index.setdefault(image_id, len(index)))
        labels.append(label)
        boxes.append((x, y, width, height))
        scores.append(score)
        called = row.get("category_name")
        if isinstance(called, str) and called.strip() and names.setdefault(label, called) != called:
            raise InputError(
                f"{name}, row {number} calls category {label} {called!r}, an earlier row {names[label]!r}: it holds "
                "the results of two models with different categories, give them one by one"
            )
        file = row.get("file_name")
        if isinstance(file, str) and file.strip() and files.setdefault(image_id, file) != file:
            raise InputError(
                f"{name}, row {number} is of {file}, an earlier row of image {image_id!r} of {files[image_id]}: give "
                "each file an id of its own"
            )
        if row.get("segmentation"):
            try:
                check_segmentation(row["segmentation"])
            except MaskError as error:
                raise InputError(f"{name}, row {number} has a mask that is none: {error}") from None
            masks[number] = row["segmentation"]
    if len(masks) == len(rows) and all(map(_is_outline_of_box, rows)):
        masks = {}
    table = BoxTable.of(images, labels, xywh_to_xyxy(np.array(boxes)), scores)
    return Predictions(tuple(index), table, masks, is_foreign=True, names=names, files=files)


def _box(row: dict[str, Any]) -> list[float]:
    """x, y, width, height of a row: its bbox, or where it has none what is around its mask.

    torchvision's reference and pycocotools write the masks of instances without boxes.
    """
    if not isinstance(row, dict):
        raise TypeError(f"it is {row!r:.40}")
    if not row.get("bbox") and row.get("segmentation"):
        return box_around(row["segmentation"])
    x, y, width, height = (_number(value) for value in row["bbox"])
    return [x, y, width, height]


def _is_outline_of_box(row: dict[str, Any]) -> bool:
    """Whether a row's mask is its box once more, as pycocotools' `loadRes` (2.0.11) adds it to the caller's own rows.

    Who saves boxes after they were scored has such a mask in every row. It says nothing about the finding's outline.
    """
    if not row.get("bbox") or not {"id", "area", "iscrowd"} <= row.keys():
        return False
    x, y, width, height = (_number(value) for value in row["bbox"])
    outline = [x, y, x, y + height, x + width, y + height, x + width, y]
    return bool(row["segmentation"] == [outline])


def _number(value: Any) -> float:
    if type(value) in (float, int):
        return float(value)
    number = finite_number(value)
    if number is None:
        raise ValueError("a number is missing")
    return number


def write_predictions(
    path: Path | str,
    predictions: Predictions | Iterable[Predictions],
    categories: Mapping[int, str] | None = None,
) -> None:
    """Writes a COCO results file, complete or not at all; coordinates to 0.01 pixel, scores to 6 decimals.

    predictions: all of them, or portions one after the other, of which one is held at a time.
    categories: id → name. With it each row says what it found by name, so that the file still means the same beside a
        dataset whose source numbers its categories otherwise.
    """
    names = {NO_FINDING_CATEGORY: NO_FINDING_NAME, **categories} if categories else {}
    path = Path(path)
    portions = [predictions] if isinstance(predictions, Predictions) else predictions
    with complete(path) as temporary, temporary.open("w") as file:
        before = "[\n"
        for portion in portions:
            for result in _results(portion, names):
                file.write(before + json.dumps(result))
                before = ",\n"
        file.write(("\n" if before == ",\n" else "[\n\n") + "]\n")


def _results(predictions: Predictions, names: Mapping[int, str]) -> Iterator[dict[str, Any]]:
    table = predictions.table
    boxes = xyxy_to_xywh(table.boxes).round(2).tolist()
    for row, (image, label, box, score) in enumerate(
        zip(table.images.tolist(), table.labels.tolist(), boxes, table.scores.round(6).tolist(), strict=True)
    ):
        result = {"image_id": predictions.image_ids[image], "category_id": label, "bbox": box, "score": score}
        if label in names:
            result["category_name"] = names[label]
        if row in predictions.masks:
            result["segmentation"] = predictions.masks[row]
        yield result
