"""Segmentation and classification from masks to a submission, on a few small radiographs."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from xray.commands.infer import Config
from xray.commands.infer import main as infer
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.models.weights import load_deployed
from xray.structures import rle
from xray.structures.predictions import read_predictions


def test_a_segmenter_learns_bright_rectangles(segmentation_run, mask_store):
    description, _ = load_deployed(segmentation_run)
    assert description["task"] == "segmentation"
    assert description["metrics"]["dice_positive"] > 0.5
    # The validation predictions hold a mask at original size for each row, inside its own box.
    predictions = read_predictions(segmentation_run / "validation" / "predictions.json")
    store = open_store(mask_store)
    assert set(predictions.image_ids) <= set(store.index_of)
    assert len(predictions.masks) == len(predictions.table) > 0
    for mask in predictions.masks.values():
        assert mask["size"] == [72, 80]


def test_resuming_a_segmentation_is_exact(mask_store, tmp_path, train_masks):
    flags = ("--schedule", "step", "--positives", "0.7", "--ema", "--n-workers", "1")
    whole = train_masks(mask_store, tmp_path / "whole", *flags, "--n-epochs", "2")
    parts = train_masks(mask_store, tmp_path / "parts", *flags, "--n-epochs", "1")
    train_masks(mask_store, parts, "--resume", "--n-epochs", "2")
    first, second = (torch.load(run / "last.ckpt", weights_only=True)["current_model_state"] for run in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_inference_writes_masks_and_the_submission_of_siim(segmentation_run, mask_source, tmp_path):
    config = Config(
        weights=(str(segmentation_run),),
        data_path=str(mask_source / "png_images"),
        save_path=str(tmp_path / "out"),
        n_workers=0,
        overlays=True,
    )
    assert infer(config) == 0
    lines = (tmp_path / "out" / "submission.csv").read_text().splitlines()
    assert lines[0] == "ImageId,EncodedPixels"
    assert len(lines) == 17
    found = dict(line.split(",") for line in lines[1:])
    dice = []
    for number in range(1, 16, 2):
        truth = cv2.imread(str(mask_source / "png_masks" / f"{number}_train.png"), cv2.IMREAD_GRAYSCALE) > 0
        mask = rle.decode(found[f"{number}_train"], 72, 80, "relative")
        dice.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert np.mean(dice) > 0.5
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 16


def test_a_classifier_of_whole_radiographs(classification_run, mask_source, tmp_path):
    description, _ = load_deployed(classification_run)
    assert description["labels"] == ["Pneumothorax"]
    assert 0 <= description["metrics"]["auroc"]["Pneumothorax"] <= 1
    config = Config(
        weights=(str(classification_run),),
        data_path=str(mask_source / "png_images"),
        save_path=str(tmp_path / "out"),
        n_workers=0,
    )
    assert infer(config) == 0
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(rows) == 16
    assert all(row["bbox"] == [0, 0, 80, 72] for row in rows)


def test_the_cascade_weighs_masks_softly_or_leaves_them_out(
    segmentation_run, classification_run, mask_source, tmp_path
):
    def rows(gate, threshold=None, runs=(segmentation_run, classification_run)):
        out = tmp_path / f"{gate}{threshold}{len(runs)}"
        config = Config(
            weights=tuple(map(str, runs)),
            data_path=str(mask_source / "png_images"),
            save_path=str(out),
            n_workers=0,
            gate=gate,
            gate_threshold=threshold,
        )
        assert infer(config) == 0
        return json.loads((out / "predictions.json").read_text())

    alone = rows("soft", runs=(segmentation_run,))
    soft = rows("soft")
    assert [row["bbox"] for row in soft] == [row["bbox"] for row in alone]
    assert all(weighed["score"] < plain["score"] for weighed, plain in zip(soft, alone, strict=True))
    assert rows("hard", 0.0) == alone
    assert rows("hard", 1.0) == []


@pytest.mark.parametrize("target", ["findings", "abnormal"])
def test_labels_come_from_boxes_and_from_records(side_store, target):
    from xray.training.tasks.classification import image_labels

    store = open_store(side_store)
    labels = image_labels(store, target)
    present = [set(store.boxes.labels[store.boxes.images == row].tolist()) for row in range(len(store))]
    if target == "abnormal":
        assert labels[:, 0].tolist() == [bool(kinds) for kinds in present]
    else:
        assert [{k + 1 for k in np.flatnonzero(row).tolist()} for row in labels] == present


def test_boxes_without_masks_are_no_negatives(mask_store, tmp_path, capsys):
    from xray.training.config import SegmentationConfig
    from xray.training.tasks.segmentation import SegmentationTask

    changed = tmp_path / "data"
    shutil.copytree(mask_store, changed)
    content = json.loads((changed / "annotations.json").read_text())
    row = content["annotations"][0].pop("segmentation") and content["annotations"][0]["image_id"]
    (changed / "annotations.json").write_text(json.dumps(content))
    options = {"encoder": "resnet18", "weights": "none", "depth": 3}
    task = SegmentationTask(SegmentationConfig(**options), open_store(changed))
    assert "1 radiographs have boxes without masks" in capsys.readouterr().out
    rows = [*task.train_rows.tolist(), *task.val_rows.tolist()]
    assert sorted([*rows, row]) == list(range(16))
    content["annotations"] = [{**a, "image_id": n} for n, a in enumerate(content["annotations"] * 2)]
    for annotation in content["annotations"]:
        annotation.pop("segmentation", None)
    (changed / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="boxes without masks in 16 radiographs, which leaves none"):
        SegmentationTask(SegmentationConfig(**options), open_store(changed))
