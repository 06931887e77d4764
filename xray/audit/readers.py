"""Who read and who drew what, and how far readers agree: kappa by radiograph, overlap by box.

Where readers' boxes were fused, each names all who drew it: who saw which finding in which radiograph is still known,
but not where each of them drew it.
"""

import dataclasses
import itertools
import math
from collections import Counter
from typing import Any

import numpy as np

from xray.datasets.annotation import READER_IOU
from xray.datasets.source import natural
from xray.datasets.store import Store
from xray.structures.boxes import box_iou

ANY = "any finding"
MOST_READERS = 40
"""Of those with most radiographs, that are compared with each other."""


@dataclasses.dataclass(frozen=True)
class Pairing:
    """Two readers. n_images: radiographs that both have read. kappa: category or ANY → Cohen's kappa, NaN where it is
    not defined. n_boxes: of each on these radiographs. n_matched: boxes of one with a box of the other of the same
    category on them, at an IoU of READER_IOU at least. iou: the mean of these; NaN of fused boxes, or without any."""

    first: int
    second: int
    n_images: int
    kappa: dict[str, float]
    n_boxes: tuple[int, int]
    n_matched: int
    iou: float

    @property
    def mean_kappa(self) -> float:
        """Over the categories where it is defined; NaN without any."""
        values = [value for name, value in self.kappa.items() if name != ANY and not math.isnan(value)]
        return float(np.mean(values)) if values else math.nan


@dataclasses.dataclass(frozen=True)
class Agreement:
    """names: of the readers, most radiographs first. n_images, n_boxes, n_positive: by reader, radiographs read, boxes
    drawn, and radiographs where at least one was drawn. pairs: of readers with radiographs in common. alpha, fleiss:
    category or ANY → Krippendorff's alpha of all readers, and Fleiss' kappa where all radiographs have as many readers.
    is_fused: boxes of several readers are one. by_number: how many readers drew a box → boxes, of fused ones.
    """

    names: tuple[str, ...]
    n_images: np.ndarray
    n_boxes: np.ndarray
    n_positive: np.ndarray
    pairs: list[Pairing]
    alpha: dict[str, float]
    fleiss: dict[str, float]
    is_fused: bool
    by_number: dict[int, int]

    @property
    def metrics(self) -> dict[str, Any]:
        """The part of audit.json about it."""
        share = float(np.sort(self.n_boxes)[::-1][:3].sum() / max(self.n_boxes.sum(), 1))
        return {
            "readers": [
                {"name": name, "images": int(images), "boxes": int(boxes), "positive": int(positive)}
                for name, images, boxes, positive in zip(
                    self.names, self.n_images, self.n_boxes, self.n_positive, strict=True
                )
            ],
            "share_of_three_busiest": share,
            "krippendorff_alpha": self.alpha,
            "fleiss_kappa": self.fleiss,
            "boxes_are_fused": self.is_fused,
            "boxes_by_number_of_readers": {str(number): count for number, count in self.by_number.items()},
            "pairs": [
                {
                    "readers": [self.names[pair.first], self.names[pair.second]],
                    "images": pair.n_images,
                    "kappa": pair.kappa,
                    "mean_kappa": pair.mean_kappa,
                    "boxes": list(pair.n_boxes),
                    "matched": None if self.is_fused else pair.n_matched,
                    "mean_iou": pair.iou,
                }
                for pair in self.pairs
            ],
        }


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Cohen's kappa of two readers' calls (N,) bool: (p_o − p_e) / (1 − p_e); NaN where both always call the same."""
    if not len(first):
        return math.nan
    observed = float((first == second).mean())
    by_chance = float(first.mean() * second.mean() + (1 - first.mean()) * (1 - second.mean()))
    return (observed - by_chance) / (1 - by_chance) if by_chance < 1 else math.nan


def fleiss_kappa(positive: np.ndarray, n_readers: int) -> float:
    """Fleiss' kappa of N radiographs with as many readers each. positive: (N,) how many of them call it; NaN where it
    is not defined."""
    if n_readers < 2 or not len(positive):
        return math.nan
    negative = n_readers - positive
    agree = (positive * (positive - 1) + negative * (negative - 1)) / (n_readers * (n_readers - 1))
    share = float(positive.mean() / n_readers)
    by_chance = share**2 + (1 - share) ** 2
    return (float(agree.mean()) - by_chance) / (1 - by_chance) if by_chance < 1 else math.nan


def krippendorff_alpha(positive: np.ndarray, n_readers: np.ndarray) -> float:
    """Krippendorff's alpha for nominal data with two values, of N radiographs with any number of readers.

    positive, n_readers: (N,) how many call it, and how many have read the radiograph; those with one reader do not
    count. 1 − D_o / D_e (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability); NaN where all calls are equal.
    """
    paired = n_readers >= 2
    positive, n_readers = positive[paired].astype(np.float64), n_readers[paired].astype(np.float64)
    total = n_readers.sum()
    if not total:
        return math.nan
    # Disagreeing pairs of each radiograph, by the number of its readers less one.
    observed = (2 * positive * (n_readers - positive) / (n_readers - 1)).sum()
    expected = 2 * positive.sum() * (total - positive.sum()) / (total - 1)
    return float(1 - observed / expected) if expected > 0 else math.nan


def matched_iou(first: np.ndarray, second: np.ndarray) -> list[float]:
    """IoU of each pair, one to one and the highest first, of (N, 4) and (M, 4) boxes with at least READER_IOU."""
    overlaps = box_iou(first, second)
    found = []
    while overlaps.size and overlaps.max() >= READER_IOU:
        row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
        found.append(float(overlaps[row, column]))
        overlaps[row, :] = overlaps[:, column] = -1
    return found


def reader_agreement(store: Store) -> Agreement | None:
    """How the readers of a dataset agree; None where it names none of them."""
    of_images = [tuple(map(str, record.get("readers", ()))) for record in store.records]
    # Where nobody is said to have read a radiograph, who has drawn nothing there is not known either.
    of_boxes = [
        tuple(by) if of_images[image] else ()
        for image, by in zip(store.boxes.images.tolist(), store.readers, strict=True)
    ]
    everybody = sorted({name for names in [*of_images, *of_boxes] for name in names}, key=natural)
    if not everybody:
        return None
    counts = dict.fromkeys(everybody, 0)
    for readers in of_images:
        for name in set(readers):
            counts[name] += 1
    names = sorted(everybody, key=lambda name: -counts[name])
    number = {name: place for place, name in enumerate(names)}
    read = np.zeros((len(names), len(store)), dtype=bool)
    for row, readers in enumerate(of_images):
        read[[number[name] for name in readers], row] = True
    labels = {label: place for place, label in enumerate(store.categories)}
    # Reader, radiograph and category of each box, one row for each who drew it.
    drawn = np.array(
        [
            (number[name], image, labels[label], box)
            for box, (image, label, by) in enumerate(
                zip(store.boxes.images.tolist(), store.boxes.labels.tolist(), of_boxes, strict=True)
            )
            for name in dict.fromkeys(by)
        ],
        dtype=np.int64,
    ).reshape(-1, 4)
    # Whoever drew a box has read the radiograph.
    read[drawn[:, 0], drawn[:, 1]] = True
    n_by = np.array([len(by) for by in of_boxes], dtype=np.int64)
    is_fused = store.conversion.get("parameters", {}).get("readers") == "fuse" or bool((n_by > 1).any())
    positive = _positive(drawn, len(names), len(store))
    alpha, fleiss = _of_all(store, read, drawn)
    return Agreement(
        tuple(names),
        read.sum(axis=1),
        np.bincount(drawn[:, 0], minlength=len(names)),
        positive.sum(axis=1),
        [
            pairing
            for first, second in itertools.combinations(range(min(len(names), MOST_READERS)), 2)
            if (pairing := _pairing(store, read, drawn, first, second, is_fused))
        ],
        alpha,
        fleiss,
        is_fused,
        dict(sorted(Counter(n_by[n_by > 0].tolist()).items())),
    )


def _positive(drawn: np.ndarray, n_readers: int, n_images: int) -> np.ndarray:
    """(R, N) bool, whether a reader drew at least one of these boxes."""
    positive = np.zeros((n_readers, n_images), dtype=bool)
    positive[drawn[:, 0], drawn[:, 1]] = True
    return positive


def _of_all(store: Store, read: np.ndarray, drawn: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    """Alpha and Fleiss' kappa by category, and of any finding."""
    alpha, fleiss = {}, {}
    for place, name in [*enumerate(store.categories.values()), (-1, ANY)]:
        known = ~store.unknown[:, place] if place >= 0 else ~store.unknown.any(axis=1)
        rows = drawn[drawn[:, 2] == place] if place >= 0 else drawn
        n_positive, n_readers = _positive(rows, *read.shape).sum(axis=0), read.sum(axis=0)
        alpha[name] = krippendorff_alpha(n_positive[known], n_readers[known])
        read_by = n_readers[known & (n_readers > 0)]
        if len(read_by) and (read_by == read_by[0]).all() and read_by[0] >= 2:
            fleiss[name] = fleiss_kappa(n_positive[known & (n_readers > 0)], int(read_by[0]))
    return alpha, fleiss


