"""Kaggle's VinBigData submission: `image_id,PredictionString`, one row an image.

A prediction is `class_id confidence x_min y_min x_max y_max` in original pixels; an image's predictions stand in one
string, joined by spaces. "No finding" is class 14 with the unit box, and an image without any prediction is
`14 1 0 0 1 1`.
"""

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from xray.errors import InputError
from xray.files import complete
from xray.findings import FINDINGS, NO_FINDING, NO_FINDING_BOX
from xray.structures.boxes import BoxTable
from xray.structures.masks import decode_mask
from xray.structures.predictions import LARGEST, NO_FINDING_CATEGORY, Predictions
from xray.structures.rle import encode

PREDICTION = "PredictionString"
HEADER = ["image_id", PREDICTION]
MASK_HEADER = ["ImageId", "EncodedPixels"]
FISABIO_HEADER = ["id", PREDICTION]
EMPTY = f"{NO_FINDING} 1 0 0 1 1"
"""The PredictionString of an image without any prediction."""

FIELDS = "class_id confidence x_min y_min x_max y_max"


class _Encoding(TypedDict):
    encoding: str
    errors: str


# A file name need not be valid Unicode: what the system could not decode goes out as the bytes it came in as.
ENCODING: _Encoding = {"encoding": "utf-8", "errors": "surrogateescape"}


def write_submission(
    path: Path | str,
    predictions: Predictions,
    image_ids: Sequence[str],
    categories: Mapping[int, str] | None = None,
) -> None:
    """Writes a submission, complete or not at all: one row an image, in the order of `image_ids`.

    Within a row the highest confidence comes first. A category's class id is its id - 1. Coordinates keep one decimal:
    a whole-pixel grid would cost a nodule 30 pixels wide up to 3 % of its IoU, a second decimal buys nothing.
    Confidences keep six significant digits, never an exponent, so that the lowest ones keep their order too.

    categories: category id → name, of a dataset that is not VinBig's; ids from 1 to 14.

    Raises InputError if an id is empty or appears twice, if there are predictions for an image not in `image_ids`
    or of an unknown category, or if a score or a box is out of range.
    """
    path = Path(path)
    _check_ids(image_ids, "the images to submit")
    known = set(categories) if categories is not None else set(range(1, len(FINDINGS) + 1))
    if any(not 1 <= category < NO_FINDING_CATEGORY for category in known):
        raise InputError(
            f"a submission has room for categories 1 to {NO_FINDING}, not {sorted(known)}: use predictions.json instead"
        )
    table = predictions.table
    unknown = set(table.labels.tolist()) - known - {NO_FINDING_CATEGORY}
    if unknown:
        raise InputError(f"predictions of categories {sorted(unknown)}, which are not among {sorted(known)}")
    _check_values(table, predictions.image_ids, "the predictions")

    strings: dict[str, list[str]] = {image_id: [] for image_id in image_ids}
    used = [predictions.image_ids[image] for image in np.unique(table.images).tolist()]
    strangers = [image_id for image_id in used if image_id not in strings]
    if strangers:
        raise InputError(
            f"predictions for {len(strangers)} images that are not to be submitted (the first is {strangers[0]!r}): "
            "leave them out, or give the sample_submission.csv they belong to"
        )
    boxes = np.where((table.labels == NO_FINDING_CATEGORY)[:, None], NO_FINDING_BOX, table.boxes)
    boxes = boxes.round(1) + 0.0  # + 0.0 turns -0.0 into 0.0
    by_confidence = np.argsort(-table.scores, kind="stable").tolist()
    images, labels = table.images.tolist(), table.labels.tolist()
    scores, corners = table.scores.tolist(), boxes.tolist()
    for row in by_confidence:
        box = " ".join(coordinate(value) for value in corners[row])
        strings[predictions.image_ids[images[row]]].append(f"{labels[row] - 1} {confidence(scores[row])} {box}")

    _write(path, HEADER, {image_id: " ".join(parts) or EMPTY for image_id, parts in strings.items()})


def write_mask_submission(path: Path | str, predictions: Predictions, image_ids: Sequence[str]) -> None:
    """Writes a SIIM-ACR pneumothorax submission, complete or not at all: `ImageId,EncodedPixels`, one row an image.

    The masks of an image are joined into one, written as relative run lengths; an image without any has `-1`.
    Raises InputError if an id is empty or appears twice, or masks of one image differ in size.
    """
    path = Path(path)
    _check_ids(image_ids, "the images to submit")
    texts = dict.fromkeys(image_ids, "-1")
    joined: dict[str, np.ndarray] = {}
    for row, rle in predictions.masks.items():
        image_id = predictions.image_ids[predictions.table.images[row]]
        mask = decode_mask(rle).astype(bool)
        if image_id in joined and joined[image_id].shape != mask.shape:
            raise InputError(
                f"masks of {image_id} are {mask.shape} and {joined[image_id].shape}: they must be of one size"
            )
        joined[image_id] = joined[image_id] | mask if image_id in joined else mask
    for image_id, mask in joined.items():
        if image_id in texts:
            texts[image_id] = encode(mask, "relative")
    _write(path, MASK_HEADER, texts)


def _write(path: Path, header: list[str], texts: Mapping[str, str]) -> None:
    with complete(path) as temporary, temporary.open("w", newline="", **ENCODING) as file:
        file.write(",".join(header) + "\n")
        file.writelines(f"{cell(image_id)},{text}\n" for image_id, text in texts.items())


