"""Presentation states: valid, read and rendered by dcmtk as the models saw the image, and drawn back to the pixel."""

import os
import subprocess

import cv2
import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_sources import (
    ALGORITHM,
    NAMES,
    REAL,
    assert_valid,
    blob,
    dicom_source,  # noqa: F401 (a fixture)
    found,
    program,
    some_findings,
    write_phantom,
)
from matplotlib.path import Path as Outline

from xray.errors import InputError
from xray.outputs.dicom import gsps
from xray.outputs.dicom.gsps import presentation_state
from xray.outputs.dicom.objects import Algorithm, read_source, save_object
from xray.radiographs.radiograph import read_radiograph
from xray.radiographs.softcopy import Softcopy
from xray.structures.boxes import BoxTable

GSPS = "1.2.840.10008.5.1.4.1.1.11.1"


def state_of(path, table=None, masks=None, labels=None, **options):
    softcopy = read_radiograph(path).softcopy
    findings = found(BoxTable.empty() if table is None else table, masks, labels=labels or {})
    return presentation_state(read_source(path), softcopy, findings, ALGORITHM, **options)


def written(dataset, path):
    save_object(path, dataset)
    return pydicom.dcmread(path)


def lines_of(read, layer):
    """The polylines of a layer, each (N, 2) points."""
    items = [item for item in read.GraphicAnnotationSequence if item.GraphicLayer == layer]
    lines = [line for item in items for line in item.get("GraphicObjectSequence", [])]
    assert {(line.GraphicAnnotationUnits, line.GraphicType, line.GraphicFilled) for line in lines} <= {
        ("PIXEL", "POLYLINE", "N")
    }
    return [np.array(line.GraphicData).reshape(-1, 2) for line in lines]


def texts_of(read, layer):
    items = [item for item in read.GraphicAnnotationSequence if item.GraphicLayer == layer]
    return [text for item in items for text in item.get("TextObjectSequence", [])]


def test_a_state_is_valid_and_refers_to_its_image(source, tmp_path):
    radiograph = read_radiograph(source)
    width, height = radiograph.width, radiograph.height
    table = some_findings(width, height, 5)
    read = written(state_of(source, table, {0: blob(width, height, 0.5, 0.5, 0.2)}), tmp_path / "gsps.dcm")
    assert_valid(tmp_path / "gsps.dcm")

    header = pydicom.dcmread(source, stop_before_pixels=True)
    assert (read.SOPClassUID, read.Modality) == (GSPS, "PR")
    assert "not for clinical use" in read.SeriesDescription
    assert read.StudyInstanceUID == header.StudyInstanceUID
    assert read.SeriesInstanceUID != header.SeriesInstanceUID
    assert read.PatientID == (header.get("PatientID") or "")
    assert str(read.PatientName) == str(header.get("PatientName") or "")
    (series,) = read.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == header.SeriesInstanceUID
    (image,) = series.ReferencedImageSequence
    assert (image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID) == (header.SOPClassUID, header.SOPInstanceUID)
    (area,) = read.DisplayedAreaSelectionSequence
    assert area.DisplayedAreaTopLeftHandCorner == [1, 1]
    assert area.DisplayedAreaBottomRightHandCorner == [width, height]
    assert area.PresentationSizeMode == "SCALE TO FIT"
    assert read.PresentationLUTShape == ("INVERSE" if radiograph.softcopy.is_inverted else "IDENTITY")
    note = texts_of(read, "NOTE")[0]
    assert note.UnformattedTextValue == "AI findings, not for clinical use (xray 0.1.0); No finding 0.12"
    # In the colours of the page and of the overlays, a layer for each finding.
    layers = {layer.GraphicLayer: layer for layer in read.GraphicLayerSequence}
    assert [layers[f"FINDING_{number}"].GraphicLayerDescription for number in range(1, 6)] == list(NAMES.values())[:5]
    assert len({layer.GraphicLayerOrder for layer in layers.values()}) == len(layers) == 6
    colour = layers["FINDING_1"].GraphicLayerRecommendedDisplayCIELabValue
    assert hd.color.CIELabColor.from_dicom_value(colour).to_rgb(clip=True) == pytest.approx((230, 159, 0), abs=1)


