"""MS-CXR (PhysioNet): boxes of eight findings for phrases of MIMIC-CXR's reports → a source to convert.

MS_CXR_Local_Alignment_v1.1.0.csv (or v1.0.0), a row a box: dicom_id, category_name, label_text (the phrase), path of
the JPG in MIMIC-CXR-JPG, x, y, w, h in its pixels, image_width, image_height. MS_CXR_Local_Alignment_v1.1.0.json, from
which the table was made, is read where there is no table: a COCO file whose images have `path` beside file_name
(<dicom_id>.jpg), and whose annotations have `label_text`. The radiographs are not part of the set: they lie in files/
of MIMIC-CXR-JPG, or of MIMIC-CXR as DICOM, which is put, or linked as a folder, beside the table.

The column `split` is not used: patients of its parts are in other parts of MIMIC-CXR's own split. All radiographs are
for training, in folds that keep patients together, unless --splits says otherwise.

Every radiograph shows at least one of the findings. Of those that it has no box for nobody said whether it shows them:
they are unknown.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from xray.datasets import source as reasons
from xray.datasets.source import Source, data_root
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.set_tables import as_number, check_ids, need_table, one_table, read_json
from xray.datasets.sources.tables import read_table
from xray.errors import InputError
from xray.radiographs.canvas import MAX_PIXELS
from xray.radiographs.names import fault_of, leads_out
from xray.structures.values import identity, shown

TABLES = ("MS_CXR_Local_Alignment_v1.1.0.csv", "MS_CXR_Local_Alignment*.csv")
COCO_FILES = ("MS_CXR_Local_Alignment_v1.1.0.json", "MS_CXR_Local_Alignment*.json")
CATEGORIES = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Lung Opacity",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
)
COORDINATES = ("x", "y", "w", "h")
SIDES = ("image_width", "image_height")

NO_SIZE = "row without the size of its image"

_SUBJECT = re.compile(r"(?:^|/)(p\d{8})/s\d+/")


@dataclasses.dataclass(frozen=True)
class _Row:
    """A box: where it stands, whose it is, and x, y, w, h and the width and height of its image as written there."""

    place: str
    dicom_id: str
    category: str
    path: str
    phrase: str
    numbers: tuple[Any, ...]


def read_mscxr(data_path: Path | str) -> Source:
    """Reads the table of MS-CXR, or its COCO file; looks at no pixel.

    A radiograph's `phrases` are kept, in the order of the table; its patient is the folder p10000032 of its path.
    Raises InputError for a missing directory, table or column.
    """
    root = data_root(data_path, "put MS-CXR's table and MIMIC-CXR-JPG's folder files/ there")
    coco = one_table(root, *COCO_FILES) if one_table(root, *TABLES) is None else None
    rows, content = _of_coco(coco) if coco is not None else _of_table(need_table(root, TABLES, "MS-CXR"))
    # Of MIMIC-CXR's 377,000 radiographs a thousand are wanted: they are asked for, not searched.
    places = {row.dicom_id: row.path for row in rows}
    found = {name: file for text in places.values() if (name := _file_of(root, text)) for file in [root / name]}
    collector = Collector("mscxr", root, CATEGORIES, paths=found or None)
    collector.read(content)
    phrases: dict[str, dict[str, None]] = {}
    present: dict[str, set[int]] = {}
    for row in rows:
        name = collector.file_of(row.dicom_id, row.place)
        if name is None:
            continue
        x, y, w, h, width, height = map(as_number, row.numbers)
        if not (width >= 1 and height >= 1 and width * height <= MAX_PIXELS):
            collector.lose(name, row.place, NO_SIZE)
            continue
        if row.category not in collector.categories:
            collector.lose(name, row.place, reasons.UNKNOWN_CLASS, row.category[:40])
            continue
        label = collector.category(row.category)
        phrases.setdefault(name, {})[row.phrase] = None
        present.setdefault(name, set()).add(label)
        subject = _SUBJECT.search(row.path)
        collector.describe(name, size=(int(width), int(height)), patient=subject[1] if subject else None)
        collector.box(name, label, (x, y, x + w, y + h), row.place)
    for name, labels in present.items():
        others = [label for label in collector.categories.values() if label not in labels]
        collector.describe(name, unknown=others, phrases=[phrase for phrase in phrases[name] if phrase])
    return collector.source()


def _of_table(path: Path) -> tuple[list[_Row], bytes]:
    table, content = read_table(path, ("dicom_id", "category_name", "path", *COORDINATES, *SIDES), ("label_text",))
    check_ids(path, table, "dicom_id", (text != "" for text in table["category_name"]))
    phrases = table["label_text"].tolist() if "label_text" in table.columns else [""] * len(table)
    texts = (*(table[name].tolist() for name in ("dicom_id", "category_name", "path")), phrases)
    numbers = zip(*(table[name].tolist() for name in (*COORDINATES, *SIDES)), strict=True)
    places = [f"{path.name} line {line}" for line in table["line"].tolist()]
    return [_Row(*cells) for cells in zip(places, *texts, numbers, strict=True)], content


def _of_coco(path: Path) -> tuple[list[_Row], bytes]:
    """Raises InputError for a file that is no COCO file, and for a box whose image or radiograph is not known."""
    top, content = read_json(path, dict, "MS-CXR")
    parts = {name: top.get(name) for name in ("images", "annotations", "categories")}
    for name, entries in parts.items():
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{path} has no list of {name}: it is no COCO file of MS-CXR, download it again")
    images, categories = (_by_id(path, name, parts[name]) for name in ("images", "categories"))
    rows = []
    for number, entry in enumerate(parts["annotations"]):
        place, image = f"{path.name} annotation {number}", images.get(_key(entry.get("image_id")))
        texts = [image.get(name) for name in ("path", "file_name")] if image else []
        where = [text for text in texts if isinstance(text, str) and text.strip()]
        if image is None or not where:
            fault = "no image of the file has" if image is None else "has neither path nor file_name"
            raise InputError(
                f"{place}: its image_id is {shown(entry.get('image_id'))}, which {fault}, so any radiograph may lack "
                "the finding: correct it, or delete the annotation"
            )
        box = entry.get("bbox")
        sides = tuple(box) if isinstance(box, list) and len(box) == len(COORDINATES) else (None,) * len(COORDINATES)
        category = categories.get(_key(entry.get("category_id")), {}).get("name")
        if not isinstance(category, str):
            category = f"category_id {shown(entry.get('category_id'))}"
        dicom_id = Path(where[-1].replace("\\", "/")).stem
        phrase = entry.get("label_text")
        numbers = (*sides, image.get("width"), image.get("height"))
        rows.append(_Row(place, dicom_id, category, where[0], phrase if isinstance(phrase, str) else "", numbers))
    return rows, content


def _by_id(path: Path, what: str, entries: list[dict[str, Any]]) -> dict[int | str | None, dict[str, Any]]:
    """Raises InputError where one id has two entries: which of them an annotation means is not known."""
    found: dict[int | str | None, dict[str, Any]] = {}
    for entry in entries:
        if found.setdefault(_key(entry.get("id")), entry) != entry:
            raise InputError(f"{path} gives the id {shown(entry.get('id'))} to two {what}: download it again")
    found.pop(None, None)
    return found


def _key(value: Any) -> int | str | None:
    try:
        return identity(value)
    except ValueError:
        return None


def _file_of(root: Path, text: str) -> str | None:
    """A path of the table as the name of a file below the directory; None where there is none."""
    text = text.replace("\\", "/").strip("/")
    if fault_of(text):
        return None
    stem = text.rpartition(".")[0]
    for start in ("", "files/"):
        for name in (text, f"{stem}.dcm"):
            below = name.removeprefix(start)
            if (root / below).is_file() and not leads_out(root / below, root):
                return below
    return None
