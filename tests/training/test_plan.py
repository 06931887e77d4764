"""What a detector's training chooses itself, on datasets drawn for it."""

import dataclasses

import numpy as np
import pytest
import torch
import yaml

from xray.datasets.store import open_store
from xray.errors import FlagError
from xray.file_names import CONFIG_FILE
from xray.flags import AUTO
from xray.models.detection.anchor_fit import AnchorSides, by_level, recall_of, standard_anchors
from xray.models.detection.detector import anchors_of, build_detector, describe_anchors
from xray.structures.boxes import BoxTable
from xray.training.config import DetectionConfig
from xray.training.plan import _boxes_on_canvas, plan_detection
from xray.training.readers import readings
from xray.training.recipes import read_training_flags, save_config

GIVEN = DetectionConfig(weights="some.pth")


@pytest.fixture(scope="module")
def whole(side_store):
    return open_store(side_store)


def with_boxes(store, boxes, labels=1, images=None):
    """The store with other boxes, in original pixels."""
    images = np.zeros(len(boxes)) if images is None else images
    table = BoxTable.of(images, np.full(len(boxes), labels), boxes)
    return dataclasses.replace(store, boxes=table, readers=[[]] * len(boxes), masks={})


def planned(store, config=GIVEN, fold=0):
    rows = store.rows("train", not_fold=fold)
    return plan_detection(config, store, readings(store, rows))


def test_nothing_is_left_open_and_each_choice_has_a_reason(whole):
    result = planned(whole)
    values = dataclasses.asdict(result.config)
    open_flags = [name for name, value in values.items() if value == AUTO]
    # Those are decided elsewhere: by the machine, by the names of categories, by the metric, by the splits.
    assert set(open_flags) <= {"device", "precision", "augment_on", "monitor", "fold"}
    asked = [name for name, value in dataclasses.asdict(GIVEN).items() if value == AUTO and name not in open_flags]
    # Of no effect beside --anchor-sides.
    asked.remove("anchor_scale")
    assert set(result.reasons) == set(asked)
    lines = result.lines()
    assert len([line for line in lines if line.startswith("--")]) == len(asked)
    assert all(": " in line and "\n" not in line for line in lines)
    assert plan_detection(result.config, whole, readings(whole, whole.rows("train", not_fold=0))).reasons == {}


def test_flags_that_are_given_stay(whole):
    given = dataclasses.replace(GIVEN, batch_size=3, lr=0.5, n_epochs=7, anchor_scale=3.0, roi_samples=9, flip=0.25)
    config = planned(whole, given).config
    assert (config.batch_size, config.lr, config.n_epochs, config.roi_samples, config.flip) == (3, 0.5, 7, 9, 0.25)
    assert config.anchor_sides == tuple(np.ravel(standard_anchors(64, 3.0).sides))
    # Batches of three are too small for statistics of a pretrained ResNet's own.
    assert (config.norm, config.trainable_layers) == ("frozen", 3)


@pytest.mark.parametrize(
    ("flags", "norm", "layers"),
    [
        ({"backbone": "resnet50", "batch_size": 8}, "frozen", 3),
        ({"backbone": "resnet50", "batch_size": 16}, "batch", 5),
        ({"backbone": "mobilenet_v2", "batch_size": 4}, "batch", 5),
        ({"backbone": "mobilenet_v2", "batch_size": 1}, "frozen", 3),
        ({"backbone": "resnet50", "batch_size": 2, "weights": "none"}, "batch", 5),
        # By the norm that is used, also where a flag decides it.
        ({"backbone": "mobilenet_v2", "batch_size": 4, "norm": "frozen"}, "frozen", 3),
        ({"backbone": "resnet50", "batch_size": 8, "norm": "batch"}, "batch", 5),
    ],
)
def test_norms_go_by_the_batch(whole, flags, norm, layers):
    config = planned(whole, dataclasses.replace(GIVEN, **flags)).config
    assert (config.norm, config.trainable_layers) == (norm, layers)


