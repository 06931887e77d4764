"""A run goes on with the dataset that it was begun with, or says in one line why it cannot."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from xray.commands.cv import SAVED
from xray.commands.runner import run_command
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.training.trained_on import TRAINED_ON, check_dataset, note_dataset


def with_parameters(store, **changed):
    parameters = {**store.conversion["parameters"], **changed}
    return dataclasses.replace(store, conversion={**store.conversion, "parameters": parameters})


def refusal(run, store, **options):
    with pytest.raises(InputError) as refused:
        check_dataset(run, store, **options)
    return str(refused.value)


@pytest.fixture
def store(side_store):
    return open_store(side_store, pixels=False)


@pytest.fixture
def begun(tmp_path, store):
    note_dataset(tmp_path, store)
    return tmp_path


def test_the_same_dataset_goes_on_wherever_it_lies(begun, store, tmp_path):
    assert check_dataset(begun, dataclasses.replace(store, path=tmp_path / "moved")) == ""
    assert check_dataset(begun, store, with_folds=True) == ""


def test_another_canvas_other_bits_and_other_categories_do_not(begun, store):
    size = store.canvas_size
    line = refusal(begun, with_parameters(store, image_size=2 * size))
    assert f"has canvases of {2 * size} pixels, and {begun} was begun with canvases of {size} pixels: give" in line
    assert "has canvases of 16 bits, and" in refusal(begun, with_parameters(store, bits=16))
    renamed = dataclasses.replace(store, categories={**store.categories, 3: "Mass"})
    line = refusal(begun, renamed)
    assert "has the categories Left shadow, Right shadow, Mass, and" in line
    assert "begun with the categories Left shadow, Right shadow, Nodule" in line


def test_other_annotations_are_said_and_other_folds_refused_where_they_count(begun, store):
    boxes = dataclasses.replace(store.boxes, boxes=store.boxes.boxes + np.float64(3))
    said = check_dataset(begun, dataclasses.replace(store, boxes=boxes))
    assert said.startswith(f"warning: the annotations of {store.path} are not those that {begun} was begun with")
    records = [{**record, "fold": 1 - record["fold"]} if record["fold"] >= 0 else record for record in store.records]
    moved = dataclasses.replace(store, records=records)
    assert check_dataset(begun, moved) == ""
    assert "has other radiographs or other folds than" in refusal(begun, moved, with_folds=True)


def test_what_a_run_began_with_is_written_once(begun, store):
    before = (begun / TRAINED_ON).read_bytes()
    note_dataset(begun, with_parameters(store, image_size=32))
    assert (begun / TRAINED_ON).read_bytes() == before


def test_runs_of_older_versions_are_compared_with_their_model(side_run, store, tmp_path):
    run = shutil.copytree(side_run, tmp_path / "run")
    (run / TRAINED_ON).unlink()
    assert check_dataset(run, store) == ""
    assert "has canvases of 16 bits, and" in refusal(run, with_parameters(store, bits=16))
    (run / "model.json").unlink()
    assert check_dataset(run, with_parameters(store, bits=16)) == ""
    (run / TRAINED_ON).write_text("{")
    assert f"{run / TRAINED_ON} is damaged" in refusal(run, store)


def test_train_and_cv_ask(side_run, side_store, tmp_path, capsys, monkeypatch):
    from xray.commands import cv
    from xray.commands.train import main
    from xray.training.recipes import read_training_flags

    data, run = shutil.copytree(side_store, tmp_path / "data"), shutil.copytree(side_run, tmp_path / "run")
    conversion = json.loads((data / "conversion.json").read_text())
    images, size = np.load(data / "images.npy"), conversion["parameters"]["image_size"]
    np.save(data / "images.npy", np.pad(images, ((0, 0), (0, size), (0, size))))
    conversion["parameters"]["image_size"] = 2 * size
    (data / "conversion.json").write_text(json.dumps(conversion))
    config = (run / "config.yaml").read_text()
    flags = ["--data-path", str(data), "--save-path", str(run), "--resume", "--n-epochs", "3"]
    assert run_command(lambda: main(*read_training_flags(flags))) == 1
    assert f"has canvases of {2 * size} pixels, and {run} was begun with" in capsys.readouterr().err
    assert (run / "config.yaml").read_text() == config
    folds = tmp_path / "cv"
    folds.mkdir()
    shutil.copy(run / "config.yaml", folds / SAVED)
    note_dataset(folds, open_store(side_store))
    monkeypatch.setattr(cv, "check_same", lambda *_: None)
    monkeypatch.setattr(cv, "run_all", lambda *_: pytest.fail("a fold was begun"))
    flags = ["--data-path", str(data), "--save-path", str(folds), "--resume"]
    assert run_command(lambda: cv.main(*cv.read(flags)[:4])) == 1
    assert f"has canvases of {2 * size} pixels, and {folds} was begun with" in capsys.readouterr().err


def test_a_run_that_is_killed_before_it_is_noted_can_be_resumed(side_store, tmp_path, monkeypatch):
    """What a run was begun with is written after its config.yaml, without which nothing can be resumed."""
    from xray.commands import cv
    from xray.commands.train import main
    from xray.training import trained_on
    from xray.training.recipes import read_training_flags

    class KilledError(BaseException):
        """Nothing catches it."""

    def killed(run, store):
        raise KilledError

    monkeypatch.setattr(trained_on, "note_dataset", killed)
    network = ["--task", "classification", "--network", "mobilenetv2_100", "--weights", "none"]
    flags = [*network, "--data-path", str(side_store), "--n-epochs", "1", "--n-workers", "0", "--device", "cpu"]
    run, folds = tmp_path / "run", tmp_path / "cv"
    with pytest.raises(KilledError):
        main(*read_training_flags([*flags, "--save-path", str(run)]))
    assert (run / "config.yaml").is_file()
    assert check_dataset(run, open_store(side_store, pixels=False)) == ""
    with pytest.raises(KilledError):
        cv.main(*cv.read([*flags, "--save-path", str(folds)])[:4])
    assert (folds / SAVED).is_file()
