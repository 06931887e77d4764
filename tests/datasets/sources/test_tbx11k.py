"""TBX11K: boxes of 512 pixels beside others, sick ones that are not normal, splits and the simplified edition."""

import json

import pytest
from source_cases import told, why, write_picture

from xray.datasets import source as reasons
from xray.datasets.conversion import write_store
from xray.datasets.source import CONTRADICTORY
from xray.datasets.sources.set_tables import FAR_BEYOND, UNKNOWN_FINDING
from xray.datasets.sources.tbx11k import (
    ACTIVE,
    BOX_ON_NORMAL,
    CATEGORIES,
    NO_SIZE,
    OBSOLETE,
    OTHER_SET,
    SICK,
    read_tbx11k,
)
from xray.datasets.sources.trees.parts import UNREADABLE_XML
from xray.errors import InputError

NAMES = ("ActiveTuberculosis", "ObsoletePulmonaryTuberculosis", "PulmonaryTuberculosis")
FILES = ("tb/tb0001.png", "tb/tb1199.png", "sick/s0001.png", "health/h0001.png", "health/h0002.png",
         "test/test_000001.png", "extra/da+db/train/p(1).png")  # fmt: skip


def coco(images, annotations=()):
    """images: file names, numbered from 1; annotations: (image id, category id, bbox)."""
    return {
        "images": [{"id": k, "file_name": name, "width": 512, "height": 512} for k, name in enumerate(images, 1)],
        "annotations": [
            {"id": k, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0}
            for k, (image, category, box) in enumerate(annotations, 1)
        ],
        "categories": [{"id": k, "name": name, "supercategory": "TB"} for k, name in enumerate(NAMES, 1)],
    }


TRAIN = coco(FILES[:4], [(1, 1, [100.5, 50, 200, 100]), (1, 2, [300, 400, 20, 30])])
VAL, TEST = coco(FILES[4:5]), coco(FILES[5:])


@pytest.fixture
def write(tmp_path):
    """(TBX11K_train=…, …) → the set's folder with pictures of `sides` pixels."""

    def make(side=64, **files):
        for number, name in enumerate(FILES):
            write_picture(tmp_path / "TBX11K" / "imgs" / name, side, side, offset=number)
        folder = tmp_path / "TBX11K" / "annotations" / "json"
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path

    return make


def test_boxes_splits_and_kinds_are_what_files_and_folders_say(write):
    source = read_tbx11k(write(TBX11K_train=TRAIN, TBX11K_val=VAL, all_test=TEST))
    of = told(source)
    assert [category["name"] for category in source.categories] == [ACTIVE, OBSOLETE, SICK]
    # x, y, width, height: 100.5 + 200, 50 + 100, 300 + 20, 400 + 30.
    assert of["tb0001"] == {
        "split": "train", "patient": None, "size": (512, 512), "labels": [], "unknown": [], "unlocated": [],
        "boxes": [(ACTIVE, 100.5, 50, 300.5, 150), (OBSOLETE, 300, 400, 320, 430)],
    }  # fmt: skip
    assert of["tb1199"]["unknown"] == [ACTIVE, OBSOLETE]  # tuberculosis, nobody says which
    assert (of["s0001"]["labels"], of["s0001"]["unlocated"]) == ([SICK], [SICK])
    assert (of["h0001"]["labels"], of["h0001"]["unknown"]) == ([], [])
    assert {name: image["split"] for name, image in of.items()} == {
        "tb0001": "train", "tb1199": "train", "s0001": "train", "h0001": "train", "h0002": "val", "test_000001": "test"
    }  # fmt: skip
    assert of["test_000001"]["unknown"] == list(CATEGORIES)
    assert why(source) == [("TBX11K/imgs/extra/da+db/train/p(1).png", OTHER_SET)]


def test_larger_pictures_keep_the_boxes_of_512(write, tmp_path):
    root = write(side=768, TBX11K_train=TRAIN, TBX11K_val=VAL)
    write_store(read_tbx11k(root), tmp_path / "out", image_size=64, n_folds=2)
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert content["annotations"][0]["bbox"] == [100.5, 50, 200, 100]
    assert {(image["width"], image["height"]) for image in content["images"]} == {(512, 512)}


def test_boxes_of_the_originals_are_refused(write):
    # As in annotations/xml/, where a side has some 2840 pixels.
    big = coco(FILES[:1], [(1, 1, [557, 277, 1109, 555]), (1, 2, [1664, 2219, 111, 166])])
    with pytest.raises(
        InputError, match=r"2 of 2 boxes reach beyond 512 x 512, up to 2385: it needs boxes in pixels of"
    ):
        read_tbx11k(write(TBX11K_train=big))


