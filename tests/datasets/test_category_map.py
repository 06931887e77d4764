"""Category maps: other names, joined and dropped categories, and what a map cannot know."""

import dataclasses
from importlib import resources
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from xray.datasets import category_map
from xray.datasets.annotation import annotate
from xray.datasets.category_map import parse_map, read_map
from xray.datasets.mapped import apply_map
from xray.datasets.source import Source, SourceImage
from xray.errors import InputError
from xray.findings import FINDINGS
from xray.structures.boxes import BoxTable

NAMES = ["Effusion", "Mass", "Nodule", "Hernia", "Healthy"]


EMPTY = BoxTable.empty()


def source(images, boxes=(), names=NAMES, masks=None, readers=None):
    """images: keyword arguments of SourceImage for each. boxes: (image, category id, x1, y1, x2, y2)."""
    return Source(
        kind="made",
        layout="made",
        images=[SourceImage(Path(f"{n}.png"), f"{n}.png", str(n), **given) for n, given in enumerate(images)],
        boxes=BoxTable.of(
            [box[0] for box in boxes], [box[1] for box in boxes], [box[2:] for box in boxes] or EMPTY.boxes
        ),
        readers=readers or [()] * len(boxes),
        places=[f"boxes.csv line {n + 2}" for n in range(len(boxes))],
        categories=[{"id": number, "name": name} for number, name in enumerate(names, 1)],
        fingerprint="f",
        masks=masks or {},
    )


def mapped(text, *args, **kwargs):
    return apply_map(source(*args, **kwargs), parse_map(text.encode(), "map.yaml"))


def names(result):
    return [category["name"] for category in result.categories]


def records(result):
    """The entries of annotations.json."""
    outcomes = [{"width": 100, "height": 100}] * len(result.images)
    return annotate(result, outcomes, 2, "fuse", 0)[0]["images"]


def test_renamed_joined_dropped_and_kept():
    result = mapped(
        "Effusion: Pleural effusion\nMass: Nodule/Mass\nnodule: Nodule/Mass\nHernia: drop\nHealthy: normal",
        [{}, {"labels": (4,), "unlocated": (4,)}, {"labels": (5,)}, {"labels": (1, 4), "unknown": (2,)}],
        [(0, 1, 0, 0, 9, 9), (0, 2, 20, 20, 40, 40), (0, 3, 50, 50, 60, 60), (0, 4, 70, 70, 80, 80)],
    )
    assert names(result) == ["Pleural effusion", "Nodule/Mass"]
    assert result.boxes.labels.tolist() == [1, 2, 2]
    assert result.places == [f"boxes.csv line {line}" for line in (2, 3, 4)]
    first, dropped, normal, both = records(result)
    assert first["labels"] == [1, 2]
    # What it showed is no category any more, but it is not normal.
    assert (dropped["labels"], dropped["dropped"], "unlocated" in dropped) == ([], ["Hernia"], False)
    assert first["dropped"] == ["Hernia"]
    assert normal["labels"] == []
    assert "dropped" not in normal
    assert (both["labels"], both["unknown"], both["dropped"]) == ([1], [2], ["Hernia"])
    assert result.notes["map"] == {
        "file": "map.yaml",
        "names": {
            "Effusion": "Pleural effusion", "Mass": "Nodule/Mass", "Nodule": "Nodule/Mass", "Hernia": "drop",
            "Healthy": "normal",
        },
    }  # fmt: skip


def test_an_unknown_dropped_category_is_remembered_and_one_unknown_part_makes_the_whole_unknown():
    given = [{"unknown": (2, 4)}, {"labels": (3,), "unknown": (2,)}]
    one, other = mapped("Mass: N\nNodule: N\nHernia: drop", given).images
    assert (one.labels, one.unknown, one.extra) == (None, (2,), {"dropped_unknown": ["Hernia"]})
    # A nodule is one, be there a mass or not.
    assert (other.labels, other.unknown) == ((2,), ())