def test_boxes_drawn_back_onto_the_source_cover_its_pixels_and_no_others(tmp_path):
    """Hand-worked: PIXEL counts corners of pixels from 0, so a box of pixels 10 … 30 and 20 … 46 ends at 31 and 47."""
    path = write_phantom(tmp_path / "phantom.dcm")
    boxes = [(10, 20, 31, 47), (0, 0, 120, 96), (119, 95, 120, 96), (3, 0, 4, 96)]
    table = BoxTable.of([0] * 4, [1, 2, 3, 4], boxes, [0.9, 0.8, 0.7, 0.6])
    read = written(state_of(path, table), tmp_path / "gsps.dcm")
    (line,) = lines_of(read, "FINDING_1")
    assert line.tolist() == [[10, 20], [31, 20], [31, 47], [10, 47], [10, 20]]
    centres = np.stack(np.meshgrid(np.arange(120) + 0.5, np.arange(96) + 0.5), -1).reshape(-1, 2)
    for number, (x1, y1, x2, y2) in enumerate(boxes, 1):
        (line,) = lines_of(read, f"FINDING_{number}")
        outline = line.astype(np.float32)
        inside = [cv2.pointPolygonTest(outline, (float(x), float(y)), False) > 0 for x, y in centres]
        expected = np.zeros((96, 120), dtype=bool)
        expected[y1:y2, x1:x2] = True
        np.testing.assert_array_equal(np.array(inside).reshape(96, 120), expected)
        (text,) = texts_of(read, f"FINDING_{number}")
        assert text.UnformattedTextValue == f"{NAMES[number]} 0.{10 - number}0"
        assert text.AnchorPoint[0] <= x2
        assert text.AnchorPoint[1] <= y2


def test_names_cover_neither_each_other_nor_leave_the_image(tmp_path):
    path = write_phantom(tmp_path / "phantom.dcm", width=640, height=480)
    read = written(state_of(path, some_findings(640, 480, 8)), tmp_path / "gsps.dcm")
    texts = [text for number in range(1, 9) for text in texts_of(read, f"FINDING_{number}")]
    assert len(texts) == 8
    covered = np.zeros((480, 640), int)
    for text in texts:
        (x1, y1), (x2, y2) = text.BoundingBoxTopLeftHandCorner, text.BoundingBoxBottomRightHandCorner
        assert 0 <= x1 < x2 <= 640
        assert 0 <= y1 < y2 <= 480
        covered[int(y1) : int(y2), int(x1) : int(x2)] += 1
    assert covered.max() == 1


@pytest.mark.parametrize("most", [8000, 7])
def test_outlines_drawn_back_onto_the_source_are_the_mask(tmp_path, monkeypatch, most):
    """By the even-odd rule; holes, single pixels, the border, and lines that are too long for one element."""
    monkeypatch.setattr(gsps, "MOST_POINTS", most)
    path = write_phantom(tmp_path / "phantom.dcm")
    mask = blob(120, 96, 0.5, 0.5, 0.4)
    mask[40:60, 50:70] = 0
    mask[45, 55] = mask[0, 0] = mask[95, 119] = mask[1, 1] = 1
    table = BoxTable.of([0], [13], [[0, 0, 120, 96]], [0.9])
    read = written(state_of(path, table, {0: mask}), tmp_path / "gsps.dcm")
    assert_valid(tmp_path / "gsps.dcm")
    assert [layer.GraphicLayerDescription for layer in read.GraphicLayerSequence] == [NAMES[13], "not for clinical use"]
    (_, *pieces), outlines = lines_of(read, "FINDING_1"), []  # the first is the box
    assert max(map(len, pieces)) <= most
    for piece in pieces:
        # A piece that begins where the one before ended goes on with it, unless that was closed.
        if outlines and (outlines[-1][0] != outlines[-1][-1]).any():
            assert (outlines[-1][-1] == piece[0]).all()
            outlines[-1] = np.concatenate([outlines[-1], piece[1:]])
        else:
            outlines.append(piece)
    assert all((outline[0] == outline[-1]).all() for outline in outlines)
    centres = np.stack(np.meshgrid(np.arange(120) + 0.5, np.arange(96) + 0.5), -1).reshape(-1, 2)
    inside = np.logical_xor.reduce([Outline(outline).contains_points(centres) for outline in outlines])
    np.testing.assert_array_equal(inside.reshape(96, 120), mask.astype(bool))


