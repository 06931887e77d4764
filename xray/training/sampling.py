"""Which radiographs an epoch shows, how often, and in which order."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from xray.datasets.store import Store
from xray.errors import InputError


class EpochSampler(Sampler[tuple[int, int, int]]):
    """Draws (epoch, draw, position) keys: position i about `repeats[i]` times an epoch, in a random order.

    Every epoch has the same length, and each position comes floor or ceil of its repeats times (systematic
    sampling), so that schedules by step stay in line with epochs. `rank` of `world` processes takes its share.

    first: (epoch, draw): the pass of that epoch begins with that draw of this process, as the ones before it were used
    before the training was interrupted.
    batch_size: of this process. The last batches of an epoch may be of different sizes; a process that would have none
    gets one radiograph again, as a draw from `total` up, which must not count.
    """

    def __init__(self, repeats: np.ndarray, seed: int, rank: int = 0, world: int = 1) -> None:
        self.repeats = np.asarray(repeats, dtype=np.float64)
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch = 0
        self.first = (0, 0)
        self.batch_size = 1
        if not self.repeats.sum() > 0:
            raise InputError("nothing to train on: no training radiograph has a box, and --normals is 0")
        self.total = max(1, round(self.repeats.sum()))

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        n_draws = len(range(self.rank, self.total, self.world))
        n_batches = -(-self.total // (self.world * self.batch_size))
        return max(n_draws, (n_batches - 1) * self.batch_size + 1)

    def positions(self) -> np.ndarray:
        """(total,) the positions of this epoch's draws, of all processes."""
        rng = np.random.default_rng([self.seed, self.epoch])
        # Points one apart hit each stretch of the cumulated repeats floor or ceil of its length times. The first point
        # lies where just `total` of them fit; the order is shuffled, as neighbours would never be drawn together.
        order = rng.permutation(len(self.repeats))
        edges = np.cumsum(self.repeats[order])
        over = edges[-1] - self.total
        points = np.arange(self.total) + rng.uniform(max(0.0, over), min(1.0, 1.0 + over))
        return rng.permutation(order[np.searchsorted(edges, points, side="right").clip(max=len(edges) - 1)])

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        positions = self.positions()
        begin = self.first[1] if self.epoch == self.first[0] else 0
        for number in range(begin, len(self)):
            draw = self.rank + number * self.world
            yield self.epoch, draw, int(positions[draw % self.total])


class PositiveSampler(EpochSampler):
    """An EpochSampler in which a share of the radiographs shown is positive; it goes from `start` to `end` linearly.

    positive: (N,) bool. start, end: that share in the first and the last of `n_epochs`, in (0, 1].
    Every epoch shows N radiographs. If all or none are positive, each is shown once.
    """

    def __init__(
        self, positive: np.ndarray, start: float, end: float, n_epochs: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.positive = np.asarray(positive, dtype=bool)
        self.start, self.end, self.n_epochs = start, end, n_epochs
        super().__init__(np.ones(len(self.positive)), seed, rank, world)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        super().set_epoch(epoch)
        n, n_positive = len(self.positive), int(np.count_nonzero(self.positive))
        if 0 < n_positive < n:
            share = self.start + (self.end - self.start) * min(1.0, epoch / max(1, self.n_epochs - 1))
            self.repeats = np.where(self.positive, share * n / n_positive, (1 - share) * n / (n - n_positive))


def may_hide(store: Store, rows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(len(rows),) bool, which of the radiographs `rows` may show, without a box, a category that a detector learns.

    It learns the categories that have one of `boxes`, rows of `store.boxes`, in these radiographs.
    """
    labels = store.boxes.labels[boxes[np.isin(store.boxes.images[boxes], rows)]]
    hidden: np.ndarray = store.unlocated[rows][:, np.isin(list(store.categories), labels)].any(axis=1)
    return hidden


def repeat_factors(
    labels_of: Sequence[np.ndarray], threshold: float, normals: float = 1.0, hidden: np.ndarray | None = None
) -> np.ndarray:
    """How often an epoch shows each radiograph: (N,) float64.

    Repeat-factor sampling (Gupta, Dollár, Girshick 2019, LVIS, arXiv:1908.03195): a category on the share f of the
    radiographs has r = max(1, sqrt(threshold / f)), a radiograph the largest r of its categories. Those without
    boxes have `normals`.

    labels_of: category ids of each radiograph's boxes. hidden: (N,) bool, which may show something without a box, and
    so are not normal: without boxes they have 1. None for none.
    """
    n = len(labels_of)
    present = [np.unique(labels) for labels in labels_of]
    categories, counts = np.unique(np.concatenate([*present, np.zeros(0, dtype=np.int64)]), return_counts=True)
    factor = dict(zip(categories.tolist(), np.maximum(1.0, np.sqrt(threshold * n / counts)).tolist(), strict=True))
    without = np.full(n, normals) if hidden is None else np.where(hidden, 1.0, normals)
    factors = zip(present, without.tolist(), strict=True)
    return np.array([max((factor[label] for label in labels.tolist()), default=none) for labels, none in factors])
