"""torch Datasets and loaders over a dataset directory.

Everything random is a function of (seed, epoch, sample), never of which worker runs or what ran before: so one seed
gives the same batches with any number of workers, and a resumed training sees the same batches as an uninterrupted one.
"""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from xray.datasets.mask_canvas import mask_canvas
from xray.datasets.source import TRAIN, VAL
from xray.datasets.store import ALL_FOLDS, Store
from xray.errors import InputError
from xray.flags import AUTO
from xray.training.augment import Augmentation
from xray.training.changes import stack_changes
from xray.training.placement import Outlines, at_least_a_pixel, outlines_of

FEWEST_VALIDATING = 20
"""Radiographs of a validation split below which a fold says more: the 16 of the Kermany set tell no epochs apart."""


def training_rows(store: Store, fold: int | str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the store that train (every fold but one) and that validate (that fold); test radiographs do neither.

    fold: "val" lets every fold train, and the dataset's own validation split validate; "all" lets both train and none
        validate; AUTO is as `held_back` says.
    Raises InputError if the fold or split does not exist or nothing would be left on either side.
    """
    if fold == AUTO:
        fold = held_back(store)
    if fold == ALL_FOLDS:
        return np.flatnonzero(np.isin(store.splits, (TRAIN, VAL))), np.zeros(0, dtype=np.int64)
    if fold == VAL:
        return store.rows(split=TRAIN), store.rows(split=VAL)
    assert isinstance(fold, int)
    validation = store.rows(split="train", fold=fold)
    training = np.setdiff1d(store.rows(split="train"), validation)
    if len(training) == 0:
        raise InputError(
            f"all {len(validation)} training radiographs are in fold {fold}: convert with --n-folds 2 or more"
        )
    return training, validation


def held_back(store: Store) -> int | Literal["val"]:
    """What validates where nobody chooses: "val" where the dataset has a validation split that is not tiny, else 0."""
    return "val" if np.count_nonzero(store.splits == VAL) >= FEWEST_VALIDATING else 0


class CanvasDataset(Dataset[dict[str, Any]]):
    """Base of the datasets of all tasks: canvases, augmented or not.

    later: the canvas stays as it is stored, and the item's `change` describes its augmentation, which
    `xray.training.changes` makes to a whole batch. Boxes are already where they will be then.
    pixels: False leaves out canvases and masks, which the device has already (`xray.training.device_store`);
    augmentation is then made `later`.
    """

    def __init__(
        self,
        store: Store,
        rows: np.ndarray,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        later: bool = False,
        pixels: bool = True,
    ) -> None:
        self.store, self.rows, self.augmentation, self.seed = store, np.asarray(rows), augmentation, seed
        self.later, self.pixels = later or not pixels, pixels

    def __len__(self) -> int:
        return len(self.rows)

    def draw(
        self,
        key: int | tuple[int, int, int],
        boxes: np.ndarray,
        labels: np.ndarray,
        mask: np.ndarray | None = None,
        outlines: Outlines = (),
    ) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        """The item of one key, with `row`, `image`, `mask` and `change`, and the boxes and labels that belong to it.

        key: the position in `rows`, or (epoch, draw, position) from EpochSampler, which decides the augmentation.
        boxes: (N, 4) xyxy in canvas pixels. labels: (N,). mask: (K, S, S) uint8. outlines: of the boxes.
        """
        position = key[-1] if isinstance(key, tuple) else key
        row, seed = int(self.rows[position]), self.seed_of(key)
        item: dict[str, Any] = {"row": row}
        image = None
        if self.pixels:
            assert self.store.images is not None
            image = self.store.images[row]
        if self.augmentation is not None and self.later:
            boxes, labels, change = self.augmentation.draw(seed, self.store.canvas_size, boxes, labels, outlines)
            if change is not None:
                item["change"] = change
        elif self.augmentation is not None:
            image, boxes, labels, mask = self.augmentation(seed, np.asarray(image), boxes, labels, mask, outlines)
        if image is not None:
            # A copy: the store is mapped read-only, and tensors are expected to be writable.
            item["image"] = torch.from_numpy(np.array(image))[None]
        if mask is not None:
            item["mask"] = torch.from_numpy(np.array(mask))
        return item, boxes, labels

    def seed_of(self, key: int | tuple[int, int, int]) -> int:
        """The seed of the change that a key draws."""
        epoch, draw, _ = key if isinstance(key, tuple) else (0, 0, key)
        return sample_seed(self.seed, epoch, draw)


NO_BOXES = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)


class BoxDataset(CanvasDataset):
    """Canvases with their boxes.

    An item is `image` (1, S, S) uint8, `boxes` (N, 4) float32 xyxy in canvas pixels, `labels` (N,) int64 category
    ids, and `row`, the radiograph's row in the store. Without boxes they have the shapes (0, 4) and (0,).

    boxes: rows of `store.boxes` that count; all, if not given. shares: (len(store.boxes),) of each box the share of the
    readers who drew it; an item then has them as `shares` (N,) float32.
    """

    def __init__(
        self,
        store: Store,
        rows: np.ndarray,
        *args: Any,
        boxes: np.ndarray | None = None,
        shares: np.ndarray | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(store, rows, *args, **kwargs)
        self._shares = shares
        order = np.arange(len(store.boxes)) if boxes is None else boxes
        order = order[np.argsort(store.boxes.images[order], kind="stable")]
        images = store.boxes.images[order]
        starts, ends = np.searchsorted(images, self.rows, "left"), np.searchsorted(images, self.rows, "right")
        self._outlines: dict[int, Outlines] = {}
        self._boxes_of = [order[start:end] for start, end in zip(starts, ends, strict=True)]

    def labels_of(self) -> list[np.ndarray]:
        """Category ids of the boxes of each radiograph."""
        return [self.store.boxes.labels[boxes_of_row] for boxes_of_row in self._boxes_of]

    def __getitem__(self, key: int | tuple[int, int, int]) -> dict[str, Any]:
        """key: as for `draw`."""
        position = key[-1] if isinstance(key, tuple) else key
        boxes_of_row = self._boxes_of[position]
        row = int(self.rows[position])
        boxes = self.store.canvas(row).to_canvas(self.store.boxes.boxes[boxes_of_row])
        outlines = self._outlines_of(position, row) if self.augmentation is not None else ()
        labels = self.store.boxes.labels[boxes_of_row]
        if self._shares is not None:
            labels = np.stack([labels, self._shares[boxes_of_row]], axis=1)
        item, boxes, labels = self.draw(key, boxes, labels, outlines=outlines)
        if self._shares is not None:
            item["shares"] = torch.from_numpy(labels[:, 1].astype(np.float32))
            labels = labels[:, 0]
        boxes = at_least_a_pixel(boxes, self.store.canvas_size)
        item["boxes"] = torch.from_numpy(boxes.astype(np.float32))
        item["labels"] = torch.from_numpy(labels.astype(np.int64))
        return item

    def _outlines_of(self, position: int, row: int) -> Outlines:
        if position not in self._outlines:
            self._outlines[position] = outlines_of(self.store, row, self._boxes_of[position])
        return self._outlines[position]


class MaskDataset(CanvasDataset):
    """Canvases with their masks.

    An item is `image` (1, S, S) uint8, `mask` (K, S, S) uint8 of 0 and 1 with a channel for each category in the order
    of their ids, and `row`, the radiograph's row in the store.
    """

    def __getitem__(self, key: int | tuple[int, int, int]) -> dict[str, Any]:
        """key: as for `draw`."""
        row = int(self.rows[key[-1] if isinstance(key, tuple) else key])
        return self.draw(key, *NO_BOXES, mask_canvas(self.store, row) if self.pixels else None)[0]


class LabelDataset(CanvasDataset):
    """Canvases with labels of the whole radiograph.

    labels: (len(store), K) of 0 and 1. mirrored_labels: their order on a mirrored radiograph, on which left has become
    right; as they are, if not given. An item is `image` (1, S, S) uint8, `labels` (K,) float32, and `row`.
    """

    def __init__(
        self,
        store: Store,
        rows: np.ndarray,
        labels: np.ndarray,
        *args: Any,
        mirrored_labels: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(store, rows, *args, **kwargs)
        self.labels = labels.astype(np.float32)
        self.mirrored_labels = list(range(labels.shape[1])) if mirrored_labels is None else list(mirrored_labels)

    def __getitem__(self, key: int | tuple[int, int, int]) -> dict[str, Any]:
        """key: as for `draw`."""
        item = self.draw(key, *NO_BOXES)[0]
        labels = self.labels[item["row"]]
        is_mirrored = self.augmentation is not None and self.augmentation.mirrors(self.seed_of(key))
        return {**item, "labels": torch.from_numpy(labels[self.mirrored_labels] if is_mirrored else labels.copy())}


def collate_images(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items of a MaskDataset or LabelDataset → `images` (B, 1, S, S) uint8, `rows` (B,), `masks` or `labels`.

    With `changes` where the canvases are augmented later, and without pixels where the dataset has none.
    """
    batch = _collate(items)
    for name, plural in (("mask", "masks"), ("labels", "labels")):
        if name in items[0]:
            batch[plural] = torch.stack([item[name] for item in items])
    return batch


def collate_boxes(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items of a BoxDataset → `images` (B, 1, S, S) uint8, `targets` list of {boxes, labels}, `rows` (B,) int64.

    With `changes` and without pixels as `collate_images`.
    """
    names = [name for name in ("boxes", "labels", "shares") if name in items[0]]
    return {**_collate(items), "targets": [{name: item[name] for name in names} for item in items]}


def _collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    batch: dict[str, Any] = {"rows": torch.tensor([item["row"] for item in items])}
    if "image" in items[0]:
        batch["images"] = torch.stack([item["image"] for item in items])
    if "change" in items[0]:
        batch["changes"] = stack_changes([item["change"] for item in items])
    return batch


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


def repeat_factors(labels_of: Sequence[np.ndarray], threshold: float, normals: float = 1.0) -> np.ndarray:
    """How often an epoch shows each radiograph: (N,) float64.

    Repeat-factor sampling (Gupta, Dollár, Girshick 2019, LVIS, arXiv:1908.03195): a category on the share f of the
    radiographs has r = max(1, sqrt(threshold / f)), a radiograph the largest r of its categories. Those without
    boxes have `normals`.

    labels_of: category ids of each radiograph's boxes.
    """
    n = len(labels_of)
    present = [np.unique(labels) for labels in labels_of]
    categories, counts = np.unique(np.concatenate([*present, np.zeros(0, dtype=np.int64)]), return_counts=True)
    factor = dict(zip(categories.tolist(), np.maximum(1.0, np.sqrt(threshold * n / counts)).tolist(), strict=True))
    return np.array([max((factor[label] for label in labels.tolist()), default=normals) for labels in present])


def sample_seed(seed: int, epoch: int, draw: int) -> int:
    """A 32-bit seed that differs for every drawn sample of every epoch."""
    return int(np.random.SeedSequence([seed, epoch, draw]).generate_state(1)[0])


LOADER_TIMEOUT = 600.0
"""Seconds without a batch after which workers count as hanging: an archive may need minutes to wake up."""


def make_loader(dataset: Dataset[Any], batch_size: int, n_workers: int, collate: Any, sampler: Any = None) -> Any:
    """A DataLoader of pinned batches with persistent workers.

    Its iterator raises RuntimeError where a worker ended, or none gave a batch for LOADER_TIMEOUT.
    """
    if n_workers:
        # A forked worker inherits OpenCV's thread pool without its threads and would wait for them for ever.
        cv2.setNumThreads(1)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=n_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=n_workers > 0,
        prefetch_factor=4 if n_workers else None,
        timeout=LOADER_TIMEOUT if n_workers else 0,
        # Its own generator: drawing the workers' base seed must not advance the generator that the losses sample from.
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=_begin_worker,
    )


@contextmanager
def shared_with_workers() -> Iterator[None]:
    """Objects that exist now keep their memory while this lasts, so that workers forked meanwhile share it.

    The collector writes to every object that it looks at, and a page that one of the processes writes to is copied:
    150 MB for each of them, of libraries alone.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _begin_worker(worker: int) -> None:
    # Its first objects are shared: see `shared_with_workers`.
    gc.freeze()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # torchrun sends SIGTERM to all processes that a process has started, but it needs its workers until it has
        # saved.
        os.setpgid(0, 0)
    # There is a worker for each free core: threads within workers would only compete for the cores.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
