"""Anyone's COCO file: whatever its categories, ids, folders and faults."""

import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from source_cases import write_picture

from xray.commands.convert import show
from xray.datasets import sources
from xray.datasets.sources.coco import read_coco
from xray.datasets.sources.coco_images import NO_SPLIT
from xray.datasets.sources.normal_names import NORMAL_BOXES
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.structures.masks import decode_mask


def image(number, **changes):
    return {"id": number, "file_name": f"{number}.png", "width": 60, "height": 40} | changes


def box(number, image_id, bbox=(10, 10, 20, 20), category=7, **changes):
    return {"id": number, "image_id": image_id, "category_id": category, "bbox": list(bbox), **changes}


CATEGORIES = [{"id": 7, "name": "nodule"}, {"id": 0, "name": "tube", "supercategory": "device"}]


def write(folder, images, annotations, categories=CATEGORIES, name="annotations.json"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return folder


@pytest.fixture
def raw(tmp_path):
    """Four pictures of 60 x 40 under images/; boxes on 1 and 2."""
    for number in range(1, 5):
        write_picture(tmp_path / "raw" / "images" / f"{number}.png", offset=number)
    images = [image(number) for number in range(1, 5)]
    return write(tmp_path / "raw", images, [box(1, 1), box(2, 2, (0, 0, 60, 40), 0)])


def account(source):
    return [(drop.where, drop.reason) for drop in source.dropped]


def convert(raw, path, **flags):
    return sources.convert("coco", raw, path, **{"image_size": 32, "n_folds": 2, "n_workers": 0} | flags)


def test_categories_are_renumbered_in_the_order_of_their_ids(raw, tmp_path):
    convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert store.categories == {1: "tube", 2: "nodule"}
    assert store.boxes.labels.tolist() == [2, 1]
    assert store.boxes.boxes.tolist() == [[10, 10, 30, 30], [0, 0, 60, 40]]
    categories = json.loads((tmp_path / "data" / "annotations.json").read_text())["categories"]
    assert categories == [
        {"id": 1, "name": "tube", "source_category_id": 0},
        {"id": 2, "name": "nodule", "source_category_id": 7},
    ]
    assert store.source_category_ids == {1: 0, 2: 7}
    assert [record["coco_id"] for record in store.records] == [1, 2, 3, 4]


def test_names_of_categories_stay_as_they_are_spelt(raw):
    write(raw, [image(1)], [box(1, 1)], [{"id": 7, "name": "left lung "}, {"id": 8, "name": 12.0}])
    assert [category["name"] for category in read_coco(raw).categories] == ["left lung ", "12"]


def test_what_is_known_of_an_image_is_kept_but_nothing_that_might_name_somebody(raw, tmp_path):
    known = {"patient": 17, "view": "PA", "sex": "F", "age": 61, "manufacturer": "X"}
    images = [image(1, **known, patient_name="Jane", url="https://x"), image(2, patient="b"), image(3), image(4)]
    write(raw, images, [box(1, 1, readers=["R1", "R2"])])
    convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    # Of an age the decade is enough to compare groups.
    assert {key: store.records[0][key] for key in known} == known | {"patient": "17", "age": "60-69"}
    assert not {"patient_name", "url"} & store.records[0].keys()
    assert store.readers == [["R1", "R2"]]


def test_a_patients_images_share_a_fold(raw, tmp_path):
    for number in range(5, 21):
        write_picture(raw / "images" / f"{number}.png")
    images = [image(number, patient=number % 5) for number in range(1, 21)]
    write(raw, images, [box(number, number) for number in range(1, 9)])
    convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    folds = {(record["patient"], record["fold"]) for record in store.records}
    assert len(folds) == 5


def test_polygons_and_run_lengths_become_run_lengths(raw, tmp_path):
    polygon = [[10, 10, 30, 10, 30, 30, 10, 30]]
    runs = {"size": [40, 60], "counts": [0, 400, 2000]}
    annotations = [
        box(1, 1, segmentation=polygon),
        box(2, 2, (0, 0, 10, 40), segmentation=runs),
        box(3, 3, segmentation=[[1, 2, 3]]),
        {"id": 4, "image_id": 4, "category_id": 7, "segmentation": polygon},
    ]
    write(raw, [image(number) for number in range(1, 5)], annotations)
    result = convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert sorted(store.masks) == [0, 1, 3]
    expected = np.zeros((40, 60), dtype=np.uint8)
    expected[10:30, 10:30] = 1
    np.testing.assert_array_equal(decode_mask(store.masks[0]), expected)
    assert decode_mask(store.masks[1])[:, :10].all()
    # The fourth had no bbox: it is the mask's.
    assert store.boxes.boxes[3].tolist() == [10, 10, 30, 30]
    assert result["dropped"]["counts"] == {"unusable mask": 1}
    coco = COCO(str(tmp_path / "data" / "annotations.json"))
    np.testing.assert_array_equal(coco.annToMask(coco.anns[1]), expected)
    assert coco.anns[1]["area"] == 400


def test_boxes_with_masks_are_not_fused(raw, tmp_path):
    boxes = [
        box(
            number, 1, readers=[f"R{number}"], segmentation=[[10, 10, 30, 10, 30, 10 + 5 * number, 10, 10 + 5 * number]]
        )
        for number in (1, 2)
    ]
    plain = [box(number, 1, (40, 10, 9 + number, 20), readers=[f"R{number}"]) for number in (1, 2)]
    write(raw, [image(number) for number in range(1, 5)], boxes + plain)
    convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert sorted(store.readers) == [["R1"], ["R1", "R2"], ["R2"]]
    areas = {store.readers[row][0]: int(decode_mask(mask).sum()) for row, mask in store.masks.items()}
    assert areas == {"R1": 100, "R2": 200}


def test_masks_and_boxes_stay_in_the_files_own_units(raw, tmp_path):
    # The table speaks of radiographs ten times as large as the pictures.
    images = [image(number, width=600, height=400) for number in range(1, 5)]
    write(raw, images, [box(1, 1, (100, 100, 200, 200), segmentation=[[100, 100, 300, 100, 300, 300, 100, 300]])])
    convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert store.masks[0]["size"] == [400, 600]
    assert store.boxes.boxes.tolist() == [[100, 100, 300, 300]]
    write(raw, [image(number, height=60 if number == 3 else 40) for number in range(1, 5)], [])
    result = convert(raw, tmp_path / "data", overwrite=True)
    assert result["dropped"]["counts"] == {"file and table disagree on the size": 1}


def test_images_of_unknown_size_take_that_of_their_file(raw, tmp_path):
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(1, 5)]
    write(raw, images, [box(1, 1, (50, 30, 20, 20), segmentation=[[50, 30, 60, 30, 60, 40, 50, 40]])])
    convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert (store.records[0]["width"], store.records[0]["height"]) == (60, 40)
    assert store.boxes.boxes.tolist() == [[50, 30, 60, 40]]
    assert decode_mask(store.masks[0]).sum() == 100


