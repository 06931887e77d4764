"""Findings as DICOM objects and FHIR: the files that inference writes, and the objects that a DICOM node returns."""

import collections
import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydicom.dataset import Dataset

from xray.errors import InputError
from xray.files import complete
from xray.outputs.dicom.content import content_of
from xray.outputs.dicom.objects import Algorithm, OwnPictureError, read_source, save_object
from xray.outputs.dicom.origin import name_origin, notes_of
from xray.radiographs.dicom import is_dicom
from xray.radiographs.names import inside, safe_path
from xray.radiographs.radiograph import Radiograph, read_radiograph
from xray.structures.radiograph_findings import RadiographFindings
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

    threshold: lowest score of a finding that reports and pictures hold. sr, seg, gsps, sc, fhir: which are wanted:
    structured reports, segmentations, presentation states, pictures, and FHIR.
    sr: True and "comprehensive" for Comprehensive SR, "comprehensive3d" for Comprehensive 3D SR. seg: True and "binary"
    for masks, "fractional" for the probabilities that they are made of.
    thresholds: fitted ones, which take the place of `threshold`; objects then hold probabilities in place of scores.
    map_labels: the category ids of the channels of probability maps.
    """

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
        self, given: Path | Dataset, findings: RadiographFindings, radiograph: Radiograph | None = None
    ) -> dict[str, Dataset]:
        """The DICOM objects that are wanted, by their kinds; no "seg" without a mask, and no "gsps" of colour.

        given: the DICOM file of a radiograph, or what `reduced` keeps of its data set. findings: in it, with their maps
            where `need_maps`.
        radiograph: of the file, where it has been read already; needed where `given` is no file and `need_pixels`.
        Raises InputError where it does not say which image of which study it is.
        """
        source, shown = self._shown(given, findings)
        objects = self._objects(source, findings, shown)
        if self.need_pixels:
            if radiograph is None:
                if isinstance(given, Dataset):
                    raise ValueError("a presentation state or a picture of a data set needs the radiograph")
                radiograph = read_radiograph(given)
            objects |= self._drawn(source, findings, shown, radiograph)
        name_origin(objects, given)
        return objects

    def fhir_of(self, given: Path | Dataset, findings: RadiographFindings) -> dict[str, Any]:
        """The Bundle of FHIR, of the content of the structured report; see `of`."""
        from xray.outputs.fhir import bundle_of

        source, shown = self._shown(given, findings)
        return bundle_of(content_of(source, shown, self.algorithm, self._lowest))

    @property
    def _lowest(self) -> float:
        """The lowest confidence that reports and presentation states hold of what is shown."""
        return self.threshold if self.thresholds is None else 0.0

    def _shown(self, given: Path | Dataset, findings: RadiographFindings) -> tuple[Dataset, RadiographFindings]:
        """The data set that objects refer to, and what people are shown of the findings."""
        source = given if isinstance(given, Dataset) else read_source(given)
        findings = dataclasses.replace(findings, notes=(*findings.notes, *notes_of(given)))
        return source, findings if self.thresholds is None else self.thresholds.shown(findings)

    def _objects(self, source: Dataset, findings: RadiographFindings, shown: RadiographFindings) -> dict[str, Dataset]:
        # highdicom takes a second to import, which commands without these objects need not wait for.
        objects: dict[str, Dataset] = {}
        if self.sr:
            from xray.outputs.dicom.structured_report import written_report

            content = content_of(source, shown, self.algorithm, self._lowest)
            objects["sr"] = written_report(content, self.sr == "comprehensive3d")
        # A segmentation holds all masks, as the masks' own thresholds have made them.
        about = (findings.categories, self.algorithm)
        if self.need_maps and findings.maps is not None:
            from xray.outputs.dicom.segmentation import segmentation, whole_maps

            whole = whole_maps(findings.maps, self.map_labels, source.Columns, source.Rows)
            objects["seg"] = segmentation(source, whole, *about, is_fractional=True)
        elif self.seg and not self.need_maps and findings.masks:
            from xray.outputs.dicom.segmentation import segmentation

            objects["seg"] = segmentation(source, findings.joined_masks(), *about)
        return objects

    def _drawn(
        self, source: Dataset, findings: RadiographFindings, shown: RadiographFindings, radiograph: Radiograph
    ) -> dict[str, Dataset]:
        """The objects that need the radiograph itself."""
        objects: dict[str, Dataset] = {}
        # Of which image it is, the header says; the notes of the findings say what it may be in place of a chest.
        shown = dataclasses.replace(shown, notes=findings.notes)
        softcopy = radiograph.softcopy
        if self.gsps and softcopy is not None:
            from xray.outputs.dicom.gsps import presentation_state

            named = dataclasses.replace(shown, labels=self._named(findings, shown))
            objects["gsps"] = presentation_state(source, softcopy, named, self.algorithm, self._lowest)
        if self.sc:
            from xray.outputs.dicom.secondary_capture import secondary_capture

            aspect = (1, 1) if softcopy is None else softcopy.aspect
            lowest = self.threshold if self.thresholds is None else -1.0
            objects["sc"] = secondary_capture(source, radiograph.pixels, shown, self.algorithm, lowest, aspect)
        return objects

    def _named(self, findings: RadiographFindings, shown: RadiographFindings) -> Mapping[str, float]:
        """The labels that a text on the image says: it has no room for what was not found."""
        if self.thresholds is None:
            return shown.labels
        if self.thresholds.kind == "labels":
            return {name: shown.labels[name] for name in self.thresholds.positive_labels(findings.labels)}
        return {name: value for name, value in shown.labels.items() if value >= SHOWN_FROM}

    def write(
        self,
        out: Path,
        name: str,
        given: Path | Dataset | None,
        findings: RadiographFindings,
        radiograph: Radiograph | None = None,
    ) -> list[Path]:
        """Writes OUT/<kind>/<name>.dcm of each kind, FHIR as .json, each complete. Returns the files.

        given, radiograph: as of `of`; a file that objects cannot refer to has none, nor has None.
        """
        if isinstance(given, Path) and fault_of_source(given) is not None:
            given = None
        objects = {} if given is None else self.of(given, findings, radiograph)
        bundle = None if given is None or not self.fhir else self.fhir_of(given, findings)
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
            # Where there is none, there is no folder.
            where = f": {out / kind}" if written[kind] else ""
            lines.append(f"{written[kind]} {KINDS[kind]}{where}{why}")
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
