"""Training steps of our detector and of its peers, in alternation, and the checks that they compute the same."""

import ctypes
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.material import open_material
from benchmarks.peers import (
    TorchvisionLoop,
    as_float_images,
    compare,
    settle_weights,
    table_of,
    torchvision_detector,
    ultralytics_step,
)
from benchmarks.reports import refuse
from benchmarks.timing import Timing, n_cores
from benchmarks.train import Train
from xray.commands.train import draw_validation
from xray.errors import InputError
from xray.models.device import lightning_precision
from xray.training.callbacks import Throughput
from xray.training.config import DetectionConfig
from xray.training.guard import Guard
from xray.training.loading import BoxDataset, EpochSampler, collate_boxes
from xray.training.tasks.detection import DetectionTask
from xray.training.trainer import build_trainer

LEARNING_RATE = 1e-6
"""Of all sides: so small that the weights, and with them the work, stay those of the start."""
DRAWS = 8
"""Passes whose losses are averaged: each samples other anchors and proposals."""
LOSS_TOLERANCE = 0.05
"""Share by which the mean losses may differ, beside three standard errors of that difference."""
PIXEL_TOLERANCE, SCORE_TOLERANCE = 0.01, 5e-4
"""What float32's rounding makes of other orders of summation; settled weights amplify it more than trained ones."""
FLOOR = 0.02
"""Score from which detections are held against each other."""
LOWEST_SCORE, MOST_DETECTIONS = 0.001, 1000
"""So low and so many that none is held back where both are compared."""


@dataclasses.dataclass(frozen=True)
class Round:
    """Measured steps. memory: most bytes held, None where it cannot be told. waited: seconds between the steps."""

    timing: Timing
    memory: int | None
    waited: float


