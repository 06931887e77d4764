"""Benchmark `load`: radiographs per second into the training loop, against PNG files and torchvision's transforms."""

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import reports

TITLES = {
    "png": "PNG files",
    "ours": "ours",
    "augmented": "ours, --augment light",
    "device": "ours, light, on the device",
    "stored": "ours, light and stored on the device",
}


@dataclasses.dataclass(frozen=True)
class Load:
    """Radiographs per second from disk to batches: ours against PNG files, a DataLoader and torchvision's transforms.

    Ours are batches of one byte a pixel; theirs lists of three float32 a pixel, as its detectors take them. Ours are
    also augmented, by the workers or a batch at a time on --device (xray/train.py --augment-on), and there with the
    canvases kept on it (--store-device).
    """

    data_path: Path | None = None
    """Dataset directory of tools/convert.py; without it, phantoms are drawn and thrown away afterwards."""
    n_images: int = 32
    """Radiographs: of the dataset the first ones."""
    repeats: int = 5
    """Number of measured rounds; one more goes before them and is not counted."""
    image_size: int = 1024
    """Side of the canvas of phantoms, in pixels."""
    batch_size: int = 8
    """Radiographs per batch."""
    n_workers: int = 0
    """Processes of the parallel measurement; 0 is one a core, 1 measures on one core only."""
    device: str = "auto"
    """Where the batches go: auto (CUDA where there is one), cpu or cuda."""
    save_path: Path | None = None
    """JSON file for the numbers."""
    debug: bool = False
    """Show the traceback of an error."""


def benchmark_loading(config: Load) -> None:
    """Measures, prints a table and writes the JSON file."""
    reports.check_at_least(config, n_images=4, repeats=1, image_size=32, batch_size=1, n_workers=0)
    reports.check_save_path(config.save_path)
    with tempfile.TemporaryDirectory(prefix="xray-benchmark-") as folder:
        report = measure_loading(config, Path(folder))
    show_loading(report)
    reports.save_report(config.save_path, report)


def measure_loading(config: Load, folder: Path) -> dict[str, Any]:
    """Runs the benchmark in `folder` and returns all its numbers.

    Raises InputError if there is no dataset, or the two ways do not give the same pixels and boxes.
    """
    from rich.console import Console
    from rich.progress import Progress

    from benchmarks import loading, timing
    from benchmarks.material import open_material, write_pngs
    from xray.models.device import resolve_device

    device = resolve_device(config.device)
    loading.one_thread()
    n_workers = config.n_workers or timing.n_cores()
    runs = (0,) if n_workers == 1 else (0, n_workers)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("preparing the files", total=len(runs) * len(TITLES) * (config.repeats + 1))
        store, rows = open_material(config.data_path, folder, config.n_images, config.image_size, n_workers)
        ways = loading.Ways(store, rows, write_pngs(store, rows, folder / "png"), config.batch_size, device)
        ways.check()
        results = []
        for workers in runs:
            progress.update(task, description=f"measuring with {workers or 1} processes")
            timings = timing.alternate(
                {name: functools.partial(ways.time, name, workers) for name in TITLES},
                config.repeats,
                functools.partial(progress.advance, task),
            )
            entry: dict[str, Any] = {"processes": workers or 1, "images": timings["ours"][0].n}
            for name, measured in timings.items():
                entry[name] = {
                    "images_per_second": dataclasses.asdict(timing.Spread.of([run.rate for run in measured])),
                    "seconds": [run.seconds for run in measured],
                }
                if not workers:
                    entry[name]["cpu_seconds"] = [run.cpu_seconds for run in measured]
                if name != "png":
                    entry[name]["ratio"] = dataclasses.asdict(timing.ratio(timings, name, "png"))
            results.append(entry)
    return {
        "benchmark": "load",
        "data": "phantoms" if config.data_path is None else str(config.data_path),
        "parameters": {
            "n_images": config.n_images,
            "repeats": config.repeats,
            "image_size": store.canvas_size,
            "batch_size": config.batch_size,
            "device": device.type,
        },
        "bytes_per_image": ways.bytes_per_image,
        "results": results,
        **reports.surroundings(["numpy", "torch", "torchvision", "pillow", "albumentations"], device),
    }


def show_loading(report: dict[str, Any]) -> None:
    """Prints the numbers of `measure_loading` as a table."""
    from rich.table import Table

    table = Table(title="Radiographs into the training loop, images/s: median (lowest-highest)")
    for name in ("processes", "", "images/s", "ratio", "processor ms"):
        table.add_column(name, justify="left" if not name else "right")
    for entry in report["results"]:
        for name, title in TITLES.items():
            own = entry[name]
            cpu = ""
            if "cpu_seconds" in own:
                # Wall-clock time also measures what else the machine does; processor time does not.
                cpu = f"{1000 * sum(own['cpu_seconds']) / (entry['images'] * len(own['cpu_seconds'])):.1f}"
            ratio = reports.spread_text(own["ratio"]) if "ratio" in own else ""
            table.add_row(str(entry["processes"]), title, reports.spread_text(own["images_per_second"]), ratio, cpu)
    console = reports.printer()
    console.print(table)
    parameters, size = report["parameters"], report["bytes_per_image"]
    console.print(
        f"{parameters['n_images']} radiographs of {parameters['image_size']} pixels, batches of "
        f"{parameters['batch_size']}; bytes an image: ours {size['ours']}, PNG files {size['png']}; the pixels and "
        "boxes of both are the same",
        soft_wrap=True,
    )
    console.print(reports.surroundings_text(report), soft_wrap=True)
