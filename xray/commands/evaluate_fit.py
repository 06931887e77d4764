"""What `xray evaluate --fit RUN` does beside scoring: before it, with what was scored, and once the report is there.

FitOfScores and FitOfMasks are two ways through the same steps: what is wrong is said before anything is scored, then
`fit`, `warnings`, `write`, and `check_written` at the end.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray.errors import InputError, spelled
from xray.evaluation.thresholds import Fitted
from xray.file_names import MODEL_FILE
from xray.files import sha256_of
from xray.inference import fitting
from xray.inference.ensemble_file import is_ensemble
from xray.inference.mask_fitting import check_fit, write_fit
from xray.inference.thresholds import thresholds_file, weights_of
from xray.outputs.report.printing import print_table
from xray.structures.thresholds import OperatingPoint
from xray.training import learned as learning

if TYPE_CHECKING:
    from xray.datasets.store import Store
    from xray.evaluation.evaluate import Evaluation
    from xray.structures.made_by import MadeBy
    from xray.structures.probability_maps import ProbabilityMaps

AT = "fp-per-image=0.125"
"""The least false positives of LUNA16's operating points, for each finding."""


class FitOfScores:
    """Thresholds, temperatures and intercepts of a detector, a classifier or an ensemble: thresholds.json beside it."""

    def __init__(self, run: Path, store: "Store", at: str, category_map: str | None) -> None:
        """Raises InputError where thresholds cannot be kept for RUN. at: what they reach, "" for AT."""
        self.run, self.store = run, store
        fitting.check_target(run, category_map)
        self.at = OperatingPoint.of(at or AT)
        self.strange, self.kind = "", ""
        self.fitted: list[Fitted] = []

    def check(self, strange: str, overwrite: bool) -> None:
        """Raises InputError where predictions that are not of RUN would replace its thresholds. strange: why not."""
        self.strange = strange
        if strange and not overwrite and (kept := thresholds_file(self.run)).is_file():
            raise InputError(f"--fit: {strange}: give the run's own predictions, or --overwrite to replace {kept}")

    def fit(self, result: "Evaluation", n_resamples: int) -> None:
        """Raises InputError where the predictions are of other categories."""
        self.kind, self.fitted = fitting.fit_scores(self.run, result, self.at, n_resamples)

    def warnings(self, result: "Evaluation", is_told: bool) -> list[str]:
        """is_told: made_by.json says what the models have learned from, of which another warning is."""
        known = is_told or self.run.is_file()
        learned = (0, "") if known else learning.learned_from(self.run, self.store, result.alignment.records)
        return fitting.warnings_of(self.run, result, learned, self.fitted)

    def write(self, result: "Evaluation", predictions: Path) -> None:
        """thresholds.json, and on the screen what the thresholds do; nothing where too little was fitted."""
        if not fitting.is_any_fitted(self.fitted):
            return
        given = (self.run, self.kind, self.fitted, self.at, self.store, result)
        kept = fitting.write_fitted(*given, sha256_of(predictions))
        title = f"Thresholds at {self.at}; each patient is measured by what was fitted on others"
        print_table(title, fitting.HEADER, fitting.table_of(self.fitted))
        print(f"fitted: {kept}")

    def check_written(self) -> None:
        """Raises InputError where no threshold could be fitted."""
        fitting.check_fitted(self.fitted, self.store)


class FitOfMasks:
    """The triplet and the gate of a segmenter, of those that were searched: they go into its model.json."""

    def __init__(self, run: Path, store: "Store", at: str, maps: "ProbabilityMaps | None", predictions: Path) -> None:
        """Raises InputError where RUN is no segmenter. predictions: the file beside which its maps lie."""
        self.run, self.store, self.at, self.maps, self.predictions = run, store, at, maps, predictions
        self.strange = ""
        check_fit(run)

    def check(self, strange: str, overwrite: bool) -> None:
        """Raises InputError where there are no maps and masks to search with, or maps of other categories."""
        self.strange = strange
        if self.at:
            raise InputError(f"--at is for --fit of a detector, a classifier or an ensemble, and {self.run} is none")
        if self.maps is None or not self.store.masks:
            what = "no true masks" if self.maps else f"no probability maps beside {self.predictions}"
            raise InputError(f"--fit: {what}: run {spelled('infer')} with --probabilities on a dataset with masks")
        check_fit(self.run, list(self.maps.categories.values()))

    def fit(self, result: "Evaluation", n_resamples: int) -> None:
        """The search is a part of scoring. Raises InputError where the dataset has none of the masks."""
        if not result.masks or not result.masks.search:
            raise InputError(
                f"--fit: the probability maps are of {', '.join(result.unused_maps)}, of which {self.store.path} has "
                "no masks: give the dataset that the model was trained for"
            )

    def warnings(self, result: "Evaluation", is_told: bool) -> list[str]:
        """None beside those of the evaluation itself."""
        return []

    def write(self, result: "Evaluation", predictions: Path) -> None:
        """The best setting, into model.json."""
        assert result.masks is not None  # `fit` asks for it
        assert result.masks.search is not None
        search = result.masks.search
        write_fit(self.run, search.setting, search.gate.best["gate"] if search.gate else None)
        print(f"fitted: {self.run / MODEL_FILE} now has the best triplet{' and gate' if search.gate else ''}")

    def check_written(self) -> None:
        """There is always a best setting."""


Fit = FitOfScores | FitOfMasks


def fit_of(
    config: Any, store: "Store", maps: "ProbabilityMaps | None", makers: Sequence[Path], made_by: "MadeBy | None"
) -> Fit | None:
    """What --fit asks for, None without it.

    config: of `xray evaluate`. makers: the runs beside the predictions. made_by: what is written down beside these.
    Raises InputError where RUN, its dataset or the predictions do not fit each other.
    """
    run, predictions = config.fit, config.predictions
    if run is None:
        return None
    fit: Fit
    if fitting.has_scores(run):
        fit = FitOfScores(run, store, config.at, config.map)
    else:
        fit = FitOfMasks(run, store, config.at, maps, predictions)
    strange = ""
    if made_by is not None:
        strange = learning.other_weights(run, weights_of(run), is_ensemble(run), made_by, predictions)
    elif not is_ensemble(run):
        strange = learning.strangers(run, makers, predictions)
    fit.check(strange, config.overwrite)
    return fit


def warnings_of_learning(
    config: Any, store: "Store", result: "Evaluation", fit: Fit | None, makers: Sequence[Path], made_by: "MadeBy | None"
) -> list[str]:
    """Warnings where models are scored, or fitted, on radiographs that they have learned from.

    The arguments are those of `fit_of`, with what was scored.
    """
    records = result.alignment.records
    by_record = learning.learned_by(made_by, store, records)
    warnings = [f"--fit: {fit.strange}"] if fit and fit.strange else []
    warnings += learning.of_other_radiographs(made_by, config.predictions, store)
    if fit:
        warnings += fit.warnings(result, is_told=by_record is not None)
    if by_record is not None:
        return warnings + learning.flattering(by_record[0], len(records), by_record[1])
    trained = makers or ([config.fit] if config.fit else [])
    if len(trained) == 1 and not isinstance(fit, FitOfScores):
        warnings += learning.learned_in_words(trained[0], store, records)
    return warnings
