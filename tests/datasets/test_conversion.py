"""Writing a dataset directory: resumed at any point it is the same; what is left out is told; nothing gets lost."""

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_cases import gradient, picture_source, write_picture

from xray.datasets import conversion, journal
from xray.datasets.annotation import fuse_readers
from xray.datasets.conversion import write_store
from xray.datasets.source import SourceImage
from xray.datasets.store import is_store, open_store
from xray.errors import InputError
from xray.radiographs import decoding
from xray.radiographs.canvas import Canvas
from xray.radiographs.file_warnings import FileWarning
from xray.structures.boxes import BoxTable, box_iou

FILES = ("images.npy", "annotations.json", "conversion.json")


def convert(source, path, **flags):
    return write_store(source, path, **{"image_size": 32, "n_folds": 2, "n_workers": 0} | flags)


def dropped(result):
    return [(row["where"], row["reason"], row["action"]) for row in result["dropped"]["rows"]]


def content(path):
    return [(path / name).read_bytes() for name in FILES]


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def stop_after(monkeypatch, n, error=Killed):
    """Lets decoding end after n radiographs."""
    decode = decoding.decode_canvases

    def decode_some(*args):
        for number, item in enumerate(decode(*args)):
            if number == n:
                raise error
            yield item

    monkeypatch.setattr(decoding, "decode_canvases", decode_some)


def kill(monkeypatch):
    """A process that is killed checkpoints no more."""

    def close(self, *_):
        self._log.close()
        self._rows.close()

    monkeypatch.setattr(journal.Journal, "__exit__", close)


@pytest.fixture
def source(tmp_path):
    boxes = BoxTable.of([0, 3, 5], [1, 2, 1], [[0, 0, 10, 20], [5, 5, 60, 40], [1, 2, 30, 4]])
    result = picture_source(tmp_path / "raw", 9, boxes)
    (tmp_path / "raw" / "4.png").write_bytes(b"not a picture")
    return result


# ---- interruptions


@pytest.mark.parametrize("n", [0, 1, 4, 5, 8])
def test_an_interrupted_conversion_goes_on_where_it_stopped(source, tmp_path, monkeypatch, capsys, n):
    convert(source, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, n, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "parts")
    assert f"{n} of 9 radiographs are done: run the same command again" in capsys.readouterr().err
    assert is_store(tmp_path / "parts")
    with pytest.raises(InputError, match="has not finished"):
        open_store(tmp_path / "parts")
    if n:
        # What is done is not decoded again.
        (tmp_path / "raw" / "0.png").unlink()
    convert(source, tmp_path / "parts")
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    assert sorted(file.name for file in (tmp_path / "parts").iterdir()) == sorted(FILES)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(0, 8), log_cut=st.integers(0, 400), rows_cut=st.integers(0, 5000), changed=st.integers(0, 2000))
def test_a_crash_at_any_byte_loses_nothing(source, tmp_path, n, log_cut, rows_cut, changed):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    if not whole.exists():
        convert(source, whole)
    shutil.rmtree(parts, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, n)
        patch.setattr(journal, "CHECKPOINT_SECONDS", 0.0)
        kill(patch)
        with pytest.raises(Killed):
            convert(source, parts)
    # The file system may have kept less of either file than was written.
    for name, cut in (("conversion.part", log_cut), ("images.npy.part", rows_cut)):
        data = (parts / name).read_bytes()
        (parts / name).write_bytes(data[: max(0, len(data) - cut)])
    # Or it has kept the journal otherwise than it was written.
    data = bytearray((parts / "conversion.part").read_bytes())
    if changed < len(data):
        data[changed] ^= 3
        (parts / "conversion.part").write_bytes(data)
    convert(source, parts)
    assert content(parts) == content(whole)


