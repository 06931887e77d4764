"""Findings as DICOM objects and FHIR: the files that inference writes, and the objects that a DICOM node returns."""

import collections
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydicom.dataset import Dataset

from xray.errors import InputError
from xray.files import complete
from xray.outputs.dicom.content import Content, content_of
from xray.outputs.dicom.objects import Algorithm, OwnPictureError, read_source, save_object
from xray.outputs.dicom.origin import name_origin, notes_of
from xray.radiographs.dicom import is_dicom
from xray.radiographs.names import inside, safe_path
from xray.radiographs.radiograph import Radiograph, read_radiograph
from xray.structures.boxes import BoxTable
from xray.structures.thresholds import SHOWN_FROM, Thresholds

NO_DICOM = "no DICOM file"
NO_REFERENCE = "not said which image of which study it is"
OWN_PICTURE = "a picture of findings, made by xray"
SrKind = bool | Literal["comprehensive", "comprehensive3d"]
SegKind = bool | Literal["binary", "fractional"]
FHIR = "fhir"
KINDS = {"sr": "SR", "seg": "SEG", "gsps": "GSPS", "sc": "SC", FHIR: "FHIR"}
"""Kind of object, which is the name of its folder, too → its name. All are DICOM but FHIR, which is JSON."""
SUFFIXES = {kind: ".json" if kind == FHIR else ".dcm" for kind in KINDS}


