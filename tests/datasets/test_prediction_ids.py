"""What the numbers in other detectors' files mean: pycocotools on the original file is the judge."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from source_cases import write_picture

from xray.datasets.prediction_ids import read_all_predictions, read_any_predictions, resolve, resolve_images
from xray.datasets.sources import convert
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError
from xray.evaluation.evaluate import evaluate
from xray.structures.predictions import read_predictions

TWO = ({"id": 1, "name": "Nodule"}, {"id": 2, "name": "Mass"})
N = 8


class Case:
    """A COCO file of eight radiographs, one box each, its dataset, and results that name them by the file's ids."""

    def __init__(self, folder, names=None, ids=None, categories=TWO, used=None):
        names = names or [f"r{number}.png" for number in range(N)]
        ids = list(ids or range(1, N + 1))
        used = used or [category["id"] for category in categories]
        random = np.random.default_rng(0)
        self.folder = folder
        self.truth = {"images": [], "annotations": [], "categories": list(categories)}
        self.results = []
        for number, (name, own_id) in enumerate(zip(names, ids, strict=True)):
            write_picture(folder / "raw" / name, offset=number)
            bbox = [*random.integers(0, 20, 2).tolist(), 30, 15]
            self.truth["images"].append({"id": own_id, "file_name": name, "width": 60, "height": 40})
            category = used[number % len(used)]
            self.truth["annotations"].append(
                {"id": number + 1, "image_id": own_id, "category_id": category, "bbox": bbox, "area": 450, "iscrowd": 0}
            )
            # Not perfect: the wrong thing must not score the same by chance.
            moved = [bbox[0] + number % 4, bbox[1], bbox[2], bbox[3]]
            score = 0.9 - number / 20
            self.results.append({"image_id": own_id, "category_id": category, "bbox": moved, "score": score})
        (folder / "raw" / "annotations.json").write_text(json.dumps(self.truth))
        convert("coco", folder / "raw", folder / "data", image_size=32, n_folds=2, n_workers=0)
        self.store = open_store(folder / "data", pixels=False)

    def read(self, results=None):
        (self.folder / "p.json").write_text(json.dumps(self.results if results is None else results))
        return read_predictions(self.folder / "p.json")

    def ours(self, results=None, **flags):
        found = evaluate(self.store, resolve(self.store, self.read(results), **flags)).metrics
        return [found["coco_ap"], found["coco_ap50"], found["coco_ap75"]]

    def theirs(self):
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(self.folder / "raw" / "annotations.json"))
            scored = COCOeval(truth, truth.loadRes(self.results), "bbox")
            scored.evaluate()
            scored.accumulate()
            scored.summarize()
        return scored.stats[:3].tolist()


PLAIN = [f"{number}.png" for number in range(1, N + 1)]
CHEST = ({"id": 0, "name": "chest"}, {"id": 1, "name": "Nodule"}, {"id": 2, "name": "Mass"})
CASES = {
    "names that are no numbers": {},
    "numbers as names, in the order of the text": {"names": sorted(f"{n}.png" for n in range(5, 13))},
    "numbers as names, ids from 0": {"names": PLAIN, "ids": range(N)},
    "ids far away": {"ids": range(700_000, 700_000 + N)},
    "categories from 0": {"categories": ({"id": 0, "name": "Nodule"}, {"id": 1, "name": "Mass"})},
    "a category never used": {"categories": CHEST, "used": [1, 2]},
    "categories with a gap": {"categories": ({"id": 1, "name": "Nodule"}, {"id": 3, "name": "Mass"})},
    "categories in another order": {"categories": ({"id": 9, "name": "Nodule"}, {"id": 4, "name": "Mass"})},
    "more than fifteen categories": {
        "categories": [{"id": n, "name": f"c{n}"} for n in range(20)],
        "used": [15, 0, 14],
    },
}


@pytest.mark.parametrize("what", CASES)
def test_the_files_own_numbers_score_what_pycocotools_says(tmp_path, what):
    case = Case(tmp_path, **CASES[what])
    expected = case.theirs()
    assert 0.2 < expected[0] < 1
    np.testing.assert_allclose(case.ours(), expected, atol=1e-9)
    # As pandas and web tools write them.
    spelt = [
        {**row, "image_id": float(row["image_id"]), "category_id": str(row["category_id"])} for row in case.results
    ]
    np.testing.assert_allclose(case.ours(spelt), expected, atol=1e-9)
    np.testing.assert_allclose(case.ours(ids="coco", category_ids="source"), expected, atol=1e-9)


