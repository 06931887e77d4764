"""Lung outlines, and any folder of radiographs beside a folder of masks → a source to convert.

Layouts: Montgomery (`CXR_png/`, `ManualMask/leftMask/`, `ManualMask/rightMask/` with equal names), Shenzhen
(`CXR_png/`, `mask/<stem>_mask.png`), or two folders of one's own, in which a mask has its radiograph's stem, with or
without `_mask`. A folder `test/` in the same layout, as with phantoms, becomes the split "test".
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from xray.command import InputError
from xray.data import source as reasons
from xray.data.conversion import write_store
from xray.data.decoding import Decode, Failed
from xray.data.mask_files import MaskedImages, in_processes
from xray.data.mask_reading import PictureRegions, Pictures, Region, read_pictures
from xray.data.names import LINK_OUT, UnsafeNameError, check_inside, is_inside, leads_out
from xray.data.patients import name_patients
from xray.data.radiograph import SUFFIXES, source_id
from xray.data.source import Dropped, SourceImage

SPECK_SHARE = 1e-4
"""Components of a mask that cover less of the image are slips of the pen."""

_MASK = "_mask"


@dataclasses.dataclass(frozen=True)
class _Pair:
    """A radiograph and its masks: (category, file) each."""

    image: SourceImage
    masks: tuple[tuple[int, Path], ...]


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


def convert_lungs(
    data_path: Path | str,
    save_path: Path | str,
    *,
    lungs: Literal["joined", "apart"] = "joined",
    images: str | None = None,
    masks: str | None = None,
    category: str = "Lung",
    patients: Path | str | None = None,
    image_size: int = 1024,
    n_folds: int = 5,
    seed: int = 0,
    n_workers: int = 1,
    overwrite: bool = False,
    decode: Decode | None = None,
) -> dict[str, Any]:
    """Converts radiographs with masks into a dataset directory; returns the content of its conversion.json.

    The arguments are those of `read_lungs` and of `xray.data.conversion.write_store`. Raises InputError as they do.
    """
    source = read_lungs(
        data_path, lungs=lungs, images=images, masks=masks, category=category, patients=patients, n_workers=n_workers
    )
    return write_store(
        source,
        save_path,
        image_size=image_size,
        n_folds=n_folds,
        seed=seed,
        n_workers=n_workers,
        overwrite=overwrite,
        decode=decode,
    )


def read_lungs(
    data_path: Path | str,
    *,
    lungs: Literal["joined", "apart"] = "joined",
    images: str | None = None,
    masks: str | None = None,
    category: str = "Lung",
    patients: Path | str | None = None,
    n_workers: int = 1,
) -> reasons.Source:
    """Pairs radiographs with masks by name and reads the masks.

    lungs: with Montgomery's two masks, "joined" makes both the category "Lung", "apart" makes them "Right lung" and
        "Left lung". Either way each lung is one annotation; elsewhere each 8-connected component is one.
    images, masks: two folders, relative to `data_path`, in place of a known layout.
    category: what the masks of the layouts with one mask an image show.
    patients: a table with the columns file_name and patient, or a COCO file whose images have both, so that all of a
        patient's images get into one fold. Names are compared without suffix, and at need without folder.
    n_workers: processes that read masks; 0 reads them in this one.

    Masks without an image, images without a mask, and pairs whose sizes differ are left out; so are components that
    cover less than 0.01 % of the image. An empty mask is a radiograph without findings.

    Raises InputError for a missing directory or an unknown layout, for "apart" where sides are not known, and for
    patients of which none is found among the images.
    """
    root = Path(data_path)
    if not root.is_dir():
        raise InputError(f"no data at {root}: give the directory that holds the radiographs and their masks")
    layout = _find_layout(root, lungs, images, masks, category)
    gathered = MaskedImages()
    pairs = _pair(root, layout, "train", set(), gathered.dropped)
    taken = {pair.image.source_id for pair in pairs}
    if images is None and (check_inside(root / "test", root) / layout.images.name).is_dir():
        test = _find_layout(root / "test", lungs, images, masks, category)
        pairs += _pair(root, test, "test", taken, gathered.dropped)
    digest = hashlib.sha256(json.dumps([[pair.image.file_name for pair in pairs], layout.categories]).encode())
    if patients is not None:
        named, content = name_patients([pair.image for pair in pairs], Path(patients), gathered.dropped)
        digest.update(content)
        pairs = [dataclasses.replace(pair, image=image) for pair, image in zip(pairs, named, strict=True)]
    items = [Pictures(pair.image.path, pair.masks, SPECK_SHARE, layout.joined) for pair in pairs]
    read = in_processes(read_pictures, items, n_workers, lambda item: item.image.name, "reading masks")
    for pair, outcome in zip(pairs, read, strict=True):
        found, dropped = _judge(root, pair, outcome)
        gathered.dropped += dropped
        if found is not None:
            gathered.add(pair.image, found, pair.image.file_name)
    return gathered.source("lungs", layout.kind, layout.categories, digest.hexdigest())


def _find_layout(root: Path, lungs: str, images: str | None, masks: str | None, category: str) -> _Layout:
    if (images is None) != (masks is None):
        raise InputError("--images and --masks are two folders of one's own: give both, or neither for a known layout")
    if images is not None and masks is not None:
        layout = _Layout("pair", root / images, ((root / masks, 1, "mask"),), (category,), False)
    elif (root / "ManualMask").is_dir():
        sides = ("Right lung", "Left lung") if lungs == "apart" else ("Lung",)
        right, left = root / "ManualMask" / "rightMask", root / "ManualMask" / "leftMask"
        folders = ((right, 1, "right mask"), (left, len(sides), "left mask"))
        layout = _Layout("montgomery", root / "CXR_png", folders, sides, True)
    else:
        folder = next((root / name for name in ("mask", "masks") if (root / name).is_dir()), root / "mask")
        layout = _Layout("shenzhen", root / "CXR_png", ((folder, 1, "mask"),), (category,), False)
    for folder in (layout.images, *(folder for folder, _, _ in layout.masks)):
        if not folder.is_dir():
            raise InputError(
                f"there is no folder {folder}: --data-path needs CXR_png/ with ManualMask/leftMask/ and rightMask/ "
                "(Montgomery) or with mask/ (Shenzhen), or two folders named by --images and --masks"
            )
        # Folders named by flags are the user's own choice.
        if layout.kind != "pair" and not is_inside(folder, root):
            raise UnsafeNameError(f"{folder} leads out of {root}: put the files themselves there")
    if lungs == "apart" and layout.kind != "montgomery":
        raise InputError(f"{root} has no ManualMask/ with a left and a right mask: leave out --lungs apart")
    return layout


def _pair(root: Path, layout: _Layout, split: str, taken: set[str], dropped: list[Dropped]) -> list[_Pair]:
    """The radiographs that have all their masks, sorted by name."""
    images = _list_pictures(layout.images, root, dropped)
    folders = [
        images if folder == layout.images else _list_pictures(folder, root, dropped) for folder, _, _ in layout.masks
    ]
    if any(folder == layout.images for folder, _, _ in layout.masks):
        images = {stem: path for stem, path in images.items() if not stem.endswith(_MASK)}
    pairs, used = [], set()
    for stem, path in images.items():
        file_name = _relative(path, root)
        found, missing = [], []
        for (_, category, what), files in zip(layout.masks, folders, strict=True):
            names = [stem + _MASK] if files.get(stem) == path else [stem, stem + _MASK]
            mask = next((files[name] for name in names if name in files), None)
            if mask is None:
                missing.append(what)
            else:
                used.add(mask)
                found.append((category, mask))
        if missing:
            dropped.append(Dropped(file_name, reasons.IMAGE_WITHOUT_MASK, detail=f"no {' and no '.join(missing)}"))
        else:
            name = stem if stem not in taken else f"{split}/{stem}"
            pairs.append(_Pair(SourceImage(path, file_name, name, split=split), tuple(found)))
    unused = {path for files in folders for path in files.values()} - used - set(images.values())
    dropped += [Dropped(_relative(path, root), reasons.MASK_WITHOUT_IMAGE) for path in sorted(unused)]
    return pairs


def _list_pictures(folder: Path, root: Path, dropped: list[Dropped]) -> dict[str, Path]:
    """Stem → file of the radiographs or masks that stand in a folder itself, sorted by name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if leads_out(path, root) and leads_out(path, folder):
            dropped.append(Dropped(_relative(path, root), LINK_OUT))
            continue
        if not path.is_file():
            continue
        if source_id(path) in found:
            dropped.append(Dropped(_relative(path, root), reasons.REPEATED_NAME, detail=found[source_id(path)].name))
        else:
            found[source_id(path)] = path
    return found


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else f"{path.parent.name}/{path.name}"


