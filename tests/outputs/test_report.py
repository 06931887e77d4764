"""The report: what it says, that it stands alone, and that it survives the odd cases."""

import html.parser
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xray.data.boxes import BoxTable
from xray.data.predictions import Predictions
from xray.data.store import Store, open_store
from xray.detection.evaluation import Evaluation, evaluate
from xray.detection.metrics import match_boxes
from xray.outputs import report
from xray.outputs.report_figures import DARK, LIGHT, froc_figure, panels, precision_recall_figure, score_figure

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
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        assert tag not in ("script", "link", "iframe")
        self.loads += [value for name, value in attributes if name in ("src", "srcset", "href")]
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
        "Patients 2",
    ):
        assert words in page.text, words
    assert page.text.index("one Cardiomegaly 0.850") < page.text.index("one Nodule/Mass 0.800")
    assert list(tmp_path.glob("*.part")) == []


def test_the_page_needs_nothing_else(tmp_path: Path, store: Store) -> None:
    report.write_report(tmp_path / "report.html", evaluated(store, ROWS), store, "p.json")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    loads = Page(text).loads
    assert len(loads) == 6  # three figures, light and dark
    assert all(load.startswith("data:image/png;base64,") for load in loads)
    without_data = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|url\(|@import", without_data)


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
def test_predictions_that_find_nothing(tmp_path: Path, store: Store, n_boxes: int) -> None:
    rows = [("one", 4, SQUARE, 0.5)] * n_boxes + [("three", 15, UNIT, 0.5)]
    empty = evaluated(store, rows, n_resamples=20)
    report.write_report(tmp_path / "report.html", empty, store, "p.json")
    assert "Strongest false positives" in Page((tmp_path / "report.html").read_text(encoding="utf-8")).text


def test_a_truth_without_boxes(tmp_path: Path, write_table_store: Callable[..., Path]) -> None:
    store = open_store(write_table_store(tmp_path / "d", [("n", "test", -1, None)] * 1, []), pixels=False)
    result = evaluated(store, [("n", 4, SQUARE, 0.5)], n_resamples=20)
    report.write_report(tmp_path / "report.html", result, store, "p.json")
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "nan" not in text.casefold()
    assert "a radiograph without findings" in text


def test_panels_hold_the_same_matches_as_the_metric(store: Store) -> None:
    result = evaluated(store, ROWS)
    shown = {panel.name: panel for panel in panels(result)}
    assert list(shown) == ["Aortic enlargement", "Atelectasis", "Cardiomegaly", "Nodule/Mass", "No finding"]
    np.testing.assert_array_equal(shown["Cardiomegaly"].is_true, [True, False, False, False, True])
    np.testing.assert_array_equal(shown["Cardiomegaly"].scores, [0.9, 0.85, 0.7, 0.5, 0.25])
    assert [panel.n_truth for panel in shown.values()] == [1, 0, 2, 0, 1]
    matches = match_boxes(result.truth, result.predictions)
    assert sum(panel.is_true.sum() for panel in shown.values()) == matches.is_true.sum() + 1  # "No finding"


@pytest.mark.parametrize("draw", [precision_recall_figure, froc_figure, score_figure])
def test_figures_are_transparent_pngs_of_both_themes(store: Store, draw: Callable) -> None:
    result = evaluated(store, ROWS)
    light, dark = (Image.open(io.BytesIO(draw(result, theme))) for theme in (LIGHT, DARK))
    assert light.size == dark.size
    assert light.mode == "RGBA"
    light, dark = np.asarray(light).astype(int), np.asarray(dark).astype(int)
    assert light[0, 0, 3] == 0
    # Opaque pixels are ink: dark on a light page, light on a dark one.
    assert light[light[..., 3] == 255][:, :3].mean() < 140 < dark[dark[..., 3] == 255][:, :3].mean()
