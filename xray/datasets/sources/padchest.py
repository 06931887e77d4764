"""PadChest (BIMCV, 2019): labels of whole radiographs, none with a box → a source to convert.

PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv, packed or not, with a row a radiograph, whose column `Labels` is a
list as Python writes it: ['cardiomegaly', ' pleural effusion']; and the 16-bit PNG files, anywhere below.

Traps of the real table, all handled: most labels occur with and without blanks in front of them and are one label; ''
in a list says nothing; `nan` in place of a list is no list; "normal" may stand beside findings, and says nothing then.
Some labels are no findings: a study that is "unchanged" may show what an earlier report named, so that what its list
does not name is unknown; one to "exclude" is left out; "suboptimal study" is about the picture alone.

Radiographs whose DICOM file was MONOCHROME1 may be negatives as PNG: public readers of the set differ on whether they
are, so that they are counted, and not inverted.

A label that is not in a list is absent: so mean it the set's authors (Bustos et al., Medical Image Analysis 66, 2020,
arXiv:1901.07441) and those who train on it. 27 % of the lists are by physicians (MethodLabel "Physician"), the others
by a program.
"""

import ast
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xray.datasets import source as reasons
from xray.datasets.source import Source, data_root
from xray.datasets.sources.chexpert_labels import LATERAL_VIEW, Views
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.set_tables import need_table
from xray.datasets.sources.siim_tables import CONTRADICTORY
from xray.datasets.sources.tables import factorize, read_table
from xray.radiographs.attributes import FRONTAL, plain_attributes
from xray.radiographs.file_warnings import FileWarning

TABLE = ("PADCHEST_chest_x_ray_images_labels*.csv", "*PADCHEST*.csv", "*padchest*.csv")

NORMAL = "normal"
UNCHANGED = "unchanged"
EXCLUDE = "exclude"
NO_FINDINGS = (NORMAL, UNCHANGED, EXCLUDE, "suboptimal study", "")
"""Labels that are no categories."""
PROJECTIONS = {"AP_horizontal": "AP", "L": "LATERAL"}

EXCLUDED = 'radiograph with the label "exclude"'
UNLABELLED = "radiograph without labels"
NOTHING_KNOWN = "radiograph of which its labels say nothing"
MAY_BE_NEGATIVE = "radiographs that were MONOCHROME1, whose PNG files may be negatives: xray audit names these"


def read_padchest(data_path: Path | str, *, views: Views = "frontal") -> Source:
    """Reads the table of PadChest; looks at no pixel.

    views: "frontal" keeps the projections PA, AP and AP_horizontal, and leaves out and names all others (lateral, ribs,
        unknown); "all" keeps every one.

    The categories are the labels that occur, in alphabetical order. A label has no box: where the finding is stays
    unknown. Raises InputError for a missing directory, table or column.
    """
    root = data_root(data_path, "put PadChest's table (PADCHEST_chest_x_ray_images_labels_…csv.gz) and pictures there")
    path = need_table(root, TABLE, "PadChest")
    needed = ("ImageID", "PatientID", "Projection", "Labels")
    known = ("StudyDate_DICOM", "PatientBirth", "PatientSex_DICOM", "PhotometricInterpretation_DICOM")
    table, content = read_table(path, needed, known)
    texts, label_row = factorize(table["Labels"])
    lists = [labels_of(text) for text in texts]
    lists = with_one_case(lists)
    names = sorted({label for labels in lists if labels for label in labels if label not in NO_FINDINGS})
    collector = Collector("padchest", root, names, layout="labels")
    collector.read(content)
    ids = collector.categories
    every_id = frozenset(ids.values())
    empty = [""] * len(table)
    about = (table[name].tolist() if name in table.columns else empty for name in known)
    columns = (*(table[name].tolist() for name in needed[:3]), label_row.tolist(), *about, table["line"].tolist())
    stated: dict[str, tuple[str, ...]] = {}
    for image, patient, projection, row, date, birth, sex, photometric, line in zip(*columns, strict=True):
        place = f"{path.name} line {line}"
        name, labels = collector.file_of(image, place), lists[row]
        if name is None:
            continue
        view = PROJECTIONS.get(projection, projection)
        if views == "frontal" and view not in FRONTAL:
            collector.set_aside(name, LATERAL_VIEW, projection)
        elif labels is None:
            collector.set_aside(name, UNLABELLED, texts[row][:80])
        elif EXCLUDE in labels:
            collector.set_aside(name, EXCLUDED)
        elif not set(labels) - {UNCHANGED, "", "suboptimal study"}:
            collector.set_aside(name, NOTHING_KNOWN, texts[row][:80])
        elif name in stated:
            if stated[name] == labels:
                collector.leave_out(place, reasons.DUPLICATE)
            else:
                collector.lose(name, place, CONTRADICTORY)
        else:
            stated[name] = labels
            present = [ids[label] for label in labels if label in ids]
            unknown = every_id.difference(present) if UNCHANGED in labels else ()
            collector.describe(
                name,
                patient=patient or None,
                labels=present,
                unknown=sorted(unknown),
                unlocated=present,
                **_attributes(view, sex, age_of(date, birth)),
            )
            if photometric == "MONOCHROME1":
                collector.warnings.append(FileWarning(MAY_BE_NEGATIVE, name))
    return collector.source()


@functools.lru_cache(maxsize=8192)
def labels_of(text: str) -> tuple[str, ...] | None:
    """The labels of a cell, each once, without blanks around them; None where it is no list."""
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        return None
    return tuple(dict.fromkeys(" ".join(value.split()) for value in values))


def with_one_case(lists: Sequence[tuple[str, ...] | None]) -> list[tuple[str, ...] | None]:
    """The same lists, where labels that upper and lower case alone tell apart are spelt in one way, each once."""
    spelt = {name: name for name in NO_FINDINGS}
    for label in sorted({label for labels in lists for label in labels or ()}, reverse=True):
        spelt.setdefault(label.casefold(), label)
    return [
        None if labels is None else tuple(dict.fromkeys(spelt[label.casefold()] for label in labels))
        for labels in lists
    ]


def age_of(date: str, birth: str) -> str | None:
    """Years between a study's date, YYYYMMDD, and a year of birth, which pandas writes as 1930.0."""
    year, born = date[:4], birth.partition(".")[0][:5]
    return str(int(year) - int(born)) if year.isdecimal() and born.isdecimal() and int(year) >= int(born) else None


@functools.lru_cache(maxsize=4096)
def _attributes(view: str, sex: str, age: str | None) -> dict[str, Any]:
    return dict(plain_attributes({"view": view, "sex": sex, "age": age}))
