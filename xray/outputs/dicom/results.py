"""Findings as DICOM objects: the files that inference writes, and the objects that a DICOM node returns."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from xray.errors import InputError
from xray.outputs.dicom.objects import Algorithm, OwnPictureError, read_source, save_object
from xray.radiographs.dicom import is_dicom
from xray.radiographs.names import inside, safe_path
from xray.radiographs.radiograph import Radiograph, read_radiograph
from xray.structures.boxes import BoxTable
from xray.structures.thresholds import SHOWN_FROM, Thresholds

NO_DICOM = "no DICOM file"
NO_REFERENCE = "not said which image of which study it is"
OWN_PICTURE = "a picture of findings, made by xray"
KINDS = {"sr": "SR", "seg": "SEG", "gsps": "GSPS", "sc": "SC"}
"""Kind of object, which is the name of its folder, too → its name."""


@dataclasses.dataclass(frozen=True)
class DicomResults:
    """Makes DICOM objects of findings.

    categories: category id → name. threshold: lowest score of a finding that reports and pictures hold. sr, seg, gsps,
    sc: which are wanted: structured reports, segmentations, presentation states, pictures.
    thresholds: fitted ones, which take the place of `threshold`; objects then hold probabilities in place of scores.
    """

    categories: Mapping[int, str]
    algorithm: Algorithm
    threshold: float = SHOWN_FROM
    sr: bool = True
    seg: bool = True
    gsps: bool = False
    sc: bool = False
    thresholds: Thresholds | None = None

    @property
    def kinds(self) -> list[str]:
        """The kinds that are wanted, in the order of KINDS."""
        return [kind for kind in KINDS if getattr(self, kind)]

    @property
    def need_pixels(self) -> bool:
        """Whether the radiographs themselves are needed, and not their headers alone."""
        return self.gsps or self.sc

    def of(
        self,
        given: Path | Dataset,
        table: BoxTable,
        masks: Mapping[int, Any],
        labels: Mapping[str, float] | None = None,
        radiograph: Radiograph | None = None,
    ) -> dict[str, Dataset]:
        """The objects that are wanted, by their kinds; there is no "seg" without a mask, and no "gsps" of colour.

        given: the DICOM file of a radiograph, or what `reduced` keeps of its data set. table, masks: its rows and
            their masks. labels: name → probability.
        radiograph: of the file, where it has been read already; needed where `given` is no file and `need_pixels`.
        Raises InputError where it does not say which image of which study it is.
        """
        # highdicom takes a second to import, which commands without these objects need not wait for.
        from xray.outputs.dicom.segmentation import joined_masks, segmentation
        from xray.outputs.dicom.structured_report import structured_report

        source, objects = given if isinstance(given, Dataset) else read_source(given), {}
        about = (self.categories, self.algorithm)
        # A segmentation holds all masks, as the masks' own thresholds have made them.
        shown, shown_masks, threshold, has_findings = table, masks, self.threshold, None
        named = labels
        if self.thresholds is not None:
            has_findings = self.thresholds.has_findings(table, self.categories, labels or {})
            positive = self.thresholds.positive_labels(labels or {})
            labels = self.thresholds.probabilities_of_labels(labels or {})
            is_of_labels = self.thresholds.kind == "labels"
            # A text on the image has no room for what was not found.
            named = {k: v for k, v in labels.items() if (k in positive if is_of_labels else v >= SHOWN_FROM)}
            shown, shown_masks = self.thresholds.shown(table, masks, self.categories)
            threshold = 0.0
        if self.sr:
            objects["sr"] = structured_report(source, shown, *about, labels, threshold, has_findings=has_findings)
        if self.seg and masks:
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

            sure = {row: rle for row, rle in shown_masks.items() if shown.scores[row] >= threshold}
            joined = joined_masks(shown, sure)
            objects["gsps"] = presentation_state(source, softcopy, shown, joined, *about, named, threshold)
        if self.sc:
            from xray.outputs.dicom.secondary_capture import secondary_capture

            aspect = (1, 1) if softcopy is None else softcopy.aspect
            findings = (radiograph.pixels, shown, shown_masks)
            objects["sc"] = secondary_capture(
                source, *findings, *about, threshold if self.thresholds is None else -1.0, aspect
            )
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
    ) -> None:
        """Writes OUT/<kind>/<name>.dcm of each kind, each complete; none of a file that they cannot refer to."""
        objects = self.of(path, table, masks, labels, radiograph) if fault_of_source(path) is None else {}
        self.discard(out, name)
        for kind, made in objects.items():
            save_object(object_path(out, kind, name), made)

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
            why = {"seg": f" (radiographs without a mask: {without})"}.get(kind, "")
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
    """OUT/<kind>/<name>.dcm."""
    return inside(out, f"{kind}/{safe_path(name)}.dcm")
