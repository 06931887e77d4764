"""Searches how to fuse models, on their out-of-fold predictions: python tools/tune.py --predictions A B …"""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xray.commands.runner import command
from xray.errors import FlagError, InputError, spelled
from xray.file_names import ENSEMBLE
from xray.files import check_output, make_folder
from xray.flags import CountOrZero, Seed, check_ranges, require
from xray.storage.addresses import is_remote

if TYPE_CHECKING:
    from rich.console import Console

    from xray.datasets.store import Store
    from xray.inference.ensemble import Settings
    from xray.inference.ensemble_file import Member
    from xray.inference.out_of_fold import OutOfFold
    from xray.inference.tuning import Tuned

TITLES = {"map40": "mAP@0.4", "coco_ap": "COCO AP"}
AP = {"map40": "AP@0.4", "coco_ap": "COCO AP"}
ROWS = {
    "single": "best single model",
    "plain": "plain fusion",
    "tuned": "tuned, on folds held out",
    "in_sample": "tuned, where fitted (flattering)",
}
COLUMNS = {"single": "best single", "plain": "plain fusion", "tuned": "tuned", "in_sample": "where fitted"}
"""The same where there is less room."""
LEAST_SHOWN = 0.0005
"""Average precision that is not 0 in a table."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Search weights, IoU, score, method and box scale for each finding, and how far a classifier weighs its boxes.

    The predictions must be of radiographs that their model was not trained on. The gain that is printed is that of
    settings fitted on the other folds, with its interval by patient; OUT/ensemble.yaml gets those fitted on all.
    """

    predictions: tuple[Path, ...]
    """One for each model: predictions.json, of one fold or all; a run directory, whose validation/predictions.json it
    is; or a folder of run directories, one a fold. Of detectors alone: a classifier must not have weighed them yet."""
    labels: tuple[Path, ...] = ()
    """The same of classifiers (--task classification --target findings): predictions.json or labels.csv. Several are
    averaged."""
    runs: tuple[Path, ...] = ()
    """Run directories, or folders of some, of the models and then the classifiers, in the same order, for ensemble.yaml
    to name; by default those that the files lie in."""
    data_path: Path = Path("data/vinbig")
    """Dataset directory that the predictions are of; its folds are those of the cross-fitting."""
    save_path: Path = Path("runs/ensemble")
    """Folder for ensemble.yaml."""
    metric: Literal["auto", "map40", "coco_ap"] = "auto"
    """What is to grow: map40 (IoU 0.4) or coco_ap (0.50 to 0.95); auto is map40 for VinBigData's findings, else
    coco_ap, as in training."""
    resamples: CountOrZero = 1000
    """Resamples of the patients for the intervals; 0 leaves them out."""
    seed: Seed = 0
    """Seed of the resamples."""
    overwrite: bool = False
    """Replace the ensemble.yaml at --save-path."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> None:
    """Searches, prints what is gained, and writes the settings."""
    check(config)
    check_output(config.save_path, (ENSEMBLE,), "tune", config.overwrite)

    from rich.console import Console
    from rich.progress import Progress

    from xray.datasets.store import open_store
    from xray.evaluation.box_metrics import has_vinbig_categories
    from xray.inference.ensemble_file import Ensemble, write_ensemble
    from xray.inference.out_of_fold import gather, member_of
    from xray.inference.tuning import tune

    store = open_store(config.data_path, pixels=False)
    runs = [*config.runs, *[None] * (len(config.predictions) + len(config.labels) - len(config.runs))]
    members = [
        member_of(path, run, of_labels=number >= len(config.predictions))
        for number, (path, run) in enumerate(zip([*config.predictions, *config.labels], runs, strict=True))
    ]
    models, classifiers = members[: len(config.predictions)], members[len(config.predictions) :]
    check_once(models, "predictions")
    check_once(classifiers, "labels")
    error = Console(stderr=True)
    with error.status("reading the predictions"):
        material = gather(store, models, classifiers)
    for why in material.left_out:
        print(f"left out: {why}")
    for line in learned_in_words(store, material):
        print(f"warning: {line}", file=sys.stderr)
    if not len(material.truth):
        raise InputError(f"the {len(material)} radiographs that all models have show nothing that could be scored")
    metric = config.metric
    if metric == "auto":
        metric = "map40" if has_vinbig_categories(store.categories) else "coco_ap"
    with Progress(console=error) as progress:
        task = progress.add_task("searching", total=None)

        def advance(done: int, total: int, tried: int) -> None:
            progress.update(task, completed=done, total=total, description=f"searching, {tried} settings tried")

        tuned = tune(material, store.categories, metric, config.resamples, config.seed, advance)
    names = [str(path) for path in config.predictions]
    # Names of findings may look like Rich's markup.
    report(Console(markup=False), store, material, tuned, metric, names, models)
    by = tuned.settings
    if not classifiers:
        # None was fitted: one that is loaded beside counts as it does without an ensemble.
        from xray.inference.ensemble import ByCategory

        by = ByCategory(_unweighed(by.default), {label: _unweighed(one) for label, one in by.of.items()})
    own = {store.categories[label]: settings for label, settings in by.of.items()}
    ensemble = Ensemble(tuple(models), tuple(classifiers), by.default, own)
    make_folder(config.save_path)
    write_ensemble(config.save_path / ENSEMBLE, ensemble, notes_of(config, store, material, tuned, metric))
    print(f"settings: {config.save_path / ENSEMBLE}")
    for member in (*models, *classifiers):
        if not member.runs:
            print(
                f"{member.predictions[0]} lies in no run directory: {spelled('infer')} needs one, so give --runs, or "
                f"name it in {ENSEMBLE}"
            )


def check(config: Config) -> None:
    """Raises FlagError if a value is out of range."""
    check_ranges(config)
    if not config.predictions:
        raise FlagError("--predictions names no file: give one for each model")
    for name in ("predictions", "labels", "runs", "save_path"):
        value = getattr(config, name)
        is_here = not any(map(is_remote, value if isinstance(value, tuple) else [value]))
        require(is_here, name, value, "on this machine: ensemble.yaml names files by where they lie from it")
    n = len(config.predictions) + len(config.labels)
    require(len(config.runs) in (0, n), "runs", f"{len(config.runs)} paths", f"{n}, one for each model and classifier")
    twice = {path for path in config.predictions if config.predictions.count(path) > 1}
    require(not twice, "predictions", " ".join(map(str, config.predictions)), "a file once, for each model its own")


def check_once(members: "Sequence[Member]", flag: str) -> None:
    """Raises InputError where two models have one file, such as a run directory and the file in it."""
    seen: set[Path] = set()
    for member in members:
        files = {path.resolve() for path in member.predictions}
        if twice := files & seen:
            raise InputError(f"--{flag} names {min(twice)} twice: it is of one model, give it once")
        seen |= files


def learned_in_words(store: "Store", material: "OutOfFold") -> list[str]:
    """Warnings, by the made_by.json beside the files, that models have learned from what they are tuned on, or that
    files are of other radiographs."""
    from xray.structures.made_by import read_made_by
    from xray.training.learned import flattering, learned_by, of_other_radiographs

    used, lines = set(material.rows.tolist()), []
    for path, named in material.named.items():
        if (made_by := read_made_by(path)) is None:
            continue
        lines += of_other_radiographs(made_by, path, store)
        records = [store.records[row] for row in sorted(used & named)]
        n, held = learned_by(made_by, store, records) or (0, "")
        lines += [f"{path}: {line}" for line in flattering(n, len(records), held)]
    return lines


def _unweighed(settings: "Settings") -> "Settings":
    return dataclasses.replace(settings, exponents=type(settings)().exponents)


def report(
    console: "Console",
    store: "Store",
    material: "OutOfFold",
    tuned: "Tuned",
    metric: str,
    names: list[str],
    models: "Sequence[Member]",
) -> None:
    """Prints the scores, what is gained, and which settings were found."""
    from rich.table import Table

    n_patients = int(material.patients.max()) + 1
    where, n_parts = f"{len(material)} radiographs of {n_patients} patients", len(tuned.held_out)
    if tuned.dealt:
        print(f"{where}, all of one fold: divided into {n_parts} parts, each patient in one of them, in place of folds")
    else:
        print(f"{where} in {n_parts} folds")
    if len(names) > 1:
        print(f"best single model: {names[tuned.best]}")
    table = Table("", TITLES[metric], "tuned minus this (95 %)", box=None, pad_edge=False)
    for name, title in ROWS.items():
        if name in tuned.scores:
            table.add_row(title, f"{tuned.scores[name][0]:.4f}", in_words(tuned, name))
    console.print(table)
    for name in tuned.gains:
        if line := advice(tuned, name, models):
            print(line)
    print(f"\n{AP[metric]} of each finding, and the settings that were found:")
    of_category = Table("", *(COLUMNS[name] for name in tuned.scores), "settings", box=None, pad_edge=False)
    of_category.add_row("default", *[""] * len(tuned.scores), settings_in_words(tuned.settings.default))
    never_right = []
    for label in tuned.scores["tuned"][1]:
        if label not in tuned.settings.of and all(of[label] < LEAST_SHOWN for _, of in tuned.scores.values()):
            never_right.append(store.categories[label])
            continue
        values = [f"{of[label]:.3f}" for _, of in tuned.scores.values()]
        own = tuned.settings.of.get(label)
        of_category.add_row(store.categories[label], *values, settings_in_words(own) if own else "")
    console.print(of_category)
    if never_right:
        print(f"{AP[metric]} is 0 with any settings, and those of default are kept: {', '.join(never_right)}")


def advice(tuned: "Tuned", name: str, models: "Sequence[Member]") -> str:
    """What to do where the tuned settings gain nothing, or may gain nothing, over one of the scores; else empty."""
    gain = tuned.gains[name]
    may_be_chance = gain.ends is not None and gain.ends[0] <= 0 <= gain.ends[1]
    if gain.difference > 0:
        return f"the gain over the {ROWS[name]} may be chance: its interval holds 0" if may_be_chance else ""
    if gain.difference == 0:
        return f"tuned gains nothing over the {ROWS[name]}"
    if gain.ends is None:
        which = f"tuned is {-gain.difference:.4f} below the {ROWS[name]} (no interval was asked for)"
    elif may_be_chance:
        which = f"tuned is {-gain.difference:.4f} below the {ROWS[name]}, which may be chance: the interval holds 0"
    else:
        which = f"tuned is worse than the {ROWS[name]} by {-gain.difference:.4f}"
    runs = [shown_path(run) for run in models[tuned.best].runs]
    if name == "single":
        return f"{which}; that model alone: {alone(runs)}"
    return f"{which}; without the settings: remove default and categories from {ENSEMBLE}"


def alone(runs: list[str]) -> str:
    """The command that runs a single model, of which the run directories may not be known."""
    weights = shlex.join(runs) if runs else "RUN"
    return f"{spelled('infer')} --weights {weights} --data-path RADIOGRAPHS --save-path OUT"


def shown_path(path: Path) -> str:
    """A path from here, where it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def in_words(tuned: "Tuned", name: str) -> str:
    """The gain of the tuned settings over one of the scores, with its interval."""
    gain = tuned.gains.get(name)
    if gain is None:
        return ""
    ends = "" if gain.ends is None else f" ({gain.ends[0]:+.4f} to {gain.ends[1]:+.4f})"
    return f"{gain.difference:+.4f}{ends}"


