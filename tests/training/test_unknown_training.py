"""Trainings on a dataset that does not say everything: who trains, with what, and what is said."""

import json
import shutil

import numpy as np
import pytest
import yaml
from conftest import CLASSIFICATION_FLAGS

from xray.commands.train import main
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.evaluation.evaluate import evaluate
from xray.export.int8 import calibration_canvases, fold_of
from xray.inference.out_of_fold import gather, member_of
from xray.structures.predictions import read_predictions
from xray.structures.sides import mirrored
from xray.training.augment import Augmentation
from xray.training.config import ClassificationConfig, DetectionConfig, SegmentationConfig
from xray.training.loaders import collate_boxes, collate_images
from xray.training.loading import BoxDataset, LabelDataset, MaskDataset
from xray.training.pseudo import held_back
from xray.training.recipes import read_training_flags
from xray.training.sampling import may_hide, repeat_factors
from xray.training.tasks.classification import ClassificationTask
from xray.training.tasks.detection import DetectionTask
from xray.training.tasks.segmentation import SegmentationTask

UNKNOWN = {0: {"unknown": [1, 2, 3]}, 1: {"unlocated": [3]}, 3: {"unknown": [2]}, 6: {"labels": [2], "unlocated": [2]}}
"""Of `side_store`, whose radiographs 0, 3, 6, … have no box: left, right shadow and nodule are 1, 2, 3."""


def copy_of(folder, target, changes):
    shutil.copytree(folder, target)
    content = json.loads((target / "annotations.json").read_text())
    for row, change in changes.items():
        content["images"][row] |= change
    (target / "annotations.json").write_text(json.dumps(content))
    return target


@pytest.fixture
def data(side_store, tmp_path):
    return copy_of(side_store, tmp_path / "data", UNKNOWN)


def config_of(kind, data, **flags):
    shared = {"data_path": str(data), "device": "cpu", "n_workers": 0, "weights": "none", "batch_size": 4}
    return kind(**shared | flags)


def detection(data, **flags):
    network = {"backbone": "mobilenet_v2", "fpn_channels": 16, "n_epochs": 1, "anchor_scale": 1.0, "rpn_samples": 32}
    return DetectionTask(config_of(DetectionConfig, data, **network | flags), open_store(data))


def test_items_name_what_is_not_known_on_the_right_side(data):
    store, rows = open_store(data), np.arange(14)
    augmentation = Augmentation("light", mirrored(store.categories), flip=0.5)
    order = augmentation.mirrored_channels
    assert order == [1, 0, 2]
    known = ~store.unknown
    labels = LabelDataset(store, rows, store.labels, augmentation, mirrored_labels=order, known=known)
    masks = MaskDataset(store, rows, augmentation, known=known)
    boxes = BoxDataset(store, rows, augmentation, unlocated=store.unlocated)
    sides = set()
    for draw in range(8):
        is_mirrored = augmentation.mirrors(labels.seed_of((0, draw, 3)))
        sides.add(is_mirrored)
        # Right is unknown, which on a mirrored radiograph is left.
        expected = [False, True, True] if is_mirrored else [True, False, True]
        assert labels[0, draw, 3]["known"].tolist() == masks[0, draw, 3]["known"].tolist() == expected
        of_box = boxes[0, draw, 3]["unlocated"].tolist()
        assert of_box == [True, *(not one for one in expected)]
    assert sides == {False, True}
    plain = LabelDataset(store, rows, store.labels, known=known)
    assert collate_images([plain[3], plain[4]])["known"].tolist() == [[True, False, True], [True, True, True]]
    boxes = BoxDataset(store, rows, unlocated=store.unlocated)
    target = collate_boxes([boxes[1], boxes[2]])["targets"]
    assert [one["unlocated"].tolist() for one in target] == [[True, False, False, True], [False] * 4]
    # Of a category that has no box in these radiographs, background says all the same that it is none.
    few = BoxDataset(store, rows[[1, 4]], unlocated=store.unlocated)
    assert [labels.tolist() for labels in few.labels_of()] == [[2], [2]]
    assert few[0]["unlocated"].tolist() == [False, False, False, True]


