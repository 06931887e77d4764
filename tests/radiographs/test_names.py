"""Names from outside: what becomes a path, for reading or writing, stays inside its folder."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from source_cases import write_dicom, write_picture, write_table

from xray.datasets.inputs import open_inputs
from xray.datasets.source import Source
from xray.datasets.sources import convert
from xray.datasets.sources.coco import read_coco
from xray.datasets.sources.folders import read_folders
from xray.datasets.sources.lungs import read_lungs
from xray.datasets.sources.siim import read_siim
from xray.datasets.sources.vinbig import read_vinbig
from xray.errors import InputError
from xray.radiographs.names import (
    LINK_OUT,
    UNSAFE_NAME,
    UnsafeNameError,
    check_inside,
    fault_of,
    inside,
    leads_out,
    safe_name,
    safe_path,
)

LEADING_OUT = [
    "../secret", "../../secret", "a/../../secret", "..", ".", "a/..", "/etc/passwd", "//host/share", "C:\\secret",
    "C:secret", "..\\secret", "a\\..\\..\\secret", "", " ", "\0", "a\0.png", "secret\n", "a\rb", "a\x1b[31mb", "a//b",
    "./a", "a/./b", "x" * 300, "y/" * 600 + "z", "\ud800",
]  # fmt: skip
"""What can be no name of a file below a folder."""
ODD = [
    "%2e%2e%2fsecret", "..%2fsecret", "%00", "~root", "~/x", "-rf", "--help", "CON", "nul.png", "COM1", "lpt9.dcm",
    "aux ", "a. ", "a..", "...", "a ", " a", "．．／secret", "‥/x", "a∕b", "a⁄b", "a／b", "e\u0301", "\u202egnp.exe",
    "a:b", "a*b?", "<a|b>", '"a"', "é", "İ", "\U0001f4a9", "a\u200bb", "\udc80",
]  # fmt: skip
"""What may be the name of a file on one system or another, and must not trouble any."""


@pytest.mark.parametrize("name", LEADING_OUT)
def test_names_that_lead_out_are_known(name: str, tmp_path: Path) -> None:
    assert fault_of(name)
    # Only what is no path inside is refused here; "a//b" or a line break lead nowhere else.
    root = tmp_path / "root"
    root.mkdir()
    try:
        path = inside(root, name)
    except UnsafeNameError:
        return
    assert Path(os.path.normpath(path)).is_relative_to(root)


@pytest.mark.parametrize(
    "name", ["a", "a.png", "1.2.840.1", "one/a", "one/two/b.dcm", "patient 7", "Thorax p.a.", "é", "..a", "a..b"]
)
def test_usual_names_pass(name: str, tmp_path: Path) -> None:
    assert fault_of(name) is None
    assert inside(tmp_path, name) == tmp_path / name


def test_usual_names_are_kept_as_they_are() -> None:
    for name in (
        "a",
        "000434271f63a053c4128a0ba6352c7f",
        "1.2.840.1",
        "CHNCXR_0001_0",
        "Thorax p.a (2)",
        "ảnh",
        "胸片",
        "a-b_c",
    ):
        assert safe_name(name) == name
        assert safe_path(f"{name}/{name}") == f"{name}/{name}"


def is_safe_everywhere(name: str) -> bool:
    """By the rules of Windows, which are the strictest, and of shells."""
    stem = name.split(".")[0].strip().casefold()
    devices = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
    return (
        0 < len(name.encode()) <= 150
        and not set(name) & set('/\\:*?"<>|%\0')
        and name.isprintable()
        and name[0] not in ".-~ "
        and name[-1] not in ". "
        and stem not in devices
    )


@pytest.mark.parametrize("name", [*LEADING_OUT, *ODD])
def test_safe_names_are_safe(name: str, tmp_path: Path) -> None:
    made = safe_name(name)
    assert is_safe_everywhere(made), made
    assert safe_name(made) == made
    (tmp_path / f"{made}.png.part").touch()
    for part in safe_path(name).split("/"):
        assert is_safe_everywhere(part)


@settings(max_examples=500)
@given(st.text(max_size=200))
@example("．" * 100)
@example("/" * 300)
def test_safe_names_of_any_text(name: str) -> None:
    assert is_safe_everywhere(safe_name(name))
    assert all(is_safe_everywhere(part) for part in safe_path(name).split("/"))


def test_different_ids_have_different_safe_names() -> None:
    names = [*LEADING_OUT, *ODD, "a/b", "a_b", "a\\b", "é", "e\u0301", "x" * 301, "x" * 302]
    assert len({safe_name(name) for name in names}) == len(set(names))


def test_links_and_what_lies_inside(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "root-other"
    for folder in (root / "deep", other):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (root / "in").symlink_to("deep/file")
    (root / "out").symlink_to(other / "file")
    (root / "folder").symlink_to(other)
    (root / "nowhere").symlink_to("missing")
    (root / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to(root)
    assert not leads_out(root / "deep" / "file", root)
    assert not leads_out(root / "in", root)
    assert all(leads_out(root / name, root) for name in ("out", "folder", "nowhere", "loop"))
    assert inside(root, "in") == root / "in"
    # The data path may be a link itself.
    assert inside(tmp_path / "link", "deep/file") == tmp_path / "link" / "deep" / "file"
    for name in ("out", "folder/file", "folder/new", "loop", "../root-other/file", str(other / "file"), ""):
        with pytest.raises(UnsafeNameError):
            inside(root, name)
    with pytest.raises(UnsafeNameError, match="link that leads out"):
        check_inside(root / "folder" / "file", root)
    assert check_inside(root / "missing", root) == root / "missing"


# --- every source ----------------------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A radiograph beside the data path, which must not be read; and what is its name from there."""
    return write_dicom(tmp_path / "secret.dicom")