def test_boxes_of_joined_categories_in_one_place_are_one():
    mask = [[20, 20, 40, 20, 40, 40]]
    boxes = [
        (0, 2, 20, 20, 40, 40),
        (0, 3, 20, 20, 40, 41),  # IoU 0.95
        (0, 3, 20, 20, 40, 39),  # another nodule, as near to the mass
        (0, 3, 60, 60, 90, 90),
        (1, 2, 20, 20, 40, 40),
        (1, 1, 20, 20, 40, 40),  # of another category
    ]
    result = mapped("Mass: N\nNodule: N", [{}, {}], boxes, masks={1: mask})
    # That with a mask stays, and the mass goes; the third was no other category before than the one that stays.
    assert result.boxes.boxes.tolist() == [list(map(float, boxes[n][2:])) for n in (1, 2, 3, 4, 5)]
    assert result.masks == {0: mask}
    assert [(drop.where, drop.reason, drop.detail) for drop in result.dropped] == [
        ("boxes.csv line 2", "duplicate row", "boxes.csv line 3 is the same place")
    ]


def test_boxes_of_two_readers_are_left_to_the_fusion():
    boxes = [(0, 2, 20, 20, 40, 40), (0, 3, 20, 20, 40, 40)]
    result = mapped("Mass: N\nNodule: N", [{}], boxes, readers=[("R1",), ("R2",)])
    assert len(result.boxes) == 2
    assert not result.dropped


def test_what_has_no_equal_is_unknown_but_on_normal_radiographs():
    result = mapped(
        "categories: [Other lesion, Nodule/Mass, Calcification]\n"
        "Mass: Nodule/Mass\nNodule: {maybe: Nodule/Mass}\nHernia: {kind of: Other lesion}\nEffusion: drop",
        [{}, {"labels": (3,)}, {"labels": (4,)}, {"normal": True}, {"labels": (2, 3)}],
        [(4, 2, 0, 0, 9, 9)],
    )
    assert names(result) == ["Other lesion", "Nodule/Mass", "Calcification"]
    negative, maybe, kind, normal, both = records(result)
    assert (negative["labels"], negative["unknown"]) == ([], [1, 3])
    assert (maybe["labels"], maybe["unknown"], maybe["dropped"]) == ([], [1, 2, 3], ["Nodule"])
    assert (kind["labels"], kind["unknown"], kind["unlocated"]) == ([1], [3], [1])
    assert normal["labels"] == []
    assert "unknown" not in normal
    # The mass has a box, but a nodule may lie beside it.
    assert (both["labels"], both["unknown"], both["unlocated"]) == ([2], [1, 3], [2])


def test_a_box_of_one_says_nothing_of_the_place_of_another():
    boxes = [(0, 2, 0, 0, 9, 9), (1, 2, 0, 0, 9, 9)]
    given = [{"labels": (2, 3), "unlocated": (2, 3)}, {"labels": (2,), "unlocated": (2,)}]
    first, second = records(mapped("Mass: N\nNodule: N", given, boxes))
    assert first["unlocated"] == [2]
    assert "unlocated" not in second


def test_the_rest():
    assert names(mapped('"*": drop\nMass: keep', [{}])) == ["Mass"]
    assert names(mapped('"*": Finding\nMass: keep', [{}])) == ["Finding", "Mass"]
    assert names(mapped("Mass: Nodule", [{}])) == ["Effusion", "Nodule", "Hernia", "Healthy"]
    # Of a list of categories those that are called so stay.
    assert mapped("categories: [mass, X]\nNodule: X", [{}], [(0, 2, 0, 0, 9, 9)]).boxes.labels.tolist() == [1]