class Training:
    """Our training and its peers', all with the same weights and batches.

    Raises InputError if there is no dataset, or a peer is not installed.
    """

    def __init__(self, config: Train, peers: Sequence[str], device: torch.device, folder: Path) -> None:
        self.config, self.device, self.folder = config, device, folder
        # What is not there should be said before anything is drawn.
        if "ultralytics" in peers:
            try:
                import ultralytics  # noqa: F401
            except ImportError:
                raise InputError("--peer ultralytics: it is not installed here; leave it out") from None
        self.store, self.rows = open_material(
            config.data_path, folder, config.n_images, config.image_size, min(config.n_workers, n_cores())
        )
        size, n_categories = self.store.canvas_size, max(self.store.categories)
        self.batches = self._batches()
        torch.manual_seed(0)
        self.theirs = torchvision_detector(
            n_categories,
            size,
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
        settle_weights(self.theirs, as_float_images(self.batches[0]["images"]))
        save_file(self.theirs.state_dict(), folder / "start.safetensors")
        self.task = DetectionTask(self._ours(), self.store)
        self.task.load_initial_weights()
        # As xray/train.py does.
        self.task.model.to(memory_format=torch.channels_last)
        self.theirs.to(device)
        self.steps: dict[str, Callable[[list[Tensor], list[dict[str, Tensor]]], float]] = {}
        for peer in peers:
            if peer == "ultralytics":
                self.steps[peer] = ultralytics_step(n_categories, size, device)
            else:
                loop = TorchvisionLoop(self.theirs, device, peer == "torchvision-amp", LEARNING_RATE)
                self.steps[peer] = loop.step

    def _ours(self) -> DetectionConfig:
        config = self.config
        return DetectionConfig(
            save_path=str(self.folder / "run"),
            backbone=config.backbone,
            weights=str(self.folder / "start.safetensors"),
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
                found = compare(table_of(ours.eval()(images)), table_of(self.theirs.eval()(floats)), FLOOR, 0.01)
        finally:
            torch.backends.cudnn.allow_tf32 = allowed
            ours.train()
            self.theirs.train()
        if found.matched < 1 or found.pixels > PIXEL_TOLERANCE or found.score > SCORE_TOLERANCE:
            raise refuse(
                f"of {found.boxes} detections {found.matched:.1%} were found by both, with differences of up to "
                f"{found.pixels:.2g} px and {found.score:.2g} in score"
            )
        return {"draws": DRAWS, "losses": losses, "detections": dataclasses.asdict(found)}

    def measure(self) -> tuple[dict[str, list[Round]], Round]:
        """The rounds of "ours" and each peer, and a round of ours with its real loader and augmentation."""
        config = self.config
        if config.compile:
            # As xray/train.py does, and only now: what was run for the checks need not be compiled.
            self.task.model.compile(dynamic=False)
        n_warmup = 4 if self.device.type == "cuda" else 1
        theirs: dict[str, list[Round]] = {name: [] for name in self.steps}

        def peers_turn() -> None:
            for name, step in self.steps.items():
                theirs[name].append(self._peer_round(step, n_warmup))

        rounds = Rounds(n_warmup, config.n_steps, self.device, peers_turn)
        n_batches = (config.repeats + 1) * (n_warmup + config.n_steps)
        batches = [self.batches[number % len(self.batches)] for number in range(n_batches)]
        self._fit(DataLoader(batches, batch_size=None), rounds)  # type: ignore[arg-type]  # a sequence will do
        loaded = Rounds(n_warmup, config.n_steps, self.device, lambda: None)
        self._fit(self._loader(2 * (n_warmup + config.n_steps)), loaded)
        # The first round's caches, and what is compiled in it, count for nobody.
        return {"ours": rounds.done[1:], **{name: runs[1:] for name, runs in theirs.items()}}, loaded.done[1]

    def _fit(self, loader: Any, rounds: "Rounds") -> None:
        config = self._ours()
        run = self.folder / "run"
        precision = lightning_precision(self.config.precision, self.device)
        trainer = build_trainer(config, run, self.task.monitored, self.device, precision, draw_validation)
        # Of what accompanies a training the steps alone are measured, not the end of an epoch.
        lightning: Any = trainer  # whose callbacks are set from elsewhere
        measured = Throughput | LearningRateMonitor | Guard
        lightning.callbacks = [*(each for each in lightning.callbacks if isinstance(each, measured)), rounds]
        trainer.limit_val_batches = 0
        trainer.fit(self.task, loader)

    def _loader(self, n_steps: int) -> Any:
        dataset = BoxDataset(self.store, self.rows, self.task.augmentation(), **self.task.training_options())
        repeats = np.full(len(dataset), n_steps * self.config.batch_size / len(dataset))
        return self.task.loader(dataset, collate_boxes, EpochSampler(repeats, seed=0))

    def _peer_round(self, step: Callable[..., float], n_warmup: int) -> Round:
        inputs = [(as_float_images(batch["images"]), batch["targets"]) for batch in self.batches]
        for number in range(n_warmup):
            step(*inputs[number % len(inputs)])
        memory = PeakMemory(self.device, self.theirs)
        synchronize(self.device)
        wall, cpu = time.perf_counter(), time.process_time()
        for number in range(self.config.n_steps):
            step(*inputs[number % len(inputs)])
        synchronize(self.device)
        n = self.config.n_steps * self.config.batch_size
        timing = Timing(n, time.perf_counter() - wall, time.process_time() - cpu)
        return Round(timing, memory.peak(), 0.0)


class Rounds(Callback):
    """Divides our training into rounds and measures them; after each, the peers have their turn.

    done: a Round for each.
    """

    def __init__(self, n_warmup: int, n_steps: int, device: torch.device, between: Callable[[], None]) -> None:
        self.n_warmup, self.n_steps, self.device, self.between = n_warmup, n_steps, device, between
        self.done: list[Round] = []
        self._step, self._images, self._waited = 0, 0, 0.0

    def on_train_batch_start(self, trainer: L.Trainer, task: L.LightningModule, batch: Any, index: int) -> None:
        if self._step > self.n_warmup:
            self._waited += time.perf_counter() - self._last
        elif self._step == self.n_warmup:
            self._start(task)

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, out: Any, batch: Any, index: int) -> None:
        self._step += 1
        if self._step > self.n_warmup:
            self._images += len(batch["images"])
        if self._step == self.n_warmup + self.n_steps:
            synchronize(self.device)
            wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
            self.done.append(Round(Timing(self._images, wall, cpu), self._memory.peak(), self._waited))
            self._step, self._images, self._waited = 0, 0, 0.0
            self.between()
        self._last = time.perf_counter()

    def _start(self, task: L.LightningModule) -> None:
        self._memory = PeakMemory(self.device, task)
        synchronize(self.device)
        self._wall, self._cpu = time.perf_counter(), time.process_time()


class PeakMemory:
    """Most memory that a model's steps hold from here on, its weights, gradients and momenta included.

    The models of all sides lie in memory at the same time: what was there before is taken off and the model's own put
    back.
    """

    def __init__(self, device: torch.device, model: torch.nn.Module) -> None:
        self.device = device
        everything = sum(p.nbytes for p in model.parameters())
        # A gradient and a momentum beside each that trains.
        self._own = everything + 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
        self._start = self._reset()

    def _reset(self) -> int | None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device)
        try:
            # What the other side freed would otherwise count as held by the process already.
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            return _status("VmRSS")
        except (OSError, AttributeError):
            return None

    def peak(self) -> int | None:
        """In bytes; None on a system that does not tell."""
        if self._start is None:
            return None
        held = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else _status("VmHWM")
        return held - self._start + self._own


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def synchronize(device: torch.device) -> None:
    """Waits for the GPU, where one is used."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare_losses(
    ours: Callable[[], Mapping[str, Tensor]], theirs: Callable[[], Mapping[str, Tensor]]
) -> dict[str, dict[str, float]]:
    """Name of each loss → by how much the means over `DRAWS` passes of both differ, and the standard error of that.

    Both are shares of the other side's mean.

    Raises InputError where that is more than chance explains, or the losses have other names.
    """
    draws: dict[str, tuple[list[float], list[float]]] = {}
    for side, function in (("ours", ours), ("theirs", theirs)):
        torch.manual_seed(0)
        for _ in range(DRAWS):
            for name, value in function().items():
                draws.setdefault(name, ([], []))[side == "theirs"].append(float(value.detach()))
    differences: dict[str, dict[str, float]] = {}
    for name, (mine, other) in draws.items():
        if len(mine) != len(other):
            raise refuse(f"{name} is a loss of one of them alone")
        first, second = np.array(mine), np.array(other)
        difference = abs(first.mean() - second.mean())
        error = np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / DRAWS)
        if not difference <= LOSS_TOLERANCE * abs(second.mean()) + 3 * error:
            raise refuse(f"{name} is {first.mean():.4g} for ours and {second.mean():.4g} for torchvision")
        scale = abs(second.mean()) or 1.0
        differences[name] = {"difference": float(difference / scale), "standard_error": float(error / scale)}
    return differences
