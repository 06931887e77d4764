"""Readers' agreement against values worked by hand, and from published examples."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from xray.audit.readers import ANY, cohen_kappa, fleiss_kappa, krippendorff_alpha, matched_iou, reader_agreement
from xray.datasets.store import open_store


def calls(*ones: int, n: int) -> np.ndarray:
    called = np.zeros(n, dtype=bool)
    called[list(ones)] = True
    return called


def test_cohen_kappa_by_hand():
    # 50 radiographs: both yes 20, only the first 5, only the second 10, both no 15. p_o = 0.7, p_e = 0.5: kappa 0.4.
    first = np.array([True] * 25 + [False] * 25)
    second = np.array([True] * 20 + [False] * 5 + [True] * 10 + [False] * 15)
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    assert cohen_kappa(first, first) == 1
    # Always yes against always no: no agreement, and none expected by chance.
    assert cohen_kappa(np.ones(4, bool), np.zeros(4, bool)) == 0
    assert math.isnan(cohen_kappa(np.zeros(4, bool), np.zeros(4, bool)))
    assert math.isnan(cohen_kappa(np.zeros(0, bool), np.zeros(0, bool)))


def test_fleiss_kappa_by_hand():
    # Four radiographs, three readers: 3, 0, 2 and 1 of them see it. P_i = 1, 1, 1/3, 1/3; p = 1/2: (2/3 − 1/2) / (1/2).
    assert fleiss_kappa(np.array([3, 0, 2, 1]), 3) == pytest.approx(1 / 3)
    assert math.isnan(fleiss_kappa(np.array([0, 0]), 3))
    assert math.isnan(fleiss_kappa(np.array([1, 0]), 1))


def test_krippendorff_alpha_by_hand():
    # Krippendorff 2011, example A: two observers, ten units, 1 where either says so; alpha = 0.095.
    meg = np.array([0, 1, 0, 0, 0, 0, 0, 0, 1, 0])
    owen = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0])
    assert krippendorff_alpha(meg + owen, np.full(10, 2)) == pytest.approx(0.095, abs=5e-4)
    # A radiograph that one reader alone has read changes nothing.
    assert krippendorff_alpha(np.append(meg + owen, 1), np.append(np.full(10, 2), 1)) == pytest.approx(0.095, abs=5e-4)
    assert krippendorff_alpha(np.array([2, 0]), np.array([2, 2])) == 1
    assert math.isnan(krippendorff_alpha(np.array([0, 0]), np.array([2, 2])))
    assert math.isnan(krippendorff_alpha(np.zeros(0), np.zeros(0)))


def test_boxes_match_one_to_one_the_best_first():
    first = np.array([[0, 0, 10, 10], [0, 0, 10, 8]], dtype=float)
    second = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], dtype=float)
    # Both of the first overlap one of the second, which can be matched once.
    assert matched_iou(first, second) == [1.0]
    assert matched_iou(first[1:], second) == pytest.approx([0.8])
    assert matched_iou(first, np.zeros((0, 4))) == []


@pytest.fixture
def read_store(tmp_path, write_table_store):
    """(readers of each radiograph, (row, category, box, readers) of each box, readers flag) → an opened dataset."""

    def write(readers: list[tuple[str, ...]], boxes: list[tuple], flag: str = "all", unknown: dict | None = None):
        folder = tmp_path / f"data{len(list(tmp_path.iterdir()))}"
        images = [(f"i{row}", "train", row % 2, None) for row in range(len(readers))]
        categories = [{"id": 1, "name": "A"}, {"id": 2, "name": "B"}]
        write_table_store(folder, images, [box[:3] for box in boxes], categories)
        content = json.loads((folder / "annotations.json").read_text())
        for record, names in zip(content["images"], readers, strict=True):
            record["readers"] = list(names)
            record["unknown"] = (unknown or {}).get(record["id"], [])
        for annotation, box in zip(content["annotations"], boxes, strict=True):
            annotation["readers"] = list(box[3])
        Path(folder / "annotations.json").write_text(json.dumps(content))
        conversion = {"source": "test", "parameters": {"image_size": 64, "readers": flag}}
        (folder / "conversion.json").write_text(json.dumps(conversion))
        return open_store(folder, pixels=False)

    return write


BOX, NEAR = (0, 0, 100, 100), (0, 0, 100, 80)


def test_pairs_of_readers_in_a_dataset(read_store):
    store = read_store(
        [("R1", "R2"), ("R1", "R2"), ("R1", "R2"), ("R1", "R2"), ("R2", "R10")],
        [
            (0, 1, BOX, ["R1"]), (0, 1, NEAR, ["R2"]), (1, 1, BOX, ["R1"]), (2, 2, BOX, ["R1"]), (2, 1, BOX, ["R2"]),
            (4, 2, BOX, ["R10"]),
        ],
    )  # fmt: skip
    found = reader_agreement(store)
    assert found.names == ("R2", "R1", "R10")
    assert found.n_images.tolist() == [5, 4, 1]
    assert found.n_boxes.tolist() == [2, 3, 1]
    assert found.n_positive.tolist() == [2, 3, 1]
    pairs = {(found.names[pair.first], found.names[pair.second]): pair for pair in found.pairs}
    assert set(pairs) == {("R2", "R1"), ("R2", "R10")}
    pair = pairs["R2", "R1"]
    assert (pair.n_images, pair.n_boxes, pair.n_matched, pair.iou) == (4, (2, 3), 1, pytest.approx(0.8))
    # A: R2 on 0 and 2, R1 on 0 and 1: as by chance. B: R1 on 2, R2 never. Any: R2 on 0, 2; R1 on 0, 1, 2: p_e = 1/2.
    assert pair.kappa == {"A": 0, "B": 0, ANY: 0.5}
    assert found.metrics["share_of_three_busiest"] == 1
    assert not found.is_fused
    assert found.fleiss.keys() == {"A", "B", ANY}


def test_fused_boxes_have_calls_but_no_overlaps(read_store):
    store = read_store([("R1", "R2")] * 3, [(0, 1, BOX, ["R1", "R2"]), (1, 1, BOX, ["R2"])], "fuse")
    found = reader_agreement(store)
    assert found.is_fused
    assert found.by_number == {1: 1, 2: 1}
    (pair,) = found.pairs
    assert pair.kappa["A"] == pytest.approx(cohen_kappa(calls(0, n=3), calls(0, 1, n=3)))
    assert math.isnan(pair.iou)
    assert found.metrics["pairs"][0]["matched"] is None


def test_what_is_not_known_is_no_call(read_store):
    boxes = [(0, 1, BOX, ["R1"]), (1, 1, BOX, ["R2"])]
    certain = reader_agreement(read_store([("R1", "R2")] * 4, boxes))
    doubtful = reader_agreement(read_store([("R1", "R2")] * 4, boxes, unknown={3: [1]}))
    assert certain.pairs[0].kappa["A"] == pytest.approx(-1 / 3)
    # Of three radiographs: both never agree but on the third. p_o = 1/3, p_e = 5/9.
    assert doubtful.pairs[0].kappa["A"] == pytest.approx(-0.5)


def test_without_readers_there_is_nothing_to_compare(read_store):
    assert reader_agreement(read_store([()], [(0, 1, BOX, [])])) is None
    # Who drew a box where nobody is said to have read is no reader whose silence means anything.
    assert reader_agreement(read_store([("R1",), ()], [(1, 1, BOX, ["R2"])])).names == ("R1",)
