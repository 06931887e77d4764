"""Findings as DICOM objects: the files that inference writes, and the objects that a DICOM node returns."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from xray.errors import InputError
from xray.outputs.dicom.objects import Algorithm, read_source, save_object
from xray.radiographs.dicom import is_dicom
from xray.radiographs.names import inside, safe_path
from xray.structures.boxes import BoxTable

NO_DICOM = "no DICOM file"
NO_REFERENCE = "not said which image of which study it is"


@dataclasses.dataclass(frozen=True)
class DicomResults:
    """Makes structured reports and segmentations of findings.

    categories: category id → name. threshold: lowest score of a finding that a report holds. sr, seg: which are wanted.
    """

    categories: Mapping[int, str]
    algorithm: Algorithm
    threshold: float = 0.3
    sr: bool = True
    seg: bool = True

    def of(
        self,
        given: Path | Dataset,
        table: BoxTable,
        masks: Mapping[int, Any],
        labels: Mapping[str, float] | None = None,
    ) -> dict[str, Dataset]:
        """The objects that are wanted, by "sr" and "seg"; there is no "seg" without a mask.

        given: the DICOM file of a radiograph, or what `reduced` keeps of its data set. table, masks: its rows and
        their masks. labels: name → probability.
        Raises InputError where it does not say which image of which study it is.
        """
        # highdicom takes a second to import, which commands without these objects need not wait for.
        from xray.outputs.dicom.segmentation import joined_masks, segmentation
        from xray.outputs.dicom.structured_report import structured_report

        source, objects = given if isinstance(given, Dataset) else read_source(given), {}
        if self.sr:
            objects["sr"] = structured_report(source, table, self.categories, self.algorithm, labels, self.threshold)
        if self.seg and masks:
            objects["seg"] = segmentation(source, joined_masks(table, masks), self.categories, self.algorithm)
        return objects

    def write(
        self,
        out: Path,
        name: str,
        path: Path,
        table: BoxTable,
        masks: Mapping[int, Any],
        labels: Mapping[str, float] | None = None,
    ) -> None:
        """Writes OUT/sr/<name>.dcm and OUT/seg/<name>.dcm, each complete; none of a file that they cannot refer to."""
        objects = self.of(path, table, masks, labels) if fault_of_source(path) is None else {}
        self.discard(out, name)
        for kind, made in objects.items():
            save_object(object_path(out, kind, name), made)

    def discard(self, out: Path, name: str) -> None:
        """Deletes the objects of a radiograph that an earlier command wrote, whose findings are other ones."""
        for kind in ("sr", "seg"):
            if getattr(self, kind):
                object_path(out, kind, name).unlink(missing_ok=True)

    def summary(self, out: Path, read: Iterable[tuple[str, Path]]) -> list[str]:
        """A line for each kind of object: how many were written, how many not, and why. read: (name, file) of all."""
        left_out: collections.Counter[str] = collections.Counter()
        written: collections.Counter[str] = collections.Counter()
        read = list(read)
        for name, path in read:
            kinds = [kind for kind in ("sr", "seg") if getattr(self, kind) and object_path(out, kind, name).is_file()]
            written.update(kinds)
            if not kinds and (fault := fault_of_source(path)) is not None:
                left_out[fault] += 1
        lines = [f"{written['sr']} SR: {out / 'sr'}"] if self.sr else []
        if self.seg:
            without = len(read) - written["seg"] - left_out.total()
            lines.append(f"{written['seg']} SEG: {out / 'seg'} (radiographs without a mask: {without})")
        if left_out:
            reasons = ", ".join(f"{count} ({reason})" for reason, count in left_out.most_common())
            lines.append(f"left out by SR and SEG: {reasons}")
        return lines


def fault_of_source(path: Path) -> str | None:
    """NO_DICOM or NO_REFERENCE for a file of which there can be no SR or SEG, None for every other."""
    try:
        with path.open("rb") as file:
            if not is_dicom(file.read(132)):
                return NO_DICOM
        read_source(path)
    except (InputError, OSError):
        return NO_REFERENCE
    return None


def object_path(out: Path, kind: str, name: str) -> Path:
    """OUT/sr/<name>.dcm or OUT/seg/<name>.dcm."""
    return inside(out, f"{kind}/{safe_path(name)}.dcm")
