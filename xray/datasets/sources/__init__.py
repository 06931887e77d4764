"""The sources of datasets: a module for each, whose `read_NAME` makes a `xray.datasets.source.Source` of its files."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xray.radiographs.decoding import Decode


def convert(
    kind: str,
    data_path: Path | str,
    save_path: Path | str,
    *,
    image_size: int = 1024,
    n_folds: int = 5,
    readers: str = "fuse",
    seed: int = 0,
    n_workers: int = 1,
    overwrite: bool = False,
    decode: "Decode | None" = None,
    **flags: Any,
) -> dict[str, Any]:
    """Converts a source into a dataset directory; returns the content of its conversion.json.

    kind: "vinbig", "coco", "siim", "lungs" or "folders". flags: the arguments of `read_<kind>` in the module of that
    name. The others are those of `xray.datasets.conversion.write_store`; with VinBigData's `table_only` no radiograph
    is opened and no images.npy written. Raises InputError as the two functions do.
    """
    # Workers that read masks import modules of this package: they need not load all that conversion needs.
    from xray.datasets.conversion import write_store

    read = getattr(importlib.import_module(f"{__name__}.{kind}"), f"read_{kind}")
    if kind in ("siim", "lungs", "folders"):
        # These open files before radiographs are decoded: masks, or possible copies.
        flags["n_workers"] = n_workers
    return write_store(
        read(data_path, **flags),
        save_path,
        image_size=image_size,
        n_folds=n_folds,
        readers=readers,
        seed=seed,
        n_workers=n_workers,
        overwrite=overwrite,
        pixels=not flags.get("table_only", False),
        decode=decode,
    )
