"""Radiographs without annotations → a source for pseudo-labels that keeps clear of a labelled dataset's test split.

What the labelled dataset has already is left out: a radiograph with the id of one of its radiographs, or with the same
pixels on the canvas, and all of its test patients. One whose patient is in a fold, or in the validation split, says so
as `not_for_folds`: it must not train while that is held back.
"""

import dataclasses
import hashlib
import json
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import pydicom

from xray.datasets.naming import source_ids
from xray.datasets.source import TEST, VAL, Dropped, Source, SourceImage, digest_of
from xray.datasets.sources.mask_account import tracked
from xray.datasets.sources.mask_folders import without_masks
from xray.datasets.sources.patients import name_patients
from xray.datasets.store import Store
from xray.errors import InputError
from xray.radiographs.dicom import is_dicom
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.radiograph import find_radiographs
from xray.radiographs.workers import in_workers
from xray.structures.boxes import BoxTable
from xray.structures.values import identity

IN_TEST = "radiograph of the test split"
TEST_PATIENT = "patient of the test split"
LABELLED = "radiograph that is labelled already"

NOT_FOR_FOLDS = "not_for_folds"
"""Of an image in annotations.json: the folds in which its patient is, and "val" for the validation split."""


def read_unlabelled(
    folder: Path | str,
    labelled: Store,
    *,
    patients: Path | str | None = None,
    n_workers: int = 1,
    apart: Path | None = None,
) -> Source:
    """Lists all radiographs below a folder, and leaves out what may not train beside the labelled dataset.

    labelled: opened with its pixels. The source has its categories, and no box.
    patients: as `xray.datasets.sources.patients.name_patients` reads it. Where the labelled dataset knows patients, the
        Patient ID of DICOM files is compared with them, too, but not kept: it may be a name.
    n_workers: processes that read the headers. apart: a folder that is written to, which holds no radiograph.

    Raises InputError for a missing folder, for one without radiographs, and where all are left out.
    """
    root = Path(folder)
    passed_over: list[FileWarning] = []
    paths, masks = without_masks(find_radiographs(root, passed_over=passed_over, apart=apart), root)
    names = [path.relative_to(root).as_posix() if path != root else path.name for path in paths]
    images = [
        SourceImage(path, name, own_id) for path, name, own_id in zip(paths, names, source_ids(names), strict=True)
    ]
    dropped: list[Dropped] = []
    content = b""
    if patients is not None:
        images, content = name_patients(images, Path(patients), dropped)
    people = _people(labelled)
    in_headers = [""] * len(images)
    if people:
        read = in_workers(_patient_in, [image.path for image in images], n_workers, lambda path: path.name)
        headers = tracked(read, "reading the patients", len(images))
        in_headers = [header if isinstance(header, str) else "" for header in headers]
    used = []
    for image, in_header in zip(images, in_headers, strict=True):
        row = labelled.index_of.get(image.source_id)
        named = [person for person in (image.patient, in_header) if person]
        folds = sorted({fold for person in named for fold in people.get(identity(person), ())}, key=_numbers_first)
        if row is not None:
            reason = IN_TEST if labelled.splits[row] == TEST else LABELLED
            dropped.append(Dropped(image.file_name, reason, detail="by its id"))
        elif -1 in folds:
            dropped.append(Dropped(image.file_name, TEST_PATIENT))
        else:
            used.append(dataclasses.replace(image, extra={NOT_FOR_FOLDS: folds} if folds else {}))
    if not used:
        raise InputError(
            f"{root}: none of its {len(images)} radiographs is left to label: {labelled.path} has them already, or "
            "their patients are in its test split"
        )
    listing = json.dumps([(image.file_name, image.patient, image.extra) for image in used])
    digest = hashlib.sha256(content + partition_of(labelled).encode() + listing.encode())
    return Source(
        kind="unlabelled",
        layout="files",
        images=used,
        boxes=BoxTable.empty(),
        readers=[],
        places=[],
        categories=[{"id": number, "name": name} for number, name in labelled.categories.items()],
        fingerprint=digest.hexdigest(),
        dropped=dropped,
        warnings=[*passed_over, *masks],
        refused=_canvases(labelled),
    )


def partition_of(store: Store) -> str:
    """A hash of what decides whether a radiograph may train: ids, splits, folds and patients of a dataset."""
    keys = ("source_id", "split", "fold", "patient")
    return hashlib.sha256(
        json.dumps([[record.get(key) for key in keys] for record in store.records]).encode()
    ).hexdigest()


def _people(labelled: Store) -> dict[Any, set[int | str]]:
    """Patient → the folds that he is in, "val" for the validation split, -1 for the test split."""
    folds: dict[Any, set[int | str]] = defaultdict(set)
    for record in labelled.records:
        if record.get("patient") is not None:
            split = record["split"]
            place = -1 if split == TEST else VAL if split == VAL else record["fold"]
            folds[identity(record["patient"])].add(place)
    return folds


def _numbers_first(fold: int | str) -> tuple[bool, int]:
    return isinstance(fold, str), fold if isinstance(fold, int) else 0


def _canvases(labelled: Store) -> dict[bytes, str]:
    """Digest of each canvas → why a radiograph that looks the same is left out."""
    assert labelled.images is not None
    canvases = tracked(labelled.images, "reading the labelled radiographs", len(labelled))
    refused: dict[bytes, str] = {}
    for canvas, split in zip(canvases, labelled.splits.tolist(), strict=True):
        digest = digest_of(canvas)
        if split == TEST or digest not in refused:
            refused[digest] = IN_TEST if split == TEST else LABELLED
    return refused


def _patient_in(path: Path) -> str:
    """The Patient ID of a DICOM file; empty where it has none, or is none."""
    try:
        with open(path, "rb") as file:
            if not is_dicom(file.read(132)):
                return ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=["PatientID"])
            return str(header.get("PatientID") or "").strip()
    except Exception:  # whatever pydicom raises; decoding says what is wrong with the file
        return ""
