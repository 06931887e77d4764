"""thresholds.json: the values that `xray evaluate --fit` found for each finding, kept beside the model. It may be
removed.

RUN/thresholds.json of a run directory, NAME.thresholds.json beside a NAME.yaml of an ensemble. It holds no date. It
counts only for the weights that made the scores it was fitted on.
"""

import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xray import __version__
from xray.errors import InputError, spelled
from xray.file_names import WEIGHTS_FILE
from xray.files import replacing, sha256_of
from xray.inference.ensemble_file import files_of, is_ensemble
from xray.structures.thresholds import Point, Thresholds

FILE = "thresholds.json"
VERSION = 2
"""Files of version 1 have no intercepts: their probabilities are those of temperatures alone."""
MOST_BYTES = 2**20
MOST_INTERCEPT = 1e4
"""Above what a fit can come to: the logits of saturated scores, up to 14, divided by a temperature of down to 0.01."""
NOTE = "Calibration and threshold of each finding, as xray evaluate --fit found them; may be removed."


def thresholds_file(given: Path) -> Path:
    """Where the fit of a run directory, of an exported file in one, or of an ensemble.yaml lies."""
    if is_ensemble(given):
        return given.with_name(f"{given.stem}.{FILE}")
    return (given.parent if given.is_file() else given) / FILE


def weights_of(given: Path) -> list[str]:
    """SHA-256, in hex, of the files that decide the scores: the ensemble.yaml, if there is one, and all weights.

    Raises InputError where there are none.
    """
    digests = []
    for path in files_of([given]):
        file = path if is_ensemble(path) else (path.parent if path.is_file() else path) / WEIGHTS_FILE
        try:
            digests.append(sha256_of(file))
        except OSError as error:
            raise InputError(f"{path} holds no {WEIGHTS_FILE} ({error.strerror}): give a trained run") from None
    return digests


def write_thresholds(given: Path, thresholds: Thresholds, notes: Mapping[str, Any]) -> Path:
    """Writes the fit of a run or an ensemble, whole or not at all. notes: further entries, as JSON.

    Returns the file. Raises InputError as `weights_of`.
    """
    content = {
        "note": NOTE,
        "version": VERSION,
        "xray": __version__,
        "weights": weights_of(given),
        "at": thresholds.at,
        "kind": thresholds.kind,
        "findings": {name: dataclasses.asdict(point) for name, point in thresholds.of.items()},
        **notes,
    }
    path = thresholds_file(given)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")
    return path


def read_thresholds(given: Path) -> Thresholds | None:
    """The fit of a run or an ensemble; None without a fit.

    Raises InputError where the file is damaged, of another version, or of other weights.
    """
    path = thresholds_file(given)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("it is too large")
        data = path.read_bytes()
        content = json.loads(data)
        if type(content["version"]) is not int or content["version"] not in (1, VERSION):
            raise ValueError(f"it has the version {content['version']!r:.20}")
        if content["kind"] not in ("boxes", "labels"):
            raise ValueError(f"it is of {content['kind']!r:.20}")
        weights = [str(digest) for digest in content["weights"]]
        points = {
            str(name): _point(str(name), values, content["version"]) for name, values in content["findings"].items()
        }
        thresholds = Thresholds(content["kind"], points, str(content["at"]), hashlib.sha256(data).hexdigest())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:100]
        raise InputError(
            f"{path} is damaged ({reason}): fit again by {spelled('evaluate')} --fit, or remove it"
        ) from None
    if weights != weights_of(given):
        what = "the ensemble or its weights" if is_ensemble(given) else "the weights"
        raise InputError(
            f"{path} was fitted before {what} changed: fit again by {spelled('evaluate')} --fit, or remove it"
        )
    return thresholds


def say(line: str) -> None:
    """Prints a line that starts small to stderr."""
    print(line, file=sys.stderr)


def thresholds_of(
    given: Sequence[Path], from_probability: float | None = None, warn: Callable[[str], object] = say
) -> Thresholds | None:
    """The fit of the paths of --weights; None where there is none that can be used.

    from_probability: the probability that the user gives in place of a fit, in [0, 1]. warn: called with one line about
    a fit that is not used.
    """
    try:
        if len(given) == 1:
            thresholds = read_thresholds(given[0])
            return thresholds and thresholds.instead(from_probability)
        fits = [path for path in map(thresholds_file, given) if path.is_file()]
        if fits:
            raise InputError(
                f"{fits[0]} is of one model alone, and here are {len(given)}: fit an ensemble.yaml that names them"
            )
    except InputError as error:
        warn(f"warning: thresholds are not used: {error}")
    return None


def _point(name: str, values: Any, version: int) -> Point:
    temperature, threshold = values["temperature"], values["threshold"]
    intercept = values["intercept"] if version > 1 else 0.0
    numbers = [value for value in (temperature, threshold, intercept) if value is not None]
    if not all(type(value) in (int, float) and math.isfinite(value) for value in numbers):
        raise ValueError(f"{name} has no numbers")
    if temperature is None or not 0.01 <= temperature <= 100 or not 0 <= (threshold or 0) <= 1.01:
        raise ValueError(f"{name} has a temperature of {temperature} and a threshold of {threshold}")
    if intercept is None or abs(intercept) > MOST_INTERCEPT:
        raise ValueError(f"{name} has an intercept of {intercept}")
    return Point(float(temperature), None if threshold is None else float(threshold), float(intercept))