def test_files_may_stand_in_folders_and_share_names(raw):
    for name in ("images/x/1.png", "images/y/1.png", "z/only.png"):
        write_picture(raw / name)
    names = ["x/1.png", "y\\1.png", "z/only.png", "./2.png"]
    write(raw, [image(number, file_name=name) for number, name in enumerate(names)], [])
    source = read_coco(raw)
    assert [found.file_name for found in source.images] == [
        "images/x/1.png", "images/y/1.png", "z/only.png", "images/2.png",
    ]  # fmt: skip
    assert [found.source_id for found in source.images] == ["images/x/1", "images/y/1", "only", "2"]


def test_files_that_differ_in_their_suffix_alone_are_two_radiographs(raw):
    write_picture(raw / "images" / "1.jpg")
    write(raw, [image(1), image(2, file_name="1.jpg")], [box(1, 1), box(2, 2, category=0)])
    source = read_coco(raw)
    assert [found.source_id for found in source.images] == ["images/1.png", "images/1.jpg"]
    assert source.boxes.labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "x/../../secret.png", "..", "C:\\x.png", "..\\secret.png"]
)
def test_no_file_outside_is_opened(raw, name):
    write_picture(raw.parent / "secret.png")
    write(raw, [image(1), image(2, file_name=name)], [box(1, 2)])
    source = read_coco(raw)
    is_absolute = name[0] == "/" or ":" in name
    reason = ("annotations.json image 1", "file name leads out of the data path")
    # A path of another machine is looked for by its end, and is missing.
    assert account(source) == [(name.replace("\\", "/"), "missing file") if is_absolute else reason]
    assert len(source.images) == 1


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("a\x00.png", "it holds a control character: 'a\\x00.png'"),
        ("a\nb.png", "it holds a control character"),
        ("x" * 300 + ".png", "it is too long"),
    ],
)
def test_a_name_that_no_file_can_have_is_told_as_such(raw, name, fault):
    write(raw, [image(1), image(2, file_name=name)], [box(1, 2)])
    source = read_coco(raw)
    assert account(source) == [("annotations.json image 1", "name that is no path inside the data path")]
    assert source.dropped[0].detail.startswith(fault)


