"""Which runs made predictions, by where they lie, and which radiographs trained them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from xray.datasets.fingerprint import radiographs_sha256, split_sha256
from xray.datasets.store import Store, open_store
from xray.training.learned import (
    learned_by,
    learned_from,
    learned_in_words,
    of_other_radiographs,
    other_weights,
    runs_beside,
    strangers,
)
from xray.training.trained_on import note_dataset


def run_at(folder: Path, config: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "model.json").write_text("{}")
    if config:
        (folder / "config.yaml").write_text(config)
    return folder


def test_predictions_are_of_the_run_that_they_lie_in(tmp_path: Path) -> None:
    run, folds = run_at(tmp_path / "mine"), [run_at(tmp_path / f"cv/fold{number}") for number in range(2)]
    run_at(tmp_path / "cv/another")
    for place in ("predictions.json", "validation/predictions.json", "test/any.json"):
        assert runs_beside(run / place) == [run]
    assert runs_beside(folds[1] / "out_of_fold/predictions.json") == [folds[1]]
    assert runs_beside(tmp_path / "cv/predictions.json") == folds
    # A folder with runs of any name in it says nothing.
    assert runs_beside(tmp_path / "predictions.json") == []
    assert strangers(run, [], tmp_path / "predictions.json") == ""
    assert strangers(run, [run], run / "predictions.json") == ""
    assert strangers(folds[0], folds, tmp_path / "cv/predictions.json") == ""
    assert "lies with another run, mine, and" in strangers(folds[0], [run], run / "predictions.json")
    assert "lies with 2 other runs, and" in strangers(run, folds, tmp_path / "cv/predictions.json")


@pytest.mark.parametrize(
    ("fold", "expected"),
    [("0", (4, "held back fold 0")), ("all", (7, "held back no fold")), ("val", (0, "")), ("9", (0, ""))],
)
def test_what_a_run_was_trained_on(
    fold: str, expected: tuple[int, str], tmp_path: Path, write_table_store: Callable[..., Path]
) -> None:
    images = [(f"i{n}", "train", 0 if n < 3 else 1, f"p{n}") for n in range(7)] + [("t", "test", -1, "q")]
    write_table_store(tmp_path / "data", images, [])
    store = open_store(tmp_path / "data", pixels=False)
    run = run_at(tmp_path / "run", f"fold: {fold}\ndata_path: {tmp_path / 'data'}\n")
    assert learned_from(run, store, store.records) == expected
    said = learned_in_words(run, store, store.records)
    assert bool(said) == bool(expected[0])
    if said:
        assert said[0].startswith(f"{expected[0]} of 8 radiographs trained the model: run {expected[1]}.")
    # Of another dataset, or without a description, nothing is known.
    other = run_at(tmp_path / "other", f"fold: {fold}\ndata_path: {tmp_path / 'elsewhere'}\n")
    assert learned_from(other, store, store.records) == (0, "")
    assert learned_from(run_at(tmp_path / "bare"), store, store.records) == (0, "")
    assert learned_in_words(run_at(tmp_path / "damaged", "fold: [\n"), store, store.records) == []
    # Its own fold, and the test split, are not what it was trained on.
    held = [record for record in store.records if record["fold"] == 0 or record["split"] == "test"]
    assert learned_in_words(run, store, held) == [] or fold == "all"
    # A dataset that was moved since is known by its radiographs and folds.
    moved = run_at(tmp_path / "moved", f"fold: {fold}\ndata_path: {tmp_path / 'elsewhere'}\n")
    note_dataset(moved, store)
    assert learned_from(moved, store, store.records) == expected


@pytest.fixture
def store(tmp_path: Path, write_table_store: Callable[..., Path]) -> Store:
    """Two radiographs of each of three folds, two for validation and one test radiograph."""
    images = [(f"i{n}", "train", n // 2, f"p{n}") for n in range(6)]
    images += [("v0", "val", -1, "v"), ("v1", "val", -1, "w"), ("t", "test", -1, "q")]
    return open_store(write_table_store(tmp_path / "data", images, []), pixels=False)


def model(store: Store, fold: object, name: str = "m", weights: str = "ab", **changes: object) -> dict[str, object]:
    split = split_sha256(store.records)
    return {"name": name, "files": {"model.safetensors": weights}, "fold": fold, "split_sha256": split, **changes}


def record_of(store: Store, *models: dict[str, object], known: bool = True, **part: object) -> dict[str, object]:
    dataset = {
        "n_images": len(store),
        "radiographs_sha256": radiographs_sha256(store.records),
        "split_sha256": split_sha256(store.records),
        "split": None,
        "fold": None,
        **part,
    }
    radiographs = {"n": 9, "dataset": dataset if known else None}
    return {"models": list(models), "ensemble": None, "settings": {}, "radiographs": radiographs}


def test_what_made_by_json_says_of_the_training(store: Store) -> None:
    def learned(*models: dict[str, object], **part: object) -> object:
        return learned_by(record_of(store, *models, **part), store, store.records)

    assert learned(model(store, 0)) == (4, "m held back fold 0")
    assert learned(model(store, 0), known=False) == (4, "m held back fold 0")
    assert learned(model(store, "all")) == (6, "m held back no fold")
    assert learned(model(store, "val")) == (6, "m held back its validation split")
    # Of the part that was looked at.
    assert learned(model(store, 0), split="train", fold=0) == (0, "")
    assert learned(model(store, 0), split="train", fold=1) == (2, "m held back fold 0")
    assert learned(model(store, "all"), split="test") == (0, "")
    # Each of several models may have learned.
    both = (model(store, 0, "a"), model(store, 1, "b"))
    assert learned(*both) == (6, "a held back fold 0, b held back fold 1")
    # What is not known is not said to be none.
    assert learned(model(store, None)) is None
    assert learned(model(store, 0, split_sha256="other")) is None
    assert learned(model(store, 0, split_sha256=None)) is None
    assert learned_by(None, store, store.records) is None
    assert learned(model(store, None), model(store, 2, "c")) == (4, "c held back fold 2")
    # A made_by.json may be anybody's.
    assert learned(model(store, "2\x1b[2J", "c\nerror: d")) == (6, r"c\nerror: d held back fold 2\x1b[2J")


def test_fused_predictions_are_of_all_that_were_fused(store: Store) -> None:
    folds = [record_of(store, model(store, fold, f"fold{fold}"), split="train", fold=fold) for fold in range(3)]
    assert learned_by({"fused": folds, "settings": {}}, store, store.records) == (0, "")
    folds[1]["radiographs"]["dataset"]["fold"] = 2
    assert learned_by({"fused": folds, "settings": {}}, store, store.records) == (2, "fold1 held back fold 1")


def test_predictions_of_other_radiographs_are_told(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    assert of_other_radiographs(record_of(store, model(store, 0)), path, store) == []
    assert of_other_radiographs(record_of(store, known=False), path, store) == []
    assert of_other_radiographs(None, path, store) == []
    # Other folds are of the same radiographs.
    assert of_other_radiographs(record_of(store, split_sha256="other"), path, store) == []
    other = record_of(store, radiographs_sha256="other", n_images=70)
    for made in (other, {"fused": [record_of(store), other], "settings": {}}):
        (said,) = of_other_radiographs(made, path, store)
        assert said.startswith(f"{path} was made of another dataset directory, with 70 radiographs, than {store.path}")


def test_thresholds_are_of_the_weights_that_made_the_scores(store: Store, tmp_path: Path) -> None:
    path, run, yaml = tmp_path / "predictions.json", tmp_path / "run", tmp_path / "e.yaml"
    one, two = record_of(store, model(store, 0)), record_of(store, model(store, 0), model(store, 1, "n", "cd"))
    assert other_weights(run, ["ab"], False, one, path) == ""
    assert "by other weights (m) than those of" in other_weights(run, ["cd"], False, one, path)
    assert "by m, n together" in other_weights(run, ["ab"], False, two, path)
    assert "by m, n without" in other_weights(yaml, ["ee", "ab", "cd"], True, two, path)
    tuned = {**two, "ensemble": {"name": "e.yaml", "sha256": "ee"}}
    assert other_weights(yaml, ["ee", "ab", "cd"], True, tuned, path) == ""
    assert "by other weights" in other_weights(yaml, ["ee", "ab", "xx"], True, tuned, path)
    fused = {"fused": [one, record_of(store, model(store, 1, "n", "cd"))], "settings": {"ensemble_sha256": "ee"}}
    assert other_weights(yaml, ["ee", "ab", "cd"], True, fused, path) == ""
    assert "together" in other_weights(run, ["ab"], False, fused, path)
    # The folds of a cross-validation, and these fused alone, as for --scale, are one model; two such are two.
    folds = {"fused": fused["fused"], "settings": {"joined": True}}
    assert other_weights(run, ["ab"], False, folds, path) == ""
    assert other_weights(run, ["ab"], False, {"fused": [folds], "settings": {}}, path) == ""
    assert "together" in other_weights(run, ["ab"], False, {"fused": [folds, one], "settings": {}}, path)
    # A fold each of one model's own, as of a run that was used twice.
    assert other_weights(run, ["ab"], False, {"fused": [one, one], "settings": {}}, path) == ""
    exported = record_of(store, model(store, 0, files={"model.onnx": "ff"}))
    assert other_weights(run, ["ab"], False, exported, path) == ""
