"""NIH ChestX-ray14: the header with commas of its own, boxes in pixels of 1024, labels without boxes, both splits."""

import json

import pytest
from source_cases import told, why, write_picture

from xray.datasets import source as reasons
from xray.datasets.conversion import write_store
from xray.datasets.source import CONTRADICTORY
from xray.datasets.sources.nih import ALL_BOXES_IN_TEST, CATEGORIES, IN_NO_LIST, read_nih
from xray.datasets.sources.set_tables import FAR_BEYOND, UNKNOWN_FINDING
from xray.errors import InputError
from xray.radiographs.file_kinds import LINK

ENTRY = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient {},View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
BOXES = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
ROWS = (
    "00000001_000.png,Cardiomegaly|Effusion,0,1,57,M,PA,2682,2749,0.143,0.143",
    "00000001_001.png,No Finding,1,1,58,M,PA,2682,2749,0.143,0.143",
    "00000002_000.png,Infiltration,0,2,93,F,AP,2500,2048,0.168,0.168",
    "00000003_000.png,Hernia|Pleural_Thickening,0,3,4,F,PA,2500,2048,0.168,0.168",
)
NAMES = tuple(row.partition(",")[0] for row in ROWS)


@pytest.fixture
def write(tmp_path):
    """(entries, boxes, header=…) → the set's folder, whose four pictures have 64 x 64 pixels."""

    def make(entries=ROWS, boxes=(), header=None, box_header=BOXES, table="Data_Entry_2017_v2020.csv"):
        for number, name in enumerate(NAMES):
            write_picture(tmp_path / f"images_00{number % 2 + 1}" / "images" / name, 64, 64, offset=number)
        if entries is not None:
            (tmp_path / table).write_text("\n".join([header or ENTRY.format("Sex"), *entries]) + "\n")
        if boxes is not None:
            (tmp_path / "BBox_List_2017.csv").write_text("\n".join([box_header, *boxes]) + "\n")
        return tmp_path

    return make


@pytest.mark.parametrize("word", ["Sex", "Gender"])
def test_labels_boxes_and_people_are_what_the_tables_say(write, word):
    root = write(
        header=ENTRY.format(word),
        boxes=[
            "00000001_000.png,Cardiomegaly,225.084745762712,547.019216763771,86.7796610169491,79.1864406779661",
            "00000002_000.png,Infiltrate,100,200,300,400",
        ],
    )
    source = read_nih(root)
    of = told(source)
    assert [category["name"] for category in source.categories] == list(CATEGORIES)
    first = of["00000001_000"]
    # x, y, width, height: 225.084745762712 + 86.7796610169491, 547.019216763771 + 79.1864406779661.
    name, *corners = first["boxes"][0]
    assert name == "Cardiomegaly"
    assert corners == pytest.approx(
        [225.084745762712, 547.019216763771, 311.8644067796611, 626.2056574417371], abs=1e-6
    )
    assert (first["size"], first["patient"], first["labels"]) == ((1024, 1024), "1", ["Cardiomegaly", "Effusion"])
    assert (of["00000001_001"]["labels"], of["00000001_001"]["unknown"]) == ([], [])
    assert of["00000002_000"]["boxes"] == [("Infiltration", 100, 200, 400, 600)]
    assert of["00000003_000"]["unlocated"] == ["Hernia", "Pleural_Thickening"]
    assert [image.extra for image in source.images] == [
        {"view": "PA", "sex": "M", "age": "50-59"},
        {"view": "AP", "sex": "F", "age": "90+"},
        {"view": "PA", "sex": "M", "age": "50-59"},
        {"view": "PA", "sex": "F", "age": "0-9"},
    ]
    assert why(source) == []


def test_a_dataset_says_what_has_no_box_and_boxes_stay_in_pixels_of_1024(write, tmp_path):
    root = write(boxes=["00000001_000.png,Effusion,512,256,128,64"])
    write_store(read_nih(root), tmp_path / "out", image_size=32, n_folds=2)
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    record = next(image for image in content["images"] if image["source_id"] == "00000001_000")
    assert (record["width"], record["labels"], record["unlocated"]) == (1024, [2, 3], [2])
    assert [row["bbox"] for row in content["annotations"]] == [[512, 256, 128, 64]]
    # One patient, one fold.
    folds = {image["source_id"]: image["fold"] for image in content["images"]}
    assert folds["00000001_000"] == folds["00000001_001"]


