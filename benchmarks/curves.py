"""Benchmark `curves`: whether training in bfloat16 learns what training in float32 does."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from rich.table import Table

from benchmarks import harness
from benchmarks.harness import Clock, n_cores
from benchmarks.material import open_material
from xray.commands.train import draw_validation
from xray.datasets.store import Store
from xray.errors import FlagError
from xray.flags import Count, Seed, require
from xray.models.device import LightningPrecision, keep_freed_memory, lightning_precision, resolve_device
from xray.training.callbacks import EpochTable
from xray.training.config import DetectionConfig
from xray.training.tasks.detection import DetectionTask
from xray.training.trackers import build_loggers
from xray.training.trainer import build_trainer

PRECISIONS = ("32", "bf16")
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t, 97.5 %, by degrees of freedom."""


@dataclasses.dataclass(frozen=True)
class Config(harness.DatasetFlags):
    """The same small detector with the same seeds in float32 and in bfloat16: loss curves, and the metric at the end.

    A seed gives both the same weights, order, augmentation and draws, so what differs between the two is arithmetic.
    What differs between seeds is what chance alone does.
    """

    n_images: harness.FourOrMore = 64
    """Phantoms; half of them train. Of a dataset that is given all are used, fold 0 is held back."""
    image_size: harness.CanvasSize = 128
    """Side of the canvas of phantoms, in pixels."""
    batch_size: harness.BatchSize = 4
    """Radiographs per step."""
    backbone: Literal["mobilenet_v2", "resnet18", "resnet34", "resnet50"] = "mobilenet_v2"
    """Trunk of the detector; its weights start at random."""
    fpn_channels: Count = 64
    """Channels of the feature pyramid."""
    lr: float = 0.02
    """Learning rate after 20 steps of warm-up."""
    steps: Count = 200
    """Optimizer steps of each training."""
    windows: Count = 4
    """Parts of a training over which losses are averaged."""
    seeds: tuple[Seed, ...] = (0, 1, 2, 3, 4)
    """Each trains once in either precision; two to ten. With three, an interval is easily too narrow or too wide."""


def main(config: Config) -> None:
    """Measures, prints a table and writes the JSON file."""
    require(1 < len(set(config.seeds)) == len(config.seeds) <= max(T95) + 1, "seeds",
            " ".join(map(str, config.seeds)), f"2 to {max(T95) + 1} numbers, each given once")  # fmt: skip
    if config.steps < config.windows:
        raise FlagError(f"--steps is {config.steps}: give at least --windows, {config.windows}")
    harness.benchmark("curves", config, measure, show, ["torch", "torchvision", "lightning"])


def measure(config: Config, folder: Path, tell: harness.Tell) -> dict[str, Any]:
    """Trains all, and returns the losses of each step and what is made of them."""
    device = resolve_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    store, _ = open_material(config.data_path, folder, config.n_images, config.image_size, n_cores())
    curves: dict[str, list[list[float]]] = {name: [] for name in PRECISIONS}
    scores: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    seconds = dict.fromkeys(PRECISIONS, 0.0)
    metric = ""
    for seed in config.seeds:
        for name in PRECISIONS:
            tell(f"training with seed {seed}, precision {name}")
            task, losses, spent = train(config, store, seed, name, device, folder)
            metric = task.monitored
            curves[name].append(losses)
            scores[name].append(float(task.metrics[metric]))
            seconds[name] += spent
    of_windows = (windowed(curves[name], config.windows) for name in PRECISIONS)
    windows = [compare(*pair) for pair in zip(*of_windows, strict=True)]
    return {
        "parameters": {"device": device.type, "image_size": store.canvas_size},
        "curves": curves,
        "windows": windows,
        "metric": {"name": metric, "of_seeds": scores, **compare(*(np.array(scores[n]) for n in PRECISIONS))},
        "cpu_seconds_a_step": {n: seconds[n] / config.steps / len(config.seeds) for n in PRECISIONS},
    }