def test_masks_of_another_size_are_refused(tmp_path):
    path = write_phantom(tmp_path / "phantom.dcm")
    with pytest.raises(InputError, match=r"\(96, 121\).*for an image of \(96, 120\)"):
        state_of(path, some_findings(120, 96, 1), {0: np.zeros((96, 121), np.uint8)})


def test_nothing_found_is_said(tmp_path):
    path = write_phantom(tmp_path / "phantom.dcm")
    read = written(state_of(path, labels={"Effusion \\ left\n": 0.75, "Mass": 0.1}), tmp_path / "gsps.dcm")
    assert_valid(tmp_path / "gsps.dcm")
    (annotation,) = read.GraphicAnnotationSequence
    said = annotation.TextObjectSequence[0].UnformattedTextValue
    assert said == "AI findings, not for clinical use (xray 0.1.0); no finding marked from 0.3; Effusion left 0.75"


def test_names_of_ones_own_are_written_whole(tmp_path):
    path = write_phantom(tmp_path / "phantom.dcm", PatientName="")
    table, names = BoxTable.of([0], [1], [[5, 5, 50, 50]], [0.9]), {1: "Verschattung über \\ 胸"}
    state = presentation_state(read_source(path), Softcopy(window=(10, 20)), found(table, names=names), ALGORITHM)
    read = written(state, tmp_path / "gsps.dcm")
    assert_valid(tmp_path / "gsps.dcm")
    assert texts_of(read, "FINDING_1")[0].UnformattedTextValue == "Verschattung über 胸 0.90"


def test_the_same_image_and_model_give_the_same_object(tmp_path):
    path, table = write_phantom(tmp_path / "phantom.dcm"), some_findings(120, 96, 3)
    one, two = (state_of(path, table) for _ in range(2))
    assert (one.SeriesInstanceUID, one.SOPInstanceUID) == (two.SeriesInstanceUID, two.SOPInstanceUID)
    for state in (one, two):
        state.walk(lambda data, element: data.pop(element.tag) if element.VR in ("DA", "TM", "DT") else None)
    assert one == two
    softcopy, source = read_radiograph(path).softcopy, read_source(path)
    others = [
        state_of(path, table, threshold=0.5),
        presentation_state(source, softcopy, found(table), Algorithm("xray", "0.1.0", {"model 1": "other"})),
        state_of(write_phantom(tmp_path / "other.dcm"), table),
    ]
    assert len({other.SOPInstanceUID for other in (one, *others)}) == 4


def test_nothing_else_of_the_source_is_taken_over(tmp_path):
    path = write_phantom(
        tmp_path / "source.dcm", PatientComments="planted comment", InstitutionName="planted", Manufacturer="planted",
        StudyDescription="planted", DerivationDescription="planted", StationName="planted", OperatorsName="planted",
    )  # fmt: skip
    save_object(tmp_path / "made.dcm", state_of(path, some_findings(120, 96, 3)))
    assert b"planted" not in (tmp_path / "made.dcm").read_bytes().lower()


# How it is shown


