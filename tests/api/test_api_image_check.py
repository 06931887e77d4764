"""Whether radiographs are for the models, as the API says it."""

from pathlib import Path

import cv2
import numpy as np
import pydicom.data
import pytest

import xray
from xray.api.results import Results
from xray.errors import InputError
from xray.phantoms.drawing import draw_phantom
from xray.radiographs.image_check import BACK, TURNED

TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"
CT_SAID = "no frontal chest radiograph: its header says CT"


@pytest.fixture(scope="module")
def phantom():
    return (draw_phantom(11, 232, 256, (12,)).pixels * 255).astype(np.uint8)


def test_every_kind_of_input_is_looked_at(segmentation_run, phantom, tmp_path):
    model = xray.load(segmentation_run, device="cpu")
    turned = np.ascontiguousarray(np.rot90(phantom, 2))
    assert cv2.imwrite(str(tmp_path / "turned.png"), turned)
    for given in (turned, tmp_path / "turned.png", [turned]):
        result = model.predict(given)
        result = result if isinstance(result, xray.Result) else result[0]
        assert result.image_check.turn == 2
        assert not result.image_check.is_right
        assert result.warnings == (TURNED[2],)
    upright = model.predict(phantom)
    assert upright.image_check.kind == "chest frontal"
    assert upright.image_check.frontal > 0.5
    assert upright.warnings == ()
    ct = model.predict(pydicom.dcmread(TEST_FILES / "CT_small.dcm"))
    assert (ct.image_check.kind, ct.warnings) == ("other modality", (CT_SAID,))


def test_tables_have_a_column(segmentation_run, phantom, tmp_path):
    assert cv2.imwrite(str(tmp_path / "a.png"), phantom)
    assert cv2.imwrite(str(tmp_path / "b.png"), np.rot90(phantom))
    model = xray.load(segmentation_run, device="cpu", triplet=(0.01, 0.0, 0.01))
    results = model.predict(tmp_path)
    said = dict(zip(results.table["image_id"], results.table["image_check"], strict=True))
    assert said == {"a": "chest frontal", "b": TURNED[3]}
    without = xray.load(segmentation_run, device="cpu", triplet=(0.01, 0.0, 0.01), gate_image="off").predict(tmp_path)
    assert "image_check" not in without.table.columns
    both = Results([results[0], without[1]]).table
    assert both["image_check"].isna().tolist() == (both["image_id"] == "b").tolist()


def test_refused_ones_are_failures(segmentation_run, phantom, tmp_path):
    assert cv2.imwrite(str(tmp_path / "a.png"), phantom)
    assert cv2.imwrite(str(tmp_path / "b.png"), np.rot90(phantom))
    model = xray.load(segmentation_run, device="cpu", gate_image="refuse")
    results = model.predict(tmp_path)
    assert results.ids == ["a"]
    assert results.failures == {str(tmp_path / "b.png"): f"b.png: {TURNED[3]}"}
    with pytest.raises(InputError, match="header says CT"):
        model.predict(TEST_FILES / "CT_small.dcm")


def test_upright(segmentation_run, phantom):
    options = {"device": "cpu", "triplet": (0.01, 0.0, 0.01), "tta": False}
    straight = xray.load(segmentation_run, **options).predict(phantom)
    result = xray.load(segmentation_run, upright=True, **options).predict(np.rot90(phantom))
    assert result.warnings == (BACK[3],)
    assert result.size == (256, 232)
    assert len(result) == len(straight) > 0
    assert sorted(mask.tobytes() for mask in result.masks) == sorted(
        np.rot90(mask).tobytes() for mask in straight.masks
    )


def test_a_word_that_is_no_mode(segmentation_run):
    with pytest.raises(InputError, match="gate_image is 'strict': give off, warn or refuse"):
        xray.load(segmentation_run, device="cpu", gate_image="strict")
