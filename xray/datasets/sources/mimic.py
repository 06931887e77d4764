"""MIMIC-CXR (PhysioNet, JPG or DICOM): labels of whole radiographs, none with a box → a source to convert.

Tables, packed or not: mimic-cxr-2.0.0-chexpert.csv (or -negbio.csv) with a row a study, mimic-cxr-2.0.0-split.csv with
a row a radiograph, mimic-cxr-2.0.0-metadata.csv with its ViewPosition; where that is empty, the column
ViewCodeSequence_CodeMeaning says the view in words (antero-posterior), for some. Radiographs are named by their
dicom_id, in files/p10/p10000032/s50414267/ as PhysioNet has them, or anywhere else.

A label is one of a report, which is about all radiographs of its study: 1 is present, 0 absent, -1 uncertain, an empty
cell not mentioned; see `chexpert_labels`. Where mimic-cxr-2.1.0-test-set-labeled.csv is there, what radiologists took
from the reports goes before the program's labels of the same studies.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from xray.datasets.source import TEST, TRAIN, VAL, Source, data_root
from xray.datasets.sources.chexpert_labels import (
    FINDINGS,
    LATERAL_VIEW,
    LabelledFiles,
    Stated,
    Uncertain,
    Unmentioned,
    Views,
    read_labels,
)
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.set_tables import need_table, one_table
from xray.datasets.sources.tables import each_text, read_table
from xray.errors import InputError
from xray.radiographs.attributes import FRONTAL, plain_attributes
from xray.structures.values import text_of

Labeler = Literal["chexpert", "negbio"]

SPLIT = "mimic-cxr-*-split.csv"
METADATA = "mimic-cxr-*-metadata.csv"
VIEW_CODE = "ViewCodeSequence_CodeMeaning"
BY_RADIOLOGISTS = "mimic-cxr-*-test-set-labeled.csv"
SPLITS = {"train": TRAIN, "validate": VAL, "test": TEST}

UNLABELLED = "radiograph of a study without labels"
UNKNOWN_SPLIT = "split other than train, validate and test"


def read_mimic(
    data_path: Path | str,
    *,
    views: Views = "frontal",
    uncertain: Uncertain = "unknown",
    unmentioned: Unmentioned = "unknown",
    labeler: Labeler = "chexpert",
) -> Source:
    """Reads the tables of MIMIC-CXR; looks at no pixel.

    views: "frontal" keeps radiographs whose view is PA or AP, and leaves out and names all others, also those without
        one; "all" keeps every one.
    uncertain, unmentioned: what -1 and an empty cell mean.
    labeler: whose labels: those of CheXpert's program or of NegBio's.

    A positive label has no box: where the finding is stays unknown. Raises InputError for a missing directory, table or
    column; the metadata are needed for frontal views alone.
    """
    root = data_root(data_path, "put MIMIC-CXR-JPG's tables (mimic-cxr-2.0.0-….csv.gz) and its folder files/ there")
    labels_path = need_table(root, (f"mimic-cxr-*-{labeler}.csv",), "MIMIC-CXR")
    split_path = need_table(root, (SPLIT,), "MIMIC-CXR")
    metadata_path = one_table(root, METADATA)
    if metadata_path is None and views == "frontal":
        raise InputError(
            f"{root} has no mimic-cxr-2.0.0-metadata.csv.gz, which says what is a frontal view: put it there, or add "
            "--views all"
        )
    collector = Collector("mimic", root, FINDINGS, layout="labels")
    read = functools.partial(_studies, collector, uncertain=uncertain, unmentioned=unmentioned)
    studies = read(labels_path)
    by_radiologists = one_table(root, BY_RADIOLOGISTS)
    if by_radiologists is not None:
        studies |= read(by_radiologists)
    positions = {} if metadata_path is None else _positions(collector, metadata_path)
    rows = LabelledFiles(collector)
    table, content = read_table(split_path, ("dicom_id", "study_id", "subject_id", "split"))
    collector.read(content)
    studies_of, subjects = (each_text(table[name], _id).tolist() for name in ("study_id", "subject_id"))
    columns = (table["dicom_id"].tolist(), studies_of, subjects, table["split"].tolist(), table["line"].tolist())
    for dicom_id, study, subject, split, line in zip(*columns, strict=True):
        place = f"{split_path.name} line {line}"
        name = collector.file_of(dicom_id, place)
        position = positions.get(dicom_id, "")
        if name is None:
            continue
        if views == "frontal" and position not in FRONTAL:
            collector.set_aside(name, LATERAL_VIEW, position)
        elif study not in studies:
            collector.set_aside(name, UNLABELLED, f"study {study}")
        elif split not in SPLITS:
            collector.lose(name, place, UNKNOWN_SPLIT, split[:40])
        else:
            about = _view(position)
            rows.add(name, place, studies[study], split=SPLITS[split], patient=subject or None, **about)
    return collector.source()


def _studies(
    collector: Collector, path: Path, *, uncertain: Uncertain, unmentioned: Unmentioned
) -> dict[str, Stated | str]:
    """Study → what its labels say."""
    table, content = read_table(path, ("study_id",))
    collector.read(content)
    studies: dict[str, Stated | str] = {}
    stated = read_labels(table, path, uncertain, unmentioned)
    for study, of_row in zip(each_text(table["study_id"], _id).tolist(), stated, strict=True):
        if studies.setdefault(study, of_row) != of_row:
            studies[study] = f"two rows of study {study} in {path.name} differ"
    return studies


def _positions(collector: Collector, path: Path) -> Mapping[str, str]:
    """dicom_id → ViewPosition; where it is empty, what the code of the view says."""
    table, content = read_table(path, ("dicom_id", "ViewPosition"), (VIEW_CODE,))
    collector.read(content)
    ids, positions = table["dicom_id"].tolist(), table["ViewPosition"].tolist()
    codes = table[VIEW_CODE].tolist() if VIEW_CODE in table.columns else [""] * len(table)
    return {
        one: position or _view(code).get("view", code)
        for one, position, code in zip(ids, positions, codes, strict=True)
    }


def _id(text: str) -> str:
    """An id in one spelling: pandas may have written 50414267 as 50414267.0."""
    return text_of(text) or ""


@functools.lru_cache(maxsize=256)
def _view(position: str) -> dict[str, str]:
    return plain_attributes({"view": position})
