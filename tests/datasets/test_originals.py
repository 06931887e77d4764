"""Pictures that were made smaller: the answer about them is in the pixels of what they were made from."""

import json

import cv2
import numpy as np
import pytest

from xray.datasets.inputs import open_inputs
from xray.datasets.originals import NOT_USED, SIZE_UNKNOWN
from xray.datasets.sources import convert
from xray.errors import FlagError, InputError
from xray.radiographs.decoding import Undecodable
from xray.radiographs.radiograph import RadiographError

SIZES = {"a" * 32: (300, 400), "b" * 32: (500, 350), "c" * 32: (320, 320)}
SIDE = 128


def draw(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(20, 60, (height, width)).astype(np.uint8)
    pixels[height // 4 : height // 2, width // 5 : width // 2] = 200
    return cv2.GaussianBlur(pixels, (9, 9), 0)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def squares(folder, side=SIDE, sizes=SIZES):
    """The edition of squares, whose aspect was not kept."""
    for seed, (name, size) in enumerate(sizes.items()):
        write(folder / f"{name}.png", cv2.resize(draw(*size, seed), (side, side), interpolation=cv2.INTER_AREA))
    return folder


def meta(path, sizes=SIZES):
    path.write_text("image_id,dim0,dim1\n" + "".join(f"{name},{h},{w}\n" for name, (w, h) in sizes.items()))
    return path


def found(inputs, size=64):
    return {inputs.ids[item.index]: item for item in inputs.canvases(size, 0, 10)}


def test_inference_sees_what_conversion_wrote(tmp_path):
    squares(tmp_path / "train")
    meta(tmp_path / "train_meta.csv")
    rows = [f"{name},Cardiomegaly,3,R1,10,20,200,210" for name in SIZES]
    (tmp_path / "train.csv").write_text(
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n" + "\n".join(rows) + "\n"
    )
    convert("vinbig", tmp_path, tmp_path / "data", image_size=64, n_folds=2, n_workers=0)
    records = json.loads((tmp_path / "data" / "annotations.json").read_text())["images"]
    images = np.load(tmp_path / "data" / "images.npy")
    for data in (tmp_path / "train", tmp_path):
        items = found(open_inputs(data))
        assert items.keys() == SIZES.keys()
        for record in records:
            item = items[record["source_id"]]
            assert (item.width, item.height) == (record["width"], record["height"]) == SIZES[record["source_id"]]
            np.testing.assert_array_equal(item.canvas, images[record["id"]])


def test_pixels_are_scaled_back(tmp_path):
    squares(tmp_path / "test")
    meta(tmp_path / "test_meta.csv")
    inputs = open_inputs(tmp_path / "test")
    for index, (seed, size) in enumerate(enumerate(SIZES.values())):
        pixels = inputs.pixels(index)
        assert pixels.shape == size[::-1]
        assert np.abs(pixels.astype(int) - draw(*size, seed)).mean() < 4


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("test_meta.csv", "image_id,dim0,dim1\n{a},400,300\n{b},350,500\n{c},320,320\n"),
        ("test/test_meta.csv", "image_id,dim0,dim1\n{a},400.0,300.0\n{b},350.0,500.0\n{c},320,320\n"),
        ("train_meta.csv", "image_id,dim0,dim1\n{a},400,300\n{b},350,500\n{c},320,320\n"),
        ("test.csv", "image_id,width,height\n{a}.png,300,400\n{b}.png,500,350\n{c}.png,320,320\n"),
        (
            "sample_submission.csv",
            "image_id,PredictionString,width,height\n{a},x,300,400\n{b},x,500,350\n{c},x,320,320\n",
        ),
        ("train.csv", "image_id,class_id,width,height\n{a},1,300,400\n{b},2,500,350\n{b},3,500,350\n{c},3,320,320\n"),
    ],
)
def test_tables_beside_the_pictures(tmp_path, place, text):
    squares(tmp_path / "test")
    names = dict(zip("abc", SIZES, strict=True))
    (tmp_path / place).write_text(text.format(**names))
    assert {name: (item.width, item.height) for name, item in found(open_inputs(tmp_path / "test")).items()} == SIZES


def test_one_picture(tmp_path):
    folder = squares(tmp_path / "test")
    meta(tmp_path / "test_meta.csv")
    ((name, item),) = found(open_inputs(folder / f"{'b' * 32}.png")).items()
    assert (name, item.width, item.height) == ("b" * 32, 500, 350)


def test_a_table_by_name_and_one_size_for_all(tmp_path):
    folder, sizes = squares(tmp_path / "scans"), meta(tmp_path / "elsewhere.csv")
    inputs = open_inputs(folder, sizes=str(sizes))
    assert {name: (item.width, item.height) for name, item in found(inputs).items()} == SIZES
    inputs = open_inputs(folder, sizes="1024x2048")
    assert {(item.width, item.height) for item in found(inputs).values()} == {(1024, 2048)}
    # Said to be the originals, they are, whatever a table holds.
    meta(tmp_path / "scans_meta.csv")
    inputs = open_inputs(folder, sizes="none")
    assert {(item.width, item.height) for item in found(inputs).values()} == {(SIDE, SIDE)}
    assert inputs.warnings == ()


