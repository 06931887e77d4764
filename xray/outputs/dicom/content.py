"""What is reported of one radiograph, in codes and with identifiers: of it, structured reports and FHIR are made."""

import dataclasses
import re

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from xray.outputs.dicom import codes as dicom_codes
from xray.outputs.dicom import objects as dicom_objects
from xray.outputs.dicom.measurements import IN_PIXELS, OF_MASKS, Size, sizes_of, spacing_of
from xray.outputs.dicom.objects import Algorithm
from xray.outputs.dicom.reported import has_label, probabilities_of, reported
from xray.structures.radiograph_findings import RadiographFindings

WITHOUT_PLACES = "The radiograph was judged as a whole: no places of findings were looked for."
"""Said of what classifiers alone report."""


@dataclasses.dataclass(frozen=True)
class Tracked:
    """Something that a report says. code: what was found. site: where that is, None where the code says so.

    probability: in [0, 1]. identifier, uid: of this finding, the same for the same image, models and settings.
    """

    name: str
    code: Code
    site: Code | None
    probability: float
    identifier: str
    uid: str


@dataclasses.dataclass(frozen=True)
class Located(Tracked):
    """The same at a place. box: (x1, y1, x2, y2) in original pixels, inside the radiograph. sizes: of it."""

    box: tuple[float, float, float, float]
    sizes: tuple[Size, ...]


@dataclasses.dataclass(frozen=True)
class Content:
    """What is reported of one radiograph.

    source: what `reduced` keeps of its data set. edition: of `common_attributes`. summary: whether anything was found,
    a code of CID 6047. identifier, uid: of that summary. wholes: probabilities of the whole radiograph, "No finding"
    first. findings: the surest first. notes: sentences for readers.
    """

    source: Dataset
    algorithm: Algorithm
    edition: str
    summary: Code
    identifier: str
    uid: str
    wholes: tuple[Tracked, ...]
    findings: tuple[Located, ...]
    notes: tuple[str, ...]


def content_of(
    source: Dataset,
    findings: RadiographFindings,
    algorithm: Algorithm,
    threshold: float = 0.3,
    edition: str = "",
) -> Content:
    """The content of a report.

    source: the data set of the radiograph's DICOM file, with or without pixels.
    threshold: lowest score of a finding that is reported.
    edition: sets reports of other findings than those of the algorithm apart, by their identifiers.

    Raises InputError where the source does not say which image of which study it is.
    """
    source, masks, notes = dicom_objects.reduced(source), findings.masks, findings.notes
    edition = dicom_objects.edition_with(f"{threshold:g} {edition}", notes)
    rows = reported(findings, threshold, (source.Columns, source.Rows))
    has_findings = findings.has_findings
    if has_findings is None:
        has_findings = bool(rows) if findings.has_places else has_label(findings.labels, threshold)

    def tracked(identifier: str) -> tuple[str, str]:
        uid = dicom_objects.derived_uid(source, "SR", algorithm, edition, identifier)
        # Names of categories are anybody's; texts of DICOM have no such characters.
        return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", identifier).split()), uid

    def of(name: str) -> tuple[str, Code, Code | None]:
        return name, dicom_codes.finding_code(name), dicom_codes.SITES.get(name)

    spacing = spacing_of(source)
    wholes = tuple(
        Tracked(*of(name), probability, *tracked(f"Radiograph: {name}"))
        for name, probability in probabilities_of(findings).items()
    )
    located = tuple(
        Located(
            *of(row.name),
            row.score,
            *tracked(f"Finding {number}: {row.name}"),
            row.box,
            sizes_of(row.box, spacing, masks.get(row.row)),
        )
        for number, row in enumerate(rows, 1)
    )
    about_sizes = [IN_PIXELS if spacing is None else spacing.description] if located else []
    if any(row.row in masks for row in rows):
        about_sizes.append(OF_MASKS)
    return Content(
        source=source,
        algorithm=algorithm,
        edition=edition,
        summary=dicom_codes.WITH_FINDINGS if has_findings else dicom_codes.WITHOUT_FINDINGS,
        **dict(zip(("identifier", "uid"), tracked("Radiograph"), strict=True)),
        wholes=wholes,
        findings=located,
        notes=(*notes, *(() if findings.has_places else (WITHOUT_PLACES,)), *about_sizes),
    )
