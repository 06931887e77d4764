"""Benchmark `fuse`: weighted boxes fusion of a whole test set, against ensemble-boxes in a loop over radiographs."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal

from benchmarks import reports
from xray.errors import FlagError


@dataclasses.dataclass(frozen=True)
class Fuse:
    """Radiographs per second of weighted boxes fusion: ours against ensemble-boxes, from and to arrays in memory.

    The radiographs go by in blocks, each fused by both in turn, so that both do all of them once.
    """

    n_images: int = 3000
    """Number of radiographs."""
    n_models: int = 10
    """Models, or views of them (5 models and their mirrored views are 10)."""
    n_boxes: int = 100
    """Boxes that each of them gives for a radiograph."""
    repeats: int = 10
    """Number of blocks; also how often ours fuses all radiographs at once."""
    iou: float = 0.4
    """Boxes that overlap by more than this IoU, in (0, 1), are taken for one."""
    score: Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg"] = "avg"
    """How a fused box is scored."""
    save_path: Path | None = None
    """JSON file for the numbers."""
    debug: bool = False
    """Show the traceback of an error."""


def benchmark_fusion(config: Fuse) -> None:
    """Measures, prints a table and writes the JSON file."""
    reports.check_at_least(config, n_images=1, n_models=1, n_boxes=1, repeats=1)
    reports.check_at_least(config, n_images=config.repeats)
    if not 0 < config.iou < 1:
        raise FlagError(f"--iou is {config.iou}: it must lie between 0 and 1")
    reports.check_save_path(config.save_path)
    report = measure_fusion(config)
    show_fusion(report)
    reports.save_report(config.save_path, report)


def measure_fusion(config: Fuse) -> dict[str, Any]:
    """Runs the benchmark and returns all its numbers. Raises InputError if the two do not give the same boxes."""
    from rich.console import Console
    from rich.progress import Progress

    from benchmarks import fusion, timing

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("fusing", total=3 * config.repeats + 2)
        advance = functools.partial(progress.advance, task)
        ways = fusion.Ways(config.n_images, config.n_models, config.n_boxes, config.repeats, config.iou, config.score)
        timings = timing.alternate({"ours": ways.time_ours, "usual": ways.time_usual}, config.repeats, advance)
        difference, n_again = ways.difference()
        if difference > fusion.CLOSE_ENOUGH:
            raise reports.refuse(f"the fused boxes differ by {difference:.1e}")
        whole = []
        for _ in range(config.repeats):
            whole.append(ways.time_whole())
            advance()
    results: dict[str, dict[str, Any]] = {
        name: {
            "images_per_second": dataclasses.asdict(timing.Spread.of([run.rate for run in runs])),
            "seconds": [run.seconds for run in runs],
            "cpu_seconds": [run.cpu_seconds for run in runs],
        }
        for name, runs in (timings | {"whole": whole}).items()
    }
    return {
        "benchmark": "fuse",
        "parameters": {
            name: getattr(config, name) for name in ("n_images", "n_models", "n_boxes", "repeats", "iou", "score")
        },
        "n_fused": sum(len(table) for table in ways.fused["ours"][1:]),
        "largest_difference": difference,
        "n_fused_in_double": n_again,
        "results": results,
        "ratio": dataclasses.asdict(timing.ratio(timings, "ours", "usual")),
        "cpu_ratio": sum(results["usual"]["cpu_seconds"]) / sum(results["ours"]["cpu_seconds"]),
        **reports.surroundings(["numpy", "numba", "ensemble-boxes"]),
    }


def show_fusion(report: dict[str, Any]) -> None:
    """Prints the numbers of `measure_fusion` as a table."""
    from rich.table import Table

    results, parameters = report["results"], report["parameters"]
    table = Table(title="Weighted boxes fusion: median (lowest-highest)")
    table.add_column("")
    for name in ("radiographs/s", "ratio", f"s for all {parameters['n_images']}", "processor s", "ratio "):
        table.add_column(name, justify="right")
    ratios = {"ours": (reports.spread_text(report["ratio"], 0), f"{report['cpu_ratio']:.0f}")}
    for name, title in (("usual", "ensemble-boxes in a loop"), ("ours", "ours")):
        own, (ratio, cpu_ratio) = results[name], ratios.get(name, ("", ""))
        table.add_row(
            title, reports.spread_text(own["images_per_second"], 0), ratio, f"{sum(own['seconds']):.1f}",
            f"{sum(own['cpu_seconds']):.1f}", cpu_ratio,
        )  # fmt: skip
    console = reports.printer()
    console.print(table)
    whole = results["whole"]
    console.print(
        f"all radiographs in one call of ours: {_spread(whole['seconds'])} s, {_spread(whole['cpu_seconds'])} s of "
        "processor time",
        soft_wrap=True,
    )
    n_boxes = parameters["n_images"] * parameters["n_models"] * parameters["n_boxes"]
    console.print(
        f"{n_boxes:,} boxes ({parameters['n_images']} radiographs x {parameters['n_models']} models or views x "
        f"{parameters['n_boxes']}) fused to {report['n_fused']:,}, all compared: they differ by "
        f"{report['largest_difference']:.0e} at most ({report['n_fused_in_double']} radiographs after ensemble-boxes "
        "did them in double precision, on whose overlaps its single precision decides)",
        soft_wrap=True,
    )
    console.print(reports.surroundings_text(report), soft_wrap=True)


def _spread(values: list[float]) -> str:
    from benchmarks.timing import Spread

    return reports.spread_text(dataclasses.asdict(Spread.of(values)), 2)
