"""Models in ONNX files, run by onnxruntime in the places of PyTorch's.

Such a file comes from `xray.export.onnx`, or from somebody else: before it runs, its content is compared with its own
description.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor

from xray.errors import InputError, spelled
from xray.inference.exported import (
    DESCRIPTION,
    INPUT,
    ExportedNetwork,
    described,
    expected_outputs,
    models_of,
    n_leading,
)
from xray.inference.loaded import Loaded, LoadedPair

ONNX_FILE = "model.onnx"
"""Name of the file in a run directory."""
MOST_BYTES = 2**31 - 1
"""Protocol buffers cannot be larger."""


class OnnxNetwork(ExportedNetwork):
    """Some outputs of a session of onnxruntime."""

    def __init__(self, session: onnxruntime.InferenceSession, tasks: tuple[str, ...]) -> None:
        super().__init__(tasks)
        self.session = session

    def outputs(self, names: list[str], images: Tensor) -> list[Any]:
        """As `ExportedNetwork` says."""
        values: list[Any] = self.session.run(names, {INPUT: images.numpy()})
        return values


def onnx_file(weights: Path) -> Path:
    """A file, or the one in a run directory. Raises InputError if it is not there."""
    if weights.is_file():
        return weights
    if not weights.exists():
        raise InputError(
            f"no ONNX file or run directory at {weights}: give what {spelled('export')} --format onnx wrote"
        )
    if not (weights / ONNX_FILE).is_file():
        raise InputError(
            f"{weights} holds no {ONNX_FILE}: write it with {spelled('export')} --weights {weights} --format onnx"
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
    content, metadata = read_onnx(path)
    again = f"{spelled('export')} --weights {weights} --format onnx"
    description = described(path, weights, metadata, again)
    session = _session(path, content, device)
    return models_of(
        path, description, lambda tasks: OnnxNetwork(session, tasks), lambda loaded: _check_shapes(session, loaded)
    )


def read_onnx(path: Path) -> tuple[bytes, dict[str, str]]:
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
            f"{path} does not say what it finds (no {DESCRIPTION} in its metadata): give a file of {spelled('export')} "
            "--format onnx"
        )
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto) and (message.external_data or message.data_location):
            # They are paths, which could lead to any file of this user.
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


def _session(path: Path, content: bytes, device: torch.device) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # the cores, unless OMP_NUM_THREADS says less
    # As with PyTorch's threads here, a waiting thread leaves its core to others.
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
    size, of_models = expected_outputs(loaded)
    expected = {name: (f"tensor({kind})", sides) for name, (kind, sides) in of_models.items()}
    outputs = {o.name: (o.type, tuple(o.shape[n_leading(o.name) :])) for o in session.get_outputs()}
    if outputs != expected:
        raise ValueError(f"its outputs are {outputs}")
    inputs = [(value.name, value.type, tuple(value.shape[1:])) for value in session.get_inputs()]
    if inputs != [(INPUT, "tensor(uint8)", (1, size, size))]:
        raise ValueError(f"its inputs are {inputs}")
