"""tools/fuse.py from the command line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from xray.commands.fuse import Config, main
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError
from xray.structures.made_by import read_made_by, write_made_by
from xray.training.learned import learned_by
from xray.training.trained_on import note_dataset

TOOL = Path(__file__).resolve().parents[2] / "tools" / "fuse.py"
UNIT = [0, 0, 1, 1]


@pytest.fixture
def data(tmp_path: Path, write_table_store: Callable[..., Path]) -> Path:
    images = [
        ("one", "test", -1, None),
        ("two", "test", -1, None),
        ("three", "test", -1, None),
        ("t", "train", 0, None),
    ]
    return write_table_store(tmp_path / "data", images, [])


AORTIC = {"category_name": "Aortic enlargement"}


def write(path: Path, *rows: tuple) -> Path:
    """Rows of (image_id, category, [x, y, width, height], score)."""
    names = ("image_id", "category_id", "bbox", "score")
    path.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
    return path


def test_results_may_take_the_place_of_what_was_fused(tmp_path: Path, data: Path) -> None:
    model = {"models": [{"name": "a", "files": {}}], "ensemble": None, "settings": {}, "radiographs": {"dataset": None}}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "predictions.json", ("one", 4, [0, 0, 100, 100], 0.6))
        write_made_by(tmp_path / name, ("predictions.json",), model)
    both = (tmp_path / "a/predictions.json", tmp_path / "b/predictions.json")
    main(Config(both, data, tmp_path / "a", overwrite=True))
    made_by = read_made_by(both[0])
    assert made_by is not None
    assert [part["models"][0]["name"] for part in made_by["fused"]] == ["a", "a"]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    first = write(tmp_path / "a.json", ("one", 4, [0, 0, 100, 100], 0.6), ("one", 15, UNIT, 0.25))
    second = write(
        tmp_path / "b.json",
        ("stranger", 1, [0, 0, 10, 10], 0.8),
        ("one", 4, [0, 0, 110, 100], 0.2),
        ("one", 15, UNIT, 0.75),
        ("two", 15, UNIT, 0.5),
    )
    return first, second


def test_fuses_and_writes_both_files(tmp_path: Path, data: Path, files: tuple[Path, Path]) -> None:
    flags = ["--predictions", *files, "--data-path", data, "--save-path", "out"]
    done = subprocess.run(
        [sys.executable, TOOL, *flags], capture_output=True, text=True, cwd=tmp_path, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "warning: 1 images are not in" in done.stderr
    assert f"warning: {files[0]} was not run on 2 of 3 radiographs (such as 'stranger')" in done.stderr
    assert str(files[1]) not in done.stderr
    assert "6 boxes of 2 files → 4 boxes" in done.stdout
    # The mean of widths 100 and 110 by score, 102.5, with score 0.4; probabilities are averaged; the stranger's box
    # keeps its score, since one model alone was run on it.
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == [
        {"image_id": "one", "category_id": 15, "bbox": UNIT, "score": 0.5, "category_name": "No finding"},
        {
            "image_id": "one",
            "category_id": 4,
            "bbox": [0, 0, 102.5, 100],
            "score": 0.4,
            "category_name": "Cardiomegaly",
        },
        {"image_id": "stranger", "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.8} | AORTIC,
        {"image_id": "two", "category_id": 15, "bbox": UNIT, "score": 0.5, "category_name": "No finding"},
    ]
    # All test images have a row, in the dataset's order; the stranger comes last; the training image has none.
    assert (tmp_path / "out/submission.csv").read_text().splitlines() == [
        "image_id,PredictionString",
        "one,14 0.5 0 0 1 1 3 0.4 0 0 102.5 100",
        "two,14 0.5 0 0 1 1",
        "three,14 1 0 0 1 1",
        "stranger,0 0.8 0 0 10 10",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["predictions.json", "submission.csv"]


def test_what_was_fused_is_known_if_it_is_of_each(tmp_path: Path, data: Path, files: tuple[Path, Path]) -> None:
    radiographs = {"n": 3, "ids_sha256": "", "dataset": None}
    for number in range(2):
        place = tmp_path / f"p{number}" / "predictions.json"
        place.parent.mkdir()
        shutil.copy(files[number], place)
        models = [{"name": f"m{number}", "files": {}}]
        main(Config((files[0], place), data, tmp_path / f"out{number}"))
        assert not (tmp_path / f"out{number}" / "made_by.json").exists()
        content = {"models": models, "ensemble": None, "settings": {}, "radiographs": radiographs}
        write_made_by(place.parent, ("predictions.json",), content)
    known = (tmp_path / "p0/predictions.json", tmp_path / "p1/predictions.json")
    main(Config(known, data, tmp_path / "out", weights=(1, 3)))
    made = read_made_by(tmp_path / "out/predictions.json")
    assert made is not None
    assert made["fused"] == [read_made_by(path) for path in known]
    assert made["settings"]["weights"] == [1, 3]
    assert read_made_by(tmp_path / "out/submission.csv") == made
    # Of what is not known of all, an earlier file does not stay.
    main(Config((known[0], files[1]), data, tmp_path / "out", overwrite=True))
    assert not (tmp_path / "out/made_by.json").exists()


def test_what_lies_in_runs_is_known_by_them(tmp_path: Path, data: Path, files: tuple[Path, Path]) -> None:
    """evaluate says of the fused file, wherever it lies, which of its radiographs have trained a model."""
    store = open_store(data, pixels=False)
    given = []
    for fold, ids in enumerate((["one"], ["t", "two"])):
        run = tmp_path / f"run{fold}"
        run.mkdir()
        (run / "model.safetensors").write_bytes(run.name.encode())
        (run / "model.json").write_text('{"task": "detection"}')
        (run / "config.yaml").write_text(f"fold: {fold}\n")
        note_dataset(run, store)
        given.append(write(run / "predictions.json", *((name, 4, [0, 0, 100, 100], 0.6) for name in ids)))
    main(Config(tuple(given), data, tmp_path / "out"))
    made = read_made_by(tmp_path / "out/predictions.json")
    assert made is not None
    assert [part["models"][0]["name"] for part in made["fused"]] == ["run0", "run1"]
    # The training radiograph is of fold 0, which the second model has trained on.
    assert learned_by(made, store, store.records) == (1, "run1 held back fold 1")


def test_a_model_votes_where_it_was_run(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first file names the radiographs in which nothing was found, the second leaves them out."""
    box = [0, 0, 100, 100]
    first = write(tmp_path / "a.json", ("one", 4, box, 0.6), ("one", 15, UNIT, 0.4), ("two", 15, UNIT, 1))
    second = write(tmp_path / "b.json", ("two", 4, box, 0.8), ("three", 4, box, 0.5), ("t", 4, box, 0.4))
    main(Config((first, second), data, tmp_path / "out", weights=(1, 3)))
    rows = json.loads((tmp_path / "out/predictions.json").read_text())
    # Test radiograph one is of the second's split, so it was found empty there; two by the first; three and t are of
    # the second alone.
    scores = {row["image_id"]: row["score"] for row in rows if row["category_id"] == 4}
    assert scores == {"one": 0.15, "two": 0.6, "three": 0.5, "t": 0.4}
    said = capsys.readouterr().err
    assert f"warning: {first} was not run on 2 of 4 radiographs (such as 'three'): its model has no vote there" in said
    assert f"warning: {second} has no rows for 1 of 4 radiographs, where its model counts as one that found" in said
    assert 'if it was not run there, give it a "No finding" row for each radiograph that it was run on' in said


