"""Lung masks of Montgomery and Shenzhen, and folders of one's own: pairs by name, and every pair that is none."""

import json

import cv2
import numpy as np
import pytest
from source_cases import write_picture

from xray.datasets import sources
from xray.datasets.mask_canvas import mask_canvas
from xray.datasets.sources.lungs import read_lungs
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.structures.masks import decode_mask, encode_mask

WIDTH, HEIGHT = 200, 160


def lung(left, top=20, width=60, height=100):
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[top : top + height, left : left + width] = 255
    return mask


def write_mask(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask)


def write_montgomery(folder, names):
    for number, name in enumerate(names):
        write_picture(folder / "CXR_png" / f"{name}.png", WIDTH, HEIGHT)
        # The patient's right lung is on the viewer's left.
        write_mask(folder / "ManualMask" / "rightMask" / f"{name}.png", lung(10 + number))
        write_mask(folder / "ManualMask" / "leftMask" / f"{name}.png", lung(120 + number))
    return folder


@pytest.fixture
def montgomery(tmp_path):
    return write_montgomery(tmp_path / "raw", ["MCUCXR_0001_0", "MCUCXR_0002_1", "MCUCXR_0003_0"])


def convert(raw, path, **flags):
    return sources.convert("lungs", raw, path, **{"image_size": 100, "n_folds": 2, "n_workers": 0} | flags)


def account(source):
    return {(drop.where, drop.reason) for drop in source.dropped}


def ids(source):
    return [image.source_id for image in source.images]


def test_montgomery_apart(montgomery, tmp_path):
    result = convert(montgomery, tmp_path / "data", lungs="apart")
    store = open_store(tmp_path / "data")
    assert (result["source"], result["layout"], result["dropped"]["counts"]) == ("lungs", "montgomery", {})
    assert store.categories == {1: "Right lung", 2: "Left lung"}
    assert [record["source_id"] for record in store.records] == ["MCUCXR_0001_0", "MCUCXR_0002_1", "MCUCXR_0003_0"]
    assert store.boxes.labels.tolist() == [1, 2, 1, 2, 1, 2]
    assert store.boxes.boxes[2:4].tolist() == [[11, 20, 71, 120], [121, 20, 181, 120]]
    np.testing.assert_array_equal(decode_mask(store.masks[2]) * 255, lung(11))
    assert [record["labels"] for record in store.records] == [[1, 2]] * 3
    canvas = mask_canvas(store, 0)
    # Half as large, 10 rows of black above and below.
    expected = np.zeros((2, 100, 100), dtype=np.uint8)
    expected[0, 20:70, 5:35] = expected[1, 20:70, 60:90] = 1
    np.testing.assert_array_equal(canvas, expected)


