"""What a model of the API may be given: files, folders, arrays and DICOM data sets, made into radiographs with names.

All is decoded in this process, one radiograph ahead of the models, as new processes would run a script again that calls
the API without an `if __name__ == "__main__"` guard. So a file has no limit of time of its own here, and none of memory
but those of the reader (`xray.radiographs`): for files from strangers there is the command `xray infer`.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from xray.api.origin import Origin
from xray.datasets.inputs import Inputs, open_inputs
from xray.datasets.naming import source_ids
from xray.datasets.originals import find_originals
from xray.datasets.store import Store, is_store
from xray.errors import InputError
from xray.inference.streaming import ahead, radiographs
from xray.outputs.dicom.objects import reduced
from xray.radiographs.canvas import MAX_PIXELS, in_8_bits
from xray.radiographs.decoding import NO_GATE, Decoded, DecodedWhole, Undecodable, on_canvas
from xray.radiographs.image_check import Gate
from xray.radiographs.pictures import grey_of_words
from xray.radiographs.radiograph import EIGHT_BITS, Radiograph, RadiographError, radiograph_of_dataset
from xray.radiographs.workers import TIMEOUT
from xray.storage.addresses import is_remote

Item = Decoded | Undecodable

AHEAD = 2
"""Radiographs that are decoded while the models are still at others."""


@dataclasses.dataclass(frozen=True)
class Given:
    """Radiographs with names, ready to be decoded.

    ids: of each. names: of each, for failures. origins: of each, but for what only decoding tells. warnings: of each,
    from before it is decoded.
    decode: side of the canvases, and their bits where not 8 → all radiographs in order, on canvases, or why they cannot
        be read.
    is_single: whether one radiograph was given, not a list or a folder.
    passed_over: sentences about files of a folder that are no radiographs.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    origins: tuple[Origin, ...]
    warnings: tuple[tuple[str, ...], ...]
    decode: Callable[..., Iterator[Item]]
    is_single: bool = False
    passed_over: tuple[str, ...] = ()

    def origin(self, item: Decoded) -> Origin:
        """The origin of a radiograph that was decoded."""
        return getattr(item, "origin", None) or self.origins[item.index]


def given(x: Any, ids: Sequence[str] | None = None, sizes: str = "", gate: Gate = NO_GATE) -> Given:
    """What `Model.predict` was given.

    x, ids, sizes: as there. gate: what becomes of files, arrays and data sets that are no upright frontal chest
    radiographs. Raises InputError as it does.
    """
    if isinstance(x, (str, os.PathLike)):
        all_given = _of_path(local_path(x), sizes, gate)
    elif isinstance(x, Store):
        if x.images is None:
            raise InputError(f"{x.path} was opened without its pixels: open it with xray.open_dataset")
        ids_of_rows = tuple(record["source_id"] for record in x.records)
        all_given = _of_store(Inputs(ids_of_rows, store=x, rows=np.arange(len(x))))
    elif isinstance(x, (np.ndarray, Dataset)):
        all_given = _of_objects([x], True, gate)
    elif isinstance(x, Iterable) and not isinstance(x, (bytes, dict)):
        all_given = _of_list(list(x), sizes, gate)
    else:
        raise InputError(
            f"an object of type {type(x).__name__} cannot be looked at: give a path, an (H, W) array, "
            "a pydicom.Dataset, or a list"
        )
    if ids is None:
        return all_given
    ids, n = [ids] if isinstance(ids, str) else ids, len(all_given.ids)
    if len(ids) != n or len(set(ids)) != n or not all(isinstance(name, str) and name for name in ids):
        raise InputError(f"ids are {len(ids)} names for {n} radiographs: give each a text of its own")
    return dataclasses.replace(all_given, ids=tuple(ids))


def local_path(path: str | os.PathLike[str]) -> Path:
    """A path of this machine. Raises InputError for an address."""
    if is_remote(os.fspath(path)):
        raise InputError(f"{path} is an address: the commands read those, the API reads paths; copy it here first")
    return Path(path)


def _of_path(path: Path, sizes: str, gate: Gate) -> Given:
    if not path.exists():
        raise InputError(f"there is nothing at {path}: give a radiograph, or a folder of them")
    # No other process: it would import the script that asks, which may have no `if __name__ == "__main__"`.
    inputs = open_inputs(path, sizes=sizes, n_workers=0)
    if is_store(path):
        return _of_store(inputs)
    inputs = dataclasses.replace(inputs, gate=gate)
    return _of_inputs(inputs, path if path.is_dir() else path.parent, is_single=path.is_file())


def _of_store(inputs: Inputs) -> Given:
    rows = [] if inputs.rows is None else inputs.rows.tolist()
    return Given(
        ids=inputs.ids,
        names=tuple(inputs.file_name(number) for number in range(len(inputs))),
        origins=tuple(Origin(store=inputs.store, row=row) for row in rows),
        warnings=((),) * len(rows),
        decode=lambda size, bits=8: radiographs(inputs, size, 0, TIMEOUT, bits=bits),
    )