KINDS = {
    "8 bits": {"bits": 8},
    "12 bits, MONOCHROME1": {"bits": 12, "monochrome1": True},
    "16 bits, CR, MONOCHROME1": {"bits": 16, "monochrome1": True, "computed": True},
    "windows": {"WindowCenter": [1000, 2000], "WindowWidth": [1500, 300]},
    "first window unusable": {"WindowCenter": [1000, 2000], "WindowWidth": [0, 3000]},
    "exact": {"WindowCenter": 2000, "WindowWidth": 1234, "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"},
    "signed, sigmoid": {
        "PixelRepresentation": 1, "RescaleSlope": 0.25, "RescaleIntercept": -100, "WindowCenter": -50,
        "WindowWidth": 600, "VOILUTFunction": "SIGMOID",
    },
    "no window": {"WindowCenter": None, "WindowWidth": None},
    "no window, padding": {"WindowCenter": None, "WindowWidth": None, "PixelPaddingValue": 0},
    "threshold": {"WindowCenter": 2000, "WindowWidth": 1},
    "signed, slope": {
        "PixelRepresentation": 1, "RescaleSlope": 0.25, "RescaleIntercept": -100, "WindowCenter": -50,
        "WindowWidth": 600,
    },
    "window that shows nothing": {"WindowCenter": 60000, "WindowWidth": 10},
}  # fmt: skip


def sequence_of(first, entries, bits, explanation):
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries, "<u2").tobytes())
    setattr(item, *explanation)
    return [item]