def train(
    config: Config, store: Store, seed: int, precision: str, device: torch.device, folder: Path
) -> tuple[DetectionTask, list[float], float]:
    """One training → its task, the loss of each step, and seconds of processor time of the steps.

    The moving average, which is validated, and all else is as in xray/train.py.
    """
    flags = DetectionConfig(
        save_path=str(folder / f"{precision}-{seed}"), backbone=config.backbone, weights="none", fold=0, seed=seed,
        fpn_channels=config.fpn_channels, rpn_samples=64, roi_samples=64, proposals=300, batch_size=config.batch_size,
        lr=config.lr, warmup_steps=20, schedule="cosine", n_epochs=1, n_workers=0, n_pictures=0, log_step=1,
        repeat_threshold=0.0, normals=1.0,
    )  # fmt: skip
    n_batches = math.ceil(len(DetectionTask(flags, store).train_rows) / config.batch_size)
    # Lightning validates at the end of an epoch: the last one may make more steps than are compared.
    n_epochs = math.ceil(config.steps / n_batches)
    flags = dataclasses.replace(flags, n_epochs=n_epochs, val_every=n_epochs)
    task = DetectionTask(flags, store)
    task.load_initial_weights()
    # As xray/train.py does.
    task.model.to(memory_format=torch.channels_last)
    name: LightningPrecision = lightning_precision(precision, device)
    run = Path(flags.save_path)
    loggers = build_loggers(task.config, "detection", run, is_first=True)
    trainer = build_trainer(task.config, run, task.monitored, device, name, draw_validation, loggers)
    curve = Curve()
    lightning: Any = trainer  # whose callbacks are set from elsewhere
    lightning.callbacks = [*(each for each in lightning.callbacks if not isinstance(each, EpochTable)), curve]
    trainer.fit(task)
    return task, curve.losses[: config.steps], curve.cpu_seconds / len(curve.losses) * config.steps


class Curve(Callback):
    """Notes the loss of each step, and the processor time of all."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.cpu_seconds = 0.0
        self._clock = Clock()

    def on_train_batch_start(self, trainer: L.Trainer, task: Any, batch: Any, index: int) -> None:
        self._clock = Clock()

    def on_train_batch_end(self, trainer: L.Trainer, task: Any, out: Any, batch: Any, index: int) -> None:
        self.losses.append(float(task.terms[1].sum()))
        self.cpu_seconds += self._clock.read(1).cpu_seconds


def windowed(curves: list[list[float]], n: int) -> list[np.ndarray]:
    """The losses of some seeds → for each of `n` windows their means in it, (seeds,)."""
    return list(np.array([[part.mean() for part in np.array_split(curve, n)] for curve in curves]).T)


def compare(float32: np.ndarray, bfloat16: np.ndarray) -> dict[str, Any]:
    """Means of both (seeds,), the mean difference of pairs of a seed with its 95 % interval by Student's t, and the
    standard deviations between seeds in float32 and of the differences."""
    differences, n = bfloat16 - float32, len(float32)
    half = T95[n - 1] * differences.std(ddof=1) / math.sqrt(n)
    return {
        "float32": float(float32.mean()),
        "bfloat16": float(bfloat16.mean()),
        "difference": float(differences.mean()),
        "ci95": [float(differences.mean() - half), float(differences.mean() + half)],
        "between_seeds": float(float32.std(ddof=1)),
        "of_differences": float(differences.std(ddof=1)),
    }


def show(report: dict[str, Any]) -> list[Table | str]:
    """The numbers of `measure` as a table."""
    parameters, n = report["parameters"], len(report["windows"])
    bounds = np.cumsum([0, *(len(part) for part in np.array_split(range(parameters["steps"]), n))])
    rows = [
        _row(f"loss, steps {first + 1} to {last}", window)
        for first, last, window in zip(bounds[:-1], bounds[1:], report["windows"], strict=True)
    ]
    rows.append(_row(f"{report['metric']['name']}, fold held back", report["metric"]))
    columns = ["mean of the seeds", "float32", "bfloat16", "difference (95 %)", "between seeds", "of differences"]
    each = report["cpu_seconds_a_step"]
    return [
        harness.table("Training in bfloat16 and in float32; standard deviations", columns, rows),
        "processor ms a step: " + ", ".join(f"{name} {1000 * value:.0f}" for name, value in each.items()),
    ]


def _row(name: str, found: dict[str, Any]) -> list[str]:
    low, high = found["ci95"]
    return [
        name,
        f"{found['float32']:.4f}",
        f"{found['bfloat16']:.4f}",
        f"{found['difference']:+.4f} ({low:+.4f} to {high:+.4f})",
        f"{found['between_seeds']:.4f}",
        f"{found['of_differences']:.4f}",
    ]
