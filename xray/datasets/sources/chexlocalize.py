"""CheXlocalize (Stanford, 2022): masks of ten findings in CheXpert's validation and test sets → a source to convert.

`gt_segmentations_{val,test}.json`: {id: {finding: COCO RLE}} for all ten findings, empty where a radiograph does not
show one; `gt_annotations_{val,test}.json`: {id: {"img_size": [height, width], finding: [contour, …]}} with contours of
(x, y) for the findings that it shows alone. Either is enough; where both are there they must agree. An id is
patient64541_study1_view1_frontal, of the file val/patient64541/study1/view1_frontal.jpg; tables say `valid/` where the
folder may be called `val/`.

`val_labels.csv` (or valid.csv) and `test_labels.csv` have the labels of all radiographs, of which 187 of 234 and 499 of
668 have a mask. Without them only radiographs with a mask are used, and of findings without masks (Pneumonia, Pleural
Other, Fracture) nothing is known. A positive label without a mask is somewhere unknown.

The set has nothing to train on. Its validation set becomes the split "val", its test set "test": `xray infer --split`
and `xray evaluate` take either, and `xray train --fold all` trains on "val" for those who want that.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xray.datasets.source import SPECK, TEST, VAL, Source, data_root
from xray.datasets.sources.chexpert import TABLES, ViewFiles, add_table, attributes_of, patient_of
from xray.datasets.sources.chexpert_labels import (
    AIRSPACE_OPACITY,
    FINDINGS,
    LATERAL_VIEW,
    LUNG_OPACITY,
    LabelledFiles,
    Views,
)
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.drawn_findings import DrawnFinding, DrawnImage, read_drawn
from xray.datasets.sources.mask_account import tracked
from xray.datasets.sources.set_tables import one_table, read_json
from xray.datasets.sources.siim import LABEL_DISAGREES
from xray.errors import InputError
from xray.radiographs.workers import Failed, in_workers
from xray.structures.masks import UNUSABLE
from xray.structures.values import whole_number

SEGMENTATIONS, ANNOTATIONS = "gt_segmentations_{}.json", "gt_annotations_{}.json"
NOT_DRAWN = ("Pneumonia", "Pleural Other", "Fracture")
"""Findings that have labels and no masks."""
UNKNOWN_FINDING = "finding that CheXlocalize does not have"


def read_chexlocalize(data_path: Path | str, *, views: Views = "frontal", n_workers: int = 1) -> Source:
    """Reads masks, contours and labels; looks at no pixel of a radiograph.

    views: "frontal" leaves lateral radiographs out, which are named; "all" keeps them, with the view "LATERAL".
    n_workers: processes that read masks; 0 reads them in this one.

    Each 8-connected part of a finding becomes one annotation. A radiograph whose masks and contours, or masks and
    labels, contradict each other is left out. Raises InputError for a missing directory or file, and for one that is
    not as described.
    """
    root = data_root(data_path, "put CheXlocalize's gt_segmentations_val.json, … and CheXpert's val/ and test/ there")
    paths = {
        (split, pattern): path
        for split in (VAL, TEST)
        for pattern in (SEGMENTATIONS, ANNOTATIONS)
        if (path := one_table(root, pattern.format(split))) is not None
    }
    if not paths:
        raise InputError(f"{root} has no gt_segmentations_val.json or gt_annotations_val.json: give the directory that "
                         "holds CheXlocalize")  # fmt: skip
    collector = Collector("chexlocalize", root, FINDINGS)
    files, rows = ViewFiles(collector), LabelledFiles(collector)
    images: list[tuple[str, DrawnImage]] = []
    for split in dict.fromkeys(split for split, _ in paths):
        labels = one_table(root, *TABLES[split])
        if labels is not None:
            add_table(collector, files, rows, split, labels, views)
        drawn = {pattern: _read(collector, paths.get((split, pattern))) for pattern in (SEGMENTATIONS, ANNOTATIONS)}
        masks, contours = drawn[SEGMENTATIONS], drawn[ANNOTATIONS]
        first = paths.get((split, SEGMENTATIONS)) or paths[split, ANNOTATIONS]
        for view in dict.fromkeys((*(masks or ()), *(contours or ()))):
            place = f"{first.name} {view}"
            name = files.meant_by(view, place)
            if name is None or collector.is_aside(name):
                continue
            is_lateral = view.casefold().endswith("lateral")
            if is_lateral and views == "frontal":
                collector.set_aside(name, LATERAL_VIEW)
                continue
            if rows.stated(name) is None:
                about = attributes_of("", "", "", is_lateral)
                asked = set(FINDINGS).difference(NOT_DRAWN)
                if masks is not None and contours is None:
                    # A radiograph has a mask for each of the ten, be it empty: one that is missing says nothing.
                    asked &= set(masks[view])
                unknown = [collector.category(finding) for finding in FINDINGS if finding not in asked]
                collector.describe(name, split=split, patient=patient_of(view), unknown=unknown, **about)
            image = _image(collector, name, place, masks and masks.get(view, {}), contours and contours.get(view, {}))
            images += [(place, image)] if image else []
    _add_regions(collector, rows, images, n_workers)
    return collector.source()


def _read(collector: Collector, path: Path | None) -> dict[str, dict[str, Any]] | None:
    """{id: {finding: …}} of a JSON file; None where there is no file."""
    if path is None:
        return None
    content, raw = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise InputError(f"{path} is not a dictionary of radiographs: download it again")
    collector.read(raw)
    return {
        view: {LUNG_OPACITY if finding == AIRSPACE_OPACITY else finding: drawn for finding, drawn in entry.items()}
        for view, entry in content.items()
    }


def _image(
    collector: Collector,
    name: str,
    place: str,
    masks: Mapping[str, Any] | None,
    contours: Mapping[str, Any] | None,
) -> DrawnImage | None:
    """What is drawn of a radiograph, to be read; None where it cannot be. The size of the radiograph is noted."""
    size = _size(masks or {}, contours or {})
    if size is None:
        if masks or contours:
            collector.lose(name, place, UNUSABLE, "no size [height, width]")
        return None
    collector.describe(name, size=size)
    findings = []
    for finding in dict.fromkeys((*(masks or ()), *(contours or ()))):
        if finding == "img_size":
            continue
        mask, contour = (masks or {}).get(finding), (contours or {}).get(finding)
        if finding not in FINDINGS:
            collector.lose(name, place, UNKNOWN_FINDING, finding[:60])
        elif not isinstance(mask, dict | None) or not isinstance(contour, list | None):
            collector.lose(name, place, UNUSABLE, f"{finding} is neither run lengths nor contours")
        else:
            findings.append(DrawnFinding(collector.category(finding), size, mask, contour))
    return DrawnImage(name, tuple(findings), masks is not None and contours is not None)


def _size(masks: Mapping[str, Any], contours: Mapping[str, Any]) -> tuple[int, int] | None:
    """(width, height): both files have the height first."""
    sizes = [contours.get("img_size"), *(mask.get("size") for mask in masks.values() if isinstance(mask, dict))]
    for size in sizes:
        try:
            sides = [whole_number(side) for side in size] if isinstance(size, list) else []
        except ValueError:
            continue
        if len(sides) == 2 and all(side is not None and side >= 1 for side in sides):
            height, width = sides
            return int(width or 0), int(height or 0)
    return None


def _add_regions(
    collector: Collector, rows: LabelledFiles, images: list[tuple[str, DrawnImage]], n_workers: int
) -> None:
    work = in_workers(read_drawn, [image for _, image in images], n_workers, lambda image: image.name)
    outcomes = tracked(work, "reading masks", len(images))
    for (place, image), outcome in zip(images, outcomes, strict=True):
        if isinstance(outcome, Failed):
            collector.lose(image.name, place, UNUSABLE, outcome.reason)
            continue
        if outcome.reason:
            collector.lose(image.name, place, outcome.reason, outcome.detail)
            continue
        if outcome.n_specks:
            collector.leave_out(place, SPECK, f"{outcome.n_specks} of a few pixels beside larger parts")
        stated = rows.stated(image.name)
        for region in outcome.regions:
            if stated is not None and region.category not in stated.labels:
                collector.lose(image.name, place, LABEL_DISAGREES, f"a mask of {FINDINGS[region.category - 1]}")
                break
            collector.box(image.name, region.category, region.box.tolist(), place, mask=region.rle)
