"""What made_by.json says of models and radiographs, for the commands and the API that write predictions."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from xray.datasets.fingerprint import ids_sha256, radiographs_sha256
from xray.datasets.store import Store
from xray.errors import InputError
from xray.file_names import CONFIG_FILE, MODEL_FILE, WEIGHTS_FILE
from xray.files import sha256_of
from xray.inference.ensemble_file import is_ensemble
from xray.inference.pipeline import Pipeline
from xray.storage.places import as_given
from xray.structures.made_by import MadeBy
from xray.training.recipes import read_yaml
from xray.training.trained_on import TRAINED_ON, facts_of


def made_by_models(files: Sequence[Path], settings: dict[str, Any], radiographs: dict[str, Any]) -> MadeBy | None:
    """The entries of made_by.json for predictions of models; None where a model is no longer there.

    files: of `files_of`: run directories or exported files, and an ensemble.yaml before them. settings: of
    `settings_of`. radiographs: of `radiographs_of`.
    """
    try:
        ensembles = [{"name": path.name, "sha256": sha256_of(path)} for path in files if is_ensemble(path)]
        models = [model_of(path) for path in files if not is_ensemble(path)]
    except OSError:
        return None
    return {
        "models": models,
        "ensemble": ensembles[0] if ensembles else None,
        "settings": settings,
        "radiographs": radiographs,
    }


def model_of(path: Path) -> dict[str, Any]:
    """What made_by.json says of a run directory, or of an exported file in one. Raises OSError without weights."""
    run = path.parent if path.is_file() else path
    files = [path] if path.is_file() else []
    files += [run / WEIGHTS_FILE] if not files or (run / WEIGHTS_FILE).is_file() else []
    description, begun = _content(run / MODEL_FILE), _content(run / TRAINED_ON)
    try:
        fold = read_yaml(run / CONFIG_FILE).get("fold")
    except InputError:
        fold = None
    return {
        # A path of "." has no name.
        "name": PurePath(as_given(path)).name or path.absolute().resolve().name,
        "task": description.get("task"),
        "thresholds": description.get("thresholds"),
        "files": {file.name: sha256_of(file) for file in files},
        "fold": fold if isinstance(fold, int | str) else None,
        "split_sha256": begun.get("split_sha256"),
        "annotations_sha256": begun.get("annotations_sha256"),
    }


def settings_of(pipeline: Pipeline, **others: Any) -> dict[str, Any]:
    """The settings that decide what models find. others: those that the pipeline does not know, as JSON."""
    return {
        "tta": pipeline.flips,
        "scales": list(pipeline.scales),
        "gate": pipeline.gate,
        "gate_threshold": pipeline.hard_gate,
        "triplet": list(dataclasses.astuple(pipeline.triplet)) if pipeline.segmenters else None,
        **others,
    }


def radiographs_of(
    ids: Sequence[str], store: Store | None = None, split: str | None = None, fold: int | None = None
) -> dict[str, Any]:
    """Which radiographs were looked at. store: the dataset directory that they are of, if they are of one; split, fold:
    the part of it."""
    dataset = None
    if store is not None:
        facts = facts_of(store)
        dataset = {
            "n_images": len(store),
            "radiographs_sha256": radiographs_sha256(store.records),
            "split_sha256": facts["split_sha256"],
            "annotations_sha256": facts["annotations_sha256"],
            "split": split,
            "fold": fold,
        }
    return {"n": len(ids), "ids_sha256": ids_sha256(ids), "dataset": dataset}


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
