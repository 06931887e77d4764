"""What the sources with masks share: masks in pictures of their own, their components, and the source they make."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from xray.data.boxes import BoxTable
from xray.data.radiograph import read_radiograph
from xray.data.rle import coco_counts, runs_of
from xray.data.source import Dropped, Source, SourceImage

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class Region:
    """A part of a mask that becomes one annotation.

    box: (4,) float64 xyxy around its pixels, edges included.
    rle: its plain COCO RLE.
    """

    box: np.ndarray
    rle: dict[str, Any]
    category: int = 1


def read_mask(path: Path | str) -> np.ndarray:
    """A picture of a mask → (height, width) bool.

    Where its brightest grey is at least half white, the mask is what is brighter than half white, which leaves out the
    fringes of a lossy picture; otherwise (classes numbered 1, 2, …) all that is not black. Raises RadiographError.
    """
    grey = read_radiograph(path).pixels
    return grey > (127 if grey.max() > 127 else 0)


def regions(mask: np.ndarray, category: int = 1, min_pixels: int = 1, joined: bool = False) -> tuple[list[Region], int]:
    """The 8-connected components of a (height, width) bool mask that have at least `min_pixels` pixels.

    joined: all of them as one region.
    Returns them from the left to the right, and the number of smaller components, which are left out.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    is_large = stats[:, cv2.CC_STAT_AREA] >= min_pixels
    is_large[0] = False  # the background
    n_small = len(is_large) - 1 - int(is_large.sum())
    kept = np.flatnonzero(is_large)
    kept = kept[np.lexsort((stats[kept, cv2.CC_STAT_TOP], stats[kept, cv2.CC_STAT_LEFT]))]
    corners = stats[kept][:, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP]]
    far = corners + stats[kept][:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    if joined and len(kept):
        box = np.concatenate([corners.min(axis=0), far.max(axis=0)])
        return [_region(is_large[labels], box, category)], n_small
    boxes = np.concatenate([corners, far], axis=1)
    return [_region(labels == label, box, category) for label, box in zip(kept.tolist(), boxes, strict=True)], n_small


def _region(mask: np.ndarray, box: np.ndarray, category: int) -> Region:
    starts, ends = runs_of(mask)
    rle = {"size": list(mask.shape), "counts": coco_counts(starts, ends, mask.size).tolist()}
    return Region(box.astype(np.float64), rle, category)


@dataclasses.dataclass
class MaskedImages:
    """Radiographs with their regions, as they are gathered for a source."""

    images: list[SourceImage] = dataclasses.field(default_factory=list)
    dropped: list[Dropped] = dataclasses.field(default_factory=list)
    _found: list[tuple[int, Region, str]] = dataclasses.field(default_factory=list)

    def add(self, image: SourceImage, found: Iterable[Region], place: str) -> None:
        """Takes an image; `place` is where its masks were read."""
        self._found += [(len(self.images), region, place) for region in found]
        self.images.append(image)

    def source(self, kind: str, layout: str, categories: Sequence[str], fingerprint: str) -> Source:
        """All of them; the categories become 1 … K."""
        boxes = [region.box for _, region, _ in self._found]
        return Source(
            kind=kind,
            layout=layout,
            images=self.images,
            boxes=BoxTable.of(
                [image for image, _, _ in self._found], [region.category for _, region, _ in self._found], boxes
            ),
            readers=[()] * len(boxes),
            places=[place for _, _, place in self._found],
            categories=[{"id": number, "name": name} for number, name in enumerate(categories, start=1)],
            fingerprint=fingerprint,
            masks={row: region.rle for row, (_, region, _) in enumerate(self._found)},
            dropped=self.dropped,
        )


def in_threads(
    read: Callable[[_Item], _Result], items: Sequence[_Item], n_threads: int, what: str
) -> Iterator[_Result]:
    """`read(item)` of all items in their order, under a progress bar on stderr.

    n_threads: most of the work happens in libraries that let other threads run meanwhile.
    """
    console = Console(stderr=True)
    pool = concurrent.futures.ThreadPoolExecutor(max(1, n_threads))
    try:
        results = pool.map(read, items)
        yield from track(
            results, what, total=len(items), console=console, transient=True, disable=not console.is_terminal
        )
    finally:
        # Whoever interrupts the command does not want to wait for the rest.
        pool.shutdown(cancel_futures=True)
