"""Where boxes can be scored: a category that may lie in a radiograph without a box is neither found nor missed there.

A source that says of a radiograph "effusion", and not where, or that nobody read for nodules, gives no box to match.
Predictions of such a pair of radiograph and category are dropped before anything is matched, and the radiograph does
not count where false positives are divided by radiographs. So does LVIS, which scores a category on those images only
of which somebody said whether they show it (Gupta, Dollár, Girshick 2019, arXiv:1908.03195, section 2).
"""

import dataclasses

import numpy as np

from xray.datasets.store import Store
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY


@dataclasses.dataclass(frozen=True)
class Located:
    """Of n radiographs and K categories, where boxes can be scored.

    categories: id → name of the K, ids ascending. everywhere: (n, K) bool, all places of that category have a box.
    normal: (n,) bool, known to show nothing. abnormal: (n,) bool, known to show something. Neither: nobody knows, and
    "No finding" is not scored there.
    """

    categories: dict[int, str]
    everywhere: np.ndarray
    normal: np.ndarray
    abnormal: np.ndarray

    def __len__(self) -> int:
        return len(self.everywhere)

    @property
    def is_whole(self) -> bool:
        """Whether all categories are located in all radiographs, so that nothing is left out."""
        return bool(self.everywhere.all())

    def n_images(self, label: int) -> int:
        """Radiographs on which a category is scored, or "No finding" (15) where the categories have no such id."""
        return int(np.count_nonzero(self._column(label)))

    def counts(self, table: BoxTable) -> np.ndarray:
        """(N,) bool, which rows of a table, its `images` in [0, n), can be scored."""
        counted = np.ones(len(table), dtype=bool)
        for label in np.unique(table.labels).tolist():
            rows = table.labels == label
            counted[rows] = self._column(label)[table.images[rows]]
        return counted

    def of(self, table: BoxTable) -> BoxTable:
        """The rows that can be scored; the table itself where all can."""
        counted = self.counts(table)
        return table if counted.all() else table.select(counted)

    @property
    def n_left_out(self) -> dict[str, int]:
        """Name of each category that is not located in some radiographs → how many."""
        numbers = (~self.everywhere).sum(axis=0).tolist()
        return {name: number for name, number in zip(self.categories.values(), numbers, strict=True) if number}

    def _column(self, label: int) -> np.ndarray:
        if label in self.categories:
            column: np.ndarray = self.everywhere[:, list(self.categories).index(label)]
            return column
        if label == NO_FINDING_CATEGORY:
            return self.normal | self.abnormal
        return np.ones(len(self), dtype=bool)


def located_in(store: Store, rows: np.ndarray) -> Located:
    """What a dataset says of its radiographs `rows`, (n,) int64."""
    everywhere = ~store.unlocated[rows]
    boxed = np.isin(rows, store.boxes.images)
    normal = ~boxed & everywhere.all(axis=1)
    return Located(store.categories, everywhere, normal, (boxed | store.labels[rows].any(axis=1)) & ~normal)


def nothing_located(store: Store) -> np.ndarray:
    """(N,) bool, the radiographs that say nothing of where anything is: without a box, and every category unlocated."""
    nothing: np.ndarray = store.unlocated.all(axis=1) & ~np.isin(np.arange(len(store)), store.boxes.images)
    return nothing
