"""What the benchmarks work on: datasets, PNG and DICOM files, and boxes as detectors and readers give them."""

from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

from xray.datasets.sources import convert
from xray.datasets.store import Store, open_store
from xray.errors import InputError
from xray.findings import FINDINGS, NO_FINDING, NO_FINDING_NAME
from xray.phantoms.dicom import Storage, dicom_of, save_dicom
from xray.phantoms.vinbig import write_vinbig

SMALLEST_PHANTOM = 96
"""Longer side, in pixels, below which no phantom can be drawn."""
N_PICTURES = 16
"""Different radiographs among all that `write_radiographs` writes."""
SIDE = 3000
"""Width and height of the radiographs that boxes are drawn on, in pixels."""


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
        convert("vinbig", raw / "vinbig", data_path, image_size=image_size, n_folds=2, n_workers=n_workers)
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


def draw_pixels(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """(height, width) float32 from 0 to 1: smooth anatomy, ribs, noise, a side marker, a collimator's edge."""
    y, x = np.mgrid[-1 : 1 : complex(height), -1 : 1 : complex(width)].astype(np.float32)
    shade = 2300 - 900 * np.exp(-(((abs(x) - 0.45) / 0.3) ** 2) - ((y + 0.1) / 0.62) ** 2)
    shade += 160 * np.sin(22 * (y + 0.35 * abs(x) + rng.uniform(0, 1))) * (abs(x) < 0.85)
    shade += 900 * np.exp(-(((x - 0.12) / 0.3) ** 2) - ((y - 0.35) / 0.33) ** 2) - 1500 * (abs(x) > 0.93)
    shade += rng.normal(0, 60, (height, width)).astype(np.float32)
    shade[: height // 12, : width // 8] = 4095
    shade[-height // 40 :] = 0
    return shade.clip(0, 4095) / np.float32(4095)


def write_dicom(path: Path, pixels: np.ndarray, monochrome1: bool, rng: np.random.Generator) -> None:
    """Writes an uncompressed DICOM file of 12 bits with a window. pixels: (height, width) float32 in 0–1, as shown."""
    storage = Storage(12, monochrome1, True, ExplicitVRLittleEndian, computed=False)
    save_dicom(dicom_of(pixels, storage, path.stem, 0.15, "F", 50, "PA", rng), path)


def write_radiographs(folder: Path, n_images: int, image_size: int) -> None:
    """Writes VinBigData's layout: DICOM files and train.csv with the rows of three readers, half of them without boxes.

    image_size: the longer side is a fifth more than this, in pixels.
    """
    (folder / "train").mkdir(parents=True)
    height, width = round(1.2 * image_size), image_size
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(N_PICTURES):
        path = folder / "train" / f"{number:06d}.dicom"
        write_dicom(path, draw_pixels(width, height, rng), False, rng)
        pictures.append(path.read_bytes())
        path.unlink()
    readers = ("R1", "R2", "R3")
    rows = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    for number in range(n_images):
        name = f"{number:06d}"
        (folder / "train" / f"{name}.dicom").write_bytes(pictures[number % N_PICTURES])
        if number % 2:
            rows += [f"{name},{NO_FINDING_NAME},{NO_FINDING},{reader},,,," for reader in readers]
            continue
        for finding in (number % len(FINDINGS), (number // 2) % len(FINDINGS)):
            x, y = rng.integers(0, width // 2, 2).tolist()
            side = width // 3
            rows += [
                f"{name},{FINDINGS[finding]},{finding},{reader},{x + shift},{y},{x + shift + side},{y + side}"
                for shift, reader in enumerate(readers)
            ]
    (folder / "train.csv").write_text("\n".join(rows) + "\n")


def draw_labels(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) categories from 1 on, as unequal as findings are."""
    categories = np.arange(1, len(FINDINGS) + 1)
    frequency = categories**-0.7
    return rng.choice(categories, n, p=frequency / frequency.sum())


def draw_places(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 4) boxes x1, y1, x2, y2 anywhere on a radiograph of `SIDE` pixels."""
    corner = rng.uniform(0, 0.67 * SIDE, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(0.02 * SIDE, 0.24 * SIDE, (n, 2))], axis=1)
