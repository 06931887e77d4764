"""From a dataset directory to the training loop, our way and with PNG files."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.peers import PngDataset, collate_lists
from benchmarks.reports import refuse
from benchmarks.timing import Timing
from xray.datasets.store import Store
from xray.structures.sides import mirrored
from xray.training.augment import Augmentation
from xray.training.changes import change_images
from xray.training.device_store import DeviceStore
from xray.training.loading import BoxDataset, EpochSampler, collate_boxes, make_loader

FEWEST_BATCHES = 8
"""A process's share of a measured run at least, so that starting and ending do not weigh."""


class Ways:
    """The ways to load the same radiographs.

    "png", mirrored at random; "ours" as they are; ours augmented by the workers, "augmented", or a batch at a time on
    the device, "device"; and that with the canvases on the device already, "stored".
    """

    def __init__(
        self, store: Store, rows: np.ndarray, paths: Sequence[Path], batch_size: int, device: torch.device
    ) -> None:
        self.batch_size, self.device = batch_size, device
        self.plain = BoxDataset(store, rows)
        augmentation = Augmentation("light", mirrored(store.categories))
        self.datasets = {
            "ours": self.plain,
            "augmented": BoxDataset(store, rows, augmentation),
            "device": BoxDataset(store, rows, augmentation, later=True),
            "stored": BoxDataset(store, rows, augmentation, pixels=False),
        }
        self.on_device = DeviceStore(store, rows, device)
        self.pngs = PngDataset(paths, self.plain, flip=0.5)
        self.exact = PngDataset(paths, self.plain, flip=0.0)

    def check(self) -> None:
        """Raises InputError unless both give the same pixels and boxes where nothing is changed at random."""
        for position in range(len(self.plain)):
            ours, (image, target) = self.plain[position], self.exact[position]
            if not torch.equal((image * 255).round().byte(), ours["image"].expand(3, -1, -1)):
                raise refuse(f"the pixels of radiograph {position} differ")
            same = torch.equal(target["labels"], ours["labels"]) and torch.allclose(target["boxes"], ours["boxes"])
            if not same:
                raise refuse(f"the boxes of radiograph {position} differ")

    @property
    def bytes_per_image(self) -> dict[str, int]:
        """Size of one loaded radiograph."""
        image, theirs = self.plain[0]["image"], self.exact[0][0]
        return {"ours": image.nbytes, "png": theirs.nbytes}

    def time(self, way: str, n_workers: int) -> Timing:
        """Loads at least all radiographs once, without the time that processes take to start."""
        n = len(self.plain) if not n_workers else max(len(self.plain), FEWEST_BATCHES * n_workers * self.batch_size)
        skipped = n_workers * self.batch_size
        n += skipped
        repeats = np.full(len(self.plain), n / len(self.plain))
        if way == "png":
            sampler = torch.utils.data.RandomSampler(self.pngs, replacement=True, num_samples=n)
            loader = DataLoader(
                self.pngs,
                batch_size=self.batch_size,
                sampler=sampler,
                num_workers=n_workers,
                collate_fn=collate_lists,
                worker_init_fn=_one_thread,
            )
        else:
            draws = EpochSampler(repeats, seed=0)
            loader = make_loader(self.datasets[way], self.batch_size, n_workers, collate_boxes, draws)
        return self._consume(loader, skipped)

    def _consume(self, loader: Any, skipped: int) -> Timing:
        wall, cpu, n = time.perf_counter(), time.process_time(), -skipped
        for batch in loader:
            n += len(self._complete(batch) if isinstance(batch, dict) else self._hand_over(batch[0]))
            if skipped and n >= 0:
                wall, cpu, n, skipped = time.perf_counter(), time.process_time(), 0, 0
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return Timing(n, time.perf_counter() - wall, time.process_time() - cpu)

    def _complete(self, batch: dict[str, Any]) -> Tensor:
        """A batch of ours on the device, (B, 1, S, S) uint8, as `xray.training.tasks.base` makes it."""
        batch = move_data_to_device(batch, self.device)
        images = batch["images"] if "images" in batch else self.on_device.images(batch["rows"])
        return change_images(images, batch["changes"]) if "changes" in batch else images

    def _hand_over(self, images: Sequence[Tensor]) -> Sequence[Tensor]:
        # As in torchvision's references.
        return [image.to(self.device) for image in images]


def one_thread() -> None:
    """Keeps the libraries to one thread, so that one process is one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _one_thread(worker: int) -> None:
    one_thread()
