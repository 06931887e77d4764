"""Opening a dataset directory: what it holds, and every way in which it can be wrong."""

import json
import pickle

import numpy as np
import pytest
from pycocotools.coco import COCO
from source_cases import gradient, picture_source

from xray.datasets.conversion import write_store
from xray.datasets.store import is_store, open_store
from xray.errors import InputError
from xray.structures.boxes import BoxTable


@pytest.fixture
def dataset(tmp_path):
    """Twelve pictures of 60 x 40, the last two for testing; boxes on 0, 1 and 2."""
    boxes = BoxTable.of([0, 1, 1, 2], [1, 1, 2, 2], [[0, 0, 10, 20], [5, 5, 60, 40], [1, 2, 3, 4], [30, 10, 50, 30]])
    source = picture_source(tmp_path / "raw", 12, boxes, [("R1",), ("R1", "R2"), ("R2",), ()])
    images = source.images
    for number, image in enumerate(images):
        changes = {"split": "test" if number >= 10 else "train", "readers": ("R1", "R2") if number == 1 else ()}
        images[number] = type(image)(**{**vars(image), **changes, "extra": {"coco_id": 100 + number}})
    write_store(source, tmp_path / "data", image_size=64, n_folds=5, readers="all", n_workers=0)
    return tmp_path / "data"


def test_what_is_written_is_what_is_read(dataset):
    store = open_store(dataset)
    assert len(store) == 12
    assert store.canvas_size == 64
    assert store.categories == {1: "one", 2: "two"}
    assert store.images.shape == (12, 64, 64)
    assert store.images.dtype == np.uint8
    assert isinstance(store.images, np.memmap)
    assert not store.images.flags.writeable
    np.testing.assert_array_equal(store.boxes.images, [0, 1, 1, 2])
    np.testing.assert_array_equal(store.boxes.labels, [1, 1, 2, 2])
    np.testing.assert_array_equal(store.boxes.boxes[1], [5, 5, 60, 40])
    np.testing.assert_array_equal(store.boxes.scores, 1)
    assert store.readers == [["R1"], ["R1", "R2"], ["R2"], []]
    # Two read image 1: the first box was drawn by both, the second by one of them. Nobody is known elsewhere.
    np.testing.assert_array_equal(store.agreement, [1, 1, 0.5, 1])
    for row in range(12):
        canvas = store.canvas(row)
        assert (canvas.width, canvas.height, canvas.size) == (60, 40, 64)
        np.testing.assert_array_equal(store.images[row], canvas.letterbox(gradient(60, 40, row)))
    assert is_store(dataset)
    assert not is_store(dataset.parent)


def test_pycocotools_reads_the_annotations(dataset):
    coco = COCO(str(dataset / "annotations.json"))
    assert coco.getImgIds() == list(range(12))
    assert coco.getCatIds() == [1, 2]
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[2]))
    assert annotation["bbox"] == [30, 10, 20, 20]
    assert annotation["area"] == 400
    assert annotation["iscrowd"] == 0
    assert min(coco.anns) == 1
    result = [{"image_id": 2, "category_id": 2, "bbox": [30, 10, 20, 20], "score": 0.5}]
    assert len(coco.loadRes(result).anns) == 1


def test_rows_by_split_and_fold(dataset):
    store = open_store(dataset)
    np.testing.assert_array_equal(store.rows(), np.arange(12))
    np.testing.assert_array_equal(store.rows(split="test"), [10, 11])
    assert all(store.folds[10:] == -1)
    inside, outside = store.rows(fold=2), store.rows(not_fold=2)
    # Test images are in no fold, nor among the others: training must never see them.
    np.testing.assert_array_equal(np.sort(np.concatenate([inside, outside])), np.arange(10))
    assert len(inside) == 2
    assert (store.folds[inside] == 2).all()


def test_a_fold_or_split_that_does_not_exist(dataset):
    store = open_store(dataset)
    with pytest.raises(InputError, match="has no fold 5: its folds are 0, 1, 2, 3, 4"):
        store.rows(fold=5)
    with pytest.raises(InputError, match="has no fold -1"):
        store.rows(not_fold=-1)
    with pytest.raises(InputError, match=r"has no 'val' images: its splits are \['test', 'train'\]"):
        store.rows(split="val")


def test_source_ids_are_found_again(dataset):
    store = open_store(dataset)
    np.testing.assert_array_equal(store.resolve(["id3", "id0", "other"]), [3, 0, -1])
    assert store.index_of["id11"] == 11
    assert len(store.resolve([])) == 0


def test_another_process_reopens_the_directory_instead_of_copying_it(dataset):
    store = open_store(dataset)
    pickled = pickle.dumps(store)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(again.images[3], store.images[3])


def test_nothing_of_the_machine_or_the_patient_is_written(dataset, tmp_path):
    for name in ("annotations.json", "conversion.json"):
        assert str(tmp_path) not in (dataset / name).read_text()


def test_no_dataset_there(tmp_path):
    with pytest.raises(InputError, match=r"no dataset at .*: run python tools/convert\.py"):
        open_store(tmp_path / "none")
    with pytest.raises(InputError, match=r"is not a dataset .*: run python tools/convert\.py"):
        open_store(tmp_path)
    (tmp_path / "conversion.part").write_text("{}\n")
    with pytest.raises(InputError, match=r"has not finished: run the same python tools/convert\.py command again"):
        open_store(tmp_path)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"].pop(), "images.npy has 12 rows, annotations.json 11 images"),
        (lambda c: c["images"].reverse(), "not the rows 0 to 11"),
        (lambda c: c["images"][0].pop("fold"), "KeyError: 'fold'"),
        (lambda c: c["images"][0].update(width=0), "width or height is not positive"),
        (lambda c: c["annotations"][0].update(image_id=12), "names an image that is not there"),
        (lambda c: c["annotations"][0].update(category_id=3), "names a category that is not there"),
        (lambda c: c["annotations"][0].update(bbox=[0, 0, 1]), "ValueError"),
        (lambda c: c["annotations"][0].update(bbox=[0, 0, float("nan"), 1]), "bbox is not finite"),
        (lambda c: c.pop("categories"), "KeyError: 'categories'"),
        (lambda c: c["categories"][0].update(name="a\nwarning: b"), r"'a\\nwarning: b', holds a control character"),
    ],
)
def test_damaged_annotations(dataset, change, message):
    edit(dataset / "annotations.json", change)
    with pytest.raises(InputError, match=rf"is damaged \(.*{message}.*--overwrite"):
        open_store(dataset)


def test_damaged_files(dataset):
    for content, message in ((b"{", "cannot be read"), (b"[]", "holds a list")):
        (dataset / "annotations.json").write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_store(dataset)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "cannot be mapped"),
        (lambda path: path.write_bytes(b"not an array"), "cannot be mapped"),
        (lambda path: np.save(path, np.zeros((12, 64, 64), dtype=np.uint16)), "is uint16"),
        (lambda path: np.save(path, np.zeros((12, 32, 32), dtype=np.uint8)), r"not uint8 \(N, 64, 64\)"),
        (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "cannot be mapped"),
        (lambda path: path.unlink(), "no images.npy"),
    ],
)
def test_damaged_images(dataset, write, message):
    write(dataset / "images.npy")
    with pytest.raises(InputError, match=message):
        open_store(dataset)
    # Whoever needs the truth alone is not kept from it.
    assert open_store(dataset, pixels=False).images is None
