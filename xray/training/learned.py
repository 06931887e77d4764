"""Which runs made predictions, as far as where they lie says so, and which radiographs these runs have learned from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xray.datasets.source import TRAIN, VAL
from xray.datasets.store import ALL_FOLDS, Store, fold_in_words
from xray.errors import InputError
from xray.storage.places import as_given
from xray.training.config import CONFIG_FILE
from xray.training.pseudo import held_back
from xray.training.recipes import read_yaml

MODEL = "model.json"


def made_by(predictions: Path) -> list[Path]:
    """The run directories whose predictions a file holds: the one that it lies in, itself or in a folder of it; or
    those of the folds beside it, as a cross-validation leaves them. Empty where nothing says so.
    """
    folder = predictions.absolute().parent
    for run in (folder, folder.parent):
        if (run / MODEL).is_file():
            return [run]
    return sorted(path.parent for path in folder.glob(f"fold*/{MODEL}"))


def learned_from(run: Path, store: Store, records: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    """How many of the records of a dataset a run was trained on, and what it held back, in words; 0 where that is not
    known."""
    held = held_back(run, store)[0]
    if held is None and not _is_of_all_folds(run, store):
        return 0, ""
    n = sum(record["split"] == TRAIN and record["fold"] != held for record in records)
    if held is None:
        return n, "held back no fold"
    return n, "held back its validation split" if held == VAL else f"held back {fold_in_words(held)}"


def _is_of_all_folds(run: Path, store: Store) -> bool:
    """Whether a run was trained on all folds of this very dataset."""
    if not (run / CONFIG_FILE).is_file():
        return False
    config = read_yaml(run / CONFIG_FILE)
    given = str(config.get("data_path"))
    places = {Path(given).absolute().resolve(), (run / "dataset").resolve()}
    return config.get("fold") == ALL_FOLDS and (store.path.resolve() in places or as_given(store.path) == given)


def learned_in_words(run: Path, store: Store, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning, or none: the numbers of radiographs that a run was trained on are flattering.

    None, too, where what describes the run cannot be read: it may be another tool's.
    """
    try:
        n, held = learned_from(run, store, records)
    except InputError:
        return []
    if not n:
        return []
    return [
        f"{n} of {len(records)} radiographs trained the model: {run.name} {held}. Their numbers are flattering: score "
        "the fold that it held back (--fold), or other radiographs"
    ]


def strangers(fit: Path, runs: Sequence[Path], predictions: Path) -> str:
    """Why predictions may not be those of the run to fit; empty where nothing says so."""
    given = (fit.parent if fit.is_file() else fit).resolve()
    if not runs or given in [run.resolve() for run in runs]:
        return ""
    names = f"{len(runs)} other runs" if len(runs) > 1 else f"another run, {runs[0].name}"
    return f"{predictions} lies with {names}, and thresholds of one model are not those of another"