def test_one_file_for_both_splits_trains(write):
    of = told(read_tbx11k(write(TBX11K_trainval=coco(FILES[:5]))))
    assert {image["split"] for image in of.values()} == {"train"}
    # A category that the set has and never uses becomes one where it is used.
    third = coco(FILES[:2], [(1, 3, [1, 2, 3, 4])])
    source = read_tbx11k(write(TBX11K_trainval=third))
    assert [category["name"] for category in source.categories] == [*CATEGORIES, "PulmonaryTuberculosis"]
    assert told(source)["tb0001"]["boxes"] == [("PulmonaryTuberculosis", 1, 2, 4, 6)]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ((3, 1, [1, 2, 3, 4]), BOX_ON_NORMAL),
        ((3, 9, [1, 2, 3, 4]), UNKNOWN_FINDING),
        ((1, 1, [1, 2, 3]), reasons.NOT_A_NUMBER),
        ((1, 1, [1, 2, 3, None]), reasons.NOT_A_NUMBER),
        ((1, 1, [1, 2, 0, 4]), reasons.EMPTY),
        ((1, 1, [1, 2, 900, 4]), FAR_BEYOND),
    ],
)
def test_an_annotation_that_cannot_be_used_costs_its_radiograph(write, annotation, reason):
    many = [(1, 1, [k, k, 30, 30]) for k in range(19)] + [(1, 1, [300, 300, 30, 30])]
    source = read_tbx11k(write(TBX11K_train=coco(FILES[:4], [*many, annotation])))
    assert len(told(source)) == 3
    assert reason in [each for _, each in why(source)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"has no annotations/json/TBX11K_train.json and no annotations/xml/tb0001.xml, …: put one there"),
        ("[]", "holds a list, not the dict of TBX11K"),
        ({"images": 1, "annotations": [], "categories": []}, "is not a COCO file"),
        (
            {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}]},
            "has no id or no file_name",
        ),
        (coco(FILES[:1], [(7, 1, [1, 2, 3, 4])]), "annotation 0 is of an image that the file does not list"),
        (coco(FILES[:1], [(1, 1, [0.1, 0.2, 0.3, 0.4])]), "all its boxes lie between 0 and 1"),
    ],
)
def test_files_that_cannot_be_used_stop_the_conversion(write, content, message):
    root = write(**({} if content is None else {"TBX11K_train": content}))
    with pytest.raises(InputError, match=message):
        read_tbx11k(root)


HEADER = "fname,image_height,image_width,source,bbox,target,tb_type,image_type"
SIMPLE = (
    "h0001.png,512,512,train,none,no_tb,none,healthy",
    "s0001.png,512,512,val,none,no_tb,none,sick_but_no_tb",
    "tb0001.png,512,512,train,\"{'xmin': 10.5, 'ymin': 20, 'width': 30, 'height': 40}\",tb,active_tb,tb",
    "tb0001.png,512,512,train,\"{'xmin': 300, 'ymin': 200, 'width': 3, 'height': 4}\",tb,latent_tb,tb",
)


@pytest.fixture
def simplified(tmp_path):
    """(rows) → the simplified edition with its three pictures."""

    def make(rows):
        for number, name in enumerate(("h0001", "s0001", "tb0001")):
            write_picture(tmp_path / "images" / f"{name}.png", 64, 64, offset=number)
        (tmp_path / "data.csv").write_text("\n".join([HEADER, *rows]) + "\n")
        return tmp_path

    return make


def test_the_simplified_edition(simplified):
    source = read_tbx11k(simplified(SIMPLE))
    of = told(source)
    assert of["tb0001"]["boxes"] == [(ACTIVE, 10.5, 20, 40.5, 60), (OBSOLETE, 300, 200, 303, 204)]
    assert (of["s0001"]["labels"], of["s0001"]["split"]) == ([SICK], "val")
    assert of["h0001"]["labels"] == of["h0001"]["unknown"] == []
    assert source.layout == "simplified"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("h0001.png,512,512,train,none,no_tb,none,tb", CONTRADICTORY),
        ("h0001.png,512,512,val,none,no_tb,none,healthy", CONTRADICTORY),
        ("h0001.png,512,512,train,none,no_tb,none,ill", UNKNOWN_FINDING),
        (
            "h0001.png,512,512,train,\"{'xmin': 1, 'ymin': 2, 'width': 3, 'height': 4}\",tb,active_tb,healthy",
            BOX_ON_NORMAL,
        ),
        ("tb0001.png,512,512,train,\"{'xmin': 1, 'ymin': 2, 'width': 3, 'height': 4}\",tb,old_tb,tb", UNKNOWN_FINDING),
        ("tb0001.png,512,512,train,\"{'xmin': 1, 'ymin': 2, 'width': 3}\",tb,active_tb,tb", reasons.NOT_A_NUMBER),
        ("tb0001.png,512,512,train,open('x'),tb,active_tb,tb", reasons.NOT_A_NUMBER),
    ],
)
def test_a_row_of_the_simplified_edition_that_cannot_be_used_costs_its_radiograph(simplified, row, reason):
    source = read_tbx11k(simplified([*SIMPLE, row]))
    assert row.partition(".")[0] not in told(source)
    assert ("data.csv line 6", reason) in why(source)


