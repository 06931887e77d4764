"""OpenVINO's files of run directories: where they lie, what they say, and whether they are of the run's present
weights.

Read without OpenVINO, whose import may take longer than one radiograph.
"""

import contextlib
import functools
import hashlib
import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xray.errors import InputError, spelled
from xray.file_names import WEIGHTS_FILE
from xray.files import complete

FLOAT_FILE, INT8_FILE = "openvino.xml", "openvino-int8.xml"
"""Names of the files in a run directory; each has a .bin file beside it."""
FAILED_FILE = "openvino-int8.failed.json"
"""A note beside them that 8 bits did not keep the metric; it may be removed."""
WEIGHTS = "xray.weights"
"""Key in a file's metadata: the SHA-256 of the model.safetensors that it was made from."""
KEPT, MEASURED = "xray.kept", "xray.measured"
"""In the metadata of an INT8 file: the metric before and after, in words, and as JSON (`Measured`)."""
INT8 = "int8"


def cache_folder() -> Path:
    """Folder of the OpenVINO files that commands write for themselves; it may be removed at any time."""
    from xray.storage import mirror  # here, as it brings what reads addresses

    return mirror.cache_folder() / "openvino"


def cached_file(run: Path, name: str = FLOAT_FILE) -> Path:
    """Where the cache has, or will have, a file for the present weights of a run directory."""
    kind = "-int8" if name == INT8_FILE else ""
    return cache_folder() / "models" / f"{sha256_of(run / WEIGHTS_FILE)[:32]}{kind}.xml"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits; of an unchanged file computed once."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(64)
def _digest(path: Path, size: int, time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_in(path: Path, key: str) -> str:
    """The value of one of our keys in a .xml file of OpenVINO; empty where it is missing or the file cannot be read."""
    with contextlib.suppress(OSError):
        match = re.search(rb"<%s value=\"([^\"]*)\"" % re.escape(key.encode()), path.read_bytes())
        return html.unescape(match[1].decode(errors="replace")) if match else ""
    return ""


def is_of(path: Path, run: Path) -> bool:
    """Whether a file exists, is whole, and was made from the present weights of a run directory."""
    if not (path.is_file() and path.with_suffix(".bin").is_file()):
        return False
    return value_in(path, WEIGHTS) == sha256_of(run / WEIGHTS_FILE)


def file_beside(run: Path, name: str) -> Path | None:
    """The `FLOAT_FILE` or `INT8_FILE` of a run directory's present weights, in the run or in the cache; None without
    one."""
    if not (run / WEIGHTS_FILE).is_file():
        return None
    return next((path for path in (run / name, cached_file(run, name)) if is_of(path, run)), None)


def models_beside(runs: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """Which of OpenVINO's models all run directories have: "int8" or "32" → an identifier for each run's file.

    runs: as `files_of` names them. Empty where OpenVINO is not installed, and where a path is no run directory.
    """
    folders = [run for run in runs if run.suffix not in (".yaml", ".yml")]
    if find_spec("openvino") is None or not folders or not all((run / WEIGHTS_FILE).is_file() for run in folders):
        return {}
    models = {}
    for name, file in ((INT8, INT8_FILE), ("32", FLOAT_FILE)):
        files = [file_beside(run, file) for run in folders]
        if all(files):
            models[name] = tuple(sha256_of(path)[:16] for path in files if path)
    return models


def measured_in(path: Path) -> dict[str, Any]:
    """The measurements made when an INT8 file was written: {"exact", "int8", "expected"}, each name of a metric →
    value.

    expected: the move that `expected_moves` estimated on radiographs of the same fold. Empty for a file of an earlier
    version, or a damaged one.
    """
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        content = json.loads(value_in(path, MEASURED))
        return {
            part: {str(name): float(value) for name, value in content[part].items()}
            for part in ("exact", INT8, "expected")
        }
    return {}


def note_failure(run: Path, why: str, versions: Mapping[str, str]) -> None:
    """Notes that 8 bits do not keep the metric of a run's weights, so that the next command need not try.

    Where the folder cannot be written, nothing is noted.
    """
    content = {
        "note": "8 bits did not keep the metric of these weights; may be removed, to try again.",
        "weights": sha256_of(run / WEIGHTS_FILE),
        "versions": dict(versions),
        "why": why,
    }
    with contextlib.suppress(OSError), complete(run / FAILED_FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def failure_of(run: Path, versions: Mapping[str, str]) -> str:
    """The note of `note_failure` for the present weights; empty without a note, or where other versions wrote it."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        content = json.loads((run / FAILED_FILE).read_bytes())
        if content["weights"] == sha256_of(run / WEIGHTS_FILE) and content["versions"] == versions:
            return str(content["why"])[:1000]
    return ""


def can_be_written(folder: Path) -> bool:
    """Whether files may be left beside a run's weights: not where the folder stands for an address."""
    from xray.storage.places import as_given

    return as_given(folder.absolute()) == str(folder.absolute()) and os.access(folder, os.W_OK)


def openvino_file(weights: Path, precision: str) -> Path:
    """The file to read for --weights: a given file itself; for a run directory its INT8 file, its float file, or one in
    the cache.

    precision: "auto" takes the INT8 file of the present weights if there is one, as it was only kept if the metric was;
    "int8" takes no other. Raises InputError if there is none.
    """
    if weights.is_file():
        if weights.suffix not in (".xml", ".onnx"):
            raise InputError(f"{weights} is no model of OpenVINO: give a run directory, or a .xml or .onnx file")
        return weights
    if not weights.exists():
        raise InputError(f"no run directory or file at {weights}: give a run directory, or a .xml or .onnx file")
    is_run = (weights / WEIGHTS_FILE).is_file()
    command = f"{spelled('export')} --weights {weights} --format openvino"
    if precision in ("auto", INT8):
        if is_run and (path := file_beside(weights, INT8_FILE)):
            return path
        # Without weights beside it, a file is believed; an INT8 file of other weights is refused when it is loaded.
        if (weights / INT8_FILE).is_file() and (precision == INT8 or not is_run):
            return weights / INT8_FILE
    if precision == INT8:
        raise InputError(f"{weights} holds no {INT8_FILE}: write it with {command} --int8 --check-data DATASET")
    if (weights / FLOAT_FILE).is_file():
        return weights / FLOAT_FILE
    if is_run and (cached := cached_file(weights)).is_file():
        return cached
    raise InputError(f"{weights} holds no {FLOAT_FILE}: write it with {command}")
