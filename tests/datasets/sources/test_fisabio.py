"""SIIM-FISABIO-RSNA COVID-19: two columns of the same boxes, ids with suffixes, studies of several radiographs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_cases import told, why, write_dicom, write_picture

from xray.datasets import source as reasons
from xray.datasets.source import CONTRADICTORY, NOT_IN_TABLE, SIZE_UNKNOWN
from xray.datasets.sources.fisabio import (
    CATEGORIES,
    CLASS_UNKNOWN,
    DISAGREE,
    NO_LABEL,
    REPEATED,
    UNREADABLE_BOXES,
    boxes_of,
    read_fisabio,
)
from xray.errors import InputError

LISTED = "\"[{'x': 7.5, 'y': 5, 'width': 10.25, 'height': 19}, {'x': 22, 'y': 6, 'width': 11, 'height': 17.5}]\""
SPELT = "opacity 1 7.5 5 17.75 24 opacity 1 22 6 33 23.5"
NONE = "none 1 0 0 1 1"
IMAGES = (
    f"000a_image,{LISTED},{SPELT},5776_study",
    f"000b_image,,{NONE},ff08",
    f"000c_image,,{NONE},5776",
    f"000d_image,,{NONE},0fd5",
)
STUDIES = ("5776_study,0,1,0,0", "ff08_study,1,0,0,0", "0fd5_study,0,0,0,1")
HEADER = "id,Negative for Pneumonia,Typical Appearance,Indeterminate Appearance,Atypical Appearance"


@pytest.fixture
def write(tmp_path):
    """(images, studies) → the set's folder with DICOM files of 60 x 40, and one of the test set."""

    def make(images=IMAGES, studies=STUDIES, header="id,boxes,label,StudyInstanceUID", suffix="dcm"):
        for name, study in (("000a", "5776"), ("000b", "ff08"), ("000c", "5776"), ("000d", "0fd5")):
            path = tmp_path / "train" / study / "series" / f"{name}.{suffix}"
            (write_dicom if suffix == "dcm" else write_picture)(path, 60, 40)
        write_dicom(tmp_path / "test" / "eeee" / "series" / "000e.dcm", 60, 40)
        (tmp_path / "train_image_level.csv").write_text("\n".join([header, *images]) + "\n")
        if studies is not None:
            (tmp_path / "train_study_level.csv").write_text("\n".join([HEADER, *studies]) + "\n")
        return tmp_path

    return make


def test_boxes_classes_and_studies_are_what_the_tables_say(write):
    source = read_fisabio(write())
    of = told(source)
    assert [category["name"] for category in source.categories] == [
        "opacity", "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance"
    ]  # fmt: skip
    assert of["000a"] == {
        "split": "train", "patient": "5776", "size": (None, None), "labels": ["Typical Appearance"],
        "unlocated": ["Typical Appearance"], "unknown": [],
        "boxes": [("opacity", 7.5, 5, 17.75, 24), ("opacity", 22, 6, 33, 23.5)],
    }  # fmt: skip
    assert (of["000b"]["labels"], of["000b"]["unknown"], of["000b"]["patient"]) == ([], [], "ff08")
    # Another radiograph of the study has opacities: that this one has none was hardly looked at.
    assert (of["000c"]["labels"], of["000c"]["unknown"]) == (["Typical Appearance"], ["opacity"])
    # Atypical, and free of opacities by itself.
    assert (of["000d"]["labels"], of["000d"]["unknown"]) == (["Atypical Appearance"], [])
    assert why(source) == [("test/eeee/series/000e.dcm", NOT_IN_TABLE)]


def test_without_the_table_of_studies_their_classes_are_unknown(write):
    of = told(read_fisabio(write(studies=None)))
    assert of["000b"]["unknown"] == list(CATEGORIES[1:])
    assert of["000c"]["unknown"] == list(CATEGORIES)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("id,boxes,StudyInstanceUID", f"000a_image,{LISTED},5776"),
        ("id,label,StudyInstanceUID", f"000a_image,{SPELT},5776"),
        ("id,boxes,label,StudyInstanceUID", f"000a_image,{LISTED},,5776"),
        ("id,boxes,label", f"000a,{LISTED},{SPELT}"),
    ],
)
def test_one_of_the_two_columns_is_enough(write, header, row):
    boxes = told(read_fisabio(write([row], header=header)))["000a"]["boxes"]
    assert boxes == [("opacity", 7.5, 5, 17.75, 24), ("opacity", 22, 6, 33, 23.5)]


def test_rounding_and_order_are_no_disagreement(write):
    spelt = "opacity 1 22 6 33.05 23.45 opacity 1 7.5 5 17.8 24"
    assert len(told(read_fisabio(write([f"000a_image,{LISTED},{spelt},5776"])))["000a"]["boxes"]) == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        # Taken for x, y, width and height; moved; one fewer; none.
        (f"000a_image,{LISTED},opacity 1 7.5 5 10.25 19 opacity 1 22 6 11 17.5,5776", DISAGREE),
        (f"000a_image,{LISTED},opacity 1 8.5 5 18.75 24 opacity 1 22 6 33 23.5,5776", DISAGREE),
        (f"000a_image,{LISTED},opacity 1 7.5 5 17.75 24,5776", DISAGREE),
        (f"000a_image,{LISTED},{NONE},5776", DISAGREE),
        (f"000a_image,,{SPELT},5776", DISAGREE),
        (f"000a_image,[{{'x': 7.5}}],{SPELT},5776", UNREADABLE_BOXES),
        (f"000a_image,__import__('os'),{SPELT},5776", UNREADABLE_BOXES),
        (f"000a_image,{'[' * 500},{SPELT},5776", UNREADABLE_BOXES),
        (f"000a_image,{LISTED},opacity 1 7.5 5 17.75,5776", UNREADABLE_BOXES),
        (f"000a_image,{LISTED},covid 1 7.5 5 17.75 24,5776", UNREADABLE_BOXES),
        ("000a_image,,,5776", NO_LABEL),
        ("000a_image,\"[{'x': 'a', 'y': 1, 'width': 2, 'height': 2}]\",opacity 1 a 1 b 3,5776", reasons.NOT_A_NUMBER),
        ("000a_image,\"[{'x': 1, 'y': 1, 'width': -2, 'height': 2}]\",opacity 1 1 1 -1 3,5776", reasons.INVERTED),
        ("000a_image,\"[{'x': 1, 'y': 1, 'width': 0, 'height': 2}]\",opacity 1 1 1 1 3,5776", reasons.EMPTY),
    ],
)
def test_a_row_that_cannot_be_used_costs_its_radiograph(write, row, reason):
    source = read_fisabio(write([row, *IMAGES[1:]]))
    assert sorted(told(source)) == ["000b", "000c", "000d"]
    assert ("train_image_level.csv line 2", reason) in why(source)


