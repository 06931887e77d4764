"""The findings of one radiograph as a DICOM structured report, measurement report (TID 1500).

A measurement group for each finding (TID 1410): its code, the rectangle around it, the certainty in percent, and how
large it is. Before these, groups of the whole radiograph (TID 1501): whether anything was found at all and how sizes
were measured, the probability that the radiograph is normal, and those of its labels. Reports are preliminary and
unverified: not for clinical use.

The same content goes into either of two classes: Comprehensive SR, which most archives and viewers know, and
Comprehensive 3D SR, which IHE's AI Results asks for. A radiograph has no place in a patient's space, so that regions
are SCOORD, in the image's pixels, in both: SCOORD3D needs a frame of reference (PS3.3 C.18.9).
"""

from collections.abc import Iterator

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from xray.outputs.dicom import codes as dicom_codes
from xray.outputs.dicom import objects as dicom_objects
from xray.outputs.dicom.content import Content, Located, Tracked

SERIES_NUMBER = 9901
SERIES_DESCRIPTION = f"xray findings, {dicom_objects.NOT_FOR_CLINICAL_USE}"


@dicom_objects.quietly()
def written_report(content: Content, is_3d: bool = False) -> Dataset:
    """The report of one radiograph, whose regions count x and y as boxes do (SCOORD, PS3.3 C.18.6.1.1).

    is_3d: as Comprehensive 3D SR, which is another object with an identifier of its own.
    """
    source, algorithm = content.source, content.algorithm
    identified = AlgorithmIdentification(
        algorithm.name,
        algorithm.version,
        [f"{name}: {value}" for name, value in algorithm.parameters.items()],
        family=dicom_codes.ARTIFICIAL_INTELLIGENCE,
        manufacturer=dicom_objects.MANUFACTURER,
    )
    device = DeviceObserverIdentifyingAttributes(
        dicom_objects.device_uid(algorithm),
        name=f"{algorithm.name} ({dicom_objects.NOT_FOR_CLINICAL_USE})",
        manufacturer_name=dicom_objects.MANUFACTURER,
        model_name=dicom_objects.MODEL_NAME,
        serial_number=algorithm.digest,
    )
    groups: list[MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations] = [
        *_of_whole(content, identified),
        *(_of_finding(source, finding, identified) for finding in content.findings),
    ]
    names = [one.name for one in (*content.wholes, *content.findings)]
    dicom_objects.in_unicode(source, *names, *content.notes, *algorithm.parameters.values())
    kind, edition = (Comprehensive3DSR, f"{content.edition} 3D") if is_3d else (ComprehensiveSR, content.edition)
    return kind(
        evidence=[source],
        content=MeasurementReport(
            observation_context=ObservationContext(ObserverContext(codes.DCM.Device, device)),
            procedure_reported=dicom_codes.CHEST_RADIOGRAPHY,
            imaging_measurements=groups,
        ),
        series_number=SERIES_NUMBER,
        series_description=SERIES_DESCRIPTION,
        coding_schemes=[dicom_codes.private_scheme()],
        is_complete=True,
        is_final=False,
        is_verified=False,
        **dicom_objects.common_attributes(source, "SR", algorithm, edition),
    )


def _of_whole(content: Content, algorithm: AlgorithmIdentification) -> Iterator[MeasurementsAndQualitativeEvaluations]:
    image = SourceImageForMeasurementGroup.from_source_image(content.source)
    summary = MeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(content.uid, content.identifier),
        algorithm_id=algorithm,
        qualitative_evaluations=[QualitativeEvaluation(dicom_codes.SUMMARY, content.summary)],
        source_images=[image],
    )
    for note in content.notes:
        item = TextContentItem(dicom_codes.COMMENT, note, RelationshipTypeValues.CONTAINS)
        summary[0].ContentSequence.append(item)
    yield summary
    for whole in content.wholes:
        yield MeasurementsAndQualitativeEvaluations(
            _tracking(whole),
            finding_type=whole.code,
            algorithm_id=algorithm,
            finding_sites=_sites(whole),
            measurements=[_certainty(whole)],
            source_images=[image],
        )


def _of_finding(
    source: Dataset, finding: Located, algorithm: AlgorithmIdentification
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    x1, y1, x2, y2 = finding.box
    region = ImageRegion(
        GraphicTypeValues.POLYLINE,
        # Closed by ending where it began.
        np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]),
        SourceImageForRegion.from_source_image(source),
    )
    sizes = [Measurement(size.name, size.value, size.unit, method=size.method) for size in finding.sizes]
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        _tracking(finding),
        referenced_region=region,
        finding_type=finding.code,
        algorithm_id=algorithm,
        finding_sites=_sites(finding),
        measurements=[_certainty(finding), *sizes],
    )


def _tracking(one: Tracked) -> TrackingIdentifier:
    return TrackingIdentifier(one.uid, one.identifier)


def _sites(one: Tracked) -> list[FindingSite] | None:
    return None if one.site is None else [FindingSite(one.site)]


def _certainty(one: Tracked) -> Measurement:
    return Measurement(dicom_codes.CERTAINTY, round(100 * one.probability, 4), dicom_codes.PERCENT)