@pytest.mark.parametrize("categories", [1, 1.5, True, None, {}])
def test_categories_that_are_no_list(write, categories):
    with pytest.raises(InputError, match="it needs the lists images, annotations and categories"):
        read_tbx11k(write(TBX11K_train=TRAIN | {"categories": categories}))


def voc(size, *objects):
    """objects: (name, xmin, ymin, xmax, ymax)."""
    text = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    for name, *corners in objects:
        sides = "".join(
            f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        )
        text += f"<object><name>{name}</name><difficult>0</difficult><bndbox>{sides}</bndbox></object>"
    return f"<annotation><folder>tb</folder>{text}</annotation>"


@pytest.fixture
def xml(write):
    """({stem: text}, {list: lines}) → the set's folder, without JSON files."""

    def make(files, **lists):
        root = write()
        for folder, contents, suffix in (("annotations/xml", files, "xml"), ("lists", lists, "txt")):
            (root / "TBX11K" / folder).mkdir(parents=True, exist_ok=True)
            for stem, text in contents.items():
                (root / "TBX11K" / folder / f"{stem}.{suffix}").write_text(text)
        return root

    return make


LESIONS = voc((2048, 1024), (ACTIVE, 400, 200, 800, 600), (OBSOLETE, 0, 0, 2048, 1024))


def test_boxes_of_the_originals_are_those_of_the_squeezed_pictures(xml):
    lists = {
        "TBX11K_train": "tb/tb0001.png\nsick/s0001.png\nhealth/h0001.png\n",
        "TBX11K_val": "health/h0002.png\ntb/tb1199.png\n",
        "all_test": "test/test_000001.png\n",
    }
    source = read_tbx11k(xml({"tb0001": LESIONS}, **lists))
    of = told(source)
    # A quarter of 2048 and half of 1024 pixels are 512.
    assert of["tb0001"]["boxes"] == [(ACTIVE, 100, 100, 200, 300), (OBSOLETE, 0, 0, 512, 512)]
    assert (of["tb0001"]["split"], of["tb0001"]["size"], of["tb0001"]["unknown"]) == ("train", (512, 512), [])
    assert {name: (image["split"], image["unknown"], image["labels"]) for name, image in of.items()} == {
        "tb0001": ("train", [], []),
        "s0001": ("train", [], [SICK]),
        "h0001": ("train", [], []),
        "h0002": ("val", [], []),
        "tb1199": ("val", [ACTIVE, OBSOLETE], []),
        "test_000001": ("test", list(CATEGORIES), []),
    }
    assert source.layout == "xml"
    assert [image.source_id for image in source.images if image.normal] == ["h0001", "h0002"]


@pytest.mark.parametrize("lists", [{}, {"all_test": "test/test_000001.png\n"}])
def test_without_lists_all_trains(xml, lists):
    source = read_tbx11k(xml({"tb0001": LESIONS, "tb0777": LESIONS}, **lists))
    assert {image.source_id: image.split for image in source.images} == {
        **dict.fromkeys(("h0001", "h0002", "s0001", "tb0001", "tb1199"), "train"), "test_000001": "test",
    }  # fmt: skip
    assert why(source) == [("TBX11K/imgs/extra/da+db/train/p(1).png", OTHER_SET), ("tb0777.xml", reasons.MISSING_FILE)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (voc(None, (ACTIVE, 1, 2, 3, 4)), NO_SIZE),
        (voc((2048, 1024), ("Tumour", 1, 2, 3, 4)), UNKNOWN_FINDING),
        (voc((2048, 1024), (ACTIVE, 1, 2, 3, "x")), reasons.NOT_A_NUMBER),
        (voc((2048, 1024), (ACTIVE, 1, 2, 4000, 4)), FAR_BEYOND),
        ("<annotation>", UNREADABLE_XML),
    ],
)
def test_an_xml_file_that_cannot_be_used_costs_its_radiograph(xml, text, reason):
    source = read_tbx11k(xml({"tb0001": text, "tb1199": LESIONS}))
    assert "tb0001" not in told(source)
    assert reason in [said for _, said in why(source)]


def test_json_goes_before_xml(write, xml):
    root = xml({"tb0001": LESIONS})
    write(TBX11K_train=TRAIN)
    assert told(read_tbx11k(root))["tb0001"]["boxes"][0] == (ACTIVE, 100.5, 50, 300.5, 150)
