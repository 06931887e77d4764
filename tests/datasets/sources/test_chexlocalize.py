"""CheXlocalize: masks and contours that must agree, sizes of height and width, labels beside them, two splits."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from set_cases import boxes_of, picture, reasons_of, summary, table

from xray.datasets import source as reasons
from xray.datasets.conversion import write_store
from xray.datasets.sources.chexlocalize import NOT_DRAWN, read_chexlocalize
from xray.datasets.sources.chexpert_labels import FINDINGS, LATERAL_VIEW
from xray.datasets.sources.drawn_findings import DISAGREE, within
from xray.datasets.sources.siim import LABEL_DISAGREES
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.structures.masks import MASK_SIZE
from xray.training.loading import training_rows

WIDTH, HEIGHT = 40, 30
DRAWN = [name for name in FINDINGS if name not in NOT_DRAWN]
SQUARE = [[10, 5], [19, 5], [19, 14], [10, 14]]
TRIANGLE = [[30.4, 20.2], [34.6, 20.2], [34.6, 24.9]]
V1, V2, V3 = (f"patient6454{number}_study1_view1_frontal" for number in (1, 2, 3))
LATERAL = "patient64541_study1_view2_lateral"
T1 = "patient64741_study1_view1_frontal"


def path_of(view, folder="val"):
    patient, study, *rest = view.split("_")
    return f"{folder}/{patient}/{study}/{'_'.join(rest)}.jpg"


def run_lengths(*contours):
    pixels = within(list(contours), WIDTH, HEIGHT) if contours else np.zeros((HEIGHT, WIDTH), dtype=bool)
    encoded = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    return {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}


def write(root, split, contours, masks=True, annotations=True):
    """contours: id → {finding: contours}."""
    if masks:
        content = {view: {f: run_lengths(*of_view.get(f, [])) for f in DRAWN} for view, of_view in contours.items()}
        (root / f"CheXlocalize/gt_segmentations_{split}.json").write_text(json.dumps(content))
    if annotations:
        content = {view: {"img_size": [HEIGHT, WIDTH], **of_view} for view, of_view in contours.items()}
        (root / f"CheXlocalize/gt_annotations_{split}.json").write_text(json.dumps(content))


VAL = {V1: {"Cardiomegaly": [SQUARE, TRIANGLE], "Lung Opacity": [SQUARE]}, LATERAL: {"Edema": [SQUARE]}}


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "in"
    (root / "CheXlocalize").mkdir(parents=True)
    for view in (V1, V2, V3, LATERAL):
        picture(root / "CheXpert" / path_of(view), WIDTH, HEIGHT)
    picture(root / "CheXpert" / path_of(T1, "test"), WIDTH // 2, HEIGHT // 2)  # made smaller
    write(root, "val", VAL)
    write(root, "test", {T1: {"Pneumothorax": [SQUARE]}})
    header = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding," + ",".join(FINDINGS)
    positive = {V1: {"Cardiomegaly", "Lung Opacity", "Fracture"}, V2: set(), V3: {"Edema"}, LATERAL: {"Edema"}}
    rows = [
        [f"CheXpert-v1.0/{path_of(view, 'valid')}", "Male", 60, view.rpartition("_")[2].title(), "AP", 0.0]
        + [float(name in of_view) for name in FINDINGS]
        for view, of_view in positive.items()
    ]
    table(root / "CheXpert/val_labels.csv", header, rows)
    rows = [[path_of(T1, "test"), *(float(name == "Pneumothorax") for name in FINDINGS)]]
    table(root / "CheXpert/test_labels.csv", "Path," + ",".join(FINDINGS), rows)
    return root


def test_each_part_of_a_finding_is_a_box_with_a_mask(root, tmp_path):
    source = read_chexlocalize(root, n_workers=0)
    first, test = f"CheXpert/{path_of(V1)}", f"CheXpert/{path_of(T1, 'test')}"
    assert boxes_of(source) == [
        (test, "Pneumothorax", [10, 5, 20, 15], ()),
        (first, "Cardiomegaly", [10, 5, 20, 15], ()),
        (first, "Cardiomegaly", [30, 20, 35, 25], ()),
        (first, "Lung Opacity", [10, 5, 20, 15], ()),
    ]
    found = summary(source)
    assert found[first] == ("val", "patient64541", ["Cardiomegaly", "Lung Opacity", "Fracture"], [])
    assert found[f"CheXpert/{path_of(V2)}"] == ("val", "patient64542", [], [])
    assert found[test] == ("test", "patient64741", ["Pneumothorax"], [])
    assert reasons_of(source) == {LATERAL_VIEW: [f"CheXpert/{path_of(LATERAL)}"]}
    write_store(source, tmp_path / "out", image_size=64, n_folds=2, n_workers=0)
    store = open_store(tmp_path / "out")
    assert [(record["width"], record["height"]) for record in store.records] == [(WIDTH, HEIGHT)] * 4
    names = {record["source_id"].rpartition("patient")[2][:5]: row for row, record in enumerate(store.records)}
    # A label without a mask is somewhere: a fracture of the first, an edema of the third.
    assert [np.flatnonzero(store.unlocated[names[key]]).tolist() for key in ("64541", "64542", "64543")] == [
        [11],
        [],
        [4],
    ]
    assert not store.unknown.any()
    # To train on the validation set is possible for those who want it.
    assert [len(rows) for rows in training_rows(store, "all")] == [3, 0]
    assert sorted(store.splits.tolist()) == ["test", "val", "val", "val"]


@pytest.mark.parametrize(("masks", "annotations"), [(True, False), (False, True)])
def test_masks_and_contours_are_the_same(root, masks, annotations):
    whole = read_chexlocalize(root, n_workers=0)
    name = "annotations" if masks else "segmentations"
    for split in ("val", "test"):
        (root / f"CheXlocalize/gt_{name}_{split}.json").unlink()
    one = read_chexlocalize(root, n_workers=0)
    assert boxes_of(one) == boxes_of(whole)
    assert [mask["counts"] for mask in one.masks.values()] == [mask["counts"] for mask in whole.masks.values()]


def test_airspace_opacity_is_lung_opacity_and_nothing_is_known_without_labels(root):
    (root / "CheXpert/val_labels.csv").unlink()
    path = root / "CheXlocalize/gt_annotations_val.json"
    path.write_text(path.read_text().replace("Lung Opacity", "Airspace Opacity"))
    source = read_chexlocalize(root, views="all", n_workers=0)
    found = summary(source)
    assert found[f"CheXpert/{path_of(V1)}"] == ("val", "patient64541", [], ["Pneumonia", "Pleural Other", "Fracture"])
    assert f"CheXpert/{path_of(V2)}" not in found
    assert {name for _, name, _, _ in boxes_of(source)} == {"Cardiomegaly", "Lung Opacity", "Edema", "Pneumothorax"}
    assert [image.extra.get("view") for image in source.images if "lateral" in image.file_name] == ["LATERAL"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Cardiomegaly": [TRIANGLE], "Lung Opacity": [SQUARE]}, DISAGREE),
        ({"Cardiomegaly": [SQUARE, TRIANGLE]}, DISAGREE),
        ({**VAL[V1], "Edema": [SQUARE]}, DISAGREE),
        ({**VAL[V1], "img_size": [WIDTH, HEIGHT]}, MASK_SIZE),
        ({**VAL[V1], "Cardiomegaly": [[[1, 2], [3, 4]]]}, "unusable mask"),
        ({**VAL[V1], "Cardiomegaly": "x"}, "unusable mask"),
        ({**VAL[V1], "Spots": [SQUARE]}, "finding that CheXlocalize does not have"),
    ],
)
def test_what_contradicts_itself_is_left_out(root, change, reason):
    content = {V1: {"img_size": [HEIGHT, WIDTH], **change}}
    (root / "CheXlocalize/gt_annotations_val.json").write_text(json.dumps(content))
    source = read_chexlocalize(root, n_workers=0)
    assert f"CheXpert/{path_of(V1)}" not in summary(source)
    assert reason in reasons_of(source)


def test_a_mask_that_the_labels_deny_is_left_out(root):
    write(root, "test", {T1: {"Pneumothorax": [SQUARE], "Edema": [SQUARE]}})
    source = read_chexlocalize(root, n_workers=0)
    assert [image.split for image in source.images] == ["val"] * 3
    assert LABEL_DISAGREES in reasons_of(source)


def test_a_pixel_around_a_small_mask_is_no_disagreement(root):
    small = [[10, 5], [12, 5], [12, 8]]
    write(root, "val", {V1: {"Cardiomegaly": [small], "Lung Opacity": [SQUARE]}}, annotations=False)
    write(
        root,
        "val",
        {V1: {"Cardiomegaly": [[[10, 5], [13, 5], [13, 8], [10, 8]]], "Lung Opacity": [SQUARE]}},
        masks=False,
    )
    assert f"CheXpert/{path_of(V1)}" in summary(read_chexlocalize(root, n_workers=0))


def test_specks_beside_larger_parts_are_left_out():
    from xray.datasets.sources.drawn_findings import DrawnFinding, DrawnImage, read_drawn

    large, speck = [[100, 100], [300, 100], [300, 300]], [[20, 20], [21, 20], [21, 21]]
    both = read_drawn(DrawnImage("a", (DrawnFinding(2, (1000, 900), None, [speck, large]),), both=False))
    assert ([part.box.tolist() for part in both.regions], both.n_specks) == ([[100, 100, 301, 301]], 1)
    alone = read_drawn(DrawnImage("a", (DrawnFinding(2, (1000, 900), None, [speck]),), both=False))
    assert (len(alone.regions), alone.n_specks) == (1, 0)


def test_files_that_are_not_there(root, tmp_path):
    for path in (root / "CheXpert/val").rglob("*.jpg"):
        path.unlink()
    assert [image.split for image in read_chexlocalize(root, n_workers=0).images] == ["test"]
    assert reasons.MISSING_FILE in reasons_of(read_chexlocalize(root, n_workers=0))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no gt_segmentations_val\.json or gt_annotations_val\.json"):
        read_chexlocalize(tmp_path / "empty")
    (root / "CheXlocalize/gt_annotations_val.json").write_text("[]")
    with pytest.raises(InputError, match="is not a dictionary of radiographs"):
        read_chexlocalize(root)


def test_a_mask_that_is_not_there_says_nothing(root):
    for path in [*root.glob("CheXpert/*_labels.csv"), *root.glob("CheXlocalize/gt_annotations_*.json")]:
        path.unlink()
    path = root / "CheXlocalize/gt_segmentations_val.json"
    content = json.loads(path.read_text())
    content |= {V2: {"Edema": run_lengths()}, V3: {}}
    path.write_text(json.dumps(content))
    unknown = {name: set(of[3]) for name, of in summary(read_chexlocalize(root, n_workers=0)).items()}
    assert unknown[f"CheXpert/{path_of(V1)}"] == set(NOT_DRAWN)
    assert unknown[f"CheXpert/{path_of(V2)}"] == set(FINDINGS) - {"Edema"}
    assert unknown[f"CheXpert/{path_of(V3)}"] == set(FINDINGS)