def test_settings_reach_the_fusion(tmp_path: Path, data: Path, files: tuple[Path, Path]) -> None:
    main(Config(files, data, tmp_path / "out", weights=(1, 3), iou=0.95, skip=0.3))
    rows = json.loads((tmp_path / "out/predictions.json").read_text())
    # 0.2 is skipped; "No finding" is (1 · 0.25 + 3 · 0.75) / 4; the lone box has 0.6 · 1 / 4 of its score.
    assert [(row["category_id"], row["score"]) for row in rows if row["image_id"] == "one"] == [(15, 0.625), (4, 0.15)]


def test_sums_scale_and_a_classifier(tmp_path: Path, data: Path, files: tuple[Path, Path]) -> None:
    main(Config(files, data, tmp_path / "sum", score="sum", scale=0.5))
    rows = {(r["image_id"], r["category_id"]): r for r in json.loads((tmp_path / "sum/predictions.json").read_text())}
    # (0.6 + 0.2) / 2; the mean box is 102.5 x 100, and half as wide and high about its middle.
    assert (rows["one", 4]["score"], rows["one", 4]["bbox"]) == (0.4, [25.62, 25, 51.25, 50])
    assert rows["stranger", 1]["score"] == 0.8
    assert rows["one", 15]["bbox"] == UNIT
    # The root of the probability, the mean of two classifiers': (0.36 + 0.62) / 2 = 0.7². What none knows stays.
    first, second = tmp_path / "labels.csv", tmp_path / "run" / "validation" / "predictions.json"
    first.write_text("image_id,Cardiomegaly\none,0.36\ntwo,1\n")
    second.parent.mkdir(parents=True)
    write(second, ("one", 4, [0, 0, 1000, 2000], 0.62))
    main(Config(files, data, tmp_path / "weighed", labels=(first, tmp_path / "run")))
    rows = {
        (r["image_id"], r["category_id"]): r for r in json.loads((tmp_path / "weighed/predictions.json").read_text())
    }
    assert rows["one", 4]["score"] == pytest.approx(0.4 * 0.7)
    assert rows["stranger", 1]["score"] == 0.8
    assert rows["one", 15]["score"] == 0.5