def test_a_category_that_nothing_can_hold_is_refused(raw, tmp_path):
    write(raw, [image(1)], [box(1, 1)], [{"id": 1, "name": "Nod\x07ule"}])
    with pytest.raises(InputError, match=r"category named 'Nod\\x07ule', with a control character .* rename it there"):
        sources.convert("coco", raw, tmp_path / "data", n_workers=0)
    assert not (tmp_path / "data").exists()


def test_names_of_findings_are_printed_as_they_are(raw, tmp_path, capsys):
    """Not as Rich's markup, of which "[/x]" is an error and "[small]" nothing."""
    names = ["Nodule [small]", "Mass [/x]"]
    write(
        raw,
        [image(number) for number in range(1, 5)],
        [box(1, 1, category_id=1), box(2, 1, category_id=2)],
        [{"id": n, "name": name} for n, name in enumerate(names, 1)],
    )
    conversion = sources.convert("coco", raw, tmp_path / "data", n_folds=2, n_workers=0)
    show(conversion, tmp_path / "data")
    said = capsys.readouterr().out
    assert [line.split("  ")[1] for line in said.splitlines() if "[" in line] == names
    assert said.startswith("radiographs")


LOST = "radiograph with an annotation that could not be used"
POLYGON = [[10, 10, 30, 10, 30, 30, 10, 30]]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (box(9, 1, (10, 10, 0, 5)), "empty box"),
        (box(9, 1, (10, 10, -5, 5)), "inverted box"),
        (box(9, 1, (10, 10, 5)), "coordinates not numbers"),
        (box(9, 1, ("a", 10, 5, 5)), "coordinates not numbers"),
        (box(9, 1, (10, 10, 5, None)), "coordinates not numbers"),
        (box(9, 1, (10, 10, 5, float("nan"))), "coordinates not numbers"),
        (box(9, 1, ()), "coordinates not numbers"),
        (box(9, 1, (), segmentation=[[1, 2, 3, 4]]), "unusable mask"),
        (box(9, 1, (), segmentation={"size": [40, 60], "counts": [2400]}), "empty box"),
        (box(9, 1, (), segmentation={"size": [4, 6], "counts": [0, 24]}), "mask and image differ in size"),
        (box(9, 1, (), segmentation={"size": [40, 60], "counts": [0, 7]}), "malformed run lengths"),
        (box(9, 1, category=8), "unknown category"),
        (box(9, 1, category="x"), "unknown category"),
        (box(9, 1, category=7.5), "unknown category"),
        (box(9, 1, category=None), "unknown category"),
        (box(9, 1, iscrowd=1), "crowd region"),
        (box(9, 1, iscrowd=1, segmentation=POLYGON), "crowd region"),
        (box(9, 1, iscrowd="perhaps"), "malformed entry"),
    ],
)
def test_a_faulty_annotation_costs_its_radiograph(raw, annotation, reason):
    write(raw, [image(number) for number in range(1, 5)], [box(1, 1), box(2, 2), annotation])
    source = read_coco(raw)
    # With the other box alone the radiograph would teach that there is nothing else in it.
    assert account(source) == [("annotations.json annotation 2", reason), ("images/1.png", LOST)]
    assert [found.source_id for found in source.images] == ["2", "3", "4"]
    assert source.boxes.images.tolist() == [0]
    write(raw, [image(number) for number in range(1, 5)], [annotation])
    assert account(read_coco(raw)) == [
        ("annotations.json annotation 0", reason),
        ("images/1.png", "image without a usable box"),
    ]


