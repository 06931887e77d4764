"""tools/evaluate.py from the command line."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xray.commands.evaluate import Config, main
from xray.errors import FlagError, InputError
from xray.structures.probability_maps import MapWriter

pytestmark = pytest.mark.usefixtures("sketched")

TOOL = Path(__file__).resolve().parents[2] / "tools" / "evaluate.py"
SQUARE, FAR = (100, 100, 500, 500), (500, 1000, 900, 1800)


@pytest.fixture
def data(tmp_path: Path, write_table_store: Callable[..., Path]) -> Path:
    images = [("one", "test", -1, None), ("two", "test", -1, None), ("t", "train", 0, None)]
    return write_table_store(tmp_path / "data", images, [(0, 4, SQUARE), (0, 1, FAR), (2, 4, FAR), (2, 1, FAR)])


def write(path: Path, *rows: tuple) -> Path:
    """Rows of (image_id, category, (x, y, width, height), score)."""
    names = ("image_id", "category_id", "bbox", "score")
    path.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
    return path


def run(*flags: object, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, TOOL, *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=600, check=False)


def test_scores_and_writes_both_files(tmp_path: Path, data: Path) -> None:
    # Cardiomegaly found, AP 1; the aorta missed, AP 0: 0.5. With "No finding" wrongly first on image one and right
    # on image two, 1/2: Kaggle's mean is (1 + 0 + 1/2) / 3 = 0.5. The baseline has the aorta right and cardiomegaly
    # wrong on image one (and both wrong on image two, later): 0.5.
    predictions = write(
        tmp_path / "p.json",
        ("one", 4, (100, 100, 400, 400), 0.9),
        ("one", 15, (0, 0, 1, 1), 0.7),
        ("two", 15, (0, 0, 1, 1), 0.6),
        ("unknown", 4, (0, 0, 9, 9), 0.9),
    )
    done = run("--predictions", predictions, "--data-path", data, "--save-path", "out/deep", "--baseline", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 images in the predictions are not in" in done.stderr
    assert "mAP@0.4 0.500 (" in done.stdout
    assert "the detector reaches 1.0 ×" in done.stdout
    metrics = json.loads((tmp_path / "out/deep/metrics.json").read_text())
    assert metrics["map40"] == metrics["map40_kaggle"] == metrics["baseline_map40"] == 0.5
    assert metrics["ap40"] == {"Aortic enlargement": 0.0, "Cardiomegaly": 1.0}
    assert metrics["baseline_ap40"] == {"Aortic enlargement": 1.0, "Cardiomegaly": 0.0}
    assert metrics["coco_ap"] == pytest.approx(0.5)
    assert metrics["n_images"] == 2
    assert "map40_ci95" in metrics
    assert (tmp_path / "out/deep/report.html").read_text().startswith("<!doctype html>")
    figures = {"froc.png", "precision_recall.png", "precision_recall_labels.png", "roc.png", "scores.png"}
    figures |= {"calibration_boxes.png", "calibration_labels.png", "confusion.png"}
    names = {path.name for path in (tmp_path / "out/deep").iterdir()}
    assert names == {"metrics.json", "report.html", "report.md", "scored.npz", *figures}
    # Of the two images the aorta is missed, cardiomegaly found.
    assert metrics["calibration"]["boxes"]["All findings"]["brier"] == pytest.approx(0.01)
    assert metrics["confusion"]["counts"][3][3] == metrics["confusion"]["counts"][0][14] == 1
    assert metrics["fingerprint"]["scored"]["n_images"] == 2
    assert metrics["subgroups"]["Box size"]["over 5 %"]["map40"] == 0.5


def test_a_submission_scores_like_its_predictions(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    csv = tmp_path / "submission.csv"
    csv.write_text("image_id,PredictionString\none,3 0.9 100 100 500 500\ntwo,14 1 0 0 1 1\n")
    main(Config(csv, data, tmp_path / "out", resamples=0))
    assert "mAP@0.4 0.500 (" in capsys.readouterr().out
    # (cardiomegaly 1 + aorta 0 + "No finding" 1) / 3
    assert json.loads((tmp_path / "out/metrics.json").read_text())["map40_kaggle"] == pytest.approx(2 / 3)


def test_no_rows_of_no_finding_are_told(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [("one", 4, (100, 100, 400, 400), 0.9), ("two", 15, (0, 0, 1, 1), 0.6)]
    for name, count in (("without", 1), ("with", 2)):
        main(Config(write(tmp_path / "p.json", *rows[:count]), data, tmp_path / name, resamples=0))
        assert ('have no "No finding" rows' in " ".join(capsys.readouterr().err.split())) == (name == "without")


def test_undefined_numbers_are_null(tmp_path: Path, write_table_store: Callable[..., Path]) -> None:
    data = write_table_store(tmp_path / "data", [("one", "test", -1, None)], [])
    predictions = write(tmp_path / "p.json", ("one", 4, (0, 0, 9, 9), 0.5))
    main(Config(predictions, data, tmp_path / "out"))
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["map40"] is None
    assert metrics["map40_kaggle"] == 0.0


def test_a_report_is_not_overwritten(tmp_path: Path, data: Path) -> None:
    predictions = write(tmp_path / "p.json", ("one", 4, (100, 100, 400, 400), 0.9))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/metrics.json").write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        main(Config(predictions, data, tmp_path / "out"))
    assert (tmp_path / "out/metrics.json").read_text() == "mine"
    main(Config(predictions, data, tmp_path / "out", resamples=0, overwrite=True))
    assert json.loads((tmp_path / "out/metrics.json").read_text())["map40"] == 0.5


def test_bad_input_gives_one_line_and_writes_nothing(tmp_path: Path, data: Path) -> None:
    good = write(tmp_path / "good.json", ("one", 4, (0, 0, 9, 9), 0.9))
    strange = write(tmp_path / "strange.json", ("zz", 4, (0, 0, 9, 9), 0.9))
    category = write(tmp_path / "category.json", ("one", 44, (0, 0, 9, 9), 0.9))
    (tmp_path / "not.json").write_text("{")
    cases = [
        (("--predictions", "none.json", "--data-path", data), "no predictions at none.json"),
        (("--predictions", tmp_path / "not.json", "--data-path", data), "not JSON"),
        (("--predictions", good, "--data-path", tmp_path / "nowhere"), "no dataset at"),
        (("--predictions", strange, "--data-path", data), "none of the 1 images"),
        (("--predictions", category, "--data-path", data), "category 44"),
        (("--predictions", good, "--data-path", data, "--fold", 3), "no fold 3"),
        (("--predictions", good, "--data-path", data, "--save-path", good), "is a file"),
    ]
    flags, words = cases[0]
    done = run(*flags, "--save-path", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr
    for flags, words in cases[1:]:
        named = dict(zip((name[2:].replace("-", "_") for name in flags[::2]), flags[1::2], strict=True))
        with pytest.raises(InputError, match=words):
            main(Config(**{"save_path": tmp_path / "out", **named}))
    with pytest.raises(FlagError, match="test images are in no fold"):
        main(Config(good, data, tmp_path / "out", split="test", fold=0))
    for wrong, words in (
        ({"resamples": -1}, "--resamples"),
        ({"threshold": 1.5}, "--threshold"),
        ({"triplet": (0.5, 0.1, 0.6)}, "BOTTOM not above TOP"),
        ({"triplet": (0.5, 0.1, 0.3), "fit": tmp_path}, "--triplet and --fit"),
    ):
        with pytest.raises(FlagError, match=words):
            main(Config(good, data, tmp_path / "out", **wrong))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def masks(tmp_path: Path, write_mask_store: Callable[..., Path], mask_row: Callable) -> Path:
    """pred/ with predictions and maps of six radiographs, data/ with their masks, run/ with a model to fit."""
    images, true, rows = [(f"i{number}", 40, 30, 0, None) for number in range(6)], [], []
    folder = tmp_path / "pred"
    folder.mkdir()
    writer = MapWriter(folder, [name for name, *_ in images], {1: "Pneumothorax"}, 20)
    for number in range(6):
        mask = np.zeros((30, 40), dtype=np.uint8)
        mask[6:16, 10:20] = 1
        # Maps say 0.9 in the mask and, in the radiographs that have none, 0.6 on a smaller spot.
        canvas = np.full((1, 20, 20), 0.02)
        if number % 2:
            true.append((number, 1, mask))
            canvas[0, 5:10, 5:10] = 0.9
        else:
            canvas[0, 5:8, 5:7] = 0.6
        rows.append(mask_row(f"i{number}", 1, mask, 0.8))
        writer.add(number, 40, 30, canvas, {"Pneumothorax": 0.7 if number % 2 else 0.2})
    writer.close()
    (folder / "predictions.json").write_text(json.dumps(rows))
    (tmp_path / "run").mkdir()
    model = {"task": "segmentation", "categories": {"1": "Pneumothorax"}, "thresholds": {"mask": 0.5}}
    (tmp_path / "run/model.json").write_text(json.dumps(model))
    write_mask_store(tmp_path / "data", images, true)
    return tmp_path


def test_masks_are_scored_searched_and_fitted_in_one_command(masks: Path, capsys: pytest.CaptureFixture) -> None:
    main(Config(masks / "pred/predictions.json", masks / "data", masks / "out", fit=masks / "run", resamples=20))
    printed = capsys.readouterr().out
    # Every radiograph is predicted to have the same mask, which three of six have.
    assert "Dice 0.500 (" in printed
    assert "False-positive rate 1.000 (" in printed
    assert "flatters their own Dice" in printed
    metrics = json.loads((masks / "out/metrics.json").read_text())
    assert metrics["dice"] == 0.5
    assert metrics["dice_positive"] == 1.0
    assert metrics["auroc"] == metrics["auroc_classifier"] == {"Pneumothorax": 1.0}
    assert metrics["best_triplet"]["dice"] > 0.9
    search, gate = pd.read_csv(masks / "out/search.csv"), pd.read_csv(masks / "out/gate.csv")
    assert len(search) == 1000
    assert search["dice"].max() == pytest.approx(metrics["best_triplet"]["dice"], abs=1e-6)
    assert list(gate.columns[:2]) == ["gate", "dice"]
    assert {"triplet.png", "gate.png", "roc.png", "dice_histogram.png"} <= {p.name for p in (masks / "out").iterdir()}
    thresholds = json.loads((masks / "run/model.json").read_text())["thresholds"]
    best = metrics["best_triplet"]
    fitted = {"mask": 0.5, **{name: best[name] for name in ("top", "min_area", "bottom")}}
    assert thresholds == {**fitted, "gate": metrics["best_gate"]["gate"]}
    assert f"fitted: {masks / 'run/model.json'}" in printed


@pytest.mark.slow
def test_a_setting_is_measured_and_an_earlier_search_removed(masks: Path, capsys: pytest.CaptureFixture) -> None:
    config = {"data_path": masks / "data", "save_path": masks / "out", "resamples": 0, "overwrite": True}
    main(Config(masks / "pred/predictions.json", triplet=(0.5, 0.0, 0.5), **config))
    # The spots of the negatives are over 0.5, and with no least area they are masks.
    assert "Triplet asked for" in capsys.readouterr().out
    point = json.loads((masks / "out/metrics.json").read_text())["operating_points"]["Pneumothorax"]
    assert (point["sensitivity"], point["specificity"]) == (1.0, 0.0)
    assert (masks / "out/search.csv").exists()
    (masks / "elsewhere.json").write_text((masks / "pred/predictions.json").read_text())
    main(Config(masks / "elsewhere.json", **config))
    names = {path.name for path in (masks / "out").iterdir()}
    assert names.isdisjoint({"search.csv", "gate.csv", "triplet.png", "gate.png"})
    assert "dice_histogram.png" in names


def test_fits_that_cannot_be_had(masks: Path) -> None:
    good, elsewhere = masks / "pred/predictions.json", masks / "elsewhere.json"
    elsewhere.write_text(good.read_text())
    before = (masks / "run/model.json").read_bytes()
    config = {"data_path": masks / "data", "save_path": masks / "out"}
    with pytest.raises(InputError, match=r"no probability maps beside .*elsewhere.json"):
        main(Config(elsewhere, fit=masks / "run", **config))
    with pytest.raises(InputError, match="no trained run"):
        main(Config(good, fit=masks / "data", **config))
    model = {"task": "classification", "categories": {"1": "Pneumothorax"}, "thresholds": {"label": 0.5}}
    (masks / "other").mkdir()
    (masks / "other/model.json").write_text(json.dumps(model))
    with pytest.raises(InputError, match=r"holds no model.safetensors"):
        main(Config(good, fit=masks / "other", **config))
    assert not (masks / "out").exists()
    assert (masks / "run/model.json").read_bytes() == before


def test_a_mask_of_another_size_writes_nothing(masks: Path, mask_row: Callable) -> None:
    path = masks / "small.json"
    path.write_text(json.dumps([mask_row("i2", 1, np.ones((20, 20), np.uint8), 0.5)]))
    with pytest.raises(InputError, match="no mask of i2"):
        main(Config(path, masks / "data", masks / "out"))
    assert not (masks / "out").exists()


def test_two_reports_or_files_are_compared(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    first = write(tmp_path / "a.json", ("one", 4, (100, 100, 400, 400), 0.9), ("two", 15, (0, 0, 1, 1), 0.9))
    second = write(tmp_path / "b.json", ("one", 1, (500, 1000, 400, 800), 0.9), ("one", 4, (100, 100, 400, 400), 0.8))
    main(Config(first, data, tmp_path / "first", resamples=20))
    capsys.readouterr()
    flags = {"data_path": data, "resamples": 50, "names": ("one", "two")}
    main(Config(compare=(first, second), save_path=tmp_path / "files", **flags))
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("A: one B: two ")
    assert "Mean of the findings 0.500 1.000 +0.500" in said
    assert "Radiographs 2 (patients not known)" in said
    # What the first report kept is as good as its file.
    main(Config(compare=(tmp_path / "first", second), save_path=tmp_path / "folders", **flags))
    # A run directory is what its model said in validation.
    (tmp_path / "run/validation").mkdir(parents=True)
    (tmp_path / "run/validation/predictions.json").write_bytes(first.read_bytes())
    main(Config(compare=(tmp_path / "run", second), save_path=tmp_path / "runs", **flags))
    metrics, *same = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("files", "folders", "runs"))
    assert [metrics, metrics] == same
    found = metrics["comparison"]
    assert (found["map40"]["total"]["first"], found["map40"]["total"]["second"]) == (0.5, 1.0)
    assert found["map40"]["Aortic enlargement"]["difference"] == 1.0
    assert found["auroc"]["Aortic enlargement"]["difference"] == 0.5
    assert metrics["names"] == ["one", "two"]
    names = {path.name for path in (tmp_path / "files").iterdir()}
    assert names == {"metrics.json", "report.html", "report.md", "compare_values.png", "compare_differences.png"}
    # In the place of a report nothing of it stays.
    main(Config(compare=(first, second), save_path=tmp_path / "first", overwrite=True, **flags))
    assert {path.name for path in (tmp_path / "first").iterdir()} == names


def test_comparisons_that_cannot_be_had(tmp_path: Path, data: Path) -> None:
    good = write(tmp_path / "a.json", ("one", 4, (100, 100, 400, 400), 0.9))
    train = write(tmp_path / "b.json", ("t", 4, (100, 100, 400, 400), 0.9))
    both = {"data_path": data, "save_path": tmp_path / "out", "compare": (good, train)}
    with pytest.raises(InputError, match=r"of 2 radiographs, the second of 1.*--split or --fold"):
        main(Config(**both))
    with pytest.raises(FlagError, match="either --predictions FILE"):
        main(Config(good, **both))
    with pytest.raises(FlagError, match="either --predictions FILE"):
        main(Config())
    with pytest.raises(FlagError, match="leave out --baseline"):
        main(Config(baseline=True, **both))
    with pytest.raises(FlagError, match="--names"):
        main(Config(good, names=("a", "b")))
    with pytest.raises(InputError, match=r"neither scored\.npz"):
        main(Config(**{**both, "compare": (good, tmp_path)}))
    assert not (tmp_path / "out").exists()


def test_the_curves_of_the_run_come_along(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "run/validation"
    folder.mkdir(parents=True)
    (tmp_path / "run/metrics.csv").write_text("epoch,train/loss,map40\n0,2.0,\n1,1.5,0.25\n")
    predictions = write(folder / "predictions.json", ("one", 4, (100, 100, 400, 400), 0.9))
    main(Config(predictions, data, tmp_path / "out", resamples=0))
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["training"] == {"epochs": [1, 2], "loss": [2.0, 1.5], "map40": [None, 0.25]}
    assert "Training curves" in (tmp_path / "out/report.md").read_text()
    with pytest.raises(InputError, match=r"no metrics\.csv"):
        main(Config(predictions, data, tmp_path / "other", run=data))
