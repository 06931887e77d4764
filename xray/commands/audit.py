"""Looks through a dataset: one page on what it holds, and on what in it somebody should look at; the same as JSON."""

import csv
import dataclasses
import json
import sys
from pathlib import Path

from xray.commands.id_flags import CategoryIds, ImageIds
from xray.commands.runner import command
from xray.file_names import IMAGES
from xray.files import check_output, complete, finishing

PAGE, NUMBERS, NAMED = "audit.html", "audit.json", "named.csv"
COLUMNS = ("radiograph", "file_name", "split", "fold", "why", "score", "other", "category", "seen_as", "detail")


@dataclasses.dataclass(frozen=True)
class Config:
    """Looks through a dataset: counts, readers, copies across splits and folds, odd radiographs, labels likely wrong.

    `xray audit DATA` is short for `xray audit --data-path DATA`.
    """

    data_path: Path = Path("data/vinbig")
    """Dataset directory written by tools/convert.py."""
    save_path: Path = Path("runs/audit")
    """Folder for audit.html, audit.md, audit.json, named.csv (each radiograph that is named, and why) and figures."""
    predictions: Path | None = None
    """predictions.json of radiographs that the model was not trained on, such as out_of_fold/predictions.json of
    tools/cv.py: also names the labels that they contradict."""
    ids: ImageIds = "auto"
    category_ids: CategoryIds = "auto"
    overwrite: bool = False
    """Replace an audit at --save-path."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> None:
    """Looks, writes the files and prints what is named; warnings go to stderr and onto the page."""
    check_out(config)

    from xray.audit.audit import audit
    from xray.commands.evaluate import identity
    from xray.datasets.prediction_ids import read_any_predictions
    from xray.datasets.store import open_store
    from xray.evaluation.evaluate import plain_numbers
    from xray.outputs.report.audit import write_audit
    from xray.outputs.report.printing import show
    from xray.structures.probability_maps import read_maps

    store = open_store(config.data_path, pixels=(config.data_path / IMAGES).is_file())
    predictions = maps = None
    if config.predictions is not None:
        predictions = read_any_predictions(config.predictions, store, config.ids, config.category_ids)
        maps = read_maps(config.predictions.parent)
    with _Bar() as bar:
        result = audit(store, predictions, maps, bar.show)
        bar.show("drawing the page", None)
        with finishing(config.save_path, "audit"):
            metrics = plain_numbers(result.metrics)
            name = identity(config.predictions) if config.predictions is not None else ""
            page = write_audit(config.save_path / PAGE, result, name)
            with complete(config.save_path / NAMED) as temporary:
                _write_named(temporary, metrics["named"])
            with complete(config.save_path / NUMBERS) as temporary:
                temporary.write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n")
        bar.show("done", 1.0)
    show(page)
    print(f"named: {result.n_named:,} of {len(store):,} radiographs, in {config.save_path / NAMED}")
    print(f"page: {config.save_path / PAGE}")


def check_out(config: Config) -> None:
    """Raises InputError if --save-path cannot be written to, or holds an audit that is not to be replaced."""
    check_output(config.save_path, (NUMBERS, PAGE), "audit", config.overwrite)


def _write_named(path: Path, entries: list[dict[str, object]]) -> None:
    """A row for each reason; of a pair both radiographs stand in it."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(entries)


class _Bar:
    """Progress on stderr: what is done, and how much of it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task("counting", total=1.0)

    def __enter__(self) -> "_Bar":
        self._progress.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.__exit__(*error)  # type: ignore[arg-type]

    def show(self, what: str, share: float | None) -> None:
        """Says what is done, and the share of it in [0, 1]; None where that is not known."""
        # A bar without a total moves all the same; `update` knows no way back to none.
        self._progress.tasks[0].total = None if share is None else 1.0
        self._progress.update(self._task, description=what, completed=share or 0.0)


def run() -> int:
    """The command; returns its exit status."""
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        sys.argv.insert(1, "--data-path")
    return command(Config, main, check_out=check_out)
