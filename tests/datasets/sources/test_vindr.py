"""VinDr-CXR of PhysioNet: three readers, 22 local and 5 global findings, and a consensus test in other words."""

import pytest
from source_cases import told, why, write_dicom, write_picture

from xray.datasets import source as reasons
from xray.datasets.annotation import annotate
from xray.datasets.source import CONTRADICTORY, SIZE_UNKNOWN
from xray.datasets.sources.set_tables import UNKNOWN_FINDING
from xray.datasets.sources.vindr import GLOBAL, LOCAL, UNKNOWN_COLUMN, read_vindr
from xray.errors import InputError

TRAIN = (
    "a,R8,Rib fracture,10,20,30,40",
    "a,R9,Rib fracture,12,20,32,40",
    "a,R10,No finding,,,,",
    "b,R8,No finding,,,,",
    "b,R9,No finding,,,,",
    "b,R10,No finding,,,,",
)
TEST = ("t,Enlarged PA,1.5,2,3,4", "u,No finding,,,,")


def labels(rows, others, readers=True):
    """A table of labels; rows: (image, reader, names of what is 1)."""
    columns = (*LOCAL, *GLOBAL[:-1], others, "No finding")
    lines = [",".join(["image_id", *(["rad_id"] if readers else []), *columns])]
    for image, reader, names in rows:
        said = [str(int(name in names)) for name in columns]
        lines.append(",".join([image, *([reader] if readers else []), *said]))
    return "\n".join(lines) + "\n"


TRAIN_LABELS = (
    ("a", "R8", ["Rib fracture", "Pneumonia", "Tuberculosis", "Other diseases"]),
    ("a", "R9", ["Rib fracture", "Pneumonia"]),
    ("a", "R10", ["No finding"]),
    ("b", "R8", ["No finding"]),
    ("b", "R9", ["No finding"]),
    ("b", "R10", ["No finding"]),
)
TEST_LABELS = (("t", "", ["Enlarged PA", "Other disease"]), ("u", "", ["No finding"]))


@pytest.fixture
def write(tmp_path):
    """(train=…, test=…, train_labels=…, test_labels=…) → the set's folder with DICOM files a and b, t and u."""

    def make(train=TRAIN, test=TEST, train_labels=TRAIN_LABELS, test_labels=TEST_LABELS, suffix="dicom"):
        folder = tmp_path / "annotations"
        folder.mkdir(exist_ok=True)
        for split, names in (("train", "ab"), ("test", "tu")):
            for name in names:
                path = tmp_path / split / f"{name}.{suffix}"
                (write_dicom if suffix == "dicom" else write_picture)(path, 60, 40)
        coordinates = "x_min,y_min,x_max,y_max"
        for name, header, rows in (
            ("train", f"image_id,rad_id,class_name,{coordinates}", train),
            ("test", f"image_id,class_name,{coordinates}", test),
        ):
            if rows is not None:
                (folder / f"annotations_{name}.csv").write_text("\n".join([header, *rows]) + "\n")
        if train_labels is not None:
            (folder / "image_labels_train.csv").write_text(labels(train_labels, "Other diseases"))
        if test_labels is not None:
            (folder / "image_labels_test.csv").write_text(labels(test_labels, "Other disease", readers=False))
        return tmp_path

    return make


def test_readers_boxes_and_diagnoses_are_what_the_tables_say(write):
    source = read_vindr(write())
    of = told(source)
    assert len(source.categories) == 27
    assert of["a"]["boxes"] == [("Rib fracture", 10, 20, 30, 40, "R8"), ("Rib fracture", 12, 20, 32, 40, "R9")]
    # Two of three say pneumonia; one of three each tuberculosis and another disease.
    assert of["a"]["labels"] == of["a"]["unlocated"] == ["Rib fracture", "Pneumonia"]
    assert of["a"]["unknown"] == ["Tuberculosis", "Other diseases"]
    assert of["a"]["split"] == "train"
    assert (of["b"]["labels"], of["b"]["unknown"], of["b"]["boxes"]) == ([], [], [])
    assert source.images[[image.source_id for image in source.images].index("a")].readers == ("R8", "R9", "R10")
    # The test set is a consensus without readers, and calls the column "Other disease".
    assert of["t"] == {
        "split": "test", "patient": None, "size": (None, None), "labels": ["Enlarged PA", "Other diseases"],
        "unlocated": ["Enlarged PA", "Other diseases"], "unknown": [], "boxes": [("Enlarged PA", 1.5, 2, 3, 4)],
    }  # fmt: skip
    assert (of["u"]["split"], of["u"]["labels"], of["u"]["unknown"]) == ("test", [], [])
    assert why(source) == []


