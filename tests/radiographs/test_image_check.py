"""Whether a file is a frontal chest radiograph: header and pixels together, each combination by hand."""

import sys
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from dicom_cases import chest_values, dataset

from xray.radiographs import image_check
from xray.radiographs.decoding import Undecodable, decode_canvases
from xray.radiographs.dicom import read_header_view
from xray.radiographs.frontal import PixelView, weights
from xray.radiographs.header_view import HeaderView
from xray.radiographs.image_check import (
    BACK,
    FRONTAL,
    LATERAL,
    MIRRORED,
    NEGATIVE,
    NO_CHEST,
    NOT_ONE,
    OBLIQUE,
    OTHER_MODALITY,
    OTHER_PART,
    RAW,
    TURNED,
    UNKNOWN,
    Gate,
    check_image,
    fault_of_header,
    is_fault,
    judged,
)
from xray.radiographs.radiograph import RadiographError

TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"
CHEST, NONE, UNSURE = PixelView(0.999), PixelView(1e-9), PixelView(0.4)
SAID_FRONTAL = HeaderView(parts=("chest",), views=("frontal",))


@pytest.mark.parametrize(
    ("header", "pixels", "kind", "reason"),
    [
        (HeaderView(), CHEST, FRONTAL, FRONTAL),
        (HeaderView(), NONE, NO_CHEST, NOT_ONE + "its pixels look like something else"),
        (HeaderView(), UNSURE, UNKNOWN, "not sure that it is a frontal chest radiograph: its pixels do not tell"),
        (SAID_FRONTAL, CHEST, FRONTAL, FRONTAL),
        (SAID_FRONTAL, UNSURE, FRONTAL, FRONTAL),
        (SAID_FRONTAL, NONE, FRONTAL, "its header says chest, frontal, which its pixels do not look like"),
        (HeaderView(parts=("chest",)), CHEST, FRONTAL, FRONTAL),
        (HeaderView(parts=("chest",)), NONE, NO_CHEST,
         NOT_ONE + "its pixels look like something else, of which its header says chest"),
        (HeaderView(views=("frontal",)), CHEST, FRONTAL, FRONTAL),
        (HeaderView(parts=("chest",), views=("lateral",)), CHEST, LATERAL, NOT_ONE + "its header says chest, lateral"),
        (HeaderView(parts=("chest",), views=("oblique",)), NONE, OBLIQUE, NOT_ONE + "its header says chest, oblique"),
        (HeaderView(parts=("chest",), views=("frontal", "lateral")), CHEST, FRONTAL, FRONTAL),
        (HeaderView(views=("lateral",)), CHEST, LATERAL, NOT_ONE + "its header says lateral view"),
        (HeaderView(parts=("hand",)), NONE, OTHER_PART, NOT_ONE + "its header says hand"),
        (HeaderView(parts=("hand",)), UNSURE, OTHER_PART, NOT_ONE + "its header says hand"),
        (HeaderView(parts=("hand",), views=("frontal",)), CHEST, UNKNOWN,
         "its header says hand, frontal, its pixels show a frontal chest"),
        (HeaderView(parts=("chest", "hand")), CHEST, FRONTAL, FRONTAL),
        (HeaderView(parts=("chest", "animal"), views=("frontal",)), UNSURE, OTHER_PART,
         NOT_ONE + "its header says animal, frontal"),
        (HeaderView(modality="CT", parts=("chest",), views=("frontal",)), CHEST, OTHER_MODALITY,
         NOT_ONE + "its header says CT"),
        (HeaderView(modality="fluoroscopy"), CHEST, UNKNOWN,
         "its header says fluoroscopy, its pixels show a frontal chest"),
        (HeaderView(modality="fluoroscopy"), UNSURE, OTHER_MODALITY, NOT_ONE + "its header says fluoroscopy"),
    ],
)  # fmt: skip
def test_header_and_pixels(header: HeaderView, pixels: PixelView, kind: str, reason: str) -> None:
    check = judged(pixels, header)
    assert (check.kind, check.reason) == (kind, reason)
    assert check.is_right == (kind in (FRONTAL, UNKNOWN))
    assert check.fault == ("" if check.is_right else reason)
    assert check.warnings == (() if reason == FRONTAL else (reason,))


def test_a_header_that_says_nothing_never_refuses() -> None:
    assert judged(UNSURE, HeaderView()).is_right
    assert judged(CHEST, HeaderView()).is_right


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_how_it_lies(turn: int) -> None:
    sure = PixelView(0.999, turn, turned=1.0)
    assert judged(sure, SAID_FRONTAL).warnings == (TURNED[turn],)
    assert judged(sure, HeaderView()).fault == TURNED[turn]
    # Where it is not sure that it is turned, or that it is a chest at all, it stays as it is.
    assert judged(PixelView(0.999, turn, turned=0.6), SAID_FRONTAL).is_right
    assert judged(PixelView(0.2, turn, turned=1.0), SAID_FRONTAL).turn == 0
    assert judged(PixelView(0.999, 0, inverted=1.0), SAID_FRONTAL).fault == NEGATIVE


def test_what_headers_say_beside_that() -> None:
    header = HeaderView(parts=("chest",), views=("frontal",), is_mirrored=True, for_processing=True)
    check = judged(CHEST, header)
    assert check.warnings == (RAW, MIRRORED)
    assert check.is_right


