"""Pascal VOC trees: what the corners of boxes mean, whose pictures they are, lists of splits."""

import pytest
from source_cases import write_picture

from xray.datasets import source as reasons
from xray.datasets.sources import convert
from xray.datasets.sources.tree import read_tree
from xray.datasets.sources.trees.parts import NOT_IN_TREE, UNREADABLE_XML
from xray.datasets.sources.trees.voc import DIFFICULT, NO_XML, NOT_IN_SETS, PARTS, TWO_PICTURES
from xray.datasets.store import open_store
from xray.errors import InputError

VOC = "<source><database>The VOC2007 Database</database><annotation>PASCAL VOC2007</annotation></source>"
LABELIMG = "<source><database>Unknown</database></source>"
SUPERVISION = "<folder>VOC</folder><source><database>roboflow.ai</database></source>"


def thing(name="Nodule", corners=(10, 5, 20, 15), more=""):
    sides = "".join(
        f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>{name}</name>{more}<bndbox>{sides}</bndbox></object>"


def write(path, *objects, filename="", source=LABELIMG, size=(60, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>1</depth></size>" if size else ""
    named = f"<filename>{filename}</filename>" if filename else ""
    path.write_text(f"<annotation>{named}{source}{sides}{''.join(objects)}</annotation>")


@pytest.fixture
def root(tmp_path):
    """VOC's own layout: 1 to 4 in lists, 5 in none."""
    root = tmp_path / "set"
    for number in range(1, 6):
        write_picture(root / "JPEGImages" / f"00{number}.png", offset=number)
        write(root / "Annotations" / f"00{number}.xml", thing(), source=VOC, filename=f"00{number}.png")
    lists = {"train": "001\n002\n", "val": "003\n", "trainval": "001\n002\n003\n", "test": "004 1\n006\n"}
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name, text in (lists | {"Nodule_train": "001 1\n005 -1\n"}).items():
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(text)
    return root


@pytest.fixture
def beside(tmp_path):
    """Roboflow's layout: XML files beside the pictures of each split."""
    for number, folder in enumerate(["train", "train", "valid", "test"]):
        write_picture(tmp_path / "set" / folder / f"{number}.png", offset=number)
        write(tmp_path / "set" / folder / f"{number}.xml", thing(), filename=f"{number}.png")
    return tmp_path / "set"


def splits(source):
    return {image.file_name.rpartition("/")[2]: image.split for image in source.images}


def account(source):
    return [(drop.where, drop.reason) for drop in source.dropped]


def test_lists_are_the_splits(root):
    source = read_tree(root)
    assert splits(source) == {"001.png": "train", "002.png": "train", "003.png": "val", "004.png": "test"}
    assert ("Annotations/005.xml", NOT_IN_SETS) in account(source)
    assert ("006", NO_XML) in account(source)
    assert ("JPEGImages/005.png", NOT_IN_TREE) in account(source)
    # Pixels 10 to 20 and 5 to 15, counted from 1, both inside: 11 of each.
    assert source.boxes.boxes[0].tolist() == [9, 4, 20, 15]


def test_folders_are_the_splits(beside):
    source = read_tree(beside)
    assert splits(source) == {"0.png": "train", "1.png": "train", "2.png": "val", "3.png": "test"}
    assert source.boxes.boxes[0].tolist() == [10, 5, 20, 15]


@pytest.mark.parametrize(
    ("source", "corners", "flag", "box"),
    [
        (VOC, (1, 1, 60, 40), "auto", [0, 0, 60, 40]),
        (VOC, (0, 0, 60, 40), "auto", [0, 0, 60, 40]),  # who writes a 0 does not count from 1
        (LABELIMG, (1, 1, 60, 40), "auto", [1, 1, 60, 40]),
        (LABELIMG, (1, 1, 60, 40), "pixels", [0, 0, 60, 40]),
        (VOC, (1, 1, 60, 40), "edges", [1, 1, 60, 40]),
        (SUPERVISION, (11, 6, 21, 16), "auto", [10, 5, 20, 15]),
        ("", (10.25, 5.5, 20.75, 15), "auto", [10.25, 5.5, 20.75, 15]),
    ],
)
def test_what_corners_mean(beside, source, corners, flag, box):
    write(beside / "train" / "0.xml", thing(corners=corners), source=source)
    read = read_tree(beside, corners=flag)
    assert read.boxes.boxes[read.places.index("train/0.xml object 0")].tolist() == box


def test_difficult_objects_and_parts(beside, tmp_path):
    part = "<part><name>tip</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    write(
        beside / "train" / "0.xml",
        thing(more="<truncated>1</truncated>" + part),
        thing("Mass", more="<difficult>1</difficult>"),
    )
    source = read_tree(beside)
    assert [warning.kind for warning in source.warnings] == [PARTS, DIFFICULT]
    assert len(source.boxes) == 5
    ignored = read_tree(beside, difficult="ignore")
    assert len(ignored.boxes) == 4
    first = next(image for image in ignored.images if image.file_name == "train/0.png")
    assert first.unlocated == (1,)
    assert ignored.fingerprint != source.fingerprint


def test_a_difficult_object_that_is_left_out_may_lie_beside_another_of_its_category(beside, tmp_path):
    write(beside / "train" / "0.xml", thing(), thing(corners=(30, 5, 50, 25), more="<difficult>1</difficult>"))
    convert("tree", beside, tmp_path / "data", image_size=32, n_folds=2, difficult="ignore", n_workers=0)
    store = open_store(tmp_path / "data")
    (record,) = [record for record in store.records if record["source_id"] == "0"]
    assert record["unlocated"] == record["labels"] == store.boxes.labels[store.boxes.images == record["id"]].tolist()


def test_the_size_is_that_of_the_boxes_unless_it_is_missing(beside, tmp_path):
    write(beside / "train" / "0.xml", thing(corners=(100, 50, 200, 150)), size=(600, 400))  # made smaller since
    write(beside / "train" / "1.xml", thing(), size=(0, 0))
    write(beside / "valid" / "2.xml", thing(), size=(60, 30))  # of another picture
    write(beside / "test" / "3.xml", thing(), size=None)
    convert("tree", beside, tmp_path / "data", image_size=32, n_folds=2)
    store = open_store(tmp_path / "data")
    sizes = {record["source_id"]: (record["width"], record["height"]) for record in store.records}
    assert sizes == {"0": (600, 400), "1": (60, 40), "3": (60, 40)}
    boxes = dict(
        zip([store.records[image]["source_id"] for image in store.boxes.images], store.boxes.boxes, strict=True)
    )
    assert boxes["0"].tolist() == [100, 50, 200, 150]
    assert store.conversion["dropped"]["counts"] == {reasons.SIZE_MISMATCH: 1}


def test_the_files_own_name_goes_before_the_one_inside(beside):
    write(beside / "train" / "0.xml", thing(), filename="IMG_0815.png")
    write(beside / "train" / "8.xml", thing("Mass"), filename="renamed.png")
    write_picture(beside / "train" / "renamed.png", offset=9)
    assert {"0.png", "renamed.png"} <= set(splits(read_tree(beside)))
    write(beside / "train" / "0.xml", thing(), filename="renamed.png")
    (beside / "train" / "8.xml").unlink()
    source = read_tree(beside)
    assert ("train/0.xml", TWO_PICTURES) in account(source)
    assert not {"0.png", "renamed.png"} & set(splits(source))


def test_a_picture_without_objects_has_no_findings_and_one_without_xml_is_left_out(beside):
    write(beside / "train" / "0.xml")
    write_picture(beside / "train" / "9.png", offset=9)
    source = read_tree(beside)
    assert "0.png" in splits(source)
    assert ("train/9.png", NOT_IN_TREE) in account(source)
    assert len(source.boxes) == 3


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        (thing(corners=("x", 1, 2, 3)), reasons.NOT_A_NUMBER),
        (thing(corners=(20, 5, 10, 15)), reasons.INVERTED),
        (thing(corners=(10, 5, 10, 15)), reasons.EMPTY),
        (thing(""), reasons.UNKNOWN_CLASS),
        ("<object><name>Mass</name></object>", reasons.NOT_A_NUMBER),
    ],
)
def test_an_object_that_is_no_box_costs_its_radiograph(beside, objects, reason):
    write(beside / "train" / "0.xml", thing(), objects)
    source = read_tree(beside)
    assert "0.png" not in splits(source)
    assert ("train/0.xml object 1", reason) in account(source)