def vinbig(root: Path, *ids: str) -> Path:
    rows = [[name, "No finding", 14, "R1", "", "", "", ""] for name in ("good", "fine", *ids)]
    for name in ("good", "fine"):
        write_dicom(root / "train" / f"{name}.dicom")
    write_table(root / "train.csv", rows)
    return root


def siim(root: Path, *ids: str) -> Path:
    for name in ("good", "fine"):
        write_dicom(root / "dicom-images-train" / name / f"{name}.dcm")
    write_table(root / "train-rle.csv", [[name, "-1"] for name in ("good", "fine", *ids)], ["ImageId", "EncodedPixels"])
    return root


def siim_pictures(root: Path, *ids: str) -> Path:
    for name in ("good", "fine"):
        write_picture(root / "png_images" / f"{name}.png")
    (root / "png_masks").mkdir()
    header = ["new_filename", "ImageId", "has_pneumo"]
    rows = [[name if name in ids else f"{name}.png", name, 0] for name in ("good", "fine", *ids)]
    write_table(root / "stage_1_train_images.csv", rows, header)
    return root


def coco(root: Path, *ids: str) -> Path:
    for name in ("good", "fine"):
        write_picture(root / "images" / f"{name}.png")
    images = [{"id": n, "file_name": name} for n, name in enumerate(("good.png", "fine.png", *ids))]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    (root / "annotations.json").write_text(json.dumps(content))
    return root