def test_ids_of_the_sources_own_file_stay_where_one_became_one():
    made = source([{}])
    made = dataclasses.replace(made, categories=[c | {"source_category_id": 10 * c["id"]} for c in made.categories])
    result = apply_map(made, parse_map(b"Effusion: E\nMass: N\nNodule: N\nHernia: drop\nHealthy: drop", "m"))
    assert result.categories == [{"id": 1, "name": "E", "source_category_id": 10}, {"id": 2, "name": "N"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "map.yaml needs lines such as"),
        ("- a\n", "map.yaml needs lines such as"),
        ("a: [", "map.yaml is no YAML"),
        ("\xff", "map.yaml"),
        ("Mass: X\nMass: Y", "map.yaml is no YAML .*Mass stands there twice"),
        ("Mass: X\nmass: Y", "map.yaml has two lines for mass"),
        ("Mass:", "Mass becomes ''"),
        ("Mass: null", "Mass becomes 'null': write a name, drop"),
        ("Mass: ~", "Mass becomes '~'"),
        ("Mass: [a]", "Mass becomes"),
        ("Mass: {some of: a}", "Mass becomes"),
        ("Mass: {maybe: [{a: b}]}", "Mass becomes"),
        ("Mas: Nodule/Mass", r"names Mas, and convert made has Effusion, Mass, .*: correct the names"),
        ('"*": drop', "leaves no category of Effusion, Mass"),
        ("categories: []", "categories is a list of different names, or vinbig"),
        ("categories: [a, A]", "categories is a list of different names"),
        ("categories: [X]\nMass: Y", "Y is not among its categories, X"),
    ],
)
def test_what_is_no_map(text, message):
    with pytest.raises(InputError, match=message) as error:
        mapped(text, [{}])
    assert "\n" not in str(error.value)


def test_names_that_yaml_takes_for_something_else():
    result = mapped("Yes: No\n1: 2\nnull: On", [{}], names=["Yes", "1", "null"])
    assert names(result) == ["No", "2", "On"]