def test_the_readers_boxes_of_a_training_radiograph_are_fused_and_those_of_the_test_set_are_not(write):
    source = read_vindr(write(test=["t,Mediastinal shift,1,2,30,40", "t,Mediastinal shift,1,2,31,40"]))
    outcomes = [{"width": 60, "height": 40}] * len(source.images)
    content, _ = annotate(source, outcomes, 2, "fuse", 0)
    by_image = {image["source_id"]: image["id"] for image in content["images"]}
    rows = {name: [row for row in content["annotations"] if row["image_id"] == by_image[name]] for name in "at"}
    assert [(row["bbox"], row["readers"]) for row in rows["a"]] == [([11, 20, 20, 20], ["R8", "R9"])]
    assert [row["bbox"] for row in rows["t"]] == [[1, 2, 29, 38], [1, 2, 30, 38]]
    # Where the fracture is, is known; where the pneumonia is, is not.
    names = {category["id"]: category["name"] for category in content["categories"]}
    record = next(image for image in content["images"] if image["source_id"] == "a")
    assert [names[number] for number in record["unlocated"]] == ["Pneumonia"]


def test_without_tables_of_labels_all_diagnoses_are_unknown(write):
    of = told(read_vindr(write(train_labels=None, test_labels=None)))
    assert {tuple(image["unknown"]) for image in of.values()} == {GLOBAL}
    assert of["a"]["labels"] == []


def test_a_label_without_a_box_lies_somewhere_and_one_alone_in_its_table_is_unknown_elsewhere(write):
    rows = [*TRAIN_LABELS[:3], ("b", "R8", ["Lung cyst", "COPD"])]
    of = told(read_vindr(write(train_labels=rows)))
    # A single reader is half of the readers.
    assert of["b"]["labels"] == of["b"]["unlocated"] == ["Lung cyst", "COPD"]
    of = told(read_vindr(write(train=TRAIN[:3], train_labels=rows)))
    assert of["b"]["labels"] == ["Lung cyst", "COPD"]


def test_only_the_training_set_is_enough(write):
    assert sorted(told(read_vindr(write(test=None)))) == ["a", "b"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("b,R8,Gallstone,1,2,3,4", UNKNOWN_FINDING),
        ("b,R8,Edema,1,2,3,", reasons.NOT_A_NUMBER),
        ("b,R8,Edema,5,2,3,4", reasons.INVERTED),
        ("b,R8,Edema,3,2,3,4", reasons.EMPTY),
    ],
)
def test_a_row_that_cannot_be_used_costs_its_radiograph(write, row, reason):
    source = read_vindr(write(train=[*TRAIN, row]))
    assert sorted(told(source)) == ["a", "t", "u"]
    assert ("annotations_train.csv line 8", reason) in why(source)


def test_a_reader_who_sees_nothing_and_something_sees_something(write):
    source = read_vindr(write(train=[*TRAIN, "b,R8,Edema,1,2,3,4"]))
    assert told(source)["b"]["boxes"] == [("Edema", 1, 2, 3, 4, "R8")]
    assert ("annotations_train.csv line 5", CONTRADICTORY) in why(source)


def test_damaged_labels_and_columns_of_other_sets(write):
    root = write()
    path = root / "annotations" / "image_labels_train.csv"
    lines = path.read_text().splitlines()
    lines = [lines[0] + ",Scoliosis", *(line + ",0" for line in lines[1:])]
    lines[4] = lines[4].replace("b,R8,0", "b,R8,maybe")
    path.write_text("\n".join([*lines, lines[5]]))
    source = read_vindr(root)
    assert sorted(told(source)) == ["a", "t", "u"]
    found = why(source)
    assert ("image_labels_train.csv", UNKNOWN_COLUMN) in found
    assert ("image_labels_train.csv line 5", UNKNOWN_FINDING) in found
    assert ("image_labels_train.csv line 8", reasons.DUPLICATE) in found


def test_pictures_need_the_sizes_of_the_originals(write):
    root = write(suffix="png")
    with pytest.raises(InputError, match=f"no radiograph of .* can be used: 4 x {SIZE_UNKNOWN}"):
        read_vindr(root)
    (root / "train_meta.csv").write_text("image_id,dim0,dim1\na,2000,3000\n")
    source = read_vindr(root)
    assert (told(source)["a"]["size"], list(told(source))) == ((3000, 2000), ["a"])
    assert source.squashed


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"train": None, "test": None}, r"has neither annotations_train.csv nor annotations_test.csv"),
        ({"train": [",R8,Edema,1,2,3,4"]}, "line 2 has a finding but no image_id"),
        ({"train": ["a,R8,Edema,.1,.2,.3,.4"]}, "all its boxes lie between 0 and 1"),
    ],
)
def test_tables_that_cannot_be_used_stop_the_conversion(write, kwargs, message):
    root = write(**kwargs)
    with pytest.raises(InputError, match=message):
        read_vindr(root)


@pytest.mark.parametrize("order", [1, -1])
def test_two_rows_of_one_reader_that_differ(write, order):
    more = (*TRAIN_LABELS, ("b", "R8", ["Pneumonia"]), TRAIN_LABELS[1])
    source = read_vindr(write(train_labels=more[::order]))
    assert sorted(told(source)) == ["a", "t", "u"]
    assert sorted(reason for _, reason in why(source)) == sorted(
        [CONTRADICTORY, reasons.DUPLICATE, reasons.NO_BOX_LEFT]
    )
