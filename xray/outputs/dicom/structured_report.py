"""The findings of one radiograph as a DICOM structured report: Comprehensive SR, measurement report (TID 1500).

A measurement group for each finding (TID 1410): its code, the rectangle around it, and the certainty in percent. Before
these, groups of the whole radiograph (TID 1501): whether anything was found at all, the probability that the radiograph
is normal, and those of its labels. Reports are preliminary and unverified: not for clinical use.
"""

from collections.abc import Iterator, Mapping

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

from xray.findings import NO_FINDING_NAME
from xray.outputs.dicom import codes as dicom_codes
from xray.outputs.dicom import objects as dicom_objects
from xray.outputs.dicom.objects import Algorithm
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY

SERIES_NUMBER = 9901
SERIES_DESCRIPTION = f"xray findings, {dicom_objects.NOT_FOR_CLINICAL_USE}"
MAX_FINDINGS = 200
"""Findings of one report; a reader is helped by none beyond."""
ABNORMAL = "abnormal"
"""The label that a radiograph has if it is not normal."""


@dicom_objects.quietly()
def structured_report(
    source: Dataset,
    table: BoxTable,
    categories: Mapping[int, str],
    algorithm: Algorithm,
    labels: Mapping[str, float] | None = None,
    threshold: float = 0.3,
) -> Dataset:
    """The report of one radiograph.

    source: the data set of its DICOM file, with or without pixels; `dicom_objects` tells what is taken over of it.
    table: its rows, "No finding" among them where there is one; boxes in original pixels, x and y counted from the top
        left corner of the top left pixel, as those of SCOORD are (PS3.3 C.18.6.1.1).
    categories: category id → name. labels: name → probability of the whole radiograph.
    threshold: lowest score of a finding that is reported.

    Raises InputError where the source does not say which image of which study it is.
    """
    source, labels = dicom_objects.reduced(source), dict(labels or {})
    rows = _reported(table, categories, labels, threshold, (source.Columns, source.Rows))
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
        *_of_whole(source, table, categories, labels, bool(rows), identified),
        *(_of_finding(source, number, *row, identified) for number, row in enumerate(rows, 1)),
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
        **dicom_objects.common_attributes(source, "SR", algorithm),
    )


def _reported(
    table: BoxTable, categories: Mapping[int, str], labels: Mapping[str, float], threshold: float, size: tuple[int, int]
) -> list[tuple[str, np.ndarray, float]]:
    """(name, box inside the radiograph, score) of each finding, the surest first."""
    rows = []
    for row in np.argsort(-table.scores, kind="stable").tolist():
        label, score = int(table.labels[row]), float(table.scores[row])
        name = categories.get(label, NO_FINDING_NAME if label == NO_FINDING_CATEGORY else f"category {label}")
        box = table.boxes[row].clip(0, [*size, *size])
        # A classifier's row says of the whole radiograph what its label does already.
        is_label = name in labels and (box == [0, 0, *size]).all()
        if score >= threshold and name != NO_FINDING_NAME and not is_label:
            rows.append((name, box, score))
    return rows[:MAX_FINDINGS]


def _of_whole(
    source: Dataset,
    table: BoxTable,
    categories: Mapping[int, str],
    labels: Mapping[str, float],
    has_findings: bool,
    algorithm: AlgorithmIdentification,
) -> Iterator[MeasurementsAndQualitativeEvaluations]:
    image = SourceImageForMeasurementGroup.from_source_image(source)
    summary = dicom_codes.WITH_FINDINGS if has_findings else dicom_codes.WITHOUT_FINDINGS
    yield MeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(dicom_objects.new_uid(), "Radiograph"),
        algorithm_id=algorithm,
        qualitative_evaluations=[QualitativeEvaluation(dicom_codes.SUMMARY, summary)],
        source_images=[image],
    )
    is_normal = (table.labels == NO_FINDING_CATEGORY) & (NO_FINDING_CATEGORY not in categories)
    probabilities = {name: value for name, value in labels.items() if name != ABNORMAL}
    if is_normal.any():
        probabilities = {NO_FINDING_NAME: float(table.scores[is_normal].max())} | probabilities
    elif ABNORMAL in labels:
        probabilities = {NO_FINDING_NAME: 1 - labels[ABNORMAL]} | probabilities
    for name, probability in probabilities.items():
        yield MeasurementsAndQualitativeEvaluations(
            TrackingIdentifier(dicom_objects.new_uid(), f"Radiograph: {name}"),
            finding_type=dicom_codes.finding_code(name),
            algorithm_id=algorithm,
            measurements=[_certainty(probability)],
            source_images=[image],
        )


def _of_finding(
    source: Dataset, number: int, name: str, box: np.ndarray, score: float, algorithm: AlgorithmIdentification
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    x1, y1, x2, y2 = box.tolist()
    region = ImageRegion(
        GraphicTypeValues.POLYLINE,
        # Closed by ending where it began.
        np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]),
        SourceImageForRegion.from_source_image(source),
    )
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(dicom_objects.new_uid(), f"Finding {number}: {name}"),
        referenced_region=region,
        finding_type=dicom_codes.finding_code(name),
        algorithm_id=algorithm,
        measurements=[_certainty(score)],
    )


def _certainty(probability: float) -> Measurement:
    return Measurement(dicom_codes.CERTAINTY, round(100 * probability, 4), dicom_codes.PERCENT)