def test_a_picture_that_the_table_does_not_name_is_not_answered_in_other_pixels(tmp_path):
    folder = squares(tmp_path / "test")
    meta(tmp_path / "test_meta.csv", {"a" * 32: (300, 400), "b" * 32: ("", 350)})
    items = found(open_inputs(folder))
    assert items["a" * 32].width == 300
    assert isinstance(items["b" * 32], Undecodable)
    assert items["b" * 32].reason == f"{'b' * 32}.png: test_meta.csv: its size is empty"
    assert "original size is not known: test_meta.csv names other files, not this one" in items["c" * 32].reason
    with pytest.raises(RadiographError, match="original size is not known"):
        open_inputs(folder).pixels(2)


def test_a_picture_of_another_aspect_than_its_table_says(tmp_path):
    folder = squares(tmp_path / "test")
    write(folder / f"{'a' * 32}.png", draw(128, 100))
    meta(tmp_path / "test_meta.csv")
    item = found(open_inputs(folder))["a" * 32]
    assert isinstance(item, Undecodable)
    assert "it is 128 x 100, its original 300 x 400: neither is the other resized" in item.reason


def test_an_edition_that_kept_the_aspect(tmp_path):
    for name, (width, height) in SIZES.items():
        write(tmp_path / "test" / f"{name}.png", draw(width // 2, height // 2))
    meta(tmp_path / "test_meta.csv")
    assert {name: (item.width, item.height) for name, item in found(open_inputs(tmp_path / "test")).items()} == SIZES


def sample(path, column="image_id"):
    path.write_text(f"{column},PredictionString\n" + "".join(f"{name},14 1 0 0 1 1\n" for name in SIZES))


def named(names):
    return dict(zip(names, SIZES.values(), strict=True))


@pytest.mark.parametrize(
    ("side", "names", "column", "is_told"),
    [
        (512, "xyz", "image_id", True),
        (512, "xyz", "ImageId", True),
        (512, SIZES, None, True),
        (512, ["1.2.276.0.7230010.3.1.4." + mark for mark in "123"], None, True),
        # All radiographs of SIIM-ACR have that size.
        (1024, "xyz", "ImageId", False),
        (1024, "xyz", "image_id", True),
        # Nobody knows; and a size that nothing is usually made into.
        (512, "xyz", None, False),
        (500, "xyz", "image_id", False),
    ],
)
def test_pictures_that_look_like_a_smaller_edition(tmp_path, side, names, column, is_told):
    folder = squares(tmp_path / "test", side, named(names))
    if column:
        sample(tmp_path / "sample_submission.csv", column)
    warnings = open_inputs(folder).warnings
    assert [warning.kind for warning in warnings] == [SIZE_UNKNOWN] * (3 if is_told else 0)
    if is_told:
        assert warnings[0].where == open_inputs(folder).names[0]
        assert "--sizes" in warnings[0].detail
    assert open_inputs(folder, sizes="none").warnings == ()


def test_radiographs_of_several_sizes_are_the_originals(tmp_path):
    sample(tmp_path / "sample_submission.csv")
    for name, size in SIZES.items():
        write(tmp_path / "test" / f"{name}.png", draw(*size))
    assert open_inputs(tmp_path / "test").warnings == ()


def test_a_table_of_another_name_is_told_and_not_used(tmp_path):
    folder = squares(tmp_path / "scans", 100, named("xyz"))
    meta(tmp_path / "dimensions.csv", named("xyz"))
    meta(tmp_path / "strangers.csv", {"s": (1, 2)})
    inputs = open_inputs(folder)
    assert [(warning.kind, warning.where) for warning in inputs.warnings[:2]] == [
        (NOT_USED, "dimensions.csv"),
        (SIZE_UNKNOWN, "x.png"),
    ]
    assert len(inputs.warnings) == 4
    assert inputs.only({"y"}).warnings == (inputs.warnings[0], inputs.warnings[2])


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ("none.csv", InputError, "none.csv cannot be read"),
        ("strangers.csv", InputError, r"strangers.csv names none of the 3 pictures of .*test, such as aaa"),
        ("no.csv", InputError, "tells no original sizes"),
        ("0x12", FlagError, "--sizes is 0x12: give sides of 1 or more"),
        ("20000x20000", FlagError, "100 million pixels at most"),
    ],
)
def test_sizes_that_cannot_be_used(tmp_path, monkeypatch, sizes, error, message):
    monkeypatch.chdir(tmp_path)
    squares(tmp_path / "test")
    meta(tmp_path / "strangers.csv", {"s": (1, 2)})
    (tmp_path / "no.csv").write_text("image_id,class\na,1\n")
    with pytest.raises(error, match=message):
        open_inputs(tmp_path / "test", sizes=sizes)


def test_sizes_where_there_are_no_pictures(side_store, tmp_path):
    with pytest.raises(FlagError, match="is a dataset directory, which has its own sizes"):
        open_inputs(side_store, sizes="none")
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(FlagError, match="DICOM files are the originals"):
        open_inputs(tmp_path, sizes="512x512")
    meta(tmp_path / "test_meta.csv", {"a": (5, 5)})
    assert open_inputs(tmp_path).originals == ()
