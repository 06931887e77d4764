"""Scores predictions against a dataset's truth, or compares two: metrics.json, report.html, a table on the screen."""

import dataclasses
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xray.commands.runner import command
from xray.errors import FlagError, InputError
from xray.files import complete
from xray.flags import check_range

if TYPE_CHECKING:
    from xray.datasets.store import Store
    from xray.evaluation.assess import Assessment
    from xray.evaluation.evaluate import Evaluation
    from xray.evaluation.masks import MaskEvaluation

METRICS = "metrics.json"
REPORT = "report.html"
SEARCH, GATE = "search.csv", "gate.csv"


@dataclasses.dataclass(frozen=True)
class Config:
    """Scores predictions by whatever their truth allows: boxes by mAP, FROC and COCO AP, masks by Dice, labels by ROC.

    Where tools/infer.py --probabilities left its maps beside the predictions, the thresholds of masks are searched too.
    With --compare in place of --predictions, two of them are put side by side.
    """

    predictions: Path | None = None
    """predictions.json of tools/infer.py or tools/fuse.py, COCO results of another model, or a submission.csv."""
    data_path: Path = Path("data/vinbig")
    """Dataset directory written by tools/convert.py, with the truth."""
    save_path: Path = Path("runs/evaluation")
    """Folder for metrics.json, report.html, report.md, its figures as PNG, and the settings that were searched."""
    ids: tuple[Literal["auto", "source", "coco", "rows"], ...] = ("auto",)
    """What image_id means in --predictions and --compare. source: the radiograph's own id, as tools/infer.py writes
    it, or its file; coco: the id in the source's own COCO file; rows: the id in annotations.json of --data-path; auto:
    numbers are coco's, texts source's, and what could be read in two ways is refused. One for all files or one
    for each; rows that name their file or category need none."""
    category_ids: tuple[Literal["auto", "source", "dataset"], ...] = ("auto",)
    """What category_id means there. source: the id in the source's own COCO file; dataset: the id in annotations.json
    of --data-path; auto: what image_id, or the category's name in the file, says."""
    split: Literal["train", "test"] | None = None
    """Score the images of this split; by default all images of each split and fold that the predictions touch."""
    fold: int | None = None
    """Score the images of this fold of the train split, from 0."""
    baseline: bool = False
    """Also score each finding's mean box, taken from the training images that are not scored."""
    resamples: int = 1000
    """Resamples of the patients for the 95 % intervals (0 to 100000); 0 leaves the intervals out."""
    threshold: float = 0.5
    """Score in [0, 1] from which a radiograph is called positive, marked on the curves of whole radiographs."""
    triplet: tuple[float, float, float] | None = None
    """Top, min area (share of the radiograph) and bottom to measure, in [0, 1]; by default the best of the search."""
    box_threshold: float = 0.3
    """Score in [0, 1] from which a box counts in the confusion between findings."""
    run: Path | None = None
    """Run directory of the training whose curves the report shows; found by itself for RUN/validation/."""
    radiographs: Path | None = None
    """Folder of the original files, for pictures of single errors at full resolution; default: the dataset's own."""
    compare: tuple[Path, Path] | None = None
    """A B: predictions files, or folders that this command wrote; the difference B − A, by a paired bootstrap."""
    names: tuple[str, str] | None = None
    """What the report calls A and B of --compare; default: their file names with a hash."""
    fit: Path | None = None
    """Segmentation run whose model.json gets the best triplet and gate, for tools/infer.py to use."""
    overwrite: bool = False
    """Replace a report at --save-path."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> None:
    """Scores, writes the files and prints the table; what may mislead goes to stderr and into the report."""
    check(config)
    check_out(config)

    from rich.console import Console

    from xray.outputs.unfinished import finishing

    if config.compare:
        compare_two(config, config.compare)
        return

    from xray.commands.comparing import pixels_of
    from xray.datasets.prediction_ids import read_all_predictions
    from xray.datasets.store import open_store
    from xray.evaluation.assess import assess
    from xray.evaluation.evaluate import evaluate
    from xray.evaluation.scored import SCORED, scored_of, write_scored
    from xray.outputs.report.training import read_curves, run_of
    from xray.structures.probability_maps import read_maps
    from xray.structures.triplet import Triplet

    assert config.predictions is not None  # `check` asks for it
    store = open_store(config.data_path, pixels=False)
    predictions = read_all_predictions([config.predictions], store, config.ids, config.category_ids)[0]
    maps = read_maps(config.predictions.parent)
    run = config.run or run_of(config.predictions)
    curves, pixels = read_curves(run) if run else None, pixels_of(store, config.radiographs)
    if config.fit:
        from xray.commands.fit import check_fit

        if maps is None or not store.masks:
            what = "no true masks" if maps else f"no probability maps beside {config.predictions}"
            raise InputError(f"--fit: {what}: run tools/infer.py with --probabilities on a dataset with masks")
        check_fit(config.fit, list(maps.categories.values()))
    with Console(stderr=True).status("scoring") as status:
        result = evaluate(
            store, predictions, maps, config.split, config.fold, config.baseline, config.resamples, config.threshold,
            Triplet(*config.triplet) if config.triplet else None, say=status.update,
        )  # fmt: skip
        status.update("calibration, confusion, groups")
        assessment = assess(store, result, config.resamples, config.box_threshold)
    if config.fit and not (result.masks and result.masks.search):
        raise InputError(
            f"--fit: the probability maps are of {', '.join(result.unused_maps)}, of which {store.path} has no masks: "
            "give the dataset that the model was trained for"
        )
    warnings = warn(result, store)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    with finishing(config.save_path, "evaluation"):
        with Console(stderr=True).status("drawing the report"):
            from xray.outputs.report.report import write_report

            write_searches(config.save_path, result.masks)
            name = identity(config.predictions)
            write_report(config.save_path / REPORT, result, store, name, warnings, assessment, curves, pixels)
        write_scored(config.save_path / SCORED, scored_of(result, assessment.scored["annotations_sha256"]))
        training = {"training": curves.metrics} if curves else {}
        write_metrics(config.save_path, result.metrics | assessment.metrics | training)
        show(result)
        show_calibration(assessment)
        if config.fit and result.masks and result.masks.search:
            fit(config.fit, result.masks)
    print(f"report: {config.save_path / REPORT}")


def check(config: Config) -> None:
    """Raises FlagError if a value is out of range or two flags contradict each other."""
    check_range(config, resamples=(0, 100_000), fold=(0, 99), threshold=(0, 1), box_threshold=(0, 1))
    if (config.predictions is None) == (config.compare is None):
        raise FlagError("give either --predictions FILE, to score it, or --compare A B")
    if config.compare and (config.fit or config.baseline or config.run or config.radiographs or config.triplet):
        raise FlagError("--compare: leave out --baseline, --fit, --run, --radiographs and --triplet")
    if config.names and not config.compare:
        raise FlagError("--names are those of --compare: give that too")
    if config.split == "test" and config.fold is not None:
        raise FlagError("--split test and --fold: test images are in no fold, leave one of the two out")
    if config.triplet and not (
        all(0 <= value <= 1 for value in config.triplet) and config.triplet[2] <= config.triplet[0]
    ):
        given = " ".join(f"{value:g}" for value in config.triplet)
        raise FlagError(f"--triplet is {given}: give top, min area and bottom in [0, 1], bottom not over top")
    if config.triplet and config.fit:
        raise FlagError("--triplet and --fit: the best triplet is fitted, leave one of the two out")


def check_out(config: Config) -> None:
    """Raises InputError if --save-path cannot be written to, or holds a report that is to stay."""
    from xray.outputs.unfinished import is_unfinished

    existing = [name for name in (METRICS, REPORT) if (config.save_path / name).exists()]
    if existing and not config.overwrite and not is_unfinished(config.save_path, "evaluation"):
        raise InputError(f"{config.save_path / existing[0]} exists: give --overwrite, or another --save-path")
    if config.save_path.exists() and not config.save_path.is_dir():
        raise InputError(f"{config.save_path} is a file: give --save-path a folder")


def compare_two(config: Config, sides: tuple[Path, Path]) -> None:
    """Puts two sets of predictions side by side: writes the files and prints the table."""
    from rich.console import Console

    from xray.commands.comparing import read_side, show_comparison
    from xray.datasets.prediction_ids import one_each
    from xray.datasets.store import open_store
    from xray.evaluation.comparison import compare
    from xray.evaluation.scored import SCORED
    from xray.outputs.report.comparison import write_comparison
    from xray.outputs.unfinished import finishing

    store = open_store(config.data_path, pixels=False)
    ids, categories = one_each(config.ids, 2, "ids"), one_each(config.category_ids, 2, "category-ids")
    with Console(stderr=True).status("comparing"):
        first, second = (
            read_side(side, store, config.split, config.fold, config.threshold, own_ids, own_categories)
            for side, own_ids, own_categories in zip(sides, ids, categories, strict=True)
        )
        comparison = compare(store, first, second, config.resamples)
    names = config.names
    if names is None:
        files = [next((file for file in (side / SCORED, side / "predictions.json", side) if file.is_file()), side)
                 for side in sides]  # fmt: skip
        names = (identity(files[0]), identity(files[1]))
    warnings = []
    if comparison.left_out:
        warnings.append(f"{', '.join(comparison.left_out)}: only one of the two has them, they are not compared")
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    with finishing(config.save_path, "evaluation"):
        for name in (SCORED, SEARCH, GATE):
            # Of an earlier report there, which this one takes the place of.
            (config.save_path / name).unlink(missing_ok=True)
        write_comparison(config.save_path / REPORT, comparison, names, store.path.absolute().name, warnings)
        write_metrics(config.save_path, {"names": list(names), **comparison.metrics})
    show_comparison(comparison)
    print(f"report: {config.save_path / REPORT}")


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """metrics.json, complete or not at all."""
    from xray.evaluation.evaluate import plain_numbers

    with complete(folder / METRICS) as temporary:
        temporary.write_text(json.dumps(plain_numbers(metrics), indent=1, allow_nan=False) + "\n")


def identity(predictions: Path) -> str:
    """What a report calls a predictions file: reports are handed on, and folders may be named after a patient."""
    with predictions.open("rb") as file:
        return f"{predictions.name} (SHA-256 {hashlib.file_digest(file, 'sha256').hexdigest()[:12]}…)"


def warn(result: "Evaluation", store: "Store") -> list[str]:
    """What the reader should know before believing the numbers."""
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


def write_searches(folder: Path, masks: "MaskEvaluation | None") -> None:
    """Every setting that was searched, as tables; those of an earlier search that was not made now are removed."""
    search = masks.search if masks else None
    tables = {SEARCH: search and search.triplet, GATE: search and search.gate}
    for name, found in tables.items():
        if not found:
            (folder / name).unlink(missing_ok=True)
            continue
        with complete(folder / name) as temporary:
            found.table.round(6).to_csv(temporary, index=False)


def fit(run: Path, masks: "MaskEvaluation") -> None:
    """Writes the best settings into a run."""
    from xray.commands.fit import write_fit

    if masks.search:
        write_fit(run, masks.search.setting, masks.search.gate.best["gate"] if masks.search.gate else None)
        print(f"fitted: {run / 'model.json'} now has the best triplet{' and gate' if masks.search.gate else ''}")


def show(result: "Evaluation") -> None:
    """Prints what there is of masks, labels and boxes; of secondary boxes the mean only."""
    metrics = result.metrics
    if result.masks:
        show_masks(result.masks)
    if result.boxes and not result.masks:
        show_boxes(metrics)
    elif result.boxes:
        print(f"boxes: mAP@0.4 {number(metrics['map40'])} {interval(metrics.get('map40_ci95'))}".rstrip())
    if result.labels:
        show_labels(result)


def show_calibration(assessment: "Assessment") -> None:
    """Prints the first calibration of boxes, of labels and of pixels."""
    for kind in ("boxes", "labels", "pixels"):
        for one in getattr(assessment, kind)[:1]:
            scaled = f", {one.after.ece:.4f} after temperature scaling (cross-fitted)" if one.after else ""
            print(f"calibration error of {kind}, {one.name}: {one.before.ece:.4f}{scaled}")


def show_masks(masks: "MaskEvaluation") -> None:
    """Prints the Dice of each mask, what stands beside it, and the search."""
    from xray.outputs.report.masks import setting_text

    metrics, n_positive = masks.metrics, int((masks.true > 0).any(axis=1).sum())
    for name, value in metrics.get("dice_by_category", {}).items():
        print(f"Dice {value:.4f} {interval(metrics.get('dice_by_category_ci95', {}).get(name))} {name}")
    rows = [
        ("dice", "Dice", f"over {metrics['n_images']} images, two empty masks counting 1"),
        ("dice_union", "Dice", "of all masks joined"),
        ("dice_positive", "Dice", f"over positives ({n_positive} images have a true mask)"),
        ("false_positive_rate", "false-positive rate", "over negatives"),
        ("sensitivity", "sensitivity", "of any pixel over positives"),
    ]
    for key, name, what in rows:
        # Where every image has the mask, the positives are all of them.
        if key in metrics and (key not in ("dice_positive", "sensitivity") or "false_positive_rate" in metrics):
            ends = interval(metrics.get(f"{key}_ci95"))
            print(" ".join(part for part in (name, f"{metrics[key]:.4f}", ends, what) if part))
    if masks.search:
        best = masks.search.triplet.best
        print(f"Dice {best['dice']:.4f} with the best triplet: {setting_text(best)}")
        if masks.search.scores != best:
            print(f"Dice {masks.search.scores['dice']:.4f} with the triplet asked for")
        if masks.search.gate:
            gate = masks.search.gate.best
            print(f"Dice {gate['dice']:.4f} with that triplet behind the best gate: {gate['gate']:g}")
        print("  (chosen on these very images, which flatters their own Dice: measure a setting on others)")


def show_labels(result: "Evaluation") -> None:
    """Prints a row for each label of whole radiographs."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("whole radiograph")
    for name in ("n", "AUROC", "95 % interval", "AP", "at", "sens.", "spec."):
        table.add_column(name, justify="right", no_wrap=True)
    metrics = result.metrics
    for found in result.labels.curves if result.labels else ():
        name, is_classifier = found.label.name, found.label.origin == "classifier"
        ends = metrics.get("auroc_classifier_ci95" if is_classifier else "auroc_ci95", {}).get(name)
        table.add_row(
            f"{name} (classifier)" if is_classifier else name, f"{found.label.truth.sum()}",
            number(found.curve.auroc), interval(ends), number(found.curve.average_precision),
            f"{found.point['threshold']:g}", number(found.point["sensitivity"]), number(found.point["specificity"]),
        )  # fmt: skip
    Console(highlight=False).print(table)