def test_of_a_radiograph_that_only_the_boxes_name_the_other_findings_are_unknown(write):
    root = write(entries=ROWS[:2], boxes=["00000002_000.png,Mass,100,200,300,400"])
    of = told(read_nih(root))
    assert of["00000002_000"]["unknown"] == list(CATEGORIES)
    assert of["00000002_000"]["boxes"] == [("Mass", 100, 200, 400, 600)]
    assert of["00000002_000"]["patient"] == "2"  # as its name says
    assert of["00000001_001"]["unknown"] == []
    assert "00000003_000" not in of  # neither table names it
    write_store(read_nih(root), root / "out", image_size=32, n_folds=2)
    records = json.loads((root / "out" / "annotations.json").read_text())["images"]
    record = next(image for image in records if image["source_id"] == "00000002_000")
    assert (record["labels"], record["unknown"]) == ([5], [number for number in range(1, 15) if number != 5])


def test_the_table_of_boxes_alone_is_enough(write):
    root = write(entries=None, boxes=[f"{name},Nodule,10,20,30,40" for name in NAMES[:2]])
    of = told(read_nih(root))
    assert sorted(of) == ["00000001_000", "00000001_001"]
    assert all(image["patient"] == "1" for image in of.values())


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"train_val_list.txt": NAMES[:3], "test_list.txt": NAMES[3:]}, ["train", "train", "train", "test"]),
        ({"test_list.txt": NAMES[2:3]}, ["train", "train", "test", "train"]),
        ({"train_val_list.txt": NAMES[:2]}, ["train", "train", "test", "test"]),
        ({}, ["train"] * 4),
    ],
)
def test_the_official_split_is_kept(write, lists, expected):
    root = write()
    for name, names in lists.items():
        (root / name).write_text("\r\n".join(names) + "\n")
    assert [told(read_nih(root))[name.removesuffix(".png")]["split"] for name in NAMES] == expected


def test_boxes_that_are_all_in_the_test_set_are_told(write):
    root = write(boxes=["00000001_000.png,Effusion,1,2,3,4"])
    (root / "test_list.txt").write_text(NAMES[0])
    assert [warning.kind for warning in read_nih(root).warnings] == [ALL_BOXES_IN_TEST]
    (root / "test_list.txt").write_text(NAMES[1])
    assert read_nih(root).warnings == []


def test_a_radiograph_in_both_lists_stops_the_conversion(write):
    root = write()
    (root / "train_val_list.txt").write_text("\n".join(NAMES))
    (root / "test_list.txt").write_text(NAMES[1])
    with pytest.raises(InputError, match=r"00000001_001.png stands in train_val_list.txt and in test_list.txt"):
        read_nih(root)


def test_the_small_edition_and_one_flat_folder_of_jpeg_files(tmp_path):
    for number, name in enumerate(NAMES):
        write_picture(tmp_path / "sample" / "images" / name.replace(".png", ".jpg"), 64, 64, offset=number)
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y"
    )
    rows = [row.replace(",57,", ",057Y,") for row in ROWS]
    (tmp_path / "sample" / "sample_labels.csv").write_text("\n".join([header, *rows]))
    source = read_nih(tmp_path)
    assert told(source)["00000001_000"]["labels"] == ["Cardiomegaly", "Effusion"]
    assert source.images[0].extra == {"view": "PA", "sex": "M", "age": "50-59"}


def test_headers_that_other_programs_have_written(write):
    # Quoted, so that the brackets keep their commas; and as pandas writes the file again.
    quoted = ENTRY.format("Sex").replace("OriginalImage[Width,Height]", '"OriginalImage[Width,Height]"')
    root = write(
        header=quoted + ",,",
        boxes=["00000001_000.png,Effusion,1,2,3,4"],
        box_header='Image Index,Finding Label,"Bbox [x,y,w,h]",,,',
    )
    assert told(read_nih(root))["00000001_000"]["boxes"] == [("Effusion", 1, 2, 4, 6)]
    (root / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],Unnamed: 6,Unnamed: 7,Unnamed: 8\n"
        "00000001_000.png,Effusion,1,2,3,4,,,\n"
    )
    assert told(read_nih(root))["00000001_000"]["boxes"] == [("Effusion", 1, 2, 4, 6)]
    for names in ("Bbox x,Bbox y,Bbox w,Bbox h", "bbox_x,bbox_y,bbox_width,bbox_height"):
        (root / "BBox_List_2017.csv").write_text(
            f"Image Index,Finding Label,{names}\n00000001_000.png,Effusion,1,2,3,4\n"
        )
        assert told(read_nih(root))["00000001_000"]["boxes"] == [("Effusion", 1, 2, 4, 6)]
    (root / "BBox_List_2017.csv").write_text("Image Index,Finding Label,x1,y1,x2,y2\n00000001_000.png,Mass,1,2,3,4\n")
    with pytest.raises(InputError, match=r"has the columns x1, y1, x2, y2 after Finding Label: it needs Bbox"):
        read_nih(root)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["00000003_000.png,Hernia|Gallstone,0,3,4,F,PA,1,1,1,1"], UNKNOWN_FINDING),
        (["00000003_000.png,Hernia|No Finding,0,3,4,F,PA,1,1,1,1"], CONTRADICTORY),
        (["00000003_000.png,Hernia,0,3,4,F,PA,1,1,1,1", "00000003_000.png,Mass,0,3,4,F,PA,1,1,1,1"], CONTRADICTORY),
    ],
)
def test_a_row_that_cannot_be_used_costs_its_radiograph(write, rows, reason):
    source = read_nih(write(entries=[*ROWS[:3], *rows]))
    assert sorted(told(source)) == ["00000001_000", "00000001_001", "00000002_000"]
    line = 4 + len(rows)
    assert (f"Data_Entry_2017_v2020.csv line {line}", reason) in why(source)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("00000003_000.png,Gallstone,1,2,3,4", UNKNOWN_FINDING),
        ("00000003_000.png,Mass,1,2,3,four", reasons.NOT_A_NUMBER),
        ("00000003_000.png,Mass,1,2,3,", reasons.NOT_A_NUMBER),
        ("00000003_000.png,Mass,1,2,-3,4", reasons.INVERTED),
        ("00000003_000.png,Mass,1,2,0,4", reasons.EMPTY),
        ("00000003_000.png,Mass,1,2,2000,4", FAR_BEYOND),
    ],
)
def test_a_box_that_cannot_be_used_costs_its_radiograph(write, row, reason):
    source = read_nih(write(boxes=["00000001_000.png,Effusion,1,2,3,4", row]))
    assert "00000003_000" not in told(source)
    assert ("BBox_List_2017.csv line 3", reason) in why(source)


