"""The JSRT database (Japanese Society of Radiological Technology, 1998) → a source to convert; one category, "Nodule".

247 radiographs: `JPCLN001.IMG` to `JPCLN154.IMG` with one nodule each, `JPCNN001.IMG` to `JPCNN093.IMG` without, raw
(see `xray.radiographs.jsrt`), or as PNG, JPEG or DICOM files of the same names, made smaller or not. Such pictures are
taken as they are: whether somebody has turned their grey round is not looked at.

`CLNDAT_EN.txt` has a line a nodule, ended by a carriage return alone: file, subtlety (1 extremely subtle to 5 obvious),
size in mm, age, sex, x and y of the centre, malignant or benign, place, diagnosis, with tabs between. `CNNDAT_EN.TXT`
has the age and sex of the others, with blanks between. An age may be `?`.

The database gives a centre and a diameter, not a box: the box is the square around that circle, at 0.175 mm a pixel. A
nodule of unknown size has no box.
"""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from xray.datasets import source as reasons
from xray.datasets.source import Source, data_root
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.set_tables import as_number, need_table, one_table
from xray.errors import InputError
from xray.radiographs.attributes import plain_attributes
from xray.radiographs.jsrt import SIDE, SPACING, is_jsrt_name
from xray.radiographs.radiograph import source_id

NODULES = ("CLNDAT_EN.txt", "CLNDAT*.txt")
OTHERS = ("CNNDAT_EN.TXT", "CNNDAT*.TXT")

NO_NODULE = "radiograph with a nodule that CLNDAT_EN.txt does not have"
NO_JSRT_NAME = "file that is not called as JSRT's radiographs are"
OTHER_EDITION = "the same radiograph in another format"
SHORT_LINE = "line with too few columns"

_STEM = re.compile(r"JPC[LN]N\d{3}", re.IGNORECASE)
_LINES = re.compile(r"[\r\n]+")


def read_jsrt(data_path: Path | str) -> Source:
    """Reads the tables of JSRT; looks at no pixel.

    A radiograph's `subtlety` and `malignancy` are kept. Raises InputError for a missing directory or CLNDAT_EN.txt, and
    where that has no line that can be read.
    """
    root = data_root(data_path, "put JSRT's radiographs (JPCLN001.IMG, …) and CLNDAT_EN.txt there")
    path = need_table(root, NODULES, "JSRT")
    collector = Collector("jsrt", root, ["Nodule"])
    names = _one_of_each(collector)
    lines = _lines(collector, path)
    if not lines:
        raise InputError(f"{path} has no line about a JPCLN….IMG: download it again")
    with_nodule = set()
    for place, text in lines:
        columns = text.split("\t") if "\t" in text else text.split()
        stem = source_id(columns[0].strip()).upper()
        if stem not in names:
            collector.leave_out(place, reasons.MISSING_FILE, columns[0][:40])
            continue
        with_nodule.add(stem)
        _add_nodule(collector, names[stem], place, [column.strip() for column in columns])
    others = one_table(root, *OTHERS)
    about = {} if others is None else {text.split()[0]: text.split()[1:] for _, text in _lines(collector, others)}
    about = {source_id(name).upper(): columns for name, columns in about.items()}
    for stem, name in names.items():
        if stem[3] == "N":
            age, sex = (*about.get(stem, ()), "", "")[:2]
            collector.describe(name, size=(SIDE, SIDE), patient=stem, view="PA", **_attributes(age, sex))
        elif stem not in with_nodule:
            collector.set_aside(name, NO_NODULE)
    return collector.source()


def _one_of_each(collector: Collector) -> dict[str, str]:
    """Stem in upper case → file; raw ones go before others. Files of other names are left out."""
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in collector.files.names:
        stem = source_id(name).upper()
        if _STEM.fullmatch(stem):
            by_stem[stem].append(name)
        else:
            collector.set_aside(name, NO_JSRT_NAME)
    chosen = {}
    for stem, names in by_stem.items():
        first, *others = sorted(names, key=lambda name: (not is_jsrt_name(name.rpartition("/")[2]), name))
        chosen[stem] = first
        for name in others:
            collector.set_aside(name, OTHER_EDITION, f"as {first}")
    return chosen


def _lines(collector: Collector, path: Path) -> list[tuple[str, str]]:
    """(place, text) of the lines about a radiograph."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    collector.read(content)
    lines = enumerate(_LINES.split(content.decode("utf-8-sig", "replace")), start=1)
    return [(f"{path.name} line {number}", line) for number, line in lines if _STEM.match(line.strip())]


def _add_nodule(collector: Collector, name: str, place: str, columns: list[str]) -> None:
    if len(columns) < 7:
        collector.lose(name, place, SHORT_LINE)
        return
    subtlety, size, age, sex, x, y, *rest = columns[1:]
    malignancy = next((word.lower() for word in rest[:1] if word.lower() in ("malignant", "benign")), None)
    about = _attributes(age, sex) | ({"malignancy": malignancy} if malignancy else {})
    level = int(subtlety) if subtlety in ("1", "2", "3", "4", "5") else None
    collector.describe(
        name, size=(SIDE, SIDE), patient=source_id(name).upper(), labels=[1], view="PA", subtlety=level, **about
    )
    if size in ("?", ""):
        collector.describe(name, unlocated=[1])
        return
    half, centre_x, centre_y = (as_number(text) for text in (size, x, y))
    half /= 2 * SPACING[0]
    collector.box(name, 1, (centre_x - half, centre_y - half, centre_x + half, centre_y + half), place)


def _attributes(age: str, sex: str) -> dict[str, Any]:
    return dict(plain_attributes({"sex": sex, "age": age}))