def test_montgomery_joined_keeps_an_annotation_for_each_lung(montgomery, tmp_path):
    # One lung of two parts, as behind a wide heart, and a slip of the pen.
    mask = lung(10, height=40) | lung(10, 80, height=40)
    mask[150, 190] = 255
    write_mask(montgomery / "ManualMask" / "rightMask" / "MCUCXR_0001_0.png", mask)
    result = convert(montgomery, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert store.categories == {1: "Lung"}
    assert np.bincount(store.boxes.images).tolist() == [2, 2, 2]
    assert store.boxes.boxes[0].tolist() == [10, 20, 70, 120]
    assert decode_mask(store.masks[0]).sum() == 60 * 80
    assert result["dropped"]["rows"] == [
        {"where": "ManualMask/rightMask/MCUCXR_0001_0.png", "reason": "speck of a mask", "action": "left out",
         "detail": "1 of fewer than 4 pixels"}
    ]  # fmt: skip


def test_a_lung_that_is_not_there_is_no_fault(montgomery):
    write_mask(montgomery / "ManualMask" / "leftMask" / "MCUCXR_0001_0.png", lung(0) * 0)
    source = read_lungs(montgomery, lungs="apart")
    assert (ids(source)[0], source.boxes.labels.tolist(), source.dropped) == ("MCUCXR_0001_0", [1, 1, 2, 1, 2], [])


def test_faults_cost_one_image_each(tmp_path):
    raw = write_montgomery(tmp_path / "raw", [f"{number}" for number in range(8)])
    sides = raw / "ManualMask"
    (raw / "CXR_png" / "0.png").unlink()
    (sides / "leftMask" / "1.png").unlink()
    (sides / "leftMask" / "2.png").unlink()
    (sides / "rightMask" / "2.png").unlink()
    write_mask(sides / "rightMask" / "3.png", lung(10)[:-1])
    (sides / "rightMask" / "4.png").write_bytes(b"no picture")
    (raw / "CXR_png" / "5.png").write_bytes(b"no picture")
    source = read_lungs(raw)
    assert ids(source) == ["6", "7"]
    assert account(source) == {
        ("ManualMask/leftMask/0.png", "mask without an image"),
        ("ManualMask/rightMask/0.png", "mask without an image"),
        ("CXR_png/1.png", "image without a mask"),
        ("CXR_png/2.png", "image without a mask"),
        ("ManualMask/rightMask/3.png", "mask and image differ in size"),
        ("ManualMask/rightMask/4.png", "unreadable mask"),
        ("CXR_png/5.png", "unreadable file"),
    }
    details = {drop.where: drop.detail for drop in source.dropped}
    assert details["CXR_png/1.png"] == "no left mask"
    assert details["CXR_png/2.png"] == "no right mask and no left mask"
    assert details["ManualMask/rightMask/3.png"] == "the mask is 200 x 159, the image 200 x 160"


def test_pairs_are_made_by_name_and_not_by_order(tmp_path):
    raw = tmp_path / "raw"
    for name in ("a", "b", "d"):
        write_picture(raw / "CXR_png" / f"{name}.png", WIDTH, HEIGHT)
    for number, name in enumerate(("b", "c", "d")):
        write_mask(raw / "mask" / f"{name}_mask.png", lung(10 * number) | lung(130))
    result = convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert result["layout"] == "shenzhen"
    # Each component of the one mask is an annotation.
    assert [store.records[row]["source_id"] for row in store.boxes.images.tolist()] == ["b", "b", "d", "d"]
    assert store.boxes.boxes[:, 0].tolist() == [0, 130, 20, 130]
    assert result["dropped"]["counts"] == {"image without a mask": 1, "mask without an image": 1}


def test_folders_of_ones_own(tmp_path):
    raw = tmp_path / "raw"
    for name in ("x.jpg", "y.png", "z.png"):
        write_picture(raw / "films" / name, WIDTH, HEIGHT)
    write_mask(raw / "drawn" / "x.png", lung(10))
    write_mask(raw / "drawn" / "y_mask.png", lung(10) * 0)
    specks = lung(0) * 0
    specks[::50, ::50] = 255
    write_mask(raw / "drawn" / "z.png", specks)
    result = convert(raw, tmp_path / "data", images="films", masks="drawn", category="Shadow")
    store = open_store(tmp_path / "data")
    assert (result["layout"], store.categories) == ("pair", {1: "Shadow"})
    # An empty mask says that there is nothing; of one with specks alone nothing is known.
    assert [(record["file_name"], record["labels"]) for record in store.records] == [
        ("films/x.jpg", [1]),
        ("films/y.png", []),
    ]
    assert [(row["where"], row["reason"]) for row in result["dropped"]["rows"]] == [
        ("drawn/z.png", "speck of a mask"),
        ("films/z.png", "image without a usable box"),
    ]
    assert len(read_lungs(tmp_path, images=str(raw / "films"), masks=str(raw / "drawn")).images) == 2


def test_masks_beside_their_images(tmp_path):
    for name in ("x", "y"):
        write_picture(tmp_path / f"{name}.png", WIDTH, HEIGHT)
    write_mask(tmp_path / "x_mask.png", lung(10))
    write_mask(tmp_path / "w_mask.png", lung(10))
    source = read_lungs(tmp_path, images=".", masks=".")
    assert ids(source) == ["x"]
    assert account(source) == {("y.png", "image without a mask"), ("w_mask.png", "mask without an image")}


def test_radiographs_that_differ_in_their_suffix_alone(montgomery):
    # Whose masks these are is not known.
    write_picture(montgomery / "CXR_png" / "MCUCXR_0001_0.jpg", WIDTH, HEIGHT)
    source = read_lungs(montgomery)
    assert ids(source) == ["MCUCXR_0002_1", "MCUCXR_0003_0"]
    assert account(source) == {
        ("CXR_png/MCUCXR_0001_0.png", "mask of several images of its name"),
        ("CXR_png/MCUCXR_0001_0.jpg", "mask of several images of its name"),
    }
    # It is where each has its own.
    for side, left in (("right", 10), ("left", 120)):
        write_mask(montgomery / "ManualMask" / f"{side}Mask" / "MCUCXR_0001_0.jpg", lung(left + 5))
    source = read_lungs(montgomery)
    assert ids(source)[:2] == ["MCUCXR_0001_0.jpg", "MCUCXR_0001_0.png"]
    assert source.dropped == []
    np.testing.assert_allclose(source.boxes.boxes[:4, 0], [15, 125, 10, 120], atol=1)


def test_masks_with_the_whole_names_of_their_radiographs(tmp_path):
    for name in ("a.png", "a.jpg", "b.png", "B.png"):
        write_picture(tmp_path / "img" / name, WIDTH, HEIGHT)
    for left, name in ((10, "a"), (20, "a.jpg_mask"), (30, "b"), (40, "B_mask")):
        write_mask(tmp_path / "msk" / f"{name}.png", lung(left))
    assert ids(read_lungs(tmp_path, images="img", masks="msk")) == ["B", "a.jpg", "a.png", "b"]
    # Without a mask that can be its own, neither can be told from the other.
    (tmp_path / "msk" / "a.png").rename(tmp_path / "msk" / "a.gif.png")
    assert ids(read_lungs(tmp_path, images="img", masks="msk")) == ["B", "b"]
    (tmp_path / "msk" / "a.gif.png").rename(tmp_path / "msk" / "a.png.png")
    source = read_lungs(tmp_path, images="img", masks="msk")
    assert ids(source) == ["B", "a.jpg", "a.png", "b"]
    assert source.boxes.boxes[:, 0].tolist() == [40, 20, 10, 30]
    assert source.dropped == []


def test_two_masks_of_one_radiograph(tmp_path):
    for name in ("a", "b"):
        write_picture(tmp_path / "img" / f"{name}.png", WIDTH, HEIGHT)
    for name in ("a.png", "a_mask.png", "b.jpg"):
        write_mask(tmp_path / "msk" / name, lung(10))
    source = read_lungs(tmp_path, images="img", masks="msk")
    assert ids(source) == ["b"]
    assert [(drop.where, drop.reason, drop.detail) for drop in source.dropped] == [
        ("img/a.png", "image with several masks of its name", "msk/a.png, msk/a_mask.png")
    ]


def two_lungs(right, left, shape=()):
    mask = np.zeros((HEIGHT, WIDTH, *shape), dtype=np.uint8)
    mask[lung(10) > 0], mask[lung(120) > 0] = right, left
    return mask


def write_pairs(folder, *masks):
    for number, mask in enumerate(masks):
        write_picture(folder / "img" / f"{number}.png", WIDTH, HEIGHT)
        write_mask(folder / "msk" / f"{number}.png", mask)
    return folder


def told(source):
    return [(warning.kind, warning.where, warning.detail) for warning in source.warnings]


def test_values_of_masks_are_joined_and_told(tmp_path):
    raw = write_pairs(tmp_path, two_lungs(85, 170), two_lungs(255, 255), two_lungs(1, 170))
    source = read_lungs(raw, images="img", masks="msk")
    assert source.boxes.labels.tolist() == [1] * 6
    assert told(source) == [
        (
            "masks with several values, all taken as mask", "msk/0.png",
            "2 of 3 masks, values 1, 85, 170; --values 1=NAME 85=NAME 170=NAME makes them categories of their own",
        )
    ]  # fmt: skip


def test_values_of_masks_can_be_categories(tmp_path):
    raw = write_pairs(tmp_path / "raw", two_lungs(1, 2), two_lungs(3, 2), two_lungs(0, 0), two_lungs(0, 3))
    result = convert(
        raw, tmp_path / "data", images="img", masks="msk", values=["1=Right lung", "2.0 = Left lung", "7=Heart"]
    )
    store = open_store(tmp_path / "data")
    assert store.categories == {1: "Right lung", 2: "Left lung", 3: "Heart"}
    assert [record["labels"] for record in store.records] == [[1, 2], [2], [], []]
    assert store.boxes.boxes[:, 0].tolist() == [10, 120, 120]
    assert [(row["kind"], row["where"], row["detail"]) for row in result["warnings"]["rows"]] == [
        ("masks with a value that --values does not name, taken as background", "msk/1.png", "2 of 4 masks, values 3"),
        ("value of --values that no mask holds", "7", "named Heart"),
    ]


def test_colours_can_be_categories_that_share_a_name(tmp_path):
    # OpenCV writes blue, green, red.
    raw = write_pairs(tmp_path, two_lungs((83, 50, 250), (255, 221, 51), (3,)))
    source = read_lungs(raw, images="img", masks="msk", values=["#fa3253=Right", "#33DDFF=Left"])
    assert [category["name"] for category in source.categories] == ["Right", "Left"]
    assert (source.boxes.labels.tolist(), source.boxes.boxes[:, 0].tolist()) == ([1, 2], [10, 120])
    source = read_lungs(raw, images="img", masks="msk", values=["#fa3253=Lung", "#33DDFF=Lung"])
    assert (source.boxes.labels.tolist(), source.warnings) == ([1, 1], [])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["3=Right"], "--values names 3, but the masks hold 1, 2: give values that they hold"),
        (["1"], "--values 1 is no VALUE=NAME"),
        (["1="], "is no VALUE=NAME"),
        (["x=Right"], "is no VALUE=NAME"),
        (["#12=Right"], "is no VALUE=NAME"),
        (["-1=Right"], "is no VALUE=NAME"),
        (["1=Right", "1.0=Left"], "--values names 1 twice: Right and Left"),
    ],
)
def test_unusable_values(tmp_path, values, message):
    raw = write_pairs(tmp_path, two_lungs(1, 2))
    with pytest.raises(InputError, match=message):
        read_lungs(raw, images="img", masks="msk", values=values)


