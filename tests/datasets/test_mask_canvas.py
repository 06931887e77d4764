"""The true masks on the canvas, without decoding them: the same as by the long way."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from source_cases import picture_source, write_picture

from xray.datasets.conversion import write_store
from xray.datasets.mask_canvas import mask_canvas
from xray.datasets.source import SourceImage
from xray.datasets.store import Store, open_store
from xray.radiographs.canvas import Canvas
from xray.structures.boxes import BoxTable
from xray.structures.masks import MAX_CHARACTERS, encode_mask


def coco_rle(mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def store_of(masks, labels, size, n_categories):
    """A store of one radiograph with these masks; every second box of all has none."""
    height, width = masks[0].shape
    n = 2 * len(masks)
    return Store(
        path=None,
        images=None,
        records=[{"width": 9, "height": 9}, {"width": width, "height": height}],
        boxes=BoxTable.of([1] * n, np.repeat(labels, 2), np.zeros((n, 4))),
        readers=[[]] * n,
        masks={2 * number: coco_rle(mask) for number, mask in enumerate(masks)},
        categories={category: str(category) for category in range(1, n_categories + 1)},
        conversion={"parameters": {"image_size": size}},
    )


@settings(deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([1, 7, 32, 64, 100]),
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0.0, 0.03, 0.5, 0.97, 1.0])), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_masks_are_where_letterboxing_puts_them(width, height, size, parts, seed):
    random = np.random.default_rng(seed)
    masks = [random.random((height, width)) < share for _, share in parts]
    labels = [label for label, _ in parts]
    found = mask_canvas(store_of(masks, labels, size, 3), 1)
    assert found.shape == (3, size, size)
    assert found.dtype == np.uint8
    for category in (1, 2, 3):
        joined = np.zeros((height, width), dtype=np.uint8)
        for mask, label in zip(masks, labels, strict=True):
            joined |= (mask & (label == category)).astype(np.uint8)
        expected = Canvas(width, height, size).letterbox(joined, is_mask=True)
        np.testing.assert_array_equal(found[category - 1], expected)


@pytest.mark.parametrize(("width", "height", "size"), [(1024, 1024, 512), (2500, 3000, 512), (4892, 4020, 256)])
def test_large_radiographs(width, height, size):
    mask = np.zeros((height, width), dtype=np.uint8)
    cv2.ellipse(mask, (width // 3, height // 2), (width // 8, height // 3), 10, 0, 360, 1, -1)
    mask[-1, -1] = mask[0, 0] = 1
    found = mask_canvas(store_of([mask], [2], size, 2), 1)
    np.testing.assert_array_equal(found[1], Canvas(width, height, size).letterbox(mask, is_mask=True))
    assert not found[0].any()


def test_a_radiograph_without_masks_is_empty():
    store = store_of([np.ones((5, 4), dtype=bool)], [1], 8, 2)
    assert not mask_canvas(store, 0).any()


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=40))
def test_compressed_counts_are_read_as_pycocotools_writes_them(runs):
    # A last count of 0 cannot be told from its absence.
    runs[-1] += 1
    n = sum(runs)
    text = coco_mask.frPyObjects({"size": [1, n], "counts": runs}, 1, n)["counts"].decode()
    if sum(runs[1::2]):
        rle, n_pixels = encode_mask({"size": [1, n], "counts": text}, n, 1)
        assert rle == {"size": [1, n], "counts": text}
        assert n_pixels == sum(runs[1::2])


@pytest.mark.parametrize("counts", ["", "0", "o", "é", "\x00", "~~~", "P" * (MAX_CHARACTERS + 1), "0:"])
def test_damaged_counts_are_refused(counts):
    store = store_of([np.ones((5, 4), dtype=bool)], [1], 8, 1)
    store.masks[0] = {"size": [5, 4], "counts": counts}
    with pytest.raises(ValueError, match="run lengths"):
        mask_canvas(store, 1)


def test_labels_come_from_boxes_or_from_the_source(tmp_path):
    source = picture_source(tmp_path / "raw", 4, BoxTable.of([0, 0, 2], [2, 2, 1], [[5, 5, 20, 20]] * 3))
    path = write_picture(tmp_path / "raw" / "labelled.png")
    source.images.append(SourceImage(path, path.name, "labelled", labels=(2,)))
    source.images.append(SourceImage(write_picture(tmp_path / "raw" / "none.png"), "none.png", "none", labels=()))
    result = write_store(source, tmp_path / "data", image_size=32, n_folds=2, n_workers=0)
    store = open_store(tmp_path / "data")
    assert [record["labels"] for record in store.records] == [[2], [], [1], [], [2], []]
    expected = [[False, True], [False, False], [True, False], [False, False], [False, True], [False, False]]
    assert store.labels.tolist() == expected
    assert result["counts"]["images_per_label"] == {"one": 1, "two": 2}
    # Both radiographs with category 2 in one fold would leave the other without.
    assert {store.records[0]["fold"], store.records[4]["fold"]} == {0, 1}
