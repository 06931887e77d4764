"""Whether a run has trained all of its epochs: its deployed model is the best one so far from the first one on."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xray.errors import InputError
from xray.file_names import CONFIG_FILE, CURVES, MODEL_FILE
from xray.files import read_yaml_text

LARGEST = 2**20
"""Characters of a config that is looked into."""


def unfinished(run: Path) -> str:
    """A warning where a run has trained fewer epochs than its config says, and --early-stop has not ended it; "" where
    it has not, or that is not known.
    """
    try:
        config = read_yaml_text(run / CONFIG_FILE, "config", "train again", LARGEST)
        wanted, patience = int(config["n_epochs"]), int(config.get("early_stop") or 0)
        with (run / CURVES).open(newline="") as file:
            rows = list(csv.DictReader(file))
        done = max((int(row["epoch"]) + 1 for row in rows), default=0)
        if not 0 < done < wanted or (patience and _waited(run, config, rows) >= patience):
            return ""
    except (
        InputError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
        csv.Error,
    ):
        # What is no such run, or has no such files, says nothing.
        return ""
    of = f"{wanted} epochs, and --early-stop {patience} has not ended it" if patience else f"{wanted} epochs"
    return f"warning: {run} has trained {done} of its {of}: this is the best of its models so far"


def _waited(run: Path, config: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> int:
    """The number of validations since the best one, as Lightning's EarlyStopping counts them: an equal one is not
    better, and neither is one that is no number."""
    from xray.evaluation.monitored import monitored_by  # here, as inference does without metrics

    categories = json.loads((run / MODEL_FILE).read_text())["categories"].items()
    metric = monitored_by(
        config["task"], str(config.get("monitor", "auto")), {int(number): name for number, name in categories}
    )
    best, waited = -math.inf, 0
    for value in (float(row[metric]) for row in rows if row[metric]):
        best, waited = (value, 0) if value > best else (best, waited + 1)
    return waited
