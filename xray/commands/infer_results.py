"""What the command infer writes of all radiographs together, once each was looked at, and says of it."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xray.commands.archives import Failure
from xray.commands.find_all import settings_for
from xray.commands.infer_flags import Config, part_of
from xray.datasets.inputs import Inputs
from xray.file_names import LABELS, PREDICTIONS, SUBMISSION
from xray.inference.ensemble_file import files_of
from xray.inference.pipeline import Pipeline
from xray.inference.prediction_journal import PredictionJournal
from xray.inference.thresholds import thresholds_of
from xray.outputs.fisabio import FisabioSubmission
from xray.outputs.made_by import made_by_models, radiographs_of
from xray.outputs.results import WARNINGS, kind_of_submission, warnings_of, what_was_written, write_results
from xray.radiographs.file_warnings import FileWarning, print_warnings
from xray.structures.made_by import write_made_by
from xray.structures.probability_maps import INDEX
from xray.structures.thresholds import Thresholds, in_force

if TYPE_CHECKING:
    from xray.outputs.dicom.results import DicomResults


@dataclasses.dataclass(frozen=True)
class Written:
    """What there is to say of the files."""

    n_boxes: tuple[int, int]
    """All boxes, and those that are shown."""
    shown: tuple[float, Thresholds | None]
    """By which they are, as `in_force` gives it."""
    warnings: list[tuple[str, FileWarning]]
    """Each with its radiograph, "" where it is of none."""
    has_submission: bool
    """Whether there is a submission of a challenge."""


def failures_of(journal: PredictionJournal, inputs: Inputs, order: Sequence[str]) -> list[Failure]:
    """Name, file and reason of each radiograph that could not be read, and of each row of `order` that has no file."""
    failures = [
        (inputs.ids[at], file, why.removeprefix(f"{file}: "))
        for portion in journal.portions()
        for at, file, why in portion.failures
    ]
    absent = set(order).difference(inputs.ids)
    return failures + [(name, "", "no such file") for name in order if name in absent]


def write_files(
    config: Config,
    pipeline: Pipeline,
    inputs: Inputs,
    journal: PredictionJournal,
    order: Sequence[str],
    failures: Sequence[Failure],
    left_out: list[tuple[str, FileWarning]],
    fitted: Thresholds | None,
    fisabio: FisabioSubmission | None,
) -> Written:
    """Predictions, submission, labels, failures, warnings, and what made them.

    order: names of the submission's rows. left_out: warnings of what an archive did not give. fitted: thresholds by
    which findings are drawn or reported, None where they are not.
    """
    out, runs = Path(config.save_path), [Path(run) for run in config.weights]
    if not config.probabilities:
        # Maps of an earlier command would be taken for these predictions'.
        (out / INDEX).unlink(missing_ok=True)
    kind = "" if fisabio else kind_of_submission(pipeline)
    if fisabio:
        fisabio.write(out / SUBMISSION, journal)
    warnings = warnings_of(inputs, journal) + left_out
    # No warnings about thresholds by which nothing is drawn.
    counted_by = fitted or thresholds_of(runs, warn=lambda line: None)
    shown = in_force(counted_by, config.overlay_threshold if config.overlays else None, config.threshold)
    n_boxes = write_results(out, journal, order, pipeline.categories, kind, failures, warnings, shown)
    settings = settings_for(config, pipeline, inputs, journal)
    made_by = made_by_models(files_of(runs), settings, radiographs_of(inputs.ids, inputs.store, *part_of(config)))
    write_made_by(out, (PREDICTIONS, SUBMISSION, LABELS), made_by)
    return Written(n_boxes, shown, warnings, bool(kind or fisabio))


def say_what_was_written(
    config: Config,
    pipeline: Pipeline,
    inputs: Inputs,
    order: Sequence[str],
    failures: Sequence[Failure],
    written: Written,
    dicom_results: "DicomResults | None",
) -> None:
    """On the screen: files and counts, warnings, and the first of the failures."""
    out = Path(config.save_path)
    if dicom_results is not None:
        failed = {name for name, *_ in failures}
        read = [(n, path) for n, path in zip(inputs.ids, inputs.paths, strict=True) if n not in failed]
        print(*dicom_results.summary(out, read), sep="\n")
    print_warnings([warning for _, warning in written.warnings], str(out / WARNINGS))
    is_of_masks, n_read = bool(pipeline.segmenters) and not pipeline.detectors, len(order) - len(failures)
    facts = (written.n_boxes, written.shown, written.has_submission)
    is_of_labels = bool(pipeline.classifiers) and not pipeline.has_places
    print(what_was_written(out, n_read, *facts, config.overlays, is_of_masks, is_of_labels))
    if failures:
        refused = " or were refused" if inputs.gate.mode == "refuse" else ""
        print(
            f"error: {len(failures)} of {len(order)} radiographs could not be read{refused} (the first, "
            f"{failures[0][1] or failures[0][0]}: {failures[0][2]}): see {out / 'failures.csv'}",
            file=sys.stderr,
        )
