"""tools/evaluate.py from the command line."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.evaluate import Config, main
from xray.command import FlagError, InputError

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
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


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
    assert "mAP@0.4 0.5000" in done.stdout
    assert "the detector reaches 1.0 times that" in done.stdout
    metrics = json.loads((tmp_path / "out/deep/metrics.json").read_text())
    assert metrics["map40"] == metrics["map40_kaggle"] == metrics["baseline_map40"] == 0.5
    assert metrics["ap40"] == {"Aortic enlargement": 0.0, "Cardiomegaly": 1.0}
    assert metrics["baseline_ap40"] == {"Aortic enlargement": 1.0, "Cardiomegaly": 0.0}
    assert metrics["coco_ap"] == pytest.approx(0.5)
    assert metrics["n_images"] == 2
    assert "map40_ci95" in metrics
    assert (tmp_path / "out/deep/report.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in (tmp_path / "out/deep").iterdir()) == ["metrics.json", "report.html"]


def test_a_submission_scores_like_its_predictions(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    csv = tmp_path / "submission.csv"
    csv.write_text("image_id,PredictionString\none,3 0.9 100 100 500 500\ntwo,14 1 0 0 1 1\n")
    main(Config(csv, data, tmp_path / "out", resamples=0))
    assert "mAP@0.4 0.5000" in capsys.readouterr().out
    # (cardiomegaly 1 + aorta 0 + "No finding" 1) / 3
    assert json.loads((tmp_path / "out/metrics.json").read_text())["map40_kaggle"] == pytest.approx(2 / 3)


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
    for flags, words in cases[:2]:
        done = run(*flags, "--save-path", tmp_path / "out", cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1
        assert words in done.stderr
    for flags, words in cases[2:]:
        named = dict(zip((name[2:].replace("-", "_") for name in flags[::2]), flags[1::2], strict=True))
        with pytest.raises(InputError, match=words):
            main(Config(**{"save_path": tmp_path / "out", **named}))
    with pytest.raises(FlagError, match="test images are in no fold"):
        main(Config(good, data, tmp_path / "out", split="test", fold=0))
    with pytest.raises(FlagError, match="--resamples"):
        main(Config(good, data, tmp_path / "out", resamples=-1))
    assert not (tmp_path / "out").exists()
