"""Probability maps kept beside predictions, so that thresholds can be searched without running a model again.

- probabilities.npy: uint8, (N, K, S, S), in 255ths, a channel for each category of the segmenters, on canvases of S
  pixels a side; opened memory-mapped.
- probabilities.json: `image_ids`, `sizes` ([width, height] in original pixels; null for a radiograph that could not be
  read, whose maps mean nothing), `categories` ([[id, name], …], one a channel), and `labels` ({name: [probability of
  each radiograph or null]}, of the classifiers beside). Written last, so its presence means that both are complete.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from xray.errors import InputError, spelled
from xray.files import complete
from xray.radiographs.canvas import MAX_PIXELS, Canvas

MAPS, INDEX = "probabilities.npy", "probabilities.json"


@dataclasses.dataclass(frozen=True)
class ProbabilityMaps:
    """What `MapWriter` wrote, opened; radiographs that could not be read are left out.

    image_ids: source ids of the N radiographs. sizes: (N, 2) int64, width and height in original pixels.
    categories: id → name, in the order of the channels. maps: (·, K, S, S) uint8, memory-mapped; `rows` are those of
    the N radiographs. labels: name → (N,) float64 in [0, 1], the classifiers' probabilities.
    """

    image_ids: tuple[str, ...]
    sizes: np.ndarray
    categories: dict[int, str]
    maps: np.ndarray
    rows: np.ndarray
    labels: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.image_ids)

    def original(self, number: int, channel: int) -> np.ndarray:
        """One map at original size, (height, width) float32 in [0, 1]; what `Pipeline` draws its masks from."""
        width, height = self.sizes[number].tolist()
        level = np.asarray(self.maps[self.rows[number], channel])
        return Canvas(width, height, len(level)).unletterbox(level.astype(np.float32) / 255)


class MapWriter:
    """Writes the maps of `n` radiographs into a folder, in any order; those never added count as not read.

    resume: continues with the maps that an interrupted command left, of which `restore` says which are complete.
    """

    def __init__(
        self, folder: Path, image_ids: Sequence[str], categories: Mapping[int, str], size: int, resume: bool = False
    ) -> None:
        self.folder, self.image_ids, self.categories = folder, list(image_ids), dict(categories)
        (folder / INDEX).unlink(missing_ok=True)
        self._part = folder / (MAPS + ".part")
        shape = (len(self.image_ids), len(self.categories), size, size)
        if resume and not self._part.exists() and (folder / MAPS).exists():
            # It ended after the maps had their final name and before the rest was written.
            os.replace(folder / MAPS, self._part)
        mode = "r+" if resume and self._part.exists() else "w+"
        self._maps = np.lib.format.open_memmap(self._part, mode=mode, dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):
            # The file is sparse, and a hole that a full disk cannot fill would end the process by SIGBUS: fill it now.
            with self._part.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, self._part.stat().st_size)
        self._sizes: list[list[int] | None] = [None] * len(self.image_ids)
        self._labels: dict[str, list[float | None]] = {}

    def add(self, index: int, width: int, height: int, maps: np.ndarray, labels: Mapping[str, float]) -> None:
        """The maps of radiograph `index`, (K, S, S) floats in [0, 1], and its probabilities of whole-image labels."""
        self._maps[index] = np.rint(maps * 255)
        self.restore(index, width, height, labels)

    def restore(self, index: int, width: int, height: int, labels: Mapping[str, float]) -> None:
        """Notes that the maps of radiograph `index` are there."""
        self._sizes[index] = [int(width), int(height)]
        for name, probability in labels.items():
            column = self._labels.setdefault(name, [None] * len(self.image_ids))
            column[index] = round(float(probability), 6)

    def close(self) -> None:
        """Puts both files under their names."""
        self._maps.flush()
        del self._maps
        os.replace(self._part, self.folder / MAPS)
        content = {
            "image_ids": self.image_ids,
            "sizes": self._sizes,
            "categories": [[number, name] for number, name in self.categories.items()],
            "labels": self._labels,
        }
        with complete(self.folder / INDEX) as temporary:
            temporary.write_text(json.dumps(content) + "\n")


def read_maps(folder: Path) -> ProbabilityMaps | None:
    """The maps of a folder, None where it has none. Raises InputError if they are damaged."""
    if not (folder / INDEX).is_file():
        return None
    try:
        content = json.loads((folder / INDEX).read_text())
        maps = np.load(folder / MAPS, mmap_mode="r")
        ids, categories = content["image_ids"], {int(number): str(name) for number, name in content["categories"]}
        fits = maps.dtype == np.uint8 and maps.ndim == 4 and maps.shape[:2] == (len(ids), len(categories))
        if not fits or len(content["sizes"]) != len(ids) or any(len(c) != len(ids) for c in content["labels"].values()):
            raise ValueError(f"{maps.dtype} maps {maps.shape} for {len(ids)} radiographs, {len(categories)} categories")
        for width, height in filter(None, content["sizes"]):
            if not (type(width) is type(height) is int and min(width, height) > 0 and width * height <= MAX_PIXELS):
                raise ValueError(f"a radiograph of {str(width)[:20]} x {str(height)[:20]} pixels")
        rows = np.array([row for row, size in enumerate(content["sizes"]) if size is not None], dtype=np.int64)
        return ProbabilityMaps(
            tuple(str(ids[row]) for row in rows.tolist()),
            np.array([content["sizes"][row] for row in rows.tolist()], dtype=np.int64).reshape(-1, 2),
            categories,
            maps,
            rows,
            {
                str(name): np.array([column[row] for row in rows.tolist()], dtype=np.float64)
                for name, column in content["labels"].items()
            },
        )
    except Exception as error:  # whatever JSON and NumPy raise on damaged files
        raise InputError(
            f"{folder} holds damaged probability maps ({error}): run {spelled('infer')} with --probabilities again"
        ) from None
