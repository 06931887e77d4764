"""Out-of-fold predictions from files of one fold or all, and classifiers' probabilities from both of their files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xray.datasets.store import Store, open_store
from xray.errors import InputError
from xray.inference.ensemble_file import Member
from xray.inference.out_of_fold import gather, mean_labels, member_of, read_labels

BOX = [0, 0, 100, 100]
LUNG = [{"id": 1, "name": "lung"}, {"id": 2, "name": "Nodule"}]


@pytest.fixture
def store(tmp_path: Path, write_table_store: Callable[..., Path]) -> Store:
    """Two radiographs in each of three folds, a0 … c1, and a test radiograph."""
    images = [(f"{name}{number}", "train", fold, None) for fold, name in enumerate("abc") for number in range(2)]
    boxes = [(row, 1, (0, 0, 100, 100)) for row in range(6)]
    return open_store(write_table_store(tmp_path / "data", [*images, ("t", "test", -1, None)], boxes, LUNG), False)


def write(path: Path, *rows: tuple) -> Path:
    names = ("image_id", "category_id", "bbox", "score")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
    return path


def test_files_of_folds_are_one_model(store: Store, tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", ("a1", 1, BOX, 0.5), ("a0", 2, BOX, 0.25))
    b = write(tmp_path / "b.json", ("b1", 1, BOX, 0.75), ("t", 1, BOX, 0.125))
    whole = write(tmp_path / "whole.json", ("a0", 1, BOX, 0.1), ("b0", 1, BOX, 0.2), ("c0", 1, BOX, 0.3))
    found = gather(store, [Member((), (a, b)), Member((), (whole,))])
    # b0 and a1 have no box of some model: nothing was found there. Of fold 2 the first model has no file.
    assert [store.records[row]["source_id"] for row in found.rows] == ["a0", "a1", "b0", "b1"]
    assert [table.images.tolist() for table in found.tables] == [[1, 0, 3], [0, 2]]
    assert found.tables[0].scores.tolist() == [0.5, 0.25, 0.75]
    assert found.truth.images.tolist() == [0, 1, 2, 3]
    assert found.folds.tolist() == [0, 0, 1, 1]
    assert len(np.unique(found.patients)) == 4
    assert [why.split("/")[-1] for why in found.left_out] == ["a.json lacks 2 radiographs of fold 2 (such as 'c0')"]
    with pytest.raises(InputError, match=r"whole\.json has 2 radiographs \(such as 'a0'\) that another file"):
        gather(store, [Member((), (a, whole))])
    with pytest.raises(
        InputError, match="no radiograph of the folds or of the validation split is in the files of all"
    ):
        gather(store, [Member((), (a,)), Member((), (b,))])


def test_with_no_finding_rows_a_file_says_itself_what_it_is_of(store: Store, tmp_path: Path) -> None:
    rows = [("a0", 15, [0, 0, 1, 1], 0.5), ("a0", 1, BOX, 0.5), ("b1", 15, [0, 0, 1, 1], 0.9)]
    found = gather(store, [Member((), (write(tmp_path / "p.json", *rows),))])
    assert [store.records[row]["source_id"] for row in found.rows] == ["a0", "b1"]
    assert len(found.tables[0]) == 1


def test_probabilities_of_classifiers(store: Store, tmp_path: Path) -> None:
    ids = ["a0", "a1", "b0", "b1"]
    table = tmp_path / "infer" / "labels.csv"
    table.parent.mkdir()
    table.write_text("image_id,lung,unknown\n" + "".join(f"{name},0.{number},7\n" for number, name in enumerate(ids)))
    rows = [(name, label, [0, 0, 1000, 2000], 0.5) for name in ids[:3] for label in (1, 2)]
    beside = write(tmp_path / "run" / "validation" / "predictions.json", *rows)
    assert read_labels(table, store) == {1: {"a0": 0.0, "a1": 0.1, "b0": 0.2, "b1": 0.3}}
    assert read_labels(beside, store)[2] == {"a0": 0.5, "a1": 0.5, "b0": 0.5}
    members = [member_of(path, of_labels=True) for path in (table.parent, tmp_path / "run")]
    assert [member.predictions for member in members] == [(table,), (beside,)]
    boxes = write(tmp_path / "p.json", *((name, 1, BOX, 0.5) for name in ("a0", "b0", "c0")))
    found = gather(store, [Member((), (boxes,))], members)
    assert [store.records[row]["source_id"] for row in found.rows] == ["a0", "a1", "b0"]
    assert found.probabilities[1].tolist() == [0.25, 0.3, 0.35]
    assert found.probabilities[2].tolist() == [0.5, 0.5, 0.5]
    assert mean_labels([{1: {"x": 0.2}}, {1: {"x": 0.4, "y": 1.0}}]) == {1: {"x": pytest.approx(0.3), "y": 1.0}}
    for text, words in (
        ("image_id,abnormal\na0,0.5\n", "has no category of"),
        ("lung\n0.5\n", "has no column image_id"),
        ("image_id,lung\na0,1.5\n", r"line 2 has '1\.5' for lung, no probability"),
        ("image_id,lung\na0,\n", r"line 2 has '' for lung"),
        ("image_id,lung\na0\n", r"line 2 has None for lung"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=words):
            read_labels(table, store)
    with pytest.raises(InputError, match=r"several rows of category lung in 'a0'"):
        read_labels(write(tmp_path / "boxes.json", ("a0", 1, BOX, 0.5), ("a0", 1, BOX, 0.4)), store)
    with pytest.raises(InputError, match="no labels at"):
        read_labels(tmp_path / "none.csv", store)


def test_where_files_and_runs_are(tmp_path: Path) -> None:
    for fold in range(2):
        write(tmp_path / f"cv/fold{fold}/validation/predictions.json")
        (tmp_path / f"cv/fold{fold}/model.json").write_text("{}")
    runs = (tmp_path / "cv/fold0", tmp_path / "cv/fold1")
    files = tuple(run / "validation/predictions.json" for run in runs)
    assert member_of(runs[1]) == Member(runs[1:], files[1:])
    assert member_of(files[1]) == Member(runs[1:], files[1:])
    assert member_of(tmp_path / "cv") == Member(runs, files)
    # With the predictions of all folds in one file, that is the one.
    together = write(tmp_path / "cv/predictions.json")
    assert member_of(tmp_path / "cv") == member_of(together) == Member(runs, (together,))
    lone = write(tmp_path / "found" / "predictions.json")
    assert member_of(lone).runs == ()
    assert member_of(lone, tmp_path / "cv").runs == runs
    assert member_of(lone, runs[0]).runs == runs[:1]
    with pytest.raises(InputError, match="is no run directory, nor a folder of some"):
        member_of(lone, tmp_path / "found")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty holds no predictions\.json"):
        member_of(tmp_path / "empty")


def test_the_run_of_a_file_is_found_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for fold in (0, 1):
        write(tmp_path / f"fold{fold}" / "validation" / "predictions.json")
        (tmp_path / f"fold{fold}" / "model.json").touch()
    run = tmp_path / "fold0"
    file = run / "validation" / "predictions.json"

    def places(given: Path) -> tuple[list[Path], list[Path]]:
        member = member_of(given)
        return [path.resolve() for path in member.predictions], [path.resolve() for path in member.runs]

    for folder in (file.parent, run, tmp_path):
        monkeypatch.chdir(folder)
        assert places(file) == places(file.relative_to(folder)) == ([file], [run])
    assert places(Path("fold0")) == ([file], [run])
    assert len(member_of(tmp_path).runs) == len(member_of(tmp_path).predictions) == 2
