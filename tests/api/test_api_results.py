"""The results of the API: what they say, what they draw and write, and what other packages are handed."""

import dataclasses
import pickle
import sys
import types

import numpy as np
import pydicom
import pytest
from PIL import Image

import xray
from xray.api.finder import Finder
from xray.api.origin import Origin
from xray.api.result import Result
from xray.api.results import Results
from xray.errors import InputError
from xray.radiographs.softcopy import Softcopy
from xray.structures.boxes import BoxTable
from xray.structures.predictions import read_predictions


def rle(mask):
    """By pycocotools."""
    from pycocotools import mask as coco_mask

    found = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


MASK = np.zeros((60, 80), dtype=bool)
MASK[10:30, 20:50] = True
BOXES = [(20, 10, 50, 30), (1.5, 2, 30, 40), (0, 0, 1, 1)]


@pytest.fixture
def result():
    """A pneumothorax with its mask, a nodule without, and "No finding", in 80 x 60 pixels."""
    return Result(
        id="a/b",
        size=(80, 60),
        rows=BoxTable.of([0, 0, 0], [13, 9, 15], BOXES, [0.9, 0.2, 0.25]),
        segmentations={0: rle(MASK)},
        classified={"abnormal": 0.75},
        finder=Finder({9: "Nodule/Mass", 13: "Pneumothorax"}, has_masks=True),
        origin=Origin(array=np.full((60, 80), 90, dtype=np.uint8)),
    )


def test_what_it_says(result):
    assert len(result) == 2
    assert repr(result) == "<xray.Result a/b: 2 findings, normal 0.250>"
    np.testing.assert_array_equal(result.boxes, BOXES[:2])
    assert (result.boxes.dtype, result.scores.tolist()) == (np.float64, [0.9, 0.2])
    assert (result.labels.tolist(), result.names) == ([13, 9], ["Pneumothorax", "Nodule/Mass"])
    assert result.probabilities == {"abnormal": 0.75, "normal": 0.25}
    assert result.masks.dtype == bool
    np.testing.assert_array_equal(result.masks, [MASK, np.zeros_like(MASK)])
    assert result.table.to_dict("list") == {
        "category": ["Pneumothorax", "Nodule/Mass"],
        "category_id": [13, 9],
        "score": [0.9, 0.2],
        **{name: [box[k] for box in BOXES[:2]] for k, name in enumerate(("x1", "y1", "x2", "y2"))},
    }
    assert result.probability_map is None


def test_above_keeps_masks_and_the_probability_of_normal(result):
    kept = result.above(0.5)
    assert (kept.names, kept.normal, len(kept.masks)) == (["Pneumothorax"], 0.25, 1)
    swapped = dataclasses.replace(result, rows=result.rows.select(np.array([1, 0, 2])), segmentations={1: rle(MASK)})
    np.testing.assert_array_equal(swapped.above(0.5).masks, [MASK])
    # "No finding" is no box, wherever its row stands.
    first = dataclasses.replace(result, rows=result.rows.select(np.array([2, 0, 1])), segmentations={1: rle(MASK)})
    assert first.rles == {0: rle(MASK)}
    assert first.above(0.5).rles == {0: rle(MASK)}
    assert Results([result]).above(0.95)[0].masks.shape == (0, 60, 80)


def test_without_a_segmenter_there_are_no_masks(result):
    finder = dataclasses.replace(result.finder, has_masks=False)
    assert dataclasses.replace(result, finder=finder, segmentations={}).masks is None


def test_category_15_of_another_dataset_is_a_finding(result):
    other = dataclasses.replace(result, finder=Finder({9: "a", 13: "b", 15: "c"}, has_masks=False))
    assert (other.names, other.normal) == (["b", "a", "c"], None)


def test_a_probability_map_comes_in_original_pixels(result):
    # A canvas of 16 on which 80 x 60 takes rows 2 to 13; what lies beyond is not the radiograph's.
    canvas = np.zeros((1, 16, 16), dtype=np.uint8)
    canvas[0, 2:14] = 51
    found = dataclasses.replace(result, maps=canvas).probability_map
    assert (found.shape, found.dtype) == ((1, 60, 80), np.float32)
    np.testing.assert_allclose(found, 0.2)


