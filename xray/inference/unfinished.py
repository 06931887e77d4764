"""Whether a run has trained all of its epochs: its deployed model is the best one so far from the first one on."""

import csv
from pathlib import Path

from xray.errors import InputError
from xray.files import read_yaml_text

CONFIG, TABLE = "config.yaml", "metrics.csv"
LARGEST = 2**20
"""Characters of a config that is looked into."""


def unfinished(run: Path) -> str:
    """A warning where a run has trained fewer epochs than its config says; "" where it has not, or that is not known.

    One that may stop by itself (--early-stop) says nothing of when it has done so.
    """
    try:
        config = read_yaml_text(run / CONFIG, "config", "train again", LARGEST)
        wanted = 0 if config.get("early_stop") else int(config["n_epochs"])
        with (run / TABLE).open(newline="") as file:
            done = max((int(row["epoch"]) + 1 for row in csv.DictReader(file)), default=0)
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error):
        # What is no such run, or has no such files, says nothing.
        return ""
    if not 0 < done < wanted:
        return ""
    return f"warning: {run} has trained {done} of its {wanted} epochs: this is the best of its models so far"
