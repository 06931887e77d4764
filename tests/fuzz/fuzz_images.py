"""Mutated radiographs through the pool that decodes for every command."""

import collections
import dataclasses
import functools
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from fuzz_bytes import mutated
from fuzz_measures import Breach, Row, peak_of_process, reset_peak

from xray.datasets.sources.mask_reading import Pictures, read_pictures
from xray.radiographs.canvas import MAX_PIXELS
from xray.radiographs.decoding import Decoded, Undecodable, decode_canvas, decode_canvases
from xray.radiographs.radiograph import RadiographError, radiograph_size, read_radiograph

SIZE = 64
TIMEOUT = 30.0
"""Seconds until a worker is ended, by the clock. The 10 s that an input may take are of the processor: what else the
machine does is not the input's fault."""


@dataclasses.dataclass
class Tried(Decoded):
    """What became of one input. refused: why it was, "" if it was read. breach: what must not have happened."""

    refused: str = ""
    breach: str = ""
    seconds: float = 0.0
    peak: int = 0


@functools.cache
def original(folder: Path, kind: str) -> bytes:
    """The original of a kind, read once by each worker."""
    return (folder / "originals" / kind).read_bytes()


def name_of(kind: str, seed: int, number: int) -> str:
    """Name of the file of an input, which says how it is made."""
    return f"{kind}@{seed}@{number}"


def made(folder: Path, name: str) -> bytes:
    """The input of that name."""
    kind, seed, number = name.split("@")
    return mutated(original(folder, kind), kind, int(seed), int(number))


def try_image(index: int, path: Path, size: int) -> Tried:
    """Makes an input and reads it, as commands do; called by the pool's workers."""
    path.write_bytes(made(path.parent, path.name))
    tried = Tried(index, path, np.zeros(0, dtype=np.uint8), 0, 0, None)
    reset_peak()
    start = time.process_time()
    try:
        _read(index, path, size)
    except RadiographError as error:
        tried.refused = str(error) or "no reason"
        # It names the file and never its folder.
        if path.name not in tried.refused or str(path.parent) in tried.refused:
            tried.breach = f"unclear error: {tried.refused}"
    except MemoryError:
        tried.refused = "memory"
    except Exception:
        tried.breach = traceback.format_exc()
    tried.seconds, tried.peak = time.process_time() - start, peak_of_process()
    path.unlink()
    return tried


def _read(index: int, path: Path, size: int) -> None:
    how = int(path.name.rpartition("@")[2]) % 8
    if how == 6:
        radiograph = read_radiograph(path, bits=16)
        assert radiograph.pixels.dtype == np.uint16
        assert radiograph.pixels.ndim == 2
        assert 0 < radiograph.pixels.size <= MAX_PIXELS
    elif how == 7:
        width, height = radiograph_size(path)
        assert 0 < width * height <= MAX_PIXELS
        read_pictures(Pictures(path, ((1, path),), 1e-4))
    else:
        decoded = decode_canvas(index, path, size)
        assert decoded.canvas.shape == (size, size)
        assert decoded.canvas.dtype == np.uint8
        assert 0 < decoded.width * decoded.height <= MAX_PIXELS


def run_images(folder: Path, names: Sequence[str], n_workers: int) -> Iterator[tuple[str, Tried | Undecodable]]:
    """Every input's outcome, in order; `folder` holds originals/."""
    paths = [folder / name for name in names]
    yield from zip(names, decode_canvases(paths, SIZE, n_workers, TIMEOUT, decode=try_image), strict=True)


def count(rows: dict[str, Row], name: str, outcome: Tried | Undecodable) -> Breach | None:
    """Adds an outcome to the table's rows; returns the breach that it is, if it is one."""
    row = rows[name.partition("@")[0]]
    if isinstance(outcome, Undecodable):
        row.tried, row.refused, row.crashes = row.tried + 1, row.refused + 1, row.crashes + 1
        if "longer than" in outcome.reason:
            row.slowest = max(row.slowest, TIMEOUT)
            return Breach(name, f"hangs: {outcome.reason}")
        return None
    row.add(bool(outcome.refused), outcome.seconds, outcome.peak)
    return Breach(name, outcome.breach) if outcome.breach else row.breach(name)


def new_rows(kinds: Sequence[str]) -> dict[str, Row]:
    """A row for each kind."""
    return collections.OrderedDict((kind, Row(kind)) for kind in kinds)
