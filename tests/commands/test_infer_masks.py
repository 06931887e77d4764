"""The infer command with segmenters and classifiers: triplet, pruning, probability maps, labels, truth in pictures."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest

from xray.commands.infer import Config
from xray.commands.infer import main as infer
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError
from xray.structures import rle
from xray.structures.masks import decode_mask
from xray.structures.predictions import NO_FINDING_CATEGORY, read_predictions
from xray.structures.probability_maps import read_maps
from xray.structures.triplet import Triplet, apply_triplet


@pytest.fixture
def run_infer(mask_source, tmp_path):
    """(runs, **changes) → OUT."""

    def call(*runs, out="out", **changes):
        values = {"data_path": str(mask_source / "png_images"), "save_path": str(tmp_path / out), "n_workers": 0}
        assert infer(Config(weights=tuple(map(str, runs)), **values | changes)) == 0
        return tmp_path / out

    return call


def masks_of(out):
    """Image id → joined mask of all its rows."""
    predictions = read_predictions(out / "predictions.json")
    joined = {}
    for row, mask in predictions.masks.items():
        name = predictions.image_ids[predictions.table.images[row]]
        joined[name] = joined.get(name, 0) | decode_mask(mask).astype(bool)
    return joined


def test_masks_are_what_the_triplet_makes_of_the_maps_that_are_kept(run_infer, segmentation_run):
    triplet = Triplet(0.6, 0.01, 0.2)
    out = run_infer(segmentation_run, probabilities=True, triplet=(0.6, 0.01, 0.2))
    maps, found = read_maps(out), masks_of(out)
    assert len(maps) == 16
    assert maps.categories == {1: "Pneumothorax"}
    positives = 0
    for number, name in enumerate(maps.image_ids):
        wanted = apply_triplet(maps.original(number, 0), triplet)
        mask = found.get(name, np.zeros(wanted.shape, dtype=bool))
        # Specks are not drawn.
        assert (mask & ~wanted).sum() == 0
        assert wanted.sum() - mask.sum() <= 3
        positives += mask.any()
    assert 0 < positives < 16
    # And the submission holds the same.
    with (out / "submission.csv").open() as file:
        for row in csv.DictReader(file):
            mask = rle.decode(row["EncodedPixels"], 72, 80, "relative") if row["EncodedPixels"] != "-1" else 0
            np.testing.assert_array_equal(mask, found.get(row["ImageId"], 0))


def test_the_regions_of_masks_are_called_so(tmp_path):
    from xray.outputs.results import what_was_written

    some = what_was_written(tmp_path, 12, (36, 30), (0.3, None), False, False, is_of_masks=True)
    assert some.startswith("12 radiographs, 36 regions of masks, 30 of them with a score of 0.3 or more: ")
    assert "specks" not in some
    many = what_was_written(tmp_path, 12, (536, 536), (0.3, None), False, False, is_of_masks=True)
    assert "45 regions a radiograph are mostly specks: --triplet leaves out" in many
    assert "12 radiographs, no masks: " in what_was_written(
        tmp_path, 12, (0, 0), (0.3, None), False, False, is_of_masks=True
    )


def test_the_rows_of_classifiers_are_called_labels(tmp_path):
    from xray.outputs.results import what_was_written

    some = what_was_written(tmp_path, 12, (36, 30), (0.3, None), False, False, is_of_labels=True)
    assert some.startswith("12 radiographs, 36 labels of whole radiographs, 30 of them with a score of 0.3 or more: ")
    none = what_was_written(tmp_path, 12, (0, 0), (0.3, None), False, False, is_of_labels=True)
    assert "12 radiographs, no labels of whole radiographs: " in none


def test_no_radiograph_is_positive_under_a_minimal_area_that_none_reaches(run_infer, segmentation_run):
    assert masks_of(run_infer(segmentation_run, triplet=(0.5, 0.9, 0.5))) == {}


def test_the_triplet_of_a_run_is_used_unless_another_is_given(run_infer, segmentation_run, tmp_path):
    fitted = tmp_path / "fitted"
    shutil.copytree(segmentation_run, fitted)
    description = json.loads((fitted / "model.json").read_text())
    description["thresholds"] |= {"top": 0.5, "min_area": 0.9, "bottom": 0.5}
    (fitted / "model.json").write_text(json.dumps(description))
    assert masks_of(run_infer(fitted)) == {}
    given = masks_of(run_infer(fitted, out="given", triplet=(0.5, 0.0, 0.5)))
    plain = masks_of(run_infer(segmentation_run, out="plain"))
    assert plain
    assert {name: mask.sum() for name, mask in given.items()} == {name: mask.sum() for name, mask in plain.items()}


def test_a_pruned_network_finds_masks_of_its_own(run_infer, mask_store, train_masks, tmp_path):
    flags = ("--architecture", "unetplusplus", "--deep-supervision", "--n-epochs", "10", "--lr", "0.003", "--flip", "0",
             "--val-every", "5")  # fmt: skip
    run = train_masks(mask_store, tmp_path / "nested", *flags)
    maps = {level: read_maps(run_infer(run, out=f"l{level}", probabilities=True, prune=level)) for level in (0, 1, 2)}
    assert not np.array_equal(maps[0].maps, maps[1].maps)
    truth = {record["file_name"].split("/")[-1].split(".")[0]: row for row, record in
             enumerate(open_store(mask_store).records)}  # fmt: skip
    store = open_store(mask_store)
    for level, kept in maps.items():
        inside = []
        for number, name in enumerate(kept.image_ids):
            for box in store.boxes.boxes[store.boxes.images == truth[name]].astype(int):
                inside.append(kept.original(number, 0)[box[1] : box[3], box[0] : box[2]].mean())
        assert np.mean(inside) > 0.3, level
    with pytest.raises(InputError, match="--prune 3 cannot be applied"):
        run_infer(run, out="l3", prune=3)


def test_only_networks_with_deep_supervision_can_be_pruned(run_infer, segmentation_run, tmp_path):
    with pytest.raises(InputError, match=r"--prune 1 cannot be applied to .*deep supervision"):
        run_infer(segmentation_run, prune=1)
    assert not (tmp_path / "out").exists()


def test_a_classifier_beside_leaves_its_probabilities(run_infer, segmentation_run, classification_run):
    out = run_infer(segmentation_run, classification_run, probabilities=True)
    with (out / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image_id", "Pneumothorax"]
    maps = read_maps(out)
    assert [row["image_id"] for row in rows] == list(maps.image_ids)
    np.testing.assert_allclose([float(row["Pneumothorax"]) for row in rows], maps.labels["Pneumothorax"], atol=1e-5)
    # A later command without maps leaves no stale ones.
    run_infer(segmentation_run, overwrite=True)
    assert read_maps(out) is None
    assert not (out / "labels.csv").exists()


def test_an_abnormal_classifier_gives_the_probability_of_no_finding(run_infer, mask_store, tmp_path):
    from xray.commands.train import main
    from xray.training.recipes import read_training_flags

    run = tmp_path / "abnormal"
    flags = ["--task", "classification", "--network", "resnet10t", "--target", "abnormal", "--weights", "none",
             "--n-workers", "0", "--n-epochs", "1", "--device", "cpu"]  # fmt: skip
    main(*read_training_flags([*flags, "--data-path", str(mask_store), "--save-path", str(run)]))
    validated = read_predictions(run / "validation" / "predictions.json")
    assert set(validated.table.labels.tolist()) == {NO_FINDING_CATEGORY}
    out = run_infer(run)
    found = read_predictions(out / "predictions.json")
    assert set(found.table.labels.tolist()) == {NO_FINDING_CATEGORY}
    with (out / "labels.csv").open() as file:
        abnormal = {row["image_id"]: float(row["abnormal"]) for row in csv.DictReader(file)}
    for image, score in zip(found.table.images.tolist(), found.table.scores.tolist(), strict=True):
        assert score == pytest.approx(1 - abnormal[found.image_ids[image]], abs=1e-5)


def test_pictures_show_the_truth_where_it_is_known(run_infer, segmentation_run, mask_store):
    out = run_infer(segmentation_run, data_path=str(mask_store), overlays=True, fold=0)
    alone = run_infer(segmentation_run, out="alone", overlays=True)
    beside = run_infer(segmentation_run, out="beside", data_path=str(mask_store), truth=str(mask_store), overlays=True)
    single = cv2.imread(str(next((alone / "overlays").iterdir())))
    for folder in (out, beside):
        double = cv2.imread(str(next((folder / "overlays").iterdir())))
        assert double.shape[1] > 1.9 * single.shape[1]


def test_a_truth_of_other_radiographs_is_refused(run_infer, segmentation_run, vinbig_store, tmp_path):
    # Its ids are 00, 01, …; the files here are 0_train, 1_train, …
    with pytest.raises(InputError, match="has none of the 16 radiographs"):
        run_infer(segmentation_run, truth=str(vinbig_store), overlays=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"triplet": (0.5, 2000, 0.3)}, "--triplet is 0.5 2000 0.3: it must be three numbers in"),
        ({"prune": 7}, "--prune is 7"),
        ({"gate_threshold": 1.5}, "--gate-threshold is 1.5"),
    ],
)
def test_values_out_of_range(run_infer, segmentation_run, changes, message):
    with pytest.raises(FlagError, match=message):
        run_infer(segmentation_run, **changes)


def test_maps_need_a_segmenter(run_infer, classification_run):
    with pytest.raises(InputError, match="--weights names none"):
        run_infer(classification_run, probabilities=True)


def test_the_sample_submission_of_siim_gives_the_order(run_infer, segmentation_run, mask_source, tmp_path):
    sample = tmp_path / "sample_submission.csv"
    sample.write_text("ImageId,EncodedPixels\n3_train,1 2\n1_train,1 2\nmissing,1 2\n")
    values = {"data_path": str(mask_source / "png_images"), "save_path": str(tmp_path / "out"), "n_workers": 0}
    assert infer(Config(weights=(str(segmentation_run),), sample_submission=str(sample), **values)) == 1
    lines = (tmp_path / "out" / "submission.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["ImageId", "3_train", "1_train", "missing"]
    assert lines[3] == "missing,-1"
