"""Benchmark `memory`: how time and memory of the commands grow with the number of radiographs."""

import dataclasses
import itertools
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks import harness
from benchmarks.material import write_radiographs
from benchmarks.processes import memory_of_session, started
from xray.errors import FlagError, InputError
from xray.files import complete
from xray.flags import Processes

INTERVAL = 0.1
"""Seconds between two measurements of the memory."""
STAGES = ("convert", "train", "infer", "evaluate")


@dataclasses.dataclass(frozen=True)
class Config(harness.Flags):
    """Time and peak memory of conversion, one epoch of training, inference and evaluation as the data grow.

    The real commands with a tiny network on small radiographs, each in processes of its own. Each should take time in
    proportion to the radiographs (exponent 1) and memory that does not depend on them. Beside the JSON file goes the
    figure, a PNG of the same name.
    """

    n_images: tuple[int, ...] = (100, 1000, 10000)
    """Numbers of radiographs, ascending; three or more for the exponents."""
    image_size: harness.ImageSize = 64
    """Side of the canvas, in pixels; the files made are a little larger."""
    batch_size: harness.BatchSize = 16
    """Radiographs per step and per pass."""
    n_workers: Processes = 2
    """Processes beside the main one."""
    device: str = "cpu"
    """auto (CUDA where there is one), cpu or cuda."""


def main(config: Config) -> None:
    """Measures, prints a table, and writes the JSON file and the figure."""
    numbers = config.n_images
    if len(numbers) < 2 or any(b <= a for a, b in itertools.pairwise(numbers)) or numbers[0] < 20:
        raise FlagError(f"--n-images is {' '.join(map(str, numbers))}: give two or more numbers from 20 on, ascending")
    report = harness.benchmark("memory", config, measure, show, ["torch", "torchvision", "lightning", "pydicom"])
    if config.save_path is not None:
        draw(report, config.save_path.with_suffix(".png"))


def measure(config: Config, folder: Path, tell: harness.Tell) -> dict[str, Any]:
    """Runs all stages at all sizes and returns all their numbers.

    Raises InputError if a stage fails, or the system does not tell how much memory processes hold.
    """
    results: dict[str, list[dict[str, Any]]] = {stage: [] for stage in STAGES}
    for n in config.n_images:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            tell(f"{n} radiographs: writing them")
            write_radiographs(Path(name) / "raw", n, config.image_size)
            for stage in STAGES:
                tell(f"{n} radiographs: {stage}")
                results[stage].append({"n_images": n, **run(command_of(stage, config, name))})
    return {"results": results, "growth": {stage: fit(rows) for stage, rows in results.items()}}


def show(report: dict[str, Any]) -> list[Table | str]:
    """The numbers of `measure` as two tables."""
    columns = ["", "radiographs", "seconds", "processor s", "memory held, MiB", "with mapped files, MiB"]
    rows = [
        [
            stage,
            f"{row['n_images']:,}",
            *(f"{row[name]:.1f}" for name in ("seconds", "cpu_seconds")),
            *(f"{row[name] / 2**20:.0f}" for name in ("held", "resident")),
        ]
        for stage, measured in report["results"].items()
        for row in measured
    ]
    growth = [
        [
            stage,
            f"{1000 * each['seconds_per_image']:.1f}",
            *("" if (value := each[name]) is None else f"{value:.2f}" for name in ("exponent", "cpu_exponent")),
            f"{each['held_per_image'] / 1024:.2f}",
        ]
        for stage, each in report["growth"].items()
    ]
    return [
        harness.table("Time and peak memory by the number of radiographs", columns, rows),
        harness.table(
            "Growth", ["", "seconds a 1,000", "exponent", "of processor time", "memory held, KiB a radiograph"], growth
        ),
        "the exponent is that of time beyond the smallest number's in radiographs beyond it: 1 is linear",
    ]


