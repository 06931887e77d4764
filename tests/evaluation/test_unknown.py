"""What a dataset does not say counts in no number of an evaluation: labels, boxes and masks by hand, and by subsets."""

import dataclasses
import json

import numpy as np
import pytest
from evaluation_cases import predicted
from hypothesis import given
from hypothesis import strategies as st

from xray.datasets.fingerprint import fingerprint
from xray.datasets.store import open_store
from xray.evaluation.assess import assess
from xray.evaluation.comparison import compare
from xray.evaluation.cross_validation import cross_validate
from xray.evaluation.evaluate import evaluate
from xray.evaluation.label_metrics import classification_metrics
from xray.evaluation.mask_metrics import segmentation_metrics
from xray.evaluation.scored import read_scored, scored_of, write_scored
from xray.evaluation.warnings import warnings_of
from xray.inference.ensemble_file import Member
from xray.inference.out_of_fold import gather
from xray.inference.tuning import tune
from xray.outputs.report.report import write_report
from xray.structures.predictions import read_predictions, write_predictions
from xray.structures.probability_maps import MapWriter, read_maps

A, B, UNIT = (100, 100, 500, 500), (600, 600, 900, 900), (0, 0, 1, 1)
NAMES = [{"id": 1, "name": "Mass"}, {"id": 2, "name": "Effusion"}]


def edited(folder, changes):
    """Further entries of annotations.json: row → {"labels": …, "unknown": …, "unlocated": …}."""
    content = json.loads((folder / "annotations.json").read_text())
    for row, change in changes.items():
        content["images"][row] |= change
    (folder / "annotations.json").write_text(json.dumps(content))
    return open_store(folder, pixels=False)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=1, max_size=20))
def test_a_label_is_scored_where_it_is_known(rows):
    truth, known, scores = (np.array(column)[:, None] for column in zip(*rows, strict=True))
    metrics = classification_metrics(scores / 5, truth, ["Mass"], known)
    expected = classification_metrics(scores[known][:, None] / 5, truth[known][:, None], ["Mass"])
    for name in ("auroc", "average_precision"):
        assert metrics[name] == expected[name]
    assert metrics.get("n_unknown", {"Mass": 0})["Mass"] == (~known).sum()


def test_labels_by_hand():
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.9], [0.1, 0.4]])
    truth = np.array([[1, 0], [0, 0], [0, 1], [0, 1]])
    known = np.array([[1, 1], [0, 1], [1, 1], [1, 0]], dtype=bool)
    metrics = classification_metrics(scores, truth, ["Mass", "Effusion"], known)
    assert metrics["auroc"] == {"Mass": 1.0, "Effusion": 1.0}
    assert metrics["n_unknown"] == {"Mass": 1, "Effusion": 1}
    assert "n_unknown" not in classification_metrics(scores, truth, ["Mass", "Effusion"])


@pytest.fixture
def store(tmp_path, write_table_store):
    """Seven radiographs in two folds. Mass: a box in 0 and 3, a label alone in 1, unknown in 2. Effusion: a box in 4,
    unknown in 2 and 5. The last is normal."""
    images = [(f"i{row}", "train", row % 2, f"p{row}") for row in range(7)]
    folder = write_table_store(tmp_path / "d", images, [(0, 1, A), (3, 1, A), (4, 2, B)], NAMES)
    return edited(folder, {1: {"labels": [1], "unlocated": [1]}, 2: {"unknown": [1, 2]}, 5: {"unknown": [2]}})


ROWS = (
    ("i0", 1, A, 0.8), ("i1", 1, A, 0.9), ("i2", 1, A, 0.95), ("i3", 1, A, 0.4), ("i4", 1, B, 0.6), ("i4", 2, B, 0.7),
    ("i5", 2, B, 0.9), ("i0", 2, B, 0.3), ("i5", 1, A, 0.1),
    *((f"i{row}", 15, UNIT, score) for row, score in enumerate((0.1, 0.2, 0.9, 0.6, 0.3, 0.5, 0.7))),
)  # fmt: skip
FOUND = predicted(*ROWS)


