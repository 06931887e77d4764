"""Files of exported models, whatever runs them: their inputs and outputs, and their description.

A file's metadata hold model.json and the SHA-256 of the weights that it was made from.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xray.errors import InputError
from xray.file_names import MODEL_FILE, WEIGHTS_FILE
from xray.inference.loaded import RUN_TASK, Loaded, LoadedDetector, LoadedPair, LoadedSegmenter, loaded_of
from xray.inference.openvino_files import WEIGHTS, sha256_of
from xray.models.weights import load_deployed

DESCRIPTION = "xray.description"
"""Key in a file's metadata: model.json."""
INPUT = "canvases"
OUTPUTS = {"detection": ("boxes", "labels", "scores"), "segmentation": ("masks",), "classification": ("probabilities",)}
"""Names of the outputs of each task; two heads on one trunk have those of the first two tasks."""


class ExportedNetwork(nn.Module):
    """Some outputs of an exported model, in the shapes of `Detector`, `Segmenter`, `Classifier`, `DetectorWithMask`.

    runtime: name of what runs it. is_int8: whether it was quantised.
    """

    runtime = "onnx"
    is_int8 = False

    def __init__(self, tasks: tuple[str, ...]) -> None:
        super().__init__()
        self.tasks = tasks
        # Canvases are handed over in main memory, wherever the model computes.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    @property
    def kept(self) -> str:
        """For a quantised model, a sentence with its metric before and after, and its file."""
        return ""

    def lower(self, precision: torch.dtype) -> None:
        """Computes in this precision from now on."""
        raise NotImplementedError

    def outputs(self, names: list[str], images: Tensor) -> list[Any]:
        """NumPy arrays of these outputs for images (B, 1, S, S) uint8."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Any:
        """(B, 1, S, S) uint8 → detections, logits, or both, as the models of PyTorch return them."""
        names = [name for task in self.tasks for name in OUTPUTS[task]]
        values = map(torch.from_numpy, self.outputs(names, images))
        outputs = dict(zip(names, values, strict=True))
        heads = [
            _detections(outputs) if task == "detection" else outputs[OUTPUTS[task][0]].logit() for task in self.tasks
        ]
        return heads[0] if len(heads) == 1 else tuple(heads)


def _detections(outputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    # Entries after the last detection have score 0.
    numbers = (outputs["scores"] > 0).sum(1).tolist()
    return [{name: outputs[name][image, :n] for name in OUTPUTS["detection"]} for image, n in enumerate(numbers)]


def described(path: Path, weights: Path, metadata: Mapping[str, str], again: str) -> dict[str, Any]:
    """The description of the model in a file: the file's own, or where `weights` is a run directory, that run's.

    Of a run directory, model.json has the thresholds, which may have been fitted since the export.
    again: the command that writes the file, for messages. Raises InputError for a damaged description, and where the
    run now has other weights.
    """
    try:
        description = json.loads(metadata[DESCRIPTION])
        if not isinstance(description["task"], str):
            raise ValueError("it names no task")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"the description in {path} is damaged ({error}): export it again") from None
    if weights.is_dir() and all((weights / name).is_file() for name in (WEIGHTS_FILE, MODEL_FILE)):
        if metadata.get(WEIGHTS) != sha256_of(weights / WEIGHTS_FILE):
            raise InputError(
                f"{path} was made from other weights than {weights} has now: write it again with {again} --overwrite"
            )
        return load_deployed(weights)[0]
    return description


def models_of(
    path: Path,
    description: dict[str, Any],
    network: Callable[[tuple[str, ...]], ExportedNetwork],
    check: Callable[[list[tuple[str, Loaded]]], None],
) -> tuple[list[tuple[str, Loaded]], tuple[LoadedPair, ...]]:
    """The models that a file's description names, and the pair where two heads share a trunk.

    network: makes the network of some tasks. check: raises ValueError unless inputs and outputs are those of these
    models.
    Raises InputError where the file does not hold what its description says.
    """
    try:
        joined = description["task"] == RUN_TASK
        parts = [description["detection"], description["segmentation"]] if joined else [description]
        tasks = tuple(part["task"] for part in parts)
        if tasks != (("detection", "segmentation") if joined else (tasks[0],)) or not set(tasks) <= set(OUTPUTS):
            raise ValueError(f"its task is {' and '.join(map(str, tasks))}")
        loaded = [(part["task"], loaded_of(part, network((part["task"],)))) for part in parts]
        check(loaded)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} does not hold the model that its description names: {reason}") from None
    if not joined:
        return loaded, ()
    (_, detector), (_, segmenter) = loaded
    assert isinstance(detector, LoadedDetector)
    assert isinstance(segmenter, LoadedSegmenter)
    return loaded, (LoadedPair(detector, segmenter, network(tasks)),)


def check_bits(run: Path, description: dict[str, Any]) -> None:
    """Raises InputError for a run whose canvases have 16 bits: exported models take uint8."""
    bits = description.get("detection", description).get("bits", 8)
    if bits != 8:
        raise InputError(
            f"{run} was trained on canvases of {bits} bits, and exported models take 8: run it with --runtime torch, "
            "or train on a dataset converted with --bits 8"
        )


def expected_outputs(loaded: list[tuple[str, Loaded]]) -> tuple[int, dict[str, tuple[str, tuple[int, ...]]]]:
    """The canvas's side, and name of each output → "float" or "int64", and the sides after radiographs and boxes."""
    (size,) = {model.canvas_size for _, model in loaded}
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for _, model in loaded:
        if isinstance(model, LoadedDetector):
            expected |= {"boxes": ("float", (4,)), "labels": ("int64", ()), "scores": ("float", ())}
        elif isinstance(model, LoadedSegmenter):
            expected["masks"] = ("float", (len(model.categories), size, size))
        else:
            expected["probabilities"] = ("float", (len(model.labels),))
    return size, expected


def n_leading(name: str) -> int:
    """Sides of an output before those of `expected_outputs`: radiographs, and of a detector its boxes."""
    return 2 if name in OUTPUTS["detection"] else 1
