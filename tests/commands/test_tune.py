"""tools/tune.py, and what infer and fuse make of the ensemble.yaml that it writes."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from xray.commands import fuse, infer
from xray.commands.find_all import fingerprint_of
from xray.commands.tune import Config, advice, main
from xray.datasets.fingerprint import split_sha256
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError
from xray.evaluation.comparison import Difference
from xray.findings import NO_FINDING_BOX
from xray.inference.ensemble import ByCategory, Settings
from xray.inference.ensemble_file import Member, read_ensemble
from xray.inference.tuning import Tuned
from xray.structures.made_by import write_made_by
from xray.structures.predictions import read_predictions

NAMES = ("image_id", "category_id", "bbox", "score")


@pytest.fixture
def data(tmp_path: Path, write_table_store: Callable[..., Path]) -> Path:
    """120 radiographs in three folds; every third shows Aortic enlargement, every fourth Cardiomegaly."""
    images = [(f"i{number}", "train", number // 10 % 3, f"p{number // 2}") for number in range(120)]
    boxes = [(number, 1, (100, 100, 400, 400)) for number in range(0, 120, 3)]
    boxes += [(number, 4, (300, 900, 900, 1500)) for number in range(0, 120, 4)]
    return write_table_store(tmp_path / "data", images, boxes)


def write_model(path: Path, good_at: int, data: Path, seed: int) -> Path:
    """A model that finds the boxes of one category, and boxes of both by chance."""
    random, store = np.random.default_rng(seed), open_store(data, pixels=False)
    rows: list[tuple[Any, ...]] = []
    for image, label, (x1, y1, x2, y2) in zip(store.boxes.images, store.boxes.labels, store.boxes.boxes, strict=True):
        if label == good_at:
            box = [x1 + random.normal(0, 8), y1 + random.normal(0, 8), x2 - x1, y2 - y1]
            rows.append((f"i{image}", int(label), box, random.uniform(0.4, 0.8)))
    for image in range(120):
        for label in (1, 4):
            rows.append((f"i{image}", label, [*random.uniform(0, 700, 2), 300, 300], random.uniform(0.1, 0.75)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([dict(zip(NAMES, row, strict=True)) for row in rows]))
    return path


@pytest.fixture
def models(tmp_path: Path, data: Path) -> tuple[Path, Path]:
    paths = [tmp_path / "runs" / name / "validation" / "predictions.json" for name in "ab"]
    first, second = (write_model(path, label, data, label) for path, label in zip(paths, (1, 4), strict=True))
    (tmp_path / "runs/a/model.json").write_text("{}")
    return first, second


def test_what_was_learned_is_warned_of(
    tmp_path: Path, data: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture
) -> None:
    split = split_sha256(open_store(data, pixels=False).records)
    model = {"name": "b0", "files": {}, "fold": 0, "split_sha256": split}
    radiographs = {"n": 120, "ids_sha256": "", "dataset": None}
    content = {"models": [model], "ensemble": None, "settings": {}, "radiographs": radiographs}
    write_made_by(models[1].parent, ("predictions.json",), content)
    main(Config(predictions=models, data_path=data, save_path=tmp_path / "out", resamples=0))
    said = capsys.readouterr().err
    assert f"warning: {models[1]}: 80 of 120 radiographs trained the model: b0 held back fold 0" in said
    assert str(models[0]) not in said


def test_settings_are_searched_printed_and_written(
    tmp_path: Path, data: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture
) -> None:
    labels = tmp_path / "labels.csv"
    random = np.random.default_rng(0)
    shown = [(number % 3 == 0, number % 4 == 0) for number in range(120)]
    chances = [[random.uniform(0.3, 0.9) if one else random.uniform(0.1, 0.7) for one in both] for both in shown]
    labels.write_text(
        "image_id,Aortic enlargement,Cardiomegaly\n"
        + "".join(f"i{number},{first:.4f},{second:.4f}\n" for number, (first, second) in enumerate(chances))
    )
    out = tmp_path / "out"
    flags = {"predictions": models, "labels": (labels,), "data_path": data, "save_path": out, "resamples": 100}
    main(Config(**flags))
    said = capsys.readouterr().out
    assert "120 radiographs of 60 patients in 3 folds" in said
    for words in ("best single model", "plain fusion", "tuned, on folds held out", "flattering"):
        assert words in said
    assert f"{models[1]} lies in no run directory: python tools/infer.py needs one" in said
    ensemble = read_ensemble(out / "ensemble.yaml")
    assert [member.predictions for member in ensemble.models] == [(path,) for path in models]
    assert [member.runs for member in ensemble.models] == [(tmp_path / "runs/a",), ()]
    by = ensemble.by_category(open_store(data, pixels=False).categories)
    first, second = (by[label].weights or (1, 1) for label in (1, 4))
    assert first[0] > first[1]
    assert second[0] < second[1]
    assert all(by[label].exponents[1] > 0 for label in (1, 4))
    content = yaml.safe_load((out / "ensemble.yaml").read_text())
    numbers = content["numbers"]
    assert numbers["metric"] == "map40"
    assert numbers["folds"] == [0, 1, 2]
    assert numbers["gain_over_single"]["ci95"][0] > 0
    assert numbers["gain_over_plain"]["difference"] == pytest.approx(
        numbers["tuned"]["all"] - numbers["plain"]["all"], abs=1e-9
    )
    assert content["data"]["n_images"] == 120
    assert sorted(path.name for path in out.iterdir()) == ["ensemble.yaml"]
    before = (out / "ensemble.yaml").read_text()
    with pytest.raises(InputError, match="--overwrite"):
        main(Config(**flags))
    main(Config(**flags, overwrite=True))
    assert (out / "ensemble.yaml").read_text() == before

    # Applied to the very files by `fuse`, they give the score that `tune` calls flattering.
    fuse.main(fuse.Config(models, data, tmp_path / "fused", ensemble=out / "ensemble.yaml", labels=(labels,)))
    from xray.evaluation.evaluate import evaluate

    store = open_store(data, pixels=False)
    metrics = evaluate(store, read_predictions(tmp_path / "fused/predictions.json")).metrics
    # Boxes of files are rounded to a hundredth of a pixel.
    assert metrics["map40"] == pytest.approx(numbers["in_sample"]["all"], abs=0.005)


def test_paths_are_said_as_they_were_given(
    tmp_path: Path,
    data: Path,
    models: tuple[Path, Path],
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    given = tuple(Path("..") / path.relative_to(tmp_path) for path in models)
    rows = json.loads(models[1].read_text())
    # Of two folds: the third is left out, and the file is named.
    models[1].write_text(json.dumps([row for row in rows if int(row["image_id"][1:]) // 10 % 3]))
    main(Config(predictions=given, data_path=Path("../data"), save_path=Path("../out"), resamples=0))
    said, warned = capsys.readouterr()
    assert str(tmp_path) not in said + warned
    assert "left out: ../runs/b/validation/predictions.json lacks 40 radiographs of fold 0" in said
    assert "../runs/b/validation/predictions.json lies in no run directory" in said
    # From ensemble.yaml, wherever that lies, they are found.
    assert read_ensemble(tmp_path / "out/ensemble.yaml").models[0].predictions == (models[0],)


def test_parts_of_one_fold_and_findings_that_are_never_right(
    tmp_path: Path, write_table_store: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    images = [(f"i{number}", "train", 0, f"p{number // 2}") for number in range(120)]
    boxes = [(number, 1, (100, 100, 400, 400)) for number in range(0, 120, 3)] + [(7, 5, (0, 0, 90, 90))]
    data = write_table_store(tmp_path / "data", images, boxes)
    model = write_model(tmp_path / "p.json", 1, data, 0)
    main(Config(predictions=(model,), data_path=data, save_path=tmp_path / "out", resamples=0))
    said = capsys.readouterr().out
    where = "120 radiographs of 60 patients, all of one fold: divided into 5 parts, each patient in one of them"
    assert f"{where}, in place of folds" in said
    (line,) = [line for line in said.splitlines() if "Calcification" in line or "Consolidation" in line]
    assert line.startswith("AP@0.4 is 0 with any settings, and those of default are kept: ")
    assert any(line.startswith("Aortic enlargement") for line in said.splitlines())


def test_names_of_findings_are_no_markup(
    tmp_path: Path, write_table_store: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    images = [(f"i{number}", "train", number % 2, None) for number in range(24)]
    boxes = [(number, 1 + number % 2, (100, 100, 400, 400)) for number in range(24)]
    categories = [{"id": 1, "name": "Nodule [small]"}, {"id": 2, "name": "Mass [/x]"}]
    data = write_table_store(tmp_path / "data", images, boxes, categories)
    rows = [(f"i{number}", 1 + number % 2, [100, 100, 300, 300], 0.5) for number in range(24)]
    (tmp_path / "p.json").write_text(json.dumps([dict(zip(NAMES, row, strict=True)) for row in rows]))
    main(Config(predictions=(tmp_path / "p.json",), data_path=data, save_path=tmp_path / "out", resamples=0))
    said = capsys.readouterr().out
    assert all(any(line.startswith(one["name"]) for line in said.splitlines()) for one in categories)


def test_each_file_is_read_once(
    tmp_path: Path, data: Path, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from xray.datasets import prediction_ids

    read = []
    original = prediction_ids.read_predictions
    monkeypatch.setattr(prediction_ids, "read_predictions", lambda path: read.append(path) or original(path))
    content = {"models": [], "ensemble": None, "settings": {}, "radiographs": {"dataset": None}}
    write_made_by(models[0].parent, ("predictions.json",), content)
    main(Config(predictions=models, data_path=data, save_path=tmp_path / "out", resamples=0))
    assert sorted(read) == sorted(models)


def test_without_a_classifier_the_default_exponents_stay(tmp_path: Path, data: Path, models: tuple[Path, Path]) -> None:
    runs = (tmp_path / "runs/a", tmp_path / "runs/a")
    main(Config(predictions=models, runs=runs, data_path=data, save_path=tmp_path, resamples=0, metric="coco_ap"))
    ensemble = read_ensemble(tmp_path / "ensemble.yaml")
    assert {each.exponents for each in (ensemble.default, *ensemble.categories.values())} == {(1.0, 0.5)}
    assert [member.runs for member in ensemble.models] == [(tmp_path / "runs/a",)] * 2
    content = yaml.safe_load((tmp_path / "ensemble.yaml").read_text())
    assert content["numbers"]["gain_over_single"]["ci95"] is None


def test_bad_input_is_refused_and_nothing_written(
    tmp_path: Path, data: Path, models: tuple[Path, Path], write_table_store: Callable[..., Path]
) -> None:
    out = tmp_path / "out"
    empty = write_table_store(tmp_path / "empty", [("i0", "train", 0, None), ("i1", "train", 1, None)], [])
    for flags, words in (
        ({"predictions": (models[0], tmp_path / "none.json")}, "no predictions at"),
        ({"predictions": models, "labels": (models[0],)}, "several rows of category"),
        ({"predictions": models, "data_path": tmp_path / "nowhere"}, "no dataset at"),
        ({"predictions": models, "data_path": empty}, "show nothing that could be scored"),
        ({"predictions": models, "save_path": models[0]}, "is a file"),
        # The folder and the file in it are one model.
        (
            {"predictions": (models[0].parents[1], models[0])},
            r"--predictions names .*a/validation/predictions.json twice",
        ),
        ({"predictions": models, "labels": (models[0], models[0].parent)}, "--labels names .* twice"),
    ):
        with pytest.raises(InputError, match=words):
            main(Config(**{"data_path": data, "save_path": out, **flags}))
    for flags, words in (
        ({"runs": (tmp_path,)}, "--runs is 1 paths: it must be 2, one for each"),
        ({"predictions": (models[0], models[0])}, "a file once"),
        ({"predictions": ("s3://bucket/p.json",)}, "--predictions is .* it must be on this machine"),
        ({"predictions": ()}, "--predictions names no file"),
    ):
        with pytest.raises(FlagError, match=words):
            main(Config(**{"predictions": models, "data_path": data, "save_path": out, **flags}))
    assert not out.exists()


@pytest.mark.parametrize(
    ("second", "ends", "expected"),
    [
        (0.6, [0.05, 0.15], ""),
        (0.6, [-0.01, 0.15], "the gain over the best single model may be chance: its interval holds 0"),
        (0.4, [-0.2, 0.01], "tuned is 0.1000 below the best single model, which may be chance: the interval holds 0; "),
        (0.4, [-0.2, -0.01], "tuned is worse than the best single model by 0.1000; "),
        (0.4, None, "tuned is 0.1000 below the best single model (no interval was asked for); "),
        (0.5, [0.0, 0.0], "tuned gains nothing over the best single model"),
    ],
)
def test_advice_claims_no_more_than_its_interval(
    second: float, ends: list[float] | None, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    gain = Difference("map40", "mean", 0.5, second, ends, None)
    tuned = Tuned(ByCategory(Settings()), {}, 1, {}, {"single": gain}, dealt=False)
    models = (Member((tmp_path / "a",)), Member((tmp_path / "cv/fold0", tmp_path / "cv/fold 1")), Member(()))
    said = advice(tuned, "single", models)
    assert said.startswith(expected)
    assert bool(said) == bool(expected)
    if said.endswith("OUT"):
        # What can be typed: all runs of the best model, whatever their names.
        command = "python tools/infer.py --weights cv/fold0 'cv/fold 1' --data-path RADIOGRAPHS --save-path OUT"
        assert said == f"{expected}that model alone: {command}"
        unknown = advice(dataclasses.replace(tuned, best=2), "single", models)
        assert "--weights RUN --data-path" in unknown


# What infer and fuse make of it


@pytest.fixture(scope="module")
def runs(vinbig_run: Path, vinbig_store: Path, tmp_path_factory: Any) -> list[Path]:
    """Two detectors, of which one has the other's weights, somewhat changed, and a classifier of findings."""
    from conftest import CLASSIFICATION_FLAGS
    from safetensors import safe_open
    from safetensors.torch import save_file

    from xray.commands.train import main as train
    from xray.training.recipes import read_training_flags

    folder = tmp_path_factory.mktemp("ensemble")
    places = ["--data-path", str(vinbig_store), "--save-path", str(folder / "findings")]
    train(*read_training_flags([*CLASSIFICATION_FLAGS, "--target", "findings", *places]))
    for name in ("first", "second"):
        shutil.copytree(vinbig_run, folder / name)
    with safe_open(vinbig_run / "model.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
        changed = {key: one * 1.02 if "box_predictor" in key else one for key, one in tensors.items()}
        save_file(changed, folder / "second" / "model.safetensors", file.metadata())
    return [folder / "first", folder / "second", folder / "findings"]


def test_infer_runs_an_ensemble_as_fuse_applies_it(runs: list[Path], vinbig_store: Path, tmp_path: Path) -> None:
    first, second, findings = runs
    flags: dict[str, Any] = {"data_path": vinbig_store, "save_path": first.parent, "resamples": 20}
    main(Config(predictions=(first, second), labels=(findings,), **flags, overwrite=True))
    path = first.parent / "ensemble.yaml"
    content = yaml.safe_load(path.read_text())
    assert [member["runs"] for member in content["models"]] == [["first"], ["second"]]
    assert content["classifiers"][0]["runs"] == ["findings"]

    def found(name: str, *weights: Path) -> Path:
        options: dict[str, Any] = {"device": "cpu", "n_workers": 0, "precision": "32", "split": "train"}
        config = infer.Config(
            weights=tuple(map(str, weights)), data_path=str(vinbig_store), save_path=str(tmp_path / name), **options
        )
        assert infer.main(config) == 0
        return tmp_path / name

    apart = [found(run.name, run) for run in runs]
    # Of seven radiographs not much can be fitted: settings by hand, for what the models claim to see.
    claimed = read_predictions(apart[0] / "predictions.json").table.labels.min()
    name = open_store(vinbig_store, pixels=False).categories[int(claimed)]
    content["default"] |= {"score": "sum", "exponents": [1, 0.5]}
    content["categories"] = {name: {"weights": [1, 0.5], "iou": 0.6, "scale": 0.875, "exponents": [1, 2]}}
    path.write_text(yaml.safe_dump(content))
    together = found("together", path)
    fuse.main(
        fuse.Config(
            tuple(folder / "predictions.json" for folder in apart[:2]),
            vinbig_store,
            tmp_path / "fused",
            ensemble=path,
            labels=(apart[2],),
        )
    )
    sides = []
    for folder in (together, tmp_path / "fused"):
        predictions = read_predictions(folder / "predictions.json")
        table = predictions.table
        is_box = (table.boxes != NO_FINDING_BOX).any(axis=1)
        names = np.array(predictions.image_ids)[table.images][is_box]
        rows = np.column_stack([table.boxes, 1000 * table.scores, 1000 * table.labels])[is_box]
        sides.append((names, rows))
    assert len(sides[0][0]) > 50
    for image in set(sides[0][0]) | set(sides[1][0]):
        here, there = (rows[names == image] for names, rows in sides)
        assert len(here) == len(there)
        # Files hold hundredths of a pixel and six decimals.
        distances = np.abs(here[:, None] - there[None]).max(axis=2)
        assert max(distances.min(axis=0).max(), distances.min(axis=1).max()) < 0.1
    assert (together / "labels.csv").is_file()

    with pytest.raises(InputError, match=r"weighs boxes by a classifier: give its probabilities as --labels"):
        fuse.main(fuse.Config((together / "predictions.json",) * 2, vinbig_store, tmp_path / "x", ensemble=path))
    with pytest.raises(InputError, match=r"is of 2 models, and --predictions names 1 files"):
        fuse.main(fuse.Config((together / "predictions.json",), vinbig_store, tmp_path / "x", ensemble=path))
    with pytest.raises(FlagError, match=r"--iou is 0\.5: it must be left out with --ensemble"):
        fuse.main(fuse.Config((together,), vinbig_store, tmp_path / "x", ensemble=path, iou=0.5))


def test_an_interrupted_inference_knows_another_ensemble(runs: list[Path], tmp_path: Path) -> None:
    path = runs[0].parent / "by_hand.yaml"
    path.write_text("version: 1\nmodels: [{runs: [first, second]}]\n")
    inputs = infer.Config(weights=(str(path),), data_path="x", save_path="y")
    from xray.datasets.inputs import Inputs

    before = fingerprint_of(inputs, Inputs(()))
    assert len(before["weights"]) == 5  # the file, and of each run two
    path.write_text("version: 1\nmodels: [{runs: [first, second]}]\ndefault: {iou: 0.5}\n")
    assert fingerprint_of(inputs, Inputs(()))["weights"] != before["weights"]


def test_python_and_the_server_take_an_ensemble(runs: list[Path], vinbig_store: Path) -> None:
    import xray
    from xray.serving.service import Limits, load_service

    path = runs[0].parent / "python.yaml"
    path.write_text("version: 1\nmodels: [{runs: [first]}, {runs: [second]}]\nclassifiers: [{runs: [findings]}]\n")
    model = xray.load(path, device="cpu")
    assert repr(model).startswith("<xray.Model: 2 detectors, 1 classifier on cpu")
    result = model(np.random.default_rng(0).integers(0, 255, (70, 90), dtype=np.uint8))
    assert result.finder.runs == (path, *runs)
    service = load_service([path], Limits(), "cpu")
    assert len(service.pipeline.detectors) == 2
    assert service.pipeline.members == (0, 1)


def test_what_does_not_fit_into_an_ensemble(runs: list[Path]) -> None:
    import torch

    from xray.inference.pipeline_loading import load_pipeline

    path = runs[0].parent / "wrong.yaml"
    for text, more, words in (
        ("models: [{runs: [first]}]", [runs[1]], "second is a detector beside an ensemble"),
        ("models: [{runs: [findings]}]", [], "findings is no detector, and an ensemble has it among its models"),
        ("models: [{runs: [first]}]\nclassifiers: [{runs: [second]}]", [], "second is a detector beside an ensemble"),
        ("models: [{runs: [nowhere]}]", [], "nowhere"),
        (
            "models: [{runs: [first]}]\ncategories: {Heart: {iou: 0.5}}",
            [],
            "settings of Heart, which are no categories",
        ),
    ):
        path.write_text(f"version: 1\n{text}\n")
        with pytest.raises(InputError, match=words):
            load_pipeline([path, *more], torch.device("cpu"))