def test_boxes_and_labels_by_hand(store):
    result = evaluate(store, FOUND, n_resamples=20)
    metrics = result.metrics
    # Mass, scored on 0, 3, 4, 5, 6: right at 0.8, wrong at 0.6, right at 0.4, wrong at 0.1: AP (1 + 2/3) / 2.
    # Effusion, on 0, 1, 3, 4, 6: right at 0.7, wrong at 0.3.
    assert metrics["ap40"] == {"Mass": pytest.approx(5 / 6), "Effusion": 1.0}
    assert (metrics["n_unlocated"], metrics["n_unlocated_boxes"]) == ({"Mass": 2, "Effusion": 2}, 3)
    # The false positive of Mass at 0.6 is 1/5 an image.
    assert metrics["sensitivity_at_fp"]["Mass"]["0.125"] == 0.5
    assert metrics["sensitivity_at_fp"]["Mass"]["0.25"] == 1
    # Mass of whole radiographs is known but for 2, and 1 shows it: 0.8, 0.9, 0.4 against 0.6, 0.1, 0.
    assert metrics["auroc"]["Mass"] == pytest.approx(8 / 9)
    # Abnormal are 0, 1, 3 and 4; 6 is normal; 2 and 5 may be either.
    assert metrics["auroc"]["abnormal"] == 1
    assert metrics["n_unknown"] == {"Mass": 1, "Effusion": 2, "abnormal": 2}
    assert metrics["operating_points"]["Mass"]["sensitivity"] == pytest.approx(2 / 3)
    assert warnings_of(result, store) == [
        "boxes are not scored where a finding may be without one: Mass in 2, Effusion in 2 of 7 images; 3 predicted "
        "boxes are dropped",
        "labels are not scored where they are not known: Mass in 1, Effusion in 2, abnormal in 2 of 7 images",
    ]


def test_what_goes_with_them(store, tmp_path, sketched):
    result = evaluate(store, FOUND, n_resamples=20)
    assessment = assess(store, result, 20, box_threshold=0.2)
    # Mass found, Mass found, Mass where Effusion is: the box there is of Effusion, at a higher score.
    assert assessment.confusion.counts.tolist() == [[2, 0, 0], [0, 1, 0], [1, 1, 0]]
    boxes = {one.name: one.n for one in assessment.boxes}
    assert boxes == {"All findings": 6, "Mass": 4, "Effusion": 2}
    assert {one.name: one.n for one in assessment.labels} == {"Mass": 6, "Effusion": 5, "abnormal": 5}
    page = write_report(tmp_path / "report.html", result, store, "found", warnings_of(result, store), assessment)
    text = (tmp_path / "report.md").read_text()
    assert "Mass on 2, Effusion on 2 radiographs" in text
    assert "Labels that are not known count for nothing: Mass on 1" in text
    assert "1 without findings" in str(page)


def test_a_comparison_leaves_out_the_same(store, tmp_path):
    result = evaluate(store, FOUND)
    first = scored_of(result, fingerprint(store, result.alignment.rows)["annotations_sha256"])
    write_scored(tmp_path / "scored.npz", first)
    again = read_scored(tmp_path / "scored.npz")
    assert np.isnan(again.labels["Mass"]).tolist() == [False, False, True, False, False, False, False]
    compared = compare(store, first, again, 20)
    numbers = {(one.metric, one.name): (one.first, one.second) for one in compared.differences}
    assert numbers["map40", "Mass"] == pytest.approx((5 / 6, 5 / 6))
    assert numbers["auroc", "Mass"] == pytest.approx((8 / 9, 8 / 9))
    assert numbers["auroc", "abnormal"] == (1, 1)
    assert all(one.difference == 0 for one in compared.differences)


