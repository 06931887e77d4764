"""How models are run: the runtime and the arithmetic, as far as flags, devices and earlier commands decide them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from xray.errors import InputError, need
from xray.inference.ensemble_file import files_of, is_ensemble
from xray.inference.openvino_files import (
    INT8,
    INT8_FILE,
    KEPT,
    file_beside,
    measured_in,
    models_beside,
    openvino_file,
    value_in,
)
from xray.inference.pipeline import Pipeline
from xray.inference.pipeline_loading import load_pipeline
from xray.inference.remembered import Choice, recall
from xray.models.device import has_bfloat16, inference_precision, resolve_device
from xray.storage.places import as_given
from xray.structures.triplet import Triplet

NAMES = {torch.float32: "32", torch.bfloat16: "bf16", torch.float16: "16"}
DTYPES = {name: dtype for dtype, name in NAMES.items()} | {INT8: torch.float32}
"""Parts of a model that are not in 8 bits are in float32."""

WORTH_A_TRIAL = 64
"""From this many radiographs on, a trial is worth its time."""
OPENING = 0.5
"""Seconds that OpenVINO takes to be imported and to open a compiled model; a smaller gain is not worth it."""


@dataclasses.dataclass(frozen=True)
class Way:
    """runtime: "torch", "onnx" or "openvino". precision: "32", "bf16", "16", "int8"; "auto": the file has its own."""

    runtime: str
    precision: str

    @property
    def name(self) -> str:
        """For the user, such as "bf16", "int8" or "32 by OpenVINO"."""
        return f"{self.precision} by OpenVINO" if self.runtime == "openvino" and self != QUANTISED else self.precision


QUANTISED = Way("openvino", INT8)
PLAIN = Way("torch", "32")


@dataclasses.dataclass(frozen=True)
class Start:
    """way: how models are loaded. dtype: their type after that; None where a trial must choose.

    why: a line for the user; empty where there is none. models: the entries of `models_beside` that are used.
    """

    way: Way
    dtype: torch.dtype | None
    why: str = ""
    models: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Models:
    """The paths of --weights, and the flags that say how they are run, with the values of these flags.

    options: further arguments of `load_pipeline` by name: flips, gate, gate_threshold, triplet, prune, scales.
    """

    weights: tuple[Path, ...]
    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_flags(cls, config: Any) -> "Models":
        """The same from the flags of `xray infer`."""
        options = {
            "flips": config.tta,
            "gate": config.gate,
            "gate_threshold": config.gate_threshold,
            "triplet": Triplet(*config.triplet) if config.triplet else None,
            "prune": config.prune,
            "scales": config.scales,
        }
        weights = tuple(map(Path, config.weights))
        if config.engine != "local":
            # A cluster's nodes have devices of their own; here the models are only loaded, to see that they can be.
            return cls(weights, "cpu", "32", "torch", options)
        return cls(weights, config.device, config.precision, config.runtime, options)

    @property
    def runs(self) -> list[Path]:
        """The run directories, and an ensemble.yaml first."""
        return files_of(self.weights)

    def load(self, way: Way) -> Pipeline:
        """The pipeline, run in this way; not lowered yet. Raises InputError as `load_pipeline` does."""
        device, _ = place_of(self.device, way.precision, way.runtime)
        named: Any = way.runtime
        return load_pipeline(self.weights, device, runtime=named, precision=way.precision, **self.options)

    def others(self) -> dict[Way, tuple[str, ...]]:
        """OpenVINO's ways that a trial may choose in place of PyTorch's, each with the models that it needs."""
        is_whole = not self.options.get("prune") and tuple(self.options.get("scales", (1.0,))) == (1.0,)
        if (self.runtime, self.precision) != ("auto", "auto") or not is_whole:
            return {}
        ways: dict[Way, tuple[str, ...]] = {}
        for name, models in models_beside(self.runs).items():
            for precision in (INT8,) if name == INT8 else ("32", "bf16") if has_bfloat16() else ("32",):
                ways[Way("openvino", precision)] = models
        return ways

    def measured(self) -> list[dict[str, Any]]:
        """For each run, the measurements of its INT8 model when that was made."""
        files = [file_beside(run, INT8_FILE) for run in self.runs if run.is_dir()]
        return [measured_in(path) if path else {} for path in files]

    def start(self, n: int | None = None) -> Start:
        """The decision of flags, device and earlier commands.

        n: radiographs to come, None where there may be any number; fewer than `WORTH_A_TRIAL` make no trial.
        Raises InputError for what this machine, or this installation, cannot do.
        """
        device, dtype = place_of(self.device, self.precision, self.runtime)
        runtime = runtime_for(self.runtime, self.precision)
        if runtime == "openvino" and self.precision in ("auto", INT8):
            files = [openvino_file(run, self.precision) for run in self.runs if not is_ensemble(run)]
            if measurements := [f"{words} ({as_given(path)})" for path in files if (words := kept_in(path))]:
                models = models_beside(self.runs).get(INT8, ())
                why = f"precision {INT8}: {', '.join(measurements)}"
                if torch.cuda.is_available():
                    why += "; computed on the CPU, the GPU of this machine is left alone"
                return Start(Way("openvino", self.precision), torch.float32, why, models)
        if self.precision != "auto" or device.type == "cuda" or runtime == "onnx":
            return Start(
                Way(runtime, self.precision if dtype is None or self.precision == INT8 else NAMES[dtype]), dtype
            )
        is_short = n is not None and n < WORTH_A_TRIAL
        if remembered := recall(self.runs, self.runtime):
            choice, file = remembered
            others = {way: models for way, models in self.others().items() if not is_short or way == _way(choice)}
            known = {name for models in others.values() for name in models}
            is_there = choice.runtime == runtime or others.get(_way(choice)) == choice.models
            if is_there and (n is None or is_short or known <= set(choice.considered)):
                return _as_remembered(choice, file, n)
        if dtype is None or (not is_short and self.others()):
            # A server, or the Python API, makes no trial, as the radiographs to come are not known.
            dtype = torch.float32 if is_short or n is None else None
        return Start(Way(runtime, "auto"), dtype)


def _as_remembered(choice: Choice, file: Path, n: int | None) -> Start:
    where = f"(remembered in {as_given(file)})"
    way = _way(choice)
    if way.runtime == "openvino" and choice.saved and n is not None and n * choice.saved < OPENING:
        why = f"precision 32: of {n} radiograph{'s' * (n > 1)} {way.name} would save less time than it takes to open"
        return Start(PLAIN, torch.float32, f"{why} {where}")
    return Start(way, DTYPES[choice.precision], f"precision {way.name}: {choice.why} {where}", choice.models)


def _way(choice: Choice) -> Way:
    return Way(choice.runtime, choice.precision)


def kept_in(path: Path) -> str:
    """Of an INT8 file, the metric before and after in words; empty for another file."""
    return value_in(path, KEPT) if path.suffix == ".xml" else ""


def runtime_for(runtime: str, precision: str) -> str:
    """The runtime to begin with, for --runtime and --precision: for auto PyTorch, or OpenVINO with --precision int8."""
    return ("openvino" if precision == INT8 else "torch") if runtime == "auto" else runtime


def place_of(device: str, precision: str, runtime: str = "torch") -> tuple[torch.device, torch.dtype | None]:
    """The device and the precision of the models; None for a precision that a trial is to choose. Values are those of
    the flags.

    Raises InputError for what this machine, or this installation, cannot do.
    """
    if runtime_for(runtime, precision) == "openvino":
        flag = "--runtime openvino" if runtime == "openvino" else f"--precision {precision}"
        need(flag, "openvino", "openvino")
        if device not in ("auto", "cpu"):
            other = "another runtime" if runtime == "openvino" else "leave --precision out"
            raise InputError(f"--device {device}, but {flag} computes on the CPU: use --device cpu, or {other}")
        cpu = torch.device("cpu")
        return cpu, torch.float32 if precision == INT8 else inference_precision(precision, cpu)
    if runtime == "onnx":
        need("--runtime onnx", "export", "onnx", "onnxruntime")
        from xray.inference.onnx_runtime import onnx_device

        return onnx_device(device), torch.float32
    place = resolve_device(device)
    return place, inference_precision(precision, place)


def considered(others: Mapping[Way, Sequence[str]]) -> tuple[str, ...]:
    """The ways that a trial could choose beside PyTorch's, for `Choice`."""
    return tuple(dict.fromkeys(name for models in others.values() for name in models))
