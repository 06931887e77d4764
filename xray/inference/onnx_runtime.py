"""Models in ONNX files, run by onnxruntime in the places of PyTorch's.

Such a file comes from `xray.export.onnx`, or from strangers: before it runs it is compared with its own description.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from xray.errors import InputError
from xray.inference.loaded import Loaded, LoadedDetector, LoadedPair, LoadedSegmenter, loaded_of
from xray.inference.shared_trunk import RUN_TASK
from xray.models.weights import MODEL_FILE, WEIGHTS_FILE, load_deployed

ONNX_FILE = "model.onnx"
"""Beside the others in a run directory."""
DESCRIPTION, WEIGHTS = "xray.description", "xray.weights"
"""Keys in a file's metadata: model.json, and the SHA-256 of the model.safetensors that it was made from."""
INPUT = "canvases"
OUTPUTS = {"detection": ("boxes", "labels", "scores"), "segmentation": ("masks",), "classification": ("probabilities",)}
"""Names of the outputs of each task; two heads on one trunk have the first two tasks'."""
MOST_BYTES = 2**31 - 1
"""Protocol buffers cannot be larger."""


class OnnxNetwork(nn.Module):
    """Some outputs of a session, in the shapes of `Detector`, `Segmenter`, `Classifier` or `DetectorWithMask`."""

    def __init__(self, session: onnxruntime.InferenceSession, tasks: tuple[str, ...]) -> None:
        super().__init__()
        self.session, self.tasks = session, tasks
        # Tells where canvases are handed over: in main memory, whatever onnxruntime computes on.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, images: Tensor) -> Any:
        """(B, 1, S, S) uint8 → detections, logits, or both, as the models of PyTorch return them."""
        names = [name for task in self.tasks for name in OUTPUTS[task]]
        values = map(torch.from_numpy, self.session.run(names, {INPUT: images.numpy()}))
        outputs = dict(zip(names, values, strict=True))
        heads = [
            _detections(outputs) if task == "detection" else outputs[OUTPUTS[task][0]].logit() for task in self.tasks
        ]
        return heads[0] if len(heads) == 1 else tuple(heads)


