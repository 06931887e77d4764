"""The network that tells frontal chests: against PyTorch's layers, on drawn chests, and on real ones."""

import importlib
import json
import operator
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom.data
import pytest

from xray.phantoms.drawing import draw_phantom
from xray.radiographs import frontal
from xray.radiographs.frontal import SIDE, look, network, scores, thumbnail, view_of, weights
from xray.radiographs.image_check import FRONTAL, NO_CHEST, check_image
from xray.radiographs.radiograph import RadiographError, read_radiograph

TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"


@pytest.fixture(scope="module")
def phantoms() -> list[np.ndarray]:
    """One of each of the 14 findings, and one with all, (H, W) uint8."""
    findings = [(number,) for number in range(14)] + [tuple(range(14))]
    sizes = [(300, 360), (360, 300), (256, 256)]
    return [
        (draw_phantom((77, number), *sizes[number % 3], ids).pixels * 255).astype(np.uint8)
        for number, ids in enumerate(findings)
    ]


def test_the_network_is_that_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    values = {name: torch.from_numpy(value) for name, value in weights().items()}
    x = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (3, 1, SIDE, SIDE)).astype(np.float32))
    y = x
    for number in range(4):
        weight = values[f"conv{number}.weight"]
        y = torch.relu(
            torch.nn.functional.conv2d(y, weight, values[f"conv{number}.bias"], 2, padding=weight.shape[-1] // 2)
        )
    y = torch.relu(torch.nn.functional.linear(y.flatten(1), values["dense0.weight"], values["dense0.bias"]))
    y = torch.nn.functional.linear(y, values["dense1.weight"], values["dense1.bias"])
    np.testing.assert_allclose(network(x.numpy(), weights()), y.numpy(), rtol=1e-4, atol=1e-4)


def test_convolutions_are_the_same_numbers_however_memory_lies(phantoms: list[np.ndarray]) -> None:
    """As windows that are gathered one by one give them, to the last bit: no decision may hang on the order."""
    values = weights()
    for name, value in values.items():
        assert value.ndim < 4 or value.transpose(2, 3, 1, 0).flags.c_contiguous, name
    plain = {name: np.ascontiguousarray(value) for name, value in values.items()}
    pictures = np.stack([thumbnail(phantom) for phantom in phantoms])[:, None]
    np.testing.assert_array_equal(network(pictures, values), network(pictures, plain))
    for height, width in ((8, 8), (7, 5), (1, 2)):
        x = np.random.default_rng(0).normal(size=(2, height, width, 12)).astype(np.float32)
        weight, bias = values["conv1.weight"], values["conv1.bias"]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = [
            [padded[:, y : y + 3, z : z + 3].reshape(2, -1) for z in range(0, width, 2)] for y in range(0, height, 2)
        ]
        gathered = np.stack([np.stack(line, axis=1) for line in windows], axis=1)
        expected = np.maximum(gathered @ weight.transpose(2, 3, 1, 0).reshape(-1, 24) + bias, 0)
        np.testing.assert_allclose(frontal._halving(x, weight, bias), expected, rtol=1e-5, atol=1e-6)


def test_probabilities_are_a_softmax_of_nine() -> None:
    logits = np.log(np.array([[1.0, 2.0], [3.0, 4.0], [0.5, 0.5], [1.0, 1.0]]))
    view = view_of(logits)  # one of 14: none of these
    assert view.frontal == pytest.approx(13 / 14)
    assert view.turn == 1
    assert view.turned == pytest.approx(10 / 13)
    assert view.inverted == pytest.approx(7.5 / 13)


def test_turned_thumbnails_have_the_turned_scores(phantoms: list[np.ndarray]) -> None:
    small = thumbnail(phantoms[0])
    straight = scores(small)
    for turn in range(1, 4):
        np.testing.assert_allclose(scores(np.rot90(small, turn)), np.roll(straight, -turn, axis=0), atol=1e-4)


def test_thumbnails_see_through_windows_negatives_bits_and_borders(phantoms: list[np.ndarray]) -> None:
    pixels = cv2.resize(phantoms[2], (128, 128), interpolation=cv2.INTER_AREA)
    small = thumbnail(pixels)
    assert small.shape == (SIDE, SIDE)
    assert -1 <= small.min() < -0.8
    assert 0.8 < small.max() <= 1
    # A window that keeps the order keeps the ranks, up to the rounding of means.
    assert np.abs(thumbnail((pixels // 2 + 60).astype(np.uint8)) - small).mean() < 0.02
    assert np.abs(thumbnail(255 - pixels) + small).mean() < 0.01
    assert np.abs(thumbnail(pixels.astype(np.uint16) * 257) - small).mean() < 0.001
    for grey in (0, 255):
        framed = cv2.copyMakeBorder(pixels, 40, 0, 0, 60, cv2.BORDER_CONSTANT, value=grey)
        cv2.putText(framed, "L", (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255 - grey, 1)
        assert np.abs(thumbnail(framed) - small).mean() < 0.2


def test_phantoms_with_each_finding_however_they_lie(phantoms: list[np.ndarray]) -> None:
    for pixels in phantoms:
        for turn in range(4):
            lying = np.ascontiguousarray(np.rot90(pixels, -turn))
            check = check_image(lying)
            assert (check.kind, check.turn, check.is_negative) == (FRONTAL, turn, False)
        check = check_image(255 - pixels)
        assert (check.kind, check.turn, check.is_negative) == (FRONTAL, 0, True)


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: cv2.copyMakeBorder(pixels, 30, 90, 120, 10, cv2.BORDER_CONSTANT, value=0),
        lambda pixels: cv2.copyMakeBorder(pixels, 30, 30, 20, 60, cv2.BORDER_CONSTANT, value=255),
        lambda pixels: (110 + pixels * 0.1).astype(np.uint8),
        lambda pixels: np.ascontiguousarray(pixels[:, ::-1]),
        lambda pixels: cv2.putText(pixels.copy(), "AP SUPINE 12:30", (5, 30), 0, 0.8, 255, 2),
        lambda pixels: cv2.resize(pixels, (1500, 1900), interpolation=cv2.INTER_CUBIC),
        lambda pixels: pixels.astype(np.uint16) * 257,
        lambda pixels: np.ascontiguousarray(pixels[15:-15, 12:-12]),
        lambda pixels: cv2.warpAffine(
            pixels, cv2.getRotationMatrix2D((pixels.shape[1] / 2, pixels.shape[0] / 2), 8, 1), pixels.shape[::-1]
        ),
    ],
    ids=["black borders", "white borders", "low contrast", "mirrored", "letters", "large", "16 bits", "cut", "tilted"],
)  # fmt: skip
def test_what_archives_do_to_a_radiograph_does_not_make_it_another(change, phantoms: list[np.ndarray]) -> None:
    for pixels in phantoms[::3]:
        check = check_image(change(pixels))
        assert (check.kind, check.turn, check.is_negative) == (FRONTAL, 0, False)


def test_slices_are_no_frontal_chests_by_their_pixels_alone() -> None:
    seen = 0
    for name in ("693_J2KI.dcm", "CT_small.dcm", "MR_small.dcm", "examples_overlay.dcm", "J2K_pixelrep_mismatch.dcm"):
        try:
            pixels = read_radiograph(TEST_FILES / name).pixels
        except (RadiographError, FileNotFoundError):
            continue
        seen += 1
        assert check_image(pixels).kind != FRONTAL
    assert seen >= 2


@pytest.fixture(scope="module")
def pictures() -> Any:
    """scripts/frontal_pictures.py, which draws what is no chest."""
    scripts = str(Path(__file__).parents[2] / "scripts")
    sys.path.insert(0, scripts)
    try:
        return importlib.import_module("frontal_pictures")
    finally:
        sys.path.remove(scripts)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("drawings.hand", 1), ("drawings.lateral", 1), ("drawings.limb", 0), ("drawings.pelvis", 0),
        ("slices.chest_slice", 1), ("slices.abdomen_slice", 0), ("slices.head_slice", 0), ("slices.breast_slice", 0),
        ("slices.mammogram", 0), ("slices.ultrasound", 0), ("slices.photograph", 1),
    ],
)  # fmt: skip
def test_other_parts_slices_and_photographs_are_no_frontal_chests(name: str, most: int, pictures: Any) -> None:
    """24 of each, of seeds that the network has not seen. Few may be called frontal, and one at most in twenty-four."""
    draw = operator.attrgetter(name)(pictures)
    checks = [check_image(draw(np.random.default_rng([9001, number]))) for number in range(24)]
    assert sum(check.kind == FRONTAL and check.is_right for check in checks) <= most
    assert sum(check.kind == NO_CHEST or not check.is_right for check in checks) >= 18


def test_pictures_are_drawn_from_their_seed_alone(pictures: Any) -> None:
    for draw in (pictures.drawings.hand, pictures.drawings.lateral, pictures.slices.chest_slice):
        one, again, other = (draw(np.random.default_rng(seed)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert one.dtype == np.uint8
        assert one.shape != other.shape or not np.array_equal(one, other)


def _with_a_wide_middle(pixels: np.ndarray) -> np.ndarray:
    """As of a small child: heart and spine take more of the width, the lungs less."""
    height, width = pixels.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return cv2.remap(pixels, x + 0.04 * width * np.sin(2 * np.pi * x / width).astype(np.float32), y, cv2.INTER_LINEAR)


@pytest.mark.parametrize(
    "change",
    [
        _with_a_wide_middle,
        lambda pixels: _with_a_wide_middle(pixels[:, ::-1]),
        lambda pixels: np.ascontiguousarray(pixels[12:-12, 25:-25]),
        lambda pixels: cv2.copyMakeBorder(pixels, 20, 60, 70, 70, cv2.BORDER_REPLICATE),
        lambda pixels: np.maximum(pixels, (pixels + 0.5 * (170.0 - pixels)).clip(0, 255)).astype(np.uint8),
        lambda pixels: np.minimum(pixels, np.percentile(pixels, 70)).astype(np.uint8),
    ],
    ids=["a child's", "a child's mirrored", "cut to the lungs", "small in the picture", "veiled", "overexposed"],
)  # fmt: skip
def test_chests_of_another_build_and_exposure_are_not_refused(change, phantoms: list[np.ndarray]) -> None:
    for pixels in phantoms[::2]:
        check = check_image(change(pixels))
        assert check.is_right, check


def test_turns_that_are_left_out_change_no_decision(phantoms: list[np.ndarray]) -> None:
    _, one, turned, negative = weights()["thresholds"].tolist()
    left_out = 0
    for pixels in [*phantoms, *(255 - pixels for pixels in phantoms[:4])]:
        for turn in range(4):
            lying = np.ascontiguousarray(np.rot90(pixels, -turn))
            short, full = look(lying), view_of(scores(thumbnail(lying)))
            left_out += short.turned == 0
            assert (short.frontal >= one) == (full.frontal >= one)
            assert (short.turned >= turned, short.inverted >= negative) == (
                full.turned >= turned,
                full.inverted >= negative,
            )
            assert short.turn == full.turn
            assert short.frontal == pytest.approx(full.frontal, abs=0.03)
    assert left_out >= len(phantoms) / 2


def test_noise_ramps_and_empty_pictures_are_no_frontal_chests() -> None:
    rng = np.random.default_rng(0)
    ramp = np.tile(np.arange(256, dtype=np.uint8), (200, 1))
    for pixels in (rng.integers(0, 256, (300, 300), dtype=np.uint8), ramp, ramp.T.copy()):
        assert check_image(pixels).kind != FRONTAL
    assert check_image(np.zeros((300, 300), np.uint8)).kind == NO_CHEST


def test_real_frontal_radiographs_are_not_refused(shared_data: Path) -> None:
    """All 113 of 63 patients, most of them AP and many in bed; scripts/train_frontal.py has the held-out rates."""
    folder = shared_data / "chest-open"
    images = json.loads((folder / "annotations.json").read_text())["images"]
    unsure = 0
    for image in images:
        pixels = cv2.imread(str(folder / "images" / image["file_name"]), cv2.IMREAD_GRAYSCALE)
        check = check_image(pixels)
        assert check.is_right, (image["file_name"], check)
        unsure += check.kind != FRONTAL
    assert unsure <= 0.05 * len(images)


@pytest.mark.parametrize("name", ["cr_chest_monochrome1_jpeg2000", "dx_nih_implicit_vr"])
def test_real_dicom_files_however_they_lie(name: str, shared_data: Path) -> None:
    pixels = read_radiograph(shared_data / "dicom" / f"{name}.dcm").pixels
    for turn in range(4):
        view = look(np.ascontiguousarray(np.rot90(pixels, -turn)))
        assert view.frontal > 0.5
        assert view.turn == turn


def test_a_dog_lying_on_its_side(shared_data: Path) -> None:
    pixels = read_radiograph(shared_data / "dicom" / "dx_thorax_monochrome1_8bit.dcm").pixels
    assert check_image(pixels).kind != FRONTAL


def test_the_weights_are_small() -> None:
    assert frontal.WEIGHTS.stat().st_size < 2**20
