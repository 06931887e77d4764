"""What a run was begun with: the facts of its dataset by which it can go on, or cannot.

A dataset that is converted anew in the same folder may have another canvas, or other categories: half of a training
would be of the one, half of the other, and the model would tell the second.
"""

import json
from pathlib import Path
from typing import Any

from xray.datasets.fingerprint import fingerprint
from xray.datasets.store import Store
from xray.errors import InputError
from xray.file_names import MODEL_FILE, TRAINED_ON
from xray.files import replacing

FIXED = {"canvas_size": "canvases of {} pixels", "bits": "canvases of {} bits", "categories": "the categories {}"}
"""What cannot change in a run, and how it is said."""


def facts_of(store: Store) -> dict[str, Any]:
    """canvas_size, bits and categories of a dataset, and the hashes of its annotations and of its splits and folds."""
    hashes = fingerprint(store)
    return {
        "canvas_size": store.canvas_size,
        "bits": store.bits,
        "categories": {str(number): name for number, name in store.categories.items()},
        "annotations_sha256": hashes["annotations_sha256"],
        "split_sha256": hashes["split_sha256"],
    }


def note_dataset(run: Path, store: Store) -> None:
    """Writes what a run begins with; what an earlier start has written stays."""
    if not (run / TRAINED_ON).is_file():
        with replacing(run / TRAINED_ON) as temporary:
            temporary.write_text(json.dumps(facts_of(store), indent=1) + "\n")


def check_dataset(run: Path, store: Store, with_folds: bool = False) -> str:
    """Whether a run can go on with a dataset: a warning where its annotations changed, "" where they did not.

    with_folds: whether the folds must be the same, too; a single training compares the radiographs of its own.
    Raises InputError where canvas, bits or categories are other ones than those that the run was begun with.
    """
    before, now = _begun_with(run), facts_of(store)
    end = f": give the dataset that {run} was begun with as --data-path, or start another run"
    for name, words in FIXED.items():
        if name in before and before[name] != now[name]:
            had, has = (words.format(_in_words(facts[name])) for facts in (before, now))
            raise InputError(f"{store.path} has {has}, and {run} was begun with {had}{end}")
    if with_folds and before.get("split_sha256", now["split_sha256"]) != now["split_sha256"]:
        raise InputError(f"{store.path} has other radiographs or other folds than {run} was begun with{end}")
    if before.get("annotations_sha256", now["annotations_sha256"]) != now["annotations_sha256"]:
        return f"warning: the annotations of {store.path} are not those that {run} was begun with; it goes on with them"
    return ""


def _begun_with(run: Path) -> dict[str, Any]:
    """What `note_dataset` wrote; what model.json knows of it in runs of older versions, if anything."""
    for name in (TRAINED_ON, MODEL_FILE):
        try:
            facts = json.loads((run / name).read_text())
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError):
            raise InputError(f"{run / name} is damaged: restore or delete it") from None
        if isinstance(facts, dict):
            return {"bits": 8, **facts} if name == MODEL_FILE else facts
    return {}


def _in_words(value: Any) -> str:
    """A number, or the names of categories."""
    if not isinstance(value, dict):
        return str(value)
    names = [str(name) for name in value.values()]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