TABLES: dict[str, tuple[Callable[..., Path], Callable[[Path], Source], str]] = {
    "vinbig": (vinbig, read_vinbig, "train"),
    "siim": (siim, lambda root: read_siim(root, n_workers=0), "dicom-images-train/good"),
    "siim pictures": (siim_pictures, lambda root: read_siim(root, n_workers=0), "png_images"),
    "coco": (coco, read_coco, "images"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_ids_of_tables_lead_to_files_of_the_data_path_only(kind: str, tmp_path: Path, secret: Path) -> None:
    write, read, folder = TABLES[kind]
    root = tmp_path / "raw"
    depth = "../" * (2 + folder.count("/"))
    names = [name for name in (*LEADING_OUT, *ODD) if "\ud800" not in name and "\udc80" not in name]
    names += [f"{depth}secret", f"{depth}secret.dicom", str(secret), str(secret.with_suffix(""))]
    if kind != "coco":
        names = [name for name in names if "\0" not in name]
    source = read(write(root, *names))
    assert sorted(image.source_id for image in source.images) == ["fine", "good"]
    for image in source.images:
        assert image.path.resolve().is_relative_to(root.resolve())
        assert fault_of(image.file_name) is None
    assert source.dropped


@pytest.mark.parametrize("kind", TABLES)
def test_links_out_of_the_data_path_are_left_out(kind: str, tmp_path: Path, secret: Path) -> None:
    write, read, folder = TABLES[kind]
    suffix = ".dicom" if kind in ("vinbig", "siim") else ".png"
    link = tmp_path / "raw" / folder / f"linked{'.dcm' if kind == 'siim' else suffix}"
    link.parent.mkdir(parents=True)
    link.symlink_to(secret)
    root = write(tmp_path / "raw", "linked" + (".png" if kind in ("coco", "siim pictures") else ""))
    source = read(root)
    assert sorted(image.source_id for image in source.images) == ["fine", "good"]
    if kind != "siim":  # where links out are not even listed
        assert LINK_OUT in {drop.reason for drop in source.dropped}
    # The data path itself may be a link.
    (tmp_path / "link").symlink_to(root)
    assert len(read(tmp_path / "link").images) == 2


@pytest.mark.parametrize(("kind", "part"), [("vinbig", "train"), ("vinbig", "train.csv"), ("siim", "train-rle.csv"),
                                            ("siim pictures", "png_masks"), ("siim pictures", "png_images"),
                                            ("coco", "annotations.json")])  # fmt: skip
def test_folders_and_tables_that_are_links_out_are_refused(kind: str, part: str, tmp_path: Path) -> None:
    write, read, _ = TABLES[kind]
    root = write(tmp_path / "raw")
    (root / part).rename(tmp_path / "elsewhere")
    (root / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"leads out of .*raw"):
        read(root)


def test_where_all_radiographs_are_links_out_that_is_said(tmp_path: Path) -> None:
    """As of those who keep their pictures on another disk."""
    words = "only what lies within --data-path itself is read"
    root = vinbig(tmp_path / "raw")
    (root / "train").rename(tmp_path / "disk")
    (root / "train").mkdir()
    for path in (tmp_path / "disk").iterdir():
        (root / "train" / path.name).symlink_to(path)
    with pytest.raises(
        InputError, match=rf"train holds 2 links that lead out of .*raw, and no other radiograph: {words}"
    ):
        read_vinbig(root)
    with pytest.raises(InputError, match=rf"2 links that lead nowhere or out of it are left out\): {words}"):
        open_inputs(root / "train")
    for name in ("NORMAL", "SICK"):
        write_picture(tmp_path / "classes elsewhere" / name / "a.png", offset=len(name))
        (tmp_path / "classes").mkdir(exist_ok=True)
        (tmp_path / "classes" / name).symlink_to(tmp_path / "classes elsewhere" / name)
    with pytest.raises(InputError, match=rf"{words}.*links that lead nowhere or out of it: 2"):
        read_folders(tmp_path / "classes")
    # In a folder that is a link nothing is listed; that the file is there is known all the same.
    whole = coco(tmp_path / "coco")
    (whole / "images").rename(tmp_path / "images elsewhere")
    (whole / "images").symlink_to(tmp_path / "images elsewhere")
    source = TABLES["coco"][1](whole)
    assert source.images == []
    assert {drop.reason for drop in source.dropped} >= {LINK_OUT}
    assert "missing file" not in {drop.reason for drop in source.dropped}


def test_a_folder_of_siim_that_is_a_link_out_is_left_out(tmp_path: Path) -> None:
    root = siim(tmp_path / "raw")
    write_dicom(tmp_path / "elsewhere" / "other.dcm")
    (root / "more").symlink_to(tmp_path / "elsewhere")
    source = read_siim(root, n_workers=0)
    assert {image.source_id for image in source.images} == {"good", "fine"}
    assert [(drop.where, drop.reason) for drop in source.dropped] == [("more", LINK_OUT)]


def test_a_table_alone_keeps_no_name_that_leads_out(tmp_path: Path) -> None:
    names = [name for name in LEADING_OUT if "\0" not in name and "\ud800" not in name and name.strip()]
    root = vinbig(tmp_path / "raw", *names, "unseen")
    convert("vinbig", root, tmp_path / "data", table_only=True, n_folds=2)
    records = json.loads((tmp_path / "data" / "annotations.json").read_text())["images"]
    # What a table's cells lose at their ends is no part of a name.
    assert {record["source_id"] for record in records} == {"good", "fine", "unseen", "secret"}
    assert all(fault_of(record["file_name"]) is None for record in records)
    conversion = json.loads((tmp_path / "data" / "conversion.json").read_text())
    assert conversion["dropped"]["counts"][UNSAFE_NAME] == len(set(names)) - 1


def test_class_folders_that_are_links_out(tmp_path: Path) -> None:
    for offset, name in enumerate(("NORMAL/a", "SICK/b")):
        write_picture(tmp_path / "raw" / f"{name}.png", offset=offset)
    write_picture(tmp_path / "elsewhere" / "c.png", offset=5)
    (tmp_path / "raw" / "OTHER").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "raw" / "SICK" / "d.png").symlink_to(tmp_path / "elsewhere" / "c.png")
    source = read_folders(tmp_path / "raw")
    assert [image.source_id for image in source.images] == ["a", "b"]
    assert ("OTHER", LINK_OUT) in {(drop.where, drop.reason) for drop in source.dropped}
    assert [category["name"] for category in source.categories] == ["SICK"]


def write_lungs(root: Path) -> Path:
    for name in ("a", "b"):
        write_picture(root / "CXR_png" / f"{name}.png")
        write_picture(root / "mask" / f"{name}_mask.png")
    return root


def test_lungs_and_masks_that_are_links_out(tmp_path: Path) -> None:
    root = write_lungs(tmp_path / "raw")
    for name, folder in (("c.png", "CXR_png"), ("c_mask.png", "mask")):
        write_picture(tmp_path / "elsewhere" / name)
        (root / folder / name).symlink_to(tmp_path / "elsewhere" / name)
    source = read_lungs(root, n_workers=0)
    assert [image.source_id for image in source.images] == ["a", "b"]
    assert {drop.reason for drop in source.dropped} == {LINK_OUT}
    for part in ("mask", "CXR_png"):
        whole = write_lungs(tmp_path / part)
        (whole / part).rename(tmp_path / f"{part} elsewhere")
        (whole / part).symlink_to(tmp_path / f"{part} elsewhere")
        with pytest.raises(UnsafeNameError):
            read_lungs(whole, n_workers=0)
    # Folders named by flags are the user's own choice.
    own = read_lungs(whole, images=str(tmp_path / "CXR_png elsewhere"), masks="mask", n_workers=0)
    assert len(own.images) == 2


def test_a_folder_to_look_at_leads_to_its_own_files_only(tmp_path: Path, secret: Path) -> None:
    write_picture(tmp_path / "raw" / "a.png")
    (tmp_path / "raw" / "b.dicom").symlink_to(secret)
    (tmp_path / "raw" / "c").symlink_to(tmp_path)
    inputs = open_inputs(tmp_path / "raw")
    assert inputs.ids == ("a",)


def test_names_that_are_no_text_survive_conversion(tmp_path: Path) -> None:
    """A file name need not be valid Unicode, and a control character in it is no reason to fail."""
    for name in ("NORMAL/a", "SICK/b", "SICK/c\udcff", "SICK/d\x1b[31m"):
        path = tmp_path / "raw" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.write_bytes(write_picture(tmp_path / "x.png", offset=len(name)).read_bytes())
        except OSError:
            pytest.skip("this file system takes valid names only")
    from xray.datasets.sources import convert
    from xray.datasets.store import open_store

    convert("folders", tmp_path / "raw", tmp_path / "data", image_size=32, n_folds=2, n_workers=0)
    ids = [record["source_id"] for record in open_store(tmp_path / "data").records]
    assert "c\udcff" in ids
    assert "d\x1b[31m" in ids


# --- writing ---------------------------------------------------------------------------------------------------------


def test_pictures_of_a_hostile_dataset_stay_in_the_save_path(tmp_path: Path) -> None:
    """Ids of a dataset from elsewhere become file names of the overlays that infer and view draw."""
    from xray.commands.view import file_names

    root = coco(tmp_path / "raw")
    convert("coco", root, tmp_path / "data", image_size=32, n_folds=2, n_workers=0)
    file = tmp_path / "data" / "annotations.json"
    content = json.loads(file.read_text())
    for record, name in zip(content["images"], ("../../../out", "/tmp/out\0"), strict=True):
        record["source_id"] = name
    file.write_text(json.dumps(content))
    inputs = open_inputs(tmp_path / "data")
    out = tmp_path / "save"
    for name in inputs.ids:
        assert inside(out, f"overlays/{safe_path(name)}.png").parent == out / "overlays"
    assert all(Path(name).name == name for name in file_names(list(inputs.ids)))


def test_a_link_in_the_save_path_is_not_followed_out(tmp_path: Path) -> None:
    (tmp_path / "save" / "overlays").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "save" / "overlays" / "one").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeNameError):
        inside(tmp_path / "save", "overlays/one/a.png")


def test_predictions_and_submissions_keep_ids_as_text(tmp_path: Path) -> None:
    """Ids of predictions never become paths, and come back from every file as they were."""
    from xray.structures.boxes import BoxTable
    from xray.structures.predictions import Predictions, read_predictions, write_predictions
    from xray.structures.submission import read_submission, write_submission

    ids = tuple(dict.fromkeys(name for name in (*LEADING_OUT, *ODD) if name and "\ud800" not in name))
    table = BoxTable.of(np.arange(len(ids)), np.ones(len(ids)), np.tile([1.0, 2.0, 3.0, 4.0], (len(ids), 1)))
    write_predictions(tmp_path / "p.json", Predictions(ids, table))
    assert read_predictions(tmp_path / "p.json").image_ids == ids
    write_submission(tmp_path / "s.csv", Predictions(ids, table), ids)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.json", "s.csv"]
    plain = [name for name in ids if "\0" not in name]
    write_submission(tmp_path / "s.csv", Predictions(tuple(plain), table.select(np.arange(len(plain)))), plain)
    assert read_submission(tmp_path / "s.csv").image_ids == tuple(plain)
