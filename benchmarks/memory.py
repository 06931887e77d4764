"""Benchmark `memory`: how time and memory of the commands grow with the number of radiographs."""

import dataclasses
import itertools
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import reports
from xray.errors import FlagError


@dataclasses.dataclass(frozen=True)
class Memory:
    """Time and peak memory of conversion, one epoch of training, inference and evaluation as the data grow.

    The real commands with a tiny network on small radiographs, each in processes of its own. Each should take time in
    proportion to the radiographs (exponent 1) and memory that does not depend on them.
    """

    n_images: tuple[int, ...] = (100, 1000, 10000)
    """Numbers of radiographs, ascending; three or more for the exponents."""
    image_size: int = 64
    """Side of the canvas, in pixels; the files made are a little larger."""
    batch_size: int = 16
    """Radiographs per step and per pass."""
    n_workers: int = 2
    """Processes beside the main one."""
    device: str = "cpu"
    """auto (CUDA where there is one), cpu or cuda."""
    stages: tuple[str, ...] = ("convert", "train", "infer", "evaluate")
    """Of these, which to run; each needs those before it."""
    save_path: Path | None = None
    """JSON file for the numbers; beside it goes the figure, a PNG of the same name."""
    debug: bool = False
    """Show the traceback of an error."""


def benchmark_growth(config: Memory) -> None:
    """Measures, prints a table, and writes the JSON file and the figure."""
    check(config)
    report = measure_growth(config)
    show_growth(report)
    reports.save_report(config.save_path, report)
    if config.save_path is not None:
        from benchmarks.growth import draw

        draw(report, config.save_path.with_suffix(".png"))


def check(config: Memory) -> None:
    """Raises FlagError if a value is out of range, InputError if there is nowhere to write."""
    from benchmarks.growth import COMMANDS

    reports.check_at_least(config, image_size=32, batch_size=1, n_workers=0)
    numbers = config.n_images
    if len(numbers) < 2 or any(b <= a for a, b in itertools.pairwise(numbers)) or numbers[0] < 20:
        raise FlagError(f"--n-images is {' '.join(map(str, numbers))}: give two or more numbers from 20 on, ascending")
    if config.stages != tuple(COMMANDS)[: len(config.stages)] or not config.stages:
        raise FlagError(f"--stages is {' '.join(config.stages)}: give the first of {', '.join(COMMANDS)}")
    reports.check_save_path(config.save_path)


def measure_growth(config: Memory) -> dict[str, Any]:
    """Runs all stages at all sizes and returns all their numbers.

    Raises InputError if a stage fails, or the system does not tell how much memory processes hold.
    """
    from rich.console import Console

    from benchmarks import growth

    results: dict[str, list[dict[str, Any]]] = {stage: [] for stage in config.stages}
    with Console(stderr=True).status("") as status:
        for n in config.n_images:
            with tempfile.TemporaryDirectory(prefix="xray-benchmark-") as name:
                folder = Path(name)
                status.update(f"{n} radiographs: writing them")
                growth.write_radiographs(folder / "raw", n, config.image_size)
                for stage in config.stages:
                    status.update(f"{n} radiographs: {stage}")
                    usage = growth.run(growth.COMMANDS[stage](config, folder))
                    results[stage].append({"n_images": n, **dataclasses.asdict(usage)})
    return {
        "benchmark": "memory",
        "parameters": {
            name: getattr(config, name) for name in ("n_images", "image_size", "batch_size", "n_workers", "device")
        },
        "results": results,
        "growth": {stage: growth.fit(rows) for stage, rows in results.items()},
        **reports.surroundings(["torch", "torchvision", "lightning", "pydicom"]),
    }


def show_growth(report: dict[str, Any]) -> None:
    """Prints the numbers of `measure_growth` as two tables."""
    from rich.table import Table

    console = reports.printer()
    table = Table(title="Time and peak memory by the number of radiographs")
    for name in ("", "radiographs", "seconds", "processor s", "memory held, MiB", "with mapped files, MiB"):
        table.add_column(name, justify="right" if name else "left")
    for stage, rows in report["results"].items():
        for number, row in enumerate(rows):
            table.add_row(
                "" if number else stage,
                f"{row['n_images']:,}",
                f"{row['seconds']:.1f}",
                f"{row['cpu_seconds']:.1f}",
                f"{row['held'] / 2**20:.0f}",
                f"{row['resident'] / 2**20:.0f}",
                end_section=number == len(rows) - 1,
            )
    console.print(table)
    table = Table(title="Growth")
    for name in ("", "seconds a 1,000", "exponent", "of processor time", "memory held, KiB a radiograph"):
        table.add_column(name, justify="right" if name else "left")
    for stage, found in report["growth"].items():
        exponents = [found["exponent"], found["cpu_exponent"]]
        table.add_row(
            stage,
            f"{1000 * found['seconds_per_image']:.1f}",
            *("" if exponent is None else f"{exponent:.2f}" for exponent in exponents),
            f"{found['held_per_image'] / 1024:.2f}",
        )
    console.print(table)
    parameters = report["parameters"]
    console.print(
        f"canvases of {parameters['image_size']} pixels, batches of {parameters['batch_size']}, "
        f"{parameters['n_workers']} workers, on {parameters['device']}; the exponent is that of time beyond the "
        "smallest number's in radiographs beyond it: 1 is linear",
        soft_wrap=True,
    )
    console.print(reports.surroundings_text(report), soft_wrap=True)
