"""Label Studio: regions in percent, its brush, choices, readers, and what it calls pictures."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_cases import write_picture

from xray.datasets import source as reasons
from xray.datasets.sources import convert
from xray.datasets.sources.tree import read_tree
from xray.datasets.sources.trees import labelstudio, labelstudio_tasks
from xray.datasets.sources.trees.brush import decode_brush
from xray.datasets.sources.trees.parts import NOT_IN_TREE
from xray.datasets.sources.trees.regions import NO_AREA
from xray.datasets.sources.trees.whole import CONTRADICTION
from xray.datasets.store import open_store
from xray.structures.masks import MaskError, decode_mask


@pytest.fixture
def root(tmp_path):
    for number in range(4):
        write_picture(tmp_path / "set" / f"{number}.png", offset=number)
    return tmp_path / "set"


def region(kind, value, label="Nodule", **changes):
    """A result of a picture of 60 x 40."""
    value = {**value, f"{kind}labels": [label]} if label else value
    size = {"original_width": 60, "original_height": 40, "image_rotation": 0}
    return {
        "id": "r1",
        "type": f"{kind}labels",
        "from_name": "x",
        "to_name": "image",
        "value": value,
        **size,
        **changes,
    }


def choice(*choices, name="whole"):
    return {"id": "c1", "type": "choices", "from_name": name, "to_name": "image", "value": {"choices": list(choices)}}


def annotation(*results, by=1, **changes):
    return {"id": 5, "completed_by": by, "result": list(results), **changes}


def task(number, *annotations, image=None, **changes):
    return {"id": number, "data": {"image": image or f"{number}.png"}, "annotations": list(annotations), **changes}


def write(root, *tasks):
    (root / "export.json").write_text(json.dumps(tasks))


BOX = region("rectangle", {"x": 10, "y": 25, "width": 50, "height": 50, "rotation": 0})


def one(root, result):
    write(root, task(0, annotation(result)))
    source = read_tree(root)
    assert len(source.boxes) == 1, source.dropped
    return source.boxes.boxes[0], source.masks.get(0)


def test_regions_are_in_percent_of_the_sides(root):
    assert one(root, BOX)[0].tolist() == [6, 10, 36, 30]
    box, mask = one(root, region("polygon", {"points": [[10, 10], [50, 10], [50, 60]]}))
    assert box.tolist() == [6, 4, 30, 24]
    assert mask == [[6, 4, 30, 4, 30, 24]]
    box, _ = one(root, region("ellipse", {"x": 50, "y": 50, "radiusX": 20, "radiusY": 15, "rotation": 0}))
    assert box.tolist() == [18, 14, 42, 26]


def test_a_rectangle_turns_about_its_upper_left_corner(root):
    # 24 x 8 pixels from (30, 10), a quarter clockwise: it hangs down to the left of that corner, 8 wide and 24 high.
    box, mask = one(root, region("rectangle", {"x": 50, "y": 25, "width": 40, "height": 20, "rotation": 90}))
    assert box.round(9).tolist() == [22, 10, 30, 34]
    assert np.round(mask[0], 9).tolist() == [30, 10, 30, 34, 22, 34, 22, 10]
    # In pixels, not in percent: the two sides' percents differ. 12 x 12 pixels, turned by 45°.
    box, _ = one(root, region("rectangle", {"x": 50, "y": 25, "width": 20, "height": 30, "rotation": 45}))
    half = 12 / math.sqrt(2)
    assert box.tolist() == pytest.approx([30 - half, 10, 30 + half, 10 + 2 * half])


def pack(alpha, lengths=(3, 4, 8, 16)):
    """Label Studio's run lengths of a mask of opacities, by their description: runs of the first size that holds them,
    and single values as runs of their own."""
    values = np.repeat(alpha.ravel(), 4).tolist()
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{length - 1:04b}" for length in lengths)
    at = 0
    while at < len(values):
        end = at + 1
        while end < len(values) and values[end] == values[at] and end - at < 2 ** lengths[-1]:
            end += 1
        size = next(number for number, length in enumerate(lengths) if end - at <= 2**length)
        bits += f"{int(end - at > 1)}{size:02b}{end - at - 1:0{lengths[size]}b}{values[at]:08b}"
        at = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]


def test_the_brush(root):
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[5:20, 10:30] = 255
    mask[8, 12] = 0
    mask[30, 59] = 3  # hardly opaque, but there
    box, rle = one(root, region("brush", {"format": "rle", "rle": pack(mask)}))
    assert box.tolist() == [10, 5, 60, 31]
    assert (decode_mask(rle) == (mask > 0)).all()


def test_a_run_of_different_values():
    # Four pixels in a row, 16 values: 0 0 0 9 and 0 0 0 0 …, written as one literal run of 16 values of 4 bits.
    values = [0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 5, 5, 5, 0]
    bits = f"{16:032b}{3:05b}" + "0010" * 4 + "0" + "00" + "111"
    bits = bits.replace("0010" * 4, f"{3:04b}" * 4)[:-3] + f"{15:04b}" + "".join(f"{value:04b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]
    assert decode_brush(rle, 4, 1).tolist() == [[1, 0, 1, 0]]


class BitWriter:
    """Numbers of some bits, one behind the other, the highest bit first."""

    def __init__(self):
        self.number, self.n_bits = 0, 0

    def write(self, number, n_bits):
        assert 0 <= number < 1 << n_bits
        self.number, self.n_bits = self.number << n_bits | number, self.n_bits + n_bits

    def bytes(self):
        spare = -self.n_bits % 8
        return list((self.number << spare).to_bytes((self.n_bits + spare) // 8, "big"))


def rle_pack(rgba, lengths=(3, 4, 8, 16)):
    """(H, W, 4) uint8 → run lengths as thi.ng/rle-pack describes them, which Label Studio writes.

    Values of which none repeats its neighbour stand in one literal run together, others in runs of one value; both are
    cut at the longest length that the largest size holds.
    """
    values, out = rgba.ravel().tolist(), BitWriter()
    for number, n_bits in ((len(values), 32), (7, 5), *((length - 1, 4) for length in lengths)):
        out.write(number, n_bits)

    def head(is_run, count):
        size = min(number for number, length in enumerate(lengths) if count - 1 < 1 << length)
        for number, n_bits in ((is_run, 1), (size, 2), (count - 1, lengths[size])):
            out.write(number, n_bits)

    longest = 1 << lengths[-1]
    runs = [(value, len(list(group))) for value, group in itertools.groupby(values)]
    for is_single, group in itertools.groupby(runs, key=lambda run: run[1] == 1):
        if is_single:
            literals = [value for value, _ in group]
            for start in range(0, len(literals), longest):
                part = literals[start : start + longest]
                head(0, len(part))
                for value in part:
                    out.write(value, 8)
            continue
        for value, count in group:
            for start in range(0, count, longest):
                head(1, min(longest, count - start))
                out.write(value, 8)
    return out.bytes()


def test_a_brush_in_colour(root):
    # As a page paints it: colours differ from opacity, edges are half transparent, the rest is nothing at all.
    rgba = np.zeros((40, 60, 4), dtype=np.uint8)
    rgba[4:30, 7:50] = (255, 64, 3, 255)
    rgba[4:30, 7] = (255, 64, 3, 100)
    rgba[10:12, 20:25] = (12, 0, 200, 0)
    box, rle = one(root, region("brush", {"format": "rle", "rle": rle_pack(rgba)}))
    assert box.tolist() == [7, 4, 50, 30]
    assert (decode_mask(rle) == (rgba[..., 3] > 0)).all()


def test_runs_that_are_longer_than_any_size_holds():
    rgba = np.zeros((300, 400, 4), dtype=np.uint8)
    rgba[20:290] = 255
    assert (decode_brush(rle_pack(rgba), 400, 300) == (rgba[..., 3] > 0)).all()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**30), st.sampled_from([(3, 4, 8, 16), (1, 2, 3, 4)]))
def test_brushes_of_any_colours(width, height, seed, lengths):
    rgba = np.random.default_rng(seed).choice([0, 0, 9, 255], (height, width, 4)).astype(np.uint8)
    assert (decode_brush(rle_pack(rgba, lengths), width, height) == (rgba[..., 3] > 0)).all()


@pytest.mark.parametrize("rle", ["abc", [300], [], [0, 0, 0, 16], None, [255] * 40])
def test_brushes_that_are_none(rle):
    with pytest.raises(MaskError):
        decode_brush(rle, 4, 1)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**30))
def test_brushes_of_any_size(width, height, seed):
    alpha = np.random.default_rng(seed).choice([0, 0, 0, 7, 255], (height, width)).astype(np.uint8)
    assert (decode_brush(pack(alpha), width, height) == (alpha > 0)).all()


def test_labels_in_a_result_of_their_own(root):
    shape = {"x": 10, "y": 25, "width": 50, "height": 50, "rotation": 0}
    plain = region("rectangle", shape, None, type="rectangle")
    named = region("", {**shape, "labels": ["Mass", "Nodule"]}, None, type="labels")
    write(root, task(0, annotation(plain, named)))
    source = read_tree(root)
    assert [source.categories[label - 1]["name"] for label in source.boxes.labels.tolist()] == ["Mass", "Nodule"]


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/1/abcdef12-0.png",
        "/data/local-files/?d=radiographs/2026/0.png",
        "/data/local-files/?d=radiographs%2F0.png",
        "https://example.org/a/b/0.png?X-Amz-Signature=1",
        "s3://bucket/in/0.png",
        "gs://bucket/0.png",
        "0.png",
        "0",
    ],
)
def test_what_tasks_call_their_picture(root, image):
    write(root, task(7, annotation(BOX), image=image))
    source = read_tree(root)
    assert [image.file_name for image in source.images] == ["0.png"]


def test_an_uploaded_picture_may_keep_its_new_name(root):
    write_picture(root / "images" / "abcdef12-0.png", offset=9)
    write(root, task(7, annotation(BOX), image="/data/upload/1/abcdef12-0.png"))
    assert [image.file_name for image in read_tree(root).images] == ["images/abcdef12-0.png"]


def test_who_has_annotated_and_who_has_not(root):
    write(
        root,
        task(0, annotation(), predictions=[{"result": [BOX]}]),
        task(1),
        task(2, annotation(BOX, was_cancelled=True)),
        task(9, annotation(BOX)),
    )
    source = read_tree(root)
    assert [image.file_name for image in source.images] == ["0.png"]
    assert len(source.boxes) == 0
    account = [(drop.where, drop.reason) for drop in source.dropped]
    assert account.count(("1.png", labelstudio.NOT_ANNOTATED)) == 1
    assert ("2.png", labelstudio.NOT_ANNOTATED) in account
    assert ("3.png", NOT_IN_TREE) in account
    assert ("export.json task 9", reasons.MISSING_FILE) in account


def test_several_annotators_are_readers(root, tmp_path):
    other = region("rectangle", {"x": 12, "y": 25, "width": 50, "height": 50, "rotation": 0})
    jane = {"email": "jane@example.org", "first_name": "Jane"}
    write(root, task(0, annotation(BOX), annotation(other, by=jane), annotation(by=3)), task(1, annotation(BOX)))
    source = read_tree(root)
    assert source.readers == [("1",), ("annotator 1",), ()]
    assert source.images[0].readers == ("1", "annotator 1", "3")
    convert("tree", root, tmp_path / "data", image_size=32, n_folds=2)
    store = open_store(tmp_path / "data")
    assert sorted(store.readers[0]) == ["1", "annotator 1"]
    assert store.agreement[0] == pytest.approx(2 / 3)
    assert "jane" not in (tmp_path / "data" / "annotations.json").read_text().lower()


def test_the_last_annotation_of_a_person_and_the_truth_count(root):
    late = region("rectangle", {"x": 0, "y": 0, "width": 50, "height": 50, "rotation": 0})
    write(
        root,
        task(
            0,
            annotation(late, updated_at="2026-02-01T00:00:00Z"),
            annotation(BOX, updated_at="2026-01-01T00:00:00Z"),
        ),
        task(1, annotation(BOX), annotation(late, by=2, ground_truth=True)),
    )
    source = read_tree(root)
    assert source.boxes.boxes.tolist() == [[0, 0, 30, 20], [0, 0, 30, 20]]
    assert [drop.reason for drop in source.dropped][:2] == [labelstudio.OLDER, labelstudio.NOT_TRUTH]


def test_choices_are_labels_of_whole_pictures(root):
    write(
        root,
        task(0, annotation(BOX, choice("Cardiomegaly", "Nodule"))),
        task(1, annotation(choice("Normal"))),
        task(2, annotation(BOX, choice("No finding"))),
        task(3, annotation(choice("Yes", name="Edema"), choice("unsure", name="Cardiomegaly"))),
    )
    source = read_tree(root)
    names = [category["name"] for category in source.categories]
    assert names == ["Cardiomegaly", "Edema", "Nodule"]
    first, second, last = source.images
    assert (first.labels, first.unlocated) == ((1, 3), (1, 3))
    assert second.labels == ()
    assert (last.labels, last.unknown) == ((2,), (1,))
    assert [drop.reason for drop in source.dropped] == [CONTRADICTION]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (region("rectangle", {"x": 1, "y": 1, "width": 5, "height": 5}, image_rotation=90), "malformed entry"),
        (region("rectangle", {"x": 1, "y": 1, "width": "x", "height": 5}), "malformed entry"),
        (region("rectangle", {"x": 1, "y": 1, "width": 0, "height": 5}), reasons.EMPTY),
        (region("rectangle", {"x": 1, "y": 1, "width": 5, "height": 5}, None), reasons.UNKNOWN_CLASS),
        (region("polygon", {"points": [[1, 1], [2, 2]]}), "malformed entry"),
        (region("brush", {"rle": [1, 2, 3]}), "malformed run lengths"),
        (region("bitmask", {"imageDataURL": "data:"}), "malformed entry"),
    ],
)
def test_a_region_that_is_none_costs_its_radiograph(root, result, reason):
    write(root, task(0, annotation(result)), task(1, annotation()))
    source = read_tree(root)
    assert [image.file_name for image in source.images] == ["1.png"]
    assert [drop.reason for drop in source.dropped if drop.where.startswith("export.json")] == [reason]


def test_what_has_no_area_and_other_results_are_said(root):
    point = region("keypoint", {"x": 1, "y": 1, "width": 0.5})
    text = {"id": "t", "type": "textarea", "from_name": "report", "value": {"text": ["fine"]}}
    write(root, task(0, annotation(point, text, BOX | {"id": "r2"})))
    source = read_tree(root)
    assert len(source.boxes) == 1
    assert [warning.kind for warning in source.warnings] == [NO_AREA, labelstudio.OTHER_RESULTS]


def test_json_min(root):
    value = {"x": 10, "y": 25, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["Nodule"]}
    sides = {"original_width": 60, "original_height": 40}
    record = {"annotator": 1, "annotation_id": 5, "created_at": "2026", "updated_at": "2026", "lead_time": 1.5}
    records = [
        {"image": "/data/upload/1/abcdef12-0.png", "id": 1, "label": [value | sides], "whole": "Mass", **record},
        {"image": "/data/upload/1/abcdef12-1.png", "id": 2, "whole": {"choices": ["Edema", "Mass"]}, **record},
        {"image": "/data/upload/1/abcdef12-1.png", "id": 2, **record, "annotator": 2},
    ]
    write(root, *records)
    source = read_tree(root)
    assert [image.file_name for image in source.images] == ["0.png", "1.png"]
    assert source.boxes.boxes.tolist() == [[6, 10, 36, 30]]
    assert [category["name"] for category in source.categories] == ["Edema", "Mass", "Nodule"]
    assert source.images[1].labels == (1, 2)
    assert source.images[1].readers == ("1", "2")
    assert [(warning.kind, warning.detail) for warning in source.warnings] == [(labelstudio_tasks.TEXTS, "whole")]


@pytest.mark.parametrize("value", [None, {}, {"x": 10}, [], "10"])
def test_a_region_without_a_shape_is_not_nothing(root, value):
    write(root, task(0, annotation(BOX)), task(1, annotation(BOX | {"value": value})))
    source = read_tree(root)
    assert [image.file_name for image in source.images] == ["0.png"]
    assert "malformed entry" in [drop.reason for drop in source.dropped]


def test_a_text_of_json_min_that_is_all_that_is_said_may_be_a_finding(root):
    behind = {"annotator": 1, "annotation_id": 1, "created_at": "", "updated_at": "", "lead_time": 1.0}
    box = {"x": 10, "y": 25, "width": 50, "height": 50, "rectanglelabels": ["Nodule"]}
    tasks = [
        {"image": "0.png", "id": 1, "finding": "Pneumonia", **behind},
        {"image": "1.png", "id": 2, "label": [box], "comment": "large", **behind},
        {"image": "2.png", "hospital": "north", "id": 3, **behind},
    ]
    (root / "min.json").write_text(json.dumps(tasks))
    source = read_tree(root)
    assert [image.file_name for image in source.images] == ["1.png", "2.png"]
    assert ("min.json record 0", labelstudio_tasks.TEXTS) in [(drop.where, drop.reason) for drop in source.dropped]


TEXT = {"id": "t", "type": "textarea", "from_name": "report", "value": {"text": ["large effusion"]}}
TAXONOMY = {"id": "t", "type": "taxonomy", "from_name": "what", "value": {"taxonomy": [["Pleura", "Effusion"]]}}
RATING = {"id": "t", "type": "rating", "from_name": "quality", "value": {"rating": 3}}


@pytest.mark.parametrize(
    ("results", "is_kept"),
    [([TEXT], False), ([TEXT, BOX], True), ([TAXONOMY], False), ([TAXONOMY, BOX], False), ([RATING], True), ([], True)],
)
def test_a_picture_of_which_only_something_unread_is_said_is_not_normal(root, results, is_kept):
    write(root, task(0, annotation(*results)), task(1, annotation(BOX)))
    assert [image.file_name for image in read_tree(root).images] == [*(["0.png"] if is_kept else []), "1.png"]


def test_a_picture_with_a_point_or_a_line_is_not_normal(root):
    point = region("keypoint", {"x": 1, "y": 1, "width": 0.5}, "Mass")
    write(root, task(0, annotation(point)), task(1, annotation(BOX)))
    source = read_tree(root)
    mass = next(category["id"] for category in source.categories if category["name"] == "Mass")
    assert [(image.labels, image.unlocated) for image in source.images] == [((mass,), (mass,)), ((), ())]


def test_a_taxonomy_in_json_min_costs_its_picture(root):
    record = {"annotator": 1, "annotation_id": 5, "created_at": "2026", "updated_at": "2026", "lead_time": 1.5}
    box = {"x": 10, "y": 25, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["Nodule"]}
    records = [
        {"image": "/data/upload/1/abcdef12-0.png", "id": 1, "what": [["Pleura", "Effusion"]], **record},
        {"image": "/data/upload/1/abcdef12-1.png", "id": 2, "label": [box], **record},
    ]
    (root / "export.json").write_text(json.dumps(records))
    assert [image.file_name for image in read_tree(root).images] == ["1.png"]


def test_regions_of_another_picture_are_not_of_this_one(root):
    other = region("rectangle", {"x": 1, "y": 1, "width": 9, "height": 9, "rotation": 0}, to_name="second")
    page = region("rectangle", {"x": 1, "y": 1, "width": 9, "height": 9, "rotation": 0}, item_index=1)
    write(
        root,
        task(0, annotation(BOX, {**other, "id": "r2"})),
        task(1, annotation({**BOX, "item_index": 0}, {**page, "id": "r2"})),
        task(2, annotation(BOX)),
    )
    source = read_tree(root)
    assert [image.file_name for image in source.images] == ["2.png"]
    reasons_of = [drop.detail for drop in source.dropped if drop.reason == labelstudio.SEVERAL_PICTURES]
    assert reasons_of == ["image, second", "0, 1"]
