"""How made_by.json names the models that it was given, and what is known of predictions in runs' folders without it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from xray.datasets.store import Store, open_store
from xray.outputs.made_by import made_by_of, model_of
from xray.structures.made_by import joined, parts_of, read_made_by, write_made_by
from xray.training.learned import learned_by, of_other_radiographs
from xray.training.trained_on import note_dataset


def test_a_run_that_is_the_working_directory_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "fold0"
    run.mkdir()
    (run / "model.safetensors").write_bytes(b"weights")
    monkeypatch.chdir(run)
    assert model_of(Path())["name"] == "fold0"
    assert model_of(Path()) == model_of(run)


@pytest.fixture
def store(tmp_path: Path, write_table_store: Callable[..., Path]) -> Store:
    """Two radiographs of each of two folds, one for validation and one test radiograph."""
    images = [(f"i{n}", "train", n // 2, f"p{n}") for n in range(4)]
    images += [("v", "val", -1, "v"), ("t", "test", -1, "q")]
    return open_store(write_table_store(tmp_path / "data", images, []), pixels=False)


def a_run(path: Path, store: Store | None, fold: int | str) -> Path:
    """A run directory with predictions of what it held back, which made_by.json says nothing of."""
    (path / "validation").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(path.name.encode())
    (path / "model.json").write_text('{"task": "detection"}')
    (path / "config.yaml").write_text(f"fold: {fold}\n")
    if store is not None:
        note_dataset(path, store)
    (path / "validation" / "predictions.json").write_text("[]")
    return path


def test_the_validation_of_a_run_is_of_what_it_held_back(tmp_path: Path, store: Store) -> None:
    files = [a_run(tmp_path / f"run{n}", store, n) / "validation/predictions.json" for n in range(2)]
    for given in (None, store):
        made = [made_by_of(path, ["i0"], given) for path in files]
        assert [part["models"][0]["name"] for part in made] == ["run0", "run1"]
        # Of both together, no radiograph was predicted by a model that has learned from it.
        assert learned_by({"fused": made, "settings": {}}, store, store.records) == (0, "")
        assert of_other_radiographs(made[0], files[0], store) == []
    # The validation split of the dataset is no fold.
    val = made_by_of(a_run(tmp_path / "val", store, "val") / "validation/predictions.json", ["v"], store)
    assert val["radiographs"]["dataset"]["split"] == "val"
    assert learned_by(val, store, store.records) == (0, "")
    # It can be written, and read again.
    (tmp_path / "out").mkdir()
    (tmp_path / "out/predictions.json").write_text("[]")
    write_made_by(tmp_path / "out", ("predictions.json",), {"fused": made, "settings": {}})
    assert read_made_by(tmp_path / "out/predictions.json")["fused"] == made


def test_links_and_runs_of_any_name(tmp_path: Path, store: Store) -> None:
    run = a_run(tmp_path / "run", store, 0)
    plain = made_by_of(run / "validation/predictions.json", ["i0"], store)
    (tmp_path / "folder").symlink_to(run / "validation")
    (tmp_path / "fold0.json").symlink_to(run / "validation/predictions.json")
    (tmp_path / "another").symlink_to(run)
    for link in ("folder/predictions.json", "fold0.json"):
        assert made_by_of(tmp_path / link, ["i0"], store) == plain
    assert (
        made_by_of(tmp_path / "another/validation/predictions.json", ["i0"], store)["radiographs"]["dataset"]["fold"]
        == 0
    )
    # A run that is called so is not what it held back.
    named = a_run(tmp_path / "validation", store, 0)
    made = made_by_of(named / "predictions.json", ["i2"], store)
    assert learned_by(made, store, store.records) == (2, "validation held back fold 0")
    assert made_by_of(named / "validation/predictions.json", ["i0"], store)["radiographs"]["dataset"]["fold"] == 0


def test_other_predictions_in_a_run_are_of_where_their_radiographs_are(tmp_path: Path, store: Store) -> None:
    path = a_run(tmp_path / "run", store, 0) / "predictions.json"
    assert learned_by(made_by_of(path, ["i2"], store), store, store.records) == (2, "run held back fold 0")
    assert learned_by(made_by_of(path, ["i0", "i1"], store), store, store.records) == (0, "")
    assert learned_by(made_by_of(path, ["t"], store), store, store.records) == (0, "")
    # What they are of is not known: all that is scored may be among it.
    for ids, given in ((["i0"], None), (["i0", "stranger"], store), ([], store)):
        assert learned_by(made_by_of(path, ids, given), store, store.records) == (2, "run held back fold 0")
    # A made_by.json knows better than the folder.
    path.write_text("[]")
    content = {"models": [], "ensemble": None, "settings": {}, "radiographs": {"dataset": None}}
    write_made_by(path.parent, (path.name,), content)
    assert made_by_of(path, ["i0"], store)["models"] == []


def test_folds_beside_a_file_are_those_of_a_cross_validation(tmp_path: Path, store: Store) -> None:
    for fold in (0, 1):
        a_run(tmp_path / "cv" / f"fold{fold}", store, fold)
    made = made_by_of(tmp_path / "cv" / "predictions.json", ["i0"], store)
    assert [part["models"][0]["name"] for part in parts_of(made)] == ["fold0", "fold1"]
    assert learned_by(made, store, store.records) == (0, "")


def test_what_is_not_known(tmp_path: Path, store: Store) -> None:
    assert made_by_of(tmp_path / "predictions.json", ["i0"], store) is None
    run = a_run(tmp_path / "run", None, 0)
    made = made_by_of(run / "validation/predictions.json", ["i0"], store)
    assert learned_by(made, store, store.records) is None
    assert joined([made, None]) is None
    assert joined([]) is None
    (run / "model.safetensors").unlink()
    assert made_by_of(run / "validation/predictions.json", ["i0"], store) is None
