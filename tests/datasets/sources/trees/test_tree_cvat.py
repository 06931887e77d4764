"""CVAT for images 1.1: every shape by hand-worked values, tags, subsets."""

import math

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from source_cases import write_picture

from xray.datasets import source as reasons
from xray.datasets.sources.tree import read_tree
from xray.datasets.sources.trees.cvat import NO_AREA
from xray.datasets.sources.trees.parts import NOT_IN_TREE
from xray.datasets.sources.trees.whole import CONTRADICTION
from xray.errors import InputError
from xray.structures.masks import decode_mask

LABELS = "<meta><task><labels><label><name>Nodule</name></label><label><name>Mass</name></label></labels></task></meta>"


def write(root, *images, meta=LABELS):
    root.mkdir(parents=True, exist_ok=True)
    (root / "annotations.xml").write_text(f"<annotations><version>1.1</version>{meta}{''.join(images)}</annotations>")


def image(number, *shapes, more="", size=(60, 40)):
    sides = f'width="{size[0]}" height="{size[1]}"'
    return f'<image id="{number}" name="{number}.png" {sides} {more}>{"".join(shapes)}</image>'


BOX = '<box label="Nodule" source="manual" occluded="0" xtl="10.50" ytl="5.00" xbr="20.00" ybr="15.25" z_order="0"/>'


@pytest.fixture
def root(tmp_path):
    for number in range(4):
        write_picture(tmp_path / "images" / f"{number}.png", offset=number)
    return tmp_path


def one(root, shape):
    """The box and the mask of a single shape."""
    write(root, image(0, shape), image(1))
    source = read_tree(root)
    assert len(source.boxes) == 1, source.dropped
    return source.boxes.boxes[0], source.masks.get(0)


def test_boxes_backgrounds_subsets_and_pictures_that_are_not_listed(root):
    write(
        root, image(0, BOX, more='subset="Train"'), image(1, more='subset="Validation"'), image(2, more='subset="Test"')
    )
    source = read_tree(root)
    assert [image.split for image in source.images] == ["train", "val", "test"]
    assert source.boxes.boxes.tolist() == [[10.5, 5, 20, 15.25]]
    assert [category["name"] for category in source.categories] == ["Nodule", "Mass"]
    assert [(drop.where, drop.reason) for drop in source.dropped] == [("images/3.png", NOT_IN_TREE)]


def test_a_turned_box(root):
    # 20 x 10 about (30, 20), turned by a quarter: 10 x 20.
    box, mask = one(root, '<box label="Mass" xtl="20" ytl="15" xbr="40" ybr="25" rotation="90.0"/>')
    assert box.round(9).tolist() == [25, 10, 35, 30]
    # The upper left corner goes to the upper right: clockwise.
    assert np.round(mask[0][:2], 9).tolist() == [35, 10]
    box, _ = one(root, '<box label="Mass" xtl="20" ytl="10" xbr="40" ybr="30" rotation="45"/>')
    half = 10 * math.sqrt(2)
    assert box.tolist() == pytest.approx([30 - half, 20 - half, 30 + half, 20 + half])


def test_polygons_and_ellipses(root):
    box, mask = one(root, '<polygon label="Mass" points="10.00,5.00;20.00,5.00;15.50,12.25"/>')
    assert box.tolist() == [10, 5, 20, 12.25]
    assert mask == [[10, 5, 20, 5, 15.5, 12.25]]
    box, mask = one(root, '<ellipse label="Mass" cx="30" cy="20" rx="12" ry="6"/>')
    assert box.tolist() == [18, 14, 42, 26]
    pixels = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(mask, 40, 60)))
    assert pixels.sum() == pytest.approx(math.pi * 12 * 6, rel=0.02)
    turned, _ = one(root, '<ellipse label="Mass" cx="30" cy="20" rx="12" ry="6" rotation="90"/>')
    assert turned.round(9).tolist() == [24, 8, 36, 32]


def test_a_mask_counts_along_the_rows_of_its_box(root):
    # 4 x 3 from (10, 5): rows 0110, 1111, 0000; the last clear pixels may be left out.
    for runs in ("1, 2, 1, 4, 4", "1, 2, 1, 4"):
        box, mask = one(root, f'<mask label="Mass" rle="{runs}" left="10" top="5" width="4" height="3"/>')
        assert box.tolist() == [10, 5, 14, 7]
        expected = np.zeros((40, 60), dtype=np.uint8)
        expected[5, 11:13] = expected[6, 10:14] = 1
        assert (decode_mask(mask) == expected).all()


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ('<box label="Other" xtl="1" ytl="1" xbr="9" ybr="9"/>', None),
        ('<box xtl="1" ytl="1" xbr="9" ybr="9"/>', reasons.UNKNOWN_CLASS),
        ('<box label="Mass" xtl="1" ytl="1" xbr="9"/>', "malformed entry"),
        ('<box label="Mass" xtl="9" ytl="1" xbr="1" ybr="9"/>', reasons.INVERTED),
        ('<polygon label="Mass" points="1,1;2,2"/>', "malformed entry"),
        ('<mask label="Mass" rle="1, 20" left="10" top="5" width="4" height="3"/>', "malformed entry"),
        ('<mask label="Mass" rle="1, 2" left="58" top="5" width="4" height="3"/>', "malformed entry"),
        ('<mask label="Mass" rle="12" left="10" top="5" width="4" height="3"/>', "malformed entry"),
    ],
)
def test_a_shape_that_is_none_costs_its_radiograph(root, shape, reason):
    write(root, image(0, BOX, shape), image(1))
    source = read_tree(root)
    lost = [drop.reason for drop in source.dropped if drop.where.startswith("annotations.xml image 0")]
    assert lost == ([reason] if reason else [])
    assert len(source.images) == (1 if reason else 2)


def test_tags_are_labels_of_whole_pictures(root):
    normal = '<tag label="Normal" source="manual"/>'
    write(
        root,
        image(0, BOX, '<tag label="Nodule"/><tag label="Cardiomegaly"/>'),
        image(1, normal),
        image(2, BOX, normal),
        image(3, '<points label="Nodule" points="1,1"/>'),
    )
    source = read_tree(root)
    assert [category["name"] for category in source.categories] == ["Nodule", "Mass", "Cardiomegaly"]
    assert [(image.labels, image.unlocated) for image in source.images] == [((1, 3), (1, 3)), ((), ()), ((1,), (1,))]
    assert [drop.reason for drop in source.dropped] == [CONTRADICTION]
    assert [warning.kind for warning in source.warnings] == [NO_AREA]


def test_tracks_of_videos_are_refused(root):
    write(root, '<track id="0" label="Nodule"></track>')
    with pytest.raises(InputError, match="tracks of a video"):
        read_tree(root)


def test_a_picture_listed_twice_is_left_out(root):
    write(root, image(0, BOX), image(0), image(1))
    source = read_tree(root)
    assert [image.file_name for image in source.images] == ["images/1.png"]


@pytest.mark.parametrize("kind", ["polyline", "points", "cuboid", "skeleton"])
def test_a_picture_with_a_shape_without_area_is_not_normal(root, kind):
    write(root, image(0, BOX), image(1, f'<{kind} label="Mass" points="1,1;2,2"/>'), image(2, f'<{kind} label=""/>'))
    source = read_tree(root)
    mass = next(category["id"] for category in source.categories if category["name"] == "Mass")
    known = [(image.labels, image.unlocated) for image in source.images]
    assert known == [((), ()), ((mass,), (mass,))]
    assert [warning.kind for warning in source.warnings] == [NO_AREA]
