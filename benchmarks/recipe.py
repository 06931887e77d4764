"""Benchmark `recipe`: what each ingredient of a training gains on a dataset, cross-validated, and what it costs."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks import harness
from benchmarks.differences import predictions_on
from benchmarks.ingredients import CLASSIFIER, OF_TASK, START, Ingredient
from benchmarks.recipe_scores import COST, METRICS, PREDICTED, TUNED, Scores, read_json, rows_of_folds, run_of
from xray.errors import FlagError, InputError
from xray.file_names import METRICS as METRICS_FILE
from xray.file_names import PREDICTIONS
from xray.files import complete, differing, read_yaml_text
from xray.flags import Count, CountOrZero, FoldNumber, Seed, check_ranges, require
from xray.training.recipes import MAX_CHARACTERS, read_yaml

if TYPE_CHECKING:
    from xray.datasets.store import Store

SAVED, NUMBERS, TABLE = "recipe.yaml", "numbers.json", "table.md"


@dataclasses.dataclass(frozen=True)
class Config:
    """Cross-validate the default recipe, and the recipe with one ingredient changed in each row.

    The same command continues what was interrupted; with more --rows or --seeds it adds them.
    """

    data_path: Path
    """Dataset directory with its folds."""
    save_path: Path = Path("runs/recipe")
    """Folder for the runs of all rows, numbers.json and table.md (a table in Markdown); of a row that is done only the
    default's checkpoints are kept."""
    task: Literal["detection", "segmentation"] = "detection"
    """What is trained."""
    config: Path | None = None
    """YAML file with the flags of all trainings, as --config of `train` takes it: data, network, epochs."""
    classifier: Path | None = None
    """The same of the classifier; without it, the rows that need one are left out."""
    seeds: tuple[Seed, ...] = (0,)
    """Every row is trained with each; the numbers are the means over them."""
    folds: tuple[FoldNumber, ...] = ()
    """Folds to hold back, each in a training of its own; default: all of the dataset."""
    rows: tuple[str, ...] = ()
    """Names of the rows; default: all."""
    beside: tuple[str, ...] = ()
    """NAME=FILE of others' predictions of the same radiographs, each a row of its own."""
    parallel: Count = 1
    """Trainings at a time, as in cross-validation."""
    resamples: CountOrZero = 1000
    """Resamples of the patients, and of the seeds, for the intervals; 0 leaves them out."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> None:
    """Trains what is missing, prints the table and writes it."""
    rows = check(config)
    from xray.datasets.store import open_store

    store = open_store(config.data_path, pixels=False)
    folds = _folds(store, config.folds)
    check_flags(config, rows)
    check_others(config, store, folds)
    remember(config)
    scores, lines = Scores(config, store, folds), []
    for number, row in enumerate(rows, start=1):
        for seed in config.seeds:
            print(f"\n{row.name}, seed {seed} (row {number} of {len(rows)}): {row.title}", flush=True)
            if row.what == "tune":
                tune_row(config, store, row, seed)
            else:
                run_row(config, row, seed, folds)
        if row.name != CLASSIFIER:
            lines.append(scores.of(row))
            report(config, scores, lines)


def check(config: Config) -> list[Ingredient]:
    """The rows, each after those that it needs. Raises FlagError for a flag that is wrong."""
    check_ranges(config)
    for name in ("config", "classifier"):
        path = getattr(config, name)
        require(path is None or path.is_file(), name, path, "a YAML file that exists")
    require(bool(config.seeds) and len(set(config.seeds)) == len(config.seeds), "seeds",
            " ".join(map(str, config.seeds)), "at least one, each given once")  # fmt: skip
    known = {row.name: row for row in OF_TASK[config.task]}
    for name in config.rows:
        require(name in known, "rows", name, f"one of {', '.join(known)}")
    require(len(set(config.folds)) == len(config.folds), "folds", " ".join(map(str, config.folds)), "each given once")
    names = [text.partition("=")[0] for text in config.beside]
    for text, name in zip(config.beside, names, strict=True):
        require("=" in text and name != "", "beside", text, "NAME=FILE")
        require(name not in known and names.count(name) == 1, "beside", text, "of a name that no other row has")
        require(Path(text.split("=", 1)[1]).is_file(), "beside", text, "NAME=FILE with a file that exists")
    wanted = [known[name] for name in config.rows or known]
    if not config.classifier:
        lacking = [row.name for row in wanted if row.with_labels]
        if config.rows and lacking:
            raise FlagError(f"--rows {lacking[0]} needs a classifier: give its flags with --classifier")
        wanted = [row for row in wanted if not row.with_labels]
    known[CLASSIFIER] = Ingredient(CLASSIFIER, "the classifier")
    ordered = {START: known[START]}
    for row in wanted:
        ordered |= {name: known[name] for name in (*row.needs, row.name)}
    return list(ordered.values())


def check_flags(config: Config, rows: Iterable[Ingredient]) -> None:
    """Raises FlagError for a flag of a training that is wrong."""
    from xray.commands import cv

    for row in rows:
        if row.what == "train":
            try:
                cv.read(training_flags(config, row, run_of(config, row, config.seeds[0]), config.seeds[0]))
            except FlagError as error:
                raise type(error)(f"row {row.name}: {error}") from None


def check_others(config: Config, store: "Store", folds: Sequence[int]) -> None:
    """Raises InputError where predictions of --beside are not of the chosen folds of this dataset."""
    for text in config.beside:
        predictions_on(store, rows_of_folds(store, folds), [Path(text.split("=", 1)[1])])


def remember(config: Config) -> None:
    """Keeps what all rows share in the folder; raises FlagError where that is not what it was begun with."""
    now: dict[str, Any] = {
        "task": config.task,
        "folds": list(config.folds),
        "data_path": str(config.data_path.resolve()),
    }
    now |= {name: read_yaml(path) if path else {} for name, path in _configs(config).items()}
    path = config.save_path / SAVED
    if path.is_file():
        before = read_yaml_text(path, "record of what was begun", "give another --save-path", MAX_CHARACTERS)
        if not isinstance(before, dict) or before.keys() != now.keys():
            raise InputError(f"{path} is damaged: give another --save-path")
        # A classifier may come later.
        for name in differing(before, now):
            if name != "classifier" or before[name]:
                require(False, name, now[name], f"{before[name]!r}, as {config.save_path} was begun with")
    elif config.save_path.is_file():
        raise InputError(f"{config.save_path} is a file: give a directory as --save-path")
    elif config.save_path.exists() and any(config.save_path.iterdir()):
        raise InputError(f"{config.save_path} holds files that are not of this benchmark: give another --save-path")
    config.save_path.mkdir(parents=True, exist_ok=True)
    with complete(path) as temporary:
        temporary.write_text(yaml.safe_dump(now, sort_keys=False))


def run_row(config: Config, row: Ingredient, seed: int, folds: Sequence[int]) -> None:
    """Trains and predicts, or predicts, what is not done yet; keeps the processor time that it took."""
    from xray.training.side_by_side import EXIT_TERMINATED, Work, run_all

    run = run_of(config, row, seed)
    commands = (
        training_commands(config, row, run, seed) if row.what == "train" else views(config, row, run, seed, folds)
    )
    if not commands:
        print(f"is done: {run}")
        return
    before = harness.seconds_of_children()
    try:
        status, _ = run_all([Work(row.name, commands)], [{}], lambda work, command: None)
    finally:
        spent = harness.seconds_of_children() - before + read_json(run / COST, {"cpu_seconds": 0.0})["cpu_seconds"]
        # Alone in the folder it would keep the cross-validation from starting there.
        if (row.what != "train" and run.is_dir()) or (run / "cv.yaml").is_file():
            with complete(run / COST) as temporary:
                temporary.write_text(json.dumps({"cpu_seconds": spent}) + "\n")
    if status == EXIT_TERMINATED:
        raise InputError("stopped by SIGTERM: continue with the same command")
    if status:
        raise InputError(f"row {row.name} ended with status {status}, as its own message above says")
    if row.what == "train" and row.name != START:
        remove_checkpoints(run)


def remove_checkpoints(run: Path) -> None:
    """Of a row that is done: predictions and curves are its result; rows that only infer need the default's alone."""
    paths = sorted(run.glob("fold*/*.ckpt"))
    if paths:
        gigabytes = sum(path.stat().st_size for path in paths) / 1e9
        for path in paths:
            path.unlink()
        print(f"its {len(paths)} checkpoints are removed ({gigabytes:.1f} GB); its predictions and curves stay")


