"""Benchmark `train`: training steps per second against torchvision's detector in its own loop."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Interval
from lightning.pytorch.callbacks import LearningRateMonitor
from rich.table import Table
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from benchmarks import harness
from benchmarks.harness import Clock, Timing, n_cores, refuse
from benchmarks.material import open_material
from benchmarks.peers import (
    PeakMemory,
    TorchvisionLoop,
    as_float_images,
    compare,
    spread_weights,
    synchronize,
    table_of,
    torchvision_detector,
)
from benchmarks.training_rounds import DRAWS, Rounds, compare_losses
from xray.commands.train import draw_validation
from xray.errors import FlagError
from xray.flags import Count, Processes
from xray.models.device import keep_freed_memory, lightning_precision, resolve_device
from xray.training.callbacks import Throughput
from xray.training.config import DetectionConfig
from xray.training.guard import Guard
from xray.training.loaders import collate_boxes
from xray.training.loading import BoxDataset
from xray.training.sampling import EpochSampler
from xray.training.tasks.detection import DetectionTask
from xray.training.trackers import build_loggers
from xray.training.trainer import build_trainer

LEARNING_RATE = 1e-6
"""Of all sides: so small that the weights, and with them the work, stay those of the start."""
PIXEL_TOLERANCE, SCORE_TOLERANCE = 0.01, 5e-4
"""What float32's rounding makes of other orders of summation; settled weights amplify it more than trained ones."""
FLOOR = 0.02
"""Score from which detections are held against each other."""
LOWEST_SCORE, MOST_DETECTIONS = 0.001, 1000
"""So low and so many that none is held back where both are compared."""


@dataclasses.dataclass(frozen=True)
class Config(harness.DatasetFlags):
    """A training step of our detector against torchvision's own, in the loop of its references/detection.

    Both start from the same weights and see the same radiographs and boxes, from memory; that both compute the same
    losses and boxes is checked first. Ours runs in the Trainer of xray/train.py, and once more with its real loader.
    """

    peer: tuple[Literal["torchvision", "torchvision-amp"], ...] = ()
    """Against what: torchvision in float32 or with its mixed precision. Default: float32 on a CPU, both on a GPU."""
    n_steps: Count = 4
    """Steps of a round; one more (on a GPU four) goes before them and is not counted."""
    image_size: harness.CanvasSize = 512
    """Side of the canvas of phantoms, in pixels."""
    batch_size: harness.BatchSize = 2
    """Radiographs per step."""
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    """Trunk of both detectors."""
    roi_samples: Count = 512
    """Proposals per radiograph in the loss of the box head; torchvision's own default."""
    proposals: Annotated[int, Interval(ge=2, le=10_000_000)] = 2000
    """Proposals per radiograph that training keeps; torchvision's own default."""
    precision: Literal["auto", "32", "bf16"] = "auto"
    """Arithmetic of ours: auto is bf16 on a GPU that has it, otherwise 32."""
    compile: bool = False
    """Ours as xray/train.py --compile trains it; the first steps, which are not counted, take minutes."""
    n_workers: Processes = 4
    """Processes of the real loader."""


def main(config: Config) -> None:
    """Measures, prints a table and writes the JSON file."""
    if config.n_images < config.batch_size:
        raise FlagError(f"--n-images is {config.n_images}: give at least --batch-size, {config.batch_size}")
    harness.benchmark("train", config, measure, show, ["torch", "torchvision", "lightning"])


def measure(config: Config, folder: Path, tell: harness.Tell) -> dict[str, Any]:
    """Runs the benchmark in `folder` and returns all its numbers.

    Raises InputError if there is no dataset, or the two do not compute the same.
    """
    device = resolve_device(config.device)
    peers = config.peer or (("torchvision-amp", "torchvision") if device.type == "cuda" else ("torchvision",))
    if device.type == "cpu":
        # As xray/train.py does; the peers gain from it, too.
        keep_freed_memory()
    training = Training(config, peers, device, folder)
    tell("checking that both compute the same")
    agreement = training.check()
    tell("measuring")
    rounds, loaded = training.measure()
    entry = harness.entry(config.backbone, rounds, [("ours", peer) for peer in peers])
    for name, runs in rounds.items():
        peaks = [run.result["memory"] for run in runs if run.result["memory"] is not None]
        entry["contenders"][name]["peak_memory_bytes"] = max(peaks, default=None)
    return {
        "parameters": {
            "peer": peers,
            "image_size": training.store.canvas_size,
            "precision": lightning_precision(config.precision, device),
            "device": device.type,
        },
        "agreement": agreement,
        "results": [entry],
        "with_loader": {
            "images_per_second": loaded.rate,
            "data_wait_share": loaded.result["waited"] / loaded.seconds,
        },
    }