def test_another_truth_is_another_hash(store, tmp_path, write_table_store):
    images = [(f"i{row}", "train", row % 2, f"p{row}") for row in range(7)]
    boxes = [(0, 1, A), (3, 1, A), (4, 2, B)]
    before = open_store(write_table_store(tmp_path / "other", images, boxes, NAMES), pixels=False)
    hashes = {fingerprint(one)["annotations_sha256"] for one in (store, before)}
    assert len(hashes) == 2
    # That of a dataset which says everything is what it always was.
    assert fingerprint(before)["annotations_sha256"].startswith("7cc58076b81d626f")


def test_folds_and_settings_are_scored_likewise(store, tmp_path):
    folds = {}
    for fold in (0, 1):
        names = [f"i{row}" for row in range(7) if row % 2 == fold]
        rows = [row for row in ROWS if row[0] in names]
        folds[fold] = predicted(*rows)
        write_predictions(tmp_path / f"{fold}.json", folds[fold], store.categories)
    pooled = cross_validate(store, folds)
    assert pooled["ap40"] == {"Mass": pytest.approx(5 / 6), "Effusion": 1.0}
    assert pooled["folds"][1]["n_unlocated"] == {"Mass": 1, "Effusion": 1}
    material = gather(store, [Member((), (tmp_path / "0.json", tmp_path / "1.json"))])
    # Nothing is located in the third radiograph; one box of Mass and one of Effusion are where they are not.
    assert material.rows.tolist() == [0, 1, 3, 4, 5, 6]
    assert material.left_out == (
        "2 boxes are not scored, where a finding may be without one (Mass in 1, Effusion in 1 radiographs)",
    )
    tuned = tune(material, store.categories, n_resamples=0)
    assert tuned.scores["single"][1] == {1: pytest.approx(5 / 6), 2: 1.0}


def test_masks_by_hand(tmp_path, write_mask_store, mask_row):
    """Two categories on 10 x 10 pixels: three radiographs with both known, one whose second mask nobody drew, and one
    of which nothing is."""
    left, right = (np.zeros((10, 10), np.uint8) for _ in range(2))
    left[:, :4], right[:, 6:] = 1, 1
    images = [(f"i{row}", 10, 10, 0, f"p{row}") for row in range(5)]
    drawn = [(0, 1, left), (0, 2, right), (1, 1, left), (3, 1, left)]
    folder = write_mask_store(tmp_path / "d", images, drawn, ("Left", "Right"))
    store = edited(folder, {3: {"unknown": [2]}, 4: {"unknown": [1, 2]}})
    half = left.copy()
    half[:, 2:] = 0
    found = [("i0", 1, left), ("i0", 2, left), ("i1", 1, half), ("i1", 2, right), ("i3", 1, left), ("i3", 2, right),
             ("i4", 1, left)]  # fmt: skip
    rows = [mask_row(*one) for one in found]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    result = evaluate(store, read_predictions(tmp_path / "p.json"), n_resamples=20)
    # Left of 0 to 3: 1, 2 · 20 / 60, 1 (both empty in 2), 1. Right of 0 to 2: 0, 0, 1.
    assert result.metrics["dice_by_category"] == {"Left": pytest.approx((3 + 2 / 3) / 4), "Right": pytest.approx(1 / 3)}
    assert result.metrics["dice"] == pytest.approx((4 + 2 / 3) / 7)
    # Joined, of 0, 1 and 2 alone: 40 of 80 and 40; 20 of 40 and 60; both empty.
    assert result.metrics["dice_union"] == pytest.approx((80 / 120 + 40 / 100 + 1) / 3)
    assert result.metrics["false_positive_rate"] == pytest.approx(1 / 3)
    assert result.metrics["n_unknown_masks"] == {"Left": 1, "Right": 2}
    assert result.metrics["dice_by_category_ci95"].keys() == {"Left", "Right"}
    first = scored_of(result, fingerprint(store, result.alignment.rows)["annotations_sha256"])
    numbers = {(one.metric, one.name): one.first for one in compare(store, first, first, 20).differences}
    assert numbers["dice", ""] == pytest.approx((4 + 2 / 3) / 7)
    assert numbers["dice", "Right"] == pytest.approx(1 / 3)