@dataclasses.dataclass(frozen=True)
class DicomResults:
    """Makes DICOM objects, and FHIR, of findings.

    categories: category id → name. threshold: lowest score of a finding that reports and pictures hold. sr, seg, gsps,
    sc, fhir: which are wanted: structured reports, segmentations, presentation states, pictures, and FHIR.
    sr: True and "comprehensive" for Comprehensive SR, "comprehensive3d" for Comprehensive 3D SR. seg: True and "binary"
    for masks, "fractional" for the probabilities that they are made of.
    thresholds: fitted ones, which take the place of `threshold`; objects then hold probabilities in place of scores.
    map_labels: the category ids of the channels of probability maps.
    """

    categories: Mapping[int, str]
    algorithm: Algorithm
    threshold: float = SHOWN_FROM
    sr: SrKind = True
    seg: SegKind = True
    gsps: bool = False
    sc: bool = False
    fhir: bool = False
    thresholds: Thresholds | None = None
    map_labels: tuple[int, ...] = ()

    @property
    def kinds(self) -> list[str]:
        """The kinds that are wanted, in the order of KINDS."""
        return [kind for kind in KINDS if getattr(self, kind)]

    @property
    def need_pixels(self) -> bool:
        """Whether the radiographs themselves are needed, and not their headers alone."""
        return self.gsps or self.sc

    @property
    def need_maps(self) -> bool:
        """Whether the probability maps are needed, and not the masks alone."""
        return self.seg == "fractional"

    def of(
        self,
        given: Path | Dataset,
        table: BoxTable,
        masks: Mapping[int, Any],
        labels: Mapping[str, float] | None = None,
        radiograph: Radiograph | None = None,
        maps: np.ndarray | None = None,
        notes: Sequence[str] = (),
    ) -> dict[str, Dataset]:
        """The DICOM objects that are wanted, by their kinds; no "seg" without a mask, and no "gsps" of colour.

        given: the DICOM file of a radiograph, or what `reduced` keeps of its data set. table, masks: its rows and
            their masks. labels: name → probability.
        radiograph: of the file, where it has been read already; needed where `given` is no file and `need_pixels`.
        maps: (K, S, S) probabilities on the canvas, where `need_maps`. notes: sentences that reports say beside.
        Raises InputError where it does not say which image of which study it is.
        """
        source = given if isinstance(given, Dataset) else read_source(given)
        shown = self._shown(table, masks, labels or {})
        notes = (*notes, *notes_of(given))
        objects = self._objects(given, source, shown, table, masks, radiograph, maps, notes)
        name_origin(objects, given)
        return objects

    def fhir_of(
        self,
        given: Path | Dataset,
        table: BoxTable,
        masks: Mapping[int, Any],
        labels: Mapping[str, float] | None = None,
        notes: Sequence[str] = (),
    ) -> dict[str, Any]:
        """The Bundle of FHIR, of the content of the structured report; see `of`."""
        from xray.outputs.fhir import bundle_of

        source = given if isinstance(given, Dataset) else read_source(given)
        notes = (*notes, *notes_of(given))
        return bundle_of(self._content(source, self._shown(table, masks, labels or {}), notes))

    def _content(self, source: Dataset, shown: "_Shown", notes: Sequence[str]) -> Content:
        return content_of(
            source,
            shown.table,
            self.categories,
            self.algorithm,
            shown.labels,
            shown.threshold,
            has_findings=shown.has_findings,
            masks=shown.masks,
            notes=notes,
        )

    def _shown(self, table: BoxTable, masks: Mapping[int, Any], labels: Mapping[str, float]) -> "_Shown":
        if self.thresholds is None:
            return _Shown(table, dict(masks), labels, labels, self.threshold)
        positive = self.thresholds.positive_labels(labels)
        has_findings = self.thresholds.has_findings(table, self.categories, labels)
        probabilities = self.thresholds.probabilities_of_labels(labels)
        is_of_labels = self.thresholds.kind == "labels"
        # A text on the image has no room for what was not found.
        named = {k: v for k, v in probabilities.items() if (k in positive if is_of_labels else v >= SHOWN_FROM)}
        return _Shown(*self.thresholds.shown(table, masks, self.categories), probabilities, named, 0.0, has_findings)

    def _objects(
        self,
        given: Path | Dataset,
        source: Dataset,
        shown: "_Shown",
        table: BoxTable,
        masks: Mapping[int, Any],
        radiograph: Radiograph | None,
        maps: np.ndarray | None,
        notes: Sequence[str],
    ) -> dict[str, Dataset]:
        # highdicom takes a second to import, which commands without these objects need not wait for.
        objects: dict[str, Dataset] = {}
        about = (self.categories, self.algorithm)
        if self.sr:
            from xray.outputs.dicom.structured_report import written_report

            objects["sr"] = written_report(self._content(source, shown, notes), self.sr == "comprehensive3d")
        # A segmentation holds all masks, as the masks' own thresholds have made them.
        if self.need_maps and maps is not None:
            from xray.outputs.dicom.segmentation import segmentation, whole_maps

            whole = whole_maps(maps, self.map_labels, source.Columns, source.Rows)
            objects["seg"] = segmentation(source, whole, *about, is_fractional=True)
        elif self.seg and not self.need_maps and masks:
            from xray.outputs.dicom.segmentation import joined_masks, segmentation

            objects["seg"] = segmentation(source, joined_masks(table, masks), *about)
        if not self.need_pixels:
            return objects
        if radiograph is None:
            if isinstance(given, Dataset):
                raise ValueError("a presentation state or a picture of a data set needs the radiograph")
            radiograph = read_radiograph(given)
        softcopy = radiograph.softcopy
        if self.gsps and softcopy is not None:
            from xray.outputs.dicom.gsps import presentation_state
            from xray.outputs.dicom.segmentation import joined_masks

            sure = {row: rle for row, rle in shown.masks.items() if shown.table.scores[row] >= shown.threshold}
            joined = joined_masks(shown.table, sure)
            what = (source, softcopy, shown.table, joined, *about, shown.named, shown.threshold)
            objects["gsps"] = presentation_state(*what)
        if self.sc:
            from xray.outputs.dicom.secondary_capture import secondary_capture

            aspect = (1, 1) if softcopy is None else softcopy.aspect
            findings = (radiograph.pixels, shown.table, shown.masks)
            lowest = self.threshold if self.thresholds is None else -1.0
            objects["sc"] = secondary_capture(source, *findings, *about, lowest, aspect)
        return objects

    def write(
        self,
        out: Path,
        name: str,
        path: Path,
        table: BoxTable,
        masks: Mapping[int, Any],
        labels: Mapping[str, float] | None = None,
        radiograph: Radiograph | None = None,
        maps: np.ndarray | None = None,
        notes: Sequence[str] = (),
    ) -> list[Path]:
        """Writes OUT/<kind>/<name>.dcm of each kind, FHIR as .json, each complete; none of a file that they cannot
        refer to. Returns the files."""
        given = path if fault_of_source(path) is None else None
        return self.write_of(out, name, given, table, masks, labels, radiograph, maps, notes)

    def write_of(
        self,
        out: Path,
        name: str,
        given: Path | Dataset | None,
        table: BoxTable,
        masks: Mapping[int, Any],
        labels: Mapping[str, float] | None = None,
        radiograph: Radiograph | None = None,
        maps: np.ndarray | None = None,
        notes: Sequence[str] = (),
    ) -> list[Path]:
        """As `write`. given: as of `of`; None for a radiograph that objects cannot refer to, which then has none."""
        objects = {} if given is None else self.of(given, table, masks, labels, radiograph, maps, notes)
        bundle = None if given is None or not self.fhir else self.fhir_of(given, table, masks, labels, notes)
        self.discard(out, name)
        for kind, made in objects.items():
            save_object(object_path(out, kind, name), made)
        if bundle is not None:
            save_json(object_path(out, FHIR, name), bundle)
        return [object_path(out, kind, name) for kind in (*objects, *([FHIR] if bundle is not None else []))]

    def discard(self, out: Path, name: str) -> None:
        """Deletes the objects of a radiograph that an earlier command wrote, whose findings are other ones."""
        for kind in self.kinds:
            object_path(out, kind, name).unlink(missing_ok=True)

    def summary(self, out: Path, read: Iterable[tuple[str, Path]]) -> list[str]:
        """A line for each kind of object: how many were written, how many not, and why. read: (name, file) of all."""
        left_out: collections.Counter[str] = collections.Counter()
        written: collections.Counter[str] = collections.Counter()
        read = list(read)
        for name, path in read:
            kinds = [kind for kind in self.kinds if object_path(out, kind, name).is_file()]
            written.update(kinds)
            if not kinds and (fault := fault_of_source(path)) is not None:
                left_out[fault] += 1
        lines = []
        for kind in self.kinds:
            without = len(read) - written[kind] - left_out.total()
            why = f" (radiographs without a mask: {without})" if kind == "seg" and not self.need_maps else ""
            if kind == "gsps" and without:
                why = f" (in colour, for which there is none: {without})"
            lines.append(f"{written[kind]} {KINDS[kind]}: {out / kind}{why}")
        if left_out:
            reasons = ", ".join(f"{count} ({reason})" for reason, count in left_out.most_common())
            *others, last = [KINDS[kind] for kind in self.kinds]
            names = f"{', '.join(others)} and {last}" if others else last
            lines.append(f"left out by {names}: {reasons}")
        return lines


def fault_of_source(path: Path) -> str | None:
    """NO_DICOM, NO_REFERENCE or OWN_PICTURE for a file of which there can be no object, None for every other."""
    try:
        with path.open("rb") as file:
            if not is_dicom(file.read(132)):
                return NO_DICOM
        read_source(path)
    except OwnPictureError:
        return OWN_PICTURE
    except (InputError, OSError):
        return NO_REFERENCE
    return None


def object_path(out: Path, kind: str, name: str) -> Path:
    """OUT/<kind>/<name>.dcm, and .json of FHIR."""
    return inside(out, f"{kind}/{safe_path(name)}{SUFFIXES[kind]}")


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


@dataclasses.dataclass(frozen=True)
class _Shown:
    """What people are shown of a radiograph. labels: probabilities of the whole one; named: those that pictures say."""

    table: BoxTable
    masks: dict[int, Any]
    labels: Mapping[str, float]
    named: Mapping[str, float]
    threshold: float
    has_findings: bool | None = None