def test_several(result):
    empty = dataclasses.replace(result, id="c", rows=BoxTable.empty(), segmentations={}, classified={})
    results = Results([result, empty], {"d.png": "d.png: the file is empty"})
    assert repr(results) == "<xray.Results: 2 radiographs, 2 findings, 1 could not be read>"
    assert results["c"] is results[1] is results[-1] is list(results)[1]
    assert [one.id for one in results[:1]] == ["a/b"]
    assert list(results.table.columns) == ["image_id", *result.table.columns]
    assert results.table["image_id"].tolist() == ["a/b", "a/b"]
    assert results.probabilities.loc["a/b"].to_dict() == result.probabilities
    assert np.isnan(results.probabilities.loc["c", "normal"])
    assert Results([empty]).table.empty
    with pytest.raises(KeyError) as error:
        results["d"]
    assert str(error.value) == "d has no result, as it could not be read: d.png: the file is empty"
    with pytest.raises(KeyError) as error:
        results["zzz"]
    assert str(error.value) == "there is no result of zzz. The ids are a/b, c"
    with pytest.raises(KeyError, match=r"there is no result of a/d; did you mean a/b\? The ids are a/b, c"):
        results["a/d"]
    many = Results([dataclasses.replace(empty, id=f"r{number}") for number in range(7)])
    with pytest.raises(KeyError, match=r"The ids are r0, r1, r2, r3, r4 and 2 more, see \.ids"):
        many["zzz"]
    with pytest.raises(KeyError, match="there is none at all"):
        Results([])["c"]
    with pytest.raises(IndexError):
        results[2]


def test_pictures(result, tmp_path):
    figure = result.plot()
    shown = np.asarray(Image.open(_file(tmp_path, figure._repr_png_())).convert("RGB"))
    np.testing.assert_array_equal(shown, result.picture())
    # In colour: a box, its tag and a mask.
    assert (np.ptp(shown.astype(int), axis=2) > 40).sum() > 100
    assert Image.open(_file(tmp_path, result._repr_png_())).size == result.picture(max_side=800).shape[1::-1]
    # A notebook shows a figure of pyplot twice.
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    results = Results([result, dataclasses.replace(result, id="c")])
    assert Image.open(_file(tmp_path, results.plot()._repr_png_())).width > 1000
    assert "<table" in results._repr_html_()
    with pytest.raises(InputError, match="no radiograph to draw"):
        Results([]).plot()


def _file(folder, content):
    path = folder / "picture.png"
    path.write_bytes(content)
    return path


def test_without_its_pixels_a_result_is_shown_as_text(result, tmp_path):
    lone = dataclasses.replace(result, origin=Origin())
    assert lone._repr_png_() is None
    with pytest.raises(InputError, match="its result was read from a file"):
        _ = lone.pixels
    with pytest.raises(InputError, match=r"gone\.png: there is no such file"):
        _ = dataclasses.replace(result, origin=Origin(path=tmp_path / "gone.png")).pixels


def test_what_is_saved(result, tmp_path):
    written = result.save(tmp_path / "out", overlays=True)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "out/overlays/a/b.png",
        "out/predictions.json",
    ]
    assert all(path.is_file() for path in written)
    found = read_predictions(written[-1])
    assert found.image_ids == ("a/b",)
    assert found.table.labels.tolist() == [13, 9, 15]
    np.testing.assert_allclose(found.table.boxes, BOXES)
    assert found.masks == {0: rle(MASK)}
    assert found.names == {13: "Pneumothorax", 9: "Nodule/Mass", 15: "No finding"}
    with pytest.raises(InputError, match="holds predictions already"):
        result.save(tmp_path / "out")
    result.above(0.5).save(tmp_path / "out", overwrite=True)
    assert len(read_predictions(written[-1]).table) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sr": True}, "not known of fused results"),
        ({"threshold": 2}, "must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_saved_leaves_nothing(result, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        result.save(tmp_path / "out", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(result, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file"):
        result.save(tmp_path / "out")


def test_pickled_without_torch_or_the_models(result):
    again = pickle.loads(pickle.dumps(Results([result])))
    assert again["a/b"].table.equals(result.table)