RAMP = np.round(1023 * np.linspace(0, 1, 3000) ** 0.5)
KINDS["VOI LUT of 10 bits announced as 16"] = {"VOILUTSequence": sequence_of(500, RAMP, 16, ("LUTExplanation", "ramp"))}
KINDS["VOI LUT of 5 bits"] = {"VOILUTSequence": sequence_of(0, RAMP // 33, 5, ("LUTExplanation", "ramp"))}
KINDS["modality LUT"] = {
    "RescaleSlope": None, "RescaleIntercept": None, "RescaleType": None, "WindowCenter": 30000, "WindowWidth": 50000,
    "ModalityLUTSequence": sequence_of(100, RAMP * 60, 16, ("ModalityLUTType", "US")),
}  # fmt: skip


def table_of(item, values):
    n_entries, first, bits = item.LUTDescriptor
    entries = np.frombuffer(item.LUTData, "<u2")
    assert len(entries) == n_entries
    assert bits == 16
    return entries[np.clip(np.rint(values - first), 0, n_entries - 1).astype(int)].astype(float), bits


def shown(path, state):
    """The greys that the standard asks a viewer to show, of 0 to 255, with nothing but the state and the pixels."""
    values = pydicom.dcmread(path).pixel_array.astype(float)
    if "ModalityLUTSequence" in state:
        values, _ = table_of(state.ModalityLUTSequence[0], values)
    else:
        values = values * float(state.RescaleSlope) + float(state.RescaleIntercept)
    (voi,) = state.SoftcopyVOILUTSequence
    if "VOILUTSequence" in voi:
        entries, bits = table_of(voi.VOILUTSequence[0], values)
        grey = entries / (2**bits - 1)
    else:
        centre, width = float(voi.WindowCenter), float(voi.WindowWidth)
        assert "VOILUTFunction" not in voi
        inside = (values - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
        grey = np.where(values <= low, 0, np.where(values > high, 1, inside))
    return 255 * (1 - grey if state.PresentationLUTShape == "INVERSE" else grey)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_the_window_is_the_one_that_the_models_saw(tmp_path, kind):
    path = write_phantom(tmp_path / "phantom.dcm", PatientName="Phantom^One", **KINDS[kind])
    state = written(state_of(path), tmp_path / "gsps.dcm")
    assert_valid(tmp_path / "gsps.dcm")
    seen = read_radiograph(path).pixels
    is_padding = pydicom.dcmread(path).pixel_array == (0 if "padding" in kind else -1)
    assert len(np.unique(seen)) > 1
    np.testing.assert_allclose(shown(path, state)[~is_padding], seen[~is_padding], atol=0.51)
    assert not seen[is_padding].any()


def rendered(path, state_path, folder):
    """What dcmtk's dcmp2pgm shows, (H, W) uint8."""
    picture = folder / "shown.pgm"
    command = [program("dcmp2pgm", "dcmtk"), "-p", state_path, path, picture]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return cv2.imread(str(picture), cv2.IMREAD_UNCHANGED)


def assert_dcmtk_takes(path):
    done = subprocess.run([program("dcmpschk", "dcmtk"), path], capture_output=True, text=True, timeout=600)
    assert "Test passed" in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_dcmtk_shows_what_the_models_saw(tmp_path, kind):
    path = write_phantom(tmp_path / "phantom.dcm", PatientName="Phantom^One", **KINDS[kind])
    written(state_of(path, some_findings(120, 96, 3), {0: blob(120, 96, 0.5, 0.5, 0.2)}), tmp_path / "gsps.dcm")
    assert_dcmtk_takes(tmp_path / "gsps.dcm")
    seen, found = read_radiograph(path).pixels, rendered(path, tmp_path / "gsps.dcm", tmp_path)
    assert np.abs(found.astype(int) - seen).max() <= 1


@pytest.mark.parametrize("name", [name for name in REAL if "jpeg" not in name])
def test_dcmtk_shows_real_files_as_the_models_saw_them(shared_data, tmp_path, name):
    path = shared_data / "dicom" / name
    written(state_of(path), tmp_path / "gsps.dcm")
    assert_dcmtk_takes(tmp_path / "gsps.dcm")
    seen, found = read_radiograph(path).pixels, rendered(path, tmp_path / "gsps.dcm", tmp_path)
    assert np.abs(found.astype(int) - seen).max() <= 1


def test_dcmtk_prints_it(tmp_path):
    path = write_phantom(tmp_path / "phantom.dcm", PatientName="Phantom^One", monochrome1=True)
    written(state_of(path, some_findings(120, 96, 3)), tmp_path / "gsps.dcm")
    database = tmp_path / "database"
    database.mkdir()
    (tmp_path / "printer.cfg").write_text(
        f"[[GENERAL]]\n[DATABASE]\nDIRECTORY = {database}\n[[COMMUNICATION]]\n[PRINTER]\nHOSTNAME = localhost\n"
        "PORT = 10005\nAETITLE = PRINTER\nDESCRIPTION = none\nTYPE = PRINTER\nDISPLAYFORMAT = 1,1\nMAXPDU = 16384\n"
    )
    command = [program("dcmpsprt", "dcmtk"), "-c", tmp_path / "printer.cfg", "--printer", "PRINTER"]
    command += ["+p", tmp_path / "gsps.dcm", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode == 0, done.stderr
    (hardcopy,) = database.glob("HG_*")
    printed = pydicom.dcmread(hardcopy)
    grey = printed.pixel_array / (2**printed.BitsStored - 1) * 255
    assert np.abs(grey - read_radiograph(path).pixels).max() <= 1


@pytest.mark.parametrize(
    ("elements", "ratio"),
    [
        ({"PixelSpacing": [0.2, 0.1]}, [2, 1]),
        ({"PixelSpacing": [0.1, 0.25]}, [2, 5]),
        ({"PixelSpacing": [0.143, 0.143]}, [1, 1]),
        ({"PixelSpacing": None, "ImagerPixelSpacing": None, "PixelAspectRatio": [4, 3]}, [4, 3]),
        ({"PixelSpacing": None, "ImagerPixelSpacing": None}, [1, 1]),
        ({"PixelSpacing": [0.0000001, 1]}, [1, 1]),
    ],
)
def test_pixels_that_are_no_squares_are_shown_as_they_are(tmp_path, elements, ratio):
    path = write_phantom(tmp_path / "phantom.dcm", **elements)
    read = written(state_of(path), tmp_path / "gsps.dcm")
    assert_valid(tmp_path / "gsps.dcm")
    # Height and width of a pixel.
    assert read.DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio == ratio
