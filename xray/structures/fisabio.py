"""The words of SIIM-FISABIO-RSNA COVID-19 Detection (Kaggle, 2021), and its submission: two tasks in one table.

`id,PredictionString`, a row a study (its id and _study) and a row a radiograph (its id and _image). A prediction is
`class confidence x_min y_min x_max y_max`: of a study each of four classes with the box 0 0 1 1, of a radiograph its
opacities in original pixels and `none` with the box 0 0 1 1.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xray.errors import InputError
from xray.files import complete
from xray.structures.submission import ENCODING, FISABIO_HEADER, cell, confidence, coordinate

OPACITY = "opacity"
NEGATIVE = "Negative for Pneumonia"
APPEARANCES = ("Typical Appearance", "Indeterminate Appearance", "Atypical Appearance")
IMAGE_SUFFIX, STUDY_SUFFIX = "_image", "_study"

_WORDS = ("typical", "indeterminate", "atypical")
_WHOLE = "0 0 1 1"
_NO_OPACITY, _NO_CLASS = f"none 1 {_WHOLE}", f"negative 1 {_WHOLE}"
"""What the challenge's sample submission says of a radiograph, and of a study."""


@dataclasses.dataclass
class Found:
    """What was found in one radiograph.

    scores, boxes: of its opacities, (N,) in [0, 1] and (N, 4) xyxy in original pixels.
    opacity: the probability that it shows one; None for the highest score.
    appearances: the probability of each of APPEARANCES; None where no model tells.
    """

    image: str
    study: str
    scores: np.ndarray
    boxes: np.ndarray
    opacity: float | None = None
    appearances: Sequence[float] | None = None


def write_fisabio_submission(path: Path, found: Sequence[Found], order: Sequence[str] = ()) -> list[str]:
    """Writes a submission, complete or not at all.

    A study has the mean probabilities of its radiographs, and is negative where none of the three holds, as if they
    were independent. order: the ids of a sample submission, each of which gets a row; without it, studies come first.

    Returns the ids of `order` of which nothing was found out, whose rows are those of the sample submission. Raises
    InputError for two radiographs of one id.
    """
    rows: dict[str, str] = {}
    studies: dict[str, list[Sequence[float]]] = {}
    for one in found:
        studies.setdefault(one.study, []).extend([] if one.appearances is None else [one.appearances])
    for study, probabilities in studies.items():
        rows[study + STUDY_SUFFIX] = _of_study(probabilities)
    for one in found:
        if one.image + IMAGE_SUFFIX in rows:
            raise InputError(f"{one.image} is the id of two radiographs: infer each folder of them by itself")
        rows[one.image + IMAGE_SUFFIX] = _of_image(one)
    names = list(order or rows)
    unseen = [name for name in names if name not in rows]
    rows |= {name: _NO_CLASS if name.endswith(STUDY_SUFFIX) else _NO_OPACITY for name in unseen}
    with complete(path) as temporary, temporary.open("w", newline="", **ENCODING) as file:
        file.write(",".join(FISABIO_HEADER) + "\n")
        file.writelines(f"{cell(name)},{rows[name]}\n" for name in names)
    return unseen


def _of_study(probabilities: Sequence[Sequence[float]]) -> str:
    if not probabilities:
        return _NO_CLASS
    means = np.mean(probabilities, axis=0).tolist()
    classes = {"negative": float(np.prod([1 - mean for mean in means])), **dict(zip(_WORDS, means, strict=True))}
    ordered = sorted(classes.items(), key=lambda item: -item[1])
    return " ".join(f"{word} {confidence(value)} {_WHOLE}" for word, value in ordered)


def _of_image(one: Found) -> str:
    shown = one.opacity if one.opacity is not None else float(one.scores.max(initial=0.0))
    parts = [
        f"{OPACITY} {confidence(float(one.scores[row]))} {' '.join(map(coordinate, one.boxes[row].round(1).tolist()))}"
        for row in np.argsort(-one.scores, kind="stable")
    ]
    return " ".join([*parts, f"none {confidence(1 - shown)} {_WHOLE}"])