def test_thresholds_are_searched_on_known_masks(tmp_path, write_mask_store, mask_row):
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 1
    images = [(f"i{row}", 8, 8, 0, f"p{row}") for row in range(3)]
    folder = write_mask_store(tmp_path / "d", images, [(0, 1, mask)])
    store = edited(folder, {2: {"unknown": [1]}})
    writer = MapWriter(tmp_path, ["i0", "i1", "i2"], {1: "Pneumothorax"}, 8)
    for row, level in enumerate((0.9, 0.1, 0.9)):
        writer.add(row, 8, 8, level * mask[None].astype(np.float32), {})
    writer.close()
    (tmp_path / "predictions.json").write_text(json.dumps([mask_row("i0", 1, mask)]))
    result = evaluate(store, read_predictions(tmp_path / "predictions.json"), read_maps(tmp_path))
    # The third has a map of a mask, and nobody knows: without it, all is right. The two others have two levels each.
    assert result.masks.search.triplet.best["dice"] == 1
    assert {one.name: one.n for one in assess(store, result).pixels} == {"Pneumothorax": 4}


def test_no_mask_that_is_known_has_no_number():
    sums = np.array([[3], [4]])
    assert segmentation_metrics(sums, sums, sums, counted=np.array([[True], [False]]))["dice"] == 1
    with pytest.raises(ValueError, match="known"):
        segmentation_metrics(sums, sums, sums, counted=np.zeros((2, 1), bool))


def test_categories_without_a_prediction_are_said(store):
    result = evaluate(store, predicted(("i0", 1, A, 0.8), ("i6", 15, UNIT, 0.9)))
    assert (result.not_predicted, result.metrics["not_predicted"]) == (("Effusion",), ["Effusion"])
    assert result.metrics["ap40"]["Effusion"] == 0
    assert (
        "no prediction is of Effusion: it counts as found nowhere, and in the means; if the model does not know it, "
        "score what it knows with --categories Mass"
    ) in warnings_of(result, store)
    # Found are both, or nothing at all, which is said in another way.
    assert "not_predicted" not in evaluate(store, FOUND).metrics
    nothing = evaluate(store, predicted(("i6", 15, UNIT, 0.9)))
    assert nothing.not_predicted == ("Mass", "Effusion")
    assert not any("no prediction is of" in line for line in warnings_of(nothing, store))
    # What no radiograph shows is in no mean.
    healthy = dataclasses.replace(store, boxes=store.boxes.select(np.flatnonzero(store.boxes.labels == 1)))
    assert evaluate(healthy, predicted(("i0", 1, A, 0.8))).not_predicted == ()


def test_labels_that_are_not_scored_are_named(tmp_path, write_table_store):
    images = [(f"i{row}", "train", 0, f"p{row}") for row in range(4)]
    names = [{"id": n, "name": name} for n, name in enumerate(("Mass", "Edema", "Hernia", "Device"), 1)]
    folder = write_table_store(tmp_path / "d", images, [(0, 1, A)], names)
    everywhere = {
        row: {"labels": [2, *([1] if row == 0 else [])], "unlocated": [2], "unknown": [4]} for row in range(4)
    }
    store = edited(folder, everywhere)
    result = evaluate(store, predicted(("i0", 1, A, 0.8), ("i1", 2, A, 0.8), ("i1", 3, A, 0.8), ("i1", 4, A, 0.8)))
    metrics = result.metrics
    assert list(metrics["auroc"]) == ["Mass"]
    assert (metrics["only_positive"], metrics["only_negative"]) == (["Edema"], ["Hernia"])
    assert metrics["never_known"] == ["Device"]
    lines = warnings_of(result, store)
    assert "no label is scored that none of the radiographs shows, as far as it is known: Hernia" in lines
    assert "no label is scored that all of the radiographs show, as far as it is known: Edema" in lines
    assert "no label is scored that is not known of any radiograph: Device" in lines
