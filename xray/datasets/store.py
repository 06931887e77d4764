"""The dataset directory that every converter writes and all training reads.

- annotations.json: COCO. `images`: `id` (= row in images.npy), `file_name` relative to the source, `source_id`,
  `width`, `height` (original pixels), `split` ("train", "val" or "test"), `fold` (-1 but for train), `labels` (category
  ids that the image shows, with or without a box), `unknown` (ids of which nobody says whether it shows them),
  `unlocated` (further ids that may lie in the image without a box), `dropped` and `dropped_unknown` (names of what it
  shows or may show that a category map left out), `patient`, `readers`, `view`, `sex`, `age` (a
  decade such as "60-69", or "90+") and `manufacturer` where known. `annotations`: `bbox` (x, y, width, height in
  original pixels), `category_id` from 1, `area`, `iscrowd` 0, `readers` (who drew it), `segmentation` (COCO RLE at
  original size) where there is a mask.
- images.npy: (N, S, S) uint8, or uint16 where conversion.json says bits 16, letterboxed as `xray.radiographs.canvas`
  does.
- conversion.json: source, versions, parameters, counts, and what was left out; written last, so its presence means
  that the directory is complete.

`xray pseudo` writes one whose boxes models have found. Its conversion.json has `pseudo`; its annotations have `score`
and `for_fold`, the fold that may be held back while they train, "val" for the validation split, or "all"; its images
may have `not_for_folds`, those in which their patient is.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xray.datasets.source import VAL
from xray.datasets.store_files import bits_of, check_record, damaged, map_images, read_object
from xray.errors import InputError, spelled
from xray.file_names import ANNOTATIONS, CONVERSION, IMAGES
from xray.radiographs.canvas import Canvas, in_8_bits
from xray.radiographs.names import has_control
from xray.structures.boxes import BoxTable, xywh_to_xyxy

JOURNAL = "conversion.part"
"""The progress of an unfinished conversion; see xray.datasets.journal."""
LABELLING = "pseudo.part"
"""The folder of what an unfinished labelling by `xray pseudo` has reached."""
ALL_FOLDS = "all"
"""In place of a fold that is held back: every fold trains."""


def fold_in_words(fold: int | str) -> str:
    """What is held back, such as "fold 3", or "the validation split"."""
    return "the validation split" if fold == VAL else f"fold {fold}"


@dataclasses.dataclass(frozen=True, repr=False)
class Store:
    """An opened dataset directory. Handing it to another process reopens the directory there instead of copying it.

    images: (N, S, S) uint8 or uint16, memory-mapped and read-only; None where the store was opened without pixels.
    records: the N entries of `images` in annotations.json, in row order.
    boxes: the truth; `images` are rows, `labels` category ids, boxes xyxy in original pixels, scores all 1. Of
        pseudo-labels: those for one fold held back, with the scores that models gave them.
    readers: who drew each box; empty where nobody is named.
    masks: row of `boxes` → COCO RLE at original size, for the boxes that have a mask.
    categories: id → name, ids 1 … K ascending.
    conversion: conversion.json.
    source_category_ids: id → the id in the source's own COCO file; empty where there was none.
    """

    path: Path
    images: np.ndarray | None
    records: list[dict[str, Any]]
    boxes: BoxTable
    readers: list[list[str]]
    masks: dict[int, dict[str, Any]]
    categories: dict[int, str]
    conversion: dict[str, Any]
    source_category_ids: dict[int, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        without = "" if self.images is not None else ", without pixels"
        return f"<xray.Store {self.path}: {len(self)} radiographs, {len(self.categories)} categories{without}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.path.absolute(), self.images is not None)

    @property
    def pseudo(self) -> dict[str, Any] | None:
        """What conversion.json says of pseudo-labels; None where the boxes are the truth."""
        return self.conversion.get("pseudo")

    @property
    def canvas_size(self) -> int:
        """Side of the square canvas, in pixels."""
        return int(self.conversion["parameters"]["image_size"])

    @property
    def bits(self) -> int:
        """Of a pixel of the canvases: 8, or 16 where the dataset was converted with --bits 16."""
        return bits_of(self.conversion)

    def shown(self, row: int) -> np.ndarray:
        """(S, S) uint8, the canvas of one radiograph as pictures and people need it."""
        assert self.images is not None  # it was opened with pixels
        return in_8_bits(np.asarray(self.images[row]))

    def canvas(self, row: int) -> Canvas:
        """The geometry of one radiograph on its canvas."""
        record = self.records[row]
        return Canvas(record["width"], record["height"], self.canvas_size)

    @functools.cached_property
    def folds(self) -> np.ndarray:
        """(N,) int64, the fold of each radiograph; -1 for those of other splits than train."""
        return np.array([record["fold"] for record in self.records], dtype=np.int64)

    @functools.cached_property
    def splits(self) -> np.ndarray:
        """(N,) str, "train", "val" or "test"."""
        return np.array([record["split"] for record in self.records], dtype=str)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """(N, K) bool, which categories each radiograph shows, in the order of their ids; by its boxes at least."""
        shown = self._named("labels")
        # Ids are ascending.
        shown[self.boxes.images, np.searchsorted(list(self.categories), self.boxes.labels)] = True
        return shown

    @functools.cached_property
    def unknown(self) -> np.ndarray:
        """(N, K) bool, of which categories nobody says whether the radiograph shows them.

        Neither loss nor metric counts them. Columns as in `labels`."""
        return self._named("unknown")

    @functools.cached_property
    def unlocated(self) -> np.ndarray:
        """(N, K) bool, which categories may lie in the radiograph without a box: a detection of one there is neither
        right nor wrong. The unknown ones are among them, and those that it shows by its label alone."""
        unlocated: np.ndarray = self._named("unlocated") | self.unknown
        return unlocated

    @property
    def abnormal(self) -> tuple[np.ndarray, np.ndarray]:
        """Which radiographs show any finding, and of which that is known, both (N,) bool.

        One known label is enough to be abnormal, also one of a category that a map left out (`dropped`); normal is what
        is known to show none."""
        dropped, maybe = (
            np.array([bool(record.get(key)) for record in self.records], dtype=bool)
            for key in ("dropped", "dropped_unknown")
        )
        shown: np.ndarray = np.any(self.labels, axis=1) | dropped
        known: np.ndarray = shown | (np.all(~self.unknown, axis=1) & ~maybe)
        return shown, known

    def _named(self, key: str) -> np.ndarray:
        """(N, K) bool, the categories that an entry of the records names."""
        column = {category: number for number, category in enumerate(self.categories)}
        named = np.zeros((len(self), len(column)), dtype=bool)
        for row, record in enumerate(self.records):
            named[row, [column[label] for label in record.get(key, ())]] = True
        return named

    @functools.cached_property
    def index_of(self) -> dict[str, int]:
        """Source id → row."""
        return {record["source_id"]: row for row, record in enumerate(self.records)}

    @functools.cached_property
    def agreement(self) -> np.ndarray:
        """(len(boxes),) float64 in (0, 1], the share of an image's readers who drew the box; 1 where not known."""
        share = np.ones(len(self.boxes))
        for box, (image, readers) in enumerate(zip(self.boxes.images.tolist(), self.readers, strict=True)):
            n_readers = len(self.records[image].get("readers", ()))
            if readers and n_readers:
                share[box] = min(1.0, len(readers) / n_readers)
        return share

    def rows(self, split: str | None = None, fold: int | None = None, not_fold: int | None = None) -> np.ndarray:
        """Rows, ascending, that belong to a split ("train", "val" or "test"), to a fold, or to every fold but one.

        Naming a fold means the training split: test images are never among the other folds. Raises InputError for a
        fold or split that the dataset does not have.
        """
        if split is None and (fold is not None or not_fold is not None):
            split = "train"
        chosen = np.ones(len(self), dtype=bool)
        if split is not None:
            chosen &= self.splits == split
            if not chosen.any():
                raise InputError(
                    f"{self.path} has no {split!r} images: its splits are {sorted(set(self.splits.tolist()))}"
                )
        for number, inside in ((fold, True), (not_fold, False)):
            if number is None:
                continue
            existing = sorted({int(value) for value in self.folds} - {-1})
            if number not in existing:
                raise InputError(f"{self.path} has no fold {number}: its folds are {', '.join(map(str, existing))}")
            chosen &= (self.folds == number) == inside
        return np.flatnonzero(chosen)

    def resolve(self, image_ids: Sequence[str | int]) -> np.ndarray:
        """Source ids → (M,) int64 rows; -1 for an id that is not in the dataset.

        Ids of a foreign predictions file mean other things: see `xray.datasets.prediction_ids.resolve`.
        """
        rows = [self.index_of.get(name, -1) if isinstance(name, str) else -1 for name in image_ids]
        return np.array(rows, dtype=np.int64)


