"""made_by.json, beside predictions: which models made them, in which way, and of which radiographs. It may be removed.

    {"note": …, "version": 1, "xray": "1.2.3",
     "files": {"predictions.json": SHA-256, …},     what it speaks of: of a file that has changed it says nothing
     "models": [{"name": "fold0", "task": "detection", "files": {"model.safetensors": SHA-256}, "fold": 0,
                 "split_sha256": …, "annotations_sha256": …}],
     "ensemble": {"name": "ensemble.yaml", "sha256": …} or null,
     "settings": {"tta": true, …},
     "radiographs": {"n": 100, "ids_sha256": …, "dataset": {"radiographs_sha256": …, "split_sha256": …,
                     "annotations_sha256": …, "n_images": 500, "split": "train", "fold": 0} or null}}

`fold` of a model is the fold that its training held back, "val" for the dataset's validation split, or "all" for none;
`split_sha256` says of which dataset. Of fused predictions, "fused" has this of each that was fused, in place of models,
ensemble and radiographs; likewise of the folds of a cross-validation, whose predictions are joined ("joined": true in
settings). All of it follows from models, flags and radiographs: no date, no folder, no radiograph's id.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xray import __version__
from xray.file_names import MADE_BY
from xray.files import complete, sha256_of

VERSION = 1
MOST_BYTES = 2**22
NOTE = "What made the predictions beside it; may be removed."

MadeBy = dict[str, Any]
"""The content of a made_by.json."""


def write_made_by(folder: Path, files: Iterable[str], content: Mapping[str, Any] | None) -> None:
    """Writes the file beside predictions that are there, whole or not at all.

    files: names in `folder`; those that are missing are left out. content: `models` … `radiographs`, or `fused`; None
    where it is not known, which removes the file of earlier predictions.
    """
    if content is None:
        (folder / MADE_BY).unlink(missing_ok=True)
        return
    digests = {name: sha256_of(folder / name) for name in files if (folder / name).is_file()}
    whole = {"note": NOTE, "version": VERSION, "xray": __version__, "files": digests, **content}
    with complete(folder / MADE_BY) as temporary:
        temporary.write_text(json.dumps(whole, indent=1, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")


def folders_of(predictions: Path) -> list[Path]:
    """The folder in which a file lies, absolute, and where the file is a link that of what it leads to."""
    return list(dict.fromkeys([predictions.absolute().parent, predictions.resolve().parent]))


def read_made_by(predictions: Path) -> MadeBy | None:
    """What made a file of predictions; None where nothing beside it says so, or the file has changed since."""
    names = (predictions.name, predictions.resolve().name)
    found = (_read(folder / MADE_BY, predictions, names) for folder in folders_of(predictions))
    return next((content for content in found if content is not None), None)


def _read(path: Path, predictions: Path, names: Sequence[str]) -> MadeBy | None:
    """names: under which the file may speak of the predictions."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        content = json.loads(path.read_bytes())
        is_known = content["version"] == VERSION and _has_settings(content) and all(map(_is_whole, parts_of(content)))
        is_same = is_known and sha256_of(predictions) in [content["files"].get(name) for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # It may be another tool's: predictions are used as those that have none.
        return None
    return content if is_same else None


def joined(parts: Sequence[MadeBy | None]) -> MadeBy | None:
    """What made the predictions of several folds, each by another model; None where it is not known of one of them."""
    known = [part for part in parts if part is not None]
    return {"fused": known, "settings": {"joined": True}} if known and len(known) == len(parts) else None


def parts_of(made_by: MadeBy) -> list[MadeBy]:
    """What was made by models: the content itself, or each that was fused."""
    return [part for fused in made_by["fused"] for part in parts_of(fused)] if "fused" in made_by else [made_by]


def _is_whole(part: MadeBy) -> bool:
    dataset, ensemble = part["radiographs"]["dataset"], part["ensemble"]
    return (
        (dataset is None or _is_whole_dataset(dataset))
        and (ensemble is None or isinstance(ensemble["sha256"], str))
        and all(map(_is_whole_model, part["models"]))
    )


def _is_whole_dataset(dataset: MadeBy) -> bool:
    """Of a run that does not know all radiographs of its dataset, their number and hash are missing together."""
    n, digest = dataset["n_images"], dataset["radiographs_sha256"]
    return (isinstance(n, int) and isinstance(digest, str)) or (n is None and digest is None)


def _is_whole_model(model: MadeBy) -> bool:
    digests = model["files"].values()
    return (
        isinstance(model["name"], str)
        and isinstance(model.get("fold"), int | str | None)
        and all(isinstance(digest, str) for digest in digests)
    )


def _has_settings(content: MadeBy) -> bool:
    fused = content.get("fused", ())
    return (
        isinstance(content["settings"], dict)
        and (bool(fused) or "fused" not in content)
        and all(map(_has_settings, fused))
    )
