"""tools/pseudo.py: who may label for which fold, what is written, and that an interruption loses nothing."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from xray.commands import evaluate, infer, pseudo, view
from xray.commands.pseudo import Config, by_fold
from xray.datasets import conversion_account
from xray.datasets.sources.unlabelled import read_unlabelled
from xray.datasets.store import LABELLING, open_store
from xray.errors import InputError
from xray.file_names import CONVERSION
from xray.inference.prediction_journal import PredictionJournal
from xray.models.weights import load_deployed, save_deployed
from xray.structures.boxes import BoxTable
from xray.structures.fusion import weighted_boxes_fusion
from xray.training.pseudo import held_back


def copied(run: Path, target: Path, sureness: float = 1.0, validated: bool = False, **config: object) -> Path:
    """A copy of a run whose config says otherwise, and which is surer of what it finds."""
    target.mkdir(parents=True)
    content = yaml.safe_load((run / "config.yaml").read_text()) | config
    (target / "config.yaml").write_text(yaml.safe_dump(content))
    description, state = load_deployed(run)
    state["roi_heads.box_predictor.cls_score.weight"] *= sureness
    state["roi_heads.box_predictor.cls_score.bias"][0] -= sureness
    save_deployed(target, state, description)
    if validated:
        shutil.copytree(run / "validation", target / "validation")
    return target


@pytest.fixture(scope="module")
def runs(vinbig_run, tmp_path_factory):
    """Copies of one detector that say they held back fold 0, 1 and none, each with other scores."""
    root = tmp_path_factory.mktemp("copies")
    folds = (("fold0", 0, 8), ("fold1", 1, 10), ("last", "all", 12))
    return [copied(vinbig_run, root / name, sureness, fold=fold) for name, fold, sureness in folds]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five radiographs with a bright rectangle."""
    folder = tmp_path_factory.mktemp("new") / "raw"
    folder.mkdir()
    random = np.random.default_rng(8)
    for number in range(5):
        pixels = random.integers(20, 60, (80, 90), dtype=np.uint8)
        pixels[20:50, 10 + 8 * number : 40 + 8 * number] = 150 + 20 * number
        assert cv2.imwrite(str(folder / f"new{number}.png"), pixels)
    return folder