def test_values_of_montgomery_are_sides_already(montgomery):
    with pytest.raises(InputError, match="--lungs apart in place of --values"):
        read_lungs(montgomery, values=["1=Right"])


def test_what_is_told_of_montgomerys_masks_advises_no_flag_that_is_refused(montgomery):
    path = montgomery / "ManualMask" / "leftMask" / "MCUCXR_0001_0.png"
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    half = len(pixels) // 2
    pixels[half:] = pixels[half:] // 255 * 128
    cv2.imwrite(str(path), pixels)
    ((kind, _, detail),) = told(read_lungs(montgomery))
    assert (kind, detail) == ("masks with several values, all taken as mask", "1 of 6 masks, values 128, 255")


def test_masks_black_on_white(tmp_path):
    normal, inverted = two_lungs(255, 255), 255 - two_lungs(255, 255)
    white, black = np.full_like(normal, 255), np.zeros_like(normal)
    # Where most are so, one drawn the other way round may be anything, and so may one of a single tone.
    source = read_lungs(
        write_pairs(tmp_path / "a", inverted, inverted, normal, white, black), images="img", masks="msk"
    )
    assert ids(source) == ["0", "1"]
    assert source.boxes.boxes[:, 0].tolist() == [10, 120] * 2
    assert account(source) == {(f"msk/{n}.png", "mask whose background cannot be told") for n in (2, 3, 4)}
    assert told(source) == [("masks drawn black on white, taken so", "msk/0.png", "2 of 2 masks")]
    source = read_lungs(write_pairs(tmp_path / "b", normal, normal, inverted, white, black), images="img", masks="msk")
    assert ids(source) == ["0", "1", "3", "4"]
    assert account(source) == {("msk/2.png", "mask whose background cannot be told")}
    assert told(source) == [("masks that cover all of their radiograph", "msk/3.png", "1 of 4 masks")]


