"""Datasets as COCO, YOLO and VOC: what other tools read, and what comes back."""

import csv
import json
import shutil
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from xray.datasets.conversion import write_store
from xray.datasets.originals import find_originals
from xray.datasets.prediction_ids import read_any_predictions, resolve
from xray.datasets.source import Source, SourceImage
from xray.datasets.sources import convert
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError
from xray.outputs.trees.export import RECORD, UNFINISHED, export_tree, summary_of
from xray.outputs.trees.plan import OTHER_VAL, UNSURE
from xray.radiographs.names import unique_names
from xray.radiographs.radiograph import read_radiograph
from xray.structures.boxes import BoxTable
from xray.structures.masks import decode_mask, encode_pixels
from xray.structures.predictions import Predictions, read_predictions

CATEGORIES = [{"id": 1, "name": "Nodule/Mass"}, {"id": 2, "name": "Effusion"}, {"id": 3, "name": "No box"}]
SIZES = [(300, 200), (150, 311), (97, 64), (64, 64)]
SPLITS = ["train"] * 8 + ["val"] * 2 + ["test"] * 2


def ragged(width, height, seed):
    """A mask of two parts, one with a hole, and specks."""
    random = np.random.default_rng(seed)
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 1
    mask[height // 3 : height // 3 + 4, width // 3 : width // 3 + 5] = 0
    mask[height // 2 + 5 : height // 2 + 15, width // 2 :] |= random.random((10, width - width // 2)) < 0.7
    return mask


def make(folder, masks="some", unsure=True, n=12, categories=CATEGORIES, bits=8):
    """A dataset of 12 radiographs of odd sizes on canvases of 96 pixels, with its files in folder/files."""
    random = np.random.default_rng(3)
    images, rows, labels, boxes, of_row = [], [], [], [], {}
    for number in range(n):
        width, height = SIZES[number % len(SIZES)]
        path = folder / "files" / f"scan {number}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), random.integers(0, 65535, (height, width), dtype=np.uint16))
        known = {"labels": (3,), "unlocated": (3,)} if unsure and number == 4 else {}
        known |= {"unknown": (2,)} if unsure and number in (5, 10) else {}
        known |= {"elsewhere": (1,)} if unsure and number == 8 else {}
        images.append(
            SourceImage(
                path, f"scan {number}/{number}.png", f"scan {number}/{number}", f"p{number // 2}", SPLITS[number],
                extra={"view": "PA"}, **known,
            )
        )  # fmt: skip
        for kind in range(number % 3):
            x, y = random.uniform(0, width / 2), random.uniform(0, height / 2)
            box = [x, y, x + random.uniform(3, width / 2), y + random.uniform(3, height / 2)]
            if masks == "all" or (masks == "some" and kind):
                mask = ragged(width, height, number)
                of_row[len(rows)] = encode_pixels(mask)
                across, down = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
                box = [across[0], down[0], across[-1] + 1, down[-1] + 1]
            rows.append(number)
            labels.append(kind + 1)
            boxes.append(box)
    source = Source(
        "test", "pictures", images, BoxTable.of(rows, labels, boxes), [()] * len(rows), [f"line {row}" for row in rows],
        categories, "f", masks=of_row,
    )  # fmt: skip
    write_store(source, folder / "data", image_size=96, n_folds=2, bits=bits)
    return open_store(folder / "data")


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """Some masks, some findings unknown or not located."""
    return make(tmp_path_factory.mktemp("some"))


@pytest.fixture(scope="module")
def sure(tmp_path_factory):
    """Every box has a mask, every finding a box."""
    return make(tmp_path_factory.mktemp("sure"), "all", unsure=False)


def back(tree, path, format=None, bits=8):
    given = {"format": format} if format else {}
    convert("tree", tree, path, image_size=96, n_folds=2, n_workers=0, bits=bits, **given)
    return open_store(path)


def content_of(store, by=lambda record: record["source_id"].rpartition("/")[2].rpartition("_")[2]):
    """What must come back, by the radiographs' numbers."""
    result = {}
    for row, record in enumerate(store.records):
        chosen = np.flatnonzero(store.boxes.images == row).tolist()
        things = [
            (
                store.categories[int(store.boxes.labels[box])],
                store.boxes.boxes[box].tolist(),
                store.masks.get(box, {}).get("counts"),
            )
            for box in chosen
        ]
        known = {
            key: [store.categories[label] for label in record.get(key, [])]
            for key in ("labels", "unknown", "unlocated")
        }
        facts = [record.get(key) for key in ("width", "height", "split", "patient")]
        result[by(record)] = (facts, sorted(things, key=str), known)
    return result


def test_coco_comes_back_as_it_was(some, tmp_path):
    made = export_tree(some, tmp_path / "tree", "coco")
    assert made["counts"] == {"train": 8, "val": 2, "test": 2}
    again = back(tmp_path / "tree", tmp_path / "again")
    assert content_of(again) == content_of(some)
    assert again.categories == some.categories
    assert {record["view"] for record in again.records} == {"PA"}
    # The pictures are as they were on the canvas, so that they come back to the pixel.
    order = {record["source_id"].rpartition("_")[2]: row for row, record in enumerate(again.records)}
    for row, record in enumerate(some.records):
        assert (again.images[order[record["source_id"].rpartition("/")[2]]] == some.images[row]).all()


@pytest.mark.parametrize("masks", ["polygons", "rle"])
def test_pycocotools_reads_the_same_masks(some, tmp_path, masks):
    export_tree(some, tmp_path / "tree", "coco", masks=masks)
    n_masks = 0
    for split, n in (("train", 8), ("val", 2), ("test", 2)):
        coco = COCO(tmp_path / "tree" / "annotations" / f"instances_{split}.json")
        assert len(coco.imgs) == n
        for annotation in coco.anns.values():
            image = coco.imgs[annotation["image_id"]]
            picture = cv2.imread(str(tmp_path / "tree" / split / image["file_name"]), cv2.IMREAD_UNCHANGED)
            assert picture.shape == (image["height"], image["width"])
            assert picture.dtype == np.uint8
            x, y, w, h = annotation["bbox"]
            assert -1e-9 <= x < x + w <= image["width"] + 1e-9
            assert -1e-9 <= y < y + h <= image["height"] + 1e-9
            if annotation["segmentation"]:
                mask = coco.annToMask(annotation)
                assert mask.sum() == annotation["area"]
                whole = decode_mask(annotation["original_segmentation"])
                nearest = cv2.resize(whole, mask.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
                assert (mask == nearest).all()
                n_masks += 1
    assert n_masks == len(some.masks) > 0


def test_torchvision_reads_it(some, tmp_path):
    from torchvision.datasets import CocoDetection

    export_tree(some, tmp_path / "tree", "coco")
    data = CocoDetection(tmp_path / "tree" / "train", tmp_path / "tree" / "annotations" / "instances_train.json")
    assert len(data) == 8
    n_boxes = sum(len(targets) for _, targets in data)
    rows = np.flatnonzero(some.splits == "train")
    assert n_boxes == np.isin(some.boxes.images, rows).sum()


def test_yolo_outlines_come_back_as_they_were(sure, tmp_path):
    made = export_tree(sure, tmp_path / "tree", "yolo")
    assert made["said"] == []
    assert content_of(back(tmp_path / "tree", tmp_path / "again")) == content_of(sure)


@pytest.mark.parametrize("format", ["yolo", "voc"])
def test_boxes_come_back_as_they_were(tmp_path, format):
    store = make(tmp_path, "none", unsure=False)
    export_tree(store, tmp_path / "tree", format)
    assert content_of(back(tmp_path / "tree", tmp_path / "again")) == content_of(store)


def test_what_yolo_and_voc_cannot_say_is_left_out_or_asked_for(some, tmp_path):
    for format in ("yolo", "voc"):
        made = export_tree(some, tmp_path / format, format)
        assert made["left_out"] == [{"where": f"scan {number}/{number}", "reason": UNSURE} for number in (4, 8, 10)]
        assert any(f"{len(some.masks)} masks are not written" in line for line in made["said"])
        assert any("3 left out, such as scan 4/4" in line for line in summary_of(made))
        kept = content_of(back(tmp_path / format, tmp_path / f"{format}-again"))
        assert sorted(kept, key=int) == [str(number) for number in range(12) if number not in (4, 8, 10)]
    made = export_tree(some, tmp_path / "all", "yolo", include_unsure=True)
    assert made["left_out"] == []
    assert sum(made["counts"].values()) == 12


def test_boxes_without_masks_become_corners_where_outlines_are_asked_for(some, tmp_path):
    made = export_tree(some, tmp_path / "tree", "yolo", masks="polygons")
    assert "boxes without a mask are written as outlines of four corners" in made["said"][0]
    lines = [
        line.split() for path in (tmp_path / "tree").glob("labels/*/*.txt") for line in path.read_text().splitlines()
    ]
    assert lines
    assert min(map(len, lines)) == 9


def test_vocs_corners_are_pixels(tmp_path):
    store = make(tmp_path, "none", unsure=False)
    export_tree(store, tmp_path / "tree", "voc")
    for row, box in enumerate(store.boxes.boxes):
        image = int(store.boxes.images[row])
        name = unique_names([record["source_id"] for record in store.records])[image]
        tree = ElementTree.parse(tmp_path / "tree" / "Annotations" / f"{name}.xml").getroot()
        left, top, right, bottom = store.canvas(image).content
        record = store.records[image]
        x1, y1, x2, y2 = box * np.tile([(right - left) / record["width"], (bottom - top) / record["height"]], 2)
        corners = {
            tuple(int(thing.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
            for thing in tree.iterfind("object")
        }
        assert (np.floor(x1) + 1, np.floor(y1) + 1, np.ceil(x2), np.ceil(y2)) in corners
        picture = cv2.imread(str(tmp_path / "tree" / "JPEGImages" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (int(tree.findtext("size/height")), int(tree.findtext("size/width")))


def test_vocs_box_that_somebody_has_moved_counts(tmp_path):
    store = make(tmp_path, "none", unsure=False)
    export_tree(store, tmp_path / "tree", "voc")
    path = next(
        path for path in sorted((tmp_path / "tree" / "Annotations").iterdir()) if "<object>" in path.read_text()
    )
    text = path.read_text()
    before, _, after = text.partition("<xmax>")
    value, _, rest = after.partition("</xmax>")
    path.write_text(f"{before}<xmax>{int(value) - 5}</xmax>{rest}")
    again = back(tmp_path / "tree", tmp_path / "again")
    changed = [one for one, other in zip(content_of(again).values(), content_of(store).values(), strict=False)]
    boxes = {tuple(box) for _, things, _ in changed for _, box, _ in things}
    assert len(boxes - {tuple(box) for box in store.boxes.boxes.tolist()}) == 1


def test_a_fold_becomes_the_val_split(some, tmp_path):
    made = export_tree(some, tmp_path / "tree", "coco", fold=1)
    assert made["counts"] == {"train": 4, "val": 4, "test": 2}
    assert {row["reason"] for row in made["left_out"]} == {OTHER_VAL}
    again = back(tmp_path / "tree", tmp_path / "again")
    numbers = {record["source_id"].rpartition("_")[2] for record in again.records if record["split"] == "val"}
    assert numbers == {some.records[row]["source_id"].rpartition("/")[2] for row in some.rows(fold=1)}
    with pytest.raises(InputError, match="has no fold 7"):
        export_tree(some, tmp_path / "other", "coco", fold=7)


def test_sixteen_bits_and_full_size_of_the_original_files(some, tmp_path):
    with pytest.raises(InputError, match="--bits 16 needs the original files"):
        export_tree(some, tmp_path / "tree", "coco", bits=16)
    files = some.path.parent / "files"
    export_tree(some, tmp_path / "tree", "coco", bits=16, originals=files, full_size=True)
    images = json.loads((tmp_path / "tree" / "annotations" / "instances_train.json").read_text())["images"]
    assert "original_width" not in images[0]
    picture = cv2.imread(str(tmp_path / "tree" / "train" / images[0]["file_name"]), cv2.IMREAD_UNCHANGED)
    assert picture.dtype == np.uint16
    assert (picture == cv2.imread(str(files / "scan 0" / "0.png"), cv2.IMREAD_UNCHANGED)).all()
    assert content_of(back(tmp_path / "tree", tmp_path / "again")) == content_of(some)
    export_tree(some, tmp_path / "small", "yolo", bits=16, originals=files)
    picture = cv2.imread(str(next((tmp_path / "small" / "images" / "train").iterdir())), cv2.IMREAD_UNCHANGED)
    assert (picture.dtype, max(picture.shape)) == (np.uint16, 96)
    with pytest.raises(InputError, match=r"12 of 12 original files are not in .*, such as scan 0/0.png"):
        export_tree(some, tmp_path / "none", "coco", bits=16, originals=tmp_path)
    assert not (tmp_path / "none").exists()


def test_sixteen_bits_of_a_dark_radiograph_come_back_as_dark(some, tmp_path):
    """Values that would fit into 14 bits are not taken for those of a detector of 14 bits."""
    files = tmp_path / "files"
    shutil.copytree(some.path.parent / "files", files)
    dark = cv2.imread(str(files / "scan 0" / "0.png"), cv2.IMREAD_UNCHANGED) >> 3
    dark[-1, -1] = 40000  # a bright speck, which is lost in the smaller picture
    cv2.imwrite(str(files / "scan 0" / "0.png"), dark)
    export_tree(some, tmp_path / "tree", "coco", bits=16, originals=files)
    picture = next((tmp_path / "tree" / "train").glob("*_0.png"))
    expected = cv2.resize(dark, (96, 64), interpolation=cv2.INTER_AREA)
    assert expected.max() < 2**14
    assert (cv2.imread(str(picture), cv2.IMREAD_UNCHANGED) == expected).all()
    assert (read_radiograph(picture, 16).pixels == expected).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_dataset_of_sixteen_bits_has_pictures_of_as_many_bits_as_asked_for(tmp_path, bits):
    store = make(tmp_path, bits=16)
    export_tree(store, tmp_path / "tree", "coco", bits=bits)
    picture = cv2.imread(str(next((tmp_path / "tree" / "train").glob("*_0.png"))), cv2.IMREAD_UNCHANGED)
    left, top, right, bottom = store.canvas(0).content
    expected = (store.shown(0) if bits == 8 else store.images[0])[top:bottom, left:right]
    assert picture.dtype == expected.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert (picture == expected).all()


@pytest.mark.parametrize("format", ["coco", "yolo", "voc"])
def test_canvases_of_sixteen_bits_come_back_to_the_bit(tmp_path, format):
    store = make(tmp_path, unsure=False, bits=16)
    export_tree(store, tmp_path / "tree", format, bits=16)
    again = back(tmp_path / "tree", tmp_path / "again", bits=16)
    assert again.bits == 16
    # The exported name begins with the split's folder; what is behind it is the radiograph's number.
    row_of = {record["source_id"].rpartition("_")[2]: row for row, record in enumerate(again.records)}
    assert len(row_of) == len(store)
    for row, record in enumerate(store.records):
        picture = again.images[row_of[record["source_id"].rpartition("/")[2]]]
        assert picture.dtype == np.uint16
        assert (picture == store.images[row]).all()
    # More than 8 bits of them are used.
    assert len(np.unique(store.images)) > 256
    assert (np.asarray(store.images) % 257 != 0).any()


def test_what_is_there_already(some, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="other things than an export"):
        export_tree(some, tree, "coco")
    (tree / "mine.txt").rename(tree / "data.yaml")
    with pytest.raises(InputError, match="files that no export left"):
        export_tree(some, tree, "coco", overwrite=True)
    (tree / "data.yaml").unlink()
    export_tree(some, tree, "yolo")
    assert not (tree / UNFINISHED).exists()
    with pytest.raises(InputError, match="holds an export: give --overwrite"):
        export_tree(some, tree, "yolo")
    export_tree(some, tree, "voc", overwrite=True)
    assert not (tree / "images").exists()
    assert json.loads((tree / RECORD).read_text())["format"] == "voc"


def test_an_interrupted_export_goes_on(some, tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    from xray.outputs.trees import export

    monkeypatch.setitem(export._WRITERS, "coco", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_tree(some, tree, "coco")
    monkeypatch.undo()
    picture = next((tree / "train").iterdir())
    time = picture.stat().st_mtime_ns
    with pytest.raises(InputError, match="begun with other flags"):
        export_tree(some, tree, "coco", masks="rle")
    export_tree(some, tree, "coco")
    assert picture.stat().st_mtime_ns == time
    assert (tree / RECORD).exists()


@pytest.mark.parametrize(("format", "masks"), [("voc", "polygons"), ("yolo", "rle")])
def test_masks_that_a_format_has_not(some, tmp_path, format, masks):
    with pytest.raises(FlagError, match="--masks"):
        export_tree(some, tmp_path / "tree", format, masks=masks)


def test_infer_answers_in_original_pixels(some, tmp_path):
    for format, folder in (("coco", "test"), ("yolo", "images/test"), ("voc", "JPEGImages")):
        export_tree(some, tmp_path / format, format, include_unsure=True)
        for data_path in (tmp_path / format / folder, tmp_path / format):
            paths = sorted(data_path.rglob("*.png"))
            names = [path.relative_to(data_path).as_posix() for path in paths]
            sizes, warnings = find_originals(data_path, paths, names, [path.stem for path in paths])
            assert warnings == []
            numbers = [int(path.stem.rpartition("_")[2].split("-")[0]) for path in paths]
            assert list(sizes) == [SIZES[number % 4] for number in numbers], (format, data_path)


@pytest.fixture
def predictions(some):
    """Boxes near the true ones, one with a mask, and one that is no category's."""
    random = np.random.default_rng(1)
    table = some.boxes
    boxes = table.boxes + random.uniform(-2, 2, table.boxes.shape)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    every = BoxTable.of(
        [*table.images, 0], [*table.labels, 15], [*boxes, (0, 0, 1, 1)], [*random.uniform(0, 1, len(table)), 0.5]
    )
    return Predictions(tuple(record["source_id"] for record in some.records), every, dict(list(some.masks.items())[:1]))


def evaluated(truth, results):
    coco = COCO(truth)
    evaluation = COCOeval(coco, coco.loadRes(str(results)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


def test_predictions_as_coco_results(some, predictions, tmp_path):
    made = export_tree(some, tmp_path / "small", "coco", predictions=predictions)
    assert any("1 predictions of no category" in line for line in made["said"])
    # Of full size they are in the pixels of the dataset: the same scores.
    files = some.path.parent / "files"
    export_tree(some, tmp_path / "large", "coco", originals=files, full_size=True, predictions=predictions)
    scores = [
        evaluated(
            tmp_path / size / "annotations" / "instances_train.json", tmp_path / size / "predictions" / "train.json"
        )
        for size in ("small", "large")
    ]
    assert scores[0][:3].tolist() == pytest.approx(scores[1][:3].tolist())
    assert scores[0][0] > 0.3


def test_results_of_the_exported_pictures_are_understood_beside_the_dataset_that_came_back(some, predictions, tmp_path):
    export_tree(some, tmp_path / "tree", "coco", predictions=predictions)
    again = back(tmp_path / "tree", tmp_path / "again")
    read = read_any_predictions(tmp_path / "tree" / "predictions" / "train.json", again)
    boxes = {tuple(box) for box in read.table.boxes.round(6).tolist()}
    train = np.flatnonzero(some.splits == "train")
    expected = predictions.table.select(np.isin(predictions.table.images, train) & (predictions.table.labels != 15))
    assert boxes == {tuple(box) for box in expected.boxes.round(6).tolist()}
    assert len(read.masks) == 1
    with_files = [{"image_id": 99, "file_name": "scan_0.png", "category_id": 1, "bbox": [0, 0, 48, 32], "score": 1}]
    name = unique_names([some.records[0]["source_id"]])[0]
    with_files[0]["file_name"] = f"{name}.png"
    (tmp_path / "files.json").write_text(json.dumps(with_files))
    read = resolve(again, read_predictions(tmp_path / "files.json"))
    assert read.table.boxes.tolist() == [[0, 0, 150, 100]]


def test_predictions_of_a_fifteenth_category_are_its_own(tmp_path):
    categories = [{"id": number, "name": f"category {number}"} for number in range(1, 17)]
    store = make(tmp_path, categories=categories)
    table = BoxTable.of([0, 0], [15, 16], [[3, 4, 30, 40]] * 2, [0.6, 0.5])
    predictions = Predictions((store.records[0]["source_id"],), table)
    export_tree(store, tmp_path / "tree", "coco", predictions=predictions)
    written = json.loads((tmp_path / "tree" / "predictions" / "train.json").read_text())
    assert [row["category_id"] for row in written] == [15, 16]


def test_categories_whose_files_would_have_one_name_have_a_file_each(tmp_path):
    store = make(tmp_path, categories=[{"id": 1, "name": "lung mass"}, {"id": 2, "name": "Lung_mass"}, CATEGORIES[2]])
    table = BoxTable.of([0, 0], [1, 2], [[3, 4, 30, 40]] * 2, [0.6, 0.5])
    predictions = Predictions((store.records[0]["source_id"],), table)
    export_tree(store, tmp_path / "tree", "voc", predictions=predictions)
    scores = {
        path.stem.removeprefix("comp4_det_train_"): [line.split()[1] for line in path.read_text().splitlines()]
        for path in (tmp_path / "tree" / "predictions" / "train").iterdir()
    }
    assert scores == {"lung_mass-1": ["0.600000"], "Lung_mass-2": ["0.500000"], "No_box-3": []}


def test_predictions_of_yolo_and_voc(some, predictions, tmp_path):
    export_tree(some, tmp_path / "yolo", "yolo", include_unsure=True, predictions=predictions)
    lines = {path.stem: path.read_text().splitlines() for path in (tmp_path / "yolo" / "predictions").rglob("*.txt")}
    assert len(lines) == 12
    names = unique_names([record["source_id"] for record in some.records])
    first = predictions.table.select(np.array([0]))
    image, width, height = int(first.images[0]), *SIZES[int(first.images[0]) % 4]
    number, x, y, w, h, score = map(float, lines[names[image]][0].split())
    assert number == first.labels[0] - 1
    corners = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
    assert corners == pytest.approx(first.boxes[0].tolist())
    assert score == pytest.approx(first.scores[0], abs=1e-6)
    export_tree(some, tmp_path / "voc", "voc", include_unsure=True, predictions=predictions)
    files = sorted(path.name for path in (tmp_path / "voc" / "predictions" / "train").iterdir())
    assert len(files) == 3
    assert files[0].startswith("comp4_det_train_")
    rows = [
        line.split()
        for path in (tmp_path / "voc" / "predictions").rglob("*.txt")
        for line in path.read_text().splitlines()
    ]
    assert len(rows) == len(predictions.table) - 1
    assert {len(row) for row in rows} == {6}
    # The trees with predictions beside them are still read as what they are.
    assert len(back(tmp_path / "yolo", tmp_path / "again")) == 12
    assert "labels without a picture" not in open_store(tmp_path / "again").conversion["dropped"]["counts"]


def test_names_of_pictures():
    names = unique_names(["a b/c", "a_b_c", "A_B_C", "CON", "1.2.840.1", "é", "..", "a b/c "])
    assert len({name.casefold() for name in names}) == len(names)
    assert not any(set(name) & set(" /\\") for name in names)
    assert names[4] == "1.2.840.1"


def test_sizes_and_patients_stand_beside_the_pictures(some, tmp_path):
    export_tree(some, tmp_path / "tree", "voc", include_unsure=True)
    with open(tmp_path / "tree" / "sizes.csv") as file:
        rows = list(csv.DictReader(file))
    assert rows[0].keys() == {"file_name", "width", "height", "patient"}
    assert (rows[1]["width"], rows[1]["height"], rows[1]["patient"]) == ("150", "311", "p0")


@pytest.mark.parametrize("name", ["a\ufffeb", "\uffff"])
def test_names_that_voc_cannot_hold_are_told_before_anything_is_written(tmp_path, name):
    categories = [{"id": 1, "name": name}, {"id": 2, "name": "and\u00a0: blank"}]
    store = make(tmp_path, "none", unsure=False, categories=categories)
    with pytest.raises(InputError, match="has characters that VOC's XML cannot hold"):
        export_tree(store, tmp_path / "voc", "voc")
    assert not (tmp_path / "voc").exists()
    for format in ("coco", "yolo"):
        export_tree(store, tmp_path / format, format)
        convert("tree", tmp_path / format, tmp_path / f"{format} back", image_size=96, n_folds=2)
        assert list(open_store(tmp_path / f"{format} back").categories.values()) == list(store.categories.values())