def test_an_annotation_that_stands_there_twice_costs_nothing(raw):
    write(raw, [image(number) for number in range(1, 5)], [box(1, 1), box(9, 1.0, category="7")])
    source = read_coco(raw)
    assert account(source) == [("annotations.json annotation 1", "duplicate row")]
    assert len(source.images) == 4
    assert len(source.boxes) == 1


@pytest.mark.parametrize(
    ("annotation", "reason", "said"),
    [
        (box(9, 99), "annotation of an unknown image", "image_id 99"),
        (box(9, "r1"), "annotation of an unknown image", "image_id 'r1'"),
        (box(9, 1.5), "annotation of an unknown image", "image_id '1.5'"),
    ],
)
def test_an_annotation_that_could_be_any_radiographs(raw, annotation, reason, said):
    images = [image(number) for number in range(1, 5)]
    write(raw, images, [box(1, 1), annotation])
    with pytest.raises(
        InputError, match=rf"annotation 1, {said}\), so its 3 radiographs .* may not be normal.*unplaced"
    ):
        read_coco(raw)
    source = read_coco(raw, unplaced="ignore")
    assert account(source) == [("annotations.json annotation 1", reason)]
    assert len(source.images) == 4
    # Where every radiograph has its own, none could pass for normal.
    write(raw, images, [*(box(number, number) for number in range(1, 5)), annotation])
    assert account(read_coco(raw)) == [("annotations.json annotation 4", reason)]


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (box(9, None), "without an image_id"),
        (box(9, [1]), r"image_id \[1\]"),
        (box(9, True), "image_id True"),
        ("box", "it is 'box'"),
    ],
)
def test_an_annotation_of_no_image_stops_the_conversion(raw, annotation, said):
    """It may be of a radiograph that has others, which would then be learned without it."""
    write(raw, [image(number) for number in range(1, 5)], [*(box(n, n) for n in range(1, 5)), annotation])
    with pytest.raises(InputError, match=rf"annotation 4 belongs to no image \({said}\).*--unplaced ignore"):
        read_coco(raw)
    source = read_coco(raw, unplaced="ignore")
    assert account(source) == [("annotations.json annotation 4", "malformed entry")]
    assert len(source.images) == 4


def test_no_finding_is_no_category(raw):
    """VinBigData as COCO: a category for radiographs without findings, whose box is [0, 0, 1, 1]."""
    categories = [{"id": 0, "name": "Nodule/Mass"}, {"id": 14, "name": "No finding"}, {"id": 15, "name": "Other"}]
    normal = {"id": 2, "image_id": 2, "category_id": 14, "bbox": [0, 0, 1, 1]}
    write(raw, [image(1), image(2)], [box(1, 1, category=0), normal, box(3, 1, category=15)], categories)
    source = read_coco(raw)
    assert [(c["id"], c["name"], c["source_category_id"]) for c in source.categories] == [
        (1, "Nodule/Mass", 0), (2, "Other", 15),
    ]  # fmt: skip
    assert (source.boxes.images.tolist(), source.boxes.labels.tolist(), source.dropped) == ([0, 0], [1, 2], [])
    assert [image.normal for image in source.images] == [False, True]
    # With boxes of its own, too; it is a category where the user says so.
    write(raw, [image(1), image(2)], [box(1, 1, category=0), box(2, 2, category=14)], categories)
    source = read_coco(raw)
    assert [c["source_category_id"] for c in source.categories] == [0, 15]
    assert [(warning.kind, warning.where) for warning in source.warnings] == [
        (NORMAL_BOXES, "annotations.json annotation 1")
    ]
    assert [c["source_category_id"] for c in read_coco(raw, normal=[""]).categories] == [0, 14, 15]


def test_shares_of_the_sides_are_refused(raw):
    write(raw, [image(1), image(2)], [box(1, 1, bbox=[0.1, 0.2, 0.3, 0.5]), box(2, 2, bbox=[0, 0, 0.5, 0.5])])
    with pytest.raises(InputError, match=r"all boxes of .* lie between 0 and 1.*in pixels"):
        read_coco(raw)


MASK, OTHER = [[1, 1, 9, 1, 9, 9]], [[1, 1, 9, 9, 1, 9]]