def test_damaged_xml_costs_its_radiograph_and_entities_are_refused(beside):
    (beside / "train" / "0.xml").write_text("<annotation><object>")
    bomb = '<!DOCTYPE a [<!ENTITY x "xxxx"><!ENTITY y "&x;&x;">]><annotation><folder>&y;</folder></annotation>'
    (beside / "train" / "1.xml").write_text(bomb)
    source = read_tree(beside)
    assert sorted(splits(source)) == ["2.png", "3.png"]
    assert [where for where, reason in account(source) if reason == UNREADABLE_XML] == ["train/0.xml", "train/1.xml"]


def test_a_name_in_two_lists_is_refused(root):
    (root / "ImageSets" / "Main" / "test.txt").write_text("001\n")
    with pytest.raises(InputError, match=r"001 is in two lists of .*, for train and test"):
        read_tree(root)


def test_polygons_of_supervision_become_masks(beside):
    polygon = "<polygon><x1>10</x1><y1>5</y1><x2>20</x2><y2>5</y2><x3>20</x3><y3>15</y3></polygon>"
    write(beside / "train" / "0.xml", thing(more=polygon))
    source = read_tree(beside)
    assert list(source.masks.values()) == [[[10, 5, 20, 5, 20, 15]]]


def test_folders_with_the_names_of_files(root):
    before = read_tree(root, "voc")
    for name in ("Annotations/x.xml", "a.xml"):
        (root / name).mkdir()
    assert read_tree(root).fingerprint == before.fingerprint