def test_a_radiograph_that_may_show_something_is_not_normal(data):
    store = open_store(data)
    rows = np.arange(9)
    hidden = may_hide(store, rows, np.arange(len(store.boxes)))
    assert hidden.tolist() == [True, True, False, True, False, False, True, False, False]
    labels = [store.boxes.labels[store.boxes.images == row] for row in rows]
    factors = repeat_factors(labels, 0.0, 0.25, hidden)
    assert factors[[0, 3, 6]].tolist() == [1, 1, 1]
    assert repeat_factors(labels, 0.0, 0.25)[[0, 3, 6]].tolist() == [0.25] * 3
    # Without boxes of the categories that are not located, nothing is hidden to who learns the others.
    nodules = np.flatnonzero(store.boxes.labels == 3)
    assert may_hide(store, rows, nodules).tolist() == [True, True, *[False] * 7]


def test_a_detector_leaves_out_what_says_nothing(data, capsys):
    store = open_store(data)
    fold = int(store.folds[0])
    task = detection(data, fold=1 - fold)
    assert 0 not in task.train_rows
    assert "1 radiographs that would train and 0 that would validate are left out: the dataset does not locate" in (
        capsys.readouterr().out
    )
    assert any(line.startswith("findings that may be there without a box: ") for line in task.plan.notes)
    assert 0 not in detection(data, fold=fold).val_rows
    every = {row: {"unknown": [1, 2, 3]} for row in range(14) if not (store.boxes.images == row).any()}
    every[1] = {"unlocated": []}
    # What trains says everything now.
    assert detection(copy_of(data, data.parent / "no-normals", every), fold=0).unlocated is None


def test_without_any_that_can_be_used_it_is_one_line(data, tmp_path):
    content = json.loads((data / "annotations.json").read_text())
    content["annotations"] = []
    content["images"] = [record | {"unknown": [1, 2, 3], "labels": []} for record in content["images"]]
    (data / "annotations.json").write_text(json.dumps(content))
    for build in (
        lambda: detection(data, fold=0),
        lambda: ClassificationTask(config_of(ClassificationConfig, data, fold=0), open_store(data)),
        lambda: SegmentationTask(config_of(SegmentationConfig, data, fold=0), open_store(data)),
    ):
        with pytest.raises(InputError, match=r"none of the radiographs of .* that train can be used"):
            build()


def test_a_validation_that_tells_nothing_apart_is_one_line(data):
    content = json.loads((data / "annotations.json").read_text())
    for record in content["images"]:
        if record["fold"] == 0:
            record |= {"unknown": [1, 3], "labels": [2]}
    content["annotations"] = []
    (data / "annotations.json").write_text(json.dumps(content))
    store = open_store(data)
    with pytest.raises(InputError, match=r"all or none show each finding, as far as it is known, .* another --fold"):
        ClassificationTask(config_of(ClassificationConfig, data, fold=0), store).check_validation()
    ClassificationTask(config_of(ClassificationConfig, data, fold="all"), store).check_validation()


def test_a_detector_trains_and_validates(data, train_tiny, tmp_path):
    run = train_tiny(data, tmp_path / "run", "--fold", 0)
    store = open_store(data)
    metrics = json.loads((run / "model.json").read_text())["metrics"]
    rows = np.flatnonzero((store.folds == 0) & ~store.unlocated.all(axis=1))
    names = list(store.categories.values())
    expected = {name: n for name, n in zip(names, store.unlocated[rows].sum(axis=0).tolist(), strict=True) if n}
    assert metrics.get("n_unlocated", {}) == expected
    assert metrics["n_images"] == len(rows)
    # A later evaluation of the same predictions says the same.
    later = evaluate(store, read_predictions(run / "validation" / "predictions.json")).metrics
    assert later["n_images"] == len(rows)
    assert later["map40"] == pytest.approx(metrics["map40"], abs=1e-3)