def training_commands(config: Config, row: Ingredient, run: Path, seed: int) -> tuple[tuple[str, ...], ...]:
    """The cross-validation of a row; none where it is done."""
    if (run / METRICS_FILE).is_file():
        return ()
    resume = ["--resume"] if (run / "cv.yaml").is_file() else []
    return (("cv", *training_flags(config, row, run, seed), *resume),)


def training_flags(config: Config, row: Ingredient, run: Path, seed: int) -> list[str]:
    """Of the cross-validation of a row."""
    is_classifier = row.name == CLASSIFIER
    task = "classification" if is_classifier else config.task
    path = config.classifier if is_classifier else config.config
    flags = [*(["--config", str(path)] if path else []), *row.flags]
    where = ["--task", task, "--data-path", str(config.data_path), "--save-path", str(run), "--seed", str(seed)]
    folds = ["--folds", *map(str, config.folds)] if config.folds else []
    return [*flags, *where, *folds, "--parallel", str(config.parallel)]


def views(config: Config, row: Ingredient, run: Path, seed: int, folds: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """Inference of the default's models with the row's flags, of each fold that lacks it."""
    start = config.save_path / START / f"seed{seed}"
    return tuple(
        ("infer", "--weights", str(start / f"fold{fold}"), "--data-path", str(config.data_path), "--split", "train",
         "--fold", str(fold), "--save-path", str(run / f"fold{fold}" / PREDICTED), *row.flags)
        for fold in folds
        if not (run / f"fold{fold}" / PREDICTED / PREDICTIONS).is_file()
    )  # fmt: skip


def tune_row(config: Config, store: "Store", row: Ingredient, seed: int) -> None:
    """Fits how the rows' predictions are fused, and keeps what was gained on folds (or patients) held out."""
    from xray.evaluation.box_metrics import has_vinbig_categories
    from xray.inference.out_of_fold import gather, member_of
    from xray.inference.tuning import Metric, tune

    out = run_of(config, row, seed) / TUNED
    if out.is_file():
        print(f"is done: {out}")
        return
    members = [member_of(config.save_path / name / f"seed{seed}" / PREDICTIONS) for name in row.models]
    labels = [config.save_path / CLASSIFIER / f"seed{seed}" / PREDICTIONS] if row.with_labels else []
    classifiers = [member_of(path, of_labels=True) for path in labels]
    material = gather(store, members, classifiers)
    metric: Metric = "map40" if has_vinbig_categories(store.categories) else "coco_ap"
    with Console(stderr=True).status("searching"):
        tuned = tune(material, store.categories, metric, config.resamples, seed=0)
    gain = tuned.gains["single"]
    numbers: dict[str, Any] = {"metric": metric, "value": tuned.scores["tuned"][0], "single": tuned.scores["single"][0]}
    numbers["sample"] = None if gain.sample is None else gain.sample.tolist()
    out.parent.mkdir(parents=True, exist_ok=True)
    with complete(out) as temporary:
        temporary.write_text(json.dumps(numbers) + "\n")


def report(config: Config, scored: "Scores", rows: Sequence[dict[str, Any]]) -> None:
    """Prints the rows that are done, the others' after them, and writes them as JSON and as Markdown.

    rows: of `Scores.of`.
    """
    lines = [*rows, *scored.others]
    metrics = [name for name in METRICS if any(name in line["values"] for line in lines)]
    table, texts = Table(box=None, pad_edge=False), table_rows(lines, metrics, scored.metric)
    for number, heading in enumerate(texts[0]):
        table.add_column(heading, justify="right" if number else "left")
    for cells in texts[1:]:
        table.add_row(*cells)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 160
    console.print("", table, sep="\n")
    about = {"machine": harness.machine(), "versions": harness.versions(["torch", "torchvision", "lightning"])}
    numbers: dict[str, Any] = {name: read_yaml(path) for name, path in _configs(config).items() if path}
    numbers |= {"seeds": list(config.seeds), "metric": scored.metric}
    numbers |= {"folds": list(scored.folds), "n_images": len(scored.rows), "rows": lines, **about}
    with complete(config.save_path / NUMBERS) as temporary:
        temporary.write_text(json.dumps(numbers, indent=1) + "\n")
    ruler = "|".join(["---", *["---:"] * (len(texts[0]) - 1)])
    markdown = [" | ".join(texts[0]), ruler, *(" | ".join(cells) for cells in texts[1:])]
    with complete(config.save_path / TABLE) as temporary:
        temporary.write_text("".join(f"| {line} |\n" if line != ruler else f"|{line}|\n" for line in markdown))


def table_rows(lines: Sequence[Mapping[str, Any]], metrics: Sequence[str], compared: str) -> list[list[str]]:
    """The cells of the table, its head first. compared: the metric whose differences are given."""
    head = ["row", *(METRICS[name] for name in metrics), f"{METRICS[compared]}: difference", "95 % interval", "minutes"]
    cells = []
    for line in lines:
        values = [f"{line['values'][name]:.3f}" if name in line["values"] else "" for name in metrics]
        is_first = line["name"] == START
        gain = "" if is_first or line["difference"] is None else f"{line['difference']:+.3f}"
        ends = "" if is_first or line["ci95"] is None else "{:+.3f} to {:+.3f}".format(*line["ci95"])
        minutes = "" if line["cpu_seconds"] is None else f"{line['cpu_seconds'] / 60:.1f}"
        cells.append([line["title"], *values, gain, ends, minutes])
    return [head, *cells]


def _configs(config: Config) -> dict[str, Path | None]:
    return {"config": config.config, "classifier": config.classifier}


def _folds(store: "Store", wanted: Sequence[int]) -> list[int]:
    from xray.commands.cv import chosen_folds

    return chosen_folds(store, wanted)
