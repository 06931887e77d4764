"""Views of several sizes: what models are shown, what becomes of it, and what cannot be shown so."""

import json

import in_process
import numpy as np
import pytest
import torch
from torch import nn

import xray
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.inference.loaded import LoadedClassifier, LoadedDetector, LoadedSegmenter
from xray.inference.pipeline import Pipeline, view_size
from xray.inference.pipeline_loading import load_pipeline
from xray.outputs.dicom.objects import inference_algorithm
from xray.structures.boxes import box_iou
from xray.structures.sides import mirrored

SIDES = {1: "Left lung", 2: "Right lung"}
CPU = torch.device("cpu")


class Bright(nn.Module):
    """Finds what is bright: boxes by `boxes`, logits of its mask otherwise. scores: side of the canvas → score."""

    def __init__(self, boxes=True, scores=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.boxes, self.scores, self.seen = boxes, scores or {}, []

    def forward(self, images):
        size = images.shape[-1]
        self.seen.append(size)
        if not self.boxes:
            return torch.where(images > 128, 4.0, -4.0) * (1 + size / 1000)
        found = []
        for image in images[:, 0]:
            rows, columns = torch.nonzero((image > 128).any(1))[:, 0], torch.nonzero((image > 128).any(0))[:, 0]
            box = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], dtype=torch.float32)
            side = 1 if columns.float().mean() < size / 2 else 2
            score = torch.tensor([self.scores.get(size, 0.8)])
            found.append({"boxes": box, "labels": torch.tensor([side]), "scores": score})
        return found


