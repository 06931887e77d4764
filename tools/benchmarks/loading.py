"""From a dataset directory to the training loop, our way and with PNG files."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tools.benchmarks.peers import PngDataset, collate_lists
from tools.benchmarks.reports import refuse
from tools.benchmarks.timing import Timing
from xray.data.augment import Augmentation
from xray.data.dataset import BoxDataset, EpochSampler, collate_boxes, make_loader
from xray.data.store import Store
from xray.findings import mirrored

FEWEST_BATCHES = 8
"""A process's share of a measured run at least, so that starting and ending do not weigh."""


class Ways:
    """The ways to load the same radiographs: "ours" as they are, "augmented" ours, and "png", mirrored at random."""

    def __init__(
        self, store: Store, rows: np.ndarray, paths: Sequence[Path], batch_size: int, device: torch.device
    ) -> None:
        self.batch_size, self.device = batch_size, device
        self.plain = BoxDataset(store, rows)
        self.augmented = BoxDataset(store, rows, Augmentation("light", mirrored(store.categories)))
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
            dataset = self.plain if way == "ours" else self.augmented
            loader = make_loader(dataset, self.batch_size, n_workers, collate_boxes, EpochSampler(repeats, seed=0))
        return self._consume(loader, skipped)

    def _consume(self, loader: Any, skipped: int) -> Timing:
        wall, cpu, n = time.perf_counter(), time.process_time(), -skipped
        for batch in loader:
            images = batch["images"] if isinstance(batch, dict) else batch[0]
            n += len(images)
            self._hand_over(images)
            if skipped and n >= 0:
                wall, cpu, n, skipped = time.perf_counter(), time.process_time(), 0, 0
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return Timing(n, time.perf_counter() - wall, time.process_time() - cpu)

    def _hand_over(self, images: Tensor | Sequence[Tensor]) -> None:
        if self.device.type == "cpu":
            return
        if isinstance(images, Tensor):
            images.to(self.device, non_blocking=True)
        else:
            # As in torchvision's references.
            for image in images:
                image.to(self.device)


def one_thread() -> None:
    """Keeps the libraries to one thread, so that one process is one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _one_thread(worker: int) -> None:
    one_thread()
