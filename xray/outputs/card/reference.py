"""How a DICOM object names the models' card: in constant words, so that another card makes no other object."""

from collections.abc import Sequence
from pathlib import Path

from xray.inference.ensemble_file import is_ensemble

SETTING = "model card"
SERVED = "at /card of the server"
BESIDE = "card.html beside the weights"


def card_setting(runs: Sequence[Path]) -> dict[str, object]:
    """A setting of `Algorithm` where a run directory or an ensemble.yaml has a card beside it; else empty."""
    names = [(run, f"{run.stem}.card.html" if is_ensemble(run) else "card.html") for run in runs]
    has_card = any(((run if run.is_dir() else run.parent) / name).is_file() for run, name in names)
    return {SETTING: BESIDE} if has_card else {}
