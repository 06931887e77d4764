"""A tree of a labelling tool or a trainer: COCO, YOLO, Pascal VOC, CVAT or Label Studio, found by itself → a source."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from xray.datasets.source import Source, data_root, relative_name
from xray.datasets.sources.coco_annotations import Crowds, Unplaced
from xray.datasets.sources.edges import refuse_boxes_beyond
from xray.datasets.sources.normal_names import NormalNames, said_of_doubt
from xray.datasets.sources.patients import name_patients
from xray.datasets.sources.trees.coco import find_coco, read_coco_tree
from xray.datasets.sources.trees.cvat import find_cvat, read_cvat_tree
from xray.datasets.sources.trees.labelstudio import read_labelstudio_tree
from xray.datasets.sources.trees.labelstudio_tasks import find_labelstudio
from xray.datasets.sources.trees.others import what_to_do
from xray.datasets.sources.trees.voc import Difficult, find_voc, read_voc_tree
from xray.datasets.sources.trees.voc_objects import Corners
from xray.datasets.sources.trees.yolo import read_yolo_tree
from xray.datasets.sources.trees.yolo_description import find_yolo, named_yaml
from xray.errors import FlagError, InputError

Format = Literal["coco", "yolo", "voc", "cvat", "labelstudio"]

_FIND: dict[str, Callable[[Path], list[Path]]] = {
    "coco": find_coco, "yolo": find_yolo, "voc": find_voc, "cvat": find_cvat, "labelstudio": find_labelstudio,
}  # fmt: skip
_NEEDS = {
    "coco": "JSON files with images, annotations and categories, such as annotations/instances_train.json or "
    "train/_annotations.coco.json",
    "yolo": "data.yaml with names, or obj.data or classes.txt beside text files of labels",
    "voc": "XML files with <annotation>, one for each picture",
    "cvat": "an XML file with <annotations>, CVAT for images 1.1",
    "labelstudio": "a JSON or JSON_MIN export of Label Studio",
}


def read_tree(
    data_path: Path | str,
    format: Format | None = None,
    patients: Path | str | None = None,
    crowds: Crowds = "auto",
    unplaced: Unplaced = "refuse",
    difficult: Difficult = "keep",
    corners: Corners = "auto",
    yaml: str | None = None,
    normal: Sequence[str] = (),
    kept: Sequence[str] = (),
    same_size: bool = False,
) -> Source:
    """Reads a tree as its format means it.

    format: None finds it; where two fit, InputError asks for it.
    patients: as for `xray.datasets.sources.patients.name_patients`.
    crowds, unplaced: as for `read_annotations` of coco_annotations; difficult, corners: as for `read_voc_tree`.
    yaml: the file that describes a YOLO tree, relative to `data_path` or to the working directory; None finds it.
    normal, kept: which labels mean that nothing was found, and which do not, see `NormalNames`.
    same_size: as for `xray.datasets.sources.edges.refuse_boxes_beyond`.

    Splits that the tree has are kept. Raises InputError where no format fits, and as the formats' readers do.
    """
    root = data_root(data_path, "give the root of the tree: the folder with its pictures and labels")
    if yaml is not None and format not in (None, "yolo"):
        raise FlagError(f"--yaml is of YOLO trees, and --format says {format}: leave one of the two out")
    name, found = _choose(root, format) if yaml is None else ("yolo", [named_yaml(root, yaml)])
    names = NormalNames(normal, kept)
    if name == "coco":
        source = read_coco_tree(root, found, crowds, unplaced, names)
    elif name == "yolo":
        source = read_yolo_tree(root, found, names)
    elif name == "voc":
        source = read_voc_tree(root, found, difficult, corners, names)
    elif name == "cvat":
        source = read_cvat_tree(root, found, names)
    else:
        source = read_labelstudio_tree(root, found, names)
    # YOLO has shares, and no sizes but those of the table beside it.
    source.sizes_of_files = name != "yolo"
    source.warnings += said_of_doubt((category["name"] for category in source.categories), kept, root.name)
    refuse_boxes_beyond(source, str(root), same_size)
    if patients is not None:
        source.images, content = name_patients(source.images, Path(patients), source.dropped)
        source.fingerprint = hashlib.sha256(source.fingerprint.encode() + content).hexdigest()
    return source


def _choose(root: Path, format: str | None) -> tuple[str, list[Path]]:
    """The format, and the files that its finder found."""
    if format is not None:
        found = _FIND[format](root)
        if not found:
            raise InputError(f"{root} is no {format} tree: it needs {_NEEDS[format]}")
        return format, found
    fitting = {name: found for name, find in _FIND.items() if (found := find(root))}
    if not fitting:
        if hint := what_to_do(root):
            raise InputError(f"{root} is no tree that can be read: {hint}")
        raise InputError(f"{root} is no tree that can be read: it needs {'; or '.join(_NEEDS.values())}")
    if len(fitting) > 1:
        examples = (f"{name} ({relative_name(found[0], root)})" for name, found in fitting.items())
        raise InputError(f"{root} may be {' or '.join(examples)}: say with --format which is meant")
    return next(iter(fitting.items()))
