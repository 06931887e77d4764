"""The report's pictures of single errors: crops in context, with the truth dashed and what was predicted in full."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from xray.datasets.inputs import Inputs, open_inputs
from xray.datasets.store import Store, open_store
from xray.errors import InputError
from xray.evaluation.alignment import Alignment
from xray.evaluation.box_matching import match_boxes
from xray.evaluation.evaluate import Evaluation
from xray.evaluation.labels import LabelEvaluation
from xray.evaluation.masks import MaskEvaluation
from xray.file_names import IMAGES
from xray.findings import colour_of
from xray.outputs.pictures.marks import Mark, Region
from xray.outputs.pictures.overlays import draw_contact_sheet, draw_overlay, encoded
from xray.outputs.report.boxes import MISSED, false_positives, misses
from xray.outputs.report.labels import mistakes
from xray.outputs.report.masks import false_masks, worst_masks
from xray.outputs.report.parts import Section, source_id
from xray.radiographs.radiograph import RadiographError
from xray.structures.boxes import BoxTable, box_iou
from xray.structures.masks import decode_mask

MOST_PICTURES = 9
COLUMNS = 3
SIDE = 420
"""Of a picture, in pixels."""
CONTEXT = 2.6
"""How many times as long as the longer side of the box the side of a crop is."""
LEAST_SHARE = 0.4
"""Of the shorter side of the radiograph that a crop shows."""
QUALITY = 82
TOUCHED, NEAR, MOST_NEAR = 0.05, 0.2, 2
"""IoU with the box of the error from which a truth box is drawn, and a prediction; and how many of the latter."""
TRUTH_NOTE = "truth"
TRUTH_COLOUR = "#F4F6F8"

Pixels = Callable[[int], np.ndarray | None]
"""Row of the dataset → (height, width) uint8 in original pixels, None where they cannot be had."""


@dataclasses.dataclass(frozen=True)
class _Error:
    """The content of one picture: a place among the scored radiographs, a box in its middle (None for all of the
    radiograph), and a caption. is_miss: the box is one of the truth, and not a predicted one."""

    place: int
    box: np.ndarray | None
    caption: str
    is_miss: bool = False


_Kind = tuple[str, str, str, list[_Error]]
"""File, title, hint and errors of a gallery, the errors in the order in which they are shown."""


def pixels_of(store: Store, folder: Path | None) -> Pixels | None:
    """Where the radiographs of a dataset can be had for pictures: in a folder of files, or as its own canvases.

    None where there is no folder and the dataset has no pixels. Raises InputError for a folder without any of them.
    """
    if folder is not None:
        inputs = open_inputs(folder)
        number = {name: index for index, name in enumerate(inputs.ids)}
        if number.keys().isdisjoint(store.index_of):
            raise InputError(
                f"{folder} has none of the radiographs of {store.path} (it has {inputs.ids[0]!r}): give the folder "
                "that they were converted from as --radiographs"
            )

        def read(row: int) -> np.ndarray | None:
            try:
                return inputs.pixels(number[store.records[row]["source_id"]])
            except (KeyError, RadiographError):
                return None

        return read
    if not (store.path / IMAGES).is_file():
        return None
    opened = open_store(store.path)
    every = Inputs(tuple(record["source_id"] for record in opened.records), store=opened, rows=np.arange(len(opened)))
    return every.pixels


def galleries(evaluation: Evaluation, pixels: Pixels) -> list[Section]:
    """False positives and misses of masks where these are scored, otherwise of boxes, otherwise of labels."""
    if evaluation.masks:
        kinds = _mask_errors(evaluation.masks)
    elif evaluation.boxes:
        kinds = _box_errors(evaluation.boxes.alignment)
    elif evaluation.labels:
        kinds = _label_errors(evaluation.labels)
    else:
        return []
    sections = []
    for file, title, hint, errors in kinds:
        drawn = []
        for error in errors[: 3 * MOST_PICTURES]:
            picture = _draw(evaluation, error, pixels)
            if picture is not None:
                drawn.append((picture, f"{source_id(evaluation.alignment, error.place)}: {error.caption}"))
            if len(drawn) == MOST_PICTURES:
                break
        if drawn:
            sheet = encoded(draw_contact_sheet([picture for picture, _ in drawn], COLUMNS))
            pictures = [(encoded(picture, ".jpg", QUALITY), caption) for picture, caption in drawn]
            sections.append(Section(title, hint, file=file, png=sheet, pictures=pictures))
    return sections


def _box_errors(alignment: Alignment) -> list[_Kind]:
    truth, predictions, names = alignment.truth, alignment.predictions, alignment.categories
    matches = match_boxes(truth, predictions)
    false = [
        _Error(
            int(predictions.images[row]),
            predictions.boxes[row],
            f"{names[predictions.labels[row]]} {predictions.scores[row]:.3f}",
        )
        for row in false_positives(alignment, matches)
    ]
    order, found_at, _ = misses(alignment, matches)
    missed = [
        _Error(
            int(truth.images[row]),
            truth.boxes[row],
            names[truth.labels[row]]
            + (", never found" if found_at[row] < 0 else f", found at {found_at[row]:.3f} only"),
            is_miss=True,
        )
        for row in order[found_at[order] < MISSED]
    ]
    hint = "Predictions in full lines with their scores, the truth in dashed white."
    return [
        ("false_positives.png", "Strongest false positives, pictured", hint, false),
        ("misses.png", "Misses, pictured", hint, missed),
    ]


def _mask_errors(masks: MaskEvaluation) -> list[_Kind]:
    names, areas = list(masks.categories.values()), masks.shares(masks.predicted)
    worst = [_Error(i, None, f"{names[k]}, Dice {masks.dice[i, k]:.3f}") for i, k in worst_masks(masks)]
    largest = [
        _Error(i, None, f"{names[k]}, {100 * areas[i, k]:.2f} % of the radiograph") for i, k in false_masks(masks)
    ]
    hint = "Predicted masks are filled, true ones a white line."
    return [
        ("misses.png", "Worst masks, pictured", hint, worst),
        ("false_positives.png", "Largest false masks, pictured", hint, largest),
    ]


def _label_errors(labels: LabelEvaluation) -> list[_Kind]:
    false, missed = (
        [_Error(place, None, f"{name} {score:.3f}") for score, name, place in mistakes(labels, is_positive)]
        for is_positive in (False, True)
    )
    hint = "The whole radiograph, with its label’s score."
    return [
        ("false_positives.png", "Surest false positives, pictured", hint, false),
        ("misses.png", "Surest misses, pictured", hint, missed),
    ]


def _draw(evaluation: Evaluation, error: _Error, pixels: Pixels) -> np.ndarray | None:
    alignment = evaluation.alignment
    image = pixels(int(alignment.rows[error.place]))
    if image is None:
        return None
    height, width = image.shape
    marks, regions = [], []
    window = (0, 0, width, height)
    if error.box is not None:
        # A folder may hold smaller copies than the radiographs that boxes are in the pixels of.
        factor = np.tile(np.array([width, height]) / alignment.sizes[error.place], 2)
        window = _window(error.box * factor, width, height)
        marks = _marks(alignment, error, error.box, factor, np.array(window))
    if evaluation.masks:
        regions = _regions(alignment, error.place, (height, width))
    left, top, right, bottom = window
    crop = np.ascontiguousarray(image[top:bottom, left:right])
    return draw_overlay(crop, marks, regions, threshold=0.0, max_side=SIDE, min_side=SIDE, nothing="")


def _window(box: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """A square around a box with its surroundings, inside the radiograph."""
    longer = max(box[2] - box[0], box[3] - box[1])
    side = int(np.ceil(min(max(CONTEXT * longer, LEAST_SHARE * min(width, height)), max(width, height))))
    edges = []
    for low, high, limit in ((box[0], box[2], width), (box[1], box[3], height)):
        length = min(side, limit)
        start = int(np.clip(round((low + high) / 2 - length / 2), 0, limit - length))
        edges.append((start, start + length))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


def _marks(alignment: Alignment, error: _Error, box: np.ndarray, factor: np.ndarray, window: np.ndarray) -> list[Mark]:
    """The box of the error, the truth that it touches, and of a miss also the surest predictions near it."""
    names = alignment.categories
    size = window[2:] - window[:2]

    def inside(table: BoxTable) -> tuple[BoxTable, np.ndarray]:
        """The rows that are seen, and their boxes in the window."""
        table = table.select((table.images == error.place) & np.isin(table.labels, list(names)))
        boxes = table.boxes * factor - np.tile(window[:2], 2)
        seen = (np.minimum(boxes[:, 2:], size) > np.maximum(boxes[:, :2], 0)).all(axis=1)
        return table.select(seen), boxes[seen].clip(0, np.tile(size, 2))

    true, true_boxes = inside(alignment.truth)
    predicted, predicted_boxes = inside(alignment.predictions)
    marks = [
        Mark(tuple(true_boxes[row].tolist()), names[true.labels[row]], TRUTH_COLOUR, None, TRUTH_NOTE, dashed=True)
        for row in np.flatnonzero(box_iou(box, true.boxes)[0] > TOUCHED)
    ]
    if error.is_miss:
        chosen = np.flatnonzero(box_iou(box, predicted.boxes)[0] > NEAR)
        chosen = chosen[np.argsort(-predicted.scores[chosen], kind="stable")][:MOST_NEAR]
    else:
        chosen = np.flatnonzero((predicted.boxes == box).all(axis=1))[:1]
    for row in chosen:
        label, score = int(predicted.labels[row]), float(predicted.scores[row])
        marks.append(Mark(tuple(predicted_boxes[row].tolist()), names[label], colour_of(label), score))
    return marks


def _regions(alignment: Alignment, place: int, shape: tuple[int, int]) -> list[Region]:
    """The predicted masks filled in their colours, then the outlines of the true ones; in the pixels' shape."""
    regions = []
    for table, masks, is_true in (
        (alignment.predictions, alignment.masks, False),
        (alignment.truth, alignment.true_masks, True),
    ):
        for row in np.flatnonzero(table.images == place).tolist():
            if row in masks:
                mask = cv2.resize(decode_mask(masks[row]), shape[::-1], interpolation=cv2.INTER_NEAREST)
                colour = TRUTH_COLOUR if is_true else colour_of(int(table.labels[row]))
                regions.append(Region(mask, colour, is_filled=not is_true))
    return regions