def canvas(box, size=128):
    pixels = np.full((size, size), 30, dtype=np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = 230
    return pixels[None]


@pytest.mark.parametrize(
    ("canvas_size", "scale", "size"),
    [(1024, 0.8, 832), (1024, 1.25, 1280), (256, 1.5, 384), (200, 1, 200), (64, 0.5, 64), (1000, 0.75, 736)],
)
def test_sizes_of_views_are_multiples_of_32(canvas_size, scale, size):
    """1024 × 0.8 is 819.2, of which 832 (26 × 32) is nearer than 800; 750 lies between 736 and 768, nearer to 736."""
    assert view_size(canvas_size, scale) == size


@pytest.mark.parametrize("flips", [False, True])
def test_boxes_of_all_views_come_back_to_one_place_and_are_fused(flips):
    model = Bright(scores={64: 0.6, 128: 0.9, 192: 0.3})
    detector = LoadedDetector(model, 128, SIDES, mirrored(SIDES))
    pipeline = Pipeline((detector,), SIDES, flips, scales=(0.5, 1.0, 1.5))
    found = pipeline.find(canvas((16, 32, 48, 96)), [(256, 256)]).table
    assert model.seen == [size for size in (64, 128, 192) for _ in range(1 + flips)]
    # In original pixels, twice those of the canvas; each view sees it to a pixel of its own, of up to 4 of these.
    np.testing.assert_allclose(found.boxes, [[32, 64, 96, 192]], atol=4)
    assert found.labels.tolist() == [1]
    # The mean over the views, as of several models.
    np.testing.assert_allclose(found.scores, [0.6], atol=1e-6)


def test_a_box_that_one_of_three_views_finds_counts_a_third(monkeypatch):
    model = Bright()
    forward = Bright.forward

    def only_large(self, images):
        found = forward(self, images)
        return found if images.shape[-1] == 192 else [{name: value[:0] for name, value in one.items()} for one in found]

    monkeypatch.setattr(Bright, "forward", only_large)
    detector = LoadedDetector(model, 128, SIDES, mirrored(SIDES))
    pipeline = Pipeline((detector,), SIDES, False, scales=(0.5, 1.0, 1.5))
    found = pipeline.find(canvas((16, 32, 48, 96)), [(128, 128)]).table
    np.testing.assert_allclose(found.scores, [0.8 / 3], atol=1e-6)


def test_two_scales_of_one_size_are_one_view():
    model = Bright()
    Pipeline((LoadedDetector(model, 64, SIDES, mirrored(SIDES)),), SIDES, False, scales=(0.8, 0.9, 1.0)).forward(
        canvas((8, 8, 30, 30), 64)
    )
    assert model.seen == [64]


def test_probability_maps_of_all_views_are_averaged_on_the_canvas():
    model = Bright(boxes=False)
    segmenter = LoadedSegmenter(model, 128, {1: "Pneumothorax"}, {1: 1})
    findings = Pipeline((), {1: "Pneumothorax"}, False, segmenters=(segmenter,), scales=(0.5, 1.0)).find(
        canvas((16, 32, 48, 96)), [(128, 128)]
    )
    assert model.seen == [64, 128]
    assert findings.maps.shape == (1, 1, 128, 128)
    inside = np.mean([1 / (1 + np.exp(-4 * (1 + size / 1000))) for size in (64, 128)])
    np.testing.assert_allclose(findings.maps[0, 0, 40:90, 20:44], inside, atol=1 / 255)
    np.testing.assert_allclose(findings.table.boxes, [[16, 32, 48, 96]], atol=1)


def test_classifiers_look_at_their_own_canvas_alone():
    class Certain(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.seen = nn.Parameter(torch.zeros(1)), []

        def forward(self, images):
            self.seen.append(images.shape[-1])
            return torch.zeros(len(images), 1)

    model = Certain()
    classifier = LoadedClassifier(model, 64, ("Nodule",), {1: "Nodule"})
    Pipeline((), {1: "Nodule"}, True, classifiers=(classifier,), scales=(0.5, 2.0)).find(canvas((1, 1, 9, 9)), [(9, 9)])
    assert model.seen == [64, 64]


def test_one_scale_of_1_is_what_there_was(vinbig_run, vinbig_store):
    store = open_store(vinbig_store)
    sizes = [(90, 70), (90, 80)]
    pipelines = load_pipeline([vinbig_run], CPU), load_pipeline([vinbig_run], CPU, scales=[1])
    one, other = (pipeline.find(store.images[:2], sizes) for pipeline in pipelines)
    for name in ("images", "labels", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(one.table, name), getattr(other.table, name))


def test_trained_models_find_the_same_rectangle_in_larger_views(segmentation_run, mask_store):
    """What the segmenter has learned at 64 pixels it finds at 96, too."""
    store = open_store(mask_store)
    row = int(store.boxes.images[0])
    record = store.records[row]
    truth = store.boxes.boxes[store.boxes.images == row]
    pipeline = load_pipeline([segmentation_run], CPU, scales=(1.0, 1.5))
    found = pipeline.find(store.images[row : row + 1], [(record["width"], record["height"])]).table
    assert box_iou(found.boxes[:1], truth).max() > 0.6


def test_the_command_and_the_api(vinbig_run, vinbig_store, tmp_path):
    flags = ["--weights", vinbig_run, "--data-path", vinbig_store, "--device", "cpu", "--precision", "32"]
    done = in_process.run("infer", *flags, "--save-path", tmp_path / "out", "--scales", 1, 1.5, "--split", "test")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    model = xray.load(vinbig_run, device="cpu", scales=[1, 1.5])
    store = open_store(vinbig_store)
    record = store.records[store.rows(split="test")[0]]
    result = model.predict(store.path.parent / "source" / "test" / f"{record['source_id']}.png")
    of_file = [row for row in rows if row["image_id"] == record["source_id"] and row["category_id"] != 15]
    scores = sorted((row["score"] for row in of_file), reverse=True)
    assert len(scores) > 0
    np.testing.assert_allclose(np.sort(result.scores)[::-1], scores, atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--scales", "0.2"], "--scales is 0.2: give 0.25 to 4"),
        (["--scales", "1", "nan"], "--scales is nan: give 0.25 to 4"),
        (["--scales", "1", "1.0"], "--scales is 1 1: it must be numbers that all differ"),
        (["--scales", "--tta"], "--scales is empty: it must be numbers that all differ"),
        (["--scales", "1", "2", "--runtime", "onnx"], "--scales is 1 2: it must be 1 with --runtime onnx"),
    ],
)
def test_mistakes(tmp_path, flags, line):
    done = in_process.run("infer", "--weights", "run", "--data-path", "data", "--save-path", tmp_path / "out", *flags)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {line}")
    assert not (tmp_path / "out").exists()


def test_the_api_names_its_argument(vinbig_run):
    with pytest.raises(InputError, match=r"^scales is 5\.0: give 0\.25 to 4"):
        xray.load(vinbig_run, scales=[5.0])


def test_reports_say_which_views_were_looked_at(vinbig_run):
    with_views = inference_algorithm([vinbig_run], 0.3, True, "soft", scales=(0.8, 1.0))
    assert with_views.parameters["scales"] == "0.8 1"
    assert "scales" not in inference_algorithm([vinbig_run], 0.3, True, "soft").parameters
