"""Scoring and fusing by the API: the same numbers as the commands, from files and from results in memory."""

import dataclasses
import json

import numpy as np
import pytest

import xray
from xray.api.finder import Finder
from xray.api.result import Result
from xray.api.results import Results
from xray.errors import InputError
from xray.structures.boxes import BoxTable
from xray.structures.made_by import read_made_by
from xray.structures.predictions import Predictions, read_predictions, write_predictions

FINDER = Finder({1: "Aortic enlargement", 4: "Cardiomegaly"}, has_masks=False)
BOX = (10.0, 20.0, 210.0, 420.0)


def result(name, *rows):
    """rows: (category, score, box)."""
    labels, scores, boxes = zip(*rows, strict=True)
    return Result(name, (1000, 2000), BoxTable.of([0] * len(rows), labels, boxes, scores), {}, {}, FINDER)


@pytest.fixture
def truth(write_table_store, tmp_path):
    images = [("a", "train", 0, None), ("b", "train", 0, None)]
    return write_table_store(tmp_path / "data", images, [(0, 4, BOX), (1, 1, BOX)])


@pytest.fixture
def results():
    """Half of the truth: the heart of a, and at b something else."""
    return Results([result("a", (4, 0.9, BOX)), result("b", (1, 0.8, (500, 500, 600, 600)))])


@pytest.mark.usefixtures("sketched")
def test_evaluated_as_the_command_does(truth, results, tmp_path):
    from xray.commands.evaluate import Config, main

    file = results.save(tmp_path / "out")[-1]
    main(Config(predictions=file, data_path=truth, save_path=tmp_path / "report", resamples=0))
    expected = json.loads((tmp_path / "report" / "metrics.json").read_text())
    metrics = xray.evaluate(file, truth)
    assert metrics["map40"] == 0.5
    assert metrics == {name: expected[name] for name in metrics}
    for given in (results, list(results), results.to_predictions()):
        assert xray.evaluate(given, str(truth)) == metrics
    assert xray.evaluate(results[0], truth)["n_images"] == 2
    with_intervals = xray.evaluate(results, truth, fold=0, resamples=20)
    assert with_intervals.keys() > metrics.keys()


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ("nowhere.json", {}, "no predictions at nowhere.json"),
        ([1], {}, "predictions are none"),
        (Results([]), {"threshold": 2}, "between 0 and 1"),
        (Results([]), {"resamples": -1}, "0 or more"),
    ],
)
def test_what_cannot_be_evaluated(truth, given, options, message):
    with pytest.raises(InputError, match=message):
        xray.evaluate(given, truth, **options)


def test_fused_results_are_saved_with_what_made_them(results, truth, tmp_path):
    models = []
    for fold in (0, 1):
        run = tmp_path / f"run{fold}"
        run.mkdir()
        (run / "model.safetensors").write_bytes(run.name.encode())
        (run / "model.json").write_text('{"task": "detection"}')
        (run / "config.yaml").write_text(f"fold: {fold}\n")
        models.append(
            Results(dataclasses.replace(one, finder=dataclasses.replace(FINDER, runs=(run,))) for one in results)
        )
    file = models[1].save(tmp_path / "out")[-1]
    fused = xray.fuse([models[0], file], [2, 1], iou=0.5)
    made = read_made_by(fused.save(tmp_path / "fused")[-1])
    assert [part["models"][0]["name"] for part in made["fused"]] == ["run0", "run1"]
    assert (made["settings"]["weights"], made["settings"]["iou"]) == ([2, 1], 0.5)
    # A file in a run directory is its model's; a fused one is what was fused.
    in_run = results.save(tmp_path / "run0" / "found")[-1]
    twice = xray.fuse([in_run, fused], dataset=truth)
    made = read_made_by(twice[:1].save(tmp_path / "twice")[-1])
    assert made["fused"][0]["models"][0]["name"] == "run0"
    assert [part["models"][0]["name"] for part in made["fused"][1]["fused"]] == ["run0", "run1"]
    # What is not known of one is not known of all.
    xray.fuse([models[0], results]).save(tmp_path / "fused", overwrite=True)
    assert not (tmp_path / "fused" / "made_by.json").exists()
    xray.fuse([models[0], results.to_predictions()]).save(tmp_path / "other")
    assert not (tmp_path / "other" / "made_by.json").exists()


def test_fused_boxes_are_the_means(results):
    other = Results([result("a", (4, 0.3, (30, 40, 230, 440))), result("c", (1, 0.5, BOX))])
    with pytest.warns(UserWarning, match="was not run on") as told:
        fused = xray.fuse([results, other])
    assert [str(one.message).split(":")[0] for one in told] == [
        "model 0 of those given was not run on 1 of 3 radiographs (such as 'c')",
        "model 1 of those given was not run on 1 of 3 radiographs (such as 'b')",
    ]
    assert fused.ids == ["a", "b", "c"]
    # By score: 0.75 and 0.25 of the shares; the score is the mean of both models'.
    np.testing.assert_allclose(fused["a"].boxes, [[15, 25, 215, 425]])
    np.testing.assert_allclose(fused["a"].scores, [0.6])
    assert fused["a"].names == ["Cardiomegaly"]
    assert (fused["c"].size, fused["c"].categories) == ((1000, 2000), FINDER.categories)
    # Where one of two was not run, the other counts alone.
    np.testing.assert_allclose(fused["b"].scores, [0.8])
    # Where it was run and found nothing, the score falls by its weight.
    empty = dataclasses.replace(results[1], rows=results[1].rows.select(np.zeros(1, dtype=bool)))
    other = Results([other["a"], empty])
    np.testing.assert_allclose(xray.fuse([results, other])["b"].scores, [0.4])
    heavy = xray.fuse([results, other], weights=[3, 1])
    np.testing.assert_allclose(heavy["b"].scores, [0.6])
    # A file without "No finding" rows says nothing of what was found empty: it is taken for a file of all.
    file = Results([other["a"]]).to_predictions()
    np.testing.assert_allclose(xray.fuse([results, file])["b"].scores, [0.4])


def test_fused_from_files(truth, results, tmp_path):
    file = results.save(tmp_path / "out")[-1]
    assert xray.fuse([file, str(file)]).table.equals(xray.fuse([results, results]).table)
    foreign = Predictions((0, 1), BoxTable.of([0, 1], [4, 1], [BOX, BOX], [0.5, 0.5]))
    write_predictions(tmp_path / "numbers.json", foreign)
    with pytest.raises(InputError, match=r"the ids in numbers\.json are those of a dataset"):
        xray.fuse([tmp_path / "numbers.json"])
    named = dataclasses.replace(read_predictions(file), is_foreign=True)
    assert xray.fuse([named, file], dataset=truth)["a"].names == ["Cardiomegaly"]


def test_what_cannot_be_fused(results):
    renamed = Results([dataclasses.replace(results[0], finder=Finder({4: "Something else"}, has_masks=False))])
    with pytest.raises(InputError, match="category 4 is Cardiomegaly to one model and Something else to another"):
        xray.fuse([results, renamed])
    with pytest.raises(InputError, match=r"fuse\(\) takes a list"):
        xray.fuse(results)
    with pytest.raises(InputError, match="1 weights for 2"):
        xray.fuse([results, results], weights=[1])
    with pytest.raises(InputError, match="at least one"):
        xray.fuse([])
