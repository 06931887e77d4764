"""Draws chest radiographs with findings and writes them in the sources' own layouts, to try everything without data."""

import dataclasses
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xray.commands.runner import command
from xray.errors import FlagError, spelled
from xray.phantoms.layouts import LAYOUTS
from xray.phantoms.tree import check_order

DEFAULT_TREES = ("vinbig", "siim", "lungs")
# Its values are known when the command starts, which a type checker cannot follow.
if TYPE_CHECKING:
    Tree = str
else:
    Tree = Literal[(*DEFAULT_TREES, *LAYOUTS)]


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of tools/phantoms.py."""

    save_path: Path
    """Folder to write to; each tree of phantoms is a subfolder."""
    trees: tuple[Tree, ...] = DEFAULT_TREES
    """vinbig: boxes of 14 findings by three readers; siim: pneumothorax masks as run lengths, JPEG in DICOM; lungs: PNG
    with a mask of each lung, as in the Montgomery set. The others have the layouts of what xray convert reads: public
    sets under their own names, chexpertplus by convert chexpert, and the files of other tools (coco, yolo, voc, cvat,
    labelstudio) by convert tree."""
    n_train: int = 200
    """Number of training radiographs in each tree (0 to 1000000); where a set has a split for validation, one of five
    of them is in that."""
    n_test: int = 50
    """Number of test radiographs in each tree (0 to 1000000), their truth kept apart (test_truth.csv,
    test-rle-truth.csv, test/)."""
    seed: int = 0
    """The same seed (0 to 4294967295) and numbers give the same files."""
    size: int | None = None
    """Longer side of the radiographs in pixels, about (96 to 6000); if not given, as in the set: in vinbig 1900 to
    3000, in siim 1024 and in lungs 1400 to 2000."""
    normal_fraction: float = 0.7
    """Share of radiographs without findings, 0 to 1; in siim, pneumothorax aside."""
    pneumothorax_fraction: float | None = None
    """Share of the radiographs with a pneumothorax, 0 to 1; if not given, a quarter in siim and in the others a tenth
    of those with findings. lungs has no such share."""
    n_workers: int = os.cpu_count() or 1
    """Processes that draw (0 to 512); 0 draws in the main one. The files do not depend on it."""
    overwrite: bool = False
    """Replace phantoms that were made with other parameters."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> None:
    """Writes the phantoms and says what to do with them."""
    check(config)

    from xray.phantoms.layout import layout_of, write_layout
    from xray.phantoms.siim_lungs import write_lungs, write_siim
    from xray.phantoms.tree import check_tree
    from xray.phantoms.vinbig import write_vinbig

    writers = {"vinbig": write_vinbig, "siim": write_siim, "lungs": write_lungs}
    writers |= {kind: functools.partial(write_layout, kind) for kind in LAYOUTS}
    options = {name: getattr(config, name) for name in ("seed", "size", "normal_fraction", "n_workers", "overwrite")}
    folders = []
    for tree in config.trees:
        # Before the first is drawn, which takes long.
        check_tree(config.save_path / tree)
    for tree in dict.fromkeys(config.trees):
        more = {} if tree == "lungs" else {"pneumothorax_fraction": config.pneumothorax_fraction}
        written = writers[tree](config.save_path, config.n_train, config.n_test, **options, **more)
        n_old = written.n_train + written.n_test - written.n_drawn
        print(f"{written.n_train} training and {written.n_test} test phantoms in {written.folder}", end="")
        print(f" ({n_old} of them were there already)" if n_old else "")
        for name, count in sorted(written.images_with.items(), key=lambda item: -item[1]):
            print(f"  {name:20s} in {count}")
        folders.append((tree, written.folder))
    print("Next:")
    for tree, folder in folders:
        source = (layout_of(tree).source if tree in LAYOUTS else "") or tree
        print(f"  {spelled('convert')} {source} --data-path {folder} --save-path DATA")


def check(config: Config) -> None:
    """Raises FlagError if a value is out of range or two flags contradict each other."""
    check_order(config)
    if not config.trees:
        raise FlagError(f"--trees names none: give one or more of {', '.join((*DEFAULT_TREES, *LAYOUTS))}")
    if config.pneumothorax_fraction is not None and set(config.trees) == {"lungs"}:
        raise FlagError("--pneumothorax-fraction is for other trees than lungs, and --trees is lungs: leave it out")


def run() -> int:
    """The command; returns its exit status."""
    return command(Config, main, check, description=__doc__)
