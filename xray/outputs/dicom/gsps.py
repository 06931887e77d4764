"""The findings of one radiograph as a Grayscale Softcopy Presentation State (GSPS), which a viewer draws over it.

Boxes and outlines of masks are closed polylines in PIXEL units, which count from the top left corner of the top left
pixel (0, 0) to the bottom right corner of the bottom right one (Columns, Rows), as boxes do here (PS3.3 C.10.5). The
displayed area counts pixels from 1 (C.10.4). Each finding has a layer of its own, in its colour, so that a viewer can
hide it. Masks are drawn by their outlines and not filled, so that they hide nothing of the lung that they mark.
"""

from collections.abc import Mapping

import numpy as np
from highdicom import PresentationLUTTransformation
from highdicom.color import CIELabColor
from highdicom.pr import (
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GrayscaleSoftcopyPresentationState,
    TextObject,
)
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from xray.errors import InputError
from xray.findings import NO_FINDING_NAME, colour_of
from xray.outputs.dicom import codes as dicom_codes
from xray.outputs.dicom import objects as dicom_objects
from xray.outputs.dicom.objects import Algorithm
from xray.outputs.dicom.plain_images import plain_image, refer_to
from xray.outputs.dicom.reported import Reported, probabilities_of, reported
from xray.outputs.pictures.tags import Rectangle, nearest, place_tag, touch
from xray.radiographs.grayscale import LookupTable
from xray.radiographs.softcopy import Softcopy
from xray.structures.outlines import all_outlines
from xray.structures.radiograph_findings import RadiographFindings

SERIES_NUMBER = 9903
SERIES_DESCRIPTION = f"xray boxes and outlines, {dicom_objects.NOT_FOR_CLINICAL_USE}"
LABEL = "XRAY_FINDINGS"
NOTE_LAYER = "NOTE"
NOTE_COLOUR = "#FFD400"
NOTE_BOX = (0.0, 0.0, 1.0, 0.04)
"""Left, top, right and bottom of the note, as shares of the displayed area."""
MOST_POINTS = 8000
"""Points of a polyline: the length of its coordinates, 8 bytes a point, is written in 16 bits."""


@dicom_objects.quietly()
def presentation_state(
    source: Dataset,
    softcopy: Softcopy,
    findings: RadiographFindings,
    algorithm: Algorithm,
    threshold: float = 0.3,
    edition: str = "",
) -> Dataset:
    """The presentation state of one radiograph.

    source: the data set of its DICOM file, with or without pixels; `dicom_objects` tells what is taken over of it.
    softcopy: how its values become grey, of `read_radiograph`.
    threshold: lowest score of a finding that is shown. edition: sets presentation states of other findings than those
    of the algorithm apart, by their identifiers.

    Raises InputError where the source does not say which image of which study it is, or masks have another size.
    """
    source, masks = dicom_objects.reduced(source), findings.joined_masks(threshold)
    size = (source.Columns, source.Rows)
    if any(mask.shape != size[::-1] for mask in masks.values()):
        shapes = sorted({mask.shape for mask in masks.values()})
        raise InputError(f"masks of (rows, columns) {shapes} for an image of {size[::-1]}: they must be of its size")
    rows = reported(findings, threshold, size)
    names = {label: findings.name_of(label) for label in sorted({*masks, *(r.label for r in rows)})}
    dicom_objects.in_unicode(source, *names.values(), *findings.labels)
    # Of grey images alone is there a softcopy.
    source.SamplesPerPixel = 1
    original, source = source, plain_image(source)
    layers = {label: _layer(number, label, name) for number, (label, name) in enumerate(names.items(), 1)}
    note_layer = GraphicLayer(
        NOTE_LAYER, len(layers) + 1, dicom_objects.NOT_FOR_CLINICAL_USE, CIELabColor.from_string(NOTE_COLOUR)
    )
    tags = _tags(rows, size)
    annotations = [
        _annotation(source, layer, [row for row in rows if row.label == label], masks.get(label), tags)
        for label, layer in layers.items()
    ]
    note = TextObject(_note(rows, findings, threshold, algorithm), "DISPLAY", NOTE_BOX, None, "LEFT")
    result = GrayscaleSoftcopyPresentationState(
        referenced_images=[source],
        series_number=SERIES_NUMBER,
        series_description=SERIES_DESCRIPTION,
        content_label=LABEL,
        content_description=f"Found by software, {dicom_objects.NOT_FOR_CLINICAL_USE}",
        graphic_annotations=[
            *(annotation for annotation in annotations if annotation is not None),
            GraphicAnnotation([source], note_layer, text_objects=[note]),
        ],
        graphic_layers=[*layers.values(), note_layer],
        presentation_lut_transformation=PresentationLUTTransformation(
            presentation_lut_shape="INVERSE" if softcopy.is_inverted else "IDENTITY"
        ),
        **dicom_objects.common_attributes(
            source, "GSPS", algorithm, dicom_objects.edition_with(f"{threshold:g} {edition}", findings.notes)
        ),
    )
    result.DisplayedAreaSelectionSequence[0].PixelOriginInterpretation = "FRAME"
    result.DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio = list(softcopy.aspect)
    refer_to(result, original)
    # It has no laterality.
    result.BodyPartExamined = "CHEST"
    _add_grey(result, softcopy)
    return result