def show(report: dict[str, Any]) -> list[Table | str]:
    """The numbers of `measure` as a table."""
    parameters, loaded, agreement = report["parameters"], report["with_loader"], report["agreement"]
    [entry] = report["results"]
    losses = ", ".join(
        f"{name} {loss['difference']:.1%} ± {loss['standard_error']:.1%}" for name, loss in agreement["losses"].items()
    )
    sides = "; ".join(
        f"{name} {1000 * parameters['batch_size'] / side['per_second']['median']:.0f} ms a step"
        + (f", at most {side['peak_memory_bytes'] / 2**30:.2f} GiB" if side["peak_memory_bytes"] else "")
        for name, side in entry["contenders"].items()
    )
    return [
        harness.table_of([entry], "Training", {}),
        sides,
        f"ours with its loader ({parameters['n_workers']} processes, --augment light): "
        f"{loaded['images_per_second']:.2f} images/s, {loaded['data_wait_share']:.1%} of a step waiting for data",
        f"same losses: the means of {agreement['draws']} draws differ by {losses}",
        f"same detections: {agreement['detections']['boxes']} held against each other, largest difference "
        f"{agreement['detections']['pixels']:.1g} px, {agreement['detections']['score']:.1g} in score",
    ]


class Training:
    """Our training and its peers', all with the same weights and batches. Raises InputError if there is no dataset."""

    def __init__(self, config: Config, peers: Sequence[str], device: torch.device, folder: Path) -> None:
        self.config, self.device, self.folder = config, device, folder
        self.store, self.rows = open_material(
            config.data_path, folder, config.n_images, config.image_size, min(config.n_workers, n_cores())
        )
        self.batches = self._batches()
        torch.manual_seed(0)
        self.theirs = torchvision_detector(
            max(self.store.categories),
            self.store.canvas_size,
            config.backbone,
            rpn_batch_size_per_image=256,
            box_batch_size_per_image=config.roi_samples,
            rpn_pre_nms_top_n_train=config.proposals,
            rpn_post_nms_top_n_train=config.proposals,
            rpn_pre_nms_top_n_test=config.proposals // 2,
            rpn_post_nms_top_n_test=config.proposals // 2,
            box_score_thresh=LOWEST_SCORE,
            box_detections_per_img=MOST_DETECTIONS,
        )
        spread_weights(self.theirs, as_float_images(self.batches[0]["images"]))
        save_file(self.theirs.state_dict(), folder / "start.safetensors")
        self.ours = DetectionConfig(
            save_path=str(folder / "run"),
            backbone=config.backbone,
            weights=str(folder / "start.safetensors"),
            norm="frozen",
            trainable_layers=3,
            anchor_scale=1.0,
            precision=config.precision,
            batch_size=config.batch_size,
            n_workers=config.n_workers,
            n_epochs=1,
            lr=LEARNING_RATE,
            rpn_samples=256,
            roi_samples=config.roi_samples,
            proposals=config.proposals,
            score_threshold=LOWEST_SCORE,
            max_detections=MOST_DETECTIONS,
        )
        self.task = self._task(self.ours)
        self.ours = self.task.config
        self.theirs.to(device)
        self.steps = {
            peer: TorchvisionLoop(self.theirs, device, peer == "torchvision-amp", LEARNING_RATE).step for peer in peers
        }

    def _task(self, config: DetectionConfig) -> DetectionTask:
        task = DetectionTask(config, self.store)
        task.load_initial_weights()
        # As xray/train.py does.
        task.model.to(memory_format=torch.channels_last)
        return task

    def _batches(self) -> list[dict[str, Any]]:
        dataset, size = BoxDataset(self.store, self.rows), self.config.batch_size
        starts = range(0, len(dataset) - size + 1, size)
        batches = [collate_boxes([dataset[i] for i in range(start, start + size)]) for start in starts]
        if self.device.type == "cuda":
            # As our loader does; torchvision's references do not.
            for batch in batches:
                batch["images"] = batch["images"].pin_memory()
        return batches

    def check(self) -> dict[str, Any]:
        """Raises InputError unless both give the same losses and detections in float32; returns how far they differ.

        Losses are means over draws, as each pass samples other anchors and proposals.
        """
        batch, ours = self.batches[0], self.task.model.to(self.device)
        images = batch["images"].to(self.device)
        floats = [image.to(self.device) for image in as_float_images(batch["images"])]
        targets = [{name: value.to(self.device) for name, value in target.items()} for target in batch["targets"]]
        # TensorFloat-32 has ten bits of mantissa.
        allowed = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        try:
            losses = compare_losses(lambda: ours.train()(images, targets), lambda: self.theirs.train()(floats, targets))
            with torch.inference_mode():
                agreement = compare(table_of(ours.eval()(images)), table_of(self.theirs.eval()(floats)), FLOOR, 0.01)
        finally:
            torch.backends.cudnn.allow_tf32 = allowed
            ours.train()
            self.theirs.train()
        if agreement.matched < 1 or agreement.pixels > PIXEL_TOLERANCE or agreement.score > SCORE_TOLERANCE:
            raise refuse(
                f"of {agreement.boxes} detections {agreement.matched:.1%} were found by both, with differences of up "
                f"to {agreement.pixels:.2g} px and {agreement.score:.2g} in score"
            )
        return {"draws": DRAWS, "losses": losses, "detections": dataclasses.asdict(agreement)}

    def measure(self) -> tuple[dict[str, list[Timing]], Timing]:
        """The rounds of "ours" and each peer, and a round of ours with its real loader and augmentation.

        The result of each is a dict: `memory`, most bytes held or None where that cannot be told, and `waited`, seconds
        between the steps.
        """
        config = self.config
        if config.compile:
            # As xray/train.py does, and only now: what was run for the checks need not be compiled.
            self.task.model.compile(dynamic=False)
        n_warmup = self._n_warmup
        theirs: dict[str, list[Timing]] = {name: [] for name in self.steps}

        def peers_turn() -> None:
            for name, step in self.steps.items():
                theirs[name].append(self._peer_round(step, n_warmup))

        rounds = Rounds(n_warmup, config.n_steps, self.device, peers_turn)
        n_batches = (config.repeats + 1) * (n_warmup + config.n_steps)
        batches = [self.batches[number % len(self.batches)] for number in range(n_batches)]
        self._fit(self.task, DataLoader(batches, batch_size=None), rounds)  # type: ignore[arg-type]  # a sequence will do
        # The first round's caches, and what is compiled in it, count for nobody.
        done = {"ours": rounds.done[1:], **{name: runs[1:] for name, runs in theirs.items()}}
        return done, self._with_loader(self.task)

    def with_loader(self, **changes: Any) -> Timing:
        """A round of ours with its real loader and augmentation, and flags of xray/train.py in place of ours."""
        return self._with_loader(self._task(dataclasses.replace(self.ours, **changes)))

    def _with_loader(self, task: DetectionTask) -> Timing:
        rounds = Rounds(self._n_warmup, self.config.n_steps, self.device, lambda: None)
        n_steps = 2 * (self._n_warmup + self.config.n_steps)
        # Made in its turn: what the loader leaves to the device is known once the task has one.
        task.train_dataloader = lambda: self._loader(task, n_steps)  # type: ignore[method-assign]  # of this one
        self._fit(task, None, rounds)
        return rounds.done[1]

    @property
    def _n_warmup(self) -> int:
        return 4 if self.device.type == "cuda" else 1

    def _fit(self, task: DetectionTask, loader: Any, rounds: "Rounds") -> None:
        precision = lightning_precision(self.config.precision, self.device)
        run = self.folder / "run"
        loggers = build_loggers(task.config, "detection", run, is_first=True)
        trainer = build_trainer(task.config, run, task.monitored, self.device, precision, draw_validation, loggers)
        # Of what accompanies a training the steps alone are measured, not the end of an epoch.
        lightning: Any = trainer  # whose callbacks are set from elsewhere
        measured = Throughput | LearningRateMonitor | Guard
        lightning.callbacks = [*(each for each in lightning.callbacks if isinstance(each, measured)), rounds]
        trainer.limit_val_batches = 0
        trainer.fit(task, loader)

    def _loader(self, task: DetectionTask, n_steps: int) -> Any:
        dataset = BoxDataset(self.store, self.rows, task.augmentation(), **task.training_options())
        repeats = np.full(len(dataset), n_steps * self.config.batch_size / len(dataset))
        return task.loader(dataset, collate_boxes, EpochSampler(repeats, seed=0))

    def _peer_round(self, step: Callable[..., float], n_warmup: int) -> Timing:
        inputs = [(as_float_images(batch["images"]), batch["targets"]) for batch in self.batches]
        for number in range(n_warmup):
            step(*inputs[number % len(inputs)])
        memory = PeakMemory(self.device, self.theirs)
        synchronize(self.device)
        clock = Clock()
        for number in range(self.config.n_steps):
            step(*inputs[number % len(inputs)])
        synchronize(self.device)
        timing = clock.read(self.config.n_steps * self.config.batch_size)
        return dataclasses.replace(timing, result={"memory": memory.peak(), "waited": 0.0})
