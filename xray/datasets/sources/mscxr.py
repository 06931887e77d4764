"""MS-CXR (PhysioNet): boxes of eight findings for phrases of MIMIC-CXR's reports → a source to convert.

MS_CXR_Local_Alignment_v1.1.0.csv (or v1.0.0), a row a box: dicom_id, category_name, label_text (the phrase), path of
the JPG in MIMIC-CXR-JPG, x, y, w, h in its pixels, image_width, image_height. The radiographs are not part of the set:
they lie in files/ of MIMIC-CXR-JPG, or of MIMIC-CXR as DICOM, which is put, or linked as a folder, beside the table.

The column `split` is not used: patients of its parts are in other parts of MIMIC-CXR's own split. All radiographs are
for training, in folds that keep patients together, unless --splits says otherwise.

Every radiograph shows at least one of the findings. Of those that it has no box for nobody said whether it shows them:
they are unknown.
"""

import re
from pathlib import Path

from xray.datasets import source as reasons
from xray.datasets.source import Source, data_root
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.set_tables import as_number, check_ids, need_table
from xray.datasets.sources.tables import read_table
from xray.radiographs.canvas import MAX_PIXELS
from xray.radiographs.names import fault_of, leads_out

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


def read_mscxr(data_path: Path | str) -> Source:
    """Reads the table of MS-CXR; looks at no pixel.

    A radiograph's `phrases` are kept, in the order of the table; its patient is the folder p10000032 of its path.
    Raises InputError for a missing directory, table or column.
    """
    root = data_root(data_path, "put MS-CXR's table and MIMIC-CXR-JPG's folder files/ there")
    path = need_table(root, ("MS_CXR_Local_Alignment_v1.1.0.csv", "MS_CXR_Local_Alignment*.csv"), "MS-CXR")
    table, content = read_table(path, ("dicom_id", "category_name", "path", *COORDINATES, *SIDES), ("label_text",))
    check_ids(path, table, "dicom_id", (text != "" for text in table["category_name"]))
    # Of MIMIC-CXR's 377,000 radiographs a thousand are wanted: they are asked for, not searched.
    places = dict(zip(table["dicom_id"].tolist(), table["path"].tolist(), strict=True))
    found = {name: file for text in places.values() if (name := _file_of(root, text)) for file in [root / name]}
    collector = Collector("mscxr", root, CATEGORIES, paths=found or None)
    collector.read(content)
    phrases: dict[str, dict[str, None]] = {}
    present: dict[str, set[int]] = {}
    texts = table["label_text"].tolist() if "label_text" in table.columns else [""] * len(table)
    columns = (*(table[name].tolist() for name in ("dicom_id", "category_name", "path")), texts, table["line"].tolist())
    numbers = zip(*(table[name].tolist() for name in (*COORDINATES, *SIDES)), strict=True)
    for (dicom_id, category, where, phrase, line), cells in zip(zip(*columns, strict=True), numbers, strict=True):
        place = f"{path.name} line {line}"
        name = collector.file_of(dicom_id, place)
        if name is None:
            continue
        x, y, w, h, width, height = map(as_number, cells)
        if not (width >= 1 and height >= 1 and width * height <= MAX_PIXELS):
            collector.lose(name, place, NO_SIZE)
            continue
        if category not in collector.categories:
            collector.lose(name, place, reasons.UNKNOWN_CLASS, category[:40])
            continue
        label = collector.category(category)
        phrases.setdefault(name, {})[phrase] = None
        present.setdefault(name, set()).add(label)
        subject = _SUBJECT.search(where)
        collector.describe(name, size=(int(width), int(height)), patient=subject[1] if subject else None)
        collector.box(name, label, (x, y, x + w, y + h), place)
    for name, labels in present.items():
        others = [label for label in collector.categories.values() if label not in labels]
        collector.describe(name, unknown=others, phrases=[phrase for phrase in phrases[name] if phrase])
    return collector.source()


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