@pytest.mark.parametrize("masks", itertools.permutations([None, MASK, OTHER]), ids=str)
def test_boxes_that_differ_in_their_masks_alone(raw, masks):
    """In any order the same two objects: the one without a mask only repeats another."""
    same = [box(n, 1, bbox=[1, 1, 8, 8], **({"segmentation": mask} if mask else {})) for n, mask in enumerate(masks)]
    write(raw, [image(1), image(2)], [*same, box(9, 2)])
    source = read_coco(raw)
    assert [source.masks.get(row) for row in range(3)] == [MASK, OTHER, None]
    assert [reason for _, reason in account(source)] == ["duplicate row"]


def test_no_box_is_taken_from_what_is_no_mask(raw):
    far = {"id": 1, "image_id": 1, "category_id": 7, "segmentation": [[0, 0, 1e7, 0, 1e7, 1e7]]}
    write(raw, [image(1), image(2), image(3)], [far, box(2, 2), box(3, 3)])
    source = read_coco(raw)
    assert [found.file_name for found in source.images] == ["images/2.png", "images/3.png"]


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("train/_annotations.coco.json", "train"), ("annotations/instances_default.json", "images/default"),
        ("annotations.json", "."), ("annotations.json", "images"),
    ],
)  # fmt: skip
def test_where_tools_put_the_pictures(tmp_path, file, folder):
    """Roboflow beside the file, CVAT in a folder called after it."""
    for number in (1, 2):
        write_picture(tmp_path / folder / f"{number}.png", offset=number)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    write(tmp_path, [image(1), image(2)], [box(1, 1), box(2, 2)])
    if file != "annotations.json":
        (tmp_path / "annotations.json").rename(tmp_path / file)
    source = read_coco(tmp_path, annotations=file)
    assert [found.path for found in source.images] == [tmp_path / folder / f"{number}.png" for number in (1, 2)]


def test_the_name_as_it_stands_comes_first(raw):
    """a.png and images/a.png are two radiographs."""
    write_picture(raw / "1.png", offset=7)
    write(raw, [image(1), image(2, file_name="images/1.png")], [box(1, 1), box(2, 2)])
    assert [found.file_name for found in read_coco(raw).images] == ["1.png", "images/1.png"]


def test_a_faulty_image_is_left_out_with_its_boxes(raw, tmp_path):
    images = [
        image(1),
        image(5),
        {"id": 6},
        "image",
        image(7, file_name="9.png"),
        image(3),
        image(2, width="x"),
        image(4, patient=["a"]),
    ]
    write(raw, images, [box(1, 1), box(2, 5), box(3, 7), box(5, 6), box(6, 2), box(4, 3, (10, 10, 0, 0))])
    source = read_coco(raw)
    assert account(source) == [
        ("5.png", "missing file"),
        ("annotations.json image 2", "malformed entry"),
        ("annotations.json image 3", "malformed entry"),
        ("9.png", "missing file"),
        ("images/2.png", "malformed entry"),
        ("images/4.png", "malformed entry"),
        ("annotations.json annotation 5", "empty box"),
        # All that was known of it is gone: it must not pass for normal.
        ("images/3.png", "image without a usable box"),
    ]
    details = [drop.detail for drop in source.dropped if drop.where in ("images/2.png", "images/4.png")]
    assert details == ["its width: 'x' is no whole number", "its patient, ['a'], is neither number nor text"]
    assert [found.source_id for found in source.images] == ["1"]
    assert source.boxes.images.tolist() == [0]


def test_one_id_for_two_files_is_refused(raw):
    write(raw, [image(1), image(2), image("1.0", file_name="3.png")], [box(1, 1), box(2, 2)])
    with pytest.raises(InputError, match=r"gives the id 1 to two files, 1\.png and 3\.png \(image 2\)"):
        read_coco(raw)


def test_two_ids_of_one_file_are_joined(raw, tmp_path):
    images = [*(image(number) for number in range(1, 5)), image(100, file_name="./images/1.png")]
    write(raw, images, [box(1, 100), box(2, 1, (0, 0, 5, 5)), box(3, 1)])
    source = read_coco(raw)
    assert [found.source_id for found in source.images] == ["1", "2", "3", "4"]
    assert source.boxes.images.tolist() == [0, 0]
    assert source.images[0].extra == {"coco_id": 1, "coco_ids": [1, 100]}
    assert [(warning.where, warning.detail) for warning in source.warnings] == [("images/1.png", "1, 100")]
    # An entry twice, id and all, is one.
    write(raw, [image(1), image(1), image(2)], [box(1, 1)])
    assert account(read_coco(raw)) == [("annotations.json image 1", "repeated image")]
    # In two sizes the boxes of one file would be in two units.
    write(raw, [image(1), image(2), image(3, file_name="1.png", width=600, height=400)], [box(1, 1)])
    source = read_coco(raw)
    assert [found.source_id for found in source.images] == ["2"]
    assert account(source) == [("images/1.png", "one file with two sizes")]


