"""The sources of datasets: a module for each, whose `read_NAME` makes a `xray.datasets.source.Source` of its files."""

import importlib
from pathlib import Path
from typing import Any

PUBLIC: dict[str, str] = {}
"""Public sets that need no flag of their own: kind → what it is and what it needs, for --help.

Each has a module of that name with `read_<kind>(data_path)`.
"""


def convert(
    kind: str, data_path: Path | str, save_path: Path | str, *, n_workers: int = 1, **flags: Any
) -> dict[str, Any]:
    """Converts a source into a dataset directory; returns the content of its conversion.json.

    kind: a subcommand of `convert`, such as "vinbig" or "coco". flags: the arguments of `read_<kind>` in the module of
    that name, and those of `xray.datasets.conversion.write_store`; with VinBigData's `table_only` no radiograph is
    opened and no images.npy written. Raises InputError as the two functions do.
    """
    # Workers that read masks import modules of this package: they need not load all that conversion needs.
    from xray.datasets.conversion import write_store

    names = ("image_size", "n_folds", "readers", "seed", "overwrite", "decode")
    writing = {name: flags.pop(name) for name in names if name in flags}
    if kind in ("siim", "lungs", "folders"):
        # These open files before radiographs are decoded: masks, or possible copies.
        flags["n_workers"] = n_workers
    source = getattr(importlib.import_module(f"{__name__}.{kind}"), f"read_{kind}")(data_path, **flags)
    return write_store(source, save_path, n_workers=n_workers, pixels=not flags.get("table_only", False), **writing)
