"""torch Datasets and loaders over a dataset directory.

Everything random is a function of (seed, epoch, sample), never of which worker runs or what ran before: so one seed
gives the same batches with any number of workers, and a resumed training sees the same batches as an uninterrupted one.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from xray.datasets.mask_canvas import mask_canvas
from xray.datasets.source import TRAIN, VAL
from xray.datasets.store import ALL_FOLDS, Store
from xray.errors import InputError
from xray.flags import AUTO
from xray.radiographs.canvas import in_levels
from xray.training.augment import Augmentation
from xray.training.changes import change_canvas
from xray.training.placement import Outlines, at_least_a_pixel, outlines_of

FEWEST_VALIDATING = 20
"""A smaller validation split is not used, and a fold validates: the 16 radiographs of the Kermany set cannot tell
epochs apart."""


def training_rows(store: Store, fold: int | str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the store that train (every fold but one) and that validate (that fold); test radiographs do neither.

    fold: "val" lets every fold train, and the dataset's own validation split validate; "all" lets both train and none
        validate; AUTO is as `default_fold` says.
    Raises InputError if the fold or split does not exist or nothing would be left on either side.
    """
    if fold == AUTO:
        fold = default_fold(store)
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


def default_fold(store: Store) -> int | Literal["val"]:
    """What validates by default: "val" where the dataset has a validation split that is not tiny, else fold 0."""
    return "val" if np.count_nonzero(store.splits == VAL) >= FEWEST_VALIDATING else 0


