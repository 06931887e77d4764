"""How a DICOM object names the models' card, and of what a card that lies beside them is."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from xray.errors import InputError
from xray.inference.ensemble_file import is_ensemble

SETTING = "model card"
SERVED = "at /card of the server"
BESIDE = "card.html beside the weights"
WEIGHTS, FIT, NOTED = "xray-weights", "xray-thresholds", "xray-notes"
"""Names of the meta elements that say what a card is of: SHA-256, in hex, of each of the weights, and of all that
was fitted of thresholds; and, in JSON, what people wrote."""
MOST_BYTES = 2**24


def card_files(given: Path, folder: Path | None = None) -> tuple[Path, Path]:
    """Where the card of a run directory or an ensemble.yaml lies, HTML and Markdown. folder: where it was asked for."""
    stem = f"{given.stem}.card" if is_ensemble(given) else "card"
    place = folder or (given if given.is_dir() else given.parent)
    return place / f"{stem}.html", place / f"{stem}.md"


def read_card(given: Path) -> tuple[str, Mapping[str, str]] | None:
    """The HTML of the card beside a run directory or an ensemble.yaml, and what its meta elements hold; None where
    there is none that can be read."""
    file = card_files(given)[0]
    try:
        if file.stat().st_size > MOST_BYTES:
            return None
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    found = re.findall(r'<meta name="([a-z-]+)" content="([^"]*)">', text)
    return text, {name: html.unescape(content) for name, content in found}


def noted(meta: Mapping[str, str]) -> dict[str, str]:
    """What people wrote, by the meta elements of a card; its keys may be anything."""
    try:
        content = json.loads(meta.get(NOTED, "{}"))
    except (ValueError, RecursionError):
        return {}
    found = content.items() if isinstance(content, dict) else ()
    return {key: value for key, value in found if isinstance(value, str)}


def card_setting(runs: Sequence[Path]) -> dict[str, object]:
    """A setting of `Algorithm` where a run directory or an ensemble.yaml has its card beside it; else empty.

    One that was made for other weights or thresholds is none.
    """
    return {SETTING: BESIDE} if any(map(_has_card, runs)) else {}


def _has_card(run: Path) -> bool:
    # An exported file has the card of its run.
    given = run if run.is_dir() or is_ensemble(run) else run.parent
    if not card_files(given)[0].is_file():
        return False
    # Only now: it imports torch.
    from xray.outputs.card.card import written_card
    from xray.outputs.card.facts import read_models

    try:
        return written_card(given, read_models([given], warn=lambda line: None)) is not None
    except InputError:
        return False
