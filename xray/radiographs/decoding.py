"""Radiographs → canvases in worker processes, so that a broken file costs that file only."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xray.radiographs.canvas import Canvas, in_8_bits
from xray.radiographs.radiograph import Radiograph, read_radiograph
from xray.radiographs.softcopy import Softcopy
from xray.radiographs.workers import MEMORY_LIMIT, TIMEOUT, Failed, in_workers


@dataclasses.dataclass
class Decoded:
    """A radiograph on its canvas.

    index: of its path in the given sequence.
    canvas: (S, S) uint8, or uint16 where 16 bits were asked for; letterboxed.
    width, height: of the radiograph, in original pixels.
    spacing: (row, column) distance of pixel centres in mm, None where unknown.
    attributes: view, sex, age and manufacturer, as far as the file has them.
    warnings: what its user should know although it is read; a few fixed texts, to count by.
    """

    index: int
    path: Path
    canvas: np.ndarray
    width: int
    height: int
    spacing: tuple[float, float] | None
    attributes: dict[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass
class Undecodable:
    """A file that is not decoded, and the reason."""

    index: int
    path: Path
    reason: str


Decode = Callable[..., Iterator[Decoded | Undecodable]]
"""`decode_canvases` or what stands in for it: paths, side of the canvases, processes, and the keyword bits where they
are more than 8 → items in the order of paths."""


def decode_canvas(index: int, path: Path, size: int, bits: int = 8) -> Decoded:
    """Reads one radiograph and letterboxes it onto a (size, size) canvas of 8 or 16 bits. Raises RadiographError."""
    return Decoded(*_letterboxed(index, path, size, read_radiograph(path, bits)))


@dataclasses.dataclass
class DecodedWhole(Decoded):
    """A radiograph on its canvas, and its own pixels, (height, width) uint8. softcopy: as of `Radiograph`."""

    pixels: np.ndarray = dataclasses.field(kw_only=True)
    softcopy: Softcopy | None = dataclasses.field(default=None, kw_only=True)


def decode_whole(index: int, path: Path, size: int, bits: int = 8) -> DecodedWhole:
    """`decode_canvas` that keeps the pixels, in 8 bits. Raises RadiographError."""
    # Here, beside it: workers would have to import whatever module it stood in.
    radiograph = read_radiograph(path, bits)
    of_file = _letterboxed(index, path, size, radiograph)
    return DecodedWhole(*of_file, pixels=in_8_bits(radiograph.pixels), softcopy=radiograph.softcopy)


def whole_of(item: Decoded) -> Radiograph | None:
    """The radiograph that was decoded, in 8 bits; None where its pixels were not kept."""
    if not isinstance(item, DecodedWhole):
        return None
    return Radiograph(item.pixels, item.spacing, item.path.name, item.attributes, item.warnings, item.softcopy)


def _letterboxed(index: int, path: Path, size: int, radiograph: Radiograph) -> tuple[Any, ...]:
    """The fields of Decoded."""
    canvas = Canvas(radiograph.width, radiograph.height, size).letterbox(radiograph.pixels)
    of_header = (radiograph.spacing, radiograph.attributes, radiograph.warnings)
    return index, path, canvas, radiograph.width, radiograph.height, *of_header


def decode_canvases(
    paths: Sequence[Path],
    size: int,
    n_workers: int,
    timeout: float = TIMEOUT,
    memory_limit: int = MEMORY_LIMIT,
    decode: Callable[..., Decoded] = decode_canvas,
    bits: int = 8,
) -> Iterator[Decoded | Undecodable]:
    """Decodes radiographs in worker processes and yields them in the order of `paths`.

    size: side of the canvases, in pixels.
    n_workers, timeout, memory_limit: as for `in_workers`.
    decode: what a worker calls for (index, path, size), and for more than 8 bits with the keyword bits; it must be
        importable there.
    bits: of the canvases, 8 or 16.

    A file that cannot be read, or whose worker hangs, crashes or is killed, gives an Undecodable. Closing the iterator
    stops the workers.
    """
    work = functools.partial(_decode, decode if bits == 8 else functools.partial(decode, bits=bits), size)
    outcomes = in_workers(work, list(enumerate(paths)), n_workers, lambda item: item[1].name, timeout, memory_limit)
    with contextlib.closing(outcomes):
        for index, outcome in enumerate(outcomes):
            yield Undecodable(index, paths[index], outcome.reason) if isinstance(outcome, Failed) else outcome


def _decode(decode: Callable[..., Decoded], size: int, item: tuple[int, Path]) -> Decoded:
    return decode(*item, size)