def test_torchvision(result):
    import torch
    from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

    found = result.to_torchvision()
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in found.items()} == {
        "boxes": (torch.float32, (2, 4)),
        "labels": (torch.int64, (2,)),
        "scores": (torch.float32, (2,)),
        "masks": (torch.bool, (2, 60, 80)),
    }
    picture = torch.zeros((3, 60, 80), dtype=torch.uint8)
    assert draw_segmentation_masks(draw_bounding_boxes(picture, found["boxes"]), found["masks"]).any()
    empty = result.above(0.95).to_torchvision()
    assert (tuple(empty["boxes"].shape), tuple(empty["masks"].shape)) == ((0, 4), (0, 60, 80))


def test_supervision_gets_the_fields_of_its_detections(result, monkeypatch):
    stand_in = types.ModuleType("supervision")
    stand_in.Detections = types.SimpleNamespace
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    found = result.to_supervision()
    assert vars(found).keys() == {"xyxy", "mask", "confidence", "class_id", "data"}
    assert (found.xyxy.dtype, found.xyxy.tolist()) == (np.float32, [list(box) for box in BOXES[:2]])
    assert found.confidence.tolist() == pytest.approx([0.9, 0.2])
    assert found.class_id.tolist() == [13, 9]
    assert found.data["class_name"].tolist() == result.names
    np.testing.assert_array_equal(found.mask, result.masks)


def test_the_real_supervision_takes_and_draws_them(result):
    supervision = pytest.importorskip("supervision")
    for one in (
        result,
        result.above(0.95),
        dataclasses.replace(result, finder=Finder({13: "a"}, False), segmentations={}),
    ):
        found = one.to_supervision()
        assert isinstance(found, supervision.Detections)
        assert len(found) == len(one)
        picture = np.zeros((60, 80, 3), dtype=np.uint8)
        assert supervision.BoxAnnotator().annotate(picture.copy(), found).any() == (len(one) > 0)
    assert result.to_supervision()[0].data["class_name"].tolist() == ["Pneumothorax"]


def test_a_missing_supervision_is_said_in_one_line(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(xray.InputError, match=r"^to_supervision\(\) needs the package supervision: pip install \S+$"):
        result.to_supervision()


def test_reports_and_segmentations_name_the_image(result, segmentation_run, tmp_path):
    pytest.importorskip("highdicom")
    source = pydicom.Dataset()
    source.SOPClassUID, source.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    source.StudyInstanceUID, source.SeriesInstanceUID, source.Rows, source.Columns = "1.2", "1.2.1", 60, 80
    from xray.outputs.dicom.objects import reduced

    finder = dataclasses.replace(result.finder, runs=(segmentation_run,), triplet=(0.5, 0.0, 0.5))
    one = dataclasses.replace(result, finder=finder, origin=Origin(array=result.pixels, reference=reduced(source)))
    two = dataclasses.replace(one, id="picture", origin=Origin(array=result.pixels))
    written = Results([one, two]).save(tmp_path / "out", sr=True, seg=True)
    names = [path.relative_to(tmp_path / "out").as_posix() for path in written]
    assert names == ["sr/a/b.dcm", "seg/a/b.dcm", "predictions.json"]
    report, masks = (pydicom.dcmread(path) for path in written[:2])
    assert report.Modality == "SR"
    assert report.StudyInstanceUID == masks.StudyInstanceUID == "1.2"
    assert (masks.Modality, masks.pixel_array.sum()) == ("SEG", MASK.sum())
    one = dataclasses.replace(one, origin=dataclasses.replace(one.origin, softcopy=Softcopy(window=(100, 200))))
    written = Results([one, two]).save(tmp_path / "pictures", gsps=True, sc=True)
    names = [path.relative_to(tmp_path / "pictures").as_posix() for path in written]
    assert names == ["gsps/a/b.dcm", "sc/a/b.dcm", "predictions.json"]
    assert [pydicom.dcmread(path).Modality for path in written[:2]] == ["PR", "OT"]
    with pytest.raises(InputError, match=r"^sr, sc refer to DICOM images, and none of these radiographs is one"):
        two.save(tmp_path / "other", sr=True, sc=True)
    lone = dataclasses.replace(one, finder=dataclasses.replace(finder, has_masks=False))
    with pytest.raises(InputError, match="masks of segmenters, and none was loaded"):
        lone.save(tmp_path / "other", seg=True)
    assert not (tmp_path / "other").exists()