def test_two_rows_of_one_radiograph_cost_it(write):
    source = read_fisabio(write([*IMAGES, f"000b,,{NONE},ff08"]))
    assert sorted(told(source)) == ["000a", "000c", "000d"]
    assert ("train_image_level.csv line 6", REPEATED) in why(source)
    # But where they say the same, one is enough.
    twice = read_fisabio(write([*IMAGES, IMAGES[0]]))
    assert told(twice) == told(read_fisabio(write(IMAGES)))
    assert ("train_image_level.csv line 6", reasons.DUPLICATE) in why(twice)


@pytest.mark.parametrize(
    ("studies", "where"),
    [
        (["ff08_study,1,1,0,0"], ("train_study_level.csv line 4", CLASS_UNKNOWN)),
        (["ff08_study,1,0,0,0", "ff08_study,0,1,0,0"], ("train_study_level.csv line 5", CONTRADICTORY)),
        (["ff08_study,yes please,0,0,0"], ("train_study_level.csv line 4", CLASS_UNKNOWN)),
        (["ff08_study,0,0,0,0"], ("train_study_level.csv line 4", CLASS_UNKNOWN)),
        ([], ("train_image_level.csv line 3", CLASS_UNKNOWN)),
    ],
)
def test_a_study_of_several_classes_or_none_is_unknown(write, studies, where):
    source = read_fisabio(write(studies=[STUDIES[0], STUDIES[2], *studies]))
    assert told(source)["000b"]["unknown"] == list(CATEGORIES[1:])
    assert where in why(source)


def test_sizes_that_somebody_has_added_to_the_table_are_those_of_the_originals(write):
    images = [f"{row},{width},80" for row, width in zip(IMAGES, (120, 121, 122, 123), strict=True)]
    root = write(images, suffix="png", header="id,boxes,label,StudyInstanceUID,width,height")
    source = read_fisabio(root)
    sizes = {image.source_id: (image.width, image.height) for image in source.images}
    assert sizes == {"000a": (120, 80), "000b": (121, 80), "000c": (122, 80), "000d": (123, 80)}
    # Where another table says something else, none is known.
    (root / "meta.csv").write_text("image_id,dim0,dim1\n000a,80,60\n")
    source = read_fisabio(root)
    assert sorted(image.source_id for image in source.images) == ["000b", "000c", "000d"]
    assert ("train/5776/series/000a.png", SIZE_UNKNOWN) in why(source)


def test_pictures_need_the_sizes_of_the_originals(write):
    root = write(suffix="png")
    with pytest.raises(InputError, match=f"no radiograph of .* can be used: 4 x {SIZE_UNKNOWN}"):
        read_fisabio(root)
    rows = [f"{name},2000,3000,train" for name in ("000a", "000b", "000c", "000d")]
    (root / "meta.csv").write_text("\n".join(["image_id,dim0,dim1,split", *rows]))
    source = read_fisabio(root)
    assert {image["size"] for image in told(source).values()} == {(3000, 2000)}
    assert source.squashed


@pytest.mark.parametrize(
    ("images", "header", "message"),
    [
        ([f"_image,{LISTED},{SPELT},5776"], None, "has a finding but no id"),
        ([f",{LISTED},{SPELT},5776"], None, "line 2 has a finding but no id"),
        (["000a_image,5776"], "id,StudyInstanceUID", "has neither the column boxes nor label"),
        (["000a_image,opacity 1 .1 .2 .3 .4"], "id,label", "all its boxes lie between 0 and 1"),
    ],
)
def test_tables_that_cannot_be_used_stop_the_conversion(write, images, header, message):
    root = write(images, header=header or "id,boxes,label,StudyInstanceUID")
    with pytest.raises(InputError, match=message):
        read_fisabio(root)
    (root / "train_image_level.csv").unlink()
    with pytest.raises(InputError, match=r"has no train_image_level.csv"):
        read_fisabio(root)


SIDES = st.tuples(*[st.floats(0, 4000, allow_nan=False).map(lambda value: round(value, 5))] * 4)


@given(st.lists(SIDES, max_size=4))
def test_both_columns_of_any_boxes_agree(sides):
    listed = str([dict(zip(("x", "y", "width", "height"), box, strict=True)) for box in sides])
    spelt = " ".join(f"opacity 1 {x} {y} {x + width} {y + height}" for x, y, width, height in sides) or NONE
    boxes, fault = boxes_of(listed if sides else "", spelt)
    assert fault == ""
    assert boxes == [[x, y, x + width, y + height] for x, y, width, height in sides]


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_other_text_is_a_fault_or_no_box(boxes, label):
    found, fault = boxes_of(boxes, label)
    assert found == [] or fault == ""