def test_names_that_differ_in_case_alone(root):
    write(root / "Annotations" / "002.xml", thing("NODULE"))
    with pytest.raises(InputError, match="which upper and lower case alone tell apart: write them in one way"):
        read_tree(root)


@pytest.mark.parametrize("side", [0, -60, "x", 10**300, 60_000])
def test_a_size_that_no_radiograph_has_is_not_used(root, side):
    write(root / "Annotations" / "001.xml", thing(), size=(side, side))
    assert read_tree(root).images[0].width is None


@pytest.mark.parametrize("layout", ["{split}/{kind}", "{kind}/{split}"])
def test_equal_names_in_two_splits_are_told_apart_by_their_folders(tmp_path, layout):
    for number, split in enumerate(["train", "test"]):
        write_picture(tmp_path / layout.format(split=split, kind="images") / "1.png", offset=number)
        path = tmp_path / layout.format(split=split, kind="annotations") / "1.xml"
        write(path, thing(corners=(10 + number, 5, 20, 15)), filename="1.png")
    source = read_tree(tmp_path)
    assert [image.split for image in source.images] == ["test", "train"]
    assert source.boxes.boxes[:, 0].tolist() == [11, 10]


def test_boxes_that_cvat_has_turned(beside):
    turned = "<attributes><attribute><name>rotation</name><value>90.0</value></attribute></attributes>"
    write(beside / "train" / "0.xml", thing(more=turned), filename="0.png")
    source = read_tree(beside)
    # 10 x 10 about (15, 10) stays; 10 wide and 20 high about (25, 15) becomes 20 wide and 10 high.
    assert source.boxes.boxes[1].tolist() == pytest.approx([10, 5, 20, 15])
    write(beside / "train" / "0.xml", thing(corners=(20, 5, 30, 25), more=turned), filename="0.png")
    source = read_tree(beside)
    assert source.boxes.boxes[1].tolist() == pytest.approx([15, 10, 35, 20])
    assert list(source.masks) == [1]