def test_the_published_recipe_of_vinbigdata_is_what_is_chosen_for_it(whole):
    """15,000 radiographs, 4,394 of them with boxes, on a canvas of 1024; here in small: rows stand for many."""
    rng = np.random.default_rng(0)
    records = [dict(whole.records[0], source_id=str(n), width=2500, height=2900, fold=n % 5) for n in range(18_750)]
    ill = rng.choice(18_750, 5492, replace=False)
    images = np.repeat(ill, rng.integers(1, 8, len(ill)))
    side = np.exp(rng.normal(np.log(300), 0.8, len(images))).clip(60, 1600)
    ratio = np.exp(rng.normal(0, 0.4, len(images)))
    extent = np.stack([side / np.sqrt(ratio), side * np.sqrt(ratio)], 1).clip(40, 2400)
    corner = rng.uniform(0, 1, extent.shape) * ([2500, 2900] - extent)
    store = with_boxes(whole, np.concatenate([corner, corner + extent], 1), 1, images)
    conversion = {**whole.conversion, "parameters": {**whole.conversion["parameters"], "image_size": 1024}}
    store = dataclasses.replace(store, records=records, conversion=conversion)
    config = planned(store, DetectionConfig()).config
    expected = {"batch_size": 8, "n_epochs": 100, "schedule": "step", "step_size": 30, "lr": 0.005}
    expected |= {"warmup_steps": 500, "norm": "frozen", "trainable_layers": 3, "rpn_samples": 256, "proposals": 1750}
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.anchor_sides == (32, 64, 128, 256, 512)
    assert config.anchor_ratios == (0.5, 1, 2)
    assert describe_anchors(config.anchor_sides, config.anchor_ratios, 1024) == {"anchor_scale": 1.0}


def test_large_boxes_get_large_anchors(whole):
    record = whole.records[0]
    box = [0.05 * record["width"], 0.05 * record["height"], 0.95 * record["width"], 0.95 * record["height"]]
    rows = whole.rows("train", not_fold=0)
    result = planned(with_boxes(whole, np.tile(box, (len(rows), 1)), 1, rows))
    assert "100.0% of the boxes have an anchor at IoU 0.5" in result.reasons["anchor_sides"]
    assert max(result.config.anchor_sides) > 50
    described = describe_anchors(result.config.anchor_sides, result.config.anchor_ratios, 64)
    assert "anchor_scale" not in described
    detector = build_detector(2, 64, "mobilenet_v2", fpn_channels=8, **described)
    assert anchors_of(described, 64).sides == detector.rpn.anchor_generator.sizes
    assert not result.notes


@pytest.mark.parametrize("n_categories", [1, 60])
def test_of_any_number_of_categories_the_boxes_have_anchors(whole, n_categories):
    """Each category has boxes of a shape of its own, from a tenth to nine tenths of the canvas, 1:6 to 6:1."""
    rows = whole.rows("train", not_fold=0)
    random = np.random.default_rng(n_categories)
    area = random.uniform(0.1, 0.35, n_categories)
    ratio = np.exp(random.uniform(-np.log(6), np.log(6), n_categories)) if n_categories > 1 else np.full(1, 6.0)
    labels = np.repeat(np.arange(1, n_categories + 1), 600 // n_categories)
    records = [dict(record, width=2000, height=2000) for record in whole.records]
    sides = 2000 * area[labels - 1, None] * np.sqrt(np.stack([1 / ratio, ratio], axis=1))[labels - 1]
    corners = random.uniform(0, 2000 - sides)
    store = with_boxes(whole, np.hstack([corners, corners + sides]), labels, rows[np.arange(len(labels)) % len(rows)])
    categories = {label: f"finding {label}" for label in set(labels.tolist())}
    store = dataclasses.replace(
        store, records=records, categories=categories, conversion={"parameters": {"image_size": 256}}
    )
    config = planned(store).config
    anchors = AnchorSides(by_level(config.anchor_sides), config.anchor_ratios)
    boxes, _, _ = _boxes_on_canvas(store, rows, np.arange(len(store.boxes)))
    assert len(boxes) == len(labels)
    assert recall_of(anchors, boxes)[0.5] >= 0.95


def test_small_boxes_are_counted_and_a_larger_canvas_is_advised(whole):
    record = dict(whole.records[0], width=2000, height=2000)
    records = [record, *whole.records[1:]]
    rows = whole.rows("train", not_fold=0)
    records = [dict(row, width=2000, height=2000) for row in records]
    boxes = np.array([[100.0, 100, 125, 125], [200, 200, 400, 400]])
    store = dataclasses.replace(with_boxes(whole, boxes, 1, rows[:2]), records=records)
    first, second = planned(store).notes
    assert first == "1 box is narrower than a pixel of the canvas: training widens what is below one pixel to one"
    assert second.startswith("1 box in 20 has a side of at most 1.1 canvas pixels")
    assert second.endswith("convert with --image-size 512")


def test_a_run_keeps_what_was_chosen_and_why(whole, tmp_path):
    result = planned(whole)
    config = dataclasses.replace(result.config, save_path=str(tmp_path))
    save_config(tmp_path / CONFIG_FILE, "detection", config, result.lines())
    written = yaml.safe_load((tmp_path / CONFIG_FILE).read_text())
    assert written["anchor_sides"] == list(config.anchor_sides)
    assert any("anchor-sides" in line for line in written["chosen"])
    _, resumed = read_training_flags(["--save-path", str(tmp_path), "--resume"])
    assert resumed == dataclasses.replace(config, resume=True)
    save_config(tmp_path / CONFIG_FILE, "detection", resumed)
    assert yaml.safe_load((tmp_path / CONFIG_FILE).read_text()) == written


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            {"anchor_sides": (1.0, 2, 3)},
            r"--anchor-sides is 1 2 3: it must be five positive numbers, or ten, fifteen …",
        ),
        ({"anchor_sides": ()}, "--anchor-sides is empty"),
        ({"anchor_ratios": (0.0, 1)}, "--anchor-ratios is 0 1: it must be positive numbers"),
        ({"reader_weights": ("R1=2",)}, "--reader-weights is R1=2: it must be used with --agreement"),
    ],
)
def test_what_is_refused(flags, words):
    with pytest.raises(FlagError, match=words):
        DetectionConfig(**flags).check()