def test_files(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml cannot be read \(No such file"):
        read_map(str(tmp_path / "none.yaml"), "nih")
    with pytest.raises(InputError, match=r"--map vinbig: none is shipped for objectcxr \(there are .*nih"):
        read_map("vinbig", "objectcxr")
    assert read_map("vinbig/nih", "predictions").title == "vinbig/nih"


SHIPPED = sorted(
    file.name.removesuffix(".yaml") for file in (resources.files("xray.datasets") / "maps" / "vinbig").iterdir()
)


@pytest.mark.parametrize("kind", SHIPPED)
def test_shipped_maps_lead_to_vinbigdata(kind):
    mapping = read_map("vinbig", kind)
    assert mapping.targets == FINDINGS
    result = apply_map(source([{}, {"normal": True}], names=list(mapping.names.values())), mapping)
    assert names(result) == list(FINDINGS)
    covered = {rule.name for rule in mapping.rules.values() if rule.name and not rule.kind}
    unknown, normal = result.images
    # Nobody looked for the others.
    assert {FINDINGS[number - 1] for number in unknown.unknown} == set(FINDINGS) - covered
    assert normal.unknown == ()
    # Names of sets that a copy does not have are no mistake.
    assert len(apply_map(source([{}], names=["else"]), mapping).images[0].unknown) == 14


def test_nih_by_hand():
    nih = (
        "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
        "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
    )  # fmt: skip
    given = [{"labels": (3, 5)}, {"labels": (7,)}, {}]
    result = apply_map(source(given, names=nih), read_map("vinbig", "nih"))
    shown = [[FINDINGS[number - 1] for number in image.labels or ()] for image in result.images]
    assert shown == [["Nodule/Mass", "Pleural effusion"], [], []]
    never = {"Aortic enlargement", "Calcification", "ILD", "Lung Opacity", "Other lesion"}
    unknown = [{FINDINGS[number - 1] for number in image.unknown} for image in result.images]
    assert unknown == [never, never | {"Consolidation", "Infiltration"}, never]
    assert [image.extra for image in result.images] == [{}, {"dropped": ["Pneumonia"]}, {}]


RULES = st.sampled_from(["drop", "keep", "normal", "A", "B", "{kind of: A}", "{maybe: [B]}"])


@settings(max_examples=60, deadline=None)
@given(st.lists(RULES, min_size=5, max_size=5), st.sets(st.integers(1, 5)), st.sets(st.integers(1, 5)))
def test_nothing_becomes_negative_that_was_not(rules, labels, unknown):
    text = "\n".join(
        f"{name}: '{rule}'" if rule[0] != "{" else f"{name}: {rule}" for name, rule in zip(NAMES, rules, strict=True)
    )
    given = {"labels": tuple(sorted(labels)), "unknown": tuple(sorted(unknown - labels))}
    try:
        result = mapped(text, [given])
    except InputError:
        assert not any(rule in ("keep", "A", "B") or rule[0] == "{" for rule in rules)
        return
    (image,) = result.images
    known = set(image.labels) | set(image.unknown)
    number = {category_map.plain(name): place for place, name in enumerate(names(result), 1)}
    for place, (name, rule) in enumerate(zip(NAMES, rules, strict=True), 1):
        target = {"keep": name, "{kind of: A}": "A", "A": "A", "B": "B"}.get(rule)
        if target and place in labels:
            assert number[category_map.plain(target)] in image.labels
        if target and place in unknown:
            assert number[category_map.plain(target)] in known
        if rule == "{maybe: [B]}" and place in labels | unknown:
            assert number["b"] in known
    assert not set(image.labels) & set(image.unknown)


@pytest.mark.parametrize("word", ["no", "yes", "False", "delete", "Remove", "ignore", "Unknown", "uncertain"])
def test_words_that_mean_something_else_are_no_names(word):
    with pytest.raises(InputError, match=f"Mass becomes {word}, which names no finding: write drop"):
        parse_map(f"Mass: {word}".encode(), "m.yaml")


@pytest.mark.parametrize(("word", "name"), [("Drop", None), ("DROP", None), ("Keep", "Mass")])
def test_drop_and_keep_in_any_case(word, name):
    assert parse_map(f"Mass: {word}".encode(), "m.yaml").rule("Mass").name == name


NORMAL = ["normal", "No finding", "NO FINDING", "no_finding", "Healthy", "healthy control", "Clear", "negative",
          "Unremarkable", "No abnormality detected", "nothing found", "NAD", "Normal chest X-ray"]  # fmt: skip


@pytest.mark.parametrize("word", NORMAL)
def test_whatever_means_that_nothing_was_found_is_no_category(word):
    result = mapped(
        f"A: Mass\nB: {word}\nC: drop", [{"labels": (1,)}, {"labels": (2,)}, {"labels": (1, 2)}], names="ABC"
    )
    assert names(result) == ["Mass"]
    assert [record["labels"] for record in records(result)] == [[1], [], [1]]
    assert [record.get("dropped") for record in records(result)] == [None, None, None]
    assert result.notes["map"]["names"]["B"] == "normal"


@pytest.mark.parametrize("word", NORMAL)
@pytest.mark.parametrize("rule", ["A: {{kind of: {}}}", "A: {{maybe: [Mass, {}]}}", "A: Mass\ncategories: [Mass, {}]"])
def test_and_is_refused_where_a_finding_is_needed(word, rule):
    with pytest.raises(InputError, match=f"name {word}, which means that nothing was found and is no finding: take it"):
        parse_map(rule.format(word).encode(), "m.yaml")


@pytest.mark.parametrize("word", ["none", "None", "null", "~", "NA", "''"])
def test_no_name_is_refused(word):
    with pytest.raises(InputError, match="write a name, drop, keep, normal"):
        parse_map(f"A: {word}".encode(), "m.yaml")


def test_who_keeps_such_a_category_may_join_others_with_it():
    text = "A: normal\nNormal: keep\nC: drop\ncategories: [Normal]"
    result = mapped(text, [{"labels": (1,)}, {"labels": (2,)}], names=["A", "Normal", "C"])
    assert names(result) == ["Normal"]
    assert [record["labels"] for record in records(result)] == [[1], [1]]


@pytest.mark.parametrize("word", ["Normal lung", "Abnormal", "No pneumonia", "Clear fluid"])
def test_what_only_begins_so_is_a_name(word):
    assert names(mapped(f"A: {word}", [{"labels": (1,)}], names=["A"])) == [word]
