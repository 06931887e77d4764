"""What every benchmark shares beside its timings: flags in range, cells of a table, the JSON file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import timing
from xray.errors import FlagError, InputError
from xray.files import complete

MOST = {"n_workers": 512, "batch_size": 4096, "image_size": 8192, "width": 20_000, "height": 20_000}
"""Highest values of flags; of all others 10 million."""


def check_at_least(config: Any, **lowest: float) -> None:
    """Raises FlagError for the first flag of `config` below its lowest value, or above what makes sense."""
    for name, low in lowest.items():
        value, high = getattr(config, name), MOST.get(name, 10_000_000)
        if not low <= value:
            raise FlagError(f"--{name.replace('_', '-')} is {value}: give at least {low}")
        if value > high:
            raise FlagError(f"--{name.replace('_', '-')} is {value}: give at most {high}")


def check_save_path(path: Path | None) -> None:
    """Raises InputError unless `save_report` can write there: an hour's numbers must not be lost for want of a folder.

    None is fine: nothing will be written.
    """
    if path is not None and not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} for --save-path: make it first")


def save_report(path: Path | None, report: dict[str, Any]) -> None:
    """Writes the numbers as JSON; None writes nothing."""
    if path is None:
        return
    with complete(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")


def spread_text(values: Mapping[str, float], digits: int = 1) -> str:
    """The cell of a table: "median (lowest-highest)" of a Spread as a dict."""
    return f"{values['median']:.{digits}f} ({values['low']:.{digits}f}-{values['high']:.{digits}f})"


def printer() -> Any:
    """A rich Console for tables; where nobody looks at it, wide enough for them."""
    import sys

    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def refuse(what: str) -> InputError:
    """The error for two sides that do not do the same work, to be raised."""
    return InputError(
        f"{what}: the two do not do the same work, so there is nothing to compare (a bug: please report it)"
    )


def surroundings(packages: list[str], device: Any = None) -> dict[str, Any]:
    """The entries `machine` and `versions` of a report.

    device: the torch device that was used; a GPU's name goes into `machine`.
    """
    machine = timing.machine()
    if device is not None and device.type == "cuda":
        import torch

        machine["gpu"] = torch.cuda.get_device_name(device)
    return {"machine": machine, "versions": timing.versions(packages)}


def surroundings_text(report: Mapping[str, Any]) -> str:
    """`surroundings` in one line, for below a table."""
    machine = report["machine"]
    parts = [
        *([machine["gpu"]] if "gpu" in machine else []),
        machine["processor"],
        f"{machine['cores']} cores",
        f"{machine['memory_gib']} GiB",
        f"Python {machine['python']}",
        *(f"{name} {version}" for name, version in report["versions"].items()),
    ]
    return ", ".join(parts)