RETINA = dataclasses.replace(GIVEN, family="retinanet", backbone="mobilenet_v2")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, {"head": "v2", "optimizer": "adamw", "lr": 0.0003, "norm": "batch"}),
        ({"batch_size": 32}, {"head": "v2", "optimizer": "adamw", "lr": 0.0006}),
        ({"norm": "frozen"}, {"head": "v2", "optimizer": "adamw", "lr": 0.0001}),
        ({"optimizer": "sgd"}, {"head": "v2", "optimizer": "sgd", "lr": 0.005}),
        ({"optimizer": "sgd", "norm": "frozen", "batch_size": 16}, {"lr": 0.01}),  # torchvision's and Detectron2's
        ({"lr": 0.005}, {"head": "v2", "optimizer": "sgd", "lr": 0.005}),
        ({"head": "v1"}, {"head": "v1", "optimizer": "adamw", "lr": 0.0003}),
        ({"fpn_channels": 48}, {"head": "v1", "optimizer": "adamw"}),
        ({"fpn_channels": 32}, {"head": "v1", "optimizer": "adamw"}),
        ({"fpn_channels": 64}, {"head": "v2", "optimizer": "adamw"}),
        ({"family": "faster_rcnn"}, {"head": "v1", "optimizer": "sgd", "lr": 0.02}),
        ({"family": "faster_rcnn", "optimizer": "adamw"}, {"head": "v1", "lr": 0.0003}),
    ],
)
def test_head_optimizer_and_rate_fit_the_family(whole, flags, expected):
    config = planned(whole, dataclasses.replace(RETINA, **flags)).config
    assert {name: getattr(config, name) for name in expected} == expected


def test_a_retinanet_starts_from_an_older_one_with_its_head(whole, tmp_path):
    for head in ("v1", "v2"):
        options = {"backbone": "mobilenet_v2", "head": head, "fpn_channels": 32, "family": "retinanet"}
        torch.save(build_detector(2, 64, **options).state_dict(), tmp_path / f"{head}.pth")
        result = planned(whole, dataclasses.replace(RETINA, weights=str(tmp_path / f"{head}.pth")))
        assert result.config.head == head
        assert result.reasons["head"] == "that of the weights"
    torch.save(build_detector(2, 64, "mobilenet_v2").state_dict(), tmp_path / "other.pth")
    assert planned(whole, dataclasses.replace(RETINA, weights=str(tmp_path / "other.pth"))).config.head == "v2"
    # Loading them says what is wrong.
    (tmp_path / "damaged.pth").write_bytes(b"no tensors")
    assert planned(whole, dataclasses.replace(RETINA, weights=str(tmp_path / "damaged.pth"))).config.head == "v2"
