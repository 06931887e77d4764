"""Side markers: letters drawn into phantoms, whatever else is bright, and real radiographs as they are and mirrored."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.phantoms import drawing
from xray.phantoms.drawing import draw_phantom
from xray.radiographs import image_check, side_marker
from xray.radiographs.frontal import look
from xray.radiographs.image_check import FRONTAL, MARKED, MIRRORED, Gate, check_image
from xray.radiographs.radiograph import read_radiograph
from xray.radiographs.side_marker import (
    LETTERS,
    MOST,
    SIDE,
    SideMarker,
    candidates,
    letters_of,
    pieces,
    probabilities,
    read_marker,
    weights,
)

FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX)


@pytest.fixture(scope="module")
def chests() -> list[np.ndarray]:
    """Phantoms without markers, (H, W) uint8, 700 to 900 pixels a side."""
    sizes = [(760, 820), (900, 760), (700, 900)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "mark_side", lambda *_: None)
        return [
            (draw_phantom((31, number), *size, (number,)).pixels * 255).astype(np.uint8)
            for number, size in enumerate(sizes)
        ]


def marked(
    pixels: np.ndarray,
    letter: str,
    place: tuple[float, float],
    *,
    mirrored: bool = False,
    size: float = 0.035,
    grey: int = 245,
    font: int = cv2.FONT_HERSHEY_DUPLEX,
    angle: float = 0,
) -> np.ndarray:
    """With a letter in a patch whose middle is at shares of width and height; size: its height, of the shorter side."""
    height, width = pixels.shape
    large = 200
    (wide, tall), _ = cv2.getTextSize(letter, font, large / 22, 26)
    patch = np.zeros((tall + 160, wide + 160), np.uint8)
    cv2.putText(patch, letter, (80, tall + 80), font, large / 22, 255, 26, cv2.LINE_AA)
    middle = (patch.shape[1] / 2, patch.shape[0] / 2)
    patch = cv2.warpAffine(patch, cv2.getRotationMatrix2D(middle, angle, 1), patch.shape[::-1])
    patch = patch[:, ::-1] if mirrored else patch
    rows, columns = np.flatnonzero(patch.any(axis=1)), np.flatnonzero(patch.any(axis=0))
    patch = patch[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = size * min(height, width) / tall
    patch = cv2.resize(np.ascontiguousarray(patch), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    top, left = round(place[1] * height - len(patch) / 2), round(place[0] * width - patch.shape[1] / 2)
    result = pixels.copy()
    area = result[top : top + len(patch), left : left + patch.shape[1]]
    share = patch[: area.shape[0], : area.shape[1]] / 255
    area[:] = np.maximum(area, np.round(area * (1 - share) + grey * share)).astype(np.uint8)
    return result


@st.composite
def markers(draw: st.DrawFn) -> dict:
    """How a marker is drawn."""
    at_left = draw(st.booleans())
    x = draw(st.floats(0.05, 0.16))
    return {
        "letter": draw(st.sampled_from("RL")), "mirrored": draw(st.booleans()), "font": draw(st.sampled_from(FONTS)),
        "place": (x if at_left else 1 - x, draw(st.floats(0.05, 0.3))), "size": draw(st.floats(0.022, 0.045)),
        "grey": draw(st.integers(170, 255)), "angle": draw(st.floats(-8, 8)),
    }  # fmt: skip


@settings(max_examples=60)
@given(how=markers(), number=st.integers(0, 2), is_wide=st.booleans())
def test_what_is_read_is_what_was_drawn_where_it_was_drawn(chests, how, number, is_wide) -> None:
    pixels = marked(chests[number], **how)
    if is_wide:
        pixels = pixels.astype(np.uint16) * 37 + 900
    marker = read_marker(pixels)
    if marker is None:  # a letter over bones may not be told; how many are is counted below
        return
    assert marker.letter == how["letter"]
    assert marker.is_mirrored == how["mirrored"]
    assert marker.is_at_left == (how["place"][0] < 0.5)
    assert marker.is_on_its_side == (marker.is_at_left == (how["letter"] == "R"))
    height, width = pixels.shape
    assert abs(marker.x / width - how["place"][0]) < 0.02
    assert abs(marker.y / height - how["place"][1]) < 0.02


@pytest.mark.parametrize(("letter", "mirrored"), LETTERS)
def test_most_letters_are_read(letter: str, mirrored: bool, chests: list[np.ndarray]) -> None:
    read = []
    for pixels in chests:
        for font in FONTS:
            for size in (0.024, 0.034, 0.042):
                for x in (0.08, 0.92):
                    marker = read_marker(marked(pixels, letter, (x, 0.07), mirrored=mirrored, font=font, size=size))
                    read.append(marker is not None)
    assert np.mean(read) > 0.75


def test_letters_in_large_radiographs_and_small_ones(chests: list[np.ndarray]) -> None:
    pixels = marked(chests[0], "R", (0.93, 0.08))
    for side in (400, 2400):
        shape = (side, round(side * 1.1))
        marker = read_marker(cv2.resize(pixels, shape, interpolation=cv2.INTER_CUBIC))
        assert marker is not None
        assert (marker.letter, marker.is_mirrored, marker.is_at_left) == ("R", False, False)
        assert abs(marker.x / shape[0] - 0.93) < 0.01


def test_the_mirrored_radiograph_has_the_mirrored_answer() -> None:
    squares = np.random.default_rng(0).uniform(0, 255, (5, SIDE, SIDE)).astype(np.float32)
    shares = probabilities(squares, weights())
    assert shares.shape == (5, 4)
    assert np.all(shares >= 0)
    assert np.all(shares.sum(axis=1) <= 1 + 1e-6)
    np.testing.assert_allclose(probabilities(squares[:, :, ::-1], weights()), shares[:, [2, 3, 0, 1]], atol=1e-5)


def test_the_network_is_that_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    values = {name: torch.from_numpy(value) for name, value in weights().items()}
    x = np.random.default_rng(0).normal(0, 1, (3, 1, SIDE, SIDE)).astype(np.float32)
    y = torch.from_numpy(x)
    for number in range(3):
        weight = values[f"conv{number}.weight"]
        y = torch.relu(
            torch.nn.functional.conv2d(y, weight, values[f"conv{number}.bias"], 2, padding=weight.shape[-1] // 2)
        )
    y = torch.relu(torch.nn.functional.linear(y.flatten(1), values["dense0.weight"], values["dense0.bias"]))
    y = torch.nn.functional.linear(y, values["dense1.weight"], values["dense1.bias"])
    np.testing.assert_allclose(side_marker.network(x, weights()), y.numpy(), rtol=1e-4, atol=1e-4)


def test_pieces_hold_the_box_in_their_middle_half() -> None:
    pixels = np.zeros((300, 240), np.uint8)
    pixels[100:120, 40:50] = 200
    boxes = np.array([[40, 100, 10, 20], [0, 0, 8, 20]], np.float32)
    (square, corner) = pieces(pixels, boxes, side=40)
    assert square.shape == (40, 40)
    assert (square[10:30, 15:25] == 200).all()
    assert square.sum() == 200 * 20 * 10
    assert (corner == 0).all()


@pytest.mark.parametrize("text", ["PA", "AP", "D", "G", "E", "B", "P", "T", "J", "I", "7", "4", "0", "ERECT", "12:30"])
def test_other_letters_and_words_are_not_read(text: str, chests: list[np.ndarray]) -> None:
    read = 0
    for pixels in chests:
        for x in (0.12, 0.88):
            for mirrored in (False, True):
                for font in FONTS[:2]:
                    drawn = marked(pixels, text, (x, 0.09), mirrored=mirrored, size=0.03, font=font)
                    read += read_marker(drawn) is not None
    assert read == 0


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_letters_that_lie_on_a_side_or_are_upside_down_are_never_another_letter(
    angle: int, chests: list[np.ndarray]
) -> None:
    for pixels in chests:
        for letter in "RL":
            marker = read_marker(marked(pixels, letter, (0.08, 0.08), angle=angle))
            assert marker is None or marker.letter == letter


SIDES = {"left": 0.07, "right": 0.93}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("letter", "side"), [("R", "right"), ("L", "left")])
def test_a_marker_on_the_wrong_side_is_told_and_never_refuses(
    letter: str, side: str, mirrored: bool, chests: list[np.ndarray]
) -> None:
    pixels = marked(chests[0], letter, (SIDES[side], 0.08), mirrored=mirrored)
    check = check_image(pixels)
    assert (check.kind, check.notes) == (FRONTAL, (MARKED[letter, mirrored],))
    assert check.is_right
    check = Gate("refuse").look(pixels, None, "a")
    assert Gate("warn").warnings_of(check) == (MARKED[letter, mirrored],)
    assert ("a mirrored" in MARKED[letter, mirrored]) == mirrored
    assert f"the picture's {side}" in MARKED[letter, mirrored]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("letter", "side"), [("R", "left"), ("L", "right")])
def test_a_marker_on_its_own_side_says_nothing_even_face_down(
    letter: str, side: str, mirrored: bool, chests: list[np.ndarray]
) -> None:
    """Of PA radiographs many have a mirrored letter on the right side: the marker faced the detector."""
    pixels = marked(chests[0], letter, (SIDES[side], 0.08), mirrored=mirrored)
    assert read_marker(pixels) is not None
    assert check_image(pixels).notes == ()


def test_markers_that_contradict_each_other_say_nothing(chests: list[np.ndarray]) -> None:
    wrong = marked(chests[0], "R", (0.93, 0.08))
    assert read_marker(marked(wrong, "L", (0.93, 0.2))) is None
    assert check_image(marked(wrong, "R", (0.07, 0.08))).notes == ()
    both = marked(wrong, "L", (0.07, 0.08))
    assert check_image(both).notes in ((MARKED["R", False],), (MARKED["L", False],))


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_turned_radiograph_is_read_after_its_turn(turn: int, chests: list[np.ndarray]) -> None:
    pixels = marked(chests[1], "L", (0.07, 0.08))
    check = check_image(np.ascontiguousarray(np.rot90(pixels, -turn)))
    assert (check.turn, check.notes) == (turn, (MARKED["L", False],))


def test_a_negative_is_read_as_its_positive(chests: list[np.ndarray]) -> None:
    pixels = marked(chests[1], "L", (0.07, 0.08))
    for shown in (255 - pixels, 65535 - pixels.astype(np.uint16) * 257):
        check = check_image(shown)
        assert (check.is_negative, check.notes) == (True, (MARKED["L", False],))


def test_sides_are_those_of_what_lies_within_empty_borders(chests: list[np.ndarray]) -> None:
    pixels = marked(chests[0], "R", (0.07, 0.08))
    framed = cv2.copyMakeBorder(pixels, 0, 0, 560, 0, cv2.BORDER_CONSTANT, value=0)
    view = look(framed)
    assert view.middle == pytest.approx((560 + 380) / 1320, abs=0.03)
    for turn in range(4):
        turned = dataclasses.replace(look(np.ascontiguousarray(np.rot90(framed, -turn))), turn=turn)
        assert turned.middle == pytest.approx(view.middle, abs=0.01)
    assert check_image(framed).notes == ()
    assert check_image(np.ascontiguousarray(framed[:, ::-1])).notes in ((), (MARKED["R", True],))


def test_nothing_is_read_where_no_frontal_chest_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> SideMarker:
        raise AssertionError

    monkeypatch.setattr(image_check, "read_marker", never)
    noise = np.random.default_rng(0).integers(0, 256, (400, 400), dtype=np.uint8)
    assert check_image(noise).notes == ()
    assert check_image(np.zeros((400, 400), np.uint8)).notes == ()


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (199, 900), (210, 230), (2000, 205), (220, 3000)])
def test_any_pixels_can_be_read(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for pixels in (
        np.zeros(shape, np.uint8), np.full(shape, 65535, np.uint16), rng.integers(0, 256, shape, dtype=np.uint8),
        rng.integers(0, 65536, shape, dtype=np.uint16), (rng.random(shape) < 0.05).astype(np.uint8) * 255,
    ):  # fmt: skip
        assert len(candidates(pixels)) <= MOST
        assert read_marker(pixels) is None


def test_phantoms_carry_their_markers_on_the_right_side_and_mirrored_ones_are_told() -> None:
    told = 0
    for number in range(8):
        pixels = (draw_phantom((53, number), 640, 700, (number % 14,)).pixels * 255).astype(np.uint8)
        assert check_image(pixels).notes == ()
        told += check_image(np.ascontiguousarray(pixels[:, ::-1])).notes != ()
    assert told >= 4


def test_real_radiographs_are_right_and_mirrored_ones_with_a_readable_marker_are_told(shared_data: Path) -> None:
    """None of the 113 is mirrored; half of them have a letter, some cut off, in a corner, or behind a cable."""
    folder = shared_data / "chest-open"
    n_read = n_told = 0
    for image in json.loads((folder / "annotations.json").read_text())["images"]:
        pixels = cv2.imread(str(folder / "images" / image["file_name"]), cv2.IMREAD_GRAYSCALE)
        marker = read_marker(pixels)
        assert marker is None or marker.is_on_its_side, image["file_name"]
        assert check_image(pixels).notes == (), image["file_name"]
        check = check_image(np.ascontiguousarray(pixels[:, ::-1]))
        n_read += marker is not None
        n_told += check.notes != ()
    assert n_read >= 40
    assert n_told >= 0.9 * n_read


@pytest.mark.parametrize("name", ["cr_chest_monochrome1_jpeg2000", "dx_nih_implicit_vr", "dx_thorax_monochrome1_8bit"])
def test_real_dicom_files_have_no_marker_on_the_wrong_side(name: str, shared_data: Path) -> None:
    radiograph = read_radiograph(shared_data / "dicom" / f"{name}.dcm")
    assert not set(check_image(radiograph.pixels, radiograph.header).notes) - {MIRRORED}


def test_letters_are_sorted_by_certainty(chests: list[np.ndarray]) -> None:
    pixels = marked(marked(chests[0], "R", (0.07, 0.08)), "L", (0.93, 0.08), grey=190)
    found = [marker.certainty for marker in letters_of(pixels)]
    assert found == sorted(found, reverse=True)


def test_the_weights_are_small() -> None:
    assert side_marker.WEIGHTS.stat().st_size < 100_000
    assert 0.5 < float(weights()["threshold"]) < 1
