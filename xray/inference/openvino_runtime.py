"""Models run by OpenVINO in the places of PyTorch's: in float32, bfloat16, or INT8 where `xray.export` made that.

What is read is OpenVINO's own format (a .xml file with a .bin file beside it) or an ONNX file of `xray.export.onnx`;
both carry model.json. Compiled models are kept in the cache, so that the next command starts at once.
"""

import contextlib
import functools
import os
from pathlib import Path
from typing import Any

import openvino
import torch
from torch import Tensor

from xray.errors import InputError, spelled
from xray.files import PART
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
from xray.inference.openvino_files import INT8, INT8_FILE, KEPT, WEIGHTS, cache_folder, openvino_file

METADATA = (DESCRIPTION, WEIGHTS, KEPT)
PLACE = "framework"
"""The branch of OpenVINO's metadata that holds the metadata of an ONNX file."""
HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
KINDS = {"f32": "float", "i64": "int64", "u8": "uint8"}


class Engine:
    """A model that is compiled when it is first run, and again in another precision."""

    def __init__(self, model: Any, path: Path) -> None:
        """model: an openvino.Model. path: where it was read from."""
        self.model, self.path = model, path
        self.precision = torch.float32
        self._request: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Engine":
        other = Engine(self.model, self.path)
        other.precision = self.precision
        return other

    @functools.cached_property
    def is_int8(self) -> bool:
        """Whether it was quantised."""
        return any(op.get_type_name() == "FakeQuantize" for op in self.model.get_ops())

    def lower(self, precision: torch.dtype) -> None:
        """Computes in this precision from now on; a quantised model stays quantised."""
        if precision != self.precision and not self.is_int8:
            self.precision, self._request = precision, None

    def run(self, names: list[str], images: Tensor) -> list[Any]:
        """NumPy arrays of these outputs, which are the caller's. Raises InputError where OpenVINO cannot run it."""
        try:
            if self._request is None:
                is_temporary = self.path.parent.name.endswith(PART)
                core = _core(None if is_temporary else cache_folder() / "compiled")
                compiled = core.compile_model(self.model, "CPU", self._options())
                self._request = compiled.create_infer_request()
            self._request.infer({INPUT: images.numpy()}, share_inputs=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[-200:]
            raise InputError(f"OpenVINO {openvino.__version__} cannot run {self.path}: {reason}") from None
        return [self._request.get_tensor(name).data.copy() for name in names]

    def _options(self) -> dict[str, Any]:
        return {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),  # the cores, unless OMP_NUM_THREADS says less
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # other processes decode on these cores
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
        }


class OpenVinoNetwork(ExportedNetwork):
    """Some outputs of an engine."""

    runtime = "openvino"

    def __init__(self, engine: Engine, tasks: tuple[str, ...]) -> None:
        super().__init__(tasks)
        self.engine, self.is_int8 = engine, engine.is_int8

    @property
    def kept(self) -> str:
        """Of a quantised model: its metric before and after, in words, and its file."""
        return f"{_metadata(self.engine.model).get(KEPT, 'quantised')} ({self.engine.path})"

    def lower(self, precision: torch.dtype) -> None:
        """As `Engine.lower`; other networks of the same engine follow."""
        self.engine.lower(precision)

    def outputs(self, names: list[str], images: Tensor) -> list[Any]:
        """As `ExportedNetwork` says."""
        return self.engine.run(names, images)


@functools.cache
def _core(folder: Path | None) -> Any:
    """OpenVINO's core, which compiles models and keeps them in a folder."""
    core = openvino.Core()
    if folder is not None:
        with contextlib.suppress(OSError):  # without it, every command compiles anew
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if os.access(folder, os.W_OK):
                core.set_property({"CACHE_DIR": str(folder)})
    return core


def load_openvino(weights: Path, precision: str = "auto") -> tuple[list[tuple[str, Loaded]], tuple[LoadedPair, ...]]:
    """A file or run directory → as `load_run`, and the pair where two heads share a trunk.

    precision: as for `openvino_file`; "32" and "bf16" take the float file, "int8" only a quantised one.
    Raises InputError as `openvino_file` does, and if the file is not of `xray.export`, is damaged, does not hold what
    its description says, or was made from other weights than the run directory has now.
    """
    path = openvino_file(weights, precision)
    model = read_model(path)
    command = f"{spelled('export')} --weights {weights} --format openvino"
    again = f"{command} --int8 --check-data DATASET" if path.name == INT8_FILE else command
    description = described(path, weights, _metadata(model), again)
    engine = Engine(model, path)
    if precision == INT8 and not engine.is_int8:
        raise InputError(f"{path} is not quantised: give what {spelled('export')} --format openvino --int8 wrote")
    return models_of(
        path, description, lambda tasks: OpenVinoNetwork(engine, tasks), lambda loaded: _check_shapes(model, loaded)
    )


def read_model(path: Path) -> Any:
    """An openvino.Model. Raises InputError for a file that is damaged, or has no description of its model."""
    content: Any = path
    if path.suffix == ".onnx":
        # Checked first, as a foreign file may name files of this user.
        from xray.inference.onnx_runtime import read_onnx

        content, _ = read_onnx(path)
    elif not path.with_suffix(".bin").is_file():
        raise InputError(f"{path} has no {path.with_suffix('.bin').name} beside it: keep both together")
    try:
        model = openvino.Core().read_model(content)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-200:]
        raise InputError(f"{path} is no model of OpenVINO {openvino.__version__}, or damaged: {reason}") from None
    if DESCRIPTION not in _metadata(model):
        raise InputError(
            f"{path} does not say what it finds (no {DESCRIPTION} in its metadata): give a file of {spelled('export')}"
        )
    return model


def _metadata(model: Any) -> dict[str, str]:
    return {key: str(model.get_rt_info([PLACE, key]).value) for key in METADATA if model.has_rt_info([PLACE, key])}


def _check_shapes(model: Any, loaded: list[tuple[str, Loaded]]) -> None:
    """Raises ValueError unless input and outputs are those of these models."""

    def side(dimension: Any) -> int:
        return dimension.get_length() if dimension.is_static else -1

    def shape_of(port: Any, first: int) -> tuple[str, tuple[int, ...]]:
        kind = port.get_element_type().get_type_name()
        return KINDS.get(kind, kind), tuple(map(side, list(port.get_partial_shape())[first:]))

    size, expected = expected_outputs(loaded)
    names = [port.get_any_name() for port in model.outputs]
    outputs = {name: shape_of(port, n_leading(name)) for name, port in zip(names, model.outputs, strict=True)}
    if outputs != expected:
        raise ValueError(f"its outputs are {outputs}")
    inputs = [(port.get_any_name(), *shape_of(port, 1)) for port in model.inputs]
    if inputs != [(INPUT, "uint8", (1, size, size))]:
        raise ValueError(f"its inputs are {inputs}")
