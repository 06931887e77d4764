"""Benchmark `ceiling`: what the machine could do at most with a detector's arithmetic, what it does, and the rest."""

import dataclasses
import os
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import harness
from benchmarks.harness import timed
from benchmarks.peers import as_float_images, spread_weights, synchronize, torchvision_detector
from xray.findings import FINDINGS
from xray.flags import Count
from xray.models.detection.detector import Detector, build_detector
from xray.models.device import keep_freed_memory, resolve_device
from xray.models.kernels.convolutions import apply_norms_in_convolutions, speed_up_inference, speed_up_training
from xray.models.kernels.norms import fold_batch_norms

PARTS = {
    "trunk": "backbone.body",
    "pyramid": "backbone.fpn",
    "proposals' head": "rpn.head",
    "box head": "roi_heads.box_head",
    "box predictor": "roi_heads.box_predictor",
}
ROWS = 12
"""Operations in the profile; the others are added up."""


@dataclasses.dataclass(frozen=True)
class Config(harness.Flags):
    """The arithmetic and the memory traffic of our detector, against the rates of this machine's matrix products.

    The arithmetic is that of the network as it is written: three by three convolutions count in full, though ours take
    fewer multiplications on a CPU. So a share above 100 % is possible.
    """

    work: Literal["infer", "train"] = "infer"
    """Inference from canvases, or a training step: forward, losses and backward, without the optimizer."""
    image_size: harness.CanvasSize = 1024
    """Side of the canvas, in pixels."""
    batch_size: harness.BatchSize = 2
    """Radiographs per pass."""
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    """Trunk of the detector."""
    precision: Literal["32", "bf16"] = "32"
    """Arithmetic of convolutions and matrix products."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""
    repeats: Count = 3
    """Measured passes; the median counts."""


def main(config: Config) -> None:
    """Measures, prints tables and writes the JSON file."""
    harness.benchmark("ceiling", config, measure, show, ["torch", "torchvision"])


def measure(config: Config, folder: Path, tell: harness.Tell) -> dict[str, Any]:
    """Runs the benchmark and returns all its numbers."""
    device = resolve_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    tell("counting")
    subject = Subject(config, device)
    parts = subject.count()
    tell("measuring the machine's rates")
    rates = machine_rates(device, subject.dtype, config.repeats)
    tell("measuring the detector")
    seconds = subject.seconds(config.repeats)
    tell("profiling")
    profile = subject.profile()
    per_image = {name: sum(part[name] for part in parts.values()) for name in ("flops", "bytes")}
    per_image |= {"arithmetic_seconds": per_image["flops"] / rates["flops"], "seconds": seconds}
    per_image["traffic_seconds"] = per_image["bytes"] / rates["bytes"]
    return {
        "parameters": {"device": device.type},
        "parts": parts,
        "rates": rates,
        "per_image": per_image,
        "share": max(per_image["arithmetic_seconds"], per_image["traffic_seconds"]) / seconds,
        "profile": profile,
    }


def show(report: dict[str, Any]) -> list[Table | str]:
    """The numbers of `measure` as two tables."""
    parameters, each, rates = report["parameters"], report["per_image"], report["rates"]
    rows = [
        [name, f"{part['flops'] / 1e9:.1f}", f"{part['bytes'] / 1e6:.0f}"]
        for name, part in (report["parts"] | {"all": each}).items()
    ]
    rows.append(["at the machine's rate, s", f"{each['arithmetic_seconds']:.4f}", f"{each['traffic_seconds']:.4f}"])
    profile = [[row["name"], f"{row['share']:.1%}", str(row["calls"])] for row in report["profile"]]
    title = f"{parameters['backbone']}, {parameters['image_size']} pixels, {parameters['work']}: one radiograph"
    return [
        harness.table(title, ["part", "GFLOP", "MB moved"], rows),
        harness.table("where the time goes", ["operation", "share", "calls"], profile),
        f"this machine, --precision {parameters['precision']}: {rates['flops'] / 1e9:.0f} GFLOP/s in a product of "
        f"large matrices, {rates['bytes'] / 1e9:.1f} GB/s in a copy",
        f"measured: {each['seconds']:.4f} s a radiograph, {report['share']:.0%} of the ceiling",
    ]


class Subject:
    """A detector with weights that find about as much as trained ones, and a batch for it."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        self.dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        generator = torch.Generator().manual_seed(0)
        size, n = config.image_size, config.batch_size
        self.images = torch.randint(0, 256, (n, 1, size, size), dtype=torch.uint8, generator=generator).to(device)
        corner = torch.rand((n, 5, 2), generator=generator) * size * 0.6
        boxes = torch.cat([corner, corner + size * (0.05 + 0.3 * torch.rand((n, 5, 2), generator=generator))], dim=2)
        labels = torch.randint(1, len(FINDINGS) + 1, (n, 5), generator=generator)
        self.targets = [{"boxes": b.to(device), "labels": k.to(device)} for b, k in zip(boxes, labels, strict=True)]
        torch.manual_seed(0)
        theirs = torchvision_detector(len(FINDINGS), size, config.backbone)
        spread_weights(theirs, as_float_images(self.images[:1].cpu()))
        self.state = theirs.state_dict()
        self.model = self._detector()
        if config.work == "train":
            apply_norms_in_convolutions(self.model)
            speed_up_training(self.model)
        else:
            fold_batch_norms(self.model, self.images[:1])
            if device.type == "cpu":
                speed_up_inference(self.model)
        self.model.to(memory_format=torch.channels_last)

    def _detector(self) -> Detector:
        layers = 3 if self.config.work == "train" else 5
        model = build_detector(len(FINDINGS), self.config.image_size, self.config.backbone, trainable_layers=layers)
        model.load_state_dict(self.state, strict=False)
        return model.to(self.device).train(self.config.work == "train")

    def count(self) -> dict[str, dict[str, float]]:
        """Floating-point operations and bytes of each part, per radiograph.

        Operations are those of convolutions and matrix products, a multiplication and an addition counted as two. The
        bytes are those that pass through memory if each of these layers reads its input and weights and writes its
        output once; backward, a part of its own in training, is taken to move twice that.
        """
        model = self._detector()
        moved, hooks = self._count_bytes(model)
        forward, backward = FlopCounterMode(display=False), FlopCounterMode(display=False)
        with forward:
            loss = self._forward(model)
        for hook in hooks:
            hook.remove()
        n, counted = len(self.images), forward.get_flop_counts()
        parts = {
            name: {
                "flops": sum(counted.get(f"{type(model).__name__}.{path}", {}).values()) / n,
                "bytes": moved[path] / n,
            }
            for name, path in PARTS.items()
        }
        if loss is not None:
            with backward:
                loss.backward()
            parts["backward"] = {"flops": backward.get_total_flops() / n, "bytes": 2 * sum(moved.values()) / n}
        return parts

    def _count_bytes(self, model: nn.Module) -> tuple[dict[str, float], list[Any]]:
        moved: dict[str, float] = defaultdict(float)
        width = self.dtype.itemsize

        def counting(path: str) -> Callable[..., None]:
            def count(module: nn.Conv2d | nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                moved[path] += width * (inputs[0].numel() + output.numel() + module.weight.numel())

            return count

        hooks = [
            module.register_forward_hook(counting(path))
            for path in PARTS.values()
            for module in model.get_submodule(path).modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
        ]
        return moved, hooks

    def _forward(self, model: nn.Module) -> Tensor | None:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            if self.config.work == "infer":
                with torch.inference_mode():
                    model(self.images)
                return None
            return torch.stack(list(model(self.images, self.targets).values())).sum()

    def _pass(self) -> None:
        loss = self._forward(self.model)
        if loss is not None:
            loss.backward()
            self.model.zero_grad(set_to_none=True)

    def seconds(self, repeats: int) -> float:
        """Median time of a pass, per radiograph."""
        return statistics.median(_seconds_of(self._pass, self.device, repeats)) / len(self.images)

    def profile(self) -> list[dict[str, Any]]:
        """Name, share of all time and number of calls of the operations, in one pass; the slowest first."""
        on_gpu = self.device.type == "cuda"
        activities = [ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else it says when it starts, and that there is no GPU
        # Our convolutions on a CPU run in threads of their own.
        threads = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
        with torch.profiler.profile(activities=activities, experimental_config=threads) as profiler:
            self._pass()
            synchronize(self.device)
        rows = [
            (float(event.self_device_time_total if on_gpu else event.self_cpu_time_total), event.key, event.count)
            for event in profiler.key_averages()
            if (event.device_type == DeviceType.CUDA) == on_gpu
        ]
        rows.sort(reverse=True)
        total = sum(row[0] for row in rows) or 1.0
        listed = [{"name": name, "share": spent / total, "calls": calls} for spent, name, calls in rows[:ROWS]]
        rest = rows[ROWS:]
        share = sum(row[0] for row in rest) / total
        return [*listed, {"name": "all others", "share": share, "calls": sum(row[2] for row in rest)}]


def machine_rates(device: torch.device, dtype: torch.dtype, repeats: int) -> dict[str, float]:
    """The most operations a second that a product of large matrices reaches, and bytes a second that a copy moves."""
    n = 8192 if device.type == "cuda" else 2048
    one, other = (torch.randn((n, n), device=device, dtype=dtype) for _ in range(2))
    source = torch.zeros(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)

    product = min(_seconds_of(lambda: one @ other, device, repeats))
    copy = min(_seconds_of(lambda: target.copy_(source), device, repeats))
    return {"flops": 2 * n**3 / product, "bytes": 2 * source.nbytes / copy}


def _seconds_of(work: Callable[[], Any], device: torch.device, repeats: int) -> list[float]:
    """Of each of `repeats` runs, after one that is not counted."""

    def run() -> None:
        work()
        synchronize(device)

    run()
    return [timed(1, run).seconds for _ in range(repeats)]
