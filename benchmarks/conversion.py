"""From DICOM files to a dataset's canvases: the files, our way and the usual recipe.

Both do a converter's whole work on a file: read it, make it display grey, bring its longer side to `size` pixels, and
put it where training reads it (a row of images.npy here, a PNG there).
"""

import functools
import multiprocessing
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import apply_voi_lut
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from benchmarks.timing import Timing, timed, timed_stream
from xray.datasets.journal import Journal
from xray.radiographs.decoding import Decoded, decode_canvas, decode_canvases
from xray.radiographs.radiograph import RadiographError

WINDOW = (400, 3600)
"""Lowest and highest stored value that the window shows as a grey of its own."""


def write_files(folder: Path, n_images: int, width: int, height: int, seed: int = 0) -> list[Path]:
    """Writes uncompressed radiographs, 12 bits in 16, half of them MONOCHROME1, with a window; returns their paths."""
    paths = []
    for number in range(n_images):
        pixels = draw_pixels(width, height, np.random.default_rng((seed, number)))
        path = folder / f"{number:03d}.dicom"
        write_dicom(path, pixels, "MONOCHROME1" if number % 2 else "MONOCHROME2")
        paths.append(path)
    return paths


def draw_pixels(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """(height, width) uint16 of 12 bits: smooth anatomy, ribs, noise, and both ends of the window reached."""
    y, x = np.mgrid[-1 : 1 : complex(height), -1 : 1 : complex(width)].astype(np.float32)
    shade = 2300 - 900 * np.exp(-(((abs(x) - 0.45) / 0.3) ** 2) - ((y + 0.1) / 0.62) ** 2)
    shade += 160 * np.sin(22 * (y + 0.35 * abs(x) + rng.uniform(0, 1))) * (abs(x) < 0.85)
    shade += 900 * np.exp(-(((x - 0.12) / 0.3) ** 2) - ((y - 0.35) / 0.33) ** 2) - 1500 * (abs(x) > 0.93)
    shade += rng.normal(0, 60, (height, width)).astype(np.float32)
    shade[: height // 12, : width // 8] = 4000  # a side marker
    shade[-height // 40 :] = 0  # the collimator's edge
    return shade.clip(0, 4095).astype(np.uint16)


def write_dicom(path: Path, pixels: np.ndarray, photometric: str) -> None:
    """Writes an uncompressed DICOM file. pixels: (height, width) uint16 of 12 bits. They end the file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.WindowCenter, dataset.WindowWidth = (WINDOW[0] + WINDOW[1]) / 2, WINDOW[1] - WINDOW[0]
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)


def usual_recipe(path: Path, size: int) -> np.ndarray:
    """The recipe of most notebooks → (h, w) uint8, the longer side `size`: pydicom, apply_voi_lut, min-max, PIL."""
    dataset = pydicom.dcmread(path)
    values = apply_voi_lut(dataset.pixel_array, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = values.max() - values
    values = values - values.min()
    grey = (values / values.max() * 255).astype(np.uint8)
    scale = size / max(grey.shape)
    shape = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    return np.asarray(Image.fromarray(grey).resize(shape, Image.Resampling.LANCZOS))


def convert_usually(path: Path, size: int, folder: Path) -> None:
    """Writes one file's PNG."""
    Image.fromarray(usual_recipe(path, size)).save(folder / f"{path.stem}.png")


def time_ours(paths: Sequence[Path], size: int, folder: Path) -> Timing:
    """Our conversion in this process."""

    def work() -> int:
        return sum(1 for _ in _stream_ours(paths, size, folder, n_workers=0))

    return timed(work)


def time_usual(paths: Sequence[Path], size: int, folder: Path) -> Timing:
    """The usual recipe in this process."""

    def work() -> int:
        for path in paths:
            convert_usually(path, size, folder)
        return len(paths)

    return timed(work)


def time_ours_parallel(paths: Sequence[Path], size: int, folder: Path, n_workers: int) -> Timing:
    """Our conversion with `n_workers` processes, without the time they take to start."""
    return timed_stream(_stream_ours(paths, size, folder, n_workers), 2 * n_workers)


def time_usual_parallel(paths: Sequence[Path], size: int, folder: Path, n_workers: int) -> Timing:
    """The usual recipe in a multiprocessing.Pool of `n_workers` processes, without the time they take to start."""
    with multiprocessing.get_context("forkserver").Pool(n_workers) as pool:
        work = functools.partial(convert_usually, size=size, folder=folder)
        return timed_stream(pool.imap(work, paths), 2 * n_workers)


def _stream_ours(paths: Sequence[Path], size: int, folder: Path, n_workers: int) -> Iterator[None]:
    # What xray.datasets.conversion does with pixels, its journal and its syncs to the disk included.
    with Journal(folder, size, {"benchmark": "convert"}, discard=True) as journal:
        for outcome in decode_canvases(paths, size, n_workers):
            if not isinstance(outcome, Decoded):
                raise RadiographError(f"{outcome.path.name}: {outcome.reason}")
            journal.add(outcome.canvas, outcome.width, outcome.height)
            yield
        finished = journal.complete()
    # The next run starts from nothing, as a conversion does.
    for path in (finished, *folder.glob("conversion.*")):
        path.unlink()


def differences(paths: Sequence[Path], size: int) -> list[float]:
    """Per file, the mean absolute difference between the two ways' pictures, in grey levels of 255.

    The recipe's min-max is applied to ours as well; the rest comes from the resampling filters (area and Lanczos) and
    from rounding.
    """
    found = []
    for path in paths:
        decoded = decode_canvas(0, path, size)
        usual = usual_recipe(path, size).astype(np.float64)
        left, top = (size - usual.shape[1]) // 2, (size - usual.shape[0]) // 2
        ours = decoded.canvas[top : top + usual.shape[0], left : left + usual.shape[1]].astype(np.float64)
        ours = (ours - ours.min()) / max(ours.max() - ours.min(), 1) * 255
        found.append(float(np.abs(ours - usual).mean()))
    return found


def one_thread() -> None:
    """Keeps OpenCV to one thread; the usual recipe has no threads of its own."""
    cv2.setNumThreads(1)
