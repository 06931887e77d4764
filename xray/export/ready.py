"""Exported models of run directories, made where a command needs one that nobody has written."""

import sys
from collections.abc import Sequence
from pathlib import Path

from xray.errors import InputError, need
from xray.inference.ensemble_file import files_of
from xray.models.weights import WEIGHTS_FILE


def make_ready(weights: Sequence[Path], precision: str = "auto") -> None:
    """Writes into the cache what `load_openvino` would not find: the models of run directories, once for their weights.

    weights: as of --weights. precision: as for `openvino_file`. What is wrong with them is left to loading.
    Raises InputError where a run cannot be exported, or the cache not be written.
    """
    from xray.inference.openvino_runtime import FLOAT_FILE, INT8_FILE, cached_file

    for run in files_of(weights):
        if not run.is_dir() or not (run / WEIGHTS_FILE).is_file() or precision == "int8":
            continue
        names = (FLOAT_FILE, INT8_FILE) if precision == "auto" else (FLOAT_FILE,)
        if any((run / name).is_file() for name in names) or (cached := cached_file(run)).is_file():
            continue
        need("--runtime openvino with a run directory", "export", "onnx", "onnxscript")
        # Here, as the exporter takes seconds to import.
        from xray.export.openvino import save, to_openvino, writing

        print(f"making OpenVINO's model of {run}, once for its weights", file=sys.stderr)
        try:
            with writing(cached) as temporary:
                save(to_openvino(run), temporary)
        except OSError as error:
            raise InputError(
                f"{cached.parent} cannot be written ({error.strerror or error}): set XRAY_CACHE to another folder, or "
                f"run python tools/export.py --weights {run} --format openvino"
            ) from None
