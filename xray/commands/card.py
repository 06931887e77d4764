"""Writes a model card. xray card RUN --report REPORT --data-path DATASET."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from xray.commands.runner import command
from xray.errors import InputError
from xray.files import check_writable, finishing, is_unfinished
from xray.radiographs.names import visible


@dataclasses.dataclass(frozen=True)
class Config:
    """Writes the card of a trained model, as HTML and as Markdown: data, intended use, metrics with intervals overall
    and by group, calibration, thresholds, limits, versions, hashes.

    All of it comes from the run's files, the report's metrics.json and the dataset; what these do not say is "not
    known".
    """

    weights: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory of a trained model, or the ensemble.yaml that tools/tune.py wrote."""
    report: Path | None = None
    """Folder that tools/evaluate.py wrote, or its metrics.json; by default report/ or evaluation/ in RUN if there is
    one, else the card has what the training measured."""
    data_path: Path | None = None
    """Dataset directory that the model was trained on: how many radiographs of whom, and what it lacks."""
    notes: Path | None = None
    """YAML file of what only people know, such as `developer: …`, `licence: …`, `users: …`; an unknown key is answered
    by the list of all. Default: those of the card that lies beside RUN, or beside the runs of an ensemble."""
    save_path: Path | None = None
    """Folder for card.html and card.md; by default RUN, where tools/serve.py finds it."""
    overwrite: bool = False
    """Replace a card that is there."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> None:
    """Writes both files."""
    from xray.outputs.card.card import write_card
    from xray.outputs.card.facts import read_facts
    from xray.outputs.card.reference import card_files

    page, markdown = card_files(config.weights, config.save_path)
    if page.parent.exists() and not page.parent.is_dir():
        raise InputError(f"{page.parent} is a file: give --save-path a folder")
    check_writable(page.parent)
    existing = [path for path in (page, markdown) if path.exists()]
    if existing and not config.overwrite and not is_unfinished(page.parent, "card"):
        raise InputError(f"{existing[0]} exists: give --overwrite, or another --save-path")
    facts = read_facts([config.weights], config.report, config.data_path, config.notes)
    with finishing(page.parent, "card"):
        write_card(facts, page, markdown)
    for warning in facts.warnings:
        print(f"warning: {visible(warning)}", file=sys.stderr)
    print(f"card: {page} and {markdown.name}")


def run() -> int:
    """The command; returns its exit status."""
    return command(Config, main)