def read_submission(path: Path | str) -> Predictions:
    """Reads a submission, so that it can be scored and fused; images are numbered in the file's order.

    Raises InputError if the file is missing, has another header, an image twice or without a prediction, a prediction
    that is not six numbers, an unknown class, a confidence outside [0, 1] or a box that is inverted or not finite;
    the message names the image.
    """
    path = Path(path)
    image_ids: list[str] = []
    images: list[int] = []
    values: list[float] = []
    for image_id, text in _rows(path, HEADER):
        fields = text.split()
        if not fields:
            raise InputError(f"{path.name}: {image_id} has no prediction: an image without findings is {EMPTY!r}")
        if len(fields) % 6:
            raise InputError(f"{path.name}: {image_id} has {len(fields)} values, not six a prediction ({FIELDS})")
        try:
            values.extend(map(float, fields))
        except ValueError as error:
            raise InputError(
                f"{path.name}: {image_id} has a value that is no number ({error}): give {FIELDS}"
            ) from None
        images.extend([len(image_ids)] * (len(fields) // 6))
        image_ids.append(image_id)
    columns = np.array(values, dtype=np.float64).reshape(-1, 6)
    class_ids = columns[:, 0]
    strange = np.flatnonzero(~np.isin(class_ids, np.arange(NO_FINDING + 1)))
    if len(strange):
        where = f"{path.name}: {image_ids[images[strange[0]]]}"
        raise InputError(
            f"{where} has class id {class_ids[strange[0]]:g}: it must be a whole number from 0 to {NO_FINDING}"
        )
    table = BoxTable.of(images, class_ids + 1, columns[:, 2:], columns[:, 1])
    _check_values(table, image_ids, path.name)
    return Predictions(tuple(image_ids), table)


def submission_order(path: Path | str) -> list[str]:
    """The image ids of a `sample_submission.csv`, in the order in which Kaggle wants them.

    Raises InputError if the file is missing, begins with none of `image_id` (VinBigData), `ImageId` (SIIM-ACR) and `id`
    (SIIM-FISABIO-RSNA, whose ids have _image or _study behind them), has no rows, or an image twice.
    """
    path = Path(path)
    image_ids = [row[0] for row in _rows(path, HEADER[:1], MASK_HEADER[:1], FISABIO_HEADER[:1])]
    if not image_ids:
        raise InputError(f"{path} lists no images: take sample_submission.csv from the competition")
    return image_ids


def rows_of_submission(data: Path, ids: Sequence[str], sample: str) -> list[str]:
    """Image ids in the order of the sample submission.

    The order of the files where no sample submission names any of them, or where one file was given.
    """
    if sample:
        return submission_order(Path(sample))
    if data.is_file():
        return list(ids)
    for candidate in (data / "sample_submission.csv", data.absolute().parent / "sample_submission.csv"):
        # The one beside train/ names radiographs of test/ only.
        if candidate.is_file() and not set(ids).isdisjoint(order := submission_order(candidate)):
            return order
    return list(ids)


def _rows(path: Path, columns: list[str], *alternatives: list[str]) -> list[list[str]]:
    """The given columns of a CSV file, which must be its first ones, of every row; ids are checked.

    alternatives: other names of these columns.
    """
    limit = csv.field_size_limit(sys.maxsize)  # thousands of boxes in one cell are legitimate
    try:
        with path.open(newline="", encoding="utf-8-sig", errors=ENCODING["errors"]) as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if [name.strip() for name in header[: len(columns)]] not in (columns, *alternatives):
                raise InputError(
                    f"{path.name} begins with {','.join(header)[:80]!r}: its header must be {','.join(HEADER)}"
                )
            rows = []
            for row in reader:
                if not row:
                    continue  # a blank line
                if len(row) < len(columns):
                    raise InputError(
                        f"{path.name}, line {reader.line_num} has {len(row)} cells: give {','.join(columns)}"
                    )
                rows.append(row[: len(columns)])
    except OSError as error:
        raise InputError(
            f"cannot read a submission at {path} ({error.strerror}): give a CSV with {','.join(HEADER)}"
        ) from None
    except csv.Error as error:
        raise InputError(f"{path.name}, line {reader.line_num} is not CSV ({error})") from None
    finally:
        csv.field_size_limit(limit)
    _check_ids([row[0] for row in rows], path.name)
    return rows


def _check_ids(image_ids: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for image_id in image_ids:
        if not image_id:
            raise InputError(f"{where}: an image id is empty")
        if image_id in seen:
            raise InputError(f"{where}: {image_id} appears twice, every image needs exactly one row")
        seen.add(image_id)


def _check_values(table: BoxTable, image_ids: Sequence[str | int], where: str) -> None:
    inside = (table.scores >= 0) & (table.scores <= 1)
    sound = (np.abs(table.boxes) <= LARGEST).all(axis=1) & (table.boxes[:, 2:] >= table.boxes[:, :2]).all(axis=1)
    if not inside.all():
        row = np.flatnonzero(~inside)[0]
        raise InputError(
            f"{where}: {image_ids[table.images[row]]} has confidence {table.scores[row]:g}: it must lie between 0 and 1"
        )
    if not sound.all():
        row = np.flatnonzero(~sound)[0]
        raise InputError(
            f"{where}: {image_ids[table.images[row]]} has the box {table.boxes[row].tolist()}: "
            f"it must be finite, within {LARGEST:g}, with x_min <= x_max and y_min <= y_max"
        )


def cell(text: str) -> str:
    """An id as a cell of a CSV file."""
    # The csv module leaves a lone carriage return bare, which it then reads as the end of the row.
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def confidence(score: float) -> str:
    """Six significant digits, never an exponent."""
    text = f"{score:.6g}"
    return np.format_float_positional(float(text), trim="-") if "e" in text else text


def coordinate(value: float) -> str:
    """One decimal, or none where it is zero."""
    return f"{value:.1f}".removesuffix(".0")