def test_a_test_folder_becomes_the_test_split(montgomery, tmp_path):
    write_montgomery(montgomery / "test", ["MCUCXR_0001_0", "MCUCXR_0009_0"])
    convert(montgomery, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert [(record["source_id"], record["file_name"]) for record in store.records if record["split"] == "test"] == [
        ("test/MCUCXR_0001_0", "test/CXR_png/MCUCXR_0001_0.png"),
        ("MCUCXR_0009_0", "test/CXR_png/MCUCXR_0009_0.png"),
    ]


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_patients_share_a_fold(tmp_path, kind):
    raw = write_montgomery(tmp_path / "raw", [f"{number:02d}" for number in range(12)])
    # By their stems: the table speaks of other files of the same radiographs.
    rows = [(f"jpg/{number:02d}.jpg", number % 4) for number in range(11)]
    path = tmp_path / f"patients.{kind}"
    if kind == "csv":
        path.write_text("patient,file_name\n" + "".join(f"p{patient}, {name}\n" for name, patient in rows))
    else:
        path.write_text(json.dumps({"images": [{"file_name": name, "patient": patient} for name, patient in rows]}))
    result = convert(raw, tmp_path / "data", patients=path)
    store = open_store(tmp_path / "data")
    patients = [record.get("patient") for record in store.records]
    assert patients == [("p" if kind == "csv" else "") + str(number % 4) for number in range(11)] + [None]
    folds = {(patient, fold) for patient, fold in zip(patients, store.folds.tolist(), strict=True) if patient}
    assert len(folds) == 4
    assert result["dropped"]["counts"] == {"patient unknown": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file_name,patient\nother.png,1\n", "names no patient of the 3 images"),
        ("name,patient\nother.png,1\n", r"needs the columns file_name and patient \(found name, patient\)"),
        ("file_name,sex\nother.png,1\n", "needs the columns"),
        (None, "cannot be read"),
    ],
)
def test_unusable_patients(montgomery, tmp_path, content, message):
    if content is not None:
        (tmp_path / "patients.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_lungs(montgomery, patients=tmp_path / "patients.csv")


@pytest.mark.parametrize("content", ["{", "[]", '{"images": [1]}', '{"images": [{"id": 1}]}', '{"images": null}'])
def test_unusable_coco_files_of_patients(montgomery, tmp_path, content):
    (tmp_path / "patients.json").write_text(content)
    with pytest.raises(InputError, match="is not a COCO file"):
        read_lungs(montgomery, patients=tmp_path / "patients.json")


@pytest.mark.parametrize(
    ("folders", "flags", "message"),
    [
        (("CXR_png",), {}, r"there is no folder .*mask: --data-path needs CXR_png/"),
        ((), {}, "there is no folder .*CXR_png"),
        (("ManualMask/leftMask", "CXR_png"), {}, "there is no folder .*rightMask"),
        (("a", "b"), {"images": "a"}, "give both, or neither"),
        (("a", "b"), {"images": "a", "masks": "c"}, "there is no folder .*c"),
        (("CXR_png", "mask"), {"lungs": "apart"}, "leave out --lungs apart"),
    ],
)
def test_unusable_directories(tmp_path, folders, flags, message):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(InputError, match=message):
        read_lungs(tmp_path, **flags)


def test_no_directory_and_no_pair(tmp_path):
    with pytest.raises(InputError, match="no data at"):
        read_lungs(tmp_path / "none")
    write_picture(tmp_path / "CXR_png" / "a.png")
    (tmp_path / "mask").mkdir()
    with pytest.raises(InputError, match=r"can be used \(1 x image without a mask, such as CXR_png"):
        convert(tmp_path, tmp_path / "data")


def test_real_lungs(shared_data, tmp_path):
    folder = shared_data / "chest-open"
    if not (folder / "lungs").is_dir():
        pytest.skip(f"no {folder}/lungs")
    result = convert(
        folder / "lungs", tmp_path / "data", lungs="apart", patients=folder / "annotations.json", n_folds=5
    )
    store = open_store(tmp_path / "data")
    assert (len(store), len(store.masks), result["dropped"]["counts"]) == (83, 166, {})
    folds = {(record["patient"], record["fold"]) for record in store.records}
    assert len(folds) == len({record["patient"] for record in store.records}) == 48
    for row in range(len(store)):
        right, left = mask_canvas(store, row)
        assert np.nonzero(right)[1].mean() < np.nonzero(left)[1].mean()
    # Its own COCO file has the same lungs as polygons.
    coco = json.loads((folder / "annotations.json").read_text())
    stems = {entry["id"]: entry["file_name"].removesuffix(".jpg") for entry in coco["images"]}
    polygons = {
        (stems[row["image_id"]], row["category_id"]): row["segmentation"]
        for row in coco["annotations"]
        if row.get("segmentation")
    }
    for row in range(0, len(store.boxes), 8):
        record = store.records[store.boxes.images[row]]
        drawn = polygons[record["source_id"], store.boxes.labels[row]]
        expected = decode_mask(encode_mask(drawn, record["width"], record["height"])[0])
        found = decode_mask(store.masks[row])
        assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.99