def with_masks(rows):
    """Mask R-CNN's rows hold a mask beside the box, its counts as text."""
    mask = {"size": [40, 60], "counts": mask_api.encode(np.ones((40, 60), np.uint8, order="F"))["counts"].decode()}
    return [{**row, "segmentation": mask} for row in rows]


def by_file_name(case):
    """Ultralytics': an image's id is its name, as a number where it is one; categories are counted from 1."""
    files = {image["id"]: image["file_name"] for image in case.truth["images"]}
    order = [category["id"] for category in case.truth["categories"]]
    return [
        {
            "image_id": int(stem) if (stem := files[row["image_id"]][:-4]).isdecimal() else stem,
            "file_name": files[row["image_id"]],
            "category_id": order.index(row["category_id"]) + 1,
            "bbox": [round(side, 3) for side in row["bbox"]],
            "score": round(row["score"], 5),
        }
        for row in case.results
    ]


WRITERS = {
    "Detectron2": lambda case: with_masks(case.results),
    "MMDetection": lambda case: [dict(sorted(row.items())) for row in case.results],
    "RF-DETR": lambda case: [{**row, "bbox": [float(side) for side in row["bbox"]]} for row in case.results],
    "torchvision": lambda case: sorted(case.results, key=lambda row: (-row["image_id"], row["score"])),
    "pycocotools": lambda case: [
        {**row, "id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
        for number, row in enumerate(case.results, 1)
    ],
    "Ultralytics": by_file_name,
}


@pytest.fixture(scope="module")
def written_cases(tmp_path_factory):
    names = ("categories from 0", "categories with a gap", "numbers as names, ids from 0")
    return [Case(tmp_path_factory.mktemp("written"), **CASES[name]) for name in names]


@pytest.mark.parametrize("tool", WRITERS)
def test_results_as_other_tools_write_them(written_cases, tool):
    for case in written_cases:
        np.testing.assert_allclose(case.ours(WRITERS[tool](case)), case.theirs(), atol=1e-9)


@pytest.fixture(scope="module")
def gap(tmp_path_factory):
    """Categories 2 and 3, which the dataset numbers 1 and 2."""
    categories = ({"id": 2, "name": "Nodule"}, {"id": 3, "name": "Mass"})
    return Case(tmp_path_factory.mktemp("gap"), names=PLAIN, ids=range(11, 11 + N), categories=categories)


def row(image_id, category, **changes):
    return {"image_id": image_id, "category_id": category, "bbox": [0, 0, 5, 5], "score": 0.5, **changes}


def labels(case, *rows, **flags):
    found = resolve(case.store, case.read(list(rows)), **flags)
    return [
        (found.image_ids[image], label) for image, label in zip(found.table.images, found.table.labels, strict=True)
    ]


def test_names_are_source_ids_and_numbers_the_files_own(gap):
    assert labels(gap, row(11, 2), row(12, 3)) == [("1", 1), ("2", 2)]
    assert labels(gap, row("1", 3), row("2.png", 3), row("./3.png", 3)) == [("1", 2), ("2", 2), ("3", 2)]
    # 1 fits only the dataset's own numbers, 3 only the source's.
    assert labels(gap, row("1", 1)) == [("1", 1)]
    # What the dataset does not have keeps its name.
    assert labels(gap, row(11, 2), row(99, 2)) == [("1", 1), ("99", 1)]
    assert labels(gap, row("1", 3), row("elsewhere", 3)) == [("1", 2), ("elsewhere", 2)]


def test_a_category_that_is_named_needs_no_number(gap):
    rows = [row("1", 2, category_name="Mass"), row("2", 1, category_name=" nodule")]
    assert labels(gap, *rows) == [("1", 2), ("2", 1)]
    normal = row("2", 15, bbox=[0, 0, 1, 1], category_name="No finding")
    assert labels(gap, *rows, normal)[2] == ("2", 15)
    with pytest.raises(InputError, match=r"boxes of Nipple, which are no categories of"):
        labels(gap, *rows, row("1", 7, category_name="Nipple"))


def test_a_number_with_two_meanings_is_refused_until_it_is_said(gap):
    with pytest.raises(
        InputError, match=r"category 2, which is 'Mass' in .* and 'Nodule' in its source: .*category-ids"
    ):
        labels(gap, row("1", 2))
    assert labels(gap, row("1", 2), category_ids="dataset") == [("1", 2)]
    assert labels(gap, row("1", 2), category_ids="source") == [("1", 1)]


def test_a_number_without_a_meaning_is_refused(gap):
    with pytest.raises(InputError, match=r"boxes of category 1, .* knows 2, 3: .*--category-ids"):
        labels(gap, row(11, 1))
    with pytest.raises(InputError, match=r"none of the 1 images .* \(such as 99\).*--ids"):
        labels(gap, row(99, 2))
    # Rows of annotations.json, counted from 0: none of them is an id of the source's file.
    with pytest.raises(InputError, match=r"numbers 2 images, of which the source's own COCO file has 0 .*--ids"):
        labels(gap, row(0, 2), row(1, 2))
    assert labels(gap, row(0, 2), row(1, 2), ids="rows") == [("1", 2), ("2", 2)]
    assert labels(gap, row(1, 2), row(2, 3), ids="source", category_ids="source") == [("1", 1), ("2", 2)]


def test_texts_that_may_be_names_or_ids(tmp_path):
    case = Case(tmp_path, names=["11.png", *(f"r{n}.png" for n in range(N - 1))], ids=range(10, 10 + N))
    # 11 is a radiograph's name, and the id of another.
    with pytest.raises(InputError, match=r"--ids coco or --ids source"):
        labels(case, row("11", 1))
    assert labels(case, row("11", 1), ids="source") == [("11", 1)]
    assert labels(case, row(11, 1)) == [("r0", 1)]
    # None of these is a name.
    assert labels(case, row("12", 1), row("13", 1)) == [("r1", 1), ("r2", 1)]
    with pytest.raises(InputError, match=r"names images like '12', .*--ids coco or --ids source"):
        labels(case, row("12", 1), row("r3.png", 1))


def test_the_file_that_a_row_names_counts_before_its_number(tmp_path):
    case = Case(tmp_path, names=PLAIN, ids=range(2, N + 2))
    # As Ultralytics writes: the number in the file's name, categories from 1. Image 2 of the COCO file is 1.png.
    rows = [row(number, 1, file_name=f"{number}.png") for number in (2, 3)]
    assert labels(case, *rows) == [("2", 1), ("3", 1)]
    assert labels(case, *rows, ids="source") == [("2", 1), ("3", 1)]
    assert labels(case, *rows, ids="coco") == [("1", 1), ("2", 1)]
    assert labels(case, row(2, 1, file_name="1.png"), row("some", 2, file_name="4.png")) == [("1", 1), ("4", 2)]
    with pytest.raises(InputError, match=r"row 1 is of 2\.png, an earlier row of image 2 of 1\.png"):
        case.read([row(2, 1, file_name="1.png"), row(2, 1, file_name="2.png")])


def test_texts_of_which_only_some_are_names(tmp_path):
    """The file's own numbers as text, one less than the names: only the first is no name."""
    case = Case(tmp_path, names=PLAIN, ids=range(N))
    rows = [{**one, "image_id": str(one["image_id"])} for one in case.results]
    with pytest.raises(InputError, match=r"names images like '0', .*--ids coco or --ids source"):
        case.ours(rows)
    np.testing.assert_allclose(case.ours(rows, ids="coco"), case.theirs(), atol=1e-9)
    # Each may be a name and a number of another; a category by name is what infer writes, whose texts are names.
    with pytest.raises(InputError, match=r"--ids coco or --ids source"):
        labels(case, row("1", 1), row("7", 2))
    assert labels(case, row("1", 1, category_name="Nodule"), row("7", 2, category_name="Mass")) == [("1", 1), ("7", 2)]
    (case.folder / "s.csv").write_text("image_id,PredictionString\n1,0 0.5 0 0 5 5\n")
    assert read_any_predictions(case.folder / "s.csv", case.store).image_ids == ("1",)
    # The last one is no number of another.
    assert labels(case, row("1", 1), row("8", 2)) == [("1", 1), ("8", 2)]


def test_flags_are_for_files_that_do_not_say_it_themselves(tmp_path):
    """What infer writes for 1.png, … beside a COCO file that numbers these and its categories from 0."""
    categories = ({"id": 0, "name": "Nodule"}, {"id": 1, "name": "Mass"})
    case = Case(tmp_path, names=PLAIN, ids=range(N), categories=categories)
    names = {category["id"]: category["name"] for category in categories}
    own = [
        {**one, "image_id": str(one["image_id"] + 1), "category_id": one["category_id"] + 1,
         "category_name": names[one["category_id"]]}
        for one in case.results
    ]  # fmt: skip
    for flags in ({}, {"ids": "coco"}, {"ids": "rows"}, {"category_ids": "source"}):
        np.testing.assert_allclose(case.ours(own, **flags), case.theirs(), atol=1e-9)


def test_flags_for_each_of_several_files(gap):
    first, second = gap.folder / "a.json", gap.folder / "b.json"
    first.write_text(json.dumps([row(11, 2)]))
    second.write_text(json.dumps([row(1, 1)]))
    found = read_all_predictions([first, second], gap.store, ["coco", "source"], ["source", "dataset"])
    assert [(one.image_ids, one.table.labels.tolist()) for one in found] == [(("1",), [1]), (("1",), [1])]
    with pytest.raises(FlagError, match="--ids has 3 values for 2 files"):
        read_all_predictions([first, second], gap.store, ["auto"] * 3, ["auto"])


def test_a_submission_with_the_sources_own_classes(gap):
    (gap.folder / "s.csv").write_text("image_id,PredictionString\n1,3 0.5 0 0 5 5\n2,14 1 0 0 1 1\n")
    (found,) = read_all_predictions([gap.folder / "s.csv"], gap.store, ["auto"], ["source"])
    assert found.table.labels.tolist() == [2, 15]


def test_rows_that_two_ids_of_one_radiograph_repeat(tmp_path):
    case = Case(tmp_path, names=["r0.png", "r0.png", *(f"r{n}.png" for n in range(1, N - 1))], ids=range(1, N + 1))
    case.truth["annotations"][1] = {**case.truth["annotations"][0], "id": 2, "image_id": 2}
    twice = {**case.results[0], "image_id": 2}
    found = resolve(case.store, case.read([case.results[0], twice, {**twice, "score": 0.1}]))
    assert (found.image_ids, found.table.scores.tolist()) == (("r0",), [0.9, 0.1])


def test_categories_of_any_number(tmp_path):
    case = Case(tmp_path, categories=({"id": -1, "name": "Nodule"}, {"id": 2**31 + 5, "name": "Mass"}))
    np.testing.assert_allclose(case.ours(), case.theirs(), atol=1e-9)


def test_masks_of_results_are_run_lengths_of_their_radiograph(gap):
    """Polygons, masks without boxes as torchvision's reference writes them, and empty ones."""
    polygon = [[10, 5, 30, 5, 30, 25, 10, 25]]
    empty = {"size": [40, 60], "counts": [2400]}
    rows = [
        {key: value for key, value in row(11, 2, segmentation=polygon).items() if key != "bbox"},
        row(12, 2, segmentation=empty),
    ]
    found = resolve(gap.store, gap.read(rows))
    assert found.table.boxes.tolist() == [[10, 5, 30, 25], [0, 0, 5, 5]]
    assert [int(mask_api.area(found.masks[number])) for number in (0, 1)] == [400, 0]
    with pytest.raises(InputError, match=r"p\.json, row 0: no mask of 1 \(run lengths for .*\[40, 61\]"):
        resolve(gap.store, gap.read([row(11, 2, segmentation={"size": [40, 61], "counts": [2440]})]), "p.json")


def test_categories_beside_file_names_may_be_numbered_from_1(gap):
    # The source's Nodule is 2, its Mass 3; counted from 1 they are 1 and 2.
    assert labels(gap, row(11, 1, file_name="1.png"), row(12, 2, file_name="2.png")) == [("1", 1), ("2", 2)]
    assert labels(gap, row(11, 3, file_name="1.png")) == [("1", 2)]
    with pytest.raises(InputError, match="category 2, which is"):
        labels(gap, row(11, 2, file_name="1.png"))


def test_a_segmenters_own_categories_are_let_alone(gap):
    found = resolve_images(gap.store, gap.read([row(12, 7)]), "masks.json")
    assert (found.image_ids, found.table.labels.tolist()) == (("2",), [7])


def test_two_ids_of_one_radiograph(tmp_path):
    for number in range(3):
        write_picture(tmp_path / "raw" / f"r{number}.png", offset=number)
    images = [{"id": number, "file_name": f"r{number % 3}.png", "width": 60, "height": 40} for number in range(4)]
    truth = {"images": images, "annotations": [], "categories": list(TWO)}
    (tmp_path / "raw" / "annotations.json").write_text(json.dumps(truth))
    convert("coco", tmp_path / "raw", tmp_path / "data", image_size=32, n_folds=2, n_workers=0)
    store = open_store(tmp_path / "data", pixels=False)
    (tmp_path / "p.json").write_text(json.dumps([row(0, 1), row(3, 2)]))
    found = resolve(store, read_predictions(tmp_path / "p.json"))
    assert (found.image_ids, found.table.images.tolist()) == (("r0",), [0, 0])


@pytest.fixture
def vinbig(tmp_path):
    """A dataset that comes from no COCO file: radiographs "5", "0" and "b"."""
    images = [
        {
            "id": number,
            "file_name": f"{name}.png",
            "source_id": name,
            "width": 60,
            "height": 40,
            "split": "test",
            "fold": -1,
        }
        for number, name in enumerate(("5", "0", "b"))
    ]
    content = {"images": images, "annotations": [], "categories": list(TWO)}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "conversion.json").write_text(json.dumps({"parameters": {"image_size": 32}}))
    return tmp_path


