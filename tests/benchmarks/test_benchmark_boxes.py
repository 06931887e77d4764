"""Benchmarks of fusion and of the metric, small and end to end; and that they refuse what is not the same."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import evaluate, fuse
from benchmarks.material import SIDE
from xray.errors import FlagError, InputError
from xray.evaluation.coco_metrics import coco_metrics
from xray.structures.boxes import BoxTable, box_iou


def test_models_agree_where_something_is():
    table, models = fuse.draw_boxes(20, 3, 30)
    assert np.bincount(table.images).tolist() == [90] * 20
    assert np.bincount(models).tolist() == [600] * 3
    assert len(np.unique(table.scores)) == len(table)
    assert (table.scores > 0).all()
    assert (table.scores < 1).all()
    assert (table.boxes >= 0).all()
    assert (table.boxes <= SIDE).all()
    first, second = (table.select(models == model) for model in (0, 1))
    np.testing.assert_array_equal(first.labels, second.labels)
    overlaps = [box_iou([a], [b])[0, 0] for a, b in zip(first.boxes, second.boxes, strict=True)]
    assert np.median(overlaps) > 0.6


def test_ensemble_boxes_gets_the_same_boxes():
    # Some models have nothing for a radiograph, and radiograph 2 has nothing at all.
    images, models = np.array([3, 0, 0, 1, 0]), np.array([1, 1, 0, 0, 1])
    table = BoxTable.of(images, [1, 2, 3, 4, 5], np.tile([0, 0, 30, 60], (5, 1)), [0.1, 0.2, 0.3, 0.4, 0.5])
    usual = fuse.as_usual(table, models, 4, 2)
    assert [[of_model.tolist() for of_model in labels] for _, _, labels in usual] == [
        [[3], [2, 5]],
        [[4], []],
        [[], []],
        [[], [1]],
    ]
    np.testing.assert_allclose(usual[0][0][1], np.tile([0, 0, 30 / SIDE, 60 / SIDE], (2, 1)))
    assert usual[0][1][1].tolist() == [0.2, 0.5]


def test_fusion_writes_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture):
    fuse.main(fuse.Config(n_images=7, n_models=3, n_boxes=9, repeats=2, save_path=tmp_path / "fuse.json"))
    report = json.loads((tmp_path / "fuse.json").read_text())
    assert 0 < report["largest_difference"] < 1e-6
    assert 7 < report["n_fused"] < 7 * 3 * 9
    [measured] = report["results"]
    for side in (*measured["contenders"].values(), report["whole"]):
        assert len(side["seconds"]) == len(side["cpu_seconds"]) == 2
    [pair] = measured["ratios"]
    assert pair["ratio"]["low"] <= pair["ratio"]["median"] <= pair["ratio"]["high"]
    assert {"numba", "ensemble-boxes"} <= report["versions"].keys()
    out = capsys.readouterr().out
    assert "189 boxes" in out
    assert "ensemble-boxes in a loop" in out


def test_evaluation_writes_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture):
    evaluate.main(evaluate.Config(n_images=9, n_boxes=12, repeats=1, save_path=tmp_path / "evaluate.json"))
    report = json.loads((tmp_path / "evaluate.json").read_text())
    assert report["largest_difference"] <= 1e-12
    assert 0 < report["metrics"]["coco_ap"] < report["metrics"]["coco_ap50"] < 1
    [measured] = report["results"]
    assert [(pair["ours"], pair["peer"]) for pair in measured["ratios"]] == [
        ("ours", "usual"),
        ("ours", "lean"),
        ("all", "usual"),
        ("all", "lean"),
        ("ours_file", "usual_file"),
    ]
    for pair in measured["ratios"]:
        ours, usual = (measured["contenders"][pair[side]]["seconds"][0] for side in ("ours", "peer"))
        assert pair["ratio"]["median"] == pytest.approx(usual / ours)
    out = capsys.readouterr().out
    assert "108 detections on 9 radiographs with 27 true boxes" in out


def test_predictions_are_a_detectors():
    truth = evaluate.draw_truth(300)
    table = evaluate.draw_predictions(truth, 300, 40)
    assert np.bincount(table.images).tolist() == [40] * 300
    assert len(np.unique(truth.images)) <= 100
    assert len(np.unique(table.scores)) < len(table)  # equal scores occur
    metrics = coco_metrics(truth, table, evaluate.NAMES)
    assert 0.1 < metrics["coco_ap"] < metrics["coco_ap50"] < 0.9


def test_refuses_to_compare_different_numbers(monkeypatch: pytest.MonkeyPatch):
    right = fuse.weighted_boxes_fusion
    monkeypatch.setattr(fuse, "weighted_boxes_fusion", lambda *a, **k: right(*a, **{**k, "score": "max"}))
    with pytest.raises(InputError, match="fused boxes differ"):
        fuse.main(fuse.Config(n_images=3, n_models=2, n_boxes=5, repeats=1))
    monkeypatch.setattr(evaluate, "coco_metrics", lambda *_: dict.fromkeys(evaluate.COCO_NAMES, 0.5))
    with pytest.raises(InputError, match="APs differ"):
        evaluate.main(evaluate.Config(n_images=9, n_boxes=12, repeats=1))


def test_one_box_too_few_is_a_difference():
    ours = BoxTable.of([0], [1], [[0, 0, 300, 600]], [0.5])
    theirs = (np.array([[0, 0, 0.1, 0.2]]), np.array([0.5]), np.array([1.0]))
    assert fuse.difference_of(ours, theirs) < 1e-12
    assert fuse.difference_of(BoxTable.concatenate([ours, ours]), theirs) == np.inf
    assert fuse.difference_of(ours, (theirs[0], theirs[1] + 1e-3, theirs[2])) == pytest.approx(1e-3)
    # Two of ours, both nearest to the same one of theirs.
    twice = tuple(np.concatenate([part, part + 1]) for part in theirs)
    assert fuse.difference_of(BoxTable.concatenate([ours, ours]), twice) == np.inf


@pytest.mark.parametrize(
    ("stage", "flags", "message"),
    [
        (fuse, {"repeats": 0}, "--repeats is 0"),
        (fuse, {"n_images": 4, "repeats": 5}, "--n-images is 4: give at least 5"),
        (fuse, {"iou": 1.0}, "--iou is 1.0"),
        (evaluate, {"n_boxes": 101}, "--n-boxes is 101"),
        (evaluate, {"n_images": 0}, "--n-images is 0"),
    ],
)
def test_refuses_unusable_flags(stage, flags: dict[str, float], message: str):
    with pytest.raises(FlagError, match=message):
        stage.main(stage.Config(**flags))
