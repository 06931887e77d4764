"""Benchmark `segment`: masks of radiographs a second through a U-Net, against segmentation-models-pytorch's own."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import segmentation_models_pytorch as smp
import torch
from rich.table import Table
from torch import Tensor, nn

from benchmarks import harness
from benchmarks.harness import Timing, refuse, timed
from benchmarks.material import open_material
from benchmarks.processes import Contender
from benchmarks.runs import exported_pipeline, write_run
from xray.findings import FINDINGS, PNEUMOTHORAX
from xray.inference.pipeline_loading import load_pipeline
from xray.inference.precision import is_quantised
from xray.inference.trial import lowered
from xray.models.device import inference_precision, keep_freed_memory, resolve_device
from xray.models.segmentation.segmenter import build_segmenter
from xray.models.weights import load_deployed

PEERS = {
    "smp": "SMP, eager",
    "smp-channels-last": "SMP, eager, channels last",
    "smp-bf16": "SMP, channels last, autocast to bfloat16",
}
TOLERANCE = {"32": 1e-4, "bf16": 0.1}
"""Mean difference of a pixel's probability from SMP's in float32. Random weights amplify rounding."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, as SMP's `get_preprocessing_params` has them, which asks the network for them."""
SPREAD = 2.0
"""Standard deviation of the logits."""


@dataclasses.dataclass(frozen=True)
class Config(harness.DatasetFlags):
    """Inference of a U-Net with our pipeline against segmentation-models-pytorch (SMP).

    Both have the same weights and batches, start from canvases of one byte a pixel and end with probabilities in the
    CPU's memory; that these are the same is checked first.
    """

    n_images: harness.FourOrMore = 4
    """Radiographs: of the dataset the first ones."""
    image_size: harness.CanvasSize = 512
    """Side of the canvas of phantoms, in pixels."""
    batch_size: harness.BatchSize = 2
    """Radiographs per pass, of all sides."""
    encoder: str = "resnet34"
    """Encoder of the U-Net, as SMP names it."""
    peers: tuple[Literal["smp", "smp-channels-last", "smp-bf16"], ...] = ("smp", "smp-channels-last")
    """SMP as its documentation runs it, in the memory format that PyTorch recommends, and in bfloat16 in that."""
    precision: Literal["32", "bf16"] = "32"
    """Arithmetic of ours."""
    runtimes: tuple[Literal["onnx", "openvino", "openvino-int8"], ...] = ()
    """What else runs the same weights, as in the benchmark `infer`."""


def main(config: Config) -> None:
    """Measures, prints a table and writes the JSON file."""
    harness.benchmark("segment", config, measure, show, ["torch", "segmentation-models-pytorch", "timm"])


def measure(config: Config, folder: Path, tell: harness.Tell) -> dict[str, Any]:
    """Runs the benchmark in `folder` and returns all its numbers.

    Raises InputError if there is no dataset, or the sides do not find the same.
    """
    device = resolve_device(config.device)
    tell("preparing radiographs and weights")
    size = prepare(config, folder)
    makers: dict[str, Callable[..., Side]] = {"ours": Ours}
    makers |= {name: functools.partial(Exported, name) for name in config.runtimes}
    makers |= {name: functools.partial(Theirs, name) for name in dict.fromkeys(("smp", *config.peers))}
    # Each in a process of its own: ours changes how memory is handed out, which must not help the others.
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(Contender(make, config, device.type, folder)) for name, make in makers.items()
        }
        tell("checking that all find the same")
        maps = {name: side.call("probabilities", True) for name, side in sides.items()}
        kinds = {name: side.call("kind") for name, side in sides.items()}
        agreement = {name: check(name, maps[name], maps["smp"], kinds[name]) for name in sides if name != "smp"}
        contenders = {name: functools.partial(side.call, "time") for name, side in sides.items()}
        timings = harness.alternate(contenders, config.repeats, tell)
    ours = ("ours", *config.runtimes)
    pairs = [(name, peer) for name in ours for peer in makers if peer not in ours]
    return {
        "parameters": {"image_size": size, "device": device.type},
        "agreement": agreement,
        "results": [harness.entry(f"U-Net, {config.encoder}", timings, pairs)],
    }


def show(report: dict[str, Any]) -> list[Table | str]:
    """The numbers of `measure` as a table."""
    return [
        harness.table_of(report["results"], "Inference of masks", PEERS),
        "difference of a pixel's probability from SMP's in float32, mean and largest: "
        + ", ".join(f"{name} {each['mean']:.1g}, {each['largest']:.1g}" for name, each in report["agreement"].items()),
    ]