def show_boxes(metrics: dict[str, Any]) -> None:
    """Prints the AP of each finding, then the means."""
    from rich.console import Console
    from rich.table import Table

    intervals, baselines = metrics.get("ap40_ci95"), metrics.get("baseline_ap40")
    table = Table(box=None, pad_edge=False)
    table.add_column("finding")
    for name in ["boxes", "AP@0.4", *(["95 % interval"] if intervals else []), *(["mean box"] if baselines else [])]:
        table.add_column(name, justify="right")
    for name, n_boxes in metrics["n_truth"].items():
        cells = [f"{n_boxes}", number(metrics["ap40"].get(name, math.nan))]
        cells += [interval(intervals.get(name))] if intervals else []
        cells += [number(baselines.get(name, math.nan))] if baselines else []
        table.add_row(name, *cells)
    Console(highlight=False).print(table)
    n_findings = len(metrics["ap40"])
    print(
        f"mAP@0.4 {metrics['map40']:.4f} {interval(metrics.get('map40_ci95'))} over {n_findings} findings in "
        f"{metrics['n_images']} images"
    )
    if "map40_kaggle" in metrics:
        print(
            f"mAP@0.4 {metrics['map40_kaggle']:.4f} {interval(metrics.get('map40_kaggle_ci95'))} over Kaggle's classes"
        )
    ends = interval(metrics.get("coco_ap_ci95"))
    at_ious = f"AP50 {metrics['coco_ap50']:.4f}, AP75 {metrics['coco_ap75']:.4f}"
    print(f"COCO AP {metrics['coco_ap']:.4f} {ends}".rstrip() + f", {at_ious}")
    if "baseline_map40" in metrics:
        baseline = metrics["baseline_map40"]
        ratio = f": the detector reaches {metrics['map40'] / baseline:.1f} times that" if baseline > 0 else ""
        print(f"mAP@0.4 {baseline:.4f} for each finding's mean box{ratio}")


def number(value: float) -> str:
    """A metric for the table; a dash where it is not defined."""
    return "–" if math.isnan(value) else f"{value:.4f}"


def interval(ends: list[float] | None) -> str:
    """An interval for the table; empty where there is none."""
    return f"[{ends[0]:.3f}, {ends[1]:.3f}]" if ends and not math.isnan(ends[0]) else ""


def run() -> int:
    """The command; returns its exit status."""
    return command(Config, main, check, check_out)
