"""What made_by.json says of models and radiographs, for the commands and the API that write predictions."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from xray.datasets.fingerprint import ids_sha256, radiographs_sha256
from xray.datasets.source import TRAIN, VAL
from xray.datasets.store import ALL_FOLDS, Store
from xray.errors import InputError
from xray.file_names import CONFIG_FILE, MODEL_FILE, WEIGHTS_FILE
from xray.files import sha256_of
from xray.inference.ensemble_file import is_ensemble
from xray.inference.pipeline import Pipeline
from xray.storage.places import as_given
from xray.structures.made_by import MadeBy, folders_of, joined, read_made_by
from xray.training.learned import runs_beside
from xray.training.recipes import read_yaml
from xray.training.trained_on import TRAINED_ON, facts_of

VALIDATION = "validation"
"""Folder of a run directory, with what its model predicts of the part that it has held back."""


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


def made_by_of(predictions: Path, ids: Sequence[str], store: Store | None = None) -> MadeBy | None:
    """What made a file of predictions: by the made_by.json beside it, or else by the run directory that it lies in, or
    the runs of a cross-validation that lie beside it; None where neither is there.

    ids: of its radiographs. store: their dataset, if it is known.
    """
    if (made_by := read_made_by(predictions)) is not None:
        return made_by
    runs = runs_beside(predictions)
    try:
        models = [model_of(run) for run in runs]
    except OSError:
        return None
    if not models:
        return None
    is_validation = any(folder == runs[0].absolute() / VALIDATION for folder in folders_of(predictions))
    if is_validation or len(models) > 1:
        # Each model predicts what it has held back.
        parts = [_part(model, ids, _held_back(model)) for model in models]
    else:
        parts = [_part(models[0], ids, _dataset_around(ids, store))]
    return parts[0] if len(parts) == 1 else joined(parts)


def _part(model: MadeBy, ids: Sequence[str], dataset: dict[str, Any] | None) -> MadeBy:
    radiographs = {"n": len(ids), "ids_sha256": ids_sha256(ids), "dataset": dataset}
    return {"models": [model], "ensemble": None, "settings": {}, "radiographs": radiographs}


def _held_back(model: MadeBy) -> dict[str, Any] | None:
    """The part of the dataset that a run has not trained on, as far as the run itself knows the dataset."""
    if (fold := model["fold"]) is None or fold == ALL_FOLDS or model["split_sha256"] is None:
        return None
    hashes = {name: model[name] for name in ("split_sha256", "annotations_sha256")}
    part = {"split": VAL, "fold": None} if fold == VAL else {"split": TRAIN, "fold": fold}
    return {"n_images": None, "radiographs_sha256": None, **hashes, **part}


def _dataset_around(ids: Sequence[str], store: Store | None) -> dict[str, Any] | None:
    """The dataset, and the split and fold that all radiographs are in, if it has them all."""
    rows = [] if store is None else store.resolve(ids).tolist()
    if store is None or not rows or min(rows) < 0:
        return None
    splits, folds = ({store.records[row][name] for row in rows} for name in ("split", "fold"))
    dataset: dict[str, Any] = radiographs_of(
        ids, store, splits.pop() if len(splits) == 1 else None, folds.pop() if len(folds) == 1 else None
    )["dataset"]
    return dataset


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