def prepare(config: Config, folder: Path) -> int:
    """Writes what all sides read into `folder`, canvases.npy and run/; returns the side of the canvas."""
    store, rows = open_material(config.data_path, folder, config.n_images, config.image_size, harness.n_cores())
    assert store.images is not None
    canvases = np.asarray(store.images[rows])
    np.save(folder / "canvases.npy", canvases)
    torch.manual_seed(0)
    model = build_segmenter("unet", config.encoder)
    settle(model, torch.from_numpy(canvases[:2, None]))
    description = {
        "task": "segmentation",
        "architecture": {"architecture": "unet", "encoder": config.encoder},
        "categories": {str(PNEUMOTHORAX + 1): FINDINGS[PNEUMOTHORAX]},
        "canvas_size": store.canvas_size,
        "thresholds": {"mask": 0.5},
    }
    write_run(folder / "run", description, model.state_dict())
    return store.canvas_size


@torch.no_grad()
def settle(model: nn.Module, canvases: Tensor) -> None:
    """Gives random weights the statistics of a trained network: those of these canvases in its norms, spread logits."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # an average over what is seen
            module.reset_running_stats()
    model.train()
    model(canvases)
    model.eval()
    logits = model(canvases)
    last: Any = model.segmentation_head[0]  # type: ignore[index]  # a Sequential
    factor = SPREAD / logits.std()
    last.weight.mul_(factor)
    last.bias.copy_(factor * (last.bias - logits.mean()))


class Side:
    """One of the contenders, with what all work on."""

    def __init__(self, config: Config, device: str, folder: Path) -> None:
        self.config, self.device, self.folder = config, torch.device(device), folder
        self.canvases = np.load(folder / "canvases.npy")

    def find(self, canvases: np.ndarray) -> np.ndarray:
        """(B, S, S) uint8 → (B, K, S, S) float32 in [0, 1]."""
        raise NotImplementedError

    def kind(self) -> str:
        """What it computes in."""
        return self.config.precision

    def probabilities(self, exact: bool = False) -> np.ndarray:
        """Of all canvases, (N, K, S, S). exact: a GPU computes in all of float32, which by default it does not."""
        torch.backends.cudnn.allow_tf32 = not exact
        size = self.config.batch_size
        return np.concatenate(
            [self.find(self.canvases[start : start + size]) for start in range(0, len(self.canvases), size)]
        )

    def time(self) -> Timing:
        """Of all radiographs. The probabilities stay here: they need not travel."""
        return dataclasses.replace(timed(len(self.canvases), self.probabilities), result=None)


class Ours(Side):
    """Our pipeline, as tools/infer.py sets it up."""

    def __init__(self, config: Config, device: str, folder: Path) -> None:
        super().__init__(config, device, folder)
        dtype = inference_precision(config.precision, self.device)
        assert dtype is not None
        self.pipeline = lowered(load_pipeline([folder / "run"], self.device, flips=False), dtype)
        if self.device.type == "cpu":
            keep_freed_memory()

    def find(self, canvases: np.ndarray) -> np.ndarray:
        """(B, S, S) uint8 → (B, K, S, S) float32 in [0, 1]."""
        return self.pipeline.forward(canvases).masks[0]


class Exported(Ours):
    """Our pipeline with the model run by onnxruntime or OpenVINO."""

    def __init__(self, runtime: str, config: Config, device: str, folder: Path) -> None:
        Side.__init__(self, config, device, folder)
        self.pipeline = exported_pipeline(folder / "run", runtime, self.canvases, config.precision)

    def kind(self) -> str:
        """What it computes in."""
        return "int8" if is_quantised(self.pipeline) else self.config.precision


class Theirs(Side):
    """SMP's own U-Net with the same weights."""

    def __init__(self, way: str, config: Config, device: str, folder: Path) -> None:
        super().__init__(config, device, folder)
        self.model = smp.Unet(config.encoder, encoder_weights=None, in_channels=3, classes=1)
        self.model.load_state_dict(load_deployed(folder / "run")[1])
        self.is_bf16 = way == "smp-bf16"
        layout = torch.contiguous_format if way == "smp" else torch.channels_last
        self.model.eval().to(self.device, memory_format=layout)
        self.mean, self.std = (torch.tensor(each, device=self.device).view(1, 3, 1, 1) for each in (MEAN, STD))

    def kind(self) -> str:
        """What it computes in."""
        return "bf16" if self.is_bf16 else "32"

    @torch.inference_mode()
    def find(self, canvases: np.ndarray) -> np.ndarray:
        """(B, S, S) uint8 → (B, K, S, S) float32 in [0, 1]."""
        grey = torch.from_numpy(canvases)[:, None].to(self.device)
        images = (grey.expand(-1, 3, -1, -1) / 255 - self.mean) / self.std
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bf16):
            logits = self.model(images)
        return logits.float().sigmoid().cpu().numpy()


def check(name: str, maps: np.ndarray, theirs: np.ndarray, kind: str) -> dict[str, float]:
    """The largest and the mean difference of a pixel's probability.

    kind: "32", "bf16", or "int8", whose differences are told and not judged. Raises InputError where the mean is more
    than what such arithmetic makes.
    """
    differences = np.abs(maps - theirs)
    mean = float(differences.mean())
    if not mean <= TOLERANCE.get(kind, 1.0):
        raise refuse(f"the probabilities of {name} differ from SMP's by {mean:.2g} on average")
    return {"largest": float(differences.max()), "mean": mean}