def _detections(outputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    # What follows the last detection has score 0.
    numbers = (outputs["scores"] > 0).sum(1).tolist()
    return [{name: outputs[name][image, :n] for name in OUTPUTS["detection"]} for image, n in enumerate(numbers)]


def onnx_file(weights: Path) -> Path:
    """A file, or the one in a run directory. Raises InputError if it is not there."""
    if weights.is_file():
        return weights
    if not weights.exists():
        raise InputError(f"no ONNX file or run directory at {weights}: give what tools/export.py --format onnx wrote")
    if not (weights / ONNX_FILE).is_file():
        raise InputError(
            f"{weights} holds no {ONNX_FILE}: write it with python tools/export.py --weights {weights} --format onnx"
        )
    return weights / ONNX_FILE


def onnx_device(device: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` → where onnxruntime is to compute. Raises InputError if it cannot."""
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    wanted = torch.device(device)
    if wanted.type == "cuda" and not has_cuda:
        raise InputError(
            f"--device {device}, but this onnxruntime has no CUDAExecutionProvider: install onnxruntime-gpu in its "
            "place, or use --device cpu"
        )
    return wanted


def load_onnx(weights: Path, device: torch.device) -> tuple[list[tuple[str, Loaded]], tuple[LoadedPair, ...]]:
    """An ONNX file or a run directory with one → as `load_run`, and the pair where two heads share a trunk.

    Of a run directory, model.json has the thresholds, which may have been fitted since the export.
    Raises InputError if there is no such file, it is not of `xray.export.onnx`, is damaged, does not hold what its
    description says, or was made from other weights than the run directory has now.
    """
    path = onnx_file(weights)
    content, metadata = _read(path)
    description = _described(path, weights, metadata)
    session = _session(path, content, device)
    try:
        joined = description["task"] == RUN_TASK
        parts = [description["detection"], description["segmentation"]] if joined else [description]
        tasks = tuple(part["task"] for part in parts)
        if tasks != (("detection", "segmentation") if joined else (tasks[0],)) or not set(tasks) <= set(OUTPUTS):
            raise ValueError(f"its task is {' and '.join(map(str, tasks))}")
        loaded = [(part["task"], loaded_of(part, OnnxNetwork(session, (part["task"],)))) for part in parts]
        _check_shapes(session, loaded)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} does not hold the model that its description tells of: {reason}") from None
    if not joined:
        return loaded, ()
    (_, detector), (_, segmenter) = loaded
    assert isinstance(detector, LoadedDetector)
    assert isinstance(segmenter, LoadedSegmenter)
    return loaded, (LoadedPair(detector, segmenter, OnnxNetwork(session, tasks)),)


def _read(path: Path) -> tuple[bytes, dict[str, str]]:
    """The file's bytes and metadata. Raises InputError for what onnxruntime should not be given."""
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path} has more than 2 GiB: it is no ONNX file")
    content = path.read_bytes()
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception:  # a class of protobuf's, which is no dependency of ours
        raise InputError(f"{path} is no ONNX file, or is cut short: export it again") from None
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if DESCRIPTION not in metadata:
        raise InputError(
            f"{path} does not say what it finds (no {DESCRIPTION} in its metadata): give a file of tools/export.py "
            "--format onnx"
        )
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto) and (message.external_data or message.data_location):
            # They are paths, which lead to any file of whoever runs this.
            raise InputError(f"{path} keeps tensors in other files: only files that hold all of theirs are read")
        if isinstance(message, onnx.NodeProto) and message.domain not in ("", "ai.onnx"):
            raise InputError(f"{path} uses operators that are not ONNX's own ({message.domain[:80]})")
    return content, metadata


def _messages(message: Any) -> Iterator[Any]:
    """A message of protocol buffers and all within it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _messages(part)


def _described(path: Path, weights: Path, metadata: dict[str, str]) -> dict[str, Any]:
    try:
        description = json.loads(metadata[DESCRIPTION])
        if not isinstance(description["task"], str):
            raise ValueError("it names no task")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"the description in {path} is damaged ({error}): export it again") from None
    if weights.is_dir() and all((weights / name).is_file() for name in (WEIGHTS_FILE, MODEL_FILE)):
        if metadata.get(WEIGHTS) != sha256_of(weights / WEIGHTS_FILE):
            raise InputError(
                f"{path} was made from other weights than {weights} has now: write it again with python "
                f"tools/export.py --weights {weights} --format onnx --overwrite"
            )
        return load_deployed(weights)[0]
    return description


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _session(path: Path, content: bytes, device: torch.device) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # the cores, unless OMP_NUM_THREADS says less
    # As PyTorch's threads here: one that waits leaves its core to others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what goes wrong is raised, too
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": str(device.index or 0)}))
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # each of onnxruntime's is a class of its own
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"onnxruntime {onnxruntime.__version__} cannot run {path}: {reason}") from None
    if device.type == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise InputError(f"--device {device}, but onnxruntime could not use the GPU: check the driver, or use cpu")
    return session


def _check_shapes(session: onnxruntime.InferenceSession, loaded: list[tuple[str, Loaded]]) -> None:
    """Raises ValueError unless input and outputs are those of these models."""
    (size,) = {model.canvas_size for _, model in loaded}
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for _, model in loaded:
        if isinstance(model, LoadedDetector):
            kinds = {"boxes": ("tensor(float)", (4,)), "labels": ("tensor(int64)", ()), "scores": ("tensor(float)", ())}
            expected |= kinds
        elif isinstance(model, LoadedSegmenter):
            expected["masks"] = ("tensor(float)", (len(model.categories), size, size))
        else:
            expected["probabilities"] = ("tensor(float)", (len(model.labels),))
    # Before these sides stand radiographs, and of a detector its boxes.
    n_leading = {name: 2 if name in OUTPUTS["detection"] else 1 for name in expected}
    outputs = {o.name: (o.type, tuple(o.shape[n_leading.get(o.name, 1) :])) for o in session.get_outputs()}
    if outputs != expected:
        raise ValueError(f"its outputs are {outputs}")
    inputs = [(value.name, value.type, tuple(value.shape[1:])) for value in session.get_inputs()]
    if inputs != [(INPUT, "tensor(uint8)", (1, size, size))]:
        raise ValueError(f"its inputs are {inputs}")
