"""Radiographs → canvases in worker processes, so that a broken file costs that file only."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xray.radiographs.canvas import Canvas, in_8_bits
from xray.radiographs.image_check import Gate, ImageCheck
from xray.radiographs.radiograph import Radiograph, read_radiograph
from xray.radiographs.softcopy import Softcopy
from xray.radiographs.workers import MEMORY_LIMIT, TIMEOUT, Failed, in_workers

NO_GATE = Gate()
"""Looks at no file."""


@dataclasses.dataclass
class Decoded:
    """A radiograph on its canvas.

    index: of its path in the given sequence.
    canvas: (S, S) uint8, or uint16 where 16 bits were asked for; letterboxed.
    width, height: of the radiograph, in original pixels.
    spacing: (row, column) distance of pixel centres in mm, None where unknown.
    attributes: view, sex, age and manufacturer, as far as the file has them.
    warnings: what its user should know although it is read; a few fixed texts, to count by.
    check: whether it is a frontal chest radiograph, None where that was not looked at.
    turn: quarter turns, anticlockwise as np.rot90 counts them, by which the canvas was turned. Width and height are
        those of the file.
    """

    index: int
    path: Path
    canvas: np.ndarray
    width: int
    height: int
    spacing: tuple[float, float] | None
    attributes: dict[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    check: ImageCheck | None = None
    turn: int = 0

    @property
    def size_on_canvas(self) -> tuple[int, int]:
        """(width, height), in original pixels, of what is on the canvas: exchanged where it is turned to its side."""
        return (self.height, self.width) if self.turn % 2 else (self.width, self.height)


@dataclasses.dataclass
class Undecodable:
    """A file that is not decoded, and the reason."""

    index: int
    path: Path
    reason: str


Decode = Callable[..., Iterator[Decoded | Undecodable]]
"""`decode_canvases` or what stands in for it: paths, side of the canvases, processes, and the keyword bits where they
are more than 8 → items in the order of paths."""


def decode_canvas(index: int, path: Path, size: int, bits: int = 8, gate: Gate = NO_GATE) -> Decoded:
    """Reads one radiograph and letterboxes it onto a (size, size) canvas of 8 or 16 bits.

    gate: what becomes of files that are no upright frontal chest radiographs. Raises RadiographError, for those that
    it refuses, too.
    """
    return on_canvas(index, path, size, read_radiograph(path, bits), gate)


@dataclasses.dataclass
class DecodedWhole(Decoded):
    """A radiograph on its canvas, and its own pixels, (height, width) uint8. softcopy: as of `Radiograph`."""

    pixels: np.ndarray = dataclasses.field(kw_only=True)
    softcopy: Softcopy | None = dataclasses.field(default=None, kw_only=True)


def decode_whole(index: int, path: Path, size: int, bits: int = 8, gate: Gate = NO_GATE) -> DecodedWhole:
    """`decode_canvas` that keeps the pixels, in 8 bits. Raises RadiographError."""
    # Here, beside it: workers would have to import whatever module it stood in.
    radiograph = read_radiograph(path, bits)
    item = on_canvas(index, path, size, radiograph, gate)
    return DecodedWhole(**vars(item), pixels=in_8_bits(radiograph.pixels), softcopy=radiograph.softcopy)


def whole_of(item: Decoded) -> Radiograph | None:
    """The radiograph that was decoded, in 8 bits; None where its pixels were not kept."""
    if not isinstance(item, DecodedWhole):
        return None
    return Radiograph(item.pixels, item.spacing, item.path.name, item.attributes, item.warnings, item.softcopy)


def on_canvas(index: int, path: Path, size: int, radiograph: Radiograph, gate: Gate = NO_GATE) -> Decoded:
    """A radiograph on its canvas, turned upright first where the gate does so. Raises RadiographError for refused ones.

    index, path: as of `Decoded`.
    """
    check = gate.look(radiograph.pixels, radiograph.header, path.name)
    turn = gate.turn_of(check)
    pixels = np.ascontiguousarray(np.rot90(radiograph.pixels, turn)) if turn else radiograph.pixels
    return Decoded(
        index,
        path,
        Canvas(pixels.shape[1], pixels.shape[0], size).letterbox(pixels),
        radiograph.width,
        radiograph.height,
        radiograph.spacing,
        radiograph.attributes,
        (*radiograph.warnings, *gate.warnings_of(check)),
        None if gate.mode == "off" else check,
        turn,
    )


def decode_canvases(
    paths: Sequence[Path],
    size: int,
    n_workers: int,
    timeout: float = TIMEOUT,
    memory_limit: int = MEMORY_LIMIT,
    decode: Callable[..., Decoded] = decode_canvas,
    bits: int = 8,
    gate: Gate = NO_GATE,
) -> Iterator[Decoded | Undecodable]:
    """Decodes radiographs in worker processes and yields them in the order of `paths`.

    size: side of the canvases, in pixels.
    n_workers, timeout, memory_limit: as for `in_workers`.
    decode: what a worker calls for (index, path, size), and with the keywords bits, where they are more than 8, and
        gate, where there is one; it must be importable there.
    bits: of the canvases, 8 or 16. gate: as for `decode_canvas`.

    A file that cannot be read, or whose worker hangs, crashes or is killed, gives an Undecodable. Closing the iterator
    stops the workers.
    """
    more: dict[str, Any] = ({} if bits == 8 else {"bits": bits}) | ({} if gate == NO_GATE else {"gate": gate})
    work = functools.partial(_decode, functools.partial(decode, **more) if more else decode, size)
    outcomes = in_workers(work, list(enumerate(paths)), n_workers, lambda item: item[1].name, timeout, memory_limit)
    with contextlib.closing(outcomes):
        for index, outcome in enumerate(outcomes):
            yield Undecodable(index, paths[index], outcome.reason) if isinstance(outcome, Failed) else outcome


def _decode(decode: Callable[..., Decoded], size: int, item: tuple[int, Path]) -> Decoded:
    return decode(*item, size)
