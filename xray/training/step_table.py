"""A table of all that a training logs, step by step."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from xray.errors import InputError
from xray.file_names import CURVES
from xray.files import replacing


class StepTable(Logger):
    """csv/metrics.csv of a run directory: a row for each step that logged something, a column for each name.

    Lightning's own CSVLogger deletes the table of a run that is resumed, and a kill while it adds a column loses all.

    steps_done: rows of a table that is there are kept up to this step; None keeps none.
    Raises InputError where that table is damaged.
    """

    def __init__(self, run: Path, steps_done: int | None = None) -> None:
        super().__init__()
        self.path = run / "csv" / CURVES
        self._rows: dict[int, dict[str, Any]] = {}
        if steps_done is not None and self.path.is_file():
            try:
                with self.path.open(newline="") as file:
                    rows = {int(row["step"]): row for row in csv.DictReader(file)}
            except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
                raise InputError(
                    f"{self.path} is damaged ({type(error).__name__}): restore it, or move it away"
                ) from None
            self._rows = {
                step: {name: value for name, value in row.items() if value}
                for step, row in rows.items()
                if step < steps_done
            }

    @property
    def name(self) -> str:
        """The folder's name."""
        return "csv"

    @property
    def version(self) -> str:
        """Empty: a run has a single table."""
        return ""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds scalars to the row of a step."""
        step = step or 0
        self._rows.setdefault(step, {"step": step}).update({name: float(value) for name, value in metrics.items()})

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Does nothing: config.yaml has the flags."""

    def save(self) -> None:
        """Writes the table, complete or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        names = list(dict.fromkeys(name for row in self._rows.values() for name in row))
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(row for _, row in sorted(self._rows.items()))

    def finalize(self, status: str) -> None:
        """Writes the rows since the last checkpoint."""
        self.save()
