"""Every layout of phantoms, end to end: convert, one epoch of a tiny network, infer, evaluate."""

import csv
import json

import numpy as np
import pytest
from conftest import CLASSIFICATION_FLAGS
from in_process import run

from xray.commands.train import main as train
from xray.datasets.sources import PUBLIC
from xray.datasets.store import open_store
from xray.phantoms.layouts import LAYOUTS
from xray.training.recipes import read_training_flags

pytestmark = pytest.mark.usefixtures("sketched")

KINDS = sorted(set(LAYOUTS) & set(PUBLIC) - {"jsrt", "mscxr", "padchestgr"})
"""The layouts of these are in test_label_and_mask_sets.py."""
FAST = ("rsna", "vindr")
"""Layouts that are trained on in the fast suite; the others take as long again, each."""


@pytest.fixture(scope="module")
def dataset(layout_tree, tmp_path_factory):
    """(kind) → the dataset directory that `convert` makes of its phantoms, in two folds on a canvas of 64 pixels."""
    made = {}

    def convert(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("public") / kind
            flags = ("--image-size", 64, "--n-folds", 2, "--n-workers", 1)
            done = run("convert", kind, "--data-path", layout_tree(kind), "--save-path", made[kind], *flags)
            assert done.returncode == 0, done.stderr
        return made[kind]

    return convert


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_and_boxes_are_where_the_phantoms_have_them(layout_tree, dataset, kind):
    store = open_store(dataset(kind))
    records = [json.loads(line) for line in (layout_tree(kind) / "phantoms.jsonl").read_text().splitlines()]
    truth = {record["file_name"]: record for record in records}
    conversion = json.loads((dataset(kind) / "conversion.json").read_text())
    # Radiographs without a public truth stand in no table.
    assert set(conversion["dropped"]["counts"]) <= {"file without a row in the table"}
    assert len(store.records) + sum(conversion["dropped"]["counts"].values()) == len(records)
    for record in store.records:
        assert record["split"] == truth[record["file_name"]]["split"]
    assert len(store.boxes)
    # Each box that is kept as it was drawn: at most a reader's error, a whole pixel or another unit's rounding away.
    near = []
    for row in range(len(store.boxes)):
        record = store.records[store.boxes.images[row]]
        drawn = truth[record["file_name"]]
        scale = drawn["width"] / record["width"]
        boxes = np.array([finding["box"] for finding in drawn["findings"]] or [[np.inf] * 4])
        near.append(np.abs(boxes - scale * store.boxes.boxes[row]).max(axis=1).min())
    assert kind == "objectcxr" or np.median(near) < 2


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind in FAST else pytest.mark.slow) for kind in KINDS],
)
def test_a_network_trains_on_it_finds_something_and_is_scored(dataset, train_tiny, tmp_path, kind):
    data = dataset(kind)
    train_tiny(data, tmp_path / "run")
    found = run("infer", "--weights", tmp_path / "run", "--data-path", data, "--save-path", tmp_path / "found",
                "--device", "cpu", "--n-workers", 0, "--no-tta")  # fmt: skip
    assert found.returncode == 0, found.stderr
    scored = run("evaluate", "--predictions", tmp_path / "found" / "predictions.json", "--data-path", data,
                 "--save-path", tmp_path / "report", "--resamples", 0)  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["n_images"] >= 8
    assert 0 <= metrics["map40"] <= 1


@pytest.fixture(scope="module")
def fisabio_run(dataset, train_tiny, tmp_path_factory):
    """A detector of FISABIO's phantoms that has learned next to nothing."""
    return train_tiny(dataset("fisabio"), tmp_path_factory.mktemp("fisabio") / "run")


