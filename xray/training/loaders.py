"""Batches of a training set: collated, seeded, and loaded by processes."""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from xray.training.changes import stack_changes


def collate_images(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items of a MaskDataset or LabelDataset → `images` (B, 1, S, S) as the items, `rows` (B,), `masks` or `labels`.

    With `known` (B, K) bool where a part of the truth is not known. With `changes` where the canvases are augmented
    later, and without pixels where the dataset has none.
    """
    batch = _collate(items)
    for name, plural in (("mask", "masks"), ("labels", "labels"), ("known", "known")):
        if name in items[0]:
            batch[plural] = torch.stack([item[name] for item in items])
    return batch


def collate_boxes(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items of a BoxDataset → `images` (B, 1, S, S) as the items, `targets` list of {boxes, labels, …}, `rows` (B,).

    With `changes` and without pixels as `collate_images`.
    """
    names = [name for name in ("boxes", "labels", "shares", "unlocated") if name in items[0]]
    return {**_collate(items), "targets": [{name: item[name] for name in names} for item in items]}


def _collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    batch: dict[str, Any] = {"rows": torch.tensor([item["row"] for item in items])}
    if "image" in items[0]:
        batch["images"] = torch.stack([item["image"] for item in items])
    if "change" in items[0]:
        batch["changes"] = stack_changes([item["change"] for item in items])
    return batch


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
        # torchrun sends SIGTERM to all processes that a training has started, but a training needs its workers until it
        # has saved.
        os.setpgid(0, 0)
    # There is a worker for each free core: threads within workers would only compete for the cores.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
