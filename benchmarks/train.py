"""Benchmark `train`: training steps per second against torchvision's detector in its own loop."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, Literal

from benchmarks import reports
from xray.errors import FlagError

KEPT = ("n_images", "repeats", "n_steps", "batch_size", "backbone", "roi_samples", "proposals", "compile", "n_workers")
"""Flags that go into the report as they are."""


@dataclasses.dataclass(frozen=True)
class Train:
    """A training step of our detector against torchvision's own, in the loop of its references/detection.

    Both start from the same weights and see the same radiographs and boxes, from memory; that both compute the same
    losses and boxes is checked first. Ours runs in the Trainer of xray/train.py, and once more with its real loader.
    """

    peer: tuple[Literal["torchvision", "torchvision-amp", "ultralytics"], ...] = ()
    """Against what: torchvision in float32, with its mixed precision, Ultralytics' YOLOv8-L where it is installed.
    Default: torchvision on a CPU, the first two on a GPU."""
    data_path: Path | None = None
    """Dataset directory of tools/convert.py; without it, phantoms are drawn and thrown away afterwards."""
    n_images: int = 8
    """Radiographs: of the dataset the first ones."""
    repeats: int = 3
    """Number of measured rounds; one more goes before them and is not counted."""
    n_steps: int = 4
    """Steps of a round; one more (on a GPU four) goes before them and is not counted."""
    image_size: int = 512
    """Side of the canvas of phantoms, in pixels."""
    batch_size: int = 2
    """Radiographs per step."""
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    """Trunk of both detectors."""
    roi_samples: int = 512
    """Proposals per radiograph in the loss of the box head; torchvision's own default."""
    proposals: int = 2000
    """Proposals per radiograph that training keeps; torchvision's own default."""
    precision: Literal["auto", "32", "bf16"] = "auto"
    """Arithmetic of ours: auto is what xray/train.py uses, bf16 on a GPU that has it, otherwise 32."""
    compile: bool = False
    """Ours as xray/train.py --compile trains it; the first steps, which are not counted, take minutes."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""
    n_workers: int = 4
    """Processes of the real loader."""
    save_path: Path | None = None
    """JSON file for the numbers."""
    debug: bool = False
    """Show the traceback of an error."""


def benchmark_training(config: Train) -> None:
    """Measures, prints a table and writes the JSON file."""
    lowest = {"n_images": 4, "repeats": 1, "n_steps": 1, "image_size": 64, "batch_size": 1, "n_workers": 0}
    reports.check_at_least(config, **lowest, roi_samples=1, proposals=2)
    if config.n_images < config.batch_size:
        raise FlagError(f"--n-images is {config.n_images}: give at least --batch-size, {config.batch_size}")
    reports.check_save_path(config.save_path)
    with tempfile.TemporaryDirectory(prefix="xray-benchmark-") as folder:
        report = measure_training(config, Path(folder))
    show_training(report)
    reports.save_report(config.save_path, report)


def measure_training(config: Train, folder: Path) -> dict[str, Any]:
    """Runs the benchmark in `folder` and returns all its numbers.

    Raises InputError if there is no dataset, a peer is not installed, or the two do not compute the same.
    """
    from rich.console import Console

    from benchmarks import timing, training
    from xray.models.device import lightning_precision, resolve_device

    device = resolve_device(config.device)
    peers = config.peer or (("torchvision-amp", "torchvision") if device.type == "cuda" else ("torchvision",))
    with Console(stderr=True).status("preparing") as status:
        steps = training.Training(config, peers, device, folder)
        status.update("checking that both compute the same")
        agreement = steps.check()
        status.update("measuring")
        rounds, data = steps.measure()
    results: dict[str, Any] = {}
    for name, runs in rounds.items():
        results[name] = {
            "images_per_second": dataclasses.asdict(timing.Spread.of([run.timing.rate for run in runs])),
            "seconds": [run.timing.seconds for run in runs],
            "cpu_seconds": [run.timing.cpu_seconds for run in runs],
            "peak_memory_bytes": max((run.memory for run in runs if run.memory is not None), default=None),
        }
    timings = {name: [run.timing for run in runs] for name, runs in rounds.items()}
    for name in peers:
        results[name]["ratio"] = dataclasses.asdict(timing.ratio(timings, "ours", name))
    return {
        "benchmark": "train",
        "data": "phantoms" if config.data_path is None else str(config.data_path),
        "parameters": {
            **{name: getattr(config, name) for name in KEPT},
            "image_size": steps.store.canvas_size,
            "precision": lightning_precision(config.precision, device),
            "device": device.type,
        },
        "agreement": agreement,
        "images": timings["ours"][0].n,
        "results": results,
        "with_loader": {
            "images_per_second": data.timing.rate,
            "data_wait_share": data.waited / data.timing.seconds,
        },
        **reports.surroundings(["torch", "torchvision", "lightning", "ultralytics"], device),
    }


def show_training(report: dict[str, Any]) -> None:
    """Prints the numbers of `measure_training` as a table."""
    from rich.table import Table

    parameters = report["parameters"]
    table = Table(title="Training, images/s: median (lowest-highest)")
    for name in ("", "images/s", "ms a step", "processor s an image", "peak memory, GiB", "ratio"):
        table.add_column(name, justify="right" if name else "left")
    for name, own in report["results"].items():
        n_rounds, memory = len(own["seconds"]), own["peak_memory_bytes"]
        table.add_row(
            f"ours, {parameters['precision']}{', compiled' * parameters['compile']}" if name == "ours" else name,
            reports.spread_text(own["images_per_second"], 2),
            f"{1000 * parameters['batch_size'] / own['images_per_second']['median']:.0f}",
            f"{sum(own['cpu_seconds']) / (n_rounds * report['images']):.3f}",
            "" if memory is None else f"{memory / 2**30:.2f}",
            reports.spread_text(own["ratio"], 2) if "ratio" in own else "",
        )
    console = reports.printer()
    console.print(table)
    loaded, agreement = report["with_loader"], report["agreement"]
    losses = ", ".join(
        f"{name} {found['difference']:.1%} ± {found['standard_error']:.1%}"
        for name, found in agreement["losses"].items()
    )
    for line in (
        f"{parameters['backbone']}, {parameters['image_size']} pixels, batches of {parameters['batch_size']}, "
        f"{parameters['n_steps']} steps a round, on {parameters['device']}",
        f"ours with its loader ({parameters['n_workers']} processes, --augment light): "
        f"{loaded['images_per_second']:.2f} images/s, {loaded['data_wait_share']:.1%} of a step waiting for data",
        f"same losses: the means of {agreement['draws']} draws differ by {losses}",
        f"same detections: {agreement['detections']['boxes']} held against each other, largest difference "
        f"{agreement['detections']['pixels']:.1g} px, {agreement['detections']['score']:.1g} in score",
        reports.surroundings_text(report),
    ):
        console.print(line, soft_wrap=True)
