"""Pseudo-labels beside a dataset: what trains while which fold is held back, and how much it counts."""

import dataclasses
import json
import pickle
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from xray.datasets.conversion import write_store
from xray.datasets.source import Source, SourceImage
from xray.datasets.sources.unlabelled import partition_of
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError
from xray.structures.boxes import BoxTable
from xray.training.config import DetectionConfig
from xray.training.loaders import collate_boxes
from xray.training.pseudo import join, with_pseudo
from xray.training.readers import readings
from xray.training.recipes import read_training_flags
from xray.training.tasks.detection import DetectionTask

CANVAS = 64
BOXES = [
    # image, category, x, y, width, height, score, the fold held back
    (0, 1, 10, 10, 30, 20, 0.5, 0),
    (0, 2, 20, 30, 30, 20, 0.25, 0),
    (1, 1, 10, 10, 30, 20, 0.75, 0),
    (2, 3, 10, 10, 30, 20, 0.125, 0),
    (0, 1, 12, 12, 30, 20, 0.9, 1),
    (3, 2, 12, 12, 30, 20, 0.8, "all"),
]


def write_pseudo(folder, labelled, boxes=BOXES, not_for_folds=None, size=CANVAS, categories=None, **changed):
    """Four radiographs with pseudo-labels, by hand; the patient of the second is in fold 0."""
    images, random = [], np.random.default_rng(3)
    for number in range(4):
        path = folder / "raw" / f"new{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), random.integers(0, 255, (80, 90), dtype=np.uint8))
        folds = (not_for_folds or {1: [0]}).get(number)
        images.append(SourceImage(path, path.name, path.stem, extra={"not_for_folds": folds} if folds else {}))
    named = [{"id": number, "name": name} for number, name in (categories or labelled.categories).items()]
    source = Source("unlabelled", "files", images, BoxTable.empty(), [], [], named, "f")
    write_store(source, folder / "data", image_size=size, n_folds=1, n_workers=0)
    content = json.loads((folder / "data" / "annotations.json").read_text())
    content["annotations"] = [
        {"id": number, "image_id": image, "category_id": label, "bbox": box, "score": score, "for_fold": fold}
        for number, (image, label, *box, score, fold) in enumerate(boxes, 1)
    ]
    (folder / "data" / "annotations.json").write_text(json.dumps(content))
    conversion = json.loads((folder / "data" / "conversion.json").read_text())
    models = {"0": ["a"], "1": ["b"], "all": ["a", "b"]}
    conversion["pseudo"] = {"partition": partition_of(labelled), "models": models, **changed}
    (folder / "data" / "conversion.json").write_text(json.dumps(conversion))
    return folder / "data"


@pytest.fixture(scope="module")
def labelled(side_store):
    return open_store(side_store)


@pytest.fixture(scope="module")
def pseudo(labelled, tmp_path_factory):
    return write_pseudo(tmp_path_factory.mktemp("pseudo"), labelled)


def config_for(side_store, pseudo, **flags):
    tiny = {"backbone": "mobilenet_v2", "weights": "none", "fpn_channels": 16, "batch_size": 4, "n_workers": 0}
    return DetectionConfig(data_path=str(side_store), pseudo=str(pseudo), **tiny, **flags)


@pytest.mark.parametrize(
    ("fold", "rows", "scores"),
    [(0, [16, 18, 19], [0.5, 0.25, 0.125]), (1, [16, 17, 18, 19], [0.9]), ("all", [16, 17, 18, 19], [0.8])],
)
def test_what_trains_while_a_fold_is_held_back(labelled, pseudo, fold, rows, scores):
    """new1, of a patient in fold 0, does not train while that is held back, nor do boxes of models that saw it."""
    store = join(labelled, pseudo, fold)
    assert store.added.tolist() == rows
    real = labelled.rows(split="train")
    used = with_pseudo(store, readings(store, real), DetectionConfig())
    assert used.rows.tolist() == [*real.tolist(), *rows]
    n = len(labelled.boxes)
    assert used.boxes[:n].tolist() == list(range(n))
    assert store.boxes.scores[used.boxes[n:]].tolist() == scores
    assert used.shares[used.boxes[n:]].tolist() == scores
    assert set(used.shares[:n].tolist()) == {1.0}


