"""Radiographs to run models over: a folder, one file, or the canvases of a dataset directory."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from xray.datasets.naming import source_ids
from xray.datasets.originals import Original, enlarged, find_originals, in_original_pixels, misfit
from xray.datasets.sources.mask_folders import without_masks
from xray.datasets.store import ALL_FOLDS, Store, is_store, open_store
from xray.errors import FlagError, InputError
from xray.radiographs.canvas import rescaled
from xray.radiographs.decoding import NO_GATE, Decoded, Undecodable, decode_canvases
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.image_check import Gate
from xray.radiographs.radiograph import RadiographError, find_radiographs, read_radiograph
from xray.radiographs.workers import Failed, in_workers

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Radiographs in a fixed order.

    ids: source id of each. paths: its file; None where it is a row of `store`. rows: its row in `store`.
    names: its file, relative to the data path. originals: the (width, height) in whose pixels the answer is where the
    file was made smaller, in words why it is not known, or None for the file's own; empty where all are their own.
    warnings: about files, from before any is decoded. gate: what becomes of files that are no upright frontal chest
    radiographs; rows of a dataset are not looked at, as what they were made of was.
    """

    ids: tuple[str, ...]
    paths: tuple[Path, ...] = ()
    store: Store | None = None
    rows: np.ndarray | None = None
    names: tuple[str, ...] = ()
    originals: tuple[Original, ...] = ()
    warnings: tuple[FileWarning, ...] = ()
    gate: Gate = NO_GATE

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, ids: set[str]) -> "Inputs":
        """Those whose id is among `ids`, in the same order."""
        numbers = [number for number, name in enumerate(self.ids) if name in ids]
        names = _picked(self.names, numbers)
        left_out = set(self.names).difference(names)
        return dataclasses.replace(
            self,
            ids=_picked(self.ids, numbers),
            paths=_picked(self.paths, numbers),
            rows=None if self.rows is None else self.rows[numbers],
            names=names,
            originals=_picked(self.originals, numbers),
            warnings=tuple(warning for warning in self.warnings if warning.where not in left_out),
        )

    def file_name(self, index: int) -> str:
        """The file of a radiograph, relative to the data path, or to what its dataset was converted from."""
        if self.store is not None and self.rows is not None:
            return str(self.store.records[int(self.rows[index])]["file_name"])
        return self.names[index] if self.names else self.paths[index].name

    def canvases(self, size: int, n_workers: int, timeout: float, bits: int = 8) -> Iterator[Decoded | Undecodable]:
        """All radiographs, in order, on canvases of `size` pixels a side; `index` is the position in `ids`.

        bits: of the canvases of files, 8 or 16. Those of a dataset are as it has them, but for 8 bits never finer.
        """
        if self.store is None or self.rows is None:
            items = decode_canvases(self.paths, size, n_workers, timeout, bits=bits, gate=self.gate)
            yield from in_original_pixels(items, self.originals)
            return
        for index, row in enumerate(self.rows.tolist()):
            record = self.store.records[row]
            canvas = self._canvas(row) if bits > 8 else self.store.shown(row)
            yield Decoded(
                index, Path(record["file_name"]), rescaled(canvas, size), record["width"], record["height"], None
            )

    def pixels(self, index: int) -> np.ndarray:
        """(height, width) uint8 in original pixels; a picture that was made smaller is scaled up again.

        Raises RadiographError for a file that cannot be read, or whose original size contradicts it.
        """
        if self.store is None or self.rows is None:
            (pixels,) = in_workers(_read_pixels, [self.paths[index]], 1, lambda path: path.name)
            if isinstance(pixels, Failed):
                raise RadiographError(pixels.reason)
            original = self.originals[index] if self.originals else None
            if fault := misfit(pixels.shape[::-1], original):
                raise RadiographError(f"{self.paths[index].name}: {fault}")
            return pixels if original is None else enlarged(pixels, *original)
        row = int(self.rows[index])
        return self.store.canvas(row).unletterbox(self.store.shown(row))

    def _canvas(self, row: int) -> np.ndarray:
        """(S, S) uint8 or uint16, as it stands in the store."""
        assert self.store is not None
        assert self.store.images is not None  # opened with its pixels
        return np.asarray(self.store.images[row])


def _picked(values: tuple[_T, ...], numbers: Sequence[int]) -> tuple[_T, ...]:
    return tuple(values[number] for number in numbers) if values else ()


def _read_pixels(path: Path) -> np.ndarray:
    return read_radiograph(path).pixels


def open_inputs(
    data_path: Path,
    split: str | None = None,
    fold: int | None = None,
    sizes: str = "",
    beside: Sequence[Path] = (),
    apart: Path | None = None,
    n_workers: int = 1,
) -> Inputs:
    """A folder (searched through), a file, or a dataset directory, of which `split` and `fold` choose a part.

    sizes: of pictures that were made smaller the original ones: a CSV file, WIDTHxHEIGHT for all of them, "none" where
    the pictures are the originals, or empty for the tables in or above the folder that have a known name. beside:
    further files that may be such tables. apart: a folder that results are written to, which holds no radiograph.
    n_workers: processes that look whether pictures are masks; 0 looks in this one, which starts no other.

    Raises InputError if nothing usable is there. The ids of files are those of `source_ids`.
    """
    if is_store(data_path):
        if sizes:
            raise FlagError(f"--sizes is for files, and {data_path} is a dataset directory, which has its own sizes")
        store = open_store(data_path, pseudo_for=ALL_FOLDS)
        rows = store.rows(split=split, fold=fold)
        return Inputs(tuple(store.records[row]["source_id"] for row in rows.tolist()), store=store, rows=rows)
    if split is not None or fold is not None:
        raise InputError(f"--split and --fold choose a part of a dataset directory, and {data_path} is none")
    passed_over: list[FileWarning] = []
    paths = find_radiographs(data_path, passed_over=passed_over, apart=apart)
    masks: list[FileWarning] = []
    if data_path.is_dir():
        paths, masks = without_masks(paths, data_path, n_workers)
        if not paths:
            raise InputError(f"{data_path} holds masks alone: give the folder of the radiographs")
    names = tuple(path.name if path == data_path else path.relative_to(data_path).as_posix() for path in paths)
    ids = tuple(source_ids(names))
    originals, warnings = find_originals(data_path, paths, names, ids, sizes, beside)
    return Inputs(ids, tuple(paths), names=names, originals=originals, warnings=(*passed_over, *masks, *warnings))