def settings_in_words(settings: "Settings") -> str:
    """Those that have an effect, briefly."""
    parts = {
        "wbf": f"wbf {settings.score}, IoU {settings.iou:g}",
        "soft_nms": f"soft_nms, sigma {settings.sigma:g}",
    }
    words = [parts.get(settings.method, settings.method)]
    words += [f"weights {' '.join(f'{weight:g}' for weight in settings.weights)}"] if settings.weights else []
    words += [f"boxes × {settings.scale:g}"] if settings.scale != 1 else []
    words += [f"× classifier's p^{settings.exponents[1]:g}"] if settings.exponents[1] else []
    return ", ".join(words)


def notes_of(config: Config, store: "Store", material: "OutOfFold", tuned: "Tuned", metric: str) -> dict[str, Any]:
    """What ensemble.yaml says beside the settings: the numbers and the data."""
    from xray.datasets.fingerprint import fingerprint
    from xray.evaluation.evaluate import plain_numbers

    numbers: dict[str, Any] = {
        "metric": metric,
        "seed": config.seed,
        "folds": ["val" if fold < 0 else fold for fold in sorted(set(material.folds.tolist()))],
        "best_single": tuned.best,
        **{
            name: {"all": value, **{store.categories[label]: one for label, one in of.items()}}
            for name, (value, of) in tuned.scores.items()
        },
        **{
            f"gain_over_{name}": {"difference": gain.difference, "ci95": gain.ends, "p_value": gain.p_value}
            for name, gain in tuned.gains.items()
        },
    }
    return {"numbers": plain_numbers(numbers), "data": plain_numbers(fingerprint(store, material.rows))}


def run() -> int:
    """The command; returns its exit status."""
    return command(Config, main, check)
