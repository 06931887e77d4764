"""Which arithmetic a run uses on this machine, in a small file that one command leaves for the next ones.

RUN/precision.json, beside the weights; where that folder cannot be written, or stands for an address, a file in the
cache. It may be removed at any time. An entry counts only for the same weights, the same versions and the same
processor; several machines that share the folder each have theirs.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from xray import __version__
from xray.file_names import WEIGHTS_FILE
from xray.files import complete
from xray.inference.openvino_files import INT8, sha256_of
from xray.models.device import LIMITS, of_processor
from xray.storage.places import as_given

FILE = "precision.json"
NOTE = "Which arithmetic is right for this model on which machine, as xray found; may be removed."
MOST_ENTRIES = 32
MOST_BYTES = 2**20
MOST_WORDS = 600
FLAGS = ("avx2", "avx_vnni", "avx512", "amx", "bf16", "i8mm", "sve")
"""Prefixes of the processor's instructions that decide about speed."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """precision: "32", "bf16" or "int8". why: in words, without "precision …: " before it.

    runtime: "torch" or "openvino". models: identifiers of OpenVINO's files (the values of `models_beside`). considered:
    the choices there were, `Way.name` and such values. saved: seconds a radiograph that this saves against PyTorch in
    float32.
    """

    precision: str
    why: str
    runtime: str = "torch"
    models: tuple[str, ...] = ()
    considered: tuple[str, ...] = ()
    saved: float = 0.0


def recall(runs: Sequence[Path], runtime: str = "torch") -> tuple[Choice, Path] | None:
    """The choice for these run directories on such a machine, and the file that holds it; None without a choice.

    runs: as `files_of` names them. runtime: as of --runtime. A file that cannot be read, or is damaged, says nothing.
    """
    claims: dict[str, Any] | None = None
    for path in _files(runs):
        for entry in _entries(path):
            claims = claims or _claims(runs, runtime)
            if entry.get("for") == claims and (choice := _choice(entry, runtime)):
                return choice, path
    return None


def _choice(entry: dict[str, Any], runtime: str) -> Choice | None:
    default_runtime = "torch" if runtime == "auto" else runtime
    try:
        choice = Choice(
            str(entry["precision"]),
            str(entry.get("why", ""))[:MOST_WORDS],
            str(entry.get("runtime", default_runtime)),
            tuple(map(str, entry.get("models", ()))),
            tuple(map(str, entry.get("considered", ()))),
            float(entry.get("saved", 0.0)),
        )
    except (KeyError, TypeError, ValueError):
        return None
    known = {"torch": ("32", "bf16"), "openvino": ("32", "bf16", INT8)}
    may_be = ("torch", "openvino") if runtime == "auto" else (runtime,)
    return choice if choice.runtime in may_be and choice.precision in known.get(choice.runtime, ()) else None


def remember(runs: Sequence[Path], choice: Choice, runtime: str = "torch") -> Path | None:
    """Writes a choice; returns the file, or None where no file can be written, which is no error."""
    claims = _claims(runs, runtime)
    for path in _files(runs):
        entries = [entry for entry in _entries(path) if entry.get("for") != claims][-(MOST_ENTRIES - 1) :]
        content = {"note": NOTE, "choices": [*entries, {"for": claims, **dataclasses.asdict(choice)}]}
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with complete(path) as temporary:
                temporary.write_text(json.dumps(content, indent=1) + "\n")
            return path
    return None


def _files(runs: Sequence[Path]) -> list[Path]:
    """Where to look, and where to write to first."""
    folders = [run for run in runs if run.is_dir()]
    if not folders:
        return []
    from xray.storage.mirror import cache_folder  # here, as it brings what reads addresses

    place = os.path.realpath(folders[0])
    cached = cache_folder() / "precision" / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:20]}.json"
    # A folder that stands for an address mirrors it, and has no files of its own.
    is_address = as_given(folders[0].absolute()) != str(folders[0].absolute())
    return [cached] if is_address else [folders[0] / FILE, cached]


def _entries(path: Path) -> list[dict[str, Any]]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        if path.stat().st_size <= MOST_BYTES:
            return [entry for entry in json.loads(path.read_bytes())["choices"] if isinstance(entry, dict)]
    return []


def _claims(runs: Sequence[Path], runtime: str) -> dict[str, Any]:
    """The conditions under which an entry counts, as JSON."""
    weights = [sha256_of(run / WEIGHTS_FILE) for run in runs if (run / WEIGHTS_FILE).is_file()]
    return {"weights": weights, "runtime": runtime, "versions": versions(runtime), "processor": processor()}


def versions(runtime: str) -> dict[str, str]:
    """Versions of the packages that compute."""
    result = {"xray": __version__, "torch": torch.__version__}
    if runtime in ("auto", "openvino"):
        from importlib.metadata import PackageNotFoundError, version

        with contextlib.suppress(PackageNotFoundError):
            result["openvino"] = version("openvino")
    return result


def processor() -> str:
    """The processor's name, and which of its instructions matter and may be used."""
    name, flags = _of_system()
    relevant = sorted(flag for flag in flags if flag.startswith(FLAGS) or flag.endswith(("bf16", "_vnni")))
    limits = [f"{limit}={os.environ[limit]}" for limit in LIMITS if os.environ.get(limit)]
    return " ".join([name, platform.machine(), *relevant, *limits])


@functools.cache
def _of_system() -> tuple[str, tuple[str, ...]]:
    entries = of_processor()
    flags = entries.get("flags") or entries.get("Features") or ""
    return entries.get("model name") or platform.processor() or "?", tuple(flags.split())