def test_what_a_classifier_does_not_say_is_told(
    tmp_path: Path, data: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    labels, box = tmp_path / "labels.csv", [0, 0, 100, 100]
    path = write(tmp_path / "p.json", ("one", 4, box, 0.6), ("two", 4, box, 0.6), ("two", 1, box, 0.5))
    labels.write_text("image_id,Cardiomegaly\none,0.25\n")
    main(Config((path,), data, tmp_path / "part", labels=(labels,)))
    rows = json.loads((tmp_path / "part/predictions.json").read_text())
    assert [(row["image_id"], row["score"]) for row in rows] == [("one", 0.3), ("two", 0.6), ("two", 0.5)]
    said = capsys.readouterr().err
    assert "--labels says nothing of 1 radiographs (such as Cardiomegaly in 'two'): their 1 boxes keep" in said
    for text, words in (
        ("image_id,Cardiomegaly\none.png,0.25\n", r"nothing of any radiograph .* like 'one', there like 'one.png'"),
        ("image_id,Cardiomegaly\n", "it has no rows"),
        ("image_id,Cardiomegaly\none,0.25\none,0.9\n", "line 3 has 'one', which an earlier line has"),
        ("image_id,Cardiomegaly,Cardiomegaly\none,0.25,0.9\n", "several columns Cardiomegaly"),
    ):
        labels.write_text(text)
        with pytest.raises(InputError, match=words):
            main(Config((path,), data, tmp_path / "out", labels=(labels,)))
        assert not (tmp_path / "out").exists()


def test_a_submission_can_be_fused(tmp_path: Path, data: Path, files: tuple[Path, Path]) -> None:
    csv = tmp_path / "c.csv"
    csv.write_text("image_id,PredictionString\none,3 0.4 0 0 100 100\n")
    main(Config((files[0], csv), data, tmp_path / "out"))
    rows = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [(row["category_id"], row["score"]) for row in rows] == [(4, 0.5), (15, 0.25)]


def test_more_categories_than_a_submission_holds(
    tmp_path: Path, write_table_store: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    categories = [{"id": number, "name": f"finding {number}"} for number in range(1, 21)]
    data = write_table_store(tmp_path / "many", [("one", "test", -1, None)], [], categories)
    main(Config((write(tmp_path / "p.json", ("one", 20, [0, 0, 9, 9], 0.5)),), data, tmp_path / "out"))
    assert "no submission.csv" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.json"]


def test_bad_input_is_refused_and_nothing_written(tmp_path: Path, data: Path, files: tuple[Path, Path]) -> None:
    strange = write(tmp_path / "s.json", ("one", 44, [0, 0, 9, 9], 0.5))
    out = tmp_path / "out"
    for config, words in (
        (Config((files[0], tmp_path / "none.json"), data, out), "no predictions at"),
        (Config((files[0], strange), data, out), r"s\.json has boxes of category 44"),
        (Config(files, tmp_path / "nowhere", out), "no dataset at"),
        (Config(files, data, files[0]), "is a file"),
    ):
        with pytest.raises(InputError, match=words):
            main(config)
    with pytest.raises(FlagError, match="--weights is 1: give one for each of the 2 files"):
        main(Config(files, data, out, weights=(1,)))
    assert not out.exists()
    main(Config(files, data, out))
    before = (out / "predictions.json").read_text()
    with pytest.raises(InputError, match="--overwrite"):
        main(Config(files, data, out, iou=0.9))
    assert (out / "predictions.json").read_text() == before