def _of_inputs(inputs: Inputs, root: Path, is_single: bool) -> Given:
    originals = inputs.originals or (None,) * len(inputs)
    kinds: dict[str, list[str]] = {name: [] for name in inputs.names}
    for one in inputs.warnings:
        kinds.get(one.where, []).append(one.kind)
    return Given(
        ids=inputs.ids,
        names=tuple(str(root / name) for name in inputs.names),
        origins=tuple(
            Origin(path=path.absolute(), original=original if isinstance(original, tuple) else None)
            for path, original in zip(inputs.paths, originals, strict=True)
        ),
        warnings=tuple(map(tuple, kinds.values())),
        is_single=is_single,
        passed_over=tuple(f"{one.where}: {one.kind}" for one in inputs.warnings if one.where not in kinds),
        decode=lambda size, bits=8: ahead(radiographs(inputs, size, 0, TIMEOUT, bits=bits), AHEAD),
    )


def _of_list(items: list[Any], sizes: str, gate: Gate) -> Given:
    n_paths = sum(isinstance(item, (str, os.PathLike)) for item in items)
    if n_paths == 0:
        return _of_objects(items, False, gate)
    if n_paths < len(items):
        raise InputError("a list of paths holds something else, too: give paths alone, or arrays and data sets alone")
    paths = [local_path(item) for item in items]
    for path in paths:
        if path.is_dir():
            raise InputError(f"{path} is a folder in a list of files: give the folder by itself")
    if repeated := [path for path in dict.fromkeys(paths) if paths.count(path) > 1]:
        raise InputError(f"{repeated[0]} is given twice: give each file once")
    root = Path(os.path.commonpath([os.path.abspath(path.parent) for path in paths]))
    names = tuple(Path(os.path.relpath(path, root)).as_posix() for path in paths)
    ids = tuple(source_ids(names))
    originals, warnings = find_originals(root, paths, names, ids, sizes)
    inputs = Inputs(ids, tuple(paths), names=names, originals=originals, warnings=tuple(warnings), gate=gate)
    # As they were given, so that whoever asks for the failure of a path finds it.
    return dataclasses.replace(_of_inputs(inputs, root, is_single=False), names=tuple(str(item) for item in items))


def _of_objects(items: list[Any], is_single: bool, gate: Gate) -> Given:
    for number, item in enumerate(items):
        if isinstance(item, np.ndarray):
            _check_array(item, "" if is_single else f" (number {number} of the list)")
        elif not isinstance(item, Dataset):
            raise InputError(
                f"number {number} of the list is a {type(item).__name__}: give paths, (H, W) arrays or data sets"
            )
    names = tuple(_name_of(item, number) for number, item in enumerate(items))
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two data sets were read from {repeated}: give each radiograph once, or name them by ids")
    return Given(
        ids=tuple(source_ids(names)),
        names=names,
        origins=(Origin(),) * len(items),
        warnings=((),) * len(items),
        is_single=is_single,
        decode=lambda size, bits=8: ahead(_decoded(items, names, size, bits, gate), AHEAD),
    )


def _check_array(array: np.ndarray, where: str) -> None:
    # Of either byte order.
    is_grey = array.dtype.kind == "u" and array.dtype.itemsize <= 2
    if array.ndim != 2 or not is_grey or not 1 <= array.size <= MAX_PIXELS:
        raise InputError(
            f"an array{where} is {array.shape} {array.dtype}: give display grey, (H, W) uint8 or uint16 where 0 is "
            f"black, of {MAX_PIXELS // 10**6} million pixels at most"
        )


def _name_of(item: Any, number: int) -> str:
    """The name of the file that a data set was read from; image0, image1, … for what was in no file."""
    filename = getattr(item, "filename", None)
    return Path(filename).name if isinstance(filename, (str, os.PathLike)) and str(filename) else f"image{number}"


@dataclasses.dataclass
class _DecodedObject(DecodedWhole):
    """A radiograph that was in memory, and its origin."""

    origin: Origin = dataclasses.field(kw_only=True)


def _decoded(items: list[Any], names: Sequence[str], size: int, bits: int, gate: Gate) -> Iterator[Item]:
    for index, (item, name) in enumerate(zip(items, names, strict=True)):
        try:
            radiograph = _radiograph_of(item, name, bits)
            decoded = on_canvas(index, Path(name), size, radiograph, gate)
        except RadiographError as error:
            yield Undecodable(index, Path(name), str(error))
            continue
        reference, pixels = None, in_8_bits(radiograph.pixels)
        if isinstance(item, Dataset):
            with contextlib.suppress(InputError):  # it does not say which image it is
                reference = reduced(item)
        yield _DecodedObject(
            **vars(decoded),
            pixels=pixels,
            origin=Origin(array=pixels, reference=reference, softcopy=radiograph.softcopy),
        )


def _radiograph_of(item: Any, name: str, bits: int) -> Radiograph:
    if isinstance(item, Dataset):
        return radiograph_of_dataset(item, name, bits)
    # A copy: what is drawn later is what the models saw, whatever becomes of the array.
    if item.dtype != np.uint8:
        return Radiograph(grey_of_words(item.astype(np.uint16), bits), None, name)
    # All canvases of a batch are of one type.
    pixels = np.array(item, order="C") if bits == 8 else item * np.uint16(257)
    return Radiograph(pixels, None, name, warnings=() if bits == 8 else (EIGHT_BITS,))
