"""The report's parts: Markdown of the same content, pictures, training curves, comparison, figures."""

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from xray.datasets.fingerprint import fingerprint
from xray.datasets.store import Store, open_store
from xray.errors import InputError
from xray.evaluation.box_matching import match_boxes
from xray.evaluation.comparison import compare
from xray.evaluation.evaluate import evaluate
from xray.evaluation.scored import read_side, scored_of
from xray.outputs.report import report, training
from xray.outputs.report.boxes import _misses_section
from xray.outputs.report.comparison import p_text, write_comparison
from xray.outputs.report.figures import DRAWN, thinned
from xray.outputs.report.galleries import galleries, pixels_of
from xray.outputs.report.page import Page, to_markdown
from xray.outputs.report.parts import Bar, Section, Tile, table, tile
from xray.outputs.report.printing import print_table
from xray.outputs.report.training import curve_metrics, read_curves, run_of, training_sections
from xray.structures.boxes import BoxTable
from xray.structures.predictions import Predictions, read_predictions


def markdown_of(*sections: Section, tiles: tuple[Tile, ...] = (), warnings: tuple[str, ...] = ()) -> str:
    page = Page("T", "s", warnings, tiles, sections)
    return to_markdown({"page": page, "now": "now", "version": "1"})


def test_printed_names_cannot_pass_for_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Readers", [("Reader", "text"), ("Boxes", "number")], [["R1\nwarning: [b]x\x1b[2J", 3]])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("R1\\nwarning: [b]x\\x1b[2J") and line.endswith("3") for line in lines)


def test_a_table_in_markdown() -> None:
    rows = [["a | b", "1,234", Bar(0.03), "x"], ["<i> *x*", "2", Bar(0.5), "y"]]
    text = markdown_of(Section("Findings", "hint_1", table(["!Name", "#Number", "|", None], rows, mean_row=1)))
    assert text == (
        "# T\n\ns · now\n\n**Not for clinical use**\n\n## Findings\n\nhint\\_1\n\n"
        "| Name | Number |\n| --- | ---: |\n| a \\| b | 1,234 |\n| **&lt;i&gt; \\*x\\*** | **2** |\n\n"
        "Written by xray 1; every number is in metrics.json beside this page.\n"
    )


def test_tiles_warnings_and_facts_in_markdown() -> None:
    text = markdown_of(
        Section("Facts", facts={"Patients": "3", "Size": "9 x 9"}),
        Section("Nothing", table=table(["Name"], [])),
        tiles=(tile("mAP", 0.5, [0.4, 0.6], "a note", True), Tile("n", "12", "")),
        warnings=("careful",),
    )
    lines = (
        "- mAP: **0.500** (0.400–0.600 · a note)",
        "- n: **12**",
        "careful",
        "- **Patients**: 3",
        "There are none.",
    )
    for line in lines:
        assert line in text.splitlines(), line


@pytest.fixture
def pictured(tmp_path: Path, write_table_store: Callable[..., Path]) -> Store:
    """Four radiographs of 1000 x 2000 as canvases of 64: a lit rectangle where the finding is."""
    images = [(name, "test", -1, None) for name in ("one", "two", "three", "four")]
    box = (100, 100, 500, 700)
    folder = write_table_store(tmp_path / "data", images, [(0, 4, box), (1, 1, box)])
    pixels = np.full((4, 64, 64), 40, dtype=np.uint8)
    np.save(folder / "images.npy", pixels)
    return open_store(folder, pixels=False)


def predicted(*rows: tuple) -> Predictions:
    names = list(dict.fromkeys(row[0] for row in rows))
    columns = list(zip(*rows, strict=True))
    return Predictions(tuple(names), BoxTable.of([names.index(row[0]) for row in rows], *columns[1:]))


ROWS = (("one", 4, (100, 100, 500, 700), 0.9), ("three", 4, (600, 900, 900, 1400), 0.8),
        ("four", 1, (100, 900, 400, 1400), 0.3))  # fmt: skip


def test_errors_are_pictured_strongest_first(tmp_path: Path, pictured: Store) -> None:
    result = evaluate(pictured, predicted(*ROWS))
    false, missed = galleries(result, pixels_of(pictured, None))
    assert [caption for _, caption in false.pictures] == ["three: Cardiomegaly 0.800", "four: Aortic enlargement 0.300"]
    assert [caption for _, caption in missed.pictures] == ["two: Aortic enlargement, never found"]
    picture = np.asarray(Image.open(io.BytesIO(false.pictures[0][0])).convert("RGB")).astype(int)
    assert 420 <= max(picture.shape[:2]) < 500
    # Cardiomegaly's colour, #D55E00, on a grey radiograph.
    reddish = (picture[..., 0] > 150) & (picture[..., 2] < 60)
    assert 200 < reddish.sum() < 0.2 * reddish.size
    report.write_report(tmp_path / "report.html", result, pictured, "p", pixels=pixels_of(pictured, None))
    text, markdown = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    assert text.count("data:image/jpeg;base64,") == 3
    assert "![Misses, pictured](misses.png)" in markdown
    for name, n_pictures in (("false_positives.png", 2), ("misses.png", 1)):
        assert Image.open(tmp_path / name).width > 250 * n_pictures
    for word in ("Cardiomegaly", "Confusion between findings", "Calibration of boxes", "Dataset"):
        assert word in markdown
    # Every picture that Markdown shows stands beside it.
    links = [part.split(")")[0] for part in markdown.split("](")[1:]]
    assert len(links) == 10
    assert all((tmp_path / link).is_file() for link in links)


def test_pictures_come_from_a_folder_too(tmp_path: Path, pictured: Store) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    assert cv2.imwrite(str(folder / "three.png"), np.full((400, 200), 90, dtype=np.uint8))
    result = evaluate(pictured, predicted(*ROWS))
    # The others are not there, and "three" is a fifth as large as the table says.
    (false,) = galleries(result, pixels_of(pictured, folder))  # no miss among them
    assert [caption for _, caption in false.pictures] == ["three: Cardiomegaly 0.800"]
    picture = np.asarray(Image.open(io.BytesIO(false.pictures[0][0])).convert("L"))
    assert np.median(picture) == 90
    (folder / "three.png").rename(folder / "other.png")
    with pytest.raises(InputError, match="none of the radiographs"):
        pixels_of(pictured, folder)
    (pictured.path / "images.npy").unlink()
    assert pixels_of(pictured, None) is None


def test_masks_and_labels_are_pictured_whole(tmp_path: Path, write_mask_store: Callable, mask_row: Callable) -> None:
    mask = np.zeros((30, 40), dtype=np.uint8)
    mask[5:15, 4:24] = 1
    images = [(name, 40, 30, 0, None) for name in ("half", "missed", "false")]
    folder = write_mask_store(tmp_path / "d", images, [(0, 1, mask), (1, 1, mask)])
    np.save(folder / "images.npy", np.full((3, 64, 64), 100, dtype=np.uint8))
    store = open_store(folder, pixels=False)
    half = mask.copy()
    half[:, 14:] = 0
    (tmp_path / "p.json").write_text(json.dumps([mask_row("half", 1, half, 0.9), mask_row("false", 1, half, 0.6)]))
    worst, false = galleries(evaluate(store, read_predictions(tmp_path / "p.json")), pixels_of(store, None))
    assert [caption for _, caption in worst.pictures] == [
        "missed: Pneumothorax, Dice 0.000",
        "half: Pneumothorax, Dice 0.667",
    ]
    assert [caption for _, caption in false.pictures] == ["false: Pneumothorax, 8.33 % of the radiograph"]
    # A classifier's boxes are whole radiographs.
    whole = (0, 0, 40, 30)
    labels = predicted(("half", 1, whole, 0.9), ("missed", 1, whole, 0.2), ("false", 1, whole, 0.7))
    false, missed = galleries(evaluate(store, labels), pixels_of(store, None))
    assert [caption for _, caption in false.pictures] == ["false: Pneumothorax 0.700"]
    assert [caption for _, caption in missed.pictures] == ["missed: Pneumothorax 0.200"]


def test_the_table_of_misses_has_no_finding_that_was_found(pictured: Store) -> None:
    rows = (("one", 4, (100, 100, 500, 700), 0.9), ("three", 4, (600, 900, 900, 1400), 0.8))
    boxes = evaluate(pictured, predicted(*rows)).boxes
    assert boxes is not None
    section = _misses_section(boxes.alignment, match_boxes(boxes.alignment.truth, boxes.alignment.predictions))
    n_found = int(match_boxes(boxes.alignment.truth, boxes.alignment.predictions).is_true.sum())
    assert n_found > 0
    assert section.table is not None
    assert len(section.table.rows) == len(boxes.alignment.truth) - n_found
    assert all("never" in row for row in section.table.rows)
    assert "0 at scores under 0.5 only" in section.hint


METRICS_CSV = """epoch,step,lr,train/loss,train/loss_step,train/loss_box_reg,train/loss_epoch,map40,lr-SGD/pg1
0,10,0.02,2.0,2.5,1.0,2.0,,
1,20,0.02,1.5,1.5,0.5,1.5,0.1,0.02
1,20,0.02,1.4,1.5,0.5,1.4,0.3,0.02
2,30,0.002,1.2,1.5,0.4,1.2,0.2,0.002
"""


def test_training_curves(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(METRICS_CSV)
    curves = read_curves(tmp_path)
    # An epoch that was begun twice counts once, as it was measured last.
    assert curve_metrics(curves)["epochs"] == [1, 2, 3]
    assert curve_metrics(curves)["loss"] == [2.0, 1.4, 1.2]
    np.testing.assert_array_equal(curves["map40"], [np.nan, 0.3, 0.2])
    table_section, figure = training_sections(curves)
    assert markdown_of(table_section).count("| mAP@0.4 | 0.200 | 0.300 | 2 |") == 1
    assert Image.open(io.BytesIO(figure.png)).mode == "P"
    assert figure.file == "training.png"
    assert training_sections(None) == []
    (tmp_path / "validation").mkdir()
    assert run_of(tmp_path / "validation" / "predictions.json") == tmp_path
    assert run_of(tmp_path / "elsewhere" / "predictions.json") is None


def test_single_steps_are_no_curves_and_no_legend_covers_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics.csv").write_text(METRICS_CSV)
    drawn = {}

    def grid(panels: list, x: str, y: str, draw: Callable, most_columns: int) -> bytes:
        for title, panel in panels:
            drawn[title] = Figure().subplots()
            draw(drawn[title], panel)
        return b""

    monkeypatch.setattr(training, "panel_grid", grid)
    curves = read_curves(tmp_path)
    training.training_figure(curves)
    for title, named, is_line in (
        ("Training loss", ["loss"], True), ("Terms of the loss", ["box reg"], False), ("Validation", ["mAP@0.4"], True),
    ):  # fmt: skip
        lines = [line for line in drawn[title].lines if line.get_label() in named]
        assert [line.get_label() for line in lines] == named
        assert [line.get_linestyle() != "None" for line in lines] == [is_line]
    legends = [drawn[title].get_legend() for title in ("Training loss", "Terms of the loss")]
    assert [one.get_title().get_text() for one in legends] == ["mean of each epoch", "at the last step of each epoch"]
    for one in legends:
        axes = one.axes
        axes.figure.draw_without_rendering()
        assert one.get_window_extent().y1 < axes.get_window_extent().y0
    # A run without the means has what its last steps had, and says so.
    training.training_figure(curves.drop(columns="train/loss_epoch"))
    assert drawn["Training loss"].get_legend().get_title().get_text() == "at the last step of each epoch"


def test_a_learning_rate_of_zero_is_drawn_without_a_warning() -> None:
    """As at the end of a cosine of a single epoch."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        *_, figure = training_sections(pd.DataFrame({"train/loss": [1.0], "lr": [0.0]}, index=[1]))
    assert figure.file == "training.png"


def test_a_learning_rate_that_ends_at_0_is_drawn_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    curves = pd.DataFrame({"lr": [0.02, 0.001, 0.0]}, index=[1, 2, 3])
    axes = Figure().subplots()

    def grid(panels: list, x: str, y: str, draw: Callable, most_columns: int) -> bytes:
        draw(axes, panels[-1][1])
        return b""

    monkeypatch.setattr(training, "panel_grid", grid)
    training.training_figure(curves)
    places = axes.transAxes.inverted().transform(axes.transData.transform(axes.lines[0].get_xydata()))
    # In the panel, each below the one before, and the steps of a logarithm for those above 0.
    assert (np.diff(places[:, 1]) < -0.05).all()
    assert ((places >= 0) & (places <= 1)).all()


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "epoch,x\n", "epoch,x\nnine,1\n", "\0\0\n"])
def test_tables_of_no_training(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"no metrics\.csv"):
        read_curves(tmp_path)
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(InputError, match=r"metrics\.csv"):
        read_curves(tmp_path)


def test_a_comparison_in_both_formats(tmp_path: Path, pictured: Store) -> None:
    sides = []
    for rows in (ROWS[:2], ROWS):
        result = evaluate(pictured, predicted(*rows))
        sides.append(scored_of(result, fingerprint(pictured, result.alignment.rows)["annotations_sha256"]))
    comparison = compare(pictured, *sides, 40)
    write_comparison(tmp_path / "report.html", comparison, ("<first>", "second"), "data", ["careful"])
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["compare_differences.png", "compare_values.png"]
    page, markdown = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    for text in (page, markdown):
        for words in ("Comparison report", "&lt;first&gt;", "careful", "paired bootstrap", "not adjusted", "COCO AP"):
            assert words in text, words
    assert "| Cardiomegaly | 1.000 | 1.000 | 0 | 0 to 0 | 1.000 |" in markdown
    assert "http" not in page.replace("http-equiv", "")


def test_p_values_are_as_fine_as_the_resamples() -> None:
    assert p_text(2 / 1001, 1000) == "≤ 0.002"
    assert p_text(0.5, 1000) == "0.500"
    assert p_text(4 / 1001, 1000) == "0.0040"
    assert "–" in p_text(None, 0)


def test_sides_are_files_or_folders(tmp_path: Path, pictured: Store) -> None:
    rows = [{"image_id": "one", "category_id": 4, "bbox": [100, 100, 400, 600], "score": 0.9}]
    (tmp_path / "a").mkdir()
    (tmp_path / "a/predictions.json").write_text(json.dumps(rows))
    of_file, of_folder = (read_side(tmp_path / name, pictured, None, None, 0.5) for name in ("a/predictions.json", "a"))
    assert of_file.image_ids == of_folder.image_ids == ("one", "two", "three", "four")
    (tmp_path / "a/predictions.json").unlink()
    with pytest.raises(InputError, match=r"neither scored\.npz, nor predictions\.json"):
        read_side(tmp_path / "a", pictured, None, None, 0.5)


def test_a_long_curve_is_drawn_with_fewer_points_at_the_same_places() -> None:
    rng = np.random.default_rng(0)
    x = np.sort(rng.random(200_000))
    y = rng.normal(size=len(x))
    y[123_456] = 40.0
    some_x, some_y, some_z = thinned(x, y, -y)
    assert len(some_x) <= 6 * (DRAWN + 1)
    assert (np.diff(some_x) >= 0).all()
    np.testing.assert_array_equal(some_y, -some_z)
    assert (some_x[0], some_x[-1]) == (x[0], x[-1])
    # In every column of pixels the line reaches as far up and down as before.
    column, some_column = (np.floor(values * DRAWN).astype(int) for values in (x, some_x))
    for number in np.unique(column):
        every, some = y[column == number], some_y[some_column == number]
        assert (every.min(), every.max(), every[0], every[-1]) == (some.min(), some.max(), some[0], some[-1])


def test_a_curve_on_a_logarithmic_axis_keeps_its_steep_beginning() -> None:
    x = np.arange(1, 100_001) / 10_000
    some_x, _ = thinned(x, x, along=(np.log2(x) + 14) / 18)
    assert (some_x < 0.01).sum() > 50
    assert len(some_x) < 2000


def test_a_short_curve_stays_as_it_is() -> None:
    x, y = np.linspace(0, 1, 30), np.arange(30.0)
    for kept, given in zip(thinned(x, y), (x, y), strict=True):
        np.testing.assert_array_equal(kept, given)
    assert [len(part) for part in thinned(np.zeros(0), np.zeros(0))] == [0, 0]
