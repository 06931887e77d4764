"""Fuses the predictions of several models into one predictions.json and one submission.csv."""

import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Interval

from xray.commands.id_flags import CategoryIdsOfEach, ImageIdsOfEach
from xray.commands.runner import command
from xray.errors import FlagError, InputError
from xray.file_names import PREDICTIONS, SUBMISSION
from xray.files import check_output, finishing
from xray.flags import Positive, Share, ShareWithin, check_ranges, require

if TYPE_CHECKING:
    from xray.datasets.store import Store
    from xray.inference.coverage import Coverage
    from xray.inference.ensemble import ByCategory
    from xray.inference.out_of_fold import Labels
    from xray.structures.made_by import MadeBy
    from xray.structures.predictions import Predictions


@dataclasses.dataclass(frozen=True)
class Config:
    """Fuses several models' predictions, image by image and finding by finding.

    A model that was not run on a radiograph has no vote there, which is said.
    """

    predictions: tuple[Path, ...]
    """Two or more predictions.json, or submission.csv, one a model."""
    data_path: Path = Path("data/vinbig")
    """Dataset directory written by tools/convert.py that the predictions are of."""
    save_path: Path = Path("runs/fused")
    """Folder for predictions.json and submission.csv."""
    ids: ImageIdsOfEach = ("auto",)
    category_ids: CategoryIdsOfEach = ("auto",)
    weights: tuple[float, ...] = ()
    """Weight of each file, in the same order, each positive; equal by default."""
    iou: ShareWithin = 0.4
    """Boxes of one finding that overlap by more than this IoU, in (0, 1), are taken for one."""
    skip: Share = 0.0
    """Boxes with a lower score, in [0, 1], are left out."""
    method: Literal["wbf", "nms", "soft_nms", "nmw", "none"] = "wbf"
    """wbf averages overlapping boxes; nms keeps the strongest; soft_nms lowers the others; nmw averages by overlap;
    none keeps all as they are."""
    score: Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg", "sum"] = "sum"
    """How wbf scores a fused box. sum: each model counts once, by its strongest box there; the sum of these scores,
    divided by that of all models' weights. The others are those of the ensemble-boxes package, in which each faint box
    beside a sure one counts; with unequal --weights, avg may have to be cut to 1."""
    sigma: Positive = 0.5
    """Of soft_nms: scores are lowered by exp(-IoU² / sigma); above 0."""
    scale: Annotated[float, Interval(ge=0.5, le=1)] = 1.0
    """Sides of the fused boxes are multiplied by this, about its middle, 0.5 to 1; RSNA's winners used 0.875."""
    labels: tuple[Path, ...] = ()
    """Classifiers of findings: labels.csv or predictions.json that infer or a training wrote; several are averaged. A
    box's score is multiplied by the root of the probability of its finding, or as --ensemble says."""
    ensemble: Path | None = None
    """ensemble.yaml of tools/tune.py: its settings for each finding, in place of the flags above. --predictions and
    --labels are of its models and classifiers, in its order."""
    overwrite: bool = False
    """Replace the files at --save-path."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> None:
    """Fuses, writes both files and prints the numbers of boxes before and after."""
    check(config)
    check_output(config.save_path, (PREDICTIONS, SUBMISSION), "fusion", config.overwrite)

    from rich.console import Console

    from xray.datasets.prediction_ids import read_all_predictions
    from xray.datasets.store import open_store
    from xray.evaluation.alignment import check_categories
    from xray.inference.coverage import Coverage
    from xray.inference.ensemble import fuse_by_category, weigh
    from xray.inference.out_of_fold import mean_labels, read_labels
    from xray.structures.made_by import read_made_by, write_made_by
    from xray.structures.predictions import NO_FINDING_CATEGORY, write_predictions
    from xray.structures.submission import write_submission
    from xray.training.learned import of_other_radiographs

    store = open_store(config.data_path, pixels=False)
    settings = settings_of(config, store)
    # Each by itself and before anything is fused: two files may name one radiograph in two ways.
    models = read_all_predictions(config.predictions, store, config.ids, config.category_ids)
    for path, model in zip(config.predictions, models, strict=True):
        check_categories(store, model, path.name)
        for line in of_other_radiographs(read_made_by(path), path, store):
            print(f"warning: {line}", file=sys.stderr)
    coverage = Coverage.of(models, store)
    for line in (*coverage.gaps(list(map(str, config.predictions))), *empty_ones(config, models, coverage)):
        print(f"warning: {line}", file=sys.stderr)
    labels = mean_labels([read_labels(file, store) for file in files_of_labels(config)])
    with Console(stderr=True).status("fusing"):
        fused = fuse_by_category(models, settings, coverage.covered)
    for line in without_label(fused, labels, store):
        print(f"warning: {line}", file=sys.stderr)
    fused = weigh(fused, labels, settings)
    image_ids, n_unknown = images_to_submit(store, fused)
    if n_unknown:
        print(f"warning: {n_unknown} images are not in {store.path}; their boxes are kept", file=sys.stderr)
    # Now, as --save-path may be the folder of one of them.
    made_by = made_by_fused(config, store, models)
    with_submission = max(store.categories) < NO_FINDING_CATEGORY
    with finishing(config.save_path, "fusion"):
        if with_submission:
            write_submission(config.save_path / SUBMISSION, fused, image_ids, store.categories)
        write_predictions(config.save_path / PREDICTIONS, fused, store.categories)
        write_made_by(config.save_path, (PREDICTIONS, SUBMISSION), made_by)
    print(f"{sum(len(model.table) for model in models)} boxes of {len(models)} files → {len(fused.table)} boxes")
    print(f"predictions: {config.save_path / PREDICTIONS}")
    if with_submission:
        print(f"submission: {config.save_path / SUBMISSION}")
    else:
        print(f"no {SUBMISSION}: it has room for 14 categories, {store.path} has {len(store.categories)}")


def empty_ones(config: Config, models: "Sequence[Predictions]", coverage: "Coverage") -> Iterator[str]:
    """A sentence for each file that says of no radiograph that nothing was found there."""
    for path, model, covered in zip(config.predictions, models, coverage.covered, strict=True):
        if n_empty := len(covered.difference(model.image_ids)):
            yield (
                f"{path} has no rows for {n_empty} of {len(coverage.image_ids)} radiographs, where its model counts as "
                'one that found nothing; if it was not run there, give it a "No finding" row for each radiograph that '
                "it was run on"
            )


def check(config: Config) -> None:
    """Raises FlagError if a value is out of range."""
    if not config.predictions:
        raise FlagError("--predictions names no file: give two or more")
    check_ranges(config)
    if config.ensemble is not None:
        for field in dataclasses.fields(config):
            if field.name in ("weights", "iou", "skip", "method", "score", "sigma", "scale"):
                is_default = getattr(config, field.name) == field.default
                require(is_default, field.name, getattr(config, field.name), "left out with --ensemble, which says it")
    given = " ".join(f"{weight:g}" for weight in config.weights)
    if config.weights and len(config.weights) != len(config.predictions):
        raise FlagError(f"--weights is {given}: give one for each of the {len(config.predictions)} files")
    if not all(0 < weight < math.inf for weight in config.weights):
        raise FlagError(f"--weights is {given}: give positive numbers, and leave out models that should not count")


def settings_of(config: Config, store: "Store") -> "ByCategory":
    """The settings of --ensemble, or of the flags. Raises InputError if the files are not as many as its models."""
    from xray.inference.ensemble import ByCategory, Settings
    from xray.inference.ensemble_file import read_ensemble

    if config.ensemble is None:
        flags = (config.weights, config.method, config.score, config.iou, config.skip, config.sigma, config.scale)
        return ByCategory(Settings(*flags))
    ensemble = read_ensemble(config.ensemble)
    if len(config.predictions) != len(ensemble.models):
        raise InputError(
            f"{config.ensemble} is of {len(ensemble.models)} models, and --predictions names {len(config.predictions)} "
            "files: give one of each, in its order"
        )
    if ensemble.needs_classifier and not config.labels:
        raise InputError(f"{config.ensemble} weighs boxes by a classifier: give its probabilities as --labels")
    return ensemble.by_category(store.categories)


def made_by_fused(config: Config, store: "Store", models: "Sequence[Predictions]") -> "MadeBy | None":
    """What made_by.json says of the fused predictions; None where it is not known of one of them."""
    from xray.files import sha256_of
    from xray.outputs.made_by import made_by_of

    given = zip(config.predictions, models, strict=True)
    known = [made_by_of(path, list(map(str, model.image_ids)), store) for path, model in given]
    if any(one is None for one in known):
        return None
    names = ("weights", "iou", "skip", "method", "score", "sigma", "scale") if config.ensemble is None else ()
    settings = {name: getattr(config, name) for name in names}
    if config.ensemble is not None:
        settings["ensemble_sha256"] = sha256_of(config.ensemble)
    settings["labels_sha256"] = [sha256_of(path) for path in files_of_labels(config)]
    return {"fused": known, "settings": settings}


def files_of_labels(config: Config) -> "list[Path]":
    """The files of --labels, each of which may be in a folder. Raises InputError if one is not there."""
    from xray.inference.out_of_fold import member_of

    return [file for path in config.labels for file in member_of(path, of_labels=True).predictions]


def without_label(fused: "Predictions", labels: "Labels", store: "Store") -> Iterator[str]:
    """A sentence if a classifier says nothing of boxes that others of their finding are weighed beside.

    Raises InputError where it says nothing of any box."""
    from xray.structures.predictions import is_no_finding

    table = fused.table.select(~is_no_finding(fused.table))
    boxes = list(zip(table.labels.tolist(), (fused.image_ids[image] for image in table.images.tolist()), strict=True))
    lacking = [(label, name) for label, name in boxes if label in labels and name not in labels[label]]
    n_known = sum(label in labels for label, _ in boxes)
    if n_known and len(lacking) == n_known:
        theirs = next((name for of_image in labels.values() for name in of_image), None)
        raise InputError(
            f"--labels says nothing of any radiograph with boxes, which are named like {lacking[0][1]!r}"
            + ("" if theirs is None else f", there like {theirs!r}")
            + f": give what infer wrote of {store.path}"
        )
    if lacking:
        label, name = lacking[0]
        n_images = len({name for _, name in lacking})
        yield (
            f"--labels says nothing of {n_images} radiographs (such as {store.categories[label]} in {name!r}): their "
            f"{len(lacking)} boxes keep their scores, and stand higher beside the others than those would"
        )


def images_to_submit(store: "Store", fused: "Predictions") -> tuple[list[str], int]:
    """The ids a submission needs a row for, and how many of them the dataset does not know.

    These are all images of each split and fold that the predictions touch, in the dataset's order, then those that
    the dataset does not know.
    """
    from xray.evaluation.alignment import whole_groups

    rows = store.resolve(fused.image_ids)
    name = dict(zip(rows.tolist(), fused.image_ids, strict=True))
    known = [name.get(row, store.records[row]["source_id"]) for row in whole_groups(store, rows[rows >= 0]).tolist()]
    unknown = [image_id for image_id, row in zip(fused.image_ids, rows.tolist(), strict=True) if row < 0]
    return known + unknown, len(unknown)


def run() -> int:
    """The command; returns its exit status."""
    return command(Config, main)
