"""Trained models in OpenVINO's own format: a .xml file with the graph, a .bin file beside it with the weights."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from xray.errors import InputError
from xray.export.onnx import to_onnx
from xray.export.onnx_check import Difference, compare


def to_openvino(run: Path, prune: int = 0) -> Any:
    """A run directory of any task → an openvino.Model in float32, with model.json in its metadata.

    prune: as for `to_onnx`. Raises InputError for what that does.
    """
    # read_model, and not convert_model, which reports on its use where it can.
    return openvino.Core().read_model(to_onnx(run, prune))


@contextlib.contextmanager
def writing(out: Path) -> Iterator[Path]:
    """A temporary .xml file to write, its .bin beside it; on leaving, both take the places of `out` and its .bin.

    A reader finds both of one model or no .xml at all. Where writing fails nothing of it is left.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}.", suffix=".part") as folder:
        temporary = Path(folder) / out.name
        yield temporary
        out.unlink(missing_ok=True)
        os.replace(temporary.with_suffix(".bin"), out.with_suffix(".bin"))
        os.replace(temporary, out)


def save(model: Any, path: Path) -> None:
    """Writes .xml and .bin with weights as they are. Raises OSError where they cannot be written."""
    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(" ".join(str(error).split())[-200:]) from None


def write_checked(run: Path, out: Path, canvases: np.ndarray, prune: int = 0) -> Difference:
    """Writes a run's model in float32 to a .xml file and its .bin; returns how far it is from PyTorch.

    canvases: (N, S, S) uint8, on which both are compared. Raises InputError, and writes nothing, if they differ.
    """
    with writing(out) as temporary:
        save(to_openvino(run, prune), temporary)
        difference = compare(run, temporary, canvases, prune, "openvino")
        if not difference.is_small:
            raise InputError(f"OpenVINO's model of {run} and PyTorch differ by {difference}: nothing was written")
    return difference
