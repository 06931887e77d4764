"""The inputs that need torch. Worker processes import this file beforehand: its import is no input's cost."""

from pathlib import Path

import fuzz_tables

import xray.inference.loaded  # noqa: F401


def try_model(item: tuple[Path, str]) -> fuzz_tables.Tried:
    """As `fuzz_tables.try_table`."""
    return fuzz_tables.try_table(item)