@pytest.mark.parametrize("target", ["findings", "abnormal"])
def test_a_classifier_counts_what_is_known(data, target, capsys):
    store = open_store(data)
    config = config_of(ClassificationConfig, data, network="resnet10t", target=target, balance=True, fold=0)
    task = ClassificationTask(config, store)
    if target == "abnormal":
        # Of radiograph 3, the right side is unknown and nothing else is there; 6 shows something.
        assert not {0, 3} & {*task.train_rows.tolist(), *task.val_rows.tolist()}
        assert task.known is None
        assert task.labels[6, 0]
    else:
        assert 0 not in {*task.train_rows.tolist(), *task.val_rows.tolist()}
        assert task.known is not None
        known, shown = ~store.unknown[task.train_rows], store.labels[task.train_rows]
        weights = task.loss.keywords["positive_weights"]
        positives = shown.sum(axis=0)
        expected = np.where(positives > 0, (known.sum(axis=0) - positives) / np.maximum(positives, 1), 1)
        assert weights == pytest.approx(expected.clip(0.01, 100).tolist())
        said = capsys.readouterr().out
        names, n_rows = [*store.categories.values()], len(task.train_rows) + len(task.val_rows)
        assert f"neither learned nor measured: {names[1]} in 1 of {n_rows} radiographs\n" in said
        assert "nothing is known" not in said


def test_a_label_that_is_never_known_in_training_is_named(side_store, tmp_path, capsys):
    store = open_store(side_store)
    trained = np.flatnonzero(store.folds == 1).tolist()
    data = copy_of(side_store, tmp_path / "data", {row: {"unknown": [3]} for row in trained})
    content = json.loads((data / "annotations.json").read_text())
    content["annotations"] = [one for one in content["annotations"] if one["category_id"] != 3]
    (data / "annotations.json").write_text(json.dumps(content))
    ClassificationTask(config_of(ClassificationConfig, data, network="resnet10t", fold=0), open_store(data))
    name = store.categories[3]
    said = capsys.readouterr().out
    assert f"{name} in {len(trained)} of {(store.folds >= 0).sum()} radiographs" in said
    assert f"of {name} nothing is known in training: what the model says of it means nothing" in said


def as_validation(folder, target, rows):
    """A copy in which these radiographs are the validation split."""
    return copy_of(folder, target, {row: {"split": "val", "fold": -1} for row in rows})


def test_a_validation_split_from_training_to_tuning(side_store, train_tiny, tmp_path):
    data = as_validation(side_store, tmp_path / "data", range(8, 14))
    run = train_tiny(data, tmp_path / "run", "--fold", "val")
    store = open_store(data)
    assert yaml.safe_load((run / "config.yaml").read_text())["fold"] == "val"
    file = run / "validation" / "predictions.json"
    result = evaluate(store, read_predictions(file))
    assert sorted(result.alignment.rows.tolist()) == list(range(8, 14))
    assert held_back(run, store) == ("val", "")
    assert held_back(run, open_store(side_store)) == (
        None,
        f"it held back a validation split, which {side_store} does not have",
    )
    assert fold_of(run, -1) == "val"
    assert len(calibration_canvases(store, "val", 64)) == 8
    material = gather(store, [member_of(run)])
    assert material.rows.tolist() == list(range(8, 14))
    assert set(material.folds.tolist()) == {-1}
    assert material.left_out == ()


def test_a_classifier_trains(data, tmp_path):
    places = ["--data-path", str(data), "--save-path", str(tmp_path / "run"), "--fold", "0"]
    assert main(*read_training_flags([*CLASSIFICATION_FLAGS, *places])) == 0
    metrics = json.loads((tmp_path / "run" / "model.json").read_text())["metrics"]
    store = open_store(data)
    rows = np.flatnonzero((store.folds == 0) & ~store.unknown.all(axis=1))
    assert metrics["n_images"] == len(rows)
    assert sum(metrics.get("n_unknown", {}).values()) == store.unknown[rows].sum()


def test_labels_alone_train_no_detector_and_no_segmenter(side_store, tmp_path):
    data = copy_of(side_store, tmp_path / "data", {row: {"labels": [1], "unlocated": [1]} for row in range(6)})
    content = json.loads((data / "annotations.json").read_text())
    content["annotations"] = []
    (data / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"has labels and no box among its .* give --task classification"):
        detection(data)
    with pytest.raises(InputError, match=r"has labels and no mask among its .* give --task classification"):
        SegmentationTask(config_of(SegmentationConfig, data), open_store(data))
    assert len(ClassificationTask(config_of(ClassificationConfig, data), open_store(data)).train_rows)
