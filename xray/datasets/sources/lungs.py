"""Lung outlines, and any folder of radiographs beside a folder of masks → a source to convert.

Layouts: Montgomery (`CXR_png/`, `ManualMask/leftMask/`, `ManualMask/rightMask/` with equal names), Shenzhen
(`CXR_png/`, `mask/<stem>_mask.png`), or two folders that are named, in which a mask has its radiograph's stem, with or
without `_mask`. A folder `test/` in the same layout, as with phantoms, becomes the split "test".
"""

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from xray.datasets import source as reasons
from xray.datasets.naming import source_ids
from xray.datasets.source import Dropped, SourceImage, data_root, listed, relative_name
from xray.datasets.sources.mask_account import (
    WITH_IMAGE,
    MaskedImages,
    NamedValue,
    account_of,
    fault_of_mask,
    read_masks,
    read_named_values,
    unclear_tones,
)
from xray.datasets.sources.mask_reading import PictureRegions, Pictures, Region, read_pictures
from xray.datasets.sources.patients import name_patients
from xray.errors import InputError
from xray.radiographs.file_kinds import Content, content_of
from xray.radiographs.names import WHAT_TO_DO, UnsafeNameError, check_inside, is_inside
from xray.radiographs.radiograph import SUFFIXES, source_id
from xray.radiographs.workers import Failed

SPECK_SHARE = 1e-4
"""Components of a mask that cover a smaller share of the image are drawing errors."""

SEVERAL_MASKS = "image with several masks of its name"
SHARED_MASK = "mask of several images of its name"

_MASK = "_mask"