def test_what_is_joined_keeps_folds_and_splits(labelled, pseudo):
    store = join(labelled, pseudo, 0)
    assert len(store) == len(store.images) == 20
    for fold in (0, 1):
        assert store.rows(fold=fold).tolist() == labelled.rows(fold=fold).tolist()
    assert store.rows(split="test").tolist() == labelled.rows(split="test").tolist()
    assert [store.records[row]["source_id"] for row in (16, 19)] == ["new0", "new3"]
    assert np.array_equal(store.images[15], labelled.images[15])
    assert np.array_equal(store.images[16], open_store(pseudo, pseudo_for=0).images[0])
    again = pickle.loads(pickle.dumps(store))
    assert (again.added.tolist(), again.for_fold, len(again.boxes)) == (store.added.tolist(), 0, len(store.boxes))


def test_agreement_and_scores_stand_side_by_side(labelled, pseudo):
    store = join(labelled, pseudo, 0)
    records = [dict(record, readers=["R1", "R2"]) if "readers" in record else record for record in store.records]
    records = [dict(record, readers=["R1", "R2"]) if row < 14 else record for row, record in enumerate(records)]
    store = dataclasses.replace(store, records=records)
    config = DetectionConfig(agreement="weight")
    used = with_pseudo(store, readings(store, labelled.rows(split="train")), config)
    n = len(labelled.boxes)
    assert set(used.shares[:n].tolist()) == {0.5}
    assert used.shares[used.boxes[n:]].tolist() == [0.5, 0.25, 0.125]
    # Chosen readers drew none of these boxes, which train nevertheless.
    chosen = with_pseudo(store, readings(store, labelled.rows(split="train"), ["R2"]), config)
    assert (chosen.boxes >= n).sum() == 3


def loader_of(task):
    task._trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")), world_size=1, global_rank=0
    )
    task._jit_is_scripting = False
    return task.train_dataloader()


def test_how_often_they_are_shown_and_with_which_shares(side_store, labelled, pseudo):
    config = config_for(side_store, pseudo, pseudo_share=0.4, normals=0.25, repeat_threshold=0.0)
    task = DetectionTask(config, labelled)
    assert task.val_rows.tolist() == labelled.rows(fold=0).tolist()
    loader = loader_of(task)
    alone = loader_of(DetectionTask(dataclasses.replace(config, pseudo=""), labelled))
    repeats = loader.sampler.repeats
    # new0 and new2 have boxes, new3 has none and counts as a normal one.
    np.testing.assert_allclose(repeats[-3:], [0.4, 0.4, 0.1])
    np.testing.assert_array_equal(repeats[:-3], alone.sampler.repeats)
    assert "shares" not in alone.dataset[0]
    position = {int(row): number for number, row in enumerate(task.train_rows)}
    batch = collate_boxes([loader.dataset[position[row]] for row in (16, 18, 19, int(task.train_rows[1]))])
    shares = [target["shares"].tolist() for target in batch["targets"]]
    assert shares[:3] == [[0.5, 0.25], [0.125], []]
    assert set(shares[3]) <= {1.0}
    # Whoever names the radiographs of a bad step finds them.
    task.sampler.repeats = np.where(np.arange(len(repeats)) == position[18], 1.0, 0.0)
    task.sampler.total = 1
    assert {task.store.records[row]["source_id"] for row in task.rows_of_batches(0, 1)} == {"new2"}
    assert any("3 of the training radiographs are pseudo-labelled, with 3 boxes" in note for note in task.plan.notes)
    assert any("1 are left out, as their patients are in fold 0" in note for note in task.plan.notes)


