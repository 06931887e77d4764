"""Which models made predictions, as far as made_by.json or the run beside them says so, and which radiographs these
models have learned from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xray.datasets.fingerprint import radiographs_sha256, split_sha256
from xray.datasets.source import TRAIN, VAL
from xray.datasets.store import ALL_FOLDS, Store, fold_in_words
from xray.errors import InputError
from xray.file_names import CONFIG_FILE, MODEL_FILE, WEIGHTS_FILE
from xray.radiographs.names import visible
from xray.structures.made_by import MadeBy, folders_of, parts_of
from xray.training.pseudo import held_back, is_dataset_of
from xray.training.recipes import read_yaml


def runs_beside(predictions: Path) -> list[Path]:
    """The run directories whose predictions a file holds: the one that it lies in, itself or in a folder of it; or
    those of the folds beside it, as a cross-validation leaves them. Empty where nothing says so.
    """
    for folder in folders_of(predictions):
        for run in (folder, folder.parent):
            if (run / MODEL_FILE).is_file():
                return [run]
        if runs := sorted(path.parent for path in folder.glob(f"fold*/{MODEL_FILE}")):
            return runs
    return []


def learned_from(run: Path, store: Store, records: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    """How many of the records of a dataset a run was trained on, and what it held back, in words; 0 where that is not
    known."""
    held = held_back(run, store)[0]
    if held is None and not _is_of_all_folds(run, store):
        return 0, ""
    fold = ALL_FOLDS if held is None else held
    return sum(_trains(record, fold) for record in records), f"held back {_held_in_words(fold)}"


def _is_of_all_folds(run: Path, store: Store) -> bool:
    """Whether a run was trained on all folds of this very dataset."""
    if not (run / CONFIG_FILE).is_file():
        return False
    config = read_yaml(run / CONFIG_FILE)
    return config.get("fold") == ALL_FOLDS and is_dataset_of(run, str(config.get("data_path")), store)


def learned_in_words(run: Path, store: Store, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning, or none: the numbers of radiographs that a run was trained on are flattering.

    None, too, where what describes the run cannot be read: it may be another tool's.
    """
    try:
        n, held = learned_from(run, store, records)
    except InputError:
        return []
    return flattering(n, len(records), f"{run.name} {held}")


def of_other_radiographs(made_by: MadeBy | None, predictions: Path, store: Store) -> list[str]:
    """A warning where predictions are of a dataset directory with other radiographs, or none."""
    if made_by is None:
        return []
    here = radiographs_sha256(store.records)
    datasets = [part["radiographs"]["dataset"] for part in parts_of(made_by)]
    others = [one for one in datasets if one is not None and one.get("radiographs_sha256") not in (None, here)]
    if not others:
        return []
    n = others[0].get("n_images")
    return [
        f"{predictions} was made of another dataset directory, with {n} radiographs, than {store.path}, with "
        f"{len(store)}: what has the same id here counts as the same radiograph"
    ]


def learned_by(made_by: MadeBy | None, store: Store, records: Sequence[Mapping[str, Any]]) -> tuple[int, str] | None:
    """How many of the records of a dataset trained one of the models that made predictions of them, and what these held
    back, in words; None where that is not known of any model."""
    digest = split_sha256(store.records)
    trained: set[int] = set()
    words: dict[str, None] = {}
    is_known = False
    for part in parts_of(made_by) if made_by is not None else ():
        for model in part["models"]:
            fold = model.get("fold")
            if fold is None or model.get("split_sha256") != digest:
                continue
            is_known = True
            rows = [n for n, one in enumerate(records) if _is_in(part, one, digest) and _trains(one, fold)]
            if rows:
                trained.update(rows)
                words[visible(f"{model['name']} held back {_held_in_words(fold)}")] = None
    return (len(trained), ", ".join(words)) if is_known else None


def _is_in(part: MadeBy, record: Mapping[str, Any], digest: str) -> bool:
    """Whether models looked at a radiograph; true where that is not known. digest: of the dataset's folds."""
    dataset = part["radiographs"]["dataset"]
    if dataset is None or dataset.get("split_sha256") != digest:
        return True
    return all(dataset.get(name) in (None, record[name]) for name in ("split", "fold"))


def _trains(record: Mapping[str, Any], held: int | str) -> bool:
    return record["split"] == TRAIN and record["fold"] != held


def _held_in_words(fold: int | str) -> str:
    if fold == ALL_FOLDS:
        return "no fold"
    return "its validation split" if fold == VAL else fold_in_words(fold)


def flattering(n: int, n_all: int, held: str) -> list[str]:
    """A warning, or none, that numbers are flattering. n: of the radiographs, those that trained the model."""
    if not n:
        return []
    return [
        f"{n} of {n_all} radiographs trained the model: {held}. Their numbers are flattering: score the fold that it "
        "held back (--fold), or other radiographs"
    ]


def other_weights(fit: Path, weights: Sequence[str], is_ensemble: bool, made_by: MadeBy, predictions: Path) -> str:
    """Why predictions are not those of the run or the ensemble to fit, by the hashes in made_by.json; empty where they
    are, or nothing says so.

    weights: SHA-256 of the ensemble.yaml, if it is one, and of the weights.
    """
    parts = parts_of(made_by)
    ensembles = [one["ensemble"]["sha256"] if one.get("ensemble") else None for one in parts]
    ensembles += [made_by["settings"].get("ensemble_sha256")] if "fused" in made_by else []
    models = [model for part in parts for model in part["models"]]
    found = {model["files"].get(WEIGHTS_FILE) for model in models}
    if None in found:
        # Exported files alone do not tell which weights they were made of.
        return ""
    names = visible(", ".join(dict.fromkeys(model["name"] for model in models)))
    end = "thresholds of one model are not those of another"
    if is_ensemble and weights[0] not in ensembles:
        return f"{predictions} was made by {names} without {fit}, and {end}"
    if not found.issuperset(weights[is_ensemble:]):
        return f"{predictions} was made by other weights ({names}) than those of {fit}, and {end}"
    is_together = len(found) > 1 and _is_together(made_by)
    return f"{predictions} was made by {names} together, and {end}" if not is_ensemble and is_together else ""


def _is_together(made_by: MadeBy) -> bool:
    """Whether several models made predictions of one radiograph. The folds of a cross-validation are one model, trained
    several times: thresholds of all are those of each."""
    if "fused" not in made_by:
        return len(made_by["models"]) > 1
    is_one = made_by["settings"].get("joined") or len(made_by["fused"]) == 1
    return not is_one or any(map(_is_together, made_by["fused"]))


def strangers(fit: Path, runs: Sequence[Path], predictions: Path) -> str:
    """Why predictions may not be those of the run to fit, by where they lie; empty where nothing says so."""
    given = (fit.parent if fit.is_file() else fit).resolve()
    if not runs or given in [run.resolve() for run in runs]:
        return ""
    names = f"{len(runs)} other runs" if len(runs) > 1 else f"another run, {runs[0].name}"
    return f"{predictions} lies with {names}, and thresholds of one model are not those of another"
