"""Radiographs to run models over: a folder, one file, or the canvases of a dataset directory."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from xray.command import InputError
from xray.data.decoding import Decoded, Failed, Undecodable, decode_canvases, in_workers
from xray.data.radiograph import RadiographError, find_radiographs, read_radiograph, source_id
from xray.data.store import Store, is_store, open_store


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Radiographs in a fixed order.

    ids: source id of each. paths: its file; None where it is a row of `store`. rows: its row in `store`.
    """

    ids: tuple[str, ...]
    paths: tuple[Path, ...] = ()
    store: Store | None = None
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, ids: set[str]) -> "Inputs":
        """Those whose id is among `ids`, in the same order."""
        kept = [number for number, name in enumerate(self.ids) if name in ids]
        return Inputs(
            tuple(self.ids[number] for number in kept),
            tuple(self.paths[number] for number in kept) if self.paths else (),
            self.store,
            None if self.rows is None else self.rows[kept],
        )

    def canvases(self, size: int, n_workers: int, timeout: float) -> Iterator[Decoded | Undecodable]:
        """All radiographs, in order, on canvases of `size` pixels a side; `index` is the position in `ids`."""
        if self.store is None:
            yield from decode_canvases(self.paths, size, n_workers, timeout)
            return
        for index, row in enumerate(self.rows.tolist()):
            record = self.store.records[row]
            canvas = np.asarray(self.store.images[row])
            if len(canvas) != size:
                shrinks = size < len(canvas)
                canvas = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            yield Decoded(index, Path(record["file_name"]), canvas, record["width"], record["height"], None)

    def pixels(self, index: int) -> np.ndarray:
        """(height, width) uint8 in original pixels, as far as they are still there: a canvas is scaled back up.

        Raises RadiographError for a file that cannot be read.
        """
        if self.store is None:
            (pixels,) = in_workers(_read_pixels, [self.paths[index]], 1, _file_name)
            if isinstance(pixels, Failed):
                raise RadiographError(pixels.reason)
            return pixels
        row = int(self.rows[index])
        return self.store.canvas(row).unletterbox(np.asarray(self.store.images[row]))


def _read_pixels(path: Path) -> np.ndarray:
    return read_radiograph(path).pixels


def _file_name(path: Path) -> str:
    return path.name


def open_inputs(data_path: Path, split: str | None = None, fold: int | None = None) -> Inputs:
    """A folder (searched through), a file, or a dataset directory, of which `split` and `fold` choose a part.

    Raises InputError if nothing usable is there. Files are named by their stem; where two share one, all are named by
    their path below `data_path`.
    """
    if is_store(data_path):
        store = open_store(data_path)
        rows = store.rows(split=split, fold=fold)
        return Inputs(tuple(store.records[row]["source_id"] for row in rows.tolist()), store=store, rows=rows)
    if split is not None or fold is not None:
        raise InputError(f"--split and --fold choose a part of a dataset directory, and {data_path} is none")
    paths = find_radiographs(data_path)
    ids = [source_id(path) for path in paths]
    if len(set(ids)) < len(ids):
        ids = [path.relative_to(data_path).with_name(source_id(path)).as_posix() for path in paths]
    if len(set(ids)) < len(ids):
        double = next(name for name in ids if ids.count(name) > 1)
        raise InputError(f"{data_path} holds two files named {double} with different suffixes: move one of them away")
    return Inputs(tuple(ids), tuple(paths))
