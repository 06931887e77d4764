"""The content of annotations.json, made from a cleaned source and from what decoding its files brought to light.

Boxes are cut at the edges of their radiographs, those of an image's readers are fused, and images are dealt into folds.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.folds import assign_folds, check_folds
from xray.datasets.source import FINE_GRID, Dropped, Source, SourceImage, clip_boxes, has_area, natural, snap
from xray.structures.boxes import BoxTable, renumbered, xyxy_to_xywh
from xray.structures.fusion import weighted_boxes_fusion
from xray.structures.masks import UNUSABLE, MaskError, encode_mask

READER_IOU = 0.4
"""Boxes of two readers that overlap this much are of one lesion, as in the metric of the VinBigData challenge."""


def annotate(
    source: Source, outcomes: Sequence[dict[str, Any]], n_folds: int, readers: str, seed: int
) -> tuple[dict[str, Any], list[Dropped]]:
    """The content of annotations.json, and everything that was left out on the way to it.

    outcomes: of each image of the source, see `xray.datasets.journal.Journal`. The other arguments are those of
    `xray.datasets.conversion.write_store`. Raises InputError where there are too few patients for the folds.
    """
    dropped = source.dropped + left_out(source, outcomes)
    used = [index for index, outcome in enumerate(outcomes) if "width" in outcome]
    images = [source.images[index] for index in used]
    sizes = np.array(
        [
            [getattr(source.images[index], side) or outcomes[index][side] or np.inf for side in ("width", "height")]
            for index in used
        ]
    )
    row_of = np.full(len(source.images), -1, dtype=np.int64)
    row_of[used] = np.arange(len(used))
    boxes, drawn_by, masks, clipped = _clip(source, row_of, sizes)
    dropped += clipped
    is_train = np.array([image.split == reasons.TRAIN for image in images], dtype=bool)
    if readers == "fuse":
        # Those of a test set are its truth as they stand, most often a consensus already.
        is_fused = np.array([image.split != reasons.TEST for image in images], dtype=bool)
        fusable = np.array([bool(names) for names in drawn_by], dtype=bool) & is_fused[boxes.images]
        fusable[list(masks)] = False
        boxes, drawn_by, origin = fuse_readers(boxes, drawn_by, fusable)
        masks = renumbered(masks, origin)
    present = np.zeros((len(images), len(source.categories) + 1), dtype=bool)
    present[boxes.images, boxes.labels] = True
    boxed = present.copy()
    labelled = [(row, label) for row, image in enumerate(images) for label in image.labels or ()]
    present[tuple(np.array(labelled, dtype=np.int64).reshape(-1, 2).T)] = True
    # Those of other splits are in no fold.
    train, folds = np.flatnonzero(is_train), np.full(len(images), -1, dtype=np.int64)
    if len(train):
        patients = patients_of([images[row] for row in train.tolist()])
        check_folds(len(set(patients)), n_folds, len(train), missing(dropped))
        folds[train] = assign_folds(present[train], patients, n_folds, seed)
    labels, located = _columns(present), _columns(boxed)
    records = [
        _image_record(
            row, image, size, fold, _known(image, labels[row], located[row]), outcomes[used[row]].get("attributes", {})
        )
        for row, (image, size, fold) in enumerate(zip(images, sizes.tolist(), folds.tolist(), strict=True))
    ]
    annotations, bad_masks = _annotation_records(boxes, drawn_by, masks, records)
    return {"images": records, "annotations": annotations, "categories": source.categories}, dropped + bad_masks


def left_out(source: Source, outcomes: Sequence[dict[str, Any]]) -> list[Dropped]:
    """The images that decoding left out."""
    return [
        Dropped(image.file_name, outcome["reason"], detail=outcome["detail"])
        for image, outcome in zip(source.images, outcomes, strict=True)
        if "reason" in outcome
    ]


def missing(dropped: Sequence[Dropped]) -> str:
    """What was left out, and not only changed, in a few words; empty for nothing."""
    return summary([drop.reason for drop in dropped if drop.action == Dropped.action])


def summary(texts: Sequence[str]) -> str:
    """The three most frequent reasons with their counts; empty for none."""
    return ", ".join(f"{count} x {text}" for text, count in Counter(texts).most_common(3))


def reasons_in_words(dropped: Sequence[Dropped]) -> str:
    """The three most frequent reasons with their counts and an example of the first; empty for none."""
    if not dropped:
        return ""
    reasons_of = [drop.reason for drop in dropped]
    ((most, _),) = Counter(reasons_of).most_common(1)
    example = dropped[reasons_of.index(most)]
    return f"{summary(reasons_of)}, such as {example.where} {example.detail}".rstrip()


def patients_of(images: Sequence[SourceImage]) -> list[str | int]:
    """The patient of each image; one without a known patient is a patient of its own."""
    return [image.patient if image.patient is not None else number for number, image in enumerate(images)]


def _clip(
    source: Source, row_of: np.ndarray, sizes: np.ndarray
) -> tuple[BoxTable, list[tuple[str, ...]], dict[int, Any], list[Dropped]]:
    """The boxes of the images that have a row, cut at the edges, ordered by row; and the account of what was cut."""
    rows = row_of[source.boxes.images]
    order = np.argsort(rows, kind="stable")
    order = order[rows[order] >= 0]
    before = source.boxes.boxes[order]
    widths, heights = sizes[rows[order]].T if len(order) else (np.zeros(0), np.zeros(0))
    after = clip_boxes(before, widths, heights)
    snapped = snap(after, FINE_GRID)
    remains = has_area(snapped)
    dropped = []
    for place in np.flatnonzero((before != after).any(axis=1) | ~remains).tolist():
        where = source.places[order[place]]
        if remains[place]:
            dropped.append(Dropped(where, reasons.CLIPPED, "clipped"))
        else:
            dropped.append(Dropped(where, reasons.OUTSIDE if (before[place] != after[place]).any() else reasons.EMPTY))
    chosen = order[remains]
    table = BoxTable.of(rows[chosen], source.boxes.labels[chosen], snapped[remains])
    return table, [source.readers[row] for row in chosen.tolist()], renumbered(source.masks, chosen), dropped


def _image_record(
    row: int,
    image: SourceImage,
    size: list[float],
    fold: int,
    known: dict[str, list[int]],
    attributes: dict[str, str],
) -> dict[str, Any]:
    record: dict[str, Any] = {"id": row, "file_name": image.file_name, "source_id": image.source_id}
    if math.isfinite(size[0]) and math.isfinite(size[1]):
        record |= {"width": int(size[0]), "height": int(size[1])}
    record |= {"split": image.split, "fold": fold, **known}
    if image.patient is not None:
        record["patient"] = image.patient
    if image.readers:
        record["readers"] = list(image.readers)
    # What a table says of a radiograph goes before its file's header.
    return record | attributes | image.extra


def _columns(shown: np.ndarray) -> list[list[int]]:
    """(N, K) bool → for each row the numbers of its columns that are true."""
    columns: list[list[int]] = [[] for _ in range(len(shown))]
    for row, column in zip(*(axis.tolist() for axis in np.nonzero(shown)), strict=True):
        columns[row].append(column)
    return columns


def _known(image: SourceImage, labels: list[int], located: list[int]) -> dict[str, list[int]]:
    """Category ids that an image shows, and those of which its source does not say so, or not where they are.

    labels, located: ids that it shows, and which of them by a box.
    """
    if labels == located and not (image.unknown or image.unlocated or image.elsewhere):
        return {"labels": labels}
    # What is known by a label or a box is not unknown.
    unknown = sorted(set(image.unknown) - set(labels))
    # A label without a box is of something that lies somewhere.
    unlocated = sorted(({*image.unlocated, *labels} - set(located) | set(image.elsewhere)) - set(unknown))
    missing = {name: ids for name, ids in (("unknown", unknown), ("unlocated", unlocated)) if ids}
    return {"labels": labels, **missing}


def _annotation_records(
    boxes: BoxTable, readers: list[tuple[str, ...]], masks: dict[int, Any], records: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[Dropped]]:
    xywh = xyxy_to_xywh(boxes.boxes)
    areas = (xywh[:, 2] * xywh[:, 3]).tolist()
    annotations, dropped = [], []
    for number, (image, label, box, area) in enumerate(
        zip(boxes.images.tolist(), boxes.labels.tolist(), xywh.tolist(), areas, strict=True)
    ):
        annotation = annotation_row(number + 1, image, label, box, area, readers[number])
        if number in masks:
            try:
                rle, n_pixels = encode_mask(masks[number], records[image]["width"], records[image]["height"])
                annotation |= {"segmentation": rle, "area": n_pixels}
            except (ValueError, KeyError) as error:
                place = f"{records[image]['file_name']} annotation {number + 1}"
                reason = error.reason if isinstance(error, MaskError) else UNUSABLE
                dropped.append(Dropped(place, reason, "mask left out, box kept", str(error)))
        annotations.append(annotation)
    return annotations, dropped


def fuse_readers(
    boxes: BoxTable, readers: Sequence[tuple[str, ...]], fusable: np.ndarray
) -> tuple[BoxTable, list[tuple[str, ...]], np.ndarray]:
    """Makes one box of those that the readers of an image drew around the same finding.

    boxes: one row a reader's box, with area; scores are ignored, every reader counts the same.
    fusable: (N,) bool; the other rows pass unchanged.

    Weighted boxes fusion at IoU 0.4 within an image and category. Returns the boxes ordered by image, the readers of
    each (in natural order), and the input row that each passed box came from (-1 for a fused one).
    """
    rows = np.flatnonzero(fusable)
    names = sorted({name for row in rows.tolist() for name in readers[row]}, key=natural)
    number = {name: index for index, name in enumerate(names)}
    # One entry a (box, reader): a box that several readers share names them all once it is fused.
    owner = np.array([row for row in rows.tolist() for _ in readers[row]], dtype=np.int64)
    reader = np.array([number[name] for row in rows.tolist() for name in readers[row]], dtype=np.int64)
    table = boxes.select(owner)
    table = BoxTable(table.images, table.labels, table.boxes, np.ones(len(table)))
    fused = weighted_boxes_fusion(table, reader, [1.0] * max(1, len(names)), iou_threshold=READER_IOU)

    pairs = np.unique(np.stack([fused.cluster, reader], axis=1), axis=0)
    bounds = np.searchsorted(pairs[:, 0], np.arange(len(fused.table) + 1)).tolist()
    drawn_by = [names[index] for index in pairs[:, 1].tolist()]
    fused_readers = [tuple(drawn_by[start:stop]) for start, stop in itertools.pairwise(bounds)]

    passed = np.flatnonzero(~np.asarray(fusable, dtype=bool))
    everything = BoxTable.concatenate(
        [dataclasses.replace(fused.table, boxes=snap(fused.table.boxes)), boxes.select(passed)]
    )
    origin = np.concatenate([np.full(len(fused.table), -1, dtype=np.int64), passed])
    by = [*fused_readers, *(readers[row] for row in passed.tolist())]
    order = np.argsort(everything.images, kind="stable")
    ones = np.ones(len(order))
    result = BoxTable(everything.images[order], everything.labels[order], everything.boxes[order], ones)
    return result, [by[row] for row in order.tolist()], origin[order]


def annotation_row(
    number: int, image: int, label: int, box: list[float], area: float, readers: Sequence[str]
) -> dict[str, Any]:
    """A row of `annotations` in annotations.json. number: from 1, as pycocotools takes 0 for "no match"."""
    return {
        "id": number,
        "image_id": image,
        "category_id": label,
        "bbox": box,
        "area": area,
        "iscrowd": 0,
        "readers": list(readers),
    }
