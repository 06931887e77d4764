"""The report's pictures of single errors: crops in context, with the truth dashed and what was predicted in full."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from xray.evaluation.box_metrics import match_boxes
from xray.evaluation.evaluate import Evaluation
from xray.evaluation.labels import LabelEvaluation
from xray.evaluation.masks import MaskEvaluation
from xray.findings import colour_of
from xray.outputs.pictures.overlays import Mark, Region, draw_contact_sheet, draw_overlay
from xray.structures.boxes import BoxTable, box_iou
from xray.structures.masks import decode_mask, encode_mask

MOST_PICTURES = 9
COLUMNS = 3
SIDE = 420
"""Of a picture, in pixels."""
CONTEXT = 2.6
"""How many times as long as the longer side of the box the side of a crop is."""
LEAST_SHARE = 0.4
"""Of the shorter side of the radiograph that a crop shows."""
QUALITY = 82
MISSED = 0.5
"""Score from which a truth box that is found is no miss any more."""
TOUCHED, NEAR, MOST_NEAR = 0.05, 0.2, 2
"""IoU with what is meant from which a truth box is drawn, and a prediction; and how many of the latter."""
TRUTH_NOTE = "truth"
TRUTH_COLOUR = "#F4F6F8"

Pixels = Callable[[int], np.ndarray | None]
"""Row of the dataset → (height, width) uint8 in original pixels, None where they cannot be had."""


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Pictures of one kind of error. file: of all of them on one sheet, a PNG beside the report.

    pictures: (JPEG, caption) each. sheet: (h, w, 3) uint8 RGB.
    """

    file: str
    title: str
    hint: str
    pictures: list[tuple[bytes, str]]
    sheet: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Error:
    """What one picture shows: a place among the scored radiographs, its middle there (or all of it), and words.

    is_miss: the box is one of the truth, and not a predicted one.
    """

    place: int
    box: np.ndarray | None
    caption: str
    is_miss: bool = False


def galleries(evaluation: Evaluation, pixels: Pixels) -> list[Gallery]:
    """False positives and misses of what the report is about: masks, otherwise boxes, otherwise labels."""
    if evaluation.masks:
        kinds = _mask_errors(evaluation.masks)
    elif evaluation.boxes:
        kinds = _box_errors(evaluation)
    elif evaluation.labels:
        kinds = _label_errors(evaluation.labels)
    else:
        return []
    found = []
    for file, title, hint, errors in kinds:
        drawn = []
        for error in errors:
            picture = _draw(evaluation, error, pixels)
            if picture is not None:
                drawn.append((picture, error.caption))
            if len(drawn) == MOST_PICTURES:
                break
        if drawn:
            sheet = draw_contact_sheet([picture for picture, _ in drawn], COLUMNS)
            found.append(Gallery(file, title, hint, [(_jpeg(picture), said) for picture, said in drawn], sheet))
    return found


_SAID = "Predictions in full lines with their scores, the truth in dashed white."


def _box_errors(evaluation: Evaluation) -> list[tuple[str, str, str, list[_Error]]]:
    alignment = evaluation.alignment
    truth, predictions, names = alignment.truth, alignment.predictions, alignment.categories
    matches = match_boxes(truth, predictions)
    wrong = matches.order[~matches.is_true[matches.order]]
    wrong = wrong[np.isin(predictions.labels[wrong], list(names))]
    false = [
        _Error(
            int(predictions.images[row]),
            predictions.boxes[row],
            f"{names[int(predictions.labels[row])]} {predictions.scores[row]:.3f}",
        )
        for row in wrong[: 3 * MOST_PICTURES].tolist()
    ]
    found_at = np.full(len(truth), -1.0)
    found = matches.found_by >= 0
    found_at[found] = predictions.scores[matches.found_by[found]]
    share = ((truth.boxes[:, 2:] - truth.boxes[:, :2]) / alignment.sizes[truth.images]).prod(axis=1)
    missed = [
        _Error(
            int(truth.images[row]),
            truth.boxes[row],
            names[int(truth.labels[row])]
            + (", never found" if found_at[row] < 0 else f", found at {found_at[row]:.3f} only"),
            is_miss=True,
        )
        for row in np.lexsort((-share, found_at))[: 3 * MOST_PICTURES].tolist()
        if found_at[row] < MISSED
    ]
    return [
        ("false_positives.png", "Strongest false positives, pictured", _SAID, false),
        ("misses.png", "Misses, pictured", _SAID, missed),
    ]


