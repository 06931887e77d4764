"""`xray evaluate --fit` for detectors, classifiers and ensembles: thresholds.json, and a table of its effect."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xray.datasets.fingerprint import fingerprint
from xray.datasets.store import Store
from xray.errors import InputError
from xray.evaluation.calibration import HIGHEST
from xray.evaluation.evaluate import Evaluation, plain_numbers
from xray.evaluation.thresholds import N_FOLDS, Fitted, fit_thresholds, scored_findings
from xray.file_names import MODEL_FILE
from xray.inference.ensemble_file import files_of, is_ensemble
from xray.inference.thresholds import thresholds_file, weights_of, write_thresholds
from xray.structures.thresholds import ABNORMAL, SHOWN_FROM, OperatingPoint, Thresholds

UNLIKELY = 0.05
"""Calibrated probability of a finding under which a warning says that it is shown."""
MANY_FALSE = 1.0
"""More false positives an image of one finding lead to a warning."""
HEADER = (
    ("Finding", "text"),
    ("True", "number"),
    ("Threshold", "number"),
    ("Temperature", "number"),
    ("Intercept", "number"),
    ("Sensitivity", "number"),
    ("False positives an image", "number"),
    ("ECE", "number"),
    ("ECE calibrated", "number"),
)


def has_scores(given: Path) -> bool:
    """Whether --fit is for the scores of a detector, a classifier or an ensemble, and not for a segmenter's masks.

    For a path that is no run this is false; `check_fit` then names the error.
    """
    return is_ensemble(given) or _task_of(given)[0] not in (None, "segmentation")


def _task_of(run: Path) -> tuple[str | None, list[str]]:
    """The task of a run directory, None for another path, and the names of its categories."""
    try:
        description = json.loads((run / MODEL_FILE).read_bytes())
        return str(description["task"]), list(map(str, description["categories"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, []


def check_target(given: Path, category_map: str | None = None) -> None:
    """Raises InputError where thresholds cannot be kept for a run or an ensemble, or --map names other findings."""
    if category_map is not None:
        raise InputError("--fit: leave out --map, and give the dataset whose categories the model was trained for")
    weights_of(given)
    folder = thresholds_file(given).parent
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give --fit the run directory whose scores these are")


def fit_scores(given: Path, result: Evaluation, at: OperatingPoint, n_resamples: int) -> tuple[str, list[Fitted]]:
    """Fits all findings that can be fitted → the kind of the scores, and each finding.

    Raises InputError where the predictions are of other categories than the models.
    """
    kind, findings = scored_findings(result)
    runs = [path for path in files_of([given]) if not is_ensemble(path)]
    names = {name for run in runs for name in _task_of(run.parent if run.is_file() else run)[1]}
    if strange := [one.name for one in findings if one.name not in names | {ABNORMAL}]:
        raise InputError(
            f"--fit: {given} does not find {', '.join(strange)}: give the run or the ensemble that made the predictions"
        )
    return kind, fit_thresholds(findings, at, n_resamples)


def is_any_fitted(fitted: Sequence[Fitted]) -> bool:
    """Whether there was enough to fit at least one threshold."""
    return not all(one.lack for one in fitted)


def check_fitted(fitted: Sequence[Fitted], store: Store) -> None:
    """Raises InputError where no threshold could be fitted."""
    if not is_any_fitted(fitted):
        more = f", and {len(fitted) - 1} more findings have too few as well" if len(fitted) > 1 else ""
        lacks = f"{fitted[0].name}: {fitted[0].lack}{more}" if fitted else f"{store.path} has none of the findings"
        raise InputError(
            f"--fit: too little to fit any threshold ({lacks}): give predictions of more radiographs; the report is "
            "written"
        )


def write_fitted(
    given: Path,
    kind: Any,
    fitted: Sequence[Fitted],
    at: OperatingPoint,
    store: Store,
    result: Evaluation,
    predictions: str,
) -> Path:
    """Writes thresholds.json of a run or an ensemble, whole. predictions: SHA-256 of the predictions file. Returns the
    file."""
    scored = fingerprint(store, result.alignment.rows)
    facts = ("n_images", "n_patients", "annotations_sha256", "split_sha256")
    notes = {
        "dataset": {name: scored[name] for name in facts},
        "predictions_sha256": predictions,
        "parts": N_FOLDS,
        "cross_fitted": plain_numbers(
            {
                one.name: {"n": one.n, "n_true": one.n_true, "n_truth": one.n_truth}
                | ({"not_fitted": one.lack} if one.lack else one.numbers)
                for one in fitted
            }
        ),
    }
    return write_thresholds(given, Thresholds(kind, {one.name: one.point for one in fitted}, str(at)), notes)


def warnings_of(given: Path, result: Evaluation, learned: tuple[int, str], fitted: Sequence[Fitted]) -> list[str]:
    """Warnings about a fit. learned: how many of the radiographs the run was trained on, and what it held back."""
    records, warnings = result.alignment.records, []
    if n_test := sum(record["split"] == "test" for record in records):
        warnings.append(
            f"--fit: {n_test} of {len(records)} radiographs are of the test split: what is measured there from now on "
            "is flattered"
        )
    n_learned, held = learned
    if n_learned:
        warnings.append(
            f"--fit: {given} {held}, and {n_learned} of {len(records)} radiographs are others: it has learned from "
            "them, unless the predictions are those of cross-validation"
        )
    # Where no threshold was fitted, `check_fitted` says so once.
    for one in fitted if is_any_fitted(fitted) else ():
        if one.lack:
            warnings.append(
                f"--fit: too little to fit {one.name} ({one.lack}): it keeps its scores, and is shown from {SHOWN_FROM}"
            )
        elif one.point.threshold is None:
            warnings.append(
                f"--fit: {one.name} does not reach the sensitivity, as its boxes are only {one.n_true} of "
                f"{one.n_truth} findings: shown from a probability of {SHOWN_FROM}"
            )
        elif (n_false := one.numbers["fp_per_image"]) > MANY_FALSE:
            warnings.append(
                f"--fit: {one.name} is shown with {n_false:.1f} false positives an image: --at fp-per-image=F, or a "
                "lower sensitivity, keeps fewer"
            )
        if not one.lack:
            warnings += _of_probabilities(one)
    return warnings


def _of_probabilities(one: Fitted) -> Iterator[str]:
    """Warnings about the calibration of a fitted finding, and about what it makes of the threshold."""
    if one.is_separated:
        yield (
            f"--fit: each true score of {one.name} is above each false one: how sure the probabilities may be follows "
            f"from the number of scores alone ({one.n_true} true, {one.n - one.n_true} false)"
        )
    if one.point.temperature >= HIGHEST:
        yield (
            f"--fit: the scores of {one.name} do not tell what is true from what is false: all get nearly the "
            f"probability of {one.n_true / one.n:.2g}, the share that is true"
        )
    threshold = one.point.threshold
    if threshold is not None and (least := float(one.point.probability(np.array(threshold)))) < UNLIKELY:
        yield (
            f"--fit: {one.name} is shown from a calibrated probability of {least:.2g}: --at fp-per-image=F, or a lower "
            "sensitivity, shows what is more likely"
        )


def table_of(fitted: Sequence[Fitted]) -> list[tuple[str, ...]]:
    """The rows of HEADER: the numbers of each finding on patients that it was not fitted on."""
    rows = []
    for one in fitted:
        if one.lack:
            rows.append((one.name, str(one.n_true), "–", "1", "0", *["–"] * 4))
            continue
        numbers = [_number(one.numbers, name) for name in ("sensitivity", "fp_per_image", "ece", "ece_calibrated")]
        threshold = "–" if one.point.threshold is None else f"{one.point.threshold:.3f}"
        line = (f"{one.point.temperature:.2f}", f"{one.point.intercept:.2f}")
        rows.append((one.name, str(one.n_true), threshold, *line, *numbers))
    return rows


def _number(numbers: dict[str, Any], name: str) -> str:
    interval = numbers.get(f"{name}_ci95")
    return f"{numbers[name]:.3f}" + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else "")