@dataclasses.dataclass(frozen=True)
class _Pair:
    """A radiograph and its masks: (category, file) each. place: what its id is made of, relative to its folder."""

    image: SourceImage
    masks: tuple[tuple[int, Path], ...]
    place: str


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where the files are. masks: the folders of the masks, with the category and, for messages, the name of each.

    joined: each mask is one region, whatever its components.
    """

    kind: str
    images: Path
    masks: tuple[tuple[Path, int, str], ...]
    categories: tuple[str, ...]
    joined: bool


def read_lungs(
    data_path: Path | str,
    *,
    lungs: Literal["joined", "apart"] = "joined",
    images: str | None = None,
    masks: str | None = None,
    category: str = "Lung",
    values: Sequence[str] = (),
    patients: Path | str | None = None,
    n_workers: int = 1,
) -> reasons.Source:
    """Pairs radiographs with masks by name and reads the masks.

    lungs: with Montgomery's two masks, "joined" makes both the category "Lung", "apart" makes them "Right lung" and
        "Left lung". Either way each lung is one annotation; elsewhere each 8-connected component is one.
    images, masks: two folders, relative to `data_path`, in place of a known layout.
    category: what the masks of the layouts with one mask an image show, whatever values they are drawn in.
    values: "VALUE=NAME" each, in these layouts: values of the masks that are categories of their own, by a number as it
        is stored, the index of a palette or a colour (#FA3253); other values are background then.
    patients: a table with the columns file_name and patient, or a COCO file whose images have both, so that all of a
        patient's images get into one fold. Names are compared without suffix, or else without folder.
    n_workers: processes that read masks; 0 reads them in this one.

    Masks without an image, images without a mask, and pairs whose sizes differ are left out; so are components that
    cover less than 0.01 % of the image. An empty mask is a radiograph without findings. Of two radiographs that differ
    in their suffix alone each needs a mask with its own suffix, or with its whole name. What in a mask is mask, see
    `xray.datasets.sources.mask_values.read_values`.

    Raises InputError for a missing directory or an unknown layout, for "apart" where sides are not known, for values
    that cannot be read or are in no mask, and for patients of which none is found among the images.
    """
    root = data_root(data_path, "give the directory that holds the radiographs and their masks")
    named = read_named_values(values)
    layout = _find_layout(root, lungs, images, masks, category, named)
    gathered = MaskedImages()
    pairs = _pair(root, layout, "train", gathered.dropped)
    if images is None and (check_inside(root / "test", root) / layout.images.name).is_dir():
        test = _find_layout(root / "test", lungs, images, masks, category, named)
        pairs += _pair(root, test, "test", gathered.dropped)
    own_ids = source_ids([pair.place for pair in pairs])
    pairs = [
        dataclasses.replace(pair, image=dataclasses.replace(pair.image, source_id=own_id))
        for pair, own_id in zip(pairs, own_ids, strict=True)
    ]
    described = [[pair.image.file_name for pair in pairs], layout.categories, list(map(dataclasses.astuple, named))]
    digest = hashlib.sha256(json.dumps(described).encode())
    if patients is not None:
        images_of, content = name_patients([pair.image for pair in pairs], Path(patients), gathered.dropped)
        digest.update(content)
        pairs = [dataclasses.replace(pair, image=image) for pair, image in zip(pairs, images_of, strict=True)]
    number = {name: place for place, name in enumerate(layout.categories, start=1)}
    numbered = tuple((value.value, number[value.category]) for value in named)
    items = [Pictures(pair.image.path, pair.masks, SPECK_SHARE, layout.joined, numbered) for pair in pairs]
    outcomes = list(read_masks(read_pictures, items, n_workers))
    unclear = unclear_tones(mask for outcome in outcomes if not isinstance(outcome, Failed) for mask in outcome[1])
    used: list[tuple[str, PictureRegions]] = []
    for pair, outcome in zip(pairs, outcomes, strict=True):
        regions, dropped = _judge(root, pair, outcome, unclear)
        gathered.dropped += dropped
        if regions is not None and not isinstance(outcome, Failed):
            gathered.add(pair.image, regions, pair.image.file_name)
            used += [(relative_name(path, root), mask) for (_, path), mask in zip(pair.masks, outcome[1], strict=True)]
    gathered.warnings += account_of(used, named, offers=layout.kind != "montgomery")
    return gathered.source("lungs", layout.kind, layout.categories, digest.hexdigest())


def _find_layout(
    root: Path, lungs: str, images: str | None, masks: str | None, category: str, values: tuple[NamedValue, ...]
) -> _Layout:
    if (images is None) != (masks is None):
        raise InputError("--images and --masks name two folders: give both, or neither for a known layout")
    categories = tuple(dict.fromkeys(value.category for value in values)) or (category,)
    if images is not None and masks is not None:
        layout = _Layout("pair", root / images, ((root / masks, 1, "mask"),), categories, False)
    elif (root / "ManualMask").is_dir():
        sides = ("Right lung", "Left lung") if lungs == "apart" else ("Lung",)
        right, left = root / "ManualMask" / "rightMask", root / "ManualMask" / "leftMask"
        folders = ((right, 1, "right mask"), (left, len(sides), "left mask"))
        layout = _Layout("montgomery", root / "CXR_png", folders, sides, True)
    else:
        folder = next((root / name for name in ("mask", "masks") if (root / name).is_dir()), root / "mask")
        layout = _Layout("shenzhen", root / "CXR_png", ((folder, 1, "mask"),), categories, False)
    for folder in (layout.images, *(folder for folder, _, _ in layout.masks)):
        if not folder.is_dir():
            raise InputError(
                f"there is no folder {folder}: --data-path needs CXR_png/ with ManualMask/leftMask/ and rightMask/ "
                "(Montgomery) or with mask/ (Shenzhen), or two folders named by --images and --masks"
            )
        # Folders named by flags are the user's own choice.
        if layout.kind != "pair" and not is_inside(folder, root):
            raise UnsafeNameError(f"{folder} is a link that leads out of {root}: {WHAT_TO_DO}")
    if lungs == "apart" and layout.kind != "montgomery":
        raise InputError(f"{root} has no ManualMask/ with a left and a right mask: leave out --lungs apart")
    if values and layout.kind == "montgomery":
        raise InputError(f"{root} has ManualMask/ with a mask for each lung: give --lungs apart in place of --values")
    return layout


def _pair(root: Path, layout: _Layout, split: str, dropped: list[Dropped]) -> list[_Pair]:
    """The radiographs that have all their masks, sorted by name; their ids are still to be given."""
    images = _list_pictures(layout.images, root, dropped)
    folders = [
        images if folder == layout.images else _list_pictures(folder, root, dropped) for folder, _, _ in layout.masks
    ]
    if any(folder == layout.images for folder, _, _ in layout.masks):
        images = [path for path in images if not source_id(path).endswith(_MASK)]
    masks = [_by_stem(files) for files in folders]
    alike = _by_stem(images)
    pairs, used = [], set(images)
    for path in images:
        file_name = relative_name(path, root)
        chosen, missing, fault = [], [], ""
        for (_, category, what), by_stem in zip(layout.masks, masks, strict=True):
            matching, similar = _masks_of(path, alike[source_id(path)], by_stem)
            used.update(similar)
            if len(matching) == 1:
                chosen.append((category, matching[0]))
            elif similar:
                fault = SEVERAL_MASKS if matching else SHARED_MASK
                missing.append(", ".join(relative_name(mask, root) for mask in similar))
            else:
                missing.append(f"no {what}")
        if missing:
            detail = " and ".join(missing)
            dropped.append(Dropped(file_name, fault or reasons.IMAGE_WITHOUT_MASK, detail=detail))
        else:
            place = path.name if split == "train" else f"{split}/{path.name}"
            pairs.append(_Pair(SourceImage(path, file_name, "", split=split), tuple(chosen), place))
    unused = {path for files in folders for path in files} - used
    dropped += [Dropped(relative_name(path, root), reasons.MASK_WITHOUT_IMAGE) for path in sorted(unused)]
    return pairs


def _masks_of(image: Path, alike: Sequence[Path], masks: dict[str, list[Path]]) -> tuple[list[Path], list[Path]]:
    """The masks in a folder that belong to an image, and all that have its name.

    alike: all images of its stem. A mask is called like its image with or without `_mask`; where there are several of
    one stem, a mask belongs to the image whose suffix or whole name it has, if each of them then has one mask.
    """

    def called(name: str) -> list[Path]:
        return [mask for spelling in (name, name + _MASK) for mask in masks.get(spelling, ()) if mask not in alike]

    stem = source_id(image)
    whole = {other: called(other.name) for other in alike}
    near = [*(called(stem) if stem != image.name else ()), *whole[image]]
    if len(alike) == 1:
        return whole[image] or near, near
    masks_of = {
        other: whole[other] or [mask for mask in called(stem) if mask.suffix == other.suffix] for other in alike
    }
    return (masks_of[image] if all(len(several) == 1 for several in masks_of.values()) else []), near


def _by_stem(paths: Sequence[Path]) -> dict[str, list[Path]]:
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        by_stem[source_id(path)].append(path)
    return dict(by_stem)


def _list_pictures(folder: Path, root: Path, dropped: list[Dropped]) -> list[Path]:
    """The radiographs or masks that stand in a folder itself, sorted by name."""
    # A folder named by a flag may lie outside of the root.
    paths = listed(folder, root, dropped, lambda path: content_of(path, SUFFIXES) == Content.RADIOGRAPH, beside=folder)
    return [path for path in paths if path.is_file()]


def _judge(
    root: Path, pair: _Pair, outcome: tuple[tuple[int, int], list[PictureRegions]] | Failed, unclear: frozenset[str]
) -> tuple[list[Region] | None, list[Dropped]]:
    """The regions of one radiograph's masks, None if it has to be left out, and the account of it."""
    if isinstance(outcome, Failed):
        return None, [Dropped(pair.image.file_name, reasons.UNREADABLE, detail=outcome.reason)]
    size, masks = outcome
    regions: list[Region] = []
    specks = []
    for (_, path), mask in zip(pair.masks, masks, strict=True):
        name = relative_name(path, root)
        if fault := fault_of_mask(mask, size, unclear):
            return None, [Dropped(name, fault[0], WITH_IMAGE, fault[1])]
        regions += mask.regions
        if mask.n_small:
            specks.append(Dropped(name, reasons.SPECK, detail=f"{mask.n_small} of fewer than {mask.smallest} pixels"))
    if specks and not regions:
        # Something was marked, so the radiograph cannot be used as one without findings.
        return None, [*specks, Dropped(pair.image.file_name, reasons.NO_BOX_LEFT)]
    return regions, specks
