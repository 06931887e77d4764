"""The findings of one radiograph as a DICOM structured report: Comprehensive SR, measurement report (TID 1500).

A measurement group for each finding (TID 1410): its code, the rectangle around it, and the certainty in percent. Before
these, groups of the whole radiograph (TID 1501): whether anything was found at all, the probability that the radiograph
is normal, and those of its labels. Reports are preliminary and unverified: not for clinical use.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from xray.outputs.dicom import codes as dicom_codes
from xray.outputs.dicom import objects as dicom_objects
from xray.outputs.dicom.objects import Algorithm
from xray.outputs.dicom.reported import Reported, probabilities_of, reported
from xray.structures.boxes import BoxTable

SERIES_NUMBER = 9901
SERIES_DESCRIPTION = f"xray findings, {dicom_objects.NOT_FOR_CLINICAL_USE}"


@dicom_objects.quietly()
def structured_report(
    source: Dataset,
    table: BoxTable,
    categories: Mapping[int, str],
    algorithm: Algorithm,
    labels: Mapping[str, float] | None = None,
    threshold: float = 0.3,
    edition: str = "",
    has_findings: bool | None = None,
) -> Dataset:
    """The report of one radiograph.

    source: the data set of its DICOM file, with or without pixels; `dicom_objects` tells what is taken over of it.
    table: its rows, "No finding" among them where there is one; boxes in original pixels, x and y counted from the top
        left corner of the top left pixel, as those of SCOORD are (PS3.3 C.18.6.1.1).
    categories: category id → name. labels: name → probability of the whole radiograph.
    threshold: lowest score of a finding that is reported.
    edition: sets reports of other findings than those of the algorithm apart, by their identifiers.
    has_findings: what the summary says; None for whether there is a finding that is reported.

    Raises InputError where the source does not say which image of which study it is.
    """
    source, labels = dicom_objects.reduced(source), dict(labels or {})
    edition = f"{threshold:g} {edition}"
    rows = reported(table, categories, labels, threshold, (source.Columns, source.Rows))
    has_findings = bool(rows) if has_findings is None else has_findings
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

    def tracking(identifier: str) -> TrackingIdentifier:
        return TrackingIdentifier(dicom_objects.derived_uid(source, "SR", algorithm, edition, identifier), identifier)

    groups: list[MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations] = [
        *_of_whole(source, table, categories, labels, has_findings, identified, tracking),
        *(_of_finding(source, number, row, identified, tracking) for number, row in enumerate(rows, 1)),
    ]
    dicom_objects.in_unicode(source, *labels, *categories.values(), *algorithm.parameters.values())
    return ComprehensiveSR(
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


def _of_whole(
    source: Dataset,
    table: BoxTable,
    categories: Mapping[int, str],
    labels: Mapping[str, float],
    has_findings: bool,
    algorithm: AlgorithmIdentification,
    tracking: Callable[[str], TrackingIdentifier],
) -> Iterator[MeasurementsAndQualitativeEvaluations]:
    image = SourceImageForMeasurementGroup.from_source_image(source)
    summary = dicom_codes.WITH_FINDINGS if has_findings else dicom_codes.WITHOUT_FINDINGS
    yield MeasurementsAndQualitativeEvaluations(
        tracking("Radiograph"),
        algorithm_id=algorithm,
        qualitative_evaluations=[QualitativeEvaluation(dicom_codes.SUMMARY, summary)],
        source_images=[image],
    )
    for name, probability in probabilities_of(table, categories, labels).items():
        yield MeasurementsAndQualitativeEvaluations(
            tracking(f"Radiograph: {name}"),
            finding_type=dicom_codes.finding_code(name),
            algorithm_id=algorithm,
            measurements=[_certainty(probability)],
            source_images=[image],
        )


def _of_finding(
    source: Dataset,
    number: int,
    row: Reported,
    algorithm: AlgorithmIdentification,
    tracking: Callable[[str], TrackingIdentifier],
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    x1, y1, x2, y2 = row.box
    region = ImageRegion(
        GraphicTypeValues.POLYLINE,
        # Closed by ending where it began.
        np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]),
        SourceImageForRegion.from_source_image(source),
    )
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking(f"Finding {number}: {row.name}"),
        referenced_region=region,
        finding_type=dicom_codes.finding_code(row.name),
        algorithm_id=algorithm,
        measurements=[_certainty(row.score)],
    )


def _certainty(probability: float) -> Measurement:
    return Measurement(dicom_codes.CERTAINTY, round(100 * probability, 4), dicom_codes.PERCENT)
