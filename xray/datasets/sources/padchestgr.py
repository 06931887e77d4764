"""PadChest-GR (BIMCV and Microsoft, 2024): findings of 4,555 radiographs, each sentence with its boxes → a source.

`grounded_reports_20240819.json`, a list of studies: StudyID, ImageID and `findings`, each a sentence with `abnormal`,
`labels`, `boxes` (the first reader's) and `extra_boxes` (the second's); findings that are not abnormal often lack the
last three. `master_table.csv`, packed or not, a row a study and label, with PatientID and the official split, which
keeps patients together. 16-bit PNG files named by ImageID, anywhere below; the 37 parts of their zip file joined and
unpacked.

Boxes are taken for (x1, y1, x2, y2) in shares of the radiograph's sides: the set's paper (Castro et al.,
arXiv:2411.05085) does not say more. A box that contradicts that costs its radiograph, and where more than one in ten
does, nothing is converted.

Each label of an abnormal sentence is a category, with the sentence's boxes; one without boxes is somewhere unknown. A
label that no abnormal sentence of a radiograph has is absent, unless a sentence says "unchanged": then it is unknown.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xray.datasets import source as reasons
from xray.datasets.source import TEST, TRAIN, VAL, Source, data_root
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.edges import FAR
from xray.datasets.sources.padchest import NO_FINDINGS, UNCHANGED, with_one_case
from xray.datasets.sources.set_tables import need_table, one_table, read_json
from xray.datasets.sources.siim_tables import CONTRADICTORY
from xray.datasets.sources.tables import read_table
from xray.errors import InputError
from xray.radiographs.attributes import plain_attributes
from xray.radiographs.radiograph import RadiographError, radiograph_size
from xray.structures.values import finite_number, flag_of, shown, text_of

READERS = {"boxes": "1", "extra_boxes": "2"}
"""Key of the JSON file → the reader."""
SPLITS = {"train": TRAIN, "validation": VAL, "valid": VAL, "val": VAL, "test": TEST}
ABOUT = {"PatientSex_DICOM": "sex", "PatientAge": "age", "ViewPosition_DICOM": "view"}
"""Column of master_table.csv → attribute of a radiograph."""

MOST_CONTRADICTORY = 0.1

NO_BOX = "box that is no x1, y1, x2, y2 in shares of the sides"
NO_STUDY = "study that is none"
NO_FINDING_READ = "finding that cannot be read"
NOT_IN_MASTER_TABLE = "study that master_table.csv does not have"
SECOND_READER = "second reader's box in the test split"


def read_padchestgr(data_path: Path | str) -> Source:
    """Reads the reports, the master table, and the sizes of the pictures in their headers.

    The boxes of both readers are kept in train and val, where --readers fuse makes one of those of a finding. In test
    the first reader's alone are the truth; the second's are left out and counted.

    Raises InputError for a missing directory or file, one that is not as described, and for boxes in another form.
    """
    root = data_root(data_path, "put PadChest-GR's JSON file, master_table.csv and its pictures there")
    path = need_table(root, ("grounded_reports*.json",), "PadChest-GR")
    studies, content = read_json(path)
    if not isinstance(studies, list) or not all(isinstance(study, dict) for study in studies):
        raise InputError(f"{path} is not a list of studies: download it again")
    findings = _with_one_case([_findings_of(study) for study in studies])
    names = sorted({label for of_study in findings for finding in of_study for label in finding.labels})
    collector = Collector("padchestgr", root, names)
    collector.read(content)
    _check_boxes(path, [box for of_study in findings for finding in of_study for _, box in finding.boxes])
    master = _master_table(collector, root)
    described: set[str] = set()
    for number, (study, of_study) in enumerate(zip(studies, findings, strict=True), start=1):
        place = f"{path.name} study {number}"
        image, study_id = _text(study.get("ImageID")), _text(study.get("StudyID"))
        if not image:
            collector.leave_out(place, NO_STUDY, "no ImageID")
        elif (name := collector.file_of(image, place)) is None:
            continue
        elif (about := master.get(study_id)) is None:
            collector.lose(name, place, NOT_IN_MASTER_TABLE, study_id[:80])
        elif name in described:
            collector.lose(name, place, CONTRADICTORY, "a second study of the same image")
        else:
            try:
                size = radiograph_size(collector.paths[name])
            except RadiographError as error:
                collector.lose(name, place, reasons.UNREADABLE, str(error))
                continue
            described.add(name)
            _add_study(collector, name, place, of_study, size, about)
    return collector.source()


@dataclasses.dataclass(frozen=True)
class _Finding:
    """An abnormal finding. boxes: (reader, box) each. fault: why it cannot be read, in words."""

    number: int
    labels: tuple[str, ...] = ()
    boxes: tuple[tuple[str, Any], ...] = ()
    fault: str = ""
    is_unchanged: bool = False


def _add_study(
    collector: Collector,
    name: str,
    place: str,
    findings: Sequence[_Finding],
    size: tuple[int, int],
    about: dict[str, Any],
) -> None:
    ids = {label: collector.category(label) for finding in findings for label in finding.labels}
    unlocated: dict[int, None] = {}
    for finding in findings:
        where = f"{place} finding {finding.number}"
        if finding.fault:
            collector.lose(name, where, NO_FINDING_READ, finding.fault)
        n_used = 0
        for reader, box in finding.boxes:
            corners = _corners(box)
            if corners is None:
                collector.lose(name, where, NO_BOX, shown(box))
            elif about["split"] == TEST and reader == READERS["extra_boxes"]:
                collector.leave_out(where, SECOND_READER)
            else:
                n_used += 1
                scaled = [share * side for share, side in zip(corners, size * 2, strict=True)]
                for label in finding.labels:
                    collector.box(name, ids[label], scaled, where, reader)
        unlocated |= {} if n_used else {ids[label]: None for label in finding.labels}
    is_unchanged = any(finding.is_unchanged for finding in findings)
    unknown = set(collector.categories.values()).difference(ids.values()) if is_unchanged else ()
    collector.describe(name, size=size, labels=ids.values(), unlocated=unlocated, unknown=sorted(unknown), **about)


def _findings_of(study: dict[str, Any]) -> list[_Finding]:
    """The abnormal findings of a study, and those that cannot be read."""
    findings = study.get("findings")
    if not isinstance(findings, list):
        return [_Finding(0, fault="no list of findings")]
    read = [_finding(number, finding) for number, finding in enumerate(findings, start=1)]
    return [finding for finding in read if finding is not None]


def _with_one_case(findings: Sequence[Sequence[_Finding]]) -> list[list[_Finding]]:
    """The same findings, with labels that differ in case alone spelt in one way."""
    all_labels = with_one_case([finding.labels for of_study in findings for finding in of_study])
    spelt = (labels or () for labels in all_labels)
    return [[dataclasses.replace(finding, labels=next(spelt)) for finding in of_study] for of_study in findings]


def _finding(number: int, finding: Any) -> _Finding | None:
    """A finding; None for one that is not abnormal, or that is about no finding at all."""
    if not isinstance(finding, dict):
        return _Finding(number, fault=f"{shown(finding)} is no finding")
    try:
        is_abnormal = flag_of(finding.get("abnormal"))
    except ValueError as error:
        return _Finding(number, fault=f"abnormal: {error}")
    labels, boxes = finding.get("labels"), [(reader, finding.get(key)) for key, reader in READERS.items()]
    if is_abnormal is None:
        return _Finding(number, fault="it does not say whether it is abnormal")
    if not is_abnormal:
        has_box = any(_boxes_in(of_reader) for _, of_reader in boxes)
        return _Finding(number, fault="it has a box and is not abnormal") if has_box else None
    texts = [" ".join(_text(label).split()) for label in (labels if isinstance(labels, list) else [labels])]
    names = tuple(dict.fromkeys(text for text in texts if text.casefold() not in NO_FINDINGS))
    is_unchanged = UNCHANGED in map(str.casefold, texts)
    if not names:
        return _Finding(number, fault="" if any(texts) else "no label", is_unchanged=is_unchanged)
    several = tuple((reader, box) for reader, of_reader in boxes for box in _boxes_in(of_reader))
    return _Finding(number, names, several, is_unchanged=is_unchanged)


def _boxes_in(value: Any) -> list[Any]:
    """A list of boxes, also of one that stands by itself; what is neither stays as a box that is none."""
    if value is None or value == []:
        return []
    if isinstance(value, list) and all(isinstance(box, list) for box in value):
        return value
    return [value]


def _corners(box: Any) -> tuple[float, float, float, float] | None:
    """x1, y1, x2, y2 in shares of the sides; None for what contradicts that."""
    try:
        numbers = [finite_number(value) for value in box]
    except (ValueError, TypeError):
        return None
    if len(numbers) != 4 or None in numbers:
        return None
    x1, y1, x2, y2 = (float(number) for number in numbers if number is not None)
    is_inside = all(-FAR <= share <= 1 + FAR for share in (x1, y1, x2, y2))
    return (x1, y1, x2, y2) if is_inside and x1 < x2 and y1 < y2 else None


def _check_boxes(path: Path, boxes: Sequence[Any]) -> None:
    """Raises InputError where too many boxes are no x1, y1, x2, y2 in shares to be slips."""
    wrong = [box for box in boxes if _corners(box) is None]
    if len(wrong) > MOST_CONTRADICTORY * len(boxes):
        raise InputError(
            f"{path}: {len(wrong)} of {len(boxes)} boxes, such as {shown(wrong[0])}, are no x1, y1, x2, y2 in shares "
            "of the radiograph's sides (0 to 1), as those of PadChest-GR are: bring them into that form"
        )


def _master_table(collector: Collector, root: Path) -> dict[str, dict[str, Any]]:
    """StudyID → what `Collector.describe` is told of its radiograph."""
    path = one_table(root, "master_table.csv")
    if path is None:
        raise InputError(f"{root} has no master_table.csv, which has PadChest-GR's patients and split: put it there")
    table, content = read_table(path, ("StudyID", "PatientID", "split"), tuple(ABOUT))
    collector.read(content)
    known = [name for name in ABOUT if name in table.columns]
    studies: dict[str, dict[str, Any]] = {}
    # A study has a row for each of its labels.
    rows = table[["StudyID", "PatientID", "split"]].drop_duplicates()
    if (repeated := rows["StudyID"].duplicated()).any():
        study = rows["StudyID"][repeated].iloc[0][:80]
        raise InputError(f"{path} has two patients or two splits for the study {study}: download it again")
    rows = table[["StudyID", "PatientID", "split", *known]].drop_duplicates("StudyID")
    for study, patient, split, *about in rows.itertuples(index=False, name=None):
        if split.casefold() not in SPLITS:
            raise InputError(f"{path} has a split {split[:40]!r}, which is none of train, validation and test")
        words = {ABOUT[column]: cell for column, cell in zip(known, about, strict=True)}
        studies[study] = {"patient": patient or None, "split": SPLITS[split.casefold()], **plain_attributes(words)}
    return studies


def _text(value: Any) -> str:
    try:
        return text_of(value) or ""
    except ValueError:
        return ""