@pytest.mark.parametrize("name", ["images.npy", "annotations.json", "conversion.json"])
def test_a_crash_while_finishing_loses_nothing(source, tmp_path, monkeypatch, name):
    convert(source, tmp_path / "whole")
    replace = conversion.os.replace

    def crash(old, new):
        if str(new).endswith(name):
            raise Killed
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(conversion.os, "replace", crash)
        with pytest.raises(Killed):
            convert(source, tmp_path / "parts")
    # The pixels are complete: no file is needed any more.
    shutil.rmtree(tmp_path / "raw")
    convert(source, tmp_path / "parts")
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def interrupted(source, path, monkeypatch, **flags):
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Killed):
            convert(source, path, **flags)


def test_an_unfinished_conversion_goes_on_only_with_its_own_parameters(source, tmp_path, monkeypatch):
    interrupted(source, tmp_path / "data", monkeypatch)
    with pytest.raises(InputError, match=r"image_size was 32, now 64.*add --overwrite to start again"):
        convert(source, tmp_path / "data", image_size=64)
    with pytest.raises(InputError, match="tables was f, now g"):
        convert(dataclasses.replace(source, fingerprint="g"), tmp_path / "data")
    with pytest.raises(InputError, match="files was"):
        convert(dataclasses.replace(source, images=source.images[:-1]), tmp_path / "data")
    convert(source, tmp_path / "data", image_size=16, overwrite=True)
    convert(source, tmp_path / "whole", image_size=16)
    assert content(tmp_path / "data") == content(tmp_path / "whole")


def test_what_does_not_touch_the_pixels_may_change_on_the_way(source, tmp_path, monkeypatch):
    interrupted(source, tmp_path / "data", monkeypatch)
    convert(source, tmp_path / "data", n_folds=4, seed=3)
    assert set(open_store(tmp_path / "data").folds) == {0, 1, 2, 3}


def test_two_conversions_into_one_directory(source, tmp_path):
    (tmp_path / "data").mkdir()
    with (
        journal.Journal(tmp_path / "data", 32, {"a": 1}),
        pytest.raises(InputError, match="another conversion is writing"),
    ):
        convert(source, tmp_path / "data")


# ---- overwriting


def test_a_finished_dataset_is_kept_until_its_successor_is_complete(source, tmp_path, monkeypatch):
    convert(source, tmp_path / "data")
    before = content(tmp_path / "data")
    with pytest.raises(InputError, match="holds a finished dataset: add --overwrite"):
        convert(source, tmp_path / "data", image_size=64)
    interrupted(source, tmp_path / "data", monkeypatch, image_size=64, overwrite=True)
    assert content(tmp_path / "data") == before
    assert open_store(tmp_path / "data").canvas_size == 32
    convert(source, tmp_path / "data", image_size=64, overwrite=True)
    assert open_store(tmp_path / "data").canvas_size == 64
    assert sorted(file.name for file in (tmp_path / "data").iterdir()) == sorted(FILES)


@pytest.mark.parametrize("overwrite", [False, True])
def test_somebody_elses_files_are_never_overwritten(source, tmp_path, overwrite):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "annotations.json").write_text("mine")
    with pytest.raises(InputError, match=r"holds an annotations\.json that is not a dataset's"):
        convert(source, tmp_path / "data", overwrite=overwrite)
    assert (tmp_path / "data" / "annotations.json").read_text() == "mine"