def _mask_errors(masks: MaskEvaluation) -> list[tuple[str, str, str, list[_Error]]]:
    pixels = masks.alignment.sizes.prod(axis=1)[:, None]
    names = list(masks.categories.values())
    positive = np.stack(np.nonzero(masks.true > 0))
    order = np.lexsort((-(masks.true / pixels)[tuple(positive)], masks.dice[tuple(positive)]))
    worst = [
        _Error(image, None, f"{names[k]}, Dice {masks.dice[image, k]:.3f}")
        for image, k in positive[:, order].T[: 3 * MOST_PICTURES].tolist()
    ]
    false = np.stack(np.nonzero((masks.true == 0) & (masks.found > 0)))
    order = np.argsort(-(masks.found / pixels)[tuple(false)], kind="stable")
    largest = [
        _Error(image, None, f"{names[k]}, {100 * masks.found[image, k] / pixels[image, 0]:.2f} % of the radiograph")
        for image, k in false[:, order].T[: 3 * MOST_PICTURES].tolist()
    ]
    said = "Predicted masks are filled, true ones a white line."
    return [
        ("misses.png", "Worst masks, pictured", said, worst),
        ("false_positives.png", "Largest false masks, pictured", said, largest),
    ]


def _label_errors(evaluation: LabelEvaluation) -> list[tuple[str, str, str, list[_Error]]]:
    kinds = []
    for file, title, is_positive in (
        ("false_positives.png", "Surest false positives, pictured", False),
        ("misses.png", "Surest misses, pictured", True),
    ):
        errors = []
        for found in evaluation.curves:
            label = found.label
            mistaken = (label.truth == is_positive) & ((label.scores >= label.lowest) != is_positive)
            places = np.flatnonzero(mistaken)
            errors += [(float(label.scores[place]), label.name, place) for place in places.tolist()]
        errors.sort(key=lambda error: error[0], reverse=not is_positive)
        listed = [_Error(place, None, f"{name} {score:.3f}") for score, name, place in errors[: 3 * MOST_PICTURES]]
        kinds.append((file, title, "The whole radiograph, with its label’s score.", listed))
    return kinds


def _draw(evaluation: Evaluation, error: _Error, pixels: Pixels) -> np.ndarray | None:
    alignment = evaluation.alignment
    image = pixels(int(alignment.rows[error.place]))
    if image is None:
        return None
    height, width = image.shape
    size = np.array([*alignment.sizes[error.place]], dtype=np.float64)
    # A folder may hold smaller copies than the radiographs that boxes are in the pixels of.
    factor = np.tile(np.array([width, height]) / size, 2)
    focus = None if error.box is None else error.box * factor
    left, top, right, bottom = _window(focus, width, height)
    offset = np.array([left, top, left, top])
    marks, regions = [], []
    if evaluation.masks:
        regions = _regions(evaluation, error.place, (height, width))
    elif evaluation.boxes:
        marks = _marks(evaluation, error, factor, offset, (right - left, bottom - top))
    if evaluation.masks:
        return _with_masks(image, regions)
    return draw_overlay(
        np.ascontiguousarray(image[top:bottom, left:right]),
        marks,
        threshold=0.0,
        max_side=SIDE,
        min_side=SIDE,
        nothing="",
    )