def _pairing(
    store: Store, read: np.ndarray, drawn: np.ndarray, first: int, second: int, is_fused: bool
) -> Pairing | None:
    both = read[first] & read[second]
    if not both.any():
        return None
    ours, theirs = (drawn[(drawn[:, 0] == reader) & both[drawn[:, 1]]] for reader in (first, second))
    kappa = {}
    for place, name in [*enumerate(store.categories.values()), (-1, ANY)]:
        known = both & (~store.unknown[:, place] if place >= 0 else ~store.unknown.any(axis=1))
        calls = []
        for rows in (ours, theirs):
            called = np.zeros(len(store), dtype=bool)
            called[rows[rows[:, 2] == place, 1] if place >= 0 else rows[:, 1]] = True
            calls.append(called[known])
        kappa[name] = cohen_kappa(*calls)
    overlaps: list[float] = []
    if not is_fused:
        by_place = [_by_place(rows) for rows in (ours, theirs)]
        for key in sorted(by_place[0].keys() & by_place[1].keys()):
            overlaps += matched_iou(*(store.boxes.boxes[boxes[key]] for boxes in by_place))
    return Pairing(
        first, second, int(both.sum()), kappa, (len(ours), len(theirs)), len(overlaps),
        float(np.mean(overlaps)) if overlaps else math.nan,
    )  # fmt: skip


def _by_place(drawn: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """(radiograph, category) → the boxes drawn."""
    boxes: dict[tuple[int, int], list[int]] = {}
    for _, image, label, box in drawn.tolist():
        boxes.setdefault((image, label), []).append(box)
    return boxes
