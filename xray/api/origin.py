"""Where radiographs came from, as far as their results need it; without torch, so that results alone are light."""

import dataclasses
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from xray.datasets.originals import enlarged, misfit
from xray.datasets.store import Store
from xray.errors import InputError
from xray.radiographs.radiograph import Radiograph, read_radiograph
from xray.radiographs.softcopy import Softcopy


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a radiograph came from: one of a file, an array, and a row of a dataset directory.

    original: (width, height) in whose pixels the answer is, where a file was made smaller. array: (height, width)
    uint8. reference: of a DICOM data set that was given, what DICOM objects take over; None where it lacks that.
    softcopy: of it, as of `Radiograph`.
    """

    path: Path | None = None
    original: tuple[int, int] | None = None
    array: np.ndarray | None = None
    reference: Dataset | None = None
    softcopy: Softcopy | None = None
    store: Store | None = None
    row: int = -1

    def radiograph(self) -> Radiograph:
        """The file or the array itself; a file is read anew. Raises InputError where it is neither."""
        if self.path is not None:
            return read_radiograph(self.path)
        return Radiograph(self.pixels(), None, "", softcopy=self.softcopy)

    def pixels(self) -> np.ndarray:
        """(height, width) uint8 display grey in original pixels; a file is read anew.

        Raises InputError where nothing is known but the name, or the file is gone.
        """
        if self.array is not None:
            return self.array
        if self.store is not None:
            if self.store.images is None:
                raise InputError(f"{self.store.path} was opened without its pixels")
            return self.store.canvas(self.row).unletterbox(self.store.shown(self.row))
        if self.path is None:
            raise InputError("the pixels of this radiograph are not known: its result was read from a file")
        pixels = read_radiograph(self.path).pixels
        if fault := misfit(pixels.shape[::-1], self.original):
            raise InputError(f"{self.path.name}: {fault}")
        return pixels if self.original is None else enlarged(pixels, *self.original)
