"""Converts radiographs and their annotations into the dataset directory that training reads."""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    # The repository's root in place of tools/, so that no tool here shadows a package.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from xray.command import FlagError, InputError, command


@dataclasses.dataclass
class _Common:
    data_path: Path
    """Directory of the source: radiographs and their table."""
    save_path: Path
    """Where the dataset directory goes; an unfinished one there is continued."""
    image_size: int = 1024
    """Side of the square canvas every radiograph is letterboxed onto, in pixels (32 to 8192)."""
    n_folds: int = 5
    """Number of folds (2 to 100), stratified by finding; no patient is in two."""
    readers: Literal["fuse", "all"] = "fuse"
    """fuse: one box of those that an image's readers drew around the same finding; all: every reader's box."""
    n_workers: int = 0
    """Processes that decode; 0 is one a CPU."""
    seed: int = 0
    """Decides between patients that are alike when the folds are dealt."""
    overwrite: bool = False
    """Replace the dataset at --save-path; the old one stays until the new one is complete."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclasses.dataclass
class VinBig(_Common):
    """VinBigData: train.csv and train/ with DICOM files, or with the 1024-pixel pictures and their train_meta.csv."""

    table_only: bool = False
    """Convert the table alone: no radiograph is opened and no images.npy written."""


@dataclasses.dataclass
class Coco(_Common):
    """Anyone's own radiographs, under images/ or as their COCO file says; boxes or masks of any categories."""

    annotations: str | None = None
    """The COCO file, relative to --data-path; needed only where there are several."""


Config = Annotated[VinBig, tyro.conf.subcommand("vinbig")] | Annotated[Coco, tyro.conf.subcommand("coco")]


def main(config: VinBig | Coco) -> None:
    """Converts, then prints what was taken, what was left out, and the next command."""
    for name, low, high in (("image_size", 32, 8192), ("n_folds", 2, 100), ("n_workers", 0, 512)):
        if not low <= getattr(config, name) <= high:
            raise FlagError(f"--{name.replace('_', '-')} is {getattr(config, name)}: give {low} to {high}")
    if config.save_path.resolve() == config.data_path.resolve():
        raise InputError(f"--save-path and --data-path are both {config.data_path}: choose another --save-path")
    flags = {name: getattr(config, name) for name in ("image_size", "n_folds", "readers", "seed", "overwrite")}
    flags["n_workers"] = config.n_workers or len(os.sched_getaffinity(0))
    if isinstance(config, VinBig):
        from xray.data.vinbig import convert_vinbig

        result = convert_vinbig(config.data_path, config.save_path, table_only=config.table_only, **flags)
    else:
        from xray.data.coco import convert_coco

        result = convert_coco(config.data_path, config.save_path, annotations=config.annotations, **flags)
    show(result, config.save_path)


def show(conversion: dict, save_path: Path) -> None:
    """Prints the counts of a conversion.json as a table, and the next command."""
    from rich.console import Console
    from rich.table import Table

    counts, dropped = conversion["counts"], conversion["dropped"]["counts"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    folds = ", ".join(str(count) for count in counts["images_per_fold"].values())
    table.add_row("[bold]radiographs", str(counts["images"]))
    table.add_row("  for training, by fold", folds)
    if counts["test_images"]:
        table.add_row("  for testing", str(counts["test_images"]))
    table.add_row("  without a box", str(counts["images_without_boxes"]))
    table.add_row("[bold]boxes", str(counts["annotations"]))
    for name, count in counts["annotations_per_category"].items():
        table.add_row(f"  {name}", str(count))
    table.add_row("[bold]left out or changed", str(sum(dropped.values())))
    for reason, count in dropped.items():
        table.add_row(f"  {reason}", str(count))
    console = Console(highlight=False)
    console.print(table)
    if dropped:
        console.print(f"each with its reason in {save_path / 'conversion.json'}", soft_wrap=True)
    if conversion["parameters"]["pixels"]:
        console.print(f"next: python xray/train.py --data-path {save_path}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(command(Config, main))
