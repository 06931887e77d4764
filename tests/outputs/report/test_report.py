"""The report: what it says, that it stands alone, and that it survives the odd cases."""

import html.parser
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xray.datasets.store import Store, open_store
from xray.evaluation.box_matching import match_boxes
from xray.evaluation.evaluate import Evaluation, evaluate
from xray.outputs.report import page as report_page
from xray.outputs.report import parts, report
from xray.outputs.report.boxes import froc_figure, panels, precision_recall_figure, score_figure
from xray.outputs.report.labels import label_precision_recall_figure, roc_figure
from xray.outputs.report.masks import area_figure, dice_figure, gate_figure, triplet_figure
from xray.structures.boxes import BoxTable
from xray.structures.predictions import Predictions, read_predictions
from xray.structures.probability_maps import MapWriter, read_maps

SQUARE, WIDER, FAR = (100, 100, 500, 500), (100, 100, 540, 500), (500, 1000, 900, 1800)
UNIT = (0, 0, 1, 1)


class Page(html.parser.HTMLParser):
    """Collects a page's words, and everything it would load; fails on tags that do not close."""

    VOID = ("meta", "img", "source", "br", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: list[str] = []
        self.feed(text)
        assert self.links == [f"#{anchor}" for anchor in self.anchors]
        assert len(set(self.anchors)) == len(self.anchors) > 2
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        assert tag not in ("script", "link", "iframe")
        # Links to sections of the page itself load nothing.
        found = [value for name, value in attributes if name in ("src", "srcset", "href")]
        self.links += [value for value in found if value.startswith("#")]
        self.loads += [value for value in found if not value.startswith("#")]
        self.anchors += [value for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def files_of(page: report_page.Page) -> set[str]:
    return {section.file for section in page.sections if section.file}


def evaluated(store: Store, rows: list, **options: object) -> Evaluation:
    names = list(dict.fromkeys(row[0] for row in rows))
    columns = list(zip(*rows, strict=True))
    table = BoxTable.of([names.index(row[0]) for row in rows], columns[1], columns[2], columns[3])
    return evaluate(store, Predictions(tuple(names), table), **options)


@pytest.fixture
def store(tmp_path: Path, write_table_store: Callable[..., Path]) -> Store:
    images = [("one", "test", -1, "p"), ("two", "test", -1, "p"), ("three", "test", -1, "q"), ("t", "train", 0, "r")]
    boxes = [(0, 4, SQUARE), (0, 1, FAR), (1, 4, SQUARE), (3, 4, SQUARE)]
    return open_store(write_table_store(tmp_path / "data", images, boxes), pixels=False)


ROWS = [
    ("one", 4, SQUARE, 0.9),
    ("one", 4, WIDER, 0.85),  # a second box on the same finding
    ("one", 9, FAR, 0.8),  # the aorta, called a nodule
    ("two", 4, (300, 100, 700, 500), 0.7),  # IoU 1/3 with the same finding
    ("two", 2, FAR, 0.6),  # nothing there
    ("three", 4, SQUARE, 0.5),  # a normal image
    ("two", 4, SQUARE, 0.25),
    ("three", 15, UNIT, 0.75),
]


@pytest.mark.usefixtures("sketched")
def test_the_page_says_what_was_found(tmp_path: Path, store: Store) -> None:
    result = evaluated(store, ROWS, baseline=True, n_resamples=50)
    path = tmp_path / "report.html"
    report.write_report(path, result, store, "runs/<x>/predictions.json", ["3 images & more"])
    page = Page(path.read_text(encoding="utf-8"))
    # Cardiomegaly: right, wrong, wrong, wrong, right of two: (1 + 2/5) / 2 = 0.7; the aorta 0; so the mean is 0.35.
    for words in (
        "Not for clinical use",
        "runs/<x>/predictions.json",
        "3 images & more",
        "mAP@0.4 0.350",
        "Cardiomegaly 2 2 0.700",
        "Mean of the findings 3 0.350",
        "No finding 1 1 1.000",
        "one Cardiomegaly 0.850 100, 100, 540, 500 a finding that a stronger box had found",
        "one Nodule/Mass 0.800 500, 1000, 900, 1800 Aortic enlargement, IoU 1.00",
        "two Cardiomegaly 0.700 300, 100, 700, 500 the same finding, but IoU 0.33",
        "two Atelectasis 0.600 500, 1000, 900, 1800 nothing",
        "three Cardiomegaly 0.500 100, 100, 500, 500 a radiograph without findings",
        "one Aortic enlargement never 16.0 % 500, 1000, 900, 1800 Nodule/Mass 0.800, IoU 1.00",
        "two Cardiomegaly 0.250 8.0 % 100, 100, 500, 500 Cardiomegaly 0.250, IoU 1.00",
        "1 of 3 findings are not found at any score",
        "test: 3 of 4 radiographs",
        "4 radiographs, 4 boxes, 3 patients",
        "Patients 2",
    ):
        assert words in page.text, words
    assert page.text.index("one Cardiomegaly 0.850") < page.text.index("one Nodule/Mass 0.800")
    for words in (
        "AUROC 0.750",
        "mean over 2 labels",
        # Cardiomegaly: 0.9 and 0.7 in the two that show it, 0.5 in the one that does not. One of two from 0.5 up.
        "Cardiomegaly highest score of its rows 2 1.000",
        "Aortic enlargement highest score of its rows 1 0.500",
        "abnormal 1 − “No finding” 2 1.000",
        "Whole radiographs called positive at a score of 0.5 or more",
        "Pictures need not show the same: there, boxes have a score of 0.3 or more",
        "Cardiomegaly highest score of its rows 0.5 1.000",
    ):
        assert words in page.text.replace("– ", ""), words
    assert list(tmp_path.glob("*.part")) == []


def test_the_page_needs_nothing_else(tmp_path: Path, store: Store) -> None:
    (tmp_path / "triplet.png").write_bytes(b"of an earlier report")
    figures = files_of(report.write_report(tmp_path / "report.html", evaluated(store, ROWS), store, "p.json"))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    loads = Page(text).loads
    assert len(loads) == 8
    names = ["calibration_boxes.png", "calibration_labels.png", "confusion.png", "froc.png"]
    names += ["precision_recall.png", "precision_recall_labels.png", "roc.png", "scores.png"]
    assert sorted(figures) == names == sorted(path.name for path in tmp_path.glob("*.png"))
    for name in figures:
        pixels = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert pixels.std() > 10
    assert all(load.startswith("data:image/png;base64,") for load in loads)
    without_data = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|url\(|@import", without_data)


@pytest.mark.usefixtures("sketched")
def test_names_cannot_break_the_page(tmp_path: Path, write_table_store: Callable[..., Path]) -> None:
    evil = '<script>alert("x")</script>'
    categories = [{"id": 1, "name": evil}, {"id": 2, "name": "a & b $title"}]
    images = [(evil, "test", -1, None), ("b", "test", -1, None)]
    store = open_store(
        write_table_store(tmp_path / "d", images, [(0, 1, SQUARE), (0, 2, FAR)], categories), pixels=False
    )
    result = evaluated(store, [(evil, 1, FAR, 0.5), (evil, 2, SQUARE, 0.4)])
    report.write_report(tmp_path / "r.html", result, store, evil, [evil])
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))  # fails on a script
    assert "a & b $title" in page.text
    assert page.text.count(evil) > 4


@pytest.mark.parametrize("n_boxes", [0, 3])
@pytest.mark.usefixtures("sketched")
def test_predictions_that_find_nothing(tmp_path: Path, store: Store, n_boxes: int) -> None:
    rows = [("one", 4, SQUARE, 0.5)] * n_boxes + [("three", 15, UNIT, 0.5)]
    empty = evaluated(store, rows, n_resamples=20)
    report.write_report(tmp_path / "report.html", empty, store, "p.json")
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    # "No finding" alone is a label of whole radiographs.
    assert ("Strongest false positives" if n_boxes else "Classification report") in text


@pytest.mark.usefixtures("sketched")
def test_a_truth_without_boxes(tmp_path: Path, write_table_store: Callable[..., Path]) -> None:
    store = open_store(write_table_store(tmp_path / "d", [("n", "test", -1, None)] * 1, []), pixels=False)
    result = evaluated(store, [("n", 4, SQUARE, 0.5)], n_resamples=20)
    report.write_report(tmp_path / "report.html", result, store, "p.json")
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "nan" not in text.casefold()
    assert "a radiograph without findings" in text


def test_panels_hold_the_same_matches_as_the_metric(store: Store) -> None:
    result = evaluated(store, ROWS)
    shown = {panel.name: panel for panel in panels(result.boxes)}
    assert list(shown) == ["Aortic enlargement", "Atelectasis", "Cardiomegaly", "Nodule/Mass", "No finding"]
    np.testing.assert_array_equal(shown["Cardiomegaly"].is_true, [True, False, False, False, True])
    np.testing.assert_array_equal(shown["Cardiomegaly"].scores, [0.9, 0.85, 0.7, 0.5, 0.25])
    assert [panel.n_truth for panel in shown.values()] == [1, 0, 2, 0, 1]
    matches = match_boxes(result.alignment.truth, result.alignment.predictions)
    assert sum(panel.is_true.sum() for panel in shown.values()) == matches.is_true.sum() + 1  # "No finding"


@pytest.mark.parametrize("draw", [precision_recall_figure, froc_figure, score_figure])
def test_figures_of_boxes(store: Store, draw: Callable) -> None:
    assert_picture(draw(evaluated(store, ROWS).boxes))


def assert_picture(png: bytes) -> None:
    """Dark ink on white, with a palette."""
    picture = Image.open(io.BytesIO(png))
    assert picture.mode == "P"
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert 0.001 < (pixels.max(axis=2) < 140).mean() < 0.5


@pytest.fixture
def pneumothorax(tmp_path: Path, write_mask_store: Callable[..., Path], mask_row: Callable) -> tuple[Evaluation, Store]:
    """Four radiographs of 40 x 30: a mask half met, one missed, one false, one rightly empty; maps and a classifier."""
    full = np.zeros((30, 40), dtype=np.uint8)
    full[5:15, 4:24] = 1
    half = np.zeros_like(full)
    half[5:15, 4:14] = 1
    images = [("<half>", 40, 30, 0, None), ("missed", 40, 30, 0, None), ("false", 40, 30, 0, None)]
    images.append(("empty", 40, 30, 0, None))
    store = open_store(write_mask_store(tmp_path / "d", images, [(0, 1, full), (1, 1, full)]), pixels=False)
    folder = tmp_path / "predictions"
    folder.mkdir()
    rows = [mask_row("<half>", 1, half, 0.9), mask_row("false", 1, half, 0.6)]
    (folder / "predictions.json").write_text(json.dumps(rows))
    writer = MapWriter(folder, [name for name, *_ in images], {1: "Pneumothorax"}, 20)
    for index in range(4):
        canvas = np.full((1, 20, 20), 0.05)
        canvas[0, 5:10, 2:12] = (0.95, 0.4, 0.7, 0.1)[index]
        writer.add(index, 40, 30, canvas, {"Pneumothorax": (0.9, 0.8, 0.3, 0.2)[index]})
    writer.close()
    predictions = read_predictions(folder / "predictions.json")
    return evaluate(store, predictions, read_maps(folder), n_resamples=20), store


@pytest.mark.usefixtures("sketched")
def test_a_report_on_masks(tmp_path: Path, pneumothorax: tuple[Evaluation, Store]) -> None:
    result, store = pneumothorax
    figures = files_of(report.write_report(tmp_path / "report.html", result, store, "p.json"))
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    # Half of 200 pixels: Dice 2·100 / 300; missed 0, false 0, empty 1.
    for words in (
        "Segmentation report",
        "Dice 0.417",
        "False-positive rate 0.500",
        "missed 0.000 16.67 % 0.00 % 16.67 %",
        "<half> 0.667 16.67 % 8.33 % 8.33 %",
        "1 of 2 masks that should be empty are not",
        "false 100 8.33 %",
        "flatters their own Dice",
        "Predictions as they are 0.4167 0.3333 0.5000 0.5000",
        "The marked triplet behind a gate",
        "Pneumothorax probability map 2",
        "Pneumothorax classifier 2 1.000",
        "Precision and recall of the boxes",
        "Mask area median 16.7 %",
    ):
        assert words in page.text, words
    assert page.text.index("missed 0.000") < page.text.index("<half> 0.667")
    assert "Strongest false positives" not in page.text
    others = {"confusion.png", "groups.png", "training.png", "false_positives.png", "misses.png"}
    others |= {"compare_values.png", "compare_differences.png"}
    others |= {"places.png", "readers.png", "copies.png", "odd.png", "labels.png"}  # an audit's
    assert figures == {*parts.FIGURES, *parts.GALLERIES} - others
    assert len(page.loads) == len(figures)


def test_figures_of_masks_and_labels(pneumothorax: tuple[Evaluation, Store]) -> None:
    result, _ = pneumothorax
    gate = result.masks.search.gate
    for png in (
        dice_figure(result.masks),
        area_figure(result.masks),
        triplet_figure(result.masks.search),
        gate_figure(gate.table, gate.best),
        roc_figure(result.labels),
        label_precision_recall_figure(result.labels),
    ):
        assert_picture(png)


@pytest.mark.usefixtures("sketched")
def test_masks_that_are_all_empty(tmp_path: Path, write_mask_store: Callable[..., Path], mask_row: Callable) -> None:
    spot = np.eye(6, dtype=np.uint8)
    images = [("a", 6, 6, 0, None), ("b", 6, 6, 1, None)]
    store = open_store(write_mask_store(tmp_path / "d", images, [(1, 1, spot)]), pixels=False)
    (tmp_path / "p.json").write_text(json.dumps([mask_row("a", 1, spot, 0.5)]))
    result = evaluate(store, read_predictions(tmp_path / "p.json"), n_resamples=5)
    report.write_report(tmp_path / "report.html", result, store, "p.json")
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "nan" not in text.casefold()
    assert "All 0 true masks" in text


@pytest.mark.usefixtures("sketched")
def test_a_report_on_labels(tmp_path: Path, write_table_store: Callable[..., Path]) -> None:
    whole = (0, 0, 1000, 2000)
    images = [(name, "test", -1, None) for name in ("one", "two", "three")]
    store = open_store(write_table_store(tmp_path / "d", images, [(0, 4, SQUARE), (1, 4, SQUARE)]), pixels=False)
    result = evaluated(store, [("one", 4, whole, 0.8), ("two", 4, whole, 0.4), ("three", 4, whole, 0.7)])
    report.write_report(tmp_path / "report.html", result, store, "p.json")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    for words in (
        "Classification report",
        "AUROC 0.500 Cardiomegaly",
        "Sensitivity 0.500 at 0.5",
        "All 1 from the highest score down. Radiograph Label Score three Cardiomegaly 0.700",
        "All 1 from the lowest score up. Radiograph Label Score two Cardiomegaly 0.400",
    ):
        assert words in page.text, words