def test_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    found = [judged(PixelView(0.999, 1, turned=1.0), HeaderView())]
    monkeypatch.setattr(image_check, "check_image", lambda pixels, header: found[0])
    assert Gate("off").look(pixels, None, "a") is None
    check = Gate("warn").look(pixels, None, "a")
    assert Gate("warn").warnings_of(check) == (TURNED[1],)
    assert Gate("warn").turn_of(check) == 0
    with pytest.raises(RadiographError, match=r"^a\.dcm: its pixels show a chest turned clockwise"):
        Gate("refuse").look(pixels, None, "a.dcm")
    for mode, said in (("refuse", (BACK[1],)), ("warn", (BACK[1],)), ("off", ())):
        gate = Gate(mode, upright=True)
        check = gate.look(pixels, None, "a")
        assert (gate.turn_of(check), gate.warnings_of(check)) == (1, said)
    found[0] = judged(PixelView(0.999, 1, turned=1.0, inverted=1.0), HeaderView())
    with pytest.raises(RadiographError, match="black and white"):
        Gate("refuse", upright=True).look(pixels, None, "a")
    found[0] = judged(NONE, HeaderView())
    with pytest.raises(RadiographError, match="no frontal chest"):
        Gate("refuse", upright=True).look(pixels, None, "a")


def test_what_a_refusal_is_told_by() -> None:
    faults = [
        judged(NONE, HeaderView()), judged(CHEST, HeaderView(modality="CT")),
        judged(UNSURE, HeaderView(parts=("leg",))),
        judged(PixelView(0.999, 2, turned=1.0), HeaderView()), judged(PixelView(0.999, inverted=1.0), HeaderView()),
    ]  # fmt: skip
    assert all(is_fault(check.fault) for check in faults)
    assert not is_fault("it is damaged")


FILES = {
    "CT_small.dcm": "CT", "MR_small.dcm": "MR", "MR_small_RLE.dcm": "MR", "examples_overlay.dcm": "MR",
    "JPEG2000.dcm": "nuclear medicine", "dicomdirtests/77654033/CR1/6154": "spine, lateral",
    "dicomdirtests/77654033/CT2/17106": "CT", "dicomdirtests/98892003/MR1/4919": "MR", "693_J2KI.dcm": "CT",
}  # fmt: skip


def test_pydicoms_slices_and_spines_are_refused_by_name_in_worker_processes() -> None:
    paths = [TEST_FILES / name for name in FILES if (TEST_FILES / name).exists()]
    for path, item in zip(paths, decode_canvases(paths, 32, 1, gate=Gate("refuse")), strict=True):
        assert isinstance(item, Undecodable)
        said = FILES[path.relative_to(TEST_FILES).as_posix()]
        assert item.reason == f"{path.name}: no frontal chest radiograph: its header says {said}"
    warned = [item.warnings for item in decode_canvases(paths, 32, 1, gate=Gate("warn"))]
    assert all(any(text.startswith(NOT_ONE) for text in texts) for texts in warned)


def test_the_header_alone(tmp_path: Path) -> None:
    assert fault_of_header(TEST_FILES / "CT_small.dcm") == "no frontal chest radiograph: its header says CT"
    for elements, fault in (
        ({}, ""),
        ({"BodyPartExamined": "CHEST", "ViewPosition": "PA"}, ""),
        ({"BodyPartExamined": "CHEST", "ViewPosition": "LL"}, NOT_ONE + "its header says chest, lateral"),
        # Devices fill in a part by themselves: the pixels decide.
        ({"BodyPartExamined": "HAND", "ViewPosition": "AP"}, ""),
    ):  # fmt: skip
        dataset(chest_values(24, 20), 12, **elements).save_as(tmp_path / "a.dcm", enforce_file_format=True)
        assert fault_of_header(tmp_path / "a.dcm") == fault


def test_real_files(shared_data: Path) -> None:
    """The dog's thorax of highdicom's test files among them."""
    names = {"cr_chest_monochrome1_jpeg2000": "chest, frontal", "dx_nih_implicit_vr": "",
             "dx_thorax_monochrome1_8bit": "animal, lateral", "vlut_04": "", "mlut_18": ""}  # fmt: skip
    for name, said in names.items():
        assert read_header_view(shared_data / "dicom" / f"{name}.dcm").said == said


def test_looking_needs_no_torch() -> None:
    import subprocess

    code = (
        "import sys, numpy as np; from xray.radiographs.image_check import check_image; "
        "check_image(np.zeros((90, 80), np.uint8)); "
        "assert not {'torch', 'scipy', 'sklearn', 'pandas'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (3, 3), (64, 64), (2000, 30)])
@pytest.mark.parametrize("kind", ["black", "white", "noise", "words"])
def test_any_pixels_can_be_looked_at(shape: tuple[int, int], kind: str) -> None:
    rng = np.random.default_rng(0)
    pixels = {
        "black": np.zeros(shape, np.uint8), "white": np.full(shape, 255, np.uint8),
        "noise": rng.integers(0, 256, shape, dtype=np.uint8), "words": rng.integers(0, 65536, shape, dtype=np.uint16),
    }[kind]  # fmt: skip
    check = check_image(pixels)
    assert 0 <= check.frontal <= 1
    assert check.kind in (UNKNOWN, NO_CHEST, FRONTAL)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_empty_exposure_is_no_chest(level: int) -> None:
    pixels = np.full((200, 180), level, np.uint8)
    pixels[0, 0] = 255 - level
    assert check_image(pixels).kind == NO_CHEST
    assert check_image(pixels, SAID_FRONTAL).warnings == (
        "its header says chest, frontal, which its pixels do not look like",
    )


def test_the_thresholds_are_in_order() -> None:
    none, one, turned, negative = weights()["thresholds"].tolist()
    assert 0 < none < one <= turned < 1
    assert 0.5 < negative < 1
