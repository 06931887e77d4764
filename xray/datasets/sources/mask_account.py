"""What the sources with masks share: reading many files, what the masks of a source say together, and the `Source`."""

import contextlib
import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from xray.datasets import source as reasons
from xray.datasets.source import Dropped, Source, SourceImage, natural
from xray.datasets.sources.mask_reading import PictureRegions, Pictures, Region, Runs
from xray.datasets.sources.mask_values import BLACK, BLACK_ON_WHITE, WHITE, WHITE_ON_BLACK
from xray.errors import FlagError, InputError
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.workers import Failed, in_workers
from xray.structures.boxes import BoxTable
from xray.structures.masks import MASK_SIZE
from xray.structures.values import whole_number

WITH_IMAGE = "left out with its image"
UNCLEAR = "mask whose background cannot be told"

JOINED = "masks with several values, all taken as mask"
NOT_NAMED = "masks with a value that --values does not name, taken as background"
NOT_FOUND = "value of --values that no mask holds"
ON_WHITE = "masks drawn black on white, taken so"
FULL = "masks that cover all of their radiograph"
VOID = "masks with the borders of PASCAL VOC, taken as background"

_MOST_SHOWN = 12

_Masks = TypeVar("_Masks", Pictures, Runs)
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class NamedValue:
    """A value of masks that is a category of its own. value: a number, or a colour such as #fa3253, in lower case."""

    value: str
    category: str


def read_named_values(texts: Iterable[str]) -> tuple[NamedValue, ...]:
    """The values of `--values 1="Right lung" "#FA3253=Left lung"`.

    Raises FlagError for one that is no VALUE=NAME, and for a value that is named twice.
    """
    by_value: dict[str, NamedValue] = {}
    for text in texts:
        value, equals, name = (part.strip() for part in text.partition("="))
        value = value.lower()
        if not value.startswith("#"):
            try:
                number = whole_number(value)
            except ValueError:
                number = None
            value = "" if number is None or number < 0 else str(number)
        elif len(value) != 7 or not set(value[1:]) <= set("0123456789abcdef"):
            value = ""
        if not (value and equals and name):
            raise FlagError(f'--values {text} is no VALUE=NAME, such as 1="Right lung" or "#FA3253=Right lung"')
        if value in by_value:
            raise FlagError(f"--values names {value} twice: {by_value[value].category} and {name}")
        by_value[value] = NamedValue(value, name)
    return tuple(by_value.values())


def unclear_tones(masks: Iterable[PictureRegions]) -> frozenset[str]:
    """The tones of pictures whose background is unclear beside the other masks of their source.

    Where most masks of a source are black on white, one that is white on black is either drawn the other way round or
    covers the edges of its radiograph, and a picture of one tone is empty or full; and the reverse.
    """
    counts = Counter(mask.tones for mask in masks if mask.size is not None)
    if counts[BLACK_ON_WHITE] > counts[WHITE_ON_BLACK]:
        return frozenset((WHITE_ON_BLACK, BLACK, WHITE))
    return frozenset((BLACK_ON_WHITE,)) if counts[WHITE_ON_BLACK] else frozenset()


def fault_of_mask(mask: PictureRegions, size: tuple[int, int], unclear: frozenset[str]) -> tuple[str, str] | None:
    """Why a mask cannot be used with a radiograph of this (width, height): reason and detail; None where it can.

    unclear: the result of `unclear_tones`.
    """
    if mask.size is None:
        return reasons.UNREADABLE_MASK, mask.error
    if mask.size != size:
        return MASK_SIZE, f"the mask is {mask.size[0]} x {mask.size[1]}, the image {size[0]} x {size[1]}"
    if mask.tones in unclear:
        return UNCLEAR, f"{mask.tones}, and others are not"
    return None


def account_of(
    masks: Sequence[tuple[str, PictureRegions]], named: Sequence[NamedValue], offers: bool = True
) -> list[FileWarning]:
    """Warnings about the masks that are used, as (file, mask): one of each kind.

    offers: whether the command takes --values, so that a warning can advise it.
    Raises InputError where none of the named values is in any mask.
    """
    several = [(file, mask.values) for file, mask in masks if not named and len(mask.values) > 1]
    unnamed = [(file, mask.unnamed) for file, mask in masks if named and mask.unnamed]
    on_white = [(file, ()) for file, mask in masks if mask.tones == BLACK_ON_WHITE]
    full = [(file, ()) for file, mask in masks if mask.tones == WHITE]
    void = [(file, ()) for file, mask in masks if mask.has_void]
    warnings = []
    for kind, files in ((JOINED, several), (NOT_NAMED, unnamed), (ON_WHITE, on_white), (FULL, full), (VOID, void)):
        if files:
            values = _distinct(of_file for _, of_file in files)
            detail = f"{len(files)} of {len(masks)} masks" + (f", values {_listed(values)}" if values else "")
            if offers and kind == JOINED:
                example = " ".join(f"{_quoted(value)}=NAME" for value in values[:3])
                detail += f"; --values {example} makes them categories of their own"
            warnings.append(FileWarning(kind, files[0][0], detail))
    present = {value for _, mask in masks for value in mask.named}
    missing = [value for value in named if value.value not in present]
    if named and masks and len(missing) == len(named):
        drawn = _listed(_distinct(mask.values for _, mask in masks)) or "no value but their background"
        raise InputError(
            f"--values names {_listed([value.value for value in named])}, but the masks hold {drawn}: "
            "give values that they hold"
        )
    return warnings + [FileWarning(NOT_FOUND, value.value, f"named {value.category}") for value in missing]


def _distinct(values: Iterable[Sequence[str]]) -> list[str]:
    return sorted(dict.fromkeys(itertools.chain.from_iterable(values)), key=natural)


def _quoted(value: str) -> str:
    """A value as a shell takes it: by its index, or its colour between quotes."""
    value = value.partition(" ")[0]
    return f"'{value}'" if value.startswith("#") else value


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MOST_SHOWN} more" if len(texts) > _MOST_SHOWN else ""
    return ", ".join(texts[:_MOST_SHOWN]) + more


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


def read_masks(
    work: Callable[[_Masks], _Result], items: Sequence[_Masks], n_workers: int
) -> Iterator[_Result | Failed]:
    """`work(item)` of all items by `xray.radiographs.workers.in_workers`, under a progress bar on stderr."""
    with contextlib.closing(in_workers(work, items, n_workers, lambda item: item.image.name)) as results:
        yield from tracked(results, "reading masks", len(items))


def tracked(results: Iterable[_Result], what: str, total: int) -> Iterable[_Result]:
    """The results as they come, under a progress bar on stderr."""
    console = Console(stderr=True)
    return track(results, what, total=total, console=console, transient=True, disable=not console.is_terminal)
