"""What the reader of a report should know before its numbers."""

import shlex
from typing import TYPE_CHECKING

from xray.structures.predictions import NO_FINDING_CATEGORY

if TYPE_CHECKING:
    from xray.datasets.store import Store
    from xray.evaluation.evaluate import Evaluation


FEW = 4
"""Categories up to which a sentence spells out the flag for them."""


def warnings_of(result: "Evaluation", store: "Store") -> list[str]:
    """A sentence for each fact that a reader of the report should know before its numbers."""
    warnings, alignment = [], result.alignment
    if alignment.n_without_prediction:
        as_what = "images with empty masks" if result.masks else "images without detections"
        warnings.append(
            f"{alignment.n_without_prediction} of {len(alignment)} scored images have no prediction at all: they count "
            f"as {as_what}"
        )
    if alignment.unknown_ids:
        warnings.append(
            f"{len(alignment.unknown_ids)} images in the predictions are not in the dataset and are left out "
            f"(the first is {alignment.unknown_ids[0]!r})"
        )
    if alignment.n_unmasked:
        warnings.append(
            f"{alignment.n_unmasked} images are left out: they have true boxes without a mask, so that their masks are "
            "not known"
        )
    no_finding = result.metrics.get("ap40_no_finding")
    if (
        result.boxes is not None
        and no_finding == 0
        and NO_FINDING_CATEGORY not in result.boxes.alignment.predictions.labels
    ):
        warnings.append(
            'the predictions have no "No finding" rows (those that train writes have none), so that its AP is 0: this '
            "lowers the mean over Kaggle's 15 classes (map40_kaggle), and not that over the findings (map40)"
        )
    warnings += _not_predicted(result)
    warnings += _not_scored(result)
    if result.unused_maps:
        warnings.append(
            f"the probability maps of {', '.join(result.unused_maps)} beside the predictions are not used, since "
            "the dataset has no truth of them"
        )
    if store.conversion.get("parameters", {}).get("readers") == "all":
        warnings.append(
            "the truth holds the boxes of all readers, so that one finding may have to be found several times"
        )
    return warnings


def _not_predicted(result: "Evaluation") -> list[str]:
    """A sentence on the categories without a row, where others have some."""
    labels = set(result.alignment.predictions.labels.tolist())
    predicted = [name for label, name in result.alignment.categories.items() if label in labels]
    if not result.not_predicted or not predicted:
        return []
    missing = result.not_predicted
    flags = f" {shlex.join(predicted)}" if len(predicted) <= FEW else ""
    return [
        f"no prediction is of {', '.join(missing)}: {'it counts' if len(missing) == 1 else 'they count'} as found "
        f"nowhere, and in the means; if the model does not know {'it' if len(missing) == 1 else 'them'}, score what it "
        f"knows with --categories{flags}"
    ]


def _not_scored(result: "Evaluation") -> list[str]:
    """A sentence for each group of boxes, masks or labels that was left out because the dataset has no truth for it."""
    metrics, n_unlocated = result.metrics, result.alignment.n_unlocated
    warnings = []
    if n_unlocated:
        warnings.append(
            f"{n_unlocated} images are left out: they have no prediction, and the dataset does not say where in them "
            "anything is"
        )
    for name, what in (
        ("only_negative", "no label is scored that none of the radiographs shows, as far as it is known"),
        ("only_positive", "no label is scored that all of the radiographs show, as far as it is known"),
        ("never_known", "no label is scored that is not known of any radiograph"),
    ):
        if names := metrics.get(name):
            warnings.append(f"{what}: {', '.join(names)}")
    for name, what in (
        ("n_unlocated", "boxes are not scored where a finding may be without one"),
        ("n_unknown_masks", "masks are not scored where they are not known"),
        ("n_unknown", "labels are not scored where they are not known"),
    ):
        if numbers := metrics.get(name):
            named = ", ".join(f"{finding} in {number}" for finding, number in numbers.items())
            dropped = f"; {metrics['n_unlocated_boxes']} predicted boxes are dropped" if name == "n_unlocated" else ""
            warnings.append(f"{what}: {named} of {len(result.alignment)} images{dropped}")
    return warnings
