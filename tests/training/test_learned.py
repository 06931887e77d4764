"""Which runs made predictions, by where they lie, and which radiographs trained them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from xray.datasets.store import open_store
from xray.training.learned import learned_from, learned_in_words, made_by, strangers


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
        assert made_by(run / place) == [run]
    assert made_by(folds[1] / "out_of_fold/predictions.json") == [folds[1]]
    assert made_by(tmp_path / "cv/predictions.json") == folds
    # A folder with runs of any name in it says nothing.
    assert made_by(tmp_path / "predictions.json") == []
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