def _judge(
    root: Path, pair: _Pair, outcome: tuple[tuple[int, int], list[PictureRegions]] | Failed
) -> tuple[list[Region] | None, list[Dropped]]:
    """The regions of one radiograph's masks, None if it has to be left out, and the account of it."""
    if isinstance(outcome, Failed):
        return None, [Dropped(pair.image.file_name, reasons.UNREADABLE, detail=outcome.reason)]
    (width, height), masks = outcome
    found, specks = [], []
    for (_, path), mask in zip(pair.masks, masks, strict=True):
        name = _relative(path, root)
        if mask.size is None:
            return None, [Dropped(name, reasons.UNREADABLE_MASK, "left out with its image", mask.error)]
        if mask.size != (width, height):
            detail = f"the mask is {mask.size[0]} x {mask.size[1]}, the image {width} x {height}"
            return None, [Dropped(name, reasons.MASK_SIZE, "left out with its image", detail)]
        found += mask.regions
        if mask.n_small:
            specks.append(Dropped(name, reasons.SPECK, detail=f"{mask.n_small} of fewer than {mask.smallest} pixels"))
    if specks and not found:
        # Something was marked, so the radiograph is not without findings: nothing is known about it.
        return None, [*specks, Dropped(pair.image.file_name, reasons.NO_BOX_LEFT)]
    return found, specks
