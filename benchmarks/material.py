"""What the benchmarks of loading, training and inference work on: a dataset directory and the same pictures as PNG."""

from pathlib import Path

import numpy as np
from PIL import Image

from xray.datasets.sources.vinbig import convert_vinbig
from xray.datasets.store import Store, open_store
from xray.errors import InputError
from xray.phantoms.vinbig import write_vinbig

SMALLEST_PHANTOM = 96
"""Longer side, in pixels, below which no phantom can be drawn."""


def open_material(
    data_path: Path | None, folder: Path, n_images: int, image_size: int, n_workers: int
) -> tuple[Store, np.ndarray]:
    """A dataset and the rows to work on: the first `n_images` of `data_path`, or phantoms drawn into `folder`.

    image_size: canvas of the phantoms, in pixels; that of a dataset given stays as it is.
    Raises InputError if there is no dataset at `data_path`, or it has fewer radiographs than asked for.
    """
    if data_path is None:
        raw = folder / "raw"
        size = max(image_size, SMALLEST_PHANTOM)
        write_vinbig(raw, n_images, 0, size=size, normal_fraction=0.3, n_workers=n_workers, progress=False)
        # Without a test set there is nothing to convert in its place.
        (raw / "vinbig" / "test_truth.csv").unlink()
        (raw / "vinbig" / "test").rmdir()
        data_path = folder / "data"
        convert_vinbig(raw / "vinbig", data_path, image_size=image_size, n_folds=2, n_workers=n_workers)
    store = open_store(data_path)
    if len(store) < n_images:
        raise InputError(f"{data_path} has {len(store)} radiographs, {n_images} were asked for: give fewer --n-images")
    return store, np.arange(n_images)


def write_pngs(store: Store, rows: np.ndarray, folder: Path) -> list[Path]:
    """Writes the canvases as grey PNG files, compressed as PIL does by default; returns their paths in that order."""
    folder.mkdir(parents=True, exist_ok=True)
    assert store.images is not None
    paths = [folder / f"{row:06d}.png" for row in rows.tolist()]
    for row, path in zip(rows.tolist(), paths, strict=True):
        Image.fromarray(store.images[row]).save(path)
    return paths