def command_of(stage: str, config: Config, folder: str) -> list[str]:
    """The command of a stage, which reads what those before it wrote to `folder`."""
    workers, batch = f"--n-workers={config.n_workers}", f"--batch-size={config.batch_size}"
    data, device = f"--data-path={folder}/data", f"--device={config.device}"
    return {
        "convert": [
            "tools/convert.py", "vinbig", f"--data-path={folder}/raw", f"--save-path={folder}/data",
            f"--image-size={config.image_size}", workers,
        ],
        "train": [
            "xray/train.py", data, f"--save-path={folder}/run", device, batch, workers, "--n-epochs=1", "--normals=1",
            "--weights=none", "--backbone=mobilenet_v2", "--fpn-channels=16", "--rpn-samples=32", "--roi-samples=8",
            "--proposals=32", "--max-detections=10", "--n-pictures=0", "--lr=0.001",
        ],
        "infer": [
            "tools/infer.py", f"--weights={folder}/run", f"--data-path={folder}/raw/train",
            f"--save-path={folder}/predictions", device, batch, workers, "--no-tta",
        ],
        "evaluate": [
            "tools/evaluate.py", f"--predictions={folder}/predictions/predictions.json", data,
            f"--save-path={folder}/report",
        ],
    }[stage]  # fmt: skip


def run(command: Sequence[str]) -> dict[str, Any]:
    """Runs a Python command of the repository, its path first, and watches all its processes.

    Returns `seconds`, `cpu_seconds` of processor time, `held`, the most bytes of memory held at once, and `resident`,
    both as in `memory_of_session`. Raises InputError if it fails, or on a system without Linux's /proc.
    """
    before, start = harness.seconds_of_children(), time.perf_counter()
    held = resident = 0
    with started(command) as (process, last_line):
        while process.poll() is None:
            now = memory_of_session(process.pid)
            held, resident = max(held, now[0]), max(resident, now[1])
            time.sleep(INTERVAL)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise InputError(f"{command[0]} ended with status {process.returncode}: {last_line()}")
    cpu_seconds = harness.seconds_of_children() - before
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "held": held, "resident": resident}


def fit(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """How time and memory grow over rows of `run` with `n_images`, ascending.

    exponent, cpu_exponent: p of the least-squares line through log(t − t₀) over log(n − n₀), the first row being 0, so
    that what a command takes to start does not count; None below three rows, or where time did not grow.
    seconds_per_image, held_per_image: between the first row and the last.
    """
    numbers = np.array([row["n_images"] for row in rows], dtype=np.float64)
    growth: dict[str, float | None] = {}
    for name, column in (("exponent", "seconds"), ("cpu_exponent", "cpu_seconds")):
        more = np.array([row[column] for row in rows[1:]]) - rows[0][column]
        growth[name] = None
        if len(more) > 1 and (more > 0).all():
            growth[name] = float(np.polyfit(np.log(numbers[1:] - numbers[0]), np.log(more), 1)[0])
    for name, column in (("seconds_per_image", "seconds"), ("held_per_image", "held")):
        growth[name] = (rows[-1][column] - rows[0][column]) / (numbers[-1] - numbers[0])
    return growth


def draw(report: dict[str, Any], path: Path) -> None:
    """Writes the figure: time and memory over the number of radiographs, both axes logarithmic."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    results = report["results"]
    figure = Figure(figsize=(8.4, 3.9), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, column, scale, label in (
        (panels[0], "seconds", 1, "seconds"),
        (panels[1], "held", 2**20, "peak memory held, MiB"),
    ):
        # Colours that any colour vision tells apart, and a marker each.
        for (stage, rows), colour, marker in zip(
            results.items(), ("#0072B2", "#D55E00", "#009E73", "#6B4C9A"), "osD^", strict=False
        ):
            numbers = [row["n_images"] for row in rows]
            panel.plot(numbers, [row[column] / scale for row in rows], color=colour, marker=marker, label=stage)
        values = [row[column] / scale for rows in results.values() for row in rows]
        # Whole decades, or the noise of what is flat would fill the panel.
        decades = 10.0 ** np.array([math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))])
        panel.set(xscale="log", yscale="log", xlabel="radiographs", ylabel=label, ylim=decades)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
            axis.set_minor_formatter(NullFormatter())
        panel.grid(color="#dde2e7", which="major")
        panel.spines[["top", "right"]].set_visible(False)
    least, most = (end(row["n_images"] for rows in results.values() for row in rows) for end in (min, max))
    low, high = panels[0].get_ylim()
    panels[0].plot([least, most], [high * least / most, high], color="#9aa4ae", linestyle=":", label="linear")
    panels[0].set_ylim(low, high)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    with complete(path) as temporary:
        figure.savefig(temporary, format="png")