def test_numbers_beside_a_dataset_without_a_coco_file(vinbig):
    store = open_store(vinbig, pixels=False)

    def read(*ids, **flags):
        (vinbig / "p.json").write_text(json.dumps([row(image_id, 1) for image_id in ids]))
        return resolve(store, read_predictions(vinbig / "p.json"), **flags).image_ids

    assert read(5) == ("5",)
    assert read(1, 2) == ("0", "b")
    # 0 is a name, and the row of another.
    with pytest.raises(InputError, match=r"may be names or rows of .*--ids source or --ids rows"):
        read(0)
    assert (read(0, ids="source"), read(0, ids="rows")) == (("0",), ("5",))
    with pytest.raises(InputError, match=r"--ids coco: .* does not come from a COCO file"):
        read(0, ids="coco")
    with pytest.raises(InputError, match=r"--category-ids source: .* has no category ids of its source"):
        read(5, category_ids="source")


def test_small_boxes_between_the_grid_score_as_in_the_file(tmp_path):
    """On boxes of a few pixels with many decimals an IoU passes a threshold for the last of them."""
    case = Case(tmp_path, names=[f"r{n}.png" for n in range(N)])
    random = np.random.default_rng(3)
    for annotation, result in zip(case.truth["annotations"], case.results, strict=True):
        x, y, width, height = random.uniform(1, 9, 4).tolist()
        annotation["bbox"], result["bbox"] = [x, y, width, height], [x, y, width, height * 0.75002]
    (tmp_path / "raw" / "annotations.json").write_text(json.dumps(case.truth))
    convert("coco", tmp_path / "raw", tmp_path / "data", image_size=32, n_folds=2, n_workers=0, overwrite=True)
    case.store = open_store(tmp_path / "data", pixels=False)
    np.testing.assert_allclose(case.ours(), case.theirs(), atol=1e-9)
    assert case.theirs()[2] == 1


