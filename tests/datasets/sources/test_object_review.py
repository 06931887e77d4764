"""Drawn objects that a review has rejected: no boxes in any format of a tree, and their finding is unknown there."""

import json

import pytest
from source_cases import said, told, write_picture

from xray.datasets.sources.coco import read_coco
from xray.datasets.sources.normal_names import DOUBTFUL_CATEGORIES
from xray.datasets.sources.object_review import REVIEWED, withheld_by
from xray.datasets.sources.tree import read_tree
from xray.datasets.sources.trees.cvat import OTHER_SHAPE
from xray.datasets.sources.trees.labelstudio_tasks import REJECTED

NONE = "No finding"


def voc(root, pictures):
    for number, objects in enumerate(pictures):
        parts = []
        for name, attributes in objects:
            inside = "".join(f"<{key}>{value}</{key}>" for key, value in attributes.items() if key == "deleted")
            inside += "".join(
                f"<attributes><attribute><name>{key}</name><value>{value}</value></attribute></attributes>"
                for key, value in attributes.items()
                if key != "deleted"
            )
            corners = "<bndbox><xmin>10</xmin><ymin>5</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
            parts.append(f"<object><name>{name}</name>{inside}{corners}</object>")
        size = "<size><width>60</width><height>40</height></size>"
        text = f"<annotation><filename>{number}.png</filename>{size}{''.join(parts)}</annotation>"
        (root / f"{number}.xml").write_text(text)


def cvat(root, pictures):
    images = []
    for number, objects in enumerate(pictures):
        parts = [
            f'<box label="{name}" xtl="10" ytl="5" xbr="30" ybr="20">'
            + "".join(f'<attribute name="{key}">{value}</attribute>' for key, value in attributes.items())
            + "</box>"
            for name, attributes in objects
        ]
        images.append(f'<image id="{number}" name="{number}.png" width="60" height="40">{"".join(parts)}</image>')
    (root / "annotations.xml").write_text(f"<annotations>{''.join(images)}</annotations>")


