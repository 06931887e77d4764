"""Sides in the names of categories: what swaps on a mirrored radiograph, and what a hand may say to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.errors import InputError
from xray.findings import CATEGORIES
from xray.structures.sides import Swap, by_name, chosen, from_pairs, mirrored, told

OPPOSITES = [
    ("Left lung", "Right lung"),
    ("left-lung", "right-lung"),
    ("left_lung", "right_lung"),
    ("lung_left", "lung_right"),
    ("LeftLung", "RightLung"),
    ("leftLung", "rightLung"),
    ("LEFT LUNG", "RIGHT LUNG"),
    ("Lung (left)", "Lung (right)"),
    ("Lung, left", "Lung, right"),
    ("lung/left", "lung/right"),
    ("left lung ", "Right lung"),
    ("Left  lung", "right\tlung"),
    ("leftlung", "rightlung"),
    ("leftmask", "rightmask"),
    ("left", "right"),
    ("Left lung", "lung right"),
    ("Left_Lung_Nodule", "Right_Lung_Nodule"),
    ("Left-sided effusion", "Right-sided effusion"),
    ("left lung 1", "right lung 1"),
    ("L lung", "R lung"),
    ("lung L", "lung R"),
    ("lung_l", "lung_r"),
    ("lungL", "lungR"),
    ("LLung", "RLung"),
    ("(L) lung", "(R) lung"),
    ("L lung", "Right lung"),
    ("L", "R"),
    ("Lt. lung", "Rt. lung"),
    # Ribs of VinDr-RibCXR; lobes and angles as radiologists write them.
    ("L10", "R10"),
    ("LUL", "RUL"),
    ("LLL", "RLL"),
    ("LCPA", "RCPA"),
    ("Linke Lunge", "Rechte Lunge"),
    ("Lunge links", "Lunge rechts"),
    ("Linksseitiger Erguss", "Rechtsseitiger Erguss"),
    ("linksbasal", "rechtsbasal"),
    ("poumon gauche", "poumon droit"),
    ("Plèvre gauche", "Plèvre droite"),
    ("poumon G", "poumon D"),
    ("pulmón izquierdo", "pulmón derecho"),
    ("polmone sinistro", "polmone destro"),
    ("pulmão esquerdo", "pulmão direito"),
    ("linkerlong", "rechterlong"),
    ("płuco lewe", "płuco prawe"),
    ("vänster lunga", "höger lunga"),
    ("lung sin.", "lung dex."),
    ("левое легкое", "правое легкое"),
    ("phổi trái", "phổi phải"),
    ("左肺", "右肺"),
    ("왼쪽 폐", "오른쪽 폐"),
]


@pytest.mark.parametrize(("left", "right"), OPPOSITES)
def test_opposites_swap(left, right):
    assert by_name({3: left, 7: right, 8: "Nodule"}) == Swap({3: 7, 7: 3, 8: 8})
    assert mirrored({1: right, 2: left}) == {1: 2, 2: 1}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("copyright", "copyleft"),
        ("leftover", "rightover"),
        ("leftmask", "rightward"),
        ("Left lung", "Right heart"),
        ("Left lung", "Right lung nodule"),
        ("light", "right"),
        ("LAD", "RAD"),
        ("Lung", "Rung"),
        ("Reader L", "Lesion R"),
        ("grade d", "grade g"),
        ("left lung L1", "left lung R1"),
    ],
)
def test_names_that_only_look_like_opposites_stay(one, other):
    assert mirrored({1: one, 2: other}) == {1: 1, 2: 2}


def test_the_findings_have_no_sides():
    categories = {category["id"]: category["name"] for category in CATEGORIES}
    assert by_name(categories) == Swap({number: number for number in range(1, 15)})


@pytest.mark.parametrize(
    ("names", "alone"),
    [
        (["Pleural effusion left", "Cardiomegaly"], ["Pleural effusion left"]),
        (["Left ventricular enlargement"], ["Left ventricular enlargement"]),
        (["RUL", "RML", "RLL", "LUL", "LLL"], ["RML"]),
        (["L1", "R1", "L2"], ["L2"]),
        # A letter alone is no side.
        (["L1 fracture", "Reader R9", "Vitamin D"], []),
        (["left and right lung"], []),
        (["Left lung", "Right lung", "Heart"], []),
    ],
)
def test_a_side_without_its_opposite_is_told(names, alone):
    found = by_name(dict(enumerate(names, 1)))
    assert list(found.alone) == alone
    assert all(found.of[number] == number for number, name in enumerate(names, 1) if name in alone)


def test_two_names_for_one_side_are_told_apart_by_their_spelling_or_not_at_all():
    four = {1: "left lung", 2: "Left_Lung", 3: "right lung", 4: "Right_Lung"}
    assert mirrored(four) == {1: 3, 3: 1, 2: 4, 4: 2}
    three = {1: "left/lung", 2: "left_lung", 3: "right lung"}
    assert by_name(three) == Swap({1: 1, 2: 2, 3: 3}, ("left/lung", "left_lung", "right lung"))


WORDS = st.sampled_from(["left", "Right", "L", "R", "lung", "LeftLung", "links", "rechts", "_", " ", "(", "1", "LUL"])
NAMES = st.lists(WORDS, min_size=1, max_size=4).map("".join) | st.text(max_size=12)


@given(st.lists(NAMES, max_size=8, unique=True))
def test_swapping_twice_changes_nothing(names):
    categories = dict(enumerate(names, 1))
    found = by_name(categories)
    assert found.of.keys() == categories.keys()
    assert all(found.of[other] == one for one, other in found.of.items())
    assert from_pairs(categories, [list(pair) for pair in found.pairs]) == found.of
    assert {found.of[number] for number, name in categories.items() if name in found.alone} <= {
        number for number, name in categories.items() if name in found.alone
    }


LUNGS = {1: "Left lung", 2: "Right lung", 3: "A side", 4: "B=side", 5: "Effusion left"}


@pytest.mark.parametrize(
    ("said", "of", "alone"),
    [
        (["auto"], {1: 2, 2: 1, 3: 3, 4: 4, 5: 5}, ["Effusion left"]),
        (["none"], {1: 1, 2: 2, 3: 3, 4: 4, 5: 5}, []),
        (["A side=B=side"], {1: 2, 2: 1, 3: 4, 4: 3, 5: 5}, ["Effusion left"]),
        ([" a SIDE = b=side ", "Effusion left=Effusion left"], {1: 2, 2: 1, 3: 4, 4: 3, 5: 5}, []),
        (["none", "B=side=A side"], {1: 1, 2: 2, 3: 4, 4: 3, 5: 5}, []),
        (["Left lung=A side"], {1: 3, 3: 1, 2: 2, 4: 4, 5: 5}, ["Right lung", "Effusion left"]),
        (["Left lung=Left lung", "Right lung=Right lung"], {1: 1, 2: 2, 3: 3, 4: 4, 5: 5}, ["Effusion left"]),
    ],
)
def test_pairs_by_hand(said, of, alone):
    found = chosen(LUNGS, said)
    assert (found.of, list(found.alone)) == (of, alone)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["Left lung=Liver"], "'Liver' is no category of this dataset; it has Left lung, Right lung"),
        (["Spleen=Liver"], "'Spleen' is no category"),
        (["Left lung=Right lung", "Left lung=A side"], "'Left lung' in two pairs"),
    ],
)
def test_pairs_that_cannot_be(said, message):
    with pytest.raises(InputError, match=message):
        chosen(LUNGS, said)


def test_what_training_says():
    lungs = by_name({1: "Left lung", 2: "Right lung"})
    assert told(lungs, {1: "Left lung", 2: "Right lung"}, True) == "mirrored radiographs swap Left lung ↔ Right lung"
    assert told(Swap({1: 1}), {1: "Nodule"}, True) == (
        "radiographs are mirrored at random; no category changes its name by that"
    )
    assert told(Swap({1: 1}), {1: "Nodule"}, False) == "no radiograph is mirrored"
    line = told(by_name({1: "Effusion left"}), {1: "Effusion left"}, False)
    assert line.startswith("no radiograph is mirrored: 'Effusion left' names a side, and its opposite is no category")
    assert (
        told(by_name({1: "Effusion left"}), {1: "Effusion left"}, True, names_sides=False) == "radiographs are mirrored"
    )
    many = {number: f"{side} rib {number // 2}" for number in range(2, 22) for side in [("left", "right")[number % 2]]}
    assert told(by_name(many), many, True).endswith("left rib 6 ↔ right rib 6 and 4 more pairs")


@pytest.mark.parametrize("pairs", [[[1, 1]], [[1, 9]], [[1, 2], [2, 3]], [[1]], [1], [["1", "2"]]])
def test_damaged_pairs_of_a_run(pairs):
    with pytest.raises((ValueError, TypeError)):
        from_pairs({1: "a", 2: "b", 3: "c"}, pairs)