def is_store(path: Path | str) -> bool:
    """Whether `path` is a dataset directory, finished or not."""
    path = Path(path)
    return (path / CONVERSION).is_file() or (path / JOURNAL).is_file()


def open_store(path: Path | str, pixels: bool = True, pseudo_for: int | str | None = None) -> Store:
    """Opens a finished dataset directory; the images are mapped, not read.

    pixels: without them, `images` is None and images.npy need not exist.
    pseudo_for: of pseudo-labels, those for a training that holds this fold back, or "val", or "all"; None refuses such
        a dataset, as its boxes are not the truth.

    Raises InputError where there is no dataset, its conversion has not finished, or its files are damaged.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"no dataset at {path}: run {spelled('convert')} to make one")
    if not (path / CONVERSION).is_file():
        if (path / JOURNAL).is_file():
            raise InputError(
                f"the conversion into {path} has not finished: run the same {spelled('convert')} command again"
            )
        if (path / LABELLING).is_dir():
            raise InputError(
                f"the labelling into {path} has not finished: run the same {spelled('pseudo')} command again"
            )
        raise InputError(f"{path} is not a dataset (no {CONVERSION}): run {spelled('convert')} to make one")
    conversion = read_object(path / CONVERSION)
    if conversion.get("pseudo") is not None and pseudo_for is None:
        raise InputError(
            f"{path} holds pseudo-labels, which are what models found and not the truth: train a detector on them with "
            "--pseudo, beside the labelled --data-path"
        )
    annotations = read_object(path / ANNOTATIONS)
    try:
        size = int(conversion["parameters"]["image_size"])
        return _assemble(
            path, conversion, annotations, map_images(path, size, bits_of(conversion)) if pixels else None, pseudo_for
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from None


def _assemble(
    path: Path,
    conversion: dict[str, Any],
    annotations: dict[str, Any],
    images: np.ndarray | None,
    pseudo_for: int | str | None,
) -> Store:
    records = annotations["images"]
    if images is not None and len(images) != len(records):
        raise damaged(path, f"{IMAGES} has {len(images)} rows, {ANNOTATIONS} {len(records)} images")
    if [record["id"] for record in records] != list(range(len(records))):
        raise damaged(path, f"the image ids in {ANNOTATIONS} are not the rows 0 to {len(records) - 1}")
    for record in records:
        check_record(path, record, needs_size=images is not None)
        record["source_id"], record["fold"], record["split"] = (
            str(record["source_id"]),
            int(record["fold"]),
            str(record["split"]),
        )
    rows, scores = annotations["annotations"], None
    if conversion.get("pseudo") is not None:
        rows = [row for row in rows if row["for_fold"] == pseudo_for]
        scores = np.array([row["score"] for row in rows], dtype=np.float64)
        if not ((scores >= 0) & (scores <= 1)).all():
            raise damaged(path, "a score is not between 0 and 1")
    categories = {int(row["id"]): str(row["name"]) for row in annotations["categories"]}
    boxes = BoxTable.of(
        [row["image_id"] for row in rows],
        [row["category_id"] for row in rows],
        xywh_to_xyxy(np.array([row["bbox"] for row in rows], dtype=np.float64)),
        scores,
    )
    if len(boxes) and not (boxes.images.min() >= 0 and boxes.images.max() < len(records)):
        raise damaged(path, "an annotation names an image that is not there")
    if strange := [name for name in categories.values() if has_control(name)]:
        raise damaged(path, f"a category's name, {strange[0]!r}, holds a control character or a line break")
    if not all(0 < number < 2**31 for number in categories):
        raise damaged(path, "a category's id is not counted from 1")
    masks = {number: row["segmentation"] for number, row in enumerate(rows) if row.get("segmentation")}
    kinds = {(type(mask.get("size")), type(mask.get("counts"))) for mask in masks.values() if isinstance(mask, dict)}
    if not (kinds <= {(list, str)} and all(isinstance(mask, dict) for mask in masks.values())):
        raise damaged(path, "a segmentation is no compressed RLE")
    if not set(np.unique(boxes.labels).tolist()) <= categories.keys():
        raise damaged(path, "an annotation names a category that is not there")
    for key in ("labels", "unknown", "unlocated"):
        if not {label for record in records for label in record.get(key, ())} <= categories.keys():
            raise damaged(path, f"an image's {key} name a category that is not there")
    if not np.isfinite(boxes.boxes).all():
        raise damaged(path, "an annotation's bbox is not finite")
    return Store(
        path=path,
        images=images,
        records=records,
        boxes=boxes,
        readers=[[str(name) for name in row.get("readers", ())] for row in rows],
        masks=masks,
        categories=dict(sorted(categories.items())),
        conversion=conversion,
        source_category_ids={
            int(row["id"]): int(row["source_category_id"])
            for row in annotations["categories"]
            if "source_category_id" in row
        },
    )
