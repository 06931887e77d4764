"""Benchmark `load`: radiographs per second into the training loop, against PNG files and torchvision's transforms."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from benchmarks import harness
from benchmarks.harness import Timing, refuse, timed_stream
from benchmarks.material import open_material, write_pngs
from benchmarks.peers import PngDataset, collate_lists, synchronize
from xray.datasets.store import Store
from xray.flags import Processes
from xray.models.device import resolve_device
from xray.structures.sides import mirrored
from xray.training.augment import Augmentation
from xray.training.changes import change_images
from xray.training.device_store import DeviceStore
from xray.training.loaders import collate_boxes, make_loader
from xray.training.loading import BoxDataset
from xray.training.sampling import EpochSampler

FEWEST_BATCHES = 8
"""A process's share of a measured run at least, so that starting and ending do not weigh."""
TITLES = {
    "png": "PNG files",
    "ours": "as they are",
    "augmented": "--augment light",
    "device": "light, on the device",
    "stored": "light and stored on the device",
}


@dataclasses.dataclass(frozen=True)
class Config(harness.DatasetFlags):
    """Radiographs per second from disk to batches: ours against PNG files, a DataLoader and torchvision's transforms.

    Ours are batches of one byte a pixel; theirs lists of three float32 a pixel, as its detectors take them. Ours are
    also augmented, by the workers or a batch at a time on --device (xray/train.py --augment-on), and there with the
    canvases kept on it (--store-device).
    """

    n_images: harness.FourOrMore = 32
    """Radiographs: of the dataset the first ones."""
    image_size: harness.ImageSize = 1024
    """Side of the canvas of phantoms, in pixels."""
    batch_size: harness.BatchSize = 8
    """Radiographs per batch."""
    n_workers: Processes = 0
    """Processes of the parallel measurement; 0 is one a core, 1 measures on one core only."""


def main(config: Config) -> None:
    """Measures, prints a table and writes the JSON file."""
    harness.benchmark("load", config, measure, show, ["numpy", "torch", "torchvision", "pillow", "albumentations"])


def measure(config: Config, folder: Path, tell: harness.Tell) -> dict[str, Any]:
    """Runs the benchmark in `folder` and returns all its numbers.

    Raises InputError if there is no dataset, or the two ways do not give the same pixels and boxes.
    """
    device = resolve_device(config.device)
    one_thread()
    n_workers = config.n_workers or harness.n_cores()
    store, rows = open_material(config.data_path, folder, config.n_images, config.image_size, n_workers)
    ways = Ways(store, rows, write_pngs(store, rows, folder / "png"), config.batch_size, device)
    ways.check()
    entries = []
    for workers in (0,) if n_workers == 1 else (0, n_workers):
        contenders = {name: functools.partial(ways.time, name, workers) for name in TITLES}
        timings = harness.alternate(contenders, config.repeats, tell)
        entries.append(harness.entry(f"{workers or 1}", timings, [(name, "png") for name in ways.datasets]))
    return {
        "parameters": {"image_size": store.canvas_size, "device": device.type},
        "bytes_per_image": ways.bytes_per_image,
        "results": entries,
    }


def show(report: dict[str, Any]) -> list[Table | str]:
    """The numbers of `measure` as a table."""
    size = report["bytes_per_image"]
    return [
        harness.table_of(report["results"], "Radiographs into the training loop, by processes", TITLES),
        f"bytes an image: ours {size['ours']}, PNG files {size['png']}; the pixels and boxes of both are the same",
    ]


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
        return {"ours": self.plain[0]["image"].nbytes, "png": self.exact[0][0].nbytes}

    def time(self, way: str, n_workers: int) -> Timing:
        """Loads at least all radiographs once, without the time that processes take to start."""
        n = max(len(self.plain), FEWEST_BATCHES * n_workers * self.batch_size)
        skipped = n_workers * self.batch_size
        n += skipped
        if way == "png":
            loader = DataLoader(
                self.pngs,
                batch_size=self.batch_size,
                sampler=RandomSampler(self.pngs, replacement=True, num_samples=n),
                num_workers=n_workers,
                collate_fn=collate_lists,
                worker_init_fn=_one_thread,
            )
        else:
            draws = EpochSampler(np.full(len(self.plain), n / len(self.plain)), seed=0)
            loader = make_loader(self.datasets[way], self.batch_size, n_workers, collate_boxes, draws)
        return timed_stream(map(self.complete, loader), skipped, len, lambda: synchronize(self.device))

    def complete(self, batch: Any) -> Tensor | list[Tensor]:
        """The images of a batch on the device: ours, (B, 1, S, S) uint8, as `xray.training.tasks.base` makes them."""
        if not isinstance(batch, dict):
            # As in torchvision's references.
            return [image.to(self.device) for image in batch[0]]
        batch = move_data_to_device(batch, self.device)
        images = batch["images"] if "images" in batch else self.on_device.images(batch["rows"])
        return change_images(images, batch["changes"]) if "changes" in batch else images


def one_thread() -> None:
    """Keeps the libraries to one thread, so that one process is one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _one_thread(worker: int) -> None:
    one_thread()