@pytest.mark.parametrize("other", ["nodule", "Nodule ", "NODULE"])
def test_two_categories_of_one_name_are_refused(raw, other):
    write(raw, [image(1)], [], [{"id": 3, "name": "nodule"}, {"id": 0, "name": other}])
    with pytest.raises(InputError, match=r"two categories named .* \(ids 3 and 0\)"):
        read_coco(raw)


W, H = 60, 40
SQUARE = np.zeros((H, W), dtype=np.uint8)
SQUARE[10:30, 10:30] = 1
COUNTS = [410, *[20, 20] * 19, 20, 0]
# Down the columns: 10 columns and 10 pixels before the first of 20 runs of 20, 20 apart; the rest behind.
COUNTS[-1] = W * H - sum(COUNTS[:-1])
TEXT = coco_mask.encode(np.asfortranarray(SQUARE))["counts"].decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"segmentation": POLYGON, "bbox": None},
        {"segmentation": POLYGON, "bbox": [0, 0, 0, 0]},
        {"segmentation": POLYGON, "bbox": [float("nan")] * 4},
        {"segmentation": POLYGON[0]},
        {"segmentation": [[10, 10], [30, 10], [30, 30], [10, 30]]},
        {"segmentation": [[[10, 10], [30, 10], [30, 30], [10, 30]]]},
        {"segmentation": [[str(number) for number in POLYGON[0]]]},
        {"segmentation": [*POLYGON, [15, 15, 16, 16], []]},
        {"segmentation": {"size": [H, W], "counts": TEXT}, "bbox": None},
        {"segmentation": {"size": [H, W], "counts": COUNTS}, "bbox": None},
        {"segmentation": {"size": [float(H), str(W)], "counts": [float(run) for run in COUNTS]}, "bbox": [0, 0, 0, 0]},
        {"segmentation": {"size": [W, H], "counts": COUNTS}},
        {"segmentation": {"size": [H, W], "counts": COUNTS}, "iscrowd": 1},
        {"segmentation": {"size": [H, W], "counts": TEXT}, "iscrowd": "1", "bbox": None},
        {"segmentation": POLYGON, "iscrowd": "0"},
        {"segmentation": POLYGON, "iscrowd": 0.0},
        {"segmentation": POLYGON, "iscrowd": None},
        {"segmentation": POLYGON, "iscrowd": "False"},
        {"segmentation": SQUARE.tolist()},
        {"segmentation": SQUARE.astype(bool).tolist(), "bbox": None},
    ],
)
def test_a_mask_in_any_form_is_the_same_mask(raw, tmp_path, changes):
    annotation = {key: value for key, value in (box(1, 1) | changes).items() if value is not None or key == "iscrowd"}
    write(raw, [image(number) for number in range(1, 5)], [annotation])
    result = convert(raw, tmp_path / "data")
    assert result["dropped"]["counts"] == {}
    store = open_store(tmp_path / "data")
    assert store.boxes.boxes.tolist() == [[10, 10, 30, 30]]
    np.testing.assert_array_equal(decode_mask(store.masks[0]), SQUARE)


@pytest.mark.parametrize("segmentation", [None, [], [[]], {}, "", float("nan")])
def test_no_mask_in_any_form(raw, segmentation):
    write(raw, [image(1)], [box(1, 1, segmentation=segmentation)])
    source = read_coco(raw)
    assert (len(source.boxes), source.masks, source.dropped) == (1, {}, [])


def test_a_mask_that_is_none_costs_the_mask_where_there_is_a_box(raw, tmp_path):
    write(raw, [image(number) for number in range(1, 5)], [box(1, 1, segmentation=[[1, 2, 3]])])
    result = convert(raw, tmp_path / "data")
    assert result["dropped"]["rows"] == [
        {
            "where": "annotations.json annotation 0",
            "reason": "unusable mask",
            "action": "mask left out, box kept",
            "detail": "a polygon's coordinates are not pairs of finite numbers",
        }
    ]
    assert len(open_store(tmp_path / "data").boxes) == 1