def coco(root, pictures, beside=True):
    names = ["Mass", "Nodule", NONE]
    images = [
        {"id": number, "file_name": f"{number}.png", "width": 60, "height": 40} for number in range(len(pictures))
    ]
    rows = [
        {"image_id": number, "category_id": names.index(name) + 1, "bbox": [10, 5, 20, 15]}
        | ({"attributes": attributes} if beside else attributes)
        for number, objects in enumerate(pictures)
        for name, attributes in objects
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    content = {"images": images, "annotations": rows, "categories": categories}
    (root / "a.json").write_text(json.dumps(content))


def coco_keys(root, pictures):
    coco(root, pictures, beside=False)


@pytest.fixture
def folder(tmp_path):
    for number in range(6):
        write_picture(tmp_path / f"{number}.png", offset=number)
    return tmp_path


def known(source):
    """Id → its labels, its boxes' and what is unknown, by the first letters of the names; unknown without the boxed."""
    result = {}
    for own_id, facts in told(source).items():
        boxed = [box[0] for box in facts["boxes"]]
        unknown = set(facts["unknown"]) - set(boxed)
        result[own_id] = tuple("".join(sorted(name[0] for name in names)) for names in (boxed, unknown))
    return result


@pytest.mark.parametrize("write", [voc, cvat, coco, coco_keys])
@pytest.mark.parametrize(
    "no",
    [
        {"status": "rejected"}, {"deleted": "1"}, {"Review state": "to review"}, {"is_rejected": "true"},
        {"deleted_at": "2024-05-01"},
    ],
)  # fmt: skip
def test_what_was_rejected_is_no_box_and_unknown(folder, write, no):
    yes = {"status": "accepted", "occluded": "0", "deleted": "0", "verified": "false", "deleted_at": "never"}
    pictures = [
        [("Mass", yes), ("Mass", no)], [("Mass", no)], [("Nodule", {})], [], [(NONE, no)],
        [("Mass", no), ("Nodule", yes)],
    ]  # fmt: skip
    write(folder, pictures)
    source = read_tree(folder)
    # A picture without objects is one in which nothing was found.
    assert known(source) == {
        "0": ("M", ""), "1": ("", "M"), "2": ("N", ""), "3": ("", ""), "4": ("", "MN"), "5": ("N", "M")
    }  # fmt: skip
    assert [drop.reason for drop in source.dropped] == [REVIEWED] * 4
    by_id = {image.source_id: image for image in source.images}
    # Beside the box that counts, the other place is no background.
    assert by_id["0"].elsewhere == (1,)
    assert not any(image.normal for image in source.images)


def test_what_is_no_review():
    others = [{"status": "new"}, {"state": "unknown"}, {"verified": 0}, {"confirmed": False}, {"deleted": 0}, {"id": 3}]
    others += [{"status": None}, {"review": ["no", "ok"]}, {"reviewed_by": "rejected"}, {"name": "deleted"}, {1: "x"}]
    others += [{"deleted_at": None}, {"deleted_at": 0.0}]
    assert [one for one in others if withheld_by(one)] == []
    assert withheld_by({"area": 3, "deleted": True}) == "deleted: True"
    assert withheld_by({"ignore": 1}) == "ignore: 1"
    assert withheld_by({"deleted_at": 1.7e9}) == "deleted_at: 1700000000.0"
    assert [word for word in ("pending", "To be reviewed", "not reviewed") if not withheld_by({"status": word})] == []


def test_a_shape_that_nobody_knows_costs_its_picture(folder):
    cvat(folder, [[("Mass", {})], [("Mass", {})], []])
    path = folder / "annotations.xml"
    path.write_text(path.read_text().replace("<box label", "<spiral label", 1).replace("</box>", "</spiral>", 1))
    source = read_tree(folder)
    assert known(source) == {"1": ("M", ""), "2": ("", "")}
    assert source.dropped[0].reason == OTHER_SHAPE


def test_names_of_categories_that_say_nothing_are_said(folder):
    cvat(folder, [[("Mass", {})], [("unknown", {})], [("?", {})]])
    assert said(read_tree(folder)) == {DOUBTFUL_CATEGORIES: "?, unknown"}
    assert not said(read_tree(folder, kept=["Unknown", "?"]))
    coco(folder, [[("Mass", {})]])
    text = (folder / "a.json").read_text().replace("Nodule", "Uncertain")
    (folder / "a.json").write_text(text)
    assert said(read_coco(folder)) == {DOUBTFUL_CATEGORIES: "Uncertain"}


def task(number, *results, **changes):
    annotation = {"id": number, "completed_by": 1, "result": list(results)} | changes
    return {"id": number, "data": {"image": f"{number}.png"}, "annotations": [annotation]}


def choice(field, value):
    return {"id": f"{field}{value}", "type": "choices", "from_name": field, "value": {"choices": [value]}}


def labelstudio(folder, *tasks):
    (folder / "export.json").write_text(json.dumps(tasks))
    return read_tree(folder, format="labelstudio")


def whole(source):
    return {own_id: (facts["labels"], facts["unknown"]) for own_id, facts in told(source).items()}


def test_an_annotation_that_a_review_has_rejected(folder):
    region = {
        "id": "a", "type": "rectanglelabels", "original_width": 60, "original_height": 40,
        "value": {"x": 10, "y": 10, "width": 20, "height": 20, "rectanglelabels": ["Mass"]},
    }  # fmt: skip
    reviews = [[{"accepted": False}], [{"accepted": False}, {"accepted": True}], [], "x", [{"accepted": None}]]
    tasks = [task(number, region, reviews=each) for number, each in enumerate(reviews)]
    two = task(5, region, reviews=[{"accepted": False}])
    two["annotations"].append({"id": 9, "completed_by": 2, "result": []})
    source = labelstudio(folder, *tasks, two)
    # Of the last one the other annotation is left.
    assert known(source) == dict.fromkeys("1234", ("M", "")) | {"5": ("", "")}
    assert [drop.reason for drop in source.dropped].count(REJECTED) == 2


@pytest.mark.parametrize(
    "doubt", ["Indeterminate", "cannot exclude", "Not assessable", "unknown", "unsure", "?", "Don't know"]
)
def test_choices_of_doubt(folder, doubt):
    answers = [task(0, choice("Mass", "Yes")), task(1, choice("Mass", doubt)), task(2, choice("Mass", "No"))]
    assert whole(labelstudio(folder, *answers)) == {"0": (["Mass"], []), "1": ([], ["Mass"]), "2": ([], [])}
    names = [task(0, choice("finding", "Mass")), task(1, choice("finding", doubt)), task(2, choice("finding", NONE))]
    names += [task(3, choice("finding", "Nodule"))]
    source = labelstudio(folder, *names)
    assert whole(source) == {
        "0": (["Mass"], []), "1": ([], ["Mass", "Nodule"]), "2": ([], []), "3": (["Nodule"], [])
    }  # fmt: skip
    assert [image.normal for image in source.images] == [False, False, True, False]


def test_positive_and_negative_are_answers_to_their_field(folder):
    pairs = [("Positive", "Negative"), ("Negative", "Negative"), ("negative", "positive")]
    tasks = [task(number, choice("Mass", a), choice("Fluid", b)) for number, (a, b) in enumerate(pairs)]
    assert whole(labelstudio(folder, *tasks)) == {"0": (["Mass"], []), "1": ([], []), "2": (["Fluid"], [])}
    # Where no field is answered, it is what was found: nothing.
    tasks = [task(0, choice("result", "Negative")), task(1, choice("result", "Mass"))]
    source = labelstudio(folder, *tasks)
    assert whole(source) == {"0": ([], []), "1": (["Mass"], [])}
    assert source.images[0].normal


@pytest.mark.parametrize(
    "said_of_it",
    [
        {"review": {"status": "rejected"}}, {"extra": {"review": {"state": "Declined"}}}, {"status": ["rejected"]},
        {"reviews": [{"status": "ok"}, {"status": "rejected"}]}, {"box_deleted": 1},
    ],
)  # fmt: skip
def test_what_stands_within_other_values(said_of_it):
    assert withheld_by(said_of_it)


@pytest.mark.parametrize(
    "said_of_it",
    [
        {"reviews": [{"status": "rejected"}, {"status": "ok"}]}, {"tube_status": "removed"},
        {"covid_status": "suspected"}, {"attributes": {"fracture_state": "open"}},
        {"segmentation": [[1, 2, 3, 4, 5, 6]]}, {"status": []},
    ],
)  # fmt: skip
def test_what_is_no_review_takes_no_box(said_of_it):
    assert withheld_by(said_of_it) == ""


@pytest.mark.parametrize(
    "entry",
    [
        {"status": "unlabeled"}, {"annotation_status": "not started"}, {"state": "todo"}, {"status": "skipped"},
        {"skipped": True}, {"status": "To annotate"},
    ],
)  # fmt: skip
def test_a_picture_that_nobody_has_annotated_is_not_normal(folder, entry):
    coco(folder, [[("Mass", {})], [], []])
    content = json.loads((folder / "a.json").read_text())
    content["images"][1] |= entry
    content["images"][2] |= {"status": "annotated", "unknown": False, "covid_status": "unknown"}
    (folder / "a.json").write_text(json.dumps(content))
    source = read_coco(folder)
    assert [image.file_name for image in source.images] == ["0.png", "2.png"]
    assert [image.unknown or () for image in source.images] == [(), ()]
