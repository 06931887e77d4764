"""Draws chest radiographs with findings and writes them in VinBigData's layout, to try everything without the data."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # The repository's root in place of tools/, so that `tools/fuse.py` and its like shadow nothing.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import dataclasses
import os

from xray.command import command


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of tools/phantoms.py."""

    save_path: Path
    """Folder to write to; the phantoms go to its subfolder vinbig."""
    n_train: int = 200
    """Number of training radiographs, read by three readers each."""
    n_test: int = 50
    """Number of test radiographs, whose truth goes to test_truth.csv."""
    seed: int = 0
    """The same seed and numbers give the same files."""
    size: int | None = None
    """Longer side of the radiographs in pixels, about (96 to 6000); 1900 to 3000 if not given."""
    normal_fraction: float = 0.7
    """Share of radiographs without findings, 0 to 1."""
    n_workers: int = os.cpu_count() or 1
    """Processes that draw; 0 draws in the main one. The files do not depend on it."""
    overwrite: bool = False
    """Replace phantoms that were made with other parameters."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> None:
    """Writes the phantoms and says what to do with them."""
    from xray.data.phantoms import write_vinbig

    written = write_vinbig(
        config.save_path,
        config.n_train,
        config.n_test,
        seed=config.seed,
        size=config.size,
        normal_fraction=config.normal_fraction,
        n_workers=config.n_workers,
        overwrite=config.overwrite,
    )
    kept = written.n_train + written.n_test - written.n_drawn
    print(f"{written.n_train} training and {written.n_test} test phantoms in {written.folder}", end="")
    print(f" ({kept} of them were there already)" if kept else "")
    for name, count in sorted(written.images_with.items(), key=lambda item: -item[1]):
        print(f"  {name:20s} in {count}")
    print("Next:")
    print(f"  python tools/convert.py vinbig --data-path {written.folder} --save-path DATA")


if __name__ == "__main__":
    sys.exit(command(Config, main, description=__doc__))
