"""The deployable half of a run directory: model.safetensors and model.json.

Two files cannot be replaced at once. So the weights carry the description that they were saved with, and both carry its
fingerprint: where a training was killed between the two, the fingerprints differ, and the weights' own description is
read in place of model.json.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from xray.errors import InputError
from xray.file_names import MODEL_FILE, WEIGHTS_FILE
from xray.files import replacing
from xray.models.tensors import load_tensors

FINGERPRINT = "fingerprint"
"""In both files: SHA-256 of the description when the weights were saved. Editing model.json does not change it."""


def save_deployed(run: Path, state: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Writes a model that `load_deployed` reads; each file is complete or not there, and together they are one model.

    description: JSON-able; `task`, `architecture`, `categories`, `canvas_size`, `thresholds` and what the task adds.
    Raises OSError or SafetensorError where the disk is full.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    text = json.dumps({name: value for name, value in description.items() if name != FINGERPRINT})
    described = {**json.loads(text), FINGERPRINT: hashlib.sha256(text.encode()).hexdigest()}
    with replacing(run / WEIGHTS_FILE) as temporary:
        # A single entry: safetensors writes several in a different order each time.
        safetensors.torch.save_file(tensors, temporary, metadata={"description": json.dumps(described)})
    _write_description(run, described)


def rewrite_description(run: Path, description: dict[str, Any]) -> None:
    """Replaces the model.json of a trained run, complete or not at all.

    A description without a fingerprint, as `load_deployed` returns it, gets the fingerprint of the run's weights.
    """
    saved = _saved_with(run / WEIGHTS_FILE) if (run / WEIGHTS_FILE).is_file() else None
    _write_description(run, ({FINGERPRINT: saved[FINGERPRINT]} if saved else {}) | description)


def _write_description(run: Path, description: dict[str, Any]) -> None:
    with replacing(run / MODEL_FILE) as temporary:
        temporary.write_text(json.dumps(description, indent=1) + "\n")


def load_deployed(run: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A run directory → (description, state dict on the CPU). Raises InputError if it is no finished run."""
    description = read_description(run)
    return description, read_weights(Path(run) / WEIGHTS_FILE)


def read_description(run: Path | str) -> dict[str, Any]:
    """The description of a run directory's model, as `load_deployed` gives it, without its weights.

    Raises InputError if it is no finished run.
    """
    run = Path(run)
    if not run.is_dir():
        raise InputError(f"no run directory at {run}: give the --save-path of a training")
    missing = [name for name in (MODEL_FILE, WEIGHTS_FILE) if not (run / name).is_file()]
    if missing:
        if inside := sorted(path.parent.name for path in run.glob(f"*/{MODEL_FILE}")):
            # The folder of a cross-validation, or of several trainings.
            names = ", ".join(inside[:5]) + (", …" if len(inside) > 5 else "")
            raise InputError(
                f"{run} is a folder of {len(inside)} runs ({names}): give one of these, all where several can be, or "
                "an ensemble.yaml that names them"
            )
        raise InputError(f"{run} holds no trained model (no {missing[0]}): it appears after the first validated epoch")
    try:
        description = json.loads((run / MODEL_FILE).read_text())
        task = description["task"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{run / MODEL_FILE} is damaged ({error}): train again or restore it") from None
    if not isinstance(task, str):
        raise InputError(f"{run / MODEL_FILE} names no task: train again or restore it")
    saved = _saved_with(run / WEIGHTS_FILE)
    if saved is not None and description.get(FINGERPRINT, saved[FINGERPRINT]) != saved[FINGERPRINT]:
        description = saved
    description.pop(FINGERPRINT, None)
    return dict(description)


def n_parameters(path: Path) -> int:
    """How many numbers the tensors of a file hold, which are not read. Raises InputError as `read_weights`."""
    return sum(tensor.numel() for tensor in _read(path, "meta").values())


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is not a readable weights file ({type(error).__name__}): it may be cut short")


def _saved_with(path: Path) -> dict[str, Any] | None:
    """The description that weights were saved with, its fingerprint among it; None for foreign and older ones."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from None
    try:
        saved = json.loads(metadata["description"])
        return saved if isinstance(saved["task"], str) and isinstance(saved[FINGERPRINT], str) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file, a run directory, or a .pth/.pt/.ckpt file (unpickled with `weights_only`).

    Looks through the usual wrappers ("state_dict", "model"). Raises InputError if it is missing or holds no tensors.
    """
    return _read(path, "cpu")


def tensor_names(path: Path) -> list[str]:
    """The names that `read_weights` gives, of a file whose tensors are not read. Raises InputError as that does."""
    return list(_read(path, "meta"))


def _read(path: Path, device: str) -> dict[str, Tensor]:
    """device: "cpu", or "meta" for tensors without their values."""
    if path.is_dir():
        path = path / WEIGHTS_FILE
    if not path.is_file():
        raise InputError(f"no weights at {path}: give imagenet, coco, none, a weights file or a run directory")
    try:
        if path.suffix == ".safetensors" and device == "meta":
            with safetensors.safe_open(path, "pt") as file:
                names = file.keys()
                return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in names}
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = load_tensors(path, device)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from None
    except Exception as error:
        # pickle.UnpicklingError and what damaged pickles raise besides it: never load these with weights_only=False.
        raise InputError(
            f"{path} holds more than tensors or is damaged ({type(error).__name__}); it was not loaded"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = (
        {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise InputError(f"{path} holds no tensors: give a state dict")
    # Lightning prefixes the module's name, DistributedDataParallel its wrapper's.
    return {name.removeprefix("module.").removeprefix("model."): value for name, value in tensors.items()}
