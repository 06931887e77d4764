"""What the sources with masks share: reading many files under a progress bar, and the source that masks make."""

import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from xray.datasets.source import Dropped, Source, SourceImage
from xray.datasets.sources.mask_reading import Region
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.workers import Failed, in_workers
from xray.structures.boxes import BoxTable

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclasses.dataclass
class MaskedImages:
    """Radiographs with their regions, as they are gathered for a source."""

    images: list[SourceImage] = dataclasses.field(default_factory=list)
    dropped: list[Dropped] = dataclasses.field(default_factory=list)
    warnings: list[FileWarning] = dataclasses.field(default_factory=list)
    _regions: list[tuple[int, Region, str]] = dataclasses.field(default_factory=list)

    def add(self, image: SourceImage, regions: Iterable[Region], place: str) -> None:
        """Takes an image; `place` is where its masks were read."""
        self._regions += [(len(self.images), region, place) for region in regions]
        self.images.append(image)

    def source(self, kind: str, layout: str, categories: Sequence[str], fingerprint: str) -> Source:
        """All of them; the categories become 1 … K."""
        boxes = [region.box for _, region, _ in self._regions]
        return Source(
            kind=kind,
            layout=layout,
            images=self.images,
            boxes=BoxTable.of(
                [image for image, _, _ in self._regions], [region.category for _, region, _ in self._regions], boxes
            ),
            readers=[()] * len(boxes),
            places=[place for _, _, place in self._regions],
            categories=[{"id": number, "name": name} for number, name in enumerate(categories, start=1)],
            fingerprint=fingerprint,
            masks={row: region.rle for row, (_, region, _) in enumerate(self._regions)},
            dropped=self.dropped,
            warnings=self.warnings,
        )


def in_processes(
    work: Callable[[_Item], _Result], items: Sequence[_Item], n_workers: int, name: Callable[[_Item], str], what: str
) -> Iterator[_Result | Failed]:
    """`xray.radiographs.workers.in_workers` under a progress bar on stderr."""
    with contextlib.closing(in_workers(work, items, n_workers, name)) as results:
        yield from _tracked(results, what, len(items))


def in_threads(
    read: Callable[[_Item], _Result], items: Sequence[_Item], n_threads: int, what: str
) -> Iterator[_Result]:
    """`read(item)` of all items in their order, under a progress bar on stderr.

    n_threads: most of the work happens in libraries that let other threads run meanwhile.
    """
    pool = concurrent.futures.ThreadPoolExecutor(max(1, n_threads))
    try:
        yield from _tracked(pool.map(read, items), what, len(items))
    finally:
        # An interrupted command does not wait for the rest.
        pool.shutdown(cancel_futures=True)


def _tracked(results: Iterable[_Result], what: str, total: int) -> Iterable[_Result]:
    console = Console(stderr=True)
    return track(results, what, total=total, console=console, transient=True, disable=not console.is_terminal)
