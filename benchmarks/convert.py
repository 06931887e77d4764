"""Benchmark `convert`: images per second from DICOM file to training data, against what most notebooks do."""

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import reports
from xray.errors import InputError

CLOSE_ENOUGH = 2.0
"""Grey levels of 255 by which the two ways' pictures of our own files may differ on average."""


@dataclasses.dataclass(frozen=True)
class Convert:
    """Images per second from DICOM file to training data: ours against pydicom, apply_voi_lut, PIL and PNG."""

    data_path: Path | None = None
    """Folder of DICOM files; without it, uncompressed 12-bit files are made and thrown away afterwards."""

    n_images: int = 12
    """Number of files."""

    repeats: int = 5
    """Number of measured rounds; one more goes before them and is not counted."""

    width: int = 2304
    """Of the files made, in pixels."""

    height: int = 2880
    """Of the files made, in pixels."""

    image_size: int = 1024
    """Longer side of the converted images, in pixels."""

    n_workers: int = 0
    """Processes of the parallel measurement; 0 is one a core, 1 measures on one core only."""

    save_path: Path | None = None
    """JSON file for the numbers."""

    debug: bool = False
    """Show the traceback of an error."""


def benchmark_conversion(config: Convert) -> None:
    """Measures, prints a table and writes the JSON file."""
    reports.check_at_least(config, n_images=1, repeats=1, width=64, height=64, image_size=32, n_workers=0)
    reports.check_save_path(config.save_path)
    with tempfile.TemporaryDirectory(prefix="xray-benchmark-") as folder:
        report = measure_conversion(config, Path(folder))
    show_conversion(report)
    reports.save_report(config.save_path, report)


def measure_conversion(config: Convert, folder: Path) -> dict[str, Any]:
    """Runs the conversion benchmark in `folder` and returns all its numbers.

    Raises InputError if there are no files to convert, one cannot be read, or the two ways' pictures of our own files
    are not the same.
    """
    from pydicom.misc import is_dicom
    from rich.console import Console
    from rich.progress import Progress

    from benchmarks import conversion, timing
    from xray.radiographs.radiograph import find_radiographs

    source, pngs, store = (folder / name for name in ("dicom", "png", "store"))
    for path in (source, pngs, store):
        path.mkdir()
    if config.data_path is not None:
        paths = [path for path in find_radiographs(config.data_path) if is_dicom(path)][: config.n_images]
        if not paths:
            raise InputError(f"no DICOM file in {config.data_path}: leave --data-path out to have some made")
    n_workers = config.n_workers or timing.n_cores()
    conversion.one_thread()
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        steps = (2 if n_workers > 1 else 1) * 2 * (config.repeats + 1)
        task = progress.add_task("preparing the files", total=steps)
        if config.data_path is None:
            paths = conversion.write_files(source, config.n_images, config.width, config.height)
        differences = conversion.differences(paths, config.image_size)
        if config.data_path is None and max(differences) > CLOSE_ENOUGH:
            raise InputError(
                f"the two ways' pictures differ by {max(differences):.1f} grey levels: they do not do the same work, "
                "so there is nothing to compare (a bug: please report it)"
            )

        # With several processes, a longer list: what they have under way at its ends must not weigh.
        repeated = (paths * -(-20 * n_workers // len(paths)))[: max(len(paths), 20 * n_workers)]
        report: list[dict[str, Any]] = []
        for cores, work, ours, usual in (
            (1, paths, conversion.time_ours, conversion.time_usual),
            (n_workers, repeated, conversion.time_ours_parallel, conversion.time_usual_parallel),
        )[: 1 if n_workers == 1 else 2]:
            progress.update(task, description=f"measuring on {cores} core{'s' if cores > 1 else ''}")
            more = {} if cores == 1 else {"n_workers": cores}
            timings = timing.alternate(
                {
                    "ours": functools.partial(ours, work, config.image_size, store, **more),
                    "usual": functools.partial(usual, work, config.image_size, pngs, **more),
                },
                config.repeats,
                functools.partial(progress.advance, task),
            )
            entry: dict[str, Any] = {"cores": cores, "images": timings["ours"][0].n}
            for name, runs in timings.items():
                entry[name] = {
                    "images_per_second": dataclasses.asdict(timing.Spread.of([run.rate for run in runs])),
                    "seconds": [run.seconds for run in runs],
                }
                if cores == 1:
                    entry[name]["cpu_seconds"] = [run.cpu_seconds for run in runs]
            entry["ratio"] = dataclasses.asdict(timing.ratio(timings, "ours", "usual"))
            report.append(entry)
    return {
        "benchmark": "convert",
        "files": "own" if config.data_path is None else str(config.data_path),
        "parameters": {
            name: getattr(config, name) for name in ("n_images", "repeats", "width", "height", "image_size")
        },
        "mean_absolute_difference": differences,
        "results": report,
        **reports.surroundings(["numpy", "pydicom", "pillow", "opencv-python-headless", "opencv-python"]),
    }


def show_conversion(report: dict[str, Any]) -> None:
    """Prints the numbers of `measure_conversion` as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="DICOM file to training data, images/s: median (lowest-highest)")
    for name in ("cores", "usual recipe", "ours", "ratio"):
        table.add_column(name, justify="right")
    for entry in report["results"]:
        usual, ours = (reports.spread_text(entry[name]["images_per_second"]) for name in ("usual", "ours"))
        table.add_row(str(entry["cores"]), usual, ours, reports.spread_text(entry["ratio"]))
    console = Console(highlight=False)
    console.print(table)
    # Wall-clock time also measures what else the machine does; processor time does not.
    ours, usual = (sum(report["results"][0][name]["cpu_seconds"]) for name in ("ours", "usual"))
    n = report["results"][0]["images"] * report["parameters"]["repeats"]
    console.print(
        f"processor time an image on one core: usual recipe {1000 * usual / n:.0f} ms, ours {1000 * ours / n:.0f} ms, "
        f"ratio {usual / ours:.2f}",
        soft_wrap=True,
    )
    parameters = report["parameters"]
    differences = report["mean_absolute_difference"]
    files = f"{len(differences)} files"
    if report["files"] == "own":
        files += f", {parameters['width']} x {parameters['height']}, uncompressed, 12 bits"
    console.print(
        f"{files}; the pictures differ by {max(differences):.2f} of 255 grey levels on average at most", soft_wrap=True
    )
    console.print(reports.surroundings_text(report), soft_wrap=True)