def test_the_target_is_a_file(source, tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(InputError, match="is a file"):
        convert(source, tmp_path / "data")


def test_a_full_disk_is_noticed_before_the_work(source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda _: usage._replace(free=8000))
    with pytest.raises(InputError, match=r"9 canvases of 32 pixels need 9.2 kB, .* has .*smaller --image-size"):
        convert(source, tmp_path / "data")
    # The next try, with other parameters, is not held up by it.
    convert(source, tmp_path / "data", image_size=16)


# ---- what is left out, and why


def test_an_unreadable_file_costs_that_file_only(source, tmp_path):
    result = convert(source, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert [record["source_id"] for record in store.records] == [f"id{n}" for n in (0, 1, 2, 3, 5, 6, 7, 8)]
    np.testing.assert_array_equal(store.boxes.images, [0, 3, 4])
    for row, number in enumerate((0, 1, 2, 3, 5, 6, 7, 8)):
        expected = Canvas(60, 40, 32).letterbox(gradient(60, 40, number))
        np.testing.assert_array_equal(store.images[row], expected)
    assert dropped(result) == [("4.png", "unreadable file", "left out")]
    assert result["dropped"]["counts"] == {"unreadable file": 1}
    assert result["counts"]["images"] == 8
    assert result["counts"]["images_without_boxes"] == 5
    assert str(tmp_path) not in json.dumps(result)
    assert json.loads((tmp_path / "data" / "conversion.json").read_text()) == result


def test_boxes_are_cut_at_the_edge_of_the_radiograph(tmp_path):
    corners = [[-5, -5, 10, 10], [50, 30, 70, 50], [0, 0, 60, 40]]
    source = picture_source(tmp_path / "raw", 3, BoxTable.of([0] * 3, [1] * 3, corners))
    result = convert(source, tmp_path / "data")
    expected = [[0, 0, 10, 10], [50, 30, 60, 40], [0, 0, 60, 40]]
    np.testing.assert_array_equal(open_store(tmp_path / "data").boxes.boxes, expected)
    assert dropped(result) == [
        ("line 0", "box beyond the edge", "clipped"),
        ("line 1", "box beyond the edge", "clipped"),
    ]


# What is left of the second is thinner than what coordinates are kept to.
@pytest.mark.parametrize("beyond", [[60, 0, 80, 20], [59.9999999, 0, 80, 20]])
@pytest.mark.parametrize("pixels", [True, False])
def test_an_image_that_loses_one_of_its_boxes_does_not_train(tmp_path, beyond, pixels):
    boxes = BoxTable.of([0, 0, 1], [1, 2, 1], [[0, 0, 9, 9], beyond, [0, 0, 9, 9]])
    source = picture_source(tmp_path / "raw", 4, boxes)
    if not pixels:
        images = [dataclasses.replace(image, width=60, height=40) for image in source.images]
        source = dataclasses.replace(source, images=images)
    result = convert(source, tmp_path / "data", pixels=pixels)
    store = open_store(tmp_path / "data", pixels=pixels)
    assert [record["source_id"] for record in store.records] == ["id1", "id2", "id3"]
    assert dropped(result) == [("0.png", "radiograph with an annotation that could not be used", "left out")]
    assert result["dropped"]["rows"][0]["detail"] == "1 of 2 boxes beyond 60 x 40"


def test_warnings_of_the_source_and_of_reading_stand_in_the_account(tmp_path, monkeypatch):
    source = picture_source(tmp_path / "raw", 4, warnings=[FileWarning("listed twice", "1.png", "a, b")])
    decode = decoding.decode_canvases

    def with_warnings(*args):
        for item in decode(*args):
            yield dataclasses.replace(item, warnings=("one grey",) if item.path.name in ("0.png", "2.png") else ())

    monkeypatch.setattr(decoding, "decode_canvases", with_warnings)
    with monkeypatch.context() as killed:
        stop_after(killed, 3)
        with pytest.raises(Killed):
            convert(source, tmp_path / "data")
    # What was warned of before an interruption is not forgotten.
    result = convert(source, tmp_path / "data")
    assert result["warnings"] == {
        "counts": {"listed twice": 1, "one grey": 2},
        "rows": [
            {"kind": "listed twice", "where": "1.png", "detail": "a, b"},
            {"kind": "one grey", "where": "0.png"},
            {"kind": "one grey", "where": "2.png"},
        ],
    }


def test_an_image_that_loses_all_its_boxes_does_not_pass_for_normal(tmp_path):
    source = picture_source(tmp_path / "raw", 4, BoxTable.of([1, 2], [1, 1], [[70, 0, 80, 9], [0, 0, 9, 9]]))
    result = convert(source, tmp_path / "data")
    assert [record["source_id"] for record in open_store(tmp_path / "data").records] == ["id0", "id2", "id3"]
    assert dropped(result) == [("1.png", "image without a usable box", "left out")]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(corners=st.lists(st.lists(st.floats(-30, 90), min_size=4, max_size=4), min_size=1, max_size=8))
def test_whatever_the_boxes_every_one_that_is_kept_lies_inside(tmp_path, corners):
    boxes = np.array([[min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)] for x1, y1, x2, y2 in corners])
    source = picture_source(tmp_path / "raw", 3, BoxTable.of([0] * len(boxes), [1] * len(boxes), boxes))
    convert(source, tmp_path / "data", overwrite=True)
    store = open_store(tmp_path / "data")
    kept = store.boxes.boxes
    assert ((kept[:, :2] >= 0) & (kept[:, 2:] <= [60, 40]) & (kept[:, :2] < kept[:, 2:])).all()
    rows = json.loads((tmp_path / "data" / "annotations.json").read_text())["annotations"]
    # x + width as anyone adds them up, without float noise beyond the edge.
    assert all(x + width <= 60 and y + height <= 40 for x, y, width, height in (row["bbox"] for row in rows))


def test_nothing_readable_at_all(tmp_path):
    source = picture_source(tmp_path / "raw", 3)
    for image in source.images:
        image.path.write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the 3 radiographs can be used; the first, 0\.png: unreadable file"):
        convert(source, tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())
    # Once the files are there, the same command works.
    for image in source.images:
        write_picture(image.path)
    convert(source, tmp_path / "data")


# ---- sizes and aspect


def resized(image: SourceImage, width: int, height: int) -> SourceImage:
    return dataclasses.replace(image, width=width, height=height)


def test_boxes_stay_in_the_pixels_of_the_table_where_the_file_is_smaller(tmp_path):
    source = picture_source(tmp_path / "raw", 2, BoxTable.of([0], [1], [[300, 200, 600, 400]]))
    source.images[:] = [resized(image, 600, 400) for image in source.images]
    convert(source, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert (store.records[0]["width"], store.records[0]["height"]) == (600, 400)
    np.testing.assert_array_equal(store.boxes.boxes, [[300, 200, 600, 400]])
    np.testing.assert_allclose(
        store.canvas(0).to_canvas(store.boxes.boxes), Canvas(60, 40, 32).to_canvas([[30, 20, 60, 40]]), atol=0.3
    )


def test_a_file_that_disagrees_with_its_table_is_left_out(tmp_path):
    source = picture_source(tmp_path / "raw", 4)
    sizes = [(600, 400), (605, 400), (620, 400), (400, 600)]
    source.images[:] = [resized(image, *size) for image, size in zip(source.images, sizes, strict=True)]
    result = convert(source, tmp_path / "data")
    assert [record["source_id"] for record in open_store(tmp_path / "data").records] == ["id0", "id1"]
    assert [row["where"] for row in result["dropped"]["rows"]] == ["2.png", "3.png"]
    assert result["dropped"]["rows"][0]["reason"] == "file and table disagree on the size"
    assert result["dropped"]["rows"][0]["detail"] == "the file is 60 x 40, the table says 620 x 400"


def test_a_squashed_picture_is_stretched_back(tmp_path):
    # A bright square on an upright radiograph, saved as a square picture without keeping the aspect.
    original = np.full((400, 200), 40, dtype=np.uint8)
    original[100:200, 50:150] = 250
    (tmp_path / "raw").mkdir()
    cv2.imwrite(str(tmp_path / "raw" / "a.png"), cv2.resize(original, (128, 128), interpolation=cv2.INTER_AREA))
    image = SourceImage(tmp_path / "raw" / "a.png", "a.png", "a", width=200, height=400)
    source = picture_source(tmp_path / "raw", 1, BoxTable.of([0], [1], [[50, 100, 150, 200]]), squashed=True)
    source.images[:] = [image, dataclasses.replace(image, source_id="b")]
    convert(source, tmp_path / "data", image_size=128)
    store = open_store(tmp_path / "data")
    rows, columns = np.nonzero(store.images[0] > 150)
    bright = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
    assert box_iou(store.canvas(0).to_canvas(store.boxes.boxes), bright)[0, 0] > 0.9
    assert (store.images[0][:, :32] == 0).all()
    assert (store.images[0][:, 96:] == 0).all()
    expected = store.canvas(0).letterbox(original)
    assert np.abs(store.images[0].astype(int) - expected).mean() < 2


# ---- readers


def test_readers_of_one_lesion_become_one_box(tmp_path):
    corners = [[10, 10, 30, 30], [12, 10, 32, 30], [40, 5, 50, 15], [10, 10, 30, 30], [11, 11, 31, 31]]
    table = BoxTable.of([0, 0, 0, 0, 0], [1, 1, 1, 2, 1], corners)
    readers = [("R10",), ("R9",), ("R9",), ("R8",), ("R9",)]
    boxes, by, origin = fuse_readers(table, readers, np.ones(5, dtype=bool))
    # Two boxes of one reader around the same lesion count as any others, but name the reader once.
    expected = {
        (1, ("R9", "R10")): np.round(np.array([11, 31 / 3, 31, 91 / 3]) * 64) / 64,
        (1, ("R9",)): [40, 5, 50, 15],
        (2, ("R8",)): [10, 10, 30, 30],
    }
    assert len(boxes) == 3
    assert (origin == -1).all()
    for label, box, names in zip(boxes.labels.tolist(), boxes.boxes, by, strict=True):
        np.testing.assert_allclose(box, expected[label, names])


def test_boxes_that_nobody_signed_are_not_fused(tmp_path):
    corners = [[10, 10, 30, 30], [12, 10, 32, 30]]
    source = picture_source(tmp_path / "raw", 2, BoxTable.of([0, 0], [1, 1], corners))
    convert(source, tmp_path / "data")
    np.testing.assert_array_equal(open_store(tmp_path / "data").boxes.boxes, corners)


def test_clipping_comes_before_fusion(tmp_path):
    # One reader drew far beyond the edge: fused first, the box would be pulled outwards.
    corners = [[40, 10, 60, 30], [40, 10, 68, 30]]
    readers = [("R1",), ("R2",)]
    source = picture_source(tmp_path / "raw", 2, BoxTable.of([0, 0], [1, 1], corners), readers)
    convert(source, tmp_path / "data")
    store = open_store(tmp_path / "data")
    np.testing.assert_array_equal(store.boxes.boxes, [[40, 10, 60, 30]])
    assert store.readers == [["R1", "R2"]]


def test_without_pixels_an_image_that_loses_all_its_boxes_is_left_out_as_well(tmp_path):
    source = picture_source(tmp_path / "raw", 3, BoxTable.of([1, 2], [1, 1], [[70, 0, 80, 9], [0, 0, 9, 9]]))
    source.images[:] = [resized(image, 60, 40) for image in source.images]
    tables = convert(source, tmp_path / "tables", pixels=False)
    pixels = convert(source, tmp_path / "pixels")
    assert (tables["dropped"], tables["counts"]) == (pixels["dropped"], pixels["counts"])


def test_without_pixels_only_the_tables_are_written(source, tmp_path):
    result = convert(source, tmp_path / "data", pixels=False)
    assert sorted(file.name for file in (tmp_path / "data").iterdir()) == ["annotations.json", "conversion.json"]
    assert result["counts"]["images"] == 9
    assert len(open_store(tmp_path / "data", pixels=False).boxes) == 3
    with pytest.raises(InputError, match="without --table-only"):
        open_store(tmp_path / "data")
