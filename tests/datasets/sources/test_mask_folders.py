"""Masks in one tree with radiographs: told apart by names and by what the pictures look like."""

import cv2
import numpy as np
import pytest
from source_cases import write_dicom

from xray.datasets.sources import mask_folders
from xray.datasets.sources.mask_folders import KEPT, LEFT_OUT, without_masks


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    """Starting a worker takes longer than all that it does here; that one is used is told by another test."""
    read = mask_folders.in_workers
    monkeypatch.setattr(mask_folders, "in_workers", lambda work, items, _, name: read(work, items, 0, name))


def film(path, seed=0):
    """A radiograph: noise over a slope."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    slope = np.linspace(20, 220, 64)[:, None] + np.linspace(0, 30, 48)
    assert cv2.imwrite(str(path), (slope + rng.normal(0, 4, slope.shape)).clip(0, 255).astype(np.uint8))


def mask(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.zeros((64, 48), dtype=np.uint8)
    drawn[20:50, 5 + seed % 3 : 20] = 255
    assert cv2.imwrite(str(path), drawn)


def tree(root, films=(), masks=()):
    for number, name in enumerate(films):
        film(root / name, number)
    for number, name in enumerate(masks):
        mask(root / name, number)
    return sorted(path for path in root.rglob("*") if path.is_file())


def names(paths, root):
    return sorted(path.relative_to(root).as_posix() for path in paths)


TREES = {
    "of classes": (["A/images/1.png", "B/images/1.png"], ["A/masks/1.png", "B/masks/1.png"]),
    "Shenzhen": (["CXR_png/1.png", "CXR_png/2.png"], ["mask/1_mask.png", "mask/2_mask.png"]),
    "Montgomery": (["CXR_png/1.png"], ["ManualMask/leftMask/1.png", "ManualMask/rightMask/1.png"]),
    "SIIM": (["png_images/1.png", "png_images/2.png"], ["png_masks/1.png", "png_masks/2.png"]),
    "side by side": (["1.png", "2.jpg"], ["1_mask.png", "2_mask.png"]),
    "in front": (["1.png", "2.png"], ["mask_1.png", "Mask-2.png"]),
    "whole names": (["1.png"], ["1.png_mask.png"]),
    "words run together": (["p1.png", "p2.png"], ["p1Mask.png", "p2Mask.png"]),
    "a folder each": (["p1/image.png", "p2/image.png"], ["p1/mask.png", "p2/mask.png"]),
    "one folder": (["p1/image.png"], ["p1/lung_mask.png"]),
    "a folder each, unnamed": (
        ["p1/cxr.png", "p2/cxr.png", "p1/lateral.png", "p2/lateral.png"],
        ["p1/lung.png", "p2/lung.png", "p1/heart.png", "p2/heart.png"],
    ),
    "segmentations": (["scans/1.png"], ["scans/1-seg.png"]),
    "sides": (["1.png"], ["1_left_mask.png", "1_mask_right.png", "1_mask2.png"]),
    "labels": (["images/train/1.png"], ["labels/train/1.png"]),
    "ground truth": (["1.png"], ["Ground Truth/1.png"]),
    "unnamed folder": (["in/1.png", "in/2.png"], ["out/1.png", "out/2.png"]),
    "unnamed folders of patients": (["p1/image/a.png", "p2/image/b.png"], ["p1/lungs/a.png", "p2/lungs/b.png"]),
    "trees side by side": (["x/p1/1.png", "x/p2/2.png"], ["y/p1/1.png", "y/p2/2.png"]),
    "other suffix": (["1.jpg", "2.jpg"], ["1.png", "2.png"]),
    "masks alone": ([], ["masks/1.png", "masks/2.png"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", TREES)
def test_masks_are_left_out(tmp_path, kind):
    films, masks = TREES[kind]
    kept, warnings = without_masks(tree(tmp_path, films, masks), tmp_path)
    assert names(kept, tmp_path) == sorted(films)
    folders = sorted({name.rpartition("/")[0] for name in masks})
    assert [warning.where.rstrip("/") for warning in sorted(warnings)] == [
        name or "the data path itself" for name in folders
    ]
    assert {warning.kind for warning in warnings} == {LEFT_OUT}


FILMS = {
    "people with masks": ["masks/1.png", "masks/2.png"],
    "classes": ["NORMAL/1.png", "NORMAL/2.png", "PNEUMONIA/1.png", "PNEUMONIA/2.png"],
    "copies": ["small/1.png", "large/1.png", "1.jpg", "1.png"],
    "one film": ["1.png"],
    "views of patients": ["p1/frontal.png", "p1/lateral.png", "p2/frontal.png", "p2/lateral.png"],
    "one file in a folder": ["p1/mask.png"],
    "named so": ["1.png", "1_label.png"],
}


@pytest.mark.parametrize("kind", FILMS)
def test_radiographs_stay(tmp_path, kind):
    paths = tree(tmp_path, FILMS[kind])
    kept, warnings = without_masks(paths, tmp_path)
    assert kept == paths
    assert [(warning.kind, warning.where) for warning in warnings] == {
        "people with masks": [(KEPT, "masks/")], "named so": [(KEPT, "the data path itself")],
    }.get(kind, [])  # fmt: skip


def test_two_folders_of_masks_and_no_radiograph_stay(tmp_path):
    paths = tree(tmp_path, masks=["in/1.png", "out/1.png"])
    assert without_masks(paths, tmp_path) == (paths, [])


def test_folders_of_one_name_are_judged_one_by_one(tmp_path):
    films = [f"a/masks/{number}.png" for number in range(4)]
    masks = [f"b/masks/{number}.png" for number in range(4)]
    kept, warnings = without_masks(tree(tmp_path, films, masks), tmp_path)
    assert names(kept, tmp_path) == films
    assert [(warning.kind, warning.where, warning.detail) for warning in warnings] == [
        (LEFT_OUT, "b/masks/", "4 files, such as 0.png"),
        (KEPT, "a/masks/", "4 files, such as 0.png"),
    ]


def test_masks_of_dicom_files(tmp_path):
    masks = ["1.png", "2.png"]
    tree(tmp_path, masks=masks)
    for number in (1, 2):
        write_dicom(tmp_path / f"{number}.dcm")
    kept, _ = without_masks(sorted(tmp_path.iterdir()), tmp_path)
    assert names(kept, tmp_path) == ["1.dcm", "2.dcm"]
    # A picture of a DICOM file is no mask, and neither is a DICOM file in a folder that is called so.
    film(tmp_path / "3.png")
    write_dicom(tmp_path / "masks" / "3.dcm")
    paths = [tmp_path / "3.png", tmp_path / "masks" / "3.dcm"]
    assert without_masks(paths, tmp_path) == (paths, [])


def test_what_cannot_be_read_stays(tmp_path):
    (tmp_path / "masks").mkdir()
    for number in range(3):
        (tmp_path / "masks" / f"{number}.png").write_bytes(b"no picture")
    paths = sorted((tmp_path / "masks").iterdir())
    kept, warnings = without_masks(paths, tmp_path)
    assert (kept, [warning.kind for warning in warnings]) == (paths, [KEPT])


def test_few_pictures_are_read(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        mask_folders, "in_workers", lambda work, items, *_: (seen.append(item) or True for item in items)
    )
    # Nothing is looked at where no name says anything, and every patient has a frontal.png.
    paths = [tmp_path / f"p{number}" / "frontal.png" for number in range(500)]
    assert without_masks(paths, tmp_path) == (paths, [])
    assert seen == []
    # Masks of many patients are one group.
    masks = [path.parent / "mask" / "frontal.png" for path in paths]
    kept, warnings = without_masks([*paths, *masks], tmp_path)
    assert (kept, len(warnings), len(seen)) == (paths, 500, 5)
    seen.clear()
    many = [tmp_path / f"mask_{number}" / f"{number}.png" for number in range(300)]
    kept, warnings = without_masks(many, tmp_path)
    assert len(seen) == mask_folders.MOST_READ == 200
    assert [warning.kind for warning in warnings].count(KEPT) == len(kept) == 100


def test_a_worker_looks(tmp_path, monkeypatch):
    monkeypatch.undo()
    paths = tree(tmp_path, ["images/1.png"], ["masks/1.png"])
    kept, _ = without_masks(paths, tmp_path)
    assert names(kept, tmp_path) == ["images/1.png"]