def _layer(number: int, label: int, name: str) -> GraphicLayer:
    # A meaning has 64 characters at most and none that is no text, as a description must.
    description = dicom_codes.finding_code(name).meaning if name not in dicom_codes.FINDING_CODES else name
    return GraphicLayer(f"FINDING_{number}", number, description, CIELabColor.from_string(colour_of(label)))


def _annotation(
    source: Dataset,
    layer: GraphicLayer,
    rows: list[Reported],
    mask: np.ndarray | None,
    tags: Mapping[int, Rectangle | None],
) -> GraphicAnnotation | None:
    """The boxes, names and outlines of one finding; None where its mask is empty and it has no box."""
    lines = [_polyline(np.array(_corners(row.box))) for row in rows]
    for outline in [] if mask is None else all_outlines(mask):
        closed = np.concatenate([outline, outline[:1]]).astype(np.float64)
        # Pieces that go on where the one before ended.
        starts = range(0, len(closed) - 1, MOST_POINTS - 1)
        lines += [_polyline(closed[start : start + MOST_POINTS]) for start in starts]
    texts = [_text(row, tags[row.row]) for row in rows]
    return GraphicAnnotation([source], layer, graphic_objects=lines, text_objects=texts) if lines else None


def _corners(box: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    x1, y1, x2, y2 = box
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]


def _polyline(points: np.ndarray) -> GraphicObject:
    return GraphicObject("POLYLINE", points, "PIXEL")


def _tags(rows: list[Reported], size: tuple[int, int]) -> dict[int, Rectangle | None]:
    """Row of the table → the pixels in which its name is written, so that names cover neither each other nor boxes."""
    height = min(max(8, round(max(size) / 60)), size[1])
    boxes = [_pixels_of(row.box) for row in rows]
    taken: list[Rectangle] = []
    places: dict[int, Rectangle | None] = {}
    for row, box in zip(rows, boxes, strict=True):
        width = min(round(0.62 * height * len(_words(row))), size[0])
        place = places[row.row] = place_tag((width, height), box, boxes, taken, size)
        if place is not None:
            taken.append(place)
    return places


def _pixels_of(box: tuple[float, float, float, float]) -> Rectangle:
    """The first and the last pixel of a box in both directions."""
    x1, y1, x2, y2 = (round(value) for value in box)
    return x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)


def _words(row: Reported) -> str:
    return f"{_text_of(row.name)} {row.score:.2f}"


def _text_of(name: str) -> str:
    """A name as text of DICOM, in which a backslash parts values, and control characters have a meaning."""
    return " ".join("".join(one if one.isprintable() and one != "\\" else " " for one in name).split())[:200]


def _text(row: Reported, place: Rectangle | None) -> TextObject:
    x1, y1, _, _ = row.box
    if place is None:
        # No room is left: the viewer finds some.
        return TextObject(_words(row), "PIXEL", None, (x1, y1))
    is_beside = touch(place, _pixels_of(row.box))
    at = (x1, y1) if is_beside else nearest(_pixels_of(row.box), place)
    bounds = (float(place[0]), float(place[1]), place[2] + 1.0, place[3] + 1.0)
    return TextObject(_words(row), "PIXEL", bounds, (float(at[0]), float(at[1])), "LEFT", not is_beside)


def _note(rows: list[Reported], findings: RadiographFindings, threshold: float, algorithm: Algorithm) -> str:
    """The line at the upper edge: what this is, and what is said of the whole radiograph."""
    wholes = [
        f"{_text_of(name)} {value:.2f}"
        for name, value in probabilities_of(findings).items()
        if name == NO_FINDING_NAME or value >= threshold
    ]
    nothing = [] if rows else ["no finding marked" + (f" from {threshold:g}" if threshold else "")]
    what = f"AI findings, {dicom_objects.NOT_FOR_CLINICAL_USE} ({algorithm.name} {algorithm.version})"
    return "; ".join([what, *findings.notes, *nothing, *wholes])[:1024]


def _add_grey(result: Dataset, softcopy: Softcopy) -> None:
    """The modality LUT and softcopy VOI LUT modules (PS3.3 C.11.1, C.11.8)."""
    if softcopy.modality_lut is not None:
        item = _table_item(softcopy.modality_lut)
        item.ModalityLUTType = "US"
        result.ModalityLUTSequence = [item]
    else:
        # Not of the image: without it, there is none.
        result.RescaleIntercept = DSfloat(softcopy.intercept, auto_format=True)
        result.RescaleSlope = DSfloat(softcopy.slope, auto_format=True)
        result.RescaleType = "US"
    item = Dataset()
    if softcopy.voi_lut is not None:
        item.VOILUTSequence = [_table_item(softcopy.voi_lut)]
    elif softcopy.window is not None:
        item.WindowCenter, item.WindowWidth = (DSfloat(value, auto_format=True) for value in softcopy.window)
    result.SoftcopyVOILUTSequence = [item]


def _table_item(table: LookupTable) -> Dataset:
    # Entries have 8 or 16 bits, whatever the source says. A count of 65,536 is written as 0. Signed numbers have a type
    # of their own, which holds counts up to 32,767.
    n_entries = len(table.entries)
    item, first = Dataset(), table.first
    is_signed = first < 0 and n_entries < 2**15
    item.add_new(
        "LUTDescriptor", "SS" if is_signed else "US", [n_entries % 2**16, first if is_signed else first % 2**16, 16]
    )
    item.add_new("LUTData", "OW", table.entries.astype("<u2").tobytes())
    return item