def test_empty_labels_are_unknown_repeated_rows_count_once_and_missing_files_are_named(write):
    rows = [ROWS[0], ROWS[0], "00000003_000.png,,0,3,4,F,PA,1,1,1,1", "00000009_000.png,Mass,0,9,4,F,PA,1,1,1,1"]
    source = read_nih(write(entries=rows))
    assert told(source)["00000003_000"]["unknown"] == list(CATEGORIES)
    assert why(source) == [
        ("Data_Entry_2017_v2020.csv line 3", reasons.DUPLICATE),
        ("Data_Entry_2017_v2020.csv line 5", reasons.MISSING_FILE),
        ("images_001/images/00000002_000.png", "file without a row in the table"),
        ("images_002/images/00000001_001.png", "file without a row in the table"),
    ]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"entries": None, "boxes": None}, "holds neither Data_Entry_2017_v2020.csv nor BBox_List_2017.csv"),
        ({"header": "Image Index,Labels"}, "lacks the column Finding Labels"),
        ({"entries": [",Mass,0,3,4,F,PA,1,1,1,1"]}, r"v2020.csv line 2 has a finding but no Image Index"),
        ({"boxes": [",Mass,1,2,3,4"]}, r"2017.csv line 2 has a finding but no Image Index"),
        ({"boxes": ["00000001_000.png,Mass,.1,.2,.3,.4"]}, "all its boxes lie between 0 and 1"),
        ({"boxes": [f"{name},Mass,100,200,1900,900" for name in NAMES]}, "4 of 4 boxes reach beyond 1024 x 1024"),
    ],
)
def test_tables_that_cannot_be_used_stop_the_conversion(write, kwargs, message):
    root = write(**kwargs)
    with pytest.raises(InputError, match=message):
        read_nih(root)


def test_a_radiograph_in_neither_list_is_left_out(write):
    root = write()
    (root / "train_val_list.txt").write_text(f"{NAMES[0]}\n")
    (root / "test_list.txt").write_text(f"{NAMES[2]}\n{NAMES[3][:-6]}")  # cut off
    source = read_nih(root)
    assert {name: image["split"] for name, image in told(source).items()} == {
        "00000001_000": "train",
        "00000002_000": "test",
    }
    assert [place.rpartition("/")[2] for place, reason in why(source) if reason == IN_NO_LIST] == [NAMES[1], NAMES[3]]


def test_a_linked_folder_is_said_to_be_the_reason(write, tmp_path):
    root = write()
    (root / "images_001").rename(tmp_path.parent / f"{tmp_path.name} elsewhere")
    (root / "images_001").symlink_to(tmp_path.parent / f"{tmp_path.name} elsewhere")
    source = read_nih(root)
    assert len(source.images) == 2
    assert [(warning.kind, warning.where) for warning in source.warnings] == [(LINK, "images_001")]
    (root / "images_002").rename(tmp_path.parent / f"{tmp_path.name} elsewhere" / "images_002")
    with pytest.raises(InputError, match=r"no radiograph in .* \(1 link that leads nowhere or out of it is left out\)"):
        read_nih(root)
