"""The inference benchmark: both find the same, and are refused where one does not."""

import json

import pytest
import torch

from benchmarks import infer
from benchmarks.infer import main
from xray.errors import FlagError, InputError
from xray.structures.boxes import BoxTable


def small(store, **flags):
    values = {
        "n_images": 4,
        "repeats": 1,
        "backbone": "resnet18",
        "n_workers": 0,
        "device": "cpu",
        "batch_size": 3,
        "proposals": 40,
    }
    return infer.Config(**{**values, "data_path": store, **flags})


@pytest.mark.slow
def test_both_find_the_same_until_one_is_changed(vinbig_store, tmp_path):
    config = small(vinbig_store)
    assert infer.prepare(config, tmp_path) == 64
    ours, theirs = (kind(config, "cpu", tmp_path) for kind in (infer.Ours, infer.Theirs))
    found = {source: ours.find(source) for source in ("canvases", "files")}
    assert set(found["files"].images.tolist()) == set(range(4))
    agreement = infer.check(found, theirs.find("canvases"), exact=True)
    assert agreement.boxes > 10
    assert agreement.matched == 1
    assert agreement.pixels < 0.02
    infer.check({"files": theirs.find("files")}, theirs.find("canvases"), exact=True)
    assert ours.time("canvases").n == theirs.time("files").n == 4
    with torch.no_grad():
        theirs.model.roi_heads.box_predictor.cls_score.bias[0] -= 1
    with pytest.raises(InputError, match=r"from canvases, of .* detections .* were found by both"):
        infer.check(found, theirs.find("canvases"), exact=True)


@pytest.mark.slow
def test_writes_its_numbers(vinbig_store, tmp_path, capsys):
    main(small(vinbig_store, save_path=tmp_path / "infer.json"))
    report = json.loads((tmp_path / "infer.json").read_text())
    assert len(report["results"]) == 2
    for measured in report["results"]:
        [ours], [theirs] = (measured["contenders"][name]["seconds"] for name in ("ours", "torchvision"))
        assert measured["ratios"][0]["ratio"]["median"] == pytest.approx(theirs / ours)
    assert report["parameters"]["image_size"] == 64
    assert "same boxes" in capsys.readouterr().out


def test_what_may_have_been_cut_off():
    table = BoxTable.of([0, 0, 1, 3, 3], [1] * 5, [[0, 0, 1, 1]] * 5, [0.9, 0.3, 0.1, 0.8, 0.2])
    assert infer.lowest_at_limit(table, 2) == 0.3
    assert infer.lowest_at_limit(table, 3) == 0
    assert infer.lowest_at_limit(BoxTable.empty(), 1) == 0


def test_a_run_must_be_one_that_torchvision_has(vinbig_store, vinbig_run):
    with pytest.raises(InputError, match="not the run of a detector that torchvision builds"):
        main(small(vinbig_store, weights=vinbig_run))


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({"score_threshold": 1.0}, FlagError, "--score-threshold is 1.0"),
        ({"proposals": 0}, FlagError, "--proposals is 0"),
        ({"n_images": 99}, InputError, "has 16 radiographs, 99 were asked for"),
    ],
)
def test_refuses_unusable_flags(flags, error, message, vinbig_store):
    with pytest.raises(error, match=message):
        main(small(vinbig_store, **flags))


def test_drawn_weights_in_less_than_float32_are_told_and_not_judged():
    one, other = (BoxTable.of([0], [label], [[0, 0, 10, 10]], [0.9]) for label in (1, 2))
    assert infer.check({"canvases": one}, other, exact=False, trained=False).matched == 0
    with pytest.raises(InputError, match=r"0\.0% were found by both"):
        infer.check({"canvases": one}, other, exact=False)
