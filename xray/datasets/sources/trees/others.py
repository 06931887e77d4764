"""Which tool's files a tree holds that is not read, so that the refusal can say what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xray.datasets.source import relative_name
from xray.datasets.sources.table_files import SUFFIXES
from xray.radiographs.names import is_inside

MOST_FILES, LONGEST = 20, 64 * 2**20
"""JSON files that are looked at, and bytes of one of them."""
_FOLDERS = ("*", "*/*", "*/*/*")


def _has(value: Any, *keys: str) -> bool:
    return isinstance(value, dict) and all(key in value for key in keys)


def _first(value: Any) -> Any:
    values = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return values[0] if values else None


_TOOLS: dict[str, Callable[[Any], bool]] = {
    "LabelMe": lambda content: _has(content, "shapes", "imagePath"),
    "the VGG Image Annotator": lambda content: (
        _has(content, "_via_img_metadata") or _has(_first(content), "filename", "regions")
    ),
    "Supervisely": lambda content: _has(content, "objects", "size") or _has(_first(content), "objects", "size"),
    "Datumaro": lambda content: _has(content, "items", "categories"),
    "FiftyOne": lambda content: _has(content, "samples") or _has(content, "classes", "labels"),
    "CreateML": lambda content: _has(_first(content), "image", "annotations"),
    "the Medical Segmentation Decathlon": lambda content: _has(content, "training", "labels"),
}


def what_to_do(root: Path) -> str:
    """What a tree that no reader reads seems to be and what to do with it; "" where it is not known."""
    for path in _files(root, (".json",)):
        try:
            content = json.loads(path.read_bytes()) if path.stat().st_size <= LONGEST else None
        except (OSError, ValueError, RecursionError):
            continue
        for tool, is_one in _TOOLS.items():
            if is_one(content):
                return (
                    f"{relative_name(path, root)} is of {tool}, which is not read: export COCO from that tool, or "
                    "convert it to COCO"
                )
    for path in _files(root, SUFFIXES[:3]):
        return f"{relative_name(path, root)} may be a table of boxes or labels: give it to `convert table --table`"
    return ""


def _files(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    found = [
        path
        for pattern in _FOLDERS
        for path in sorted(root.glob(pattern))
        if path.name.lower().endswith(suffixes) and path.is_file() and is_inside(path, root)
    ]
    return found[:MOST_FILES]
