"""Benchmark `convert`: images per second from DICOM file to training data, against what most notebooks do.

Both do a converter's whole work on a file: read it, make it display grey, bring its longer side to `image_size` pixels,
and put it where training reads it (a row of images.npy here, a PNG there).
"""

import dataclasses
import functools
import multiprocessing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import pydicom
from annotated_types import Interval
from PIL import Image
from pydicom.misc import is_dicom
from pydicom.pixels import apply_voi_lut
from rich.table import Table

from benchmarks import harness
from benchmarks.harness import Timing, timed, timed_stream
from benchmarks.material import draw_pixels, write_dicom
from xray.datasets.journal import Journal
from xray.errors import InputError
from xray.flags import Count, Processes
from xray.radiographs.decoding import Decoded, decode_canvas, decode_canvases
from xray.radiographs.radiograph import RadiographError, find_radiographs

LARGEST_DIFFERENCE = 2.0
"""Grey levels of 255 by which the two ways' pictures of our own files may differ on average."""

Side = Annotated[int, Interval(ge=64, le=20_000)]


@dataclasses.dataclass(frozen=True)
class Config(harness.Flags):
    """Images per second from DICOM file to training data: ours against pydicom, apply_voi_lut, PIL and PNG."""

    data_path: Path | None = None
    """Folder of DICOM files; without it, uncompressed 12-bit files are made and thrown away afterwards."""
    n_images: Count = 12
    """Number of files."""
    repeats: Count = 5
    """Number of measured rounds; one more goes before them and is not counted."""
    width: Side = 2304
    """Of the files made, in pixels."""
    height: Side = 2880
    """Of the files made, in pixels."""
    image_size: harness.ImageSize = 1024
    """Longer side of the converted images, in pixels."""
    n_workers: Processes = 0
    """Processes of the parallel measurement; 0 is one a core, 1 measures on one core only."""


def main(config: Config) -> None:
    """Measures, prints a table and writes the JSON file."""
    packages = ["numpy", "pydicom", "pillow", "opencv-python-headless", "opencv-python"]
    harness.benchmark("convert", config, measure, show, packages)


def measure(config: Config, folder: Path, tell: harness.Tell) -> dict[str, Any]:
    """Runs the benchmark in `folder` and returns all its numbers.

    Raises InputError if there are no files to convert, one cannot be read, or the two ways' pictures of our own files
    are not the same.
    """
    if config.data_path is None:
        paths = write_files(folder, config.n_images, config.width, config.height)
    else:
        paths = [path for path in find_radiographs(config.data_path) if is_dicom(path)][: config.n_images]
        if not paths:
            raise InputError(f"no DICOM file in {config.data_path}: leave --data-path out to have some made")
    cv2.setNumThreads(1)  # the usual recipe has no threads of its own
    largest = max(differences(paths, config.image_size))
    if config.data_path is None and largest > LARGEST_DIFFERENCE:
        raise harness.refuse(f"the two ways' pictures differ by {largest:.1f} grey levels")
    n_workers = config.n_workers or harness.n_cores()
    entries = []
    for cores in dict.fromkeys((1, n_workers)):
        # With several processes, a longer list: what they have under way at its ends must not weigh.
        n = len(paths) if cores == 1 else max(len(paths), 20 * cores)
        work = (paths * -(-n // len(paths)))[:n]
        contenders = {
            name: functools.partial(time_way, work, config.image_size, folder, cores) for name, time_way in WAYS.items()
        }
        timings = harness.alternate(contenders, config.repeats, tell)
        entries.append(harness.entry(f"{cores}", timings, [("ours", "usual")]))
    return {"n_files": len(paths), "largest_mean_difference": largest, "results": entries}


def show(report: dict[str, Any]) -> list[Table | str]:
    """The numbers of `measure` as a table."""
    titles = {"usual": "usual recipe"}
    return [
        harness.table_of(report["results"], "DICOM file to training data, by cores", titles),
        f"the pictures differ by {report['largest_mean_difference']:.2f} of 255 grey levels on average at most; of "
        "several cores, the processor time is that of the main process and of those that have ended",
    ]


def write_files(folder: Path, n_images: int, width: int, height: int, seed: int = 0) -> list[Path]:
    """Writes uncompressed radiographs, 12 bits in 16, half of them MONOCHROME1, with a window; returns their paths."""
    paths = [folder / f"{number:03d}.dicom" for number in range(n_images)]
    for number, path in enumerate(paths):
        rng = np.random.default_rng((seed, number))
        write_dicom(path, draw_pixels(width, height, rng), number % 2 == 1, rng)
    return paths


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


def time_usual(paths: Sequence[Path], size: int, folder: Path, cores: int) -> Timing:
    """The usual recipe here, or in a pool of `cores` processes without the time they take to start."""
    work = functools.partial(convert_usually, size=size, folder=folder)
    if cores == 1:
        return timed(len(paths), lambda: list(map(work, paths)))
    with multiprocessing.get_context("forkserver").Pool(cores) as pool:
        return timed_stream(pool.imap(work, paths), 2 * cores)


def time_ours(paths: Sequence[Path], size: int, folder: Path, cores: int) -> Timing:
    """Our conversion here, or with `cores` processes without the time they take to start."""
    if cores == 1:
        return timed_stream(_converted(paths, size, folder, 0), 0)
    return timed_stream(_converted(paths, size, folder, cores), 2 * cores)


def _converted(paths: Sequence[Path], size: int, folder: Path, n_workers: int) -> Iterator[None]:
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


WAYS = {"ours": time_ours, "usual": time_usual}


def differences(paths: Sequence[Path], size: int) -> list[float]:
    """Per file, the mean absolute difference between the two ways' pictures, in grey levels of 255.

    The recipe's min-max is applied to ours as well; the rest comes from the resampling filters (area and Lanczos) and
    from rounding.
    """
    means = []
    for path in paths:
        decoded = decode_canvas(0, path, size)
        usual = usual_recipe(path, size).astype(np.float64)
        left, top = (size - usual.shape[1]) // 2, (size - usual.shape[0]) // 2
        ours = decoded.canvas[top : top + usual.shape[0], left : left + usual.shape[1]].astype(np.float64)
        ours = (ours - ours.min()) / max(ours.max() - ours.min(), 1) * 255
        means.append(float(np.abs(ours - usual).mean()))
    return means