BRUSH = {"segmentation": {"size": [H, W], "counts": COUNTS}, "iscrowd": 1}


def test_run_lengths_with_iscrowd_are_one_object_unless_the_file_has_crowds(raw):
    images = [image(number) for number in range(1, 5)]
    write(raw, images, [box(1, 1, **BRUSH), box(2, 1, (40, 0, 9, 9)), box(3, 2)])
    source = read_coco(raw)
    assert len(source.boxes) == 3
    assert sorted(source.masks) == [0]
    assert [warning.where for warning in source.warnings] == ["annotations.json annotation 0"]
    assert "iscrowd 1 taken as one object" in source.warnings[0].kind
    # No tool writes a single object as a box with iscrowd 1, so that these are crowds, as in the COCO set.
    write(raw, images, [box(1, 1, **BRUSH), box(2, 3, iscrowd=1), box(3, 2)])
    assert [found.source_id for found in read_coco(raw).images] == ["2", "4"]
    assert [found.source_id for found in read_coco(raw, crowds="keep").images] == ["1", "2", "4"]
    write(raw, images, [box(1, 1, **BRUSH), box(3, 2)])
    assert [found.source_id for found in read_coco(raw, crowds="ignore").images] == ["2", "3", "4"]
    write(raw, images, [box(1, 1, **BRUSH), box(3, 2)], [{"id": 7, "name": "Group of nodules"}])
    assert [found.source_id for found in read_coco(raw).images] == ["2", "3", "4"]


def test_boxes_follow_their_image_when_an_earlier_one_is_left_out(raw, tmp_path):
    write(raw, [image(number) for number in range(1, 5)], [box(1, 2, (0, 0, 0, 0)), box(2, 3, (1, 2, 3, 4))])
    convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert [store.records[row]["source_id"] for row in store.boxes.images] == ["3"]


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 70), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
annotation = st.fixed_dictionaries(
    {},
    optional={
        "image_id": st.one_of(st.integers(0, 5), json_values),
        "category_id": st.one_of(st.sampled_from([0, 7, 8]), json_values),
        "bbox": st.one_of(st.lists(st.integers(-20, 80), min_size=4, max_size=4), json_values),
        "segmentation": json_values,
        "iscrowd": json_values,
        "readers": json_values,
    },
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(annotations=st.lists(st.one_of(annotation, json_values), max_size=6), extra=json_values)
def test_whatever_the_entries_the_rest_is_converted(raw, tmp_path, annotations, extra):
    # Not-a-number passes Python's JSON reader, and nobody else's. Nothing is placed by chance: see above for strays.
    fields = {"age": float("nan"), "patient": extra, "view": extra, "width": extra, "readers": extra}
    write(raw, [image(1), image(2), image(3), {**image(4), **fields}, extra], annotations)
    try:
        convert(raw, tmp_path / "data", overwrite=True, unplaced="ignore")
    except InputError as error:
        # An entry may give one id to two files, and one that costs all four radiographs leaves nothing to convert.
        known = "two files|no radiograph of the source|cannot fill|of one patient|only one radiograph|none of the"
        assert re.search(known, str(error))  # noqa: PT017
        return
    store = open_store(tmp_path / "data")
    assert len(store) >= 1
    assert not any("age" in record for record in store.records)
    assert ((store.boxes.boxes >= 0) & (store.boxes.boxes[:, [2, 3, 2, 3]] >= store.boxes.boxes)).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a COCO file"),
        ('{"images": [], "annotations": []}', "is not a COCO file"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "category without id or name"),
        ('{"images": [], "annotations": [], "categories": []}', "0 categories"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1.5, "name": "a"}]}', "1.5 is no whole number"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": ""}]}', "category without id or name"),
        ('{"images": [], "annotations": [], "categories": ["a"]}', "category without id or name"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "two categories with the id 1",
        ),
    ],
)
def test_files_that_are_not_coco(raw, content, message):
    (raw / "annotations.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_coco(raw)


def test_which_file_is_read(raw, tmp_path):
    with pytest.raises(InputError, match="no data at"):
        read_coco(tmp_path / "none")
    with pytest.raises(InputError, match=r"there is no other\.json"):
        read_coco(raw, "other.json")
    write(raw, [image(1)], [], name="annotations/instances_val.json")
    assert len(read_coco(raw).images) == 4
    assert len(read_coco(raw, "annotations/instances_val.json").images) == 1
    (raw / "annotations.json").unlink()
    assert len(read_coco(raw).images) == 1
    write(raw, [image(1)], [], name="annotations/instances_train.json")
    with pytest.raises(InputError, match=r"several JSON files \(annotations/instances_train\.json, .*--annotations"):
        read_coco(raw)
    for file in (raw / "annotations").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="holds no COCO file"):
        read_coco(raw)


