"""Benchmark `infer`: radiographs per second through a detector, against torchvision's own, one at a time."""

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any, Literal

from benchmarks import reports
from xray.errors import FlagError

TITLES = {"canvases": "canvases in memory", "files": "PNG files"}
PARAMETERS = ("n_images", "repeats", "backbone", "score_threshold", "proposals", "n_workers")


@dataclasses.dataclass(frozen=True)
class Infer:
    """Inference with our pipeline against torchvision's detector: eager, float32, one radiograph at a time.

    Both have the same weights; that both find the same boxes is checked first. From canvases in memory, and from PNG
    files of the same pixels.
    """

    data_path: Path | None = None
    """Dataset directory of tools/convert.py; without it, phantoms are drawn and thrown away afterwards."""
    weights: Path | None = None
    """Run directory of a trained ResNet detector; without it, one is made that finds about as much as a trained one."""
    n_images: int = 8
    """Radiographs: of the dataset the first ones."""
    repeats: int = 3
    """Number of measured rounds; one more goes before them and is not counted."""
    passes: int = 1
    """How often a round goes over the radiographs."""
    image_size: int = 1024
    """Side of the canvas of phantoms, in pixels; that of a run or dataset given stays as it is."""
    batch_size: int = 0
    """Radiographs per pass of ours; 0 chooses as tools/infer.py does. torchvision's are 1."""
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    """Trunk of both detectors; with --weights, that of the run."""
    score_threshold: float = 0.001
    """Lowest score of a detection for both, in [0, 1); torchvision's own default is 0.05, that of a run 0.001."""
    proposals: int = 1000
    """Proposals per radiograph that the box head looks at; torchvision's own default."""
    precision: Literal["auto", "32", "bf16"] = "auto"
    """Arithmetic of ours, as in tools/infer.py; torchvision's is 32."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""
    n_workers: int = 2
    """Processes that decode files for ours; torchvision's are read in the main process, as its documentation does."""
    save_path: Path | None = None
    """JSON file for the numbers."""
    debug: bool = False
    """Show the traceback of an error."""


def benchmark_inference(config: Infer) -> None:
    """Measures, prints a table and writes the JSON file."""
    lowest = {"n_images": 4, "repeats": 1, "passes": 1, "image_size": 64, "batch_size": 0, "n_workers": 0}
    reports.check_at_least(config, **lowest, score_threshold=0, proposals=1)
    if config.score_threshold >= 1:
        raise FlagError(f"--score-threshold is {config.score_threshold}: give less than 1")
    reports.check_save_path(config.save_path)
    with tempfile.TemporaryDirectory(prefix="xray-benchmark-") as folder:
        report = measure_inference(config, Path(folder))
    show_inference(report)
    reports.save_report(config.save_path, report)


def measure_inference(config: Infer, folder: Path) -> dict[str, Any]:
    """Runs the benchmark in `folder` and returns all its numbers.

    Raises InputError if there is no dataset or run, the run is not of a detector that torchvision has, or the two do
    not find the same.
    """
    from rich.console import Console
    from rich.progress import Progress

    from benchmarks import inference, timing
    from benchmarks.sides import Side
    from xray.models.device import resolve_device

    device = resolve_device(config.device)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("preparing", total=2 * len(TITLES) * (config.repeats + 1))
        size = inference.prepare(config, folder)
        # Each in a process of its own: ours changes how memory is handed out, which must not help the other.
        with (
            Side(inference.Ours, config, device.type, folder) as ours,
            Side(inference.Theirs, config, device.type, folder) as theirs,
        ):
            progress.update(task, description="checking that both find the same")
            chosen = ours.call("describe")
            theirs.call("exact", True)
            found = {source: ours.call("find", source) for source in TITLES}
            exact = chosen["precision"] == "32"
            agreement = inference.check(found, theirs.call("find", "canvases"), config.n_images, exact)
            theirs.call("exact", False)
            results: dict[str, Any] = {}
            for source in TITLES:
                progress.update(task, description=f"measuring, from {TITLES[source]}")
                timings = timing.alternate(
                    {
                        "ours": functools.partial(ours.call, "time", source),
                        "torchvision": functools.partial(theirs.call, "time", source),
                    },
                    config.repeats,
                    functools.partial(progress.advance, task),
                )
                results[source] = {
                    name: {
                        "images_per_second": dataclasses.asdict(timing.Spread.of([run.rate for run in runs])),
                        "seconds": [run.seconds for run in runs],
                        "cpu_seconds": [run.cpu_seconds for run in runs],
                    }
                    for name, runs in timings.items()
                }
                results[source]["ratio"] = dataclasses.asdict(timing.ratio(timings, "ours", "torchvision"))
    return {
        "benchmark": "infer",
        "data": "phantoms" if config.data_path is None else str(config.data_path),
        "weights": "made" if config.weights is None else str(config.weights),
        "parameters": {
            **{name: getattr(config, name) for name in PARAMETERS},
            **chosen,
            "image_size": size,
            "device": device.type,
        },
        "images": config.n_images * config.passes,
        "agreement": dataclasses.asdict(agreement),
        "results": results,
        **reports.surroundings(["torch", "torchvision", "pillow"], device),
    }


def show_inference(report: dict[str, Any]) -> None:
    """Prints the numbers of `measure_inference` as a table."""
    from rich.table import Table

    table = Table(title="Inference, images/s: median (lowest-highest)")
    for name in ("from", "torchvision, eager, batch 1", "ours", "ratio", "processor s an image: torchvision", "ours"):
        table.add_column(name, justify="left" if name == "from" else "right")
    for source, title in TITLES.items():
        entry = report["results"][source]
        rates = [reports.spread_text(entry[name]["images_per_second"], 2) for name in ("torchvision", "ours")]
        cpu = [
            f"{sum(entry[name]['cpu_seconds']) / (len(entry[name]['cpu_seconds']) * report['images']):.2f}"
            for name in ("torchvision", "ours")
        ]
        table.add_row(title, *rates, reports.spread_text(entry["ratio"], 2), *cpu)
    console = reports.printer()
    console.print(table)
    parameters, agreement = report["parameters"], report["agreement"]
    for line in (
        f"{parameters['backbone']}, {parameters['image_size']} pixels, {report['images']} radiographs a round, ours in "
        f"batches of {parameters['batch_size']} with --precision {parameters['precision']}, on {parameters['device']}; "
        "no mirrored views; from files, ours is the whole of tools/infer.py: weights loaded, predictions written",
        f"same boxes: {agreement['boxes']} held against each other, {agreement['matched']:.2%} found by both, lowest "
        f"IoU {agreement['iou']:.4f}, largest difference in score {agreement['score']:.1g}",
        reports.surroundings_text(report),
    ):
        console.print(line, soft_wrap=True)
