"""`xray evaluate --fit` for segmenters: the best triplet and gate go into model.json."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray.errors import InputError
from xray.file_names import MODEL_FILE

if TYPE_CHECKING:
    from xray.structures.triplet import Triplet


def check_fit(run: Path, names: Sequence[str] = ()) -> dict[str, Any]:
    """model.json of a segmentation run whose thresholds may be replaced.

    names: the categories that the thresholds were searched for; none leaves them unchecked.
    Raises InputError if it is no such run, or of other categories.
    """
    from xray.models.weights import read_description

    path = run / MODEL_FILE
    if not path.is_file():
        if run.is_dir() and any(run.glob(f"*/{MODEL_FILE}")):
            read_description(run)  # says which runs are in the folder
        raise InputError(f"{run} is no trained run (no {MODEL_FILE}): give --fit the run directory of a segmenter")
    try:
        description = json.loads(path.read_text())
        task, categories = description["task"], list(description["categories"].values())
        if task == "segmentation":
            description["thresholds"]["mask"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}): train again or restore it") from None
    if task != "segmentation":
        raise InputError(f"{run} is a run of the task {task}, which has no masks: give --fit a segmentation run")
    if not set(names) <= set(categories):
        raise InputError(
            f"{run} finds {', '.join(categories)}, the probability maps are of {', '.join(names)}: give --fit the run "
            "that made them"
        )
    return dict(description)


def write_fit(run: Path, triplet: "Triplet", gate: float | None) -> None:
    """Puts `top`, `min_area`, `bottom` and, where there is one, `gate` beside `mask` in model.json's thresholds.

    The file is replaced whole. Raises InputError as `check_fit` does.
    """
    from xray.models.weights import rewrite_description

    description = check_fit(run)
    description["thresholds"] |= dataclasses.asdict(triplet) | ({} if gate is None else {"gate": gate})
    rewrite_description(run, description)