def test_no_finding_by_the_sources_own_number(tmp_path):
    categories = ({"id": 0, "name": "Nodule"}, {"id": 14, "name": "No finding"})
    case = Case(tmp_path, categories=categories, used=[0])
    assert labels(case, row(1, 0), row(2, 14, bbox=[0, 0, 1, 1])) == [("r0", 1), ("r1", 15)]


def test_no_finding_is_not_taken_for_a_fifteenth_category(tmp_path):
    case = Case(tmp_path, categories=[{"id": number, "name": f"category {number}"} for number in range(1, 17)])
    names = [record["source_id"] for record in case.store.records]
    normal = [
        {"image_id": name, "category_id": 15, "category_name": "No finding", "bbox": [0, 0, 1, 1], "score": 0.9}
        for name in names
    ]
    box = {"image_id": names[0], "category_id": 15, "category_name": "category 15", "bbox": [3, 4, 5, 6], "score": 0.8}
    with pytest.raises(InputError, match="No finding alone"):
        resolve(case.store, case.read(normal))
    other = {**box, "category_id": 2, "category_name": "category 2"}
    assert resolve(case.store, case.read([*normal, other])).table.labels.tolist() == [2]
    assert resolve(case.store, case.read([box])).table.labels.tolist() == [15]
    (tmp_path / "s.csv").write_text(f"image_id,PredictionString\n{names[0]},14 0.9 0 0 1 1 14 0.8 3 4 8 10\n")
    found = read_any_predictions(tmp_path / "s.csv", case.store)
    assert (found.table.labels.tolist(), found.table.boxes.tolist()) == ([15], [[3, 4, 8, 10]])