def test_the_submission_of_fisabio_has_a_row_a_study_and_a_row_a_radiograph(
    layout_tree, dataset, fisabio_run, tmp_path
):
    flags = ("--submission", "fisabio", "--device", "cpu", "--n-workers", 0, "--no-tta")
    test = layout_tree("fisabio") / "test"
    done = run("infer", "--weights", fisabio_run, "--data-path", test, "--save-path", tmp_path / "a", *flags)
    assert done.returncode == 0, done.stderr
    with open(test.parent / "sample_submission.csv", newline="") as file:
        sample = list(csv.DictReader(file))
    with open(tmp_path / "a" / "submission.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [row["id"] for row in sample]
    for row in rows:
        words = row["PredictionString"].split()
        names, scores = words[::6], [float(word) for word in words[1::6]]
        if row["id"].endswith("_study"):
            assert row["PredictionString"] == "negative 1 0 0 1 1"  # no classifier says more
        else:
            assert set(names[:-1]) <= {"opacity"}
            assert (names[-1], words[-4:]) == ("none", ["0", "0", "1", "1"])
            assert scores[-1] == pytest.approx(1 - max(scores[:-1], default=0), abs=1e-5)
    # The studies of a dataset directory are its patients.
    done = run(
        "infer", "--weights", fisabio_run, "--data-path", dataset("fisabio"), "--save-path", tmp_path / "b", *flags
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "b" / "submission.csv", newline="") as file:
        ids = {row["id"] for row in csv.DictReader(file)}
    with open(layout_tree("fisabio") / "train_image_level.csv", newline="") as file:
        images = list(csv.DictReader(file))
    assert ids == {row["id"] for row in images} | {f"{row['StudyInstanceUID']}_study" for row in images}


@pytest.mark.slow
def test_a_classifier_tells_the_classes_of_studies(layout_tree, dataset, fisabio_run, tmp_path):
    classifier = tmp_path / "classifier"
    places = ["--data-path", str(dataset("fisabio")), "--save-path", str(classifier)]
    train(*read_training_flags([*CLASSIFICATION_FLAGS, *places]))
    done = run("infer", "--weights", fisabio_run, classifier, "--data-path", layout_tree("fisabio") / "test",
               "--save-path", tmp_path / "out", "--submission", "fisabio", "--device", "cpu", "--n-workers", 0,
               "--no-tta")  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = dict(line.split(",") for line in (tmp_path / "out" / "submission.csv").read_text().splitlines()[1:])
    with open(tmp_path / "out" / "labels.csv", newline="") as file:
        labels = {row["image_id"]: row for row in csv.DictReader(file)}
    names = ("Typical Appearance", "Indeterminate Appearance", "Atypical Appearance")
    for path in (layout_tree("fisabio") / "test").glob("*/*/*.dcm"):
        of_study = [labels[other.stem] for other in path.parents[1].glob("*/*.dcm")]
        means = [np.mean([float(row[name]) for row in of_study]) for name in names]
        words = rows[f"{path.parents[1].name}_study"].split()
        found = dict(zip(words[::6], map(float, words[1::6]), strict=True))
        expected = {"typical": means[0], "indeterminate": means[1], "atypical": means[2]}
        expected["negative"] = (1 - means[0]) * (1 - means[1]) * (1 - means[2])
        assert found == pytest.approx(expected, abs=1e-5)


def test_where_studies_or_opacities_are_not_known_the_command_says_what_to_do(
    layout_tree, fisabio_run, side_run, tmp_path
):
    flags = ("--save-path", tmp_path / "out", "--submission", "fisabio", "--device", "cpu", "--n-workers", 0)
    flat = layout_tree("nih") / "images_001" / "images"
    done = run("infer", "--weights", fisabio_run, "--data-path", flat, *flags)
    assert done.returncode == 1
    assert "--submission fisabio: the study of" in done.stderr
    done = run("infer", "--weights", side_run, "--data-path", layout_tree("fisabio") / "test", *flags)
    assert done.returncode == 1
    assert "--submission fisabio needs boxes of opacity, and --weights find Left shadow, Right shadow" in done.stderr
    assert not (tmp_path / "out").exists()
