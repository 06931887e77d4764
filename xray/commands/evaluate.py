"""Scores predictions against a dataset's truth, or compares two: metrics.json, report.html, a table on the screen."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Interval

from xray.commands.id_flags import CategoryIdsOfEach, ImageIdsOfEach
from xray.commands.runner import command
from xray.errors import FlagError
from xray.evaluation.warnings import warnings_of
from xray.file_names import METRICS, REPORT
from xray.files import check_output, complete, finishing, sha256_of
from xray.flags import FoldNumber, Share, check_part, check_ranges
from xray.inference.options import check_triplet

if TYPE_CHECKING:
    from xray.evaluation.masks import MaskSearch

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
    ids: ImageIdsOfEach = ("auto",)
    category_ids: CategoryIdsOfEach = ("auto",)
    map: str | None = None
    """YAML file that says what the predictions' categories are called in the dataset, as for tools/convert.py --map."""
    categories: tuple[str, ...] = ()
    """Score these of the dataset's categories alone; by default all, or those that the predictions have too where they
    are of a model with others."""
    split: Literal["train", "val", "test"] | None = None
    """Score the images of this split; by default all images of each split and fold that the predictions touch."""
    fold: FoldNumber | None = None
    """Score the images of this fold of the train split, from 0."""
    baseline: bool = False
    """Also score each finding's mean box, taken from the training images that are not scored."""
    resamples: Annotated[int, Interval(ge=0, le=100_000)] = 1000
    """Resamples of the patients for the 95 % intervals (0 to 100000); 0 leaves the intervals out."""
    threshold: Share = 0.5
    """Score in [0, 1] from which a radiograph is called positive, marked on the curves of whole radiographs."""
    triplet: tuple[float, float, float] | None = None
    """Top, min area (share of the radiograph) and bottom to measure, in [0, 1]; by default the best of the search."""
    box_threshold: Share = 0.3
    """Score in [0, 1] from which a box counts in the confusion between findings."""
    run: Path | None = None
    """Run directory of the training whose curves the report shows; found by itself for RUN/validation/."""
    radiographs: Path | None = None
    """Folder of the original files, for pictures of single errors at full resolution; default: the dataset's own."""
    compare: tuple[Path, Path] | None = None
    """A B: predictions files, run directories (their validation/predictions.json), or folders that this command wrote;
    the difference B − A, by a paired bootstrap."""
    names: tuple[str, str] | None = None
    """What the report calls A and B of --compare; default: their file names with a hash."""
    fit: Path | None = None
    """Run whose predictions these are. A detector's, a classifier's, or an ensemble.yaml: a temperature, an intercept
    and a threshold for each finding are fitted, and kept beside it in thresholds.json, which tools/infer.py and
    tools/serve.py then use for what they show. A segmentation run: its model.json gets the best triplet and gate."""
    at: str = ""
    """What the thresholds of --fit reach: fp-per-image=F, at most F false positives an image for each finding, or
    sensitivity=S, at least that of each finding; default: fp-per-image=0.125."""
    overwrite: bool = False
    """Replace a report at --save-path."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> None:
    """Scores, writes the files and prints the main tables; warnings go to stderr and into the report."""
    check(config)
    check_out(config)
    if config.compare:
        compare_two(config, config.compare)
        return

    from rich.console import Console

    from xray.commands.evaluate_fit import fit_of, warnings_of_learning
    from xray.datasets.prediction_ids import one_each
    from xray.datasets.store import open_store
    from xray.evaluation.assess import assess
    from xray.evaluation.evaluate import evaluate
    from xray.evaluation.external import read_common
    from xray.evaluation.scored import SCORED, scored_of, write_scored
    from xray.outputs.report.galleries import pixels_of
    from xray.outputs.report.printing import show
    from xray.outputs.report.report import write_report
    from xray.outputs.report.training import curve_metrics, read_curves, run_of
    from xray.structures.made_by import read_made_by
    from xray.structures.probability_maps import read_maps
    from xray.structures.triplet import Triplet
    from xray.training.learned import runs_beside

    assert config.predictions is not None  # `check` asks for it
    store = open_store(config.data_path, pixels=False)
    ids, category_ids = one_each(config.ids, 1, "ids")[0], one_each(config.category_ids, 1, "category-ids")[0]
    store, predictions, common = read_common(
        store, config.predictions, config.map, config.categories, ids, category_ids
    )
    maps = read_maps(config.predictions.parent)
    run = config.run or run_of(config.predictions)
    curves, pixels = read_curves(run) if run else None, pixels_of(store, config.radiographs)
    makers = [config.run] if config.run else runs_beside(config.predictions)
    made_by = read_made_by(config.predictions)
    fit = fit_of(config, store, maps, makers, made_by)
    with Console(stderr=True).status("scoring") as status:
        result = evaluate(
            store, predictions, maps, config.split, config.fold, config.baseline, config.resamples, config.threshold,
            Triplet(*config.triplet) if config.triplet else None, progress=status.update,
        )  # fmt: skip
        status.update("calibration, confusion, groups")
        assessment = assess(store, result, config.resamples, config.box_threshold)
        if fit:
            status.update("fitting thresholds")
            fit.fit(result, config.resamples)
    warnings = (common.lines if common else []) + warnings_of(result, store)
    warnings += warnings_of_learning(config, store, result, fit, makers, made_by)
    with finishing(config.save_path, "evaluation"):
        with Console(stderr=True).status("drawing the report"):
            write_searches(config.save_path, result.masks.search if result.masks else None)
            name, path = identity(config.predictions), config.save_path / REPORT
            page = write_report(path, result, store, name, warnings, assessment, curves, pixels)
        write_scored(config.save_path / SCORED, scored_of(result, assessment.scored["annotations_sha256"]))
        training = {"training": curve_metrics(curves)} if curves is not None else {}
        write_metrics(
            config.save_path, result.metrics | assessment.metrics | training | (common.metrics if common else {})
        )
        show(page)
        for line in assessment.calibration_lines():
            print(line)
        if fit:
            fit.write(result, config.predictions)
    print(f"report: {path}")
    if fit:
        fit.check_written()


def check(config: Config) -> None:
    """Raises FlagError if a value is out of range or two flags contradict each other."""
    check_ranges(config)
    if (config.predictions is None) == (config.compare is None):
        raise FlagError("give either --predictions FILE, to score it, or --compare A B")
    if config.compare and (config.fit or config.baseline or config.run or config.radiographs or config.triplet):
        raise FlagError("--compare: leave out --baseline, --fit, --run, --radiographs and --triplet")
    if config.compare and (config.map or config.categories):
        raise FlagError(
            "--compare: leave out --map and --categories, and compare two folders that were scored with them"
        )
    if config.names and not config.compare:
        raise FlagError("--names is for --compare: add that, or leave --names out")
    check_part(config.split, config.fold)
    check_triplet(config.triplet)
    if config.triplet and config.fit:
        raise FlagError("--triplet and --fit: the best triplet is fitted, leave one of the two out")
    if config.at:
        if not config.fit:
            raise FlagError("--at is what the thresholds of --fit reach: add that, or leave --at out")
        from xray.structures.thresholds import OperatingPoint

        OperatingPoint.of(config.at)


def check_out(config: Config) -> None:
    """Raises InputError if --save-path cannot be written to, or holds a report that is not to be replaced."""
    check_output(config.save_path, (METRICS, REPORT), "evaluation", config.overwrite)


def compare_two(config: Config, sides: tuple[Path, Path]) -> None:
    """Puts two sets of predictions side by side: writes the files and prints the table."""
    from rich.console import Console

    from xray.datasets.prediction_ids import one_each
    from xray.datasets.store import open_store
    from xray.evaluation.comparison import compare
    from xray.evaluation.scored import SCORED, file_of, read_side
    from xray.outputs.report.comparison import write_comparison
    from xray.outputs.report.printing import show

    store = open_store(config.data_path, pixels=False)
    ids, categories = one_each(config.ids, 2, "ids"), one_each(config.category_ids, 2, "category-ids")
    with Console(stderr=True).status("comparing"):
        first, second = (
            read_side(side, store, config.split, config.fold, config.threshold, image_id, category_id)
            for side, image_id, category_id in zip(sides, ids, categories, strict=True)
        )
        comparison = compare(store, first, second, config.resamples)
    names = config.names
    if names is None:
        names = (identity(file_of(sides[0])), identity(file_of(sides[1])))
    warnings = []
    if comparison.left_out:
        warnings.append(f"not compared, since only one of the two has it: {', '.join(comparison.left_out)}")
    with finishing(config.save_path, "evaluation"):
        for name in (SCORED, SEARCH, GATE):
            # Of an earlier report there, which this one takes the place of.
            (config.save_path / name).unlink(missing_ok=True)
        dataset = store.path.absolute().name
        page = write_comparison(config.save_path / REPORT, comparison, names, dataset, warnings)
        write_metrics(config.save_path, {"names": list(names), **comparison.metrics})
    print(f"A: {names[0]}\nB: {names[1]}")
    show(page)
    print("p is that of a paired bootstrap, not adjusted for the number of rows")
    print(f"report: {config.save_path / REPORT}")


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Writes metrics.json, complete or not at all."""
    from xray.evaluation.evaluate import plain_numbers

    with complete(folder / METRICS) as temporary:
        temporary.write_text(json.dumps(plain_numbers(metrics), indent=1, allow_nan=False) + "\n")


def identity(predictions: Path) -> str:
    """The name of a predictions file in reports, without its folders, which may be named after a patient."""
    return f"{predictions.name} (SHA-256 {sha256_of(predictions)[:12]}…)"


def write_searches(folder: Path, search: "MaskSearch | None") -> None:
    """Writes a table of every search, and removes the tables of earlier ones that were not repeated."""
    for name, one in ((SEARCH, search and search.triplet), (GATE, search and search.gate)):
        if not one:
            (folder / name).unlink(missing_ok=True)
            continue
        with complete(folder / name) as temporary:
            one.table.round(6).to_csv(temporary, index=False)


def run() -> int:
    """The command; returns its exit status."""
    return command(Config, main, check, check_out)
