"""A class "No finding" that has boxes is no finding, in any format; flags and category maps say otherwise."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_cases import write_picture

from xray.datasets.category_map import NORMAL_LABELS
from xray.datasets.normal_words import sounds_normal
from xray.datasets.sources import convert
from xray.datasets.sources.coco import read_coco
from xray.datasets.sources.normal_names import (
    CONTRADICTION,
    NORMAL_BOXES,
    NormalNames,
)
from xray.datasets.sources.table import read_table
from xray.datasets.sources.tree import read_tree
from xray.datasets.store import open_store
from xray.errors import InputError

WIDTH, HEIGHT = 60, 40
NODULE, WHOLE = (10, 5, 20, 15), (0, 0, WIDTH, HEIGHT)
# Names and boxes of five pictures: a finding, none, both, nothing, and the normal class without a place.
FINDING, NONE = ("Nodule", NODULE), ("No finding", WHOLE)
SEEN = [[FINDING], [NONE], [FINDING, NONE], [], [("normal", ())]]


def write_yolo(root, seen):
    names = list(dict.fromkeys(["No finding", "Nodule", "normal", *(name for objects in seen for name, _ in objects)]))
    (root / "data.yaml").write_text(f"train: images\nnames: {names}\n")
    (root / "labels").mkdir()
    for number, objects in enumerate(seen):
        lines = []
        for name, box in objects:
            x1, y1, x2, y2 = box or (0, 0, 0, 0)
            numbers = ((x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT)
            lines.append(" ".join(map(str, (names.index(name), *numbers))))
        (root / "labels" / f"{number}.txt").write_text("\n".join(lines))


def write_voc(root, seen):
    for number, objects in enumerate(seen):
        text = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        for name, box in objects:
            sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=False)
            inside = "".join(f"<{tag}>{value}</{tag}>" for tag, value in sides)
            text += f"<object><name>{name}</name><bndbox>{inside}</bndbox></object>"
        (root / "images" / f"{number}.xml").write_text(f"<annotation>{text}</annotation>")


def write_cvat(root, seen):
    text = ""
    for number, objects in enumerate(seen):
        text += f'<image id="{number}" name="{number}.png" width="{WIDTH}" height="{HEIGHT}">'
        for name, box in objects:
            x1, y1, x2, y2 = box or (1, 1, 1, 1)
            text += f'<box label="{name}" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"/>'
        text += "</image>"
    (root / "annotations.xml").write_text(f"<annotations>{text}</annotations>")


def write_labelstudio(root, seen):
    tasks = []
    for number, objects in enumerate(seen):
        results = []
        for place, (name, box) in enumerate(objects):
            x1, y1, x2, y2 = box or (0, 0, 0, 0)
            value = {"x": x1 / WIDTH * 100, "y": y1 / HEIGHT * 100, "rectanglelabels": [name]}
            value |= {"width": (x2 - x1) / WIDTH * 100, "height": (y2 - y1) / HEIGHT * 100}
            sides = {"original_width": WIDTH, "original_height": HEIGHT}
            results.append({"id": str(place), "type": "rectanglelabels", "value": value, **sides})
        tasks.append({"id": number, "data": {"image": f"{number}.png"}, "annotations": [{"result": results}]})
    (root / "tasks.json").write_text(json.dumps(tasks))


def write_coco(root, seen, **more):
    names = {"No finding": 3, "Nodule": 5, "normal": 9}
    rows = []
    for number, objects in enumerate(seen):
        for name, box in objects:
            x1, y1, x2, y2 = box or (0, 0, 0, 0)
            row = {"id": len(rows) + 1, "image_id": number, "category_id": names[name]}
            rows.append(row | {"bbox": [x1, y1, x2 - x1, y2 - y1]} | more)
    images = [
        {"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT} for number in range(len(seen))
    ]
    categories = [{"id": number, "name": name} for name, number in names.items()]
    content = {"images": images, "annotations": rows, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(content))


WRITERS = {
    "yolo": write_yolo,
    "voc": write_voc,
    "cvat": write_cvat,
    "labelstudio": write_labelstudio,
    "coco": write_coco,
}


@pytest.fixture
def tree(tmp_path):
    def write(format, seen=SEEN):
        root = tmp_path / format
        for number in range(len(seen)):
            write_picture(root / "images" / f"{number}.png", WIDTH, HEIGHT, offset=number)
        WRITERS[format](root, seen)
        return root

    return write


def kinds(source):
    return [warning.kind for warning in source.warnings]


def names_of(source):
    return [category["name"] for category in source.categories]


@pytest.mark.parametrize("format", WRITERS)
def test_boxes_of_normal_are_no_findings(tree, format):
    source = read_tree(tree(format))
    assert names_of(source) == ["Nodule"]
    assert [image.file_name for image in source.images] == [f"images/{number}.png" for number in (0, 1, 3, 4)]
    assert [image.normal for image in source.images] == [False, True, False, True]
    assert source.boxes.images.tolist() == [0]
    assert source.boxes.boxes[0].tolist() == pytest.approx(NODULE)
    # Once for the picture, not for its annotation, too.
    assert [(drop.where, drop.reason) for drop in source.dropped] == [("images/2.png", CONTRADICTION)]
    # Zeros in a COCO file are no box, as [0, 0, 1, 1] is none.
    assert kinds(source).count(NORMAL_BOXES) == (1 if format == "coco" else 2)
    assert source.notes == {NORMAL_LABELS: source.notes[NORMAL_LABELS]}
    assert sorted(source.notes[NORMAL_LABELS]) == ["No finding", "normal"]


@pytest.mark.parametrize("format", WRITERS)
def test_a_flag_makes_it_a_category_or_chooses_one(tree, format):
    root = tree(format, SEEN[:4])
    every = read_tree(root, normal=[""])
    assert [name for name in names_of(every) if name != "normal"] in (
        ["No finding", "Nodule"],
        ["Nodule", "No finding"],
    )
    assert len(every.images) == 4
    assert len(every.boxes) == 4
    chosen = read_tree(root, normal=["no FINDING"])
    assert "No finding" not in names_of(chosen)
    assert len(chosen.images) == 3
    with pytest.raises(InputError, match=r"--normal Healthy: .* has no such label"):
        read_tree(root, normal=["Healthy"])
    nothing = read_tree(root, normal=["Nodule"])
    assert [image.normal for image in nothing.images if image.file_name.endswith("0.png")] == [True]


@pytest.mark.parametrize("format", WRITERS)
def test_regions_beside_findings_are_asked_about(tree, format):
    both = [FINDING, ("No finding", (30, 20, 40, 30))]
    root = tree(format, [both, both, both, [NONE]])
    with pytest.raises(InputError, match=r'of 4 pictures with a box of No finding.*, 3 have findings.*--normal ""'):
        read_tree(root)
    assert len(read_tree(root, normal=[""]).boxes) == 7
    assert len(read_tree(root, normal=["No finding"]).images) == 1


@pytest.mark.parametrize("format", ["voc", "cvat", "labelstudio", "coco"])
def test_nothing_but_normal(tree, format):
    root = tree(format, [[NONE], [NONE]])
    if format == "coco":
        content = json.loads((root / "annotations.json").read_text())
        content["categories"] = content["categories"][:1]
        (root / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r'no category besides No finding: --normal "" makes that one'):
        read_tree(root)


@pytest.mark.parametrize("format", ["yolo", "coco"])
def test_a_category_map_goes_before_the_name(tree, tmp_path, format):
    root = tree(format, SEEN[:2] * 2)
    (tmp_path / "map.yaml").write_text("No finding: Background\n")
    (tmp_path / "same.yaml").write_text("No finding: normal\nNodule: Mass\n")
    convert("tree", root, tmp_path / "data", image_size=32, n_folds=2, map=tmp_path / "map.yaml")
    store = open_store(tmp_path / "data")
    assert set(store.categories.values()) == {"Background", "Nodule"}
    assert len(store.boxes) == 4
    convert("tree", root, tmp_path / "other", image_size=32, n_folds=2, map=tmp_path / "same.yaml")
    store = open_store(tmp_path / "other")
    assert list(store.categories.values()) == ["Mass"]
    assert len(store.boxes) == 2
    assert json.loads((tmp_path / "other" / "conversion.json").read_text())[NORMAL_LABELS] == ["No finding", "normal"]


def test_one_reader_may_see_what_another_does_not(tree):
    root = tree("coco", SEEN[2:4])
    content = json.loads((root / "annotations.json").read_text())
    for row, reader in zip(content["annotations"], ("R1", "R2"), strict=True):
        row["readers"] = [reader]
    (root / "annotations.json").write_text(json.dumps(content))
    source = read_coco(root)
    assert [len(source.images), len(source.boxes), source.dropped] == [2, 1, []]
    assert [image.normal for image in source.images] == [False, False]


def write_table(root, n, text):
    """n pictures, and the table t.csv beside them."""
    for number in range(n):
        write_picture(root / f"{number}.png", offset=number)
    (root / "t.csv").write_text(text)


def test_spellings_in_a_table(tmp_path, capsys):
    text = "image,label\n0,Mass\n1,Normal\n2,No finding\n3,Healthy\n3,Normal\n4,Mass\n4,No Finding\n"
    write_table(tmp_path, 6, text)
    source = read_table(tmp_path)
    assert names_of(source) == ["Mass"]
    assert [image.normal for image in source.images] == [False, True, True, True, False]
    # A finding counts beside a row that says that there is none, which is named.
    assert [(drop.where, drop.action) for drop in source.dropped if drop.where.startswith("t.csv")] == [
        ("t.csv line 8", "the finding counts")
    ]
    assert "nothing was found where it says Normal or No " in capsys.readouterr().out
    assert names_of(read_table(tmp_path, normal=["Normal"])) == ["Healthy", "Mass", "No Finding"]
    assert names_of(read_table(tmp_path, kept=["healthy"])) == ["Healthy", "Mass"]


def test_columns_of_two_spellings(tmp_path):
    text = "image,Normal,No finding,Mass\n0,1,1,0\n1,0,0,1\n2,1,0,0\n3,1,,0\n4,1,1,1\n"
    write_table(tmp_path, 5, text)
    source = read_table(tmp_path)
    assert names_of(source) == ["Mass"]
    # The third says yes and no; the fifth has a finding, which counts.
    assert [(image.source_id, image.normal) for image in source.images] == [
        ("0", True), ("1", False), ("3", True), ("4", False),
    ]  # fmt: skip
    assert [drop.where for drop in source.dropped] == ["t.csv line 4", "t.csv line 6", "2.png"]


@given(st.lists(st.sampled_from(["Normal", "no_finding", "NO FINDING", "Mass", "abnormal", "Healthy"]), unique=True))
def test_names_are_spelt_as_they_stand(labels):
    found = NormalNames().among(labels, "x")
    assert list(found) == [label for label in labels if label not in ("Mass", "abnormal")]
    assert not NormalNames(chosen=[""]).among(labels, "x")
    assert set(NormalNames(kept=labels).among(labels, "x")) == set()
    assert all(map(sounds_normal, found))


@pytest.mark.parametrize("format", ["yolo", "voc", "cvat", "labelstudio"])
def test_spellings_that_differ_in_case_all_mean_it(tree, format):
    # People write Normal and normal in one tree.
    root = tree(format, [[FINDING], [NONE], [("NO FINDING", WHOLE)], []])
    for chosen in ([], ["no finding"]):
        source = read_tree(root, normal=chosen)
        assert not {"No finding", "NO FINDING"} & set(names_of(source))
        assert [image.normal for image in source.images] == [False, True, True, False]


def test_how_it_is_called():
    said = ["Normal chest X-ray", "NORMAL_CXR", "No Abnormality Detected", "no_lesions", "Unremarkable", "No-Finding."]
    assert [label for label in [*said, "no abnormalities", "Healthy controls"] if not sounds_normal(label)] == []
    # Another finding is there, or may be; or the label is of a place.
    others = ["No Lung Opacity / Not Normal", "not normal", "Abnormal", "no pneumonia", "Normal lung", "Nodule", ""]
    assert [label for label in others if sounds_normal(label)] == []
