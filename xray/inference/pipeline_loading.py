"""Which trained models work together in a pipeline, and how they are loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from xray.errors import InputError
from xray.findings import FINDINGS, PNEUMOTHORAX
from xray.inference.ensemble import ByCategory
from xray.inference.ensemble_file import expanded
from xray.inference.loaded import (
    HALF,
    LoadedClassifier,
    LoadedDetector,
    LoadedPair,
    LoadedSegmenter,
    load_run,
    pairs_on_one_trunk,
    prepare,
)
from xray.inference.pipeline import GATE, Pipeline
from xray.structures.triplet import Triplet


def load_pipeline(
    runs: Sequence[Path],
    device: torch.device,
    flips: bool = True,
    gate: Literal["soft", "hard"] = "soft",
    gate_threshold: float | None = None,
    triplet: Triplet | None = None,
    prune: int = 0,
    runtime: Literal["torch", "onnx", "openvino"] = "torch",
    scales: Sequence[float] = (1.0,),
    precision: str = "auto",
) -> Pipeline:
    """Loads run directories of any tasks onto a device.

    runs: one of them may be an ensemble.yaml, which brings the detectors and, beside classifiers, how they are fused.
    gate_threshold, triplet: None for the fitted values of the first segmenter's run; without these, 0.5.
    prune: level to which U-Net++ are cut; 0 leaves them whole. runtime: what runs the models; onnx and
    openvino take files, too, and look for one in each run directory. scales: as `Pipeline` has them. precision: for
    openvino, decides which of its files is taken.
    Raises InputError if a path is no run, or models of one task find different categories.
    """
    if not runs:
        raise InputError("no run directory given: name at least one after --weights")
    loaded: dict[str, list[Any]] = {"detection": [], "segmentation": [], "classification": []}
    pairs: tuple[LoadedPair, ...] = ()
    ensemble, numbered = expanded(runs)
    members: list[int] = []
    for run, member in numbered:
        models_of_run, pairs_of_run = _load(run, device, prune, runtime, precision)
        pairs += pairs_of_run
        for task, model in models_of_run:
            loaded[task].append(model)
            if task != "classification" and model.categories != loaded[task][0].categories:
                raise InputError(
                    f"{run} finds other categories than {numbered[0][0]}: models of one ensemble must agree on them"
                )
            if task == "detection":
                members.append(member)
        if ensemble and (member < 0) == any(task == "detection" for task, _ in models_of_run):
            raise InputError(
                f"{run} is a detector beside an ensemble: tune with it, or leave it out"
                if member < 0
                else f"{run} is no detector, and an ensemble has it among its models"
            )
    detectors, segmenters, classifiers = (tuple(models) for models in loaded.values())
    if detectors and segmenters and not _finds_pneumothorax(detectors[0], segmenters[0]):
        raise InputError(
            "a segmenter beside a detector refines its pneumothorax boxes: the detector must know Pneumothorax, the "
            "segmenter nothing else"
        )
    categories = (detectors or segmenters)[0].categories if detectors or segmenters else _label_categories(classifiers)
    fitted = segmenters[0] if segmenters else None
    if gate_threshold is None:
        gate_threshold = fitted.gate if fitted and fitted.gate is not None else GATE
    if runtime == "torch":
        pairs = pairs_on_one_trunk(detectors, segmenters)  # before their tensors change
        for model in (*detectors, *segmenters, *classifiers):
            prepare(model, device)
    return Pipeline(
        detectors,
        categories,
        flips,
        segmenters=segmenters,
        classifiers=classifiers,
        triplet=triplet or (fitted.triplet if fitted else HALF),
        gate=gate,
        gate_threshold=gate_threshold,
        pairs=pairs,
        scales=tuple(scales),
        settings=ensemble.by_category(categories) if ensemble else ByCategory(),
        members=tuple(members) if ensemble else (),
    )


def _load(
    run: Path, device: torch.device, prune: int, runtime: str, precision: str
) -> tuple[Sequence[tuple[str, Any]], tuple[LoadedPair, ...]]:
    """The models of one path, each with its task, and the pairs of them on one trunk; arguments of `load_pipeline`."""
    if runtime == "onnx":
        from xray.inference.onnx_runtime import load_onnx

        return load_onnx(run, device)
    if runtime == "openvino":
        from xray.inference.openvino_runtime import load_openvino

        return load_openvino(run, precision)
    if run.suffix in (".onnx", ".xml"):
        kind, name = ("an ONNX", "onnx") if run.suffix == ".onnx" else ("an OpenVINO", "openvino")
        raise InputError(f"{run} is {kind} file: add --runtime {name}, or give the run directory it was made from")
    return load_run(run, device, prune), ()


def _label_categories(classifiers: Sequence[LoadedClassifier]) -> dict[int, str]:
    categories: dict[int, str] = {}
    for classifier in classifiers:
        for number, name in classifier.categories.items():
            if categories.setdefault(number, name) != name:
                raise InputError(
                    f"category {number} is {categories[number]} to one classifier and {name} to another: models of one "
                    "ensemble must agree on them"
                )
    return dict(sorted(categories.items()))


def _finds_pneumothorax(detector: LoadedDetector, segmenter: LoadedSegmenter) -> bool:
    name = FINDINGS[PNEUMOTHORAX]
    return name in detector.categories.values() and list(segmenter.categories.values()) == [name]