class CanvasDataset(Dataset[dict[str, Any]]):
    """Base of the datasets of all tasks: canvases, augmented or not.

    They are uint8, or of a store of 16 bits float32 grey levels, 0 to 255 with fractions.
    later: the item's `change` describes the augmentation, which `xray.training.changes` applies to a whole batch later;
    its boxes are already those of the changed canvas.
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
        # albumentations knows 8 bits alone.
        if self.augmentation is not None and (self.later or self.store.bits > 8):
            boxes, labels, change = self.augmentation.draw(seed, self.store.canvas_size, boxes, labels, outlines)
            if change is not None and self.later:
                item["change"] = change
            elif change is not None:
                image, mask = change_canvas(np.asarray(image), mask, change, self.augmentation.mirrored_channels)
        elif self.augmentation is not None:
            image, boxes, labels, mask = self.augmentation(seed, np.asarray(image), boxes, labels, mask, outlines)
        if image is not None:
            # A copy: the store is mapped read-only, and tensors are expected to be writable.
            item["image"] = torch.from_numpy(np.array(in_levels(image)))[None]
        if mask is not None:
            item["mask"] = torch.from_numpy(np.array(mask))
        return item, boxes, labels

    def known_of(self, key: int | tuple[int, int, int], known: np.ndarray, mirrored: Sequence[int]) -> torch.Tensor:
        """(K,) bool, which categories are known of a key's radiograph. known: (len(store), K), of all radiographs.

        mirrored: the order of the categories on a mirrored radiograph, on which left has become right.
        """
        of_row: np.ndarray = known[int(self.rows[key[-1] if isinstance(key, tuple) else key])]
        if self.augmentation is not None and self.augmentation.mirrors(self.seed_of(key)):
            of_row = of_row[list(mirrored)]
        return torch.from_numpy(of_row.copy())

    def seed_of(self, key: int | tuple[int, int, int]) -> int:
        """The seed of the change that a key draws."""
        epoch, draw, _ = key if isinstance(key, tuple) else (0, 0, key)
        return sample_seed(self.seed, epoch, draw)


NO_BOXES = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)


class BoxDataset(CanvasDataset):
    """Canvases with their boxes.

    An item is `image` (1, S, S) uint8 or float32, `boxes` (N, 4) float32 xyxy in canvas pixels, `labels` (N,) int64
    category ids, and `row`, the radiograph's row in the store. Without boxes they have the shapes (0, 4) and (0,).

    boxes: rows of `store.boxes` that count; all, if not given. shares: (len(store.boxes),) of each box the share of the
    readers who drew it; an item then has them as `shares` (N,) float32. unlocated: (len(store), K) bool, which
    categories may lie in each radiograph without a box; an item then has `unlocated` (C + 1,) bool, by category id up
    to the highest, C; that of 0 says whether any is among them that has a box in `rows`, mirrored or not. None where
    all are located.
    """

    def __init__(
        self,
        store: Store,
        rows: np.ndarray,
        *args: Any,
        boxes: np.ndarray | None = None,
        shares: np.ndarray | None = None,
        unlocated: np.ndarray | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(store, rows, *args, **kwargs)
        self._shares, self._unlocated = shares, unlocated
        order = np.arange(len(store.boxes)) if boxes is None else boxes
        order = order[np.argsort(store.boxes.images[order], kind="stable")]
        images = store.boxes.images[order]
        starts, ends = np.searchsorted(images, self.rows, "left"), np.searchsorted(images, self.rows, "right")
        self._outlines: dict[int, Outlines] = {}
        self._boxes_of = [order[start:end] for start, end in zip(starts, ends, strict=True)]
        self._ids = np.array(list(store.categories), dtype=np.int64)
        self._learned = np.isin(self._ids, store.boxes.labels[np.concatenate([order[:0], *self._boxes_of])])
        if self.augmentation is not None and self.augmentation.flip:
            self._learned |= self._learned[self.augmentation.mirrored_channels]

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
        if self._unlocated is not None:
            order = self.augmentation.mirrored_channels if self.augmentation is not None else ()
            named = self.known_of(key, self._unlocated, order)
            item["unlocated"] = torch.zeros(int(self._ids[-1]) + 1, dtype=torch.bool)
            item["unlocated"][self._ids] = named
            item["unlocated"][0] = bool(named[self._learned].any())
        return item

    def _outlines_of(self, position: int, row: int) -> Outlines:
        if position not in self._outlines:
            self._outlines[position] = outlines_of(self.store, row, self._boxes_of[position])
        return self._outlines[position]


class MaskDataset(CanvasDataset):
    """Canvases with their masks.

    An item is `image` (1, S, S) uint8 or float32, `mask` (K, S, S) uint8 of 0 and 1 with a channel for each category in
    the order of their ids, and `row`, the radiograph's row in the store.

    known: (len(store), K) bool, of which categories each radiograph's mask is known; an item then has them as `known`
    (K,). None where all are.
    """

    def __init__(
        self, store: Store, rows: np.ndarray, *args: Any, known: np.ndarray | None = None, **kwargs: Any
    ) -> None:
        super().__init__(store, rows, *args, **kwargs)
        self.known = known

    def __getitem__(self, key: int | tuple[int, int, int]) -> dict[str, Any]:
        """key: as for `draw`."""
        row = int(self.rows[key[-1] if isinstance(key, tuple) else key])
        item = self.draw(key, *NO_BOXES, mask_canvas(self.store, row) if self.pixels else None)[0]
        if self.known is not None:
            order = self.augmentation.mirrored_channels if self.augmentation is not None else ()
            item["known"] = self.known_of(key, self.known, order)
        return item


class LabelDataset(CanvasDataset):
    """Canvases with labels of the whole radiograph.

    labels: (len(store), K) of 0 and 1. mirrored_labels: their order on a mirrored radiograph, on which left has become
    right; as they are, if not given. An item is `image` (1, S, S) uint8 or float32, `labels` (K,) float32, and `row`.
    known: (len(store), K) bool, which labels are known; an item then has them as `known` (K,). None where all are.
    """

    def __init__(
        self,
        store: Store,
        rows: np.ndarray,
        labels: np.ndarray,
        *args: Any,
        mirrored_labels: Sequence[int] | None = None,
        known: np.ndarray | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(store, rows, *args, **kwargs)
        self.labels, self.known = labels.astype(np.float32), known
        self.mirrored_labels = list(range(labels.shape[1])) if mirrored_labels is None else list(mirrored_labels)

    def __getitem__(self, key: int | tuple[int, int, int]) -> dict[str, Any]:
        """key: as for `draw`."""
        item = self.draw(key, *NO_BOXES)[0]
        labels = self.labels[item["row"]]
        is_mirrored = self.augmentation is not None and self.augmentation.mirrors(self.seed_of(key))
        if self.known is not None:
            item["known"] = self.known_of(key, self.known, self.mirrored_labels)
        return {**item, "labels": torch.from_numpy(labels[self.mirrored_labels] if is_mirrored else labels.copy())}


def sample_seed(seed: int, epoch: int, draw: int) -> int:
    """A 32-bit seed that differs for every drawn sample of every epoch."""
    return int(np.random.SeedSequence([seed, epoch, draw]).generate_state(1)[0])