def test_real_radiographs(shared_data, tmp_path):
    result = convert(shared_data / "chest-open", tmp_path / "data", image_size=64, n_folds=5, n_workers=2)
    assert result["dropped"] == {"counts": {}, "rows": []}
    store = open_store(tmp_path / "data")
    truth = json.loads((shared_data / "chest-open" / "annotations.json").read_text())
    assert len(store) == len(truth["images"]) == 113
    assert store.categories == {1: "Right Lung", 2: "Left Lung"}
    patients = {(record["patient"], record["fold"]) for record in store.records}
    assert len(patients) == len({entry["patient"] for entry in truth["images"]}) == 63
    assert np.ptp(np.bincount(store.folds)) <= 1
    boxes = np.array([row["bbox"] for row in truth["annotations"]])
    found = np.column_stack([store.boxes.boxes[:, :2], store.boxes.boxes[:, 2:] - store.boxes.boxes[:, :2]])
    np.testing.assert_allclose(found, boxes, atol=0.02)
    assert len(store.masks) == sum(bool(row.get("segmentation")) for row in truth["annotations"])
    coco = COCO(str(shared_data / "chest-open" / "annotations.json"))
    for row in list(store.masks)[::50]:
        np.testing.assert_array_equal(decode_mask(store.masks[row]), coco.annToMask(truth["annotations"][row]))


@pytest.mark.parametrize("key", ["patient", "patient_id", "PatientID", "Subject ID"])
def test_patients_under_any_key(raw, key):
    write(raw, [image(1, **{key: 7}), image(2, **{key: "7.0"}), image(3), image(4, **{key: ""})], [box(1, 1)])
    assert [found.patient for found in read_coco(raw).images] == ["7", "7", None, None]


def test_two_corners_are_refused(raw):
    images = [image(number) for number in range(1, 5)]
    write(raw, images, [box(1, 1, (20, 10, 50, 30)), box(2, 2, (30, 20, 55, 38)), box(3, 3, (1, 1, 5, 5))])
    with pytest.raises(InputError, match=r"2 of 3 boxes of .* pass the edges .* and none if they were two corners"):
        read_coco(raw)
    # Boxes that pass the edges however they are read are cut there, as before.
    write(raw, images, [box(1, 1, (20, 10, 50, 50)), box(2, 2, (30, 20, 15, 38))])
    assert len(read_coco(raw).boxes) == 2


def test_boxes_that_cvat_has_turned(raw):
    turned = {"attributes": {"rotation": 90.0, "occluded": False}}
    write(raw, [image(1), image(2)], [box(1, 1, (20, 10, 4, 16), **turned), box(2, 2, attributes={"rotation": 0.0})])
    source = read_coco(raw)
    # Centre (22, 18); 4 x 16 becomes 16 x 4.
    assert source.boxes.boxes.tolist() == [[14, 16, 30, 20], [10, 10, 30, 30]]
    assert list(source.masks) == [0]
    write(raw, [image(1), image(2)], [box(1, 1, attributes={"rotation": "x"}), box(2, 2)])
    assert [name.file_name for name in read_coco(raw).images] == ["images/2.png"]


def test_one_file_in_two_splits_is_left_out(raw):
    images = [image(1, split="train"), image(2, split="nowhere"), image(9, file_name="1.png", split="test")]
    write(raw, images, [box(1, 1), box(2, 2)])
    source = read_coco(raw)
    assert [(one.file_name, one.split) for one in source.images] == [("images/2.png", "train")]
    assert [warning.kind for warning in source.warnings] == [NO_SPLIT]