def _window(box: np.ndarray | None, width: int, height: int) -> tuple[int, int, int, int]:
    """A square around a box with its surroundings, inside the radiograph; all of it without a box."""
    if box is None:
        return 0, 0, width, height
    long = max(box[2] - box[0], box[3] - box[1])
    side = int(np.ceil(min(max(CONTEXT * long, LEAST_SHARE * min(width, height)), max(width, height))))
    edges = []
    for low, high, limit in ((box[0], box[2], width), (box[1], box[3], height)):
        own = min(side, limit)
        start = int(np.clip(round((low + high) / 2 - own / 2), 0, limit - own))
        edges.append((start, start + own))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


def _marks(
    evaluation: Evaluation, error: _Error, factor: np.ndarray, offset: np.ndarray, size: tuple[int, int]
) -> list[Mark]:
    """What is meant, the truth that it touches, and of a miss also the surest predictions near it."""
    alignment = evaluation.alignment
    names = alignment.categories
    frame = np.array([0, 0, *size], dtype=np.float64)
    assert error.box is not None

    def inside(table: BoxTable) -> tuple[BoxTable, np.ndarray]:
        own = table.select((table.images == error.place) & np.isin(table.labels, list(names)))
        boxes = own.boxes * factor - offset
        seen = (np.minimum(boxes[:, 2:], frame[2:]) > np.maximum(boxes[:, :2], 0)).all(axis=1)
        return own.select(seen), boxes[seen].clip(0, np.tile(frame[2:], 2))

    true, true_boxes = inside(alignment.truth)
    found, found_boxes = inside(alignment.predictions)
    touched = np.flatnonzero(box_iou(error.box, true.boxes)[0] > TOUCHED)
    marks = [
        Mark(tuple(true_boxes[row].tolist()), names[int(true.labels[row])], TRUTH_COLOUR, None, TRUTH_NOTE, dashed=True)
        for row in touched.tolist()
    ]
    if error.is_miss:
        chosen = np.flatnonzero(box_iou(error.box, found.boxes)[0] > NEAR)
        chosen = chosen[np.argsort(-found.scores[chosen], kind="stable")][:MOST_NEAR]
    else:
        chosen = np.flatnonzero((found.boxes == error.box).all(axis=1))[:1]
    marks += [
        Mark(tuple(found_boxes[row].tolist()), names[int(found.labels[row])], colour_of(int(found.labels[row])),
             float(found.scores[row]))
        for row in chosen.tolist()
    ]  # fmt: skip
    return marks


def _regions(evaluation: Evaluation, place: int, shape: tuple[int, int]) -> list[Region]:
    """The predicted masks in their colours, then the true ones in white; of the shape of the pixels."""
    alignment = evaluation.alignment
    regions = []
    for table, masks, colour in (
        (alignment.predictions, alignment.masks, None),
        (alignment.truth, alignment.truth_masks, TRUTH_COLOUR),
    ):
        for row in np.flatnonzero(table.images == place).tolist():
            if row not in masks:
                continue
            record = alignment.records[place]
            mask = decode_mask(encode_mask(masks[row], record["width"], record["height"], may_be_empty=True)[0])
            if mask.shape != shape:
                mask = cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST)
            regions.append(Region(mask, colour or colour_of(int(table.labels[row]))))
    return regions


def _with_masks(image: np.ndarray, regions: Sequence[Region]) -> np.ndarray:
    """The whole radiograph: predicted masks filled, true ones as a white contour."""
    filled = [region for region in regions if region.colour != TRUTH_COLOUR]
    options: dict[str, Any] = {"threshold": 0.0, "max_side": SIDE, "min_side": SIDE, "nothing": ""}
    picture = np.ascontiguousarray(draw_overlay(image, [], filled, **options))
    height, width = image.shape
    factor = SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    for region in regions:
        if region.colour != TRUTH_COLOUR:
            continue
        soft = cv2.resize(region.mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127
        contours, _ = cv2.findContours(soft.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.polylines(picture, contours, True, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.polylines(picture, contours, True, (244, 246, 248), 1, cv2.LINE_AA)
    return picture


def _jpeg(picture: np.ndarray) -> bytes:
    encoded, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not encoded:
        raise ValueError(f"cannot encode a picture of shape {picture.shape} as JPEG")
    return data.tobytes()
