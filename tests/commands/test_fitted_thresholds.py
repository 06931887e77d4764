"""evaluate --fit of scores, and what infer, the server and the API then show."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from xray.commands import evaluate, infer
from xray.commands.evaluate import Config, main
from xray.datasets.fingerprint import split_sha256
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError
from xray.inference.thresholds import read_thresholds, write_thresholds
from xray.structures.made_by import write_made_by
from xray.structures.thresholds import Point, Thresholds

BOX = (100, 100, 500, 500)


@pytest.fixture
def fitting(tmp_path: Path, write_table_store: Callable[..., Path], sketched: None) -> Path:
    """data/ with 60 patients of fold 0, p.json with a box in each, right in a third of them, and run/."""
    rng = np.random.default_rng(0)
    images, boxes, rows = [], [], []
    for number in range(60):
        images.append((f"i{number}", "train", 0, f"p{number // 2}"))
        if number % 3 == 0:
            boxes.append((number, 4, BOX))
        score = round(float(np.clip(rng.normal(0.75 if number % 3 == 0 else 0.5, 0.15), 0.01, 0.99)), 6)
        rows.append({"image_id": f"i{number}", "category_id": 4, "bbox": [100, 100, 400, 400], "score": score})
        rows.append({"image_id": f"i{number}", "category_id": 15, "bbox": [0, 0, 1, 1], "score": round(1 - score, 6)})
    boxes.append((0, 1, BOX))
    write_table_store(tmp_path / "data", images, boxes)
    (tmp_path / "p.json").write_text(json.dumps(rows))
    (tmp_path / "run").mkdir()
    model = {"task": "detection", "categories": {"1": "Aortic enlargement", "4": "Cardiomegaly"}}
    (tmp_path / "run/model.json").write_text(json.dumps(model))
    (tmp_path / "run/model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_fits_each_finding_and_says_what_it_is_worth(fitting: Path, capsys: pytest.CaptureFixture) -> None:
    config = {"data_path": fitting / "data", "save_path": fitting / "out", "resamples": 50, "overwrite": True}
    main(Config(fitting / "p.json", fit=fitting / "run", at="sensitivity=0.9", **config))
    said = capsys.readouterr()
    assert f"fitted: {fitting / 'run/thresholds.json'}" in said.out
    assert "Thresholds at sensitivity=0.9; each patient is measured by what was fitted on others" in said.out
    assert "too little to fit Aortic enlargement (0 true and 0 false, 10 of each needed)" in said.err
    assert "test split" not in said.err
    fitted = read_thresholds(fitting / "run")
    assert fitted is not None
    scores = np.array([row["score"] for row in json.loads((fitting / "p.json").read_text())[::2]])
    # 18 of 20 are found by the 18th highest true score, and by what is between it and the next.
    level = np.sort(scores[::3])[::-1][17]
    assert fitted.of["Cardiomegaly"].threshold == pytest.approx((level + scores[scores < level].max()) / 2, abs=1e-6)
    assert fitted.of["Aortic enlargement"] == Point()
    # "No finding" is 1 - the score, so that "abnormal" is Cardiomegaly here.
    assert fitted.of["abnormal"].threshold == fitted.of["Cardiomegaly"].threshold
    assert fitted.of["abnormal"].temperature == pytest.approx(fitted.of["Cardiomegaly"].temperature)
    content = json.loads((fitting / "run/thresholds.json").read_text())
    assert content["dataset"]["n_images"] == 60
    assert content["dataset"]["n_patients"] == 30
    assert content["cross_fitted"]["Cardiomegaly"]["n_truth"] == 20
    before = (fitting / "run/thresholds.json").read_bytes(), (fitting / "out/metrics.json").read_bytes()
    main(Config(fitting / "p.json", fit=fitting / "run", at="sensitivity=0.9", **config))
    assert before == ((fitting / "run/thresholds.json").read_bytes(), (fitting / "out/metrics.json").read_bytes())
    # What is scored does not change by it.
    main(Config(fitting / "p.json", **config))
    assert (fitting / "out/metrics.json").read_bytes() == before[1]


def test_labels_and_ensembles_are_fitted_likewise(fitting: Path, capsys: pytest.CaptureFixture) -> None:
    # Of a classifier, each radiograph's row has the whole of it as its box.
    rows = json.loads((fitting / "p.json").read_text())[::2]
    (fitting / "labels.json").write_text(json.dumps([row | {"bbox": [0, 0, 1000, 2000]} for row in rows]))
    config = {"data_path": fitting / "data", "save_path": fitting / "out", "resamples": 0, "overwrite": True}
    model = json.loads((fitting / "run/model.json").read_text()) | {"task": "classification"}
    (fitting / "run/model.json").write_text(json.dumps(model))
    main(Config(fitting / "labels.json", fit=fitting / "run", at="fp-per-image=0.1", **config))
    fitted = read_thresholds(fitting / "run")
    assert fitted is not None
    assert fitted.kind == "labels"
    scores, is_true = np.array([row["score"] for row in rows]), np.arange(60) % 3 == 0
    threshold = fitted.of["Cardiomegaly"].threshold
    # Six of 60 radiographs may be called wrongly.
    assert np.count_nonzero((scores >= threshold) & ~is_true) <= 6
    # The next one that is true would cost more.
    below = scores[(scores < threshold) & is_true].max()
    assert np.count_nonzero((scores >= below) & ~is_true) > 6

    (fitting / "run/model.json").write_text(json.dumps(model | {"task": "detection"}))
    (fitting / "both.yaml").write_text("version: 1\nmodels:\n- runs: [run]\n")
    capsys.readouterr()
    main(Config(fitting / "p.json", fit=fitting / "both.yaml", **config))
    assert f"fitted: {fitting / 'both.thresholds.json'}" in capsys.readouterr().out
    of_boxes = read_thresholds(fitting / "both.yaml")
    assert of_boxes is not None
    assert (of_boxes.kind, of_boxes.at) == ("boxes", "fp-per-image=0.125")


def test_fits_of_scores_that_cannot_be_had(fitting: Path, capsys: pytest.CaptureFixture) -> None:
    config = {"predictions": fitting / "p.json", "data_path": fitting / "data", "save_path": fitting / "out"}
    config["resamples"] = 0
    with pytest.raises(FlagError, match="--at is what the thresholds of --fit reach"):
        evaluate.check(Config(**config, at="sensitivity=0.9"))
    with pytest.raises(FlagError, match="--at is 'often'"):
        evaluate.check(Config(**config, fit=fitting / "run", at="often"))
    other = {"task": "detection", "categories": {"1": "Aortic enlargement"}}
    shutil.copytree(fitting / "run", fitting / "other")
    (fitting / "other/model.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="does not find Cardiomegaly: give the run"):
        main(Config(**config, fit=fitting / "other"))
    rows = json.loads((fitting / "p.json").read_text())
    (fitting / "few.json").write_text(json.dumps([row | {"score": 0.5} for row in rows[:20:2]]))
    with pytest.raises(InputError, match=r"too little to fit any threshold \(Aortic"):
        main(
            Config(**config | {"predictions": fitting / "few.json", "save_path": fitting / "few"}, fit=fitting / "run")
        )
    # What was scored is not lost by it.
    assert (fitting / "few" / "report.html").is_file()
    (fitting / "run/model.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds no model.safetensors"):
        main(Config(**config, fit=fitting / "run"))
    with pytest.raises(InputError, match=r"none.yaml"):
        main(Config(**config, fit=fitting / "none.yaml"))
    assert not (fitting / "out").exists()
    assert not (fitting / "run/thresholds.json").exists()


def test_the_test_split_and_learned_radiographs_are_warned_of(
    fitting: Path, write_table_store: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    annotations = json.loads((fitting / "data/annotations.json").read_text())
    for number, image in enumerate(annotations["images"]):
        image |= {"split": "test", "fold": -1} if number < 10 else {"fold": number % 2}
    (fitting / "data/annotations.json").write_text(json.dumps(annotations))
    (fitting / "run/config.yaml").write_text(f"fold: 0\ndata_path: {fitting / 'data'}\n")
    main(Config(fitting / "p.json", fitting / "data", fitting / "out", fit=fitting / "run", resamples=0))
    said = capsys.readouterr().err
    assert "10 of 60 radiographs are of the test split" in said
    assert "held back fold 0, and 25 of 60 radiographs are others: it has learned from them" in said
    # Without --fit, too, where the predictions lie in the run.
    shutil.copy(fitting / "p.json", fitting / "run/predictions.json")
    config = {"data_path": fitting / "data", "save_path": fitting / "out", "resamples": 0, "overwrite": True}
    main(Config(fitting / "run/predictions.json", **config))
    words = "25 of 60 radiographs trained the model: run held back fold 0. Their numbers are flattering"
    assert words in capsys.readouterr().err
    assert words in (fitting / "out/report.md").read_text()
    main(Config(fitting / "run/predictions.json", fold=0, **config))
    assert "trained the model" not in capsys.readouterr().err


def write_record(place: Path, data: Path, weights: bytes, n_images: int = 0, **model: object) -> None:
    store = open_store(data, pixels=False)
    digest = hashlib.sha256(weights).hexdigest()
    models = [{"name": "mine", "files": {"model.safetensors": digest}, "split_sha256": split_sha256(store.records)}]
    dataset = {"n_images": n_images, "radiographs_sha256": "another"} if n_images else None
    radiographs = {"n": 60, "ids_sha256": "", "dataset": dataset}
    content = {"models": [models[0] | model], "ensemble": None, "settings": {}, "radiographs": radiographs}
    write_made_by(place, ("p.json",), content)


def test_what_made_the_predictions_tells_it_anywhere(fitting: Path, capsys: pytest.CaptureFixture) -> None:
    annotations = json.loads((fitting / "data/annotations.json").read_text())
    for number, image in enumerate(annotations["images"]):
        image["fold"] = number % 2
    (fitting / "data/annotations.json").write_text(json.dumps(annotations))
    config = {"data_path": fitting / "data", "save_path": fitting / "out", "resamples": 0, "overwrite": True}
    trained = "30 of 60 radiographs trained the model: mine held back fold 0. Their numbers are flattering"
    for fit in (None, fitting / "run"):
        write_record(fitting, fitting / "data", b"weights", fold=0)
        main(Config(fitting / "p.json", fit=fit, **config))
        said = capsys.readouterr().err
        assert trained in said
        assert "other weights" not in said
        assert trained in (fitting / "out/report.md").read_text()
        main(Config(fitting / "p.json", fit=fit, fold=0, **config))
        assert "trained the model" not in capsys.readouterr().err
        write_record(fitting, fitting / "data", b"weights", n_images=70)
        main(Config(fitting / "p.json", fit=fit, **config))
        said = capsys.readouterr().err
        assert "p.json was made of another dataset directory, with 70 radiographs, than" in said
        assert "trained the model" not in said
    # Thresholds that are there are not replaced by those of other weights, wherever the predictions lie.
    write_record(fitting, fitting / "data", b"others")
    before = (fitting / "run/thresholds.json").read_bytes()
    again = config | {"overwrite": False, "save_path": fitting / "again", "fit": fitting / "run"}
    with pytest.raises(InputError, match=r"p\.json was made by other weights \(mine\) than those of .*run, and thresh"):
        main(Config(fitting / "p.json", **again))
    assert (fitting / "run/thresholds.json").read_bytes() == before
    # Of changed predictions it says nothing.
    (fitting / "p.json").write_text((fitting / "p.json").read_text() + "\n")
    main(Config(fitting / "p.json", fit=fitting / "run", **config))
    assert "other weights" not in capsys.readouterr().err


def test_predictions_of_another_run_are_told(fitting: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(fitting / "run", fitting / "cv/fold0")
    shutil.copytree(fitting / "run", fitting / "cv/fold1")
    shutil.copy(fitting / "p.json", fitting / "cv/predictions.json")
    config = {"data_path": fitting / "data", "save_path": fitting / "out", "resamples": 0}
    main(Config(fitting / "cv/predictions.json", fit=fitting / "run", **config))
    assert "lies with 2 other runs, and thresholds of one model are not those of another" in capsys.readouterr().err
    before = (fitting / "run/thresholds.json").read_bytes()
    again = config | {"save_path": fitting / "again"}
    with pytest.raises(InputError, match=r"lies with 2 other runs.*or --overwrite to replace .*run/thresholds.json"):
        main(Config(fitting / "cv/predictions.json", fit=fitting / "run", at="sensitivity=0.9", **again))
    assert (fitting / "run/thresholds.json").read_bytes() == before
    assert not (fitting / "again").exists()
    main(Config(fitting / "cv/predictions.json", fit=fitting / "run", at="sensitivity=0.9", overwrite=True, **again))
    assert (fitting / "run/thresholds.json").read_bytes() != before
    # A folder of runs is no run.
    with pytest.raises(InputError, match=r"cv is a folder of 2 runs \(fold0, fold1\): give one of these"):
        main(Config(fitting / "p.json", fit=fitting / "cv", **config | {"save_path": fitting / "none"}))


@pytest.fixture(scope="module")
def run(vinbig_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector without thresholds."""
    folder = tmp_path_factory.mktemp("fitted") / "run"
    folder.mkdir()
    for name in ("model.json", "model.safetensors"):
        shutil.copy(vinbig_run / name, folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two radiographs."""
    (tmp_path / "raw").mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(20, 60, (70, 90)).astype(np.uint8)
        pixels[20:40, 20:60] = 200
        assert cv2.imwrite(str(tmp_path / f"raw/{seed}.png"), pixels)
    return tmp_path / "raw"


def found(folder: Path, run: Path, out: Path, **changes: object) -> dict[str, bytes]:
    options = {"device": "cpu", "n_workers": 0, "tta": False, "precision": "32", "overlays": True, **changes}
    assert infer.main(infer.Config(weights=(str(run),), data_path=str(folder), save_path=str(out), **options)) == 0
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_thresholds_act_on_what_is_shown_alone(
    folder: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import xray

    plain = found(folder, run, tmp_path / "plain")
    assert "shown" not in capsys.readouterr().err
    assert "probability" not in xray.load(run, device="cpu", tta=False).predict(folder / "0.png").table
    try:
        names = json.loads((run / "model.json").read_text())["categories"].values()
        write_thresholds(run, Thresholds("boxes", {name: Point(4.0, 0.0) for name in names}, "sensitivity=1"), {})
        fitted = found(folder, run, tmp_path / "fitted")
        said = capsys.readouterr()
        assert "findings are shown from thresholds of their own, at sensitivity=1" in said.err
        n_boxes = len([row for row in json.loads(plain["predictions.json"]) if row["bbox"] != [0, 0, 1, 1]])
        assert f" {n_boxes} boxes, {n_boxes} of them at or above their fitted thresholds: " in said.out
        same = {"predictions.json", "submission.csv"}
        assert {name: fitted[name] for name in same} == {name: plain[name] for name in same}
        assert fitted["overlays/0.png"] != plain["overlays/0.png"]
        # What a user sets is in the place of all of them.
        nothing = found(folder, run, tmp_path / "nothing", threshold=1.0)
        assert nothing["overlays/0.png"] != fitted["overlays/0.png"]
        assert ", 0 of them with a calibrated probability of 1 or more: " in capsys.readouterr().out
        own = found(folder, run, tmp_path / "own", threshold=0.0, overlay_threshold=1.0)
        assert own["overlays/0.png"] == nothing["overlays/0.png"]

        result = xray.load(run, device="cpu", tta=False).predict(folder / "0.png")
        assert list(result.table) == ["category", "category_id", "score", "x1", "y1", "x2", "y2", "probability",
                                      "is_positive", "image_check"]  # fmt: skip
        table = result.table
        assert table["is_positive"].all()
        odds = table["score"].clip(1e-6, 1 - 1e-6) / (1 - table["score"].clip(1e-6, 1 - 1e-6))
        np.testing.assert_allclose(table["probability"], odds**0.25 / (1 + odds**0.25))
        assert (
            not xray.load(run, device="cpu", tta=False, threshold=1.0)
            .predict(folder / "0.png")
            .table["is_positive"]
            .any()
        )
        (run / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes() + b"")
        content = json.loads((run / "thresholds.json").read_text())
        (run / "thresholds.json").write_text(json.dumps(content | {"weights": ["0"]}))
        capsys.readouterr()
        assert found(folder, run, tmp_path / "stale") == plain
        assert "was fitted before the weights changed" in capsys.readouterr().err
        with pytest.warns(UserWarning, match="was fitted before the weights changed"):
            xray.load(run, device="cpu")
    finally:
        (run / "thresholds.json").unlink(missing_ok=True)


def test_without_a_fit_the_threshold_is_that_of_scores(folder: Path, run: Path, tmp_path: Path) -> None:
    low = found(folder, run, tmp_path / "low", threshold=0.0)
    assert low["overlays/0.png"] == found(folder, run, tmp_path / "as", overlay_threshold=0.0)["overlays/0.png"]
    assert low["overlays/0.png"] != found(folder, run, tmp_path / "high", threshold=1.0)["overlays/0.png"]