def config_for(runs, data, images, out, **flags):
    places = {"weights": tuple(map(str, runs)), "data_path": str(data), "images": str(images), "save_path": str(out)}
    return Config(**places, device="cpu", precision="32", n_workers=0, batch_size=2, **flags)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def labelled(runs, vinbig_store, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("labelled") / "out"
    assert pseudo.main(config_for(runs, vinbig_store, images, out)) == 0
    return out


@pytest.fixture(scope="module")
def found(labelled, runs, tmp_path_factory):
    """What infer finds in the radiographs of the directory with each of the runs, without "No finding"."""
    rows = []
    for run in runs:
        out = tmp_path_factory.mktemp("found") / run.name
        places = {"weights": (str(run),), "data_path": str(labelled), "save_path": str(out)}
        assert infer.main(infer.Config(**places, device="cpu", precision="32", n_workers=0, batch_size=2)) == 0
        rows.append([row for row in json.loads((out / "predictions.json").read_text()) if row["category_id"] < 15])
    return rows


def test_boxes_for_a_fold_are_those_of_the_models_that_held_it_back(labelled, found):
    content = json.loads((labelled / "annotations.json").read_text())
    ids = [image["source_id"] for image in content["images"]]
    assert ids == [f"new{number}" for number in range(5)]
    assert {image["fold"] for image in content["images"]} == {0}
    assert not (labelled / LABELLING).exists()
    assert {row["for_fold"] for row in content["annotations"]} == {0, 1, "all"}
    assert [row["id"] for row in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    for fold in (0, 1):
        ours = [row for row in content["annotations"] if row["for_fold"] == fold]
        theirs = [row for row in found[fold] if row["score"] >= 0.1]
        assert len(ours) == len(theirs) > 5
        for mine, row in zip(ours, theirs, strict=True):
            assert (ids[mine["image_id"]], mine["category_id"]) == (row["image_id"], row["category_id"])
            assert mine["score"] == pytest.approx(row["score"], abs=1e-5)
            np.testing.assert_allclose(mine["bbox"], row["bbox"], atol=0.05)


def test_boxes_for_all_are_fused_of_all_models(labelled, found):
    tables = []
    for rows in found:
        boxes = np.array([row["bbox"] for row in rows])
        boxes[:, 2:] += boxes[:, :2]
        scores = [row["score"] for row in rows]
        tables.append(
            BoxTable.of([int(row["image_id"][3:]) for row in rows], [r["category_id"] for r in rows], boxes, scores)
        )
    group = np.repeat(np.arange(3), [len(table) for table in tables])
    fused = weighted_boxes_fusion(BoxTable.concatenate(tables), group, [1.0] * 3, 0.4).table
    fused = fused.select(fused.scores >= 0.1)
    store = open_store(labelled, pseudo_for="all")
    assert len(store.boxes) == len(fused) > 5
    np.testing.assert_allclose(store.boxes.scores, fused.scores, atol=2e-5)
    assert store.boxes.labels.tolist() == fused.labels.tolist()


def test_the_directory_says_what_it_is(labelled, vinbig_store, tmp_path, capsys):
    made = open_store(labelled, pseudo_for=0).pseudo
    assert made["models"] == {"0": ["fold0"], "1": ["fold1"], "all": ["fold0", "fold1", "last"]}
    assert sum(made["boxes"].values()) == len(json.loads((labelled / "annotations.json").read_text())["annotations"])
    with pytest.raises(InputError, match="holds pseudo-labels, which are what models found and not the truth"):
        open_store(labelled)
    predictions = tmp_path / "predictions.json"
    predictions.write_text("[]")
    with pytest.raises(InputError, match="not the truth"):
        evaluate.main(evaluate.Config(predictions=predictions, data_path=labelled, save_path=tmp_path / "report"))
    view.main(view.Config(data_path=labelled, save_path=tmp_path / "view", n=2))
    assert "what is drawn is what models have found, not the truth" in capsys.readouterr().out


def test_which_fold_a_run_held_back(vinbig_run, vinbig_store, side_store, tmp_path):
    data = open_store(vinbig_store)
    assert held_back(vinbig_run, data) == (0, "")
    cases = {
        "another": ({"data_path": str(side_store)}, "it was trained on"),
        "all": ({"fold": "all"}, "it was trained on every fold"),
        "none": ({"fold": 7}, "it held back fold 7, which .* does not have"),
        "text": ({"fold": "0x"}, "it held back fold 0x"),
    }
    for name, (config, why) in cases.items():
        fold, words = held_back(copied(vinbig_run, tmp_path / name, **config), data)
        assert fold is None
        assert re.match(why, words), words
    # A dataset that was moved since is known by what was validated; one that was dealt anew, too.
    moved = copied(vinbig_run, tmp_path / "moved", data_path="/gone", validated=True)
    assert held_back(moved, data) == (0, "")
    dealt = copied(vinbig_run, tmp_path / "dealt", fold=1, validated=True)
    assert held_back(dealt, data)[0] is None
    (moved / "config.yaml").unlink()
    assert held_back(moved, data) == (None, "it has no config.yaml that says which fold it held back")


def test_groups_and_what_is_said_of_those_for_all_alone(runs, vinbig_run, vinbig_store, tmp_path, capsys):
    data = open_store(vinbig_store)
    second = copied(vinbig_run, tmp_path / "second", fold=1)
    groups = by_fold([runs[2], second, runs[1], runs[0]], data)
    assert groups == {0: [runs[0]], 1: [second, runs[1]], None: [runs[2]]}
    assert capsys.readouterr().err == f"{runs[2]} gives labels for --fold all alone: it was trained on every fold\n"
    with pytest.raises(InputError, match="stands twice"):
        by_fold([runs[0], runs[0]], data)


def test_models_of_other_tasks_and_categories_are_refused(side_run, segmentation_run, vinbig_store):
    data = open_store(vinbig_store)
    with pytest.raises(InputError, match="finds other categories than"):
        by_fold([side_run], data)
    with pytest.raises(InputError, match="is a run of the task segmentation"):
        by_fold([segmentation_run], data)


@pytest.mark.parametrize("moment", ["first batch", "second group", "canvases moved", "before conversion.json"])
def test_an_interrupted_command_goes_on(moment, labelled, runs, vinbig_store, images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    config = config_for(runs, vinbig_store, images, out)
    n_added = 0

    def add(journal, portion):
        nonlocal n_added
        n_added += 1
        if n_added > {"first batch": 1, "second group": 4}.get(moment, 99):
            raise KeyboardInterrupt
        return plain_add(journal, portion)

    def write_json(path, *args, **kwargs):
        if path.parent == out and path.name == {"canvases moved": "annotations.json"}.get(moment, CONVERSION):
            raise KeyboardInterrupt
        return plain_write(path, *args, **kwargs)

    plain_add, plain_write = PredictionJournal.add, conversion_account.write_json
    with monkeypatch.context() as patch:
        patch.setattr(PredictionJournal, "add", add)
        patch.setattr("xray.datasets.conversion_account.write_json", write_json)
        with pytest.raises(KeyboardInterrupt):
            pseudo.main(config)
    assert not (out / CONVERSION).exists()
    with pytest.raises(InputError, match=r"the labelling into .* has not finished: run the same"):
        open_store(out, pseudo_for="all")
    n_before, n_added, moment = n_added, 0, ""
    monkeypatch.setattr(PredictionJournal, "add", add)
    assert pseudo.main(config) == 0
    # Three groups of three batches: none is found twice.
    assert n_added == 9 - min(n_before, 9) + (1 if n_before < 9 else 0)
    assert contents(out) == contents(labelled)


def test_finished_labels_stay_unless_they_are_to_be_replaced(
    labelled, runs, vinbig_store, images, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    shutil.copytree(labelled, out)
    with pytest.raises(InputError, match="holds finished pseudo-labels: add --overwrite"):
        pseudo.main(config_for(runs, vinbig_store, images, out))
    middle = float(np.median(open_store(labelled, pseudo_for=0).boxes.scores))
    again = config_for(runs[:1], vinbig_store, images, out, overwrite=True, min_score=middle)
    with monkeypatch.context() as patch:
        patch.setattr(PredictionJournal, "add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pseudo.main(again)
    kept = {name: text for name, text in contents(out).items() if not name.startswith(LABELLING)}
    assert kept == contents(labelled)
    assert pseudo.main(again) == 0
    assert list(open_store(out, pseudo_for=0).pseudo["models"]) == ["0", "all"]
    assert open_store(out, pseudo_for=0).boxes.scores.min() >= middle


def test_other_datasets_and_files_are_not_replaced(runs, vinbig_store, images, tmp_path):
    with pytest.raises(InputError, match="is a dataset of another kind, which is not replaced"):
        pseudo.main(config_for(runs, vinbig_store, images, vinbig_store, overwrite=True))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "annotations.json").touch()
    with pytest.raises(InputError, match=r"holds a annotations\.json of something else"):
        pseudo.main(config_for(runs, vinbig_store, images, tmp_path / "out"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        pseudo.main(config_for(runs, vinbig_store, images, tmp_path / "file"))


def test_another_command_does_not_go_on_with_what_is_unfinished(runs, vinbig_store, images, tmp_path, monkeypatch):
    out, fewer = tmp_path / "out", tmp_path / "fewer"
    fewer.mkdir()
    shutil.copy(images / "new0.png", fewer)
    with monkeypatch.context() as patch:
        patch.setattr(PredictionJournal, "add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pseudo.main(config_for(runs[:1], vinbig_store, images, out))
    with pytest.raises(InputError, match="holds an unfinished labelling of other radiographs"):
        pseudo.main(config_for(runs[:1], vinbig_store, fewer, out))
    assert pseudo.main(config_for(runs[:1], vinbig_store, fewer, out, overwrite=True)) == 0
    assert len(open_store(out, pseudo_for=0)) == 1


def test_what_is_written_may_lie_among_the_images(runs, vinbig_store, images, tmp_path):
    folder = shutil.copytree(images, tmp_path / "raw")
    pseudo.check_out(config_for(runs, vinbig_store, folder, folder / "out"))
    with pytest.raises(InputError, match=r"is the folder .*raw itself"):
        pseudo.check_out(config_for(runs, vinbig_store, folder, folder))
    (folder / "out" / "overlays").mkdir(parents=True)
    shutil.copy(folder / "new0.png", folder / "out" / "overlays" / "again.png")
    labelled = open_store(vinbig_store)
    assert len(read_unlabelled(folder, labelled).images) == 6
    assert len(read_unlabelled(folder, labelled, apart=folder / "out").images) == 5