def test_scores_of_one_train_as_the_truth_does(side_store, labelled, pseudo, tmp_path):
    """The same batch with scores of 1, and as ordinary boxes, has the same losses; with lower ones, lower losses."""
    losses = []
    for score in (1.0, 0.25):
        boxes = [(*box[:6], score, box[7]) for box in BOXES]
        made = write_pseudo(tmp_path / str(score), labelled, boxes)
        task = DetectionTask(config_for(side_store, made, augment="none"), labelled)
        loader = loader_of(task)
        position = [number for number, row in enumerate(task.train_rows.tolist()) if row in (16, 18)]
        batch = collate_boxes([loader.dataset[number] for number in position])
        bare = [{name: target[name] for name in ("boxes", "labels")} for target in batch["targets"]]
        for targets in (batch["targets"], bare):
            torch.manual_seed(0)
            found = task.model.train()(batch["images"], targets)
            losses.append({name: loss.item() for name, loss in found.items()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[2]["loss_box_reg"] == pytest.approx(losses[3]["loss_box_reg"] / 4, rel=1e-5)
    assert losses[2]["loss_classifier"] < losses[3]["loss_classifier"]


def test_a_training_that_was_cut_short_goes_on(side_store, pseudo, train_tiny, tmp_path, monkeypatch):
    flags = ("--pseudo", pseudo, "--pseudo-share", 1, "--n-epochs", 2)
    whole = train_tiny(side_store, tmp_path / "whole", *flags)
    step, seen = DetectionTask.training_step, set()

    def failing(task, batch, index):
        seen.update(batch["rows"].tolist())
        if task.current_epoch == 1 and index == 1:
            raise RuntimeError("the machine went away")
        return step(task, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionTask, "training_step", failing)
        with pytest.raises(RuntimeError, match="went away"):
            train_tiny(side_store, tmp_path / "cut", *flags)
    assert seen & {16, 18, 19}
    assert 17 not in seen
    train_tiny(side_store, tmp_path / "cut", "--resume", "--n-epochs", 2)
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    ids = {row["image_id"] for row in json.loads((whole / "validation" / "predictions.json").read_text())}
    assert not any(name.startswith("new") for name in ids)


def test_what_does_not_fit_is_one_line(side_store, labelled, pseudo, tmp_path):
    cases = {
        "has other categories than": {"categories": {1: "Left shadow", 2: "Right shadow", 3: "Mass"}},
        "has canvases of 32 pixels, .* of 64": {"size": 32},
        "was made for a dataset with other folds than": {"partition": "other"},
        "has no labels for --fold 0 .1, all.: they must come from models that did not see fold 0": {
            "models": {"1": ["b"], "all": ["b"]}
        },
    }
    for number, (words, changed) in enumerate(cases.items()):
        made = write_pseudo(tmp_path / str(number), labelled, **changed)
        with pytest.raises(InputError, match=words):
            join(labelled, made, 0)
    with pytest.raises(InputError, match="holds no pseudo-labels: give --pseudo what"):
        join(labelled, side_store, 0)
    with pytest.raises(InputError, match="no dataset at"):
        join(labelled, tmp_path / "none", 0)


def test_flags_that_do_not_go_with_it():
    with pytest.raises(FlagError, match="--store-device is cuda: it must be cpu with --pseudo"):
        read_training_flags(["--pseudo", "out", "--store-device", "cuda"])
    for flags in (["--task", "classification", "--pseudo", "out"], ["--pseudo", ""]):
        with pytest.raises(FlagError, match=r"--pseudo is '.*' of --task .*: it is for detectors"):
            read_training_flags(flags)


def test_pseudo_labels_are_no_dataset_to_train_on(pseudo, train_tiny, tmp_path):
    with pytest.raises(InputError, match="are what models found and not the truth"):
        train_tiny(pseudo, tmp_path / "run")
