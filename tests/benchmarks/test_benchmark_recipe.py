"""The table of ingredients: which trainings are run, what is continued, and its numbers by hand."""

import json

import numpy as np
import pytest

from benchmarks import ingredients, recipe
from benchmarks.differences import interval
from benchmarks.recipe import Config, main
from xray.commands import cv, infer
from xray.errors import FlagError, InputError
from xray.flags import parse_flags
from xray.training import side_by_side

IMAGES = [(f"image{number}", "train", number % 2, f"patient{number}") for number in range(12)]
BOXES = [(row, 1, (100.0, 100.0, 300.0, 300.0)) for row in range(12)]


@pytest.fixture
def store(write_table_store, tmp_path):
    return write_table_store(tmp_path / "data", IMAGES, BOXES)


@pytest.fixture
def runs(monkeypatch):
    """Plays the commands: each row finds the boxes of as many radiographs of a fold as `found` says. → those begun."""
    begun, found = [], {}

    def run_all(works, slots, done):
        for work in works:
            for command in work.commands:
                begun.append(command)
                target = recipe.Path(flag(command, "--save-path"))
                folders = [(target, int(flag(command, "--fold")))] if command[0] == "infer" else [
                    (target / f"fold{fold}" / "out_of_fold", fold) for fold in (0, 1)
                ]  # fmt: skip
                seed = target.name if command[0] == "cv" else target.parents[1].name
                for folder, fold in folders:
                    rows = [row for row in range(12) if row % 2 == fold]
                    n = found.get((work.name, seed), found.get(work.name, 6))
                    boxes = [
                        {"image_id": f"image{row}", "category_id": 1, "bbox": [100, 100, 200, 200], "score": 0.5}
                        for row in rows[:n]
                    ]
                    folder.mkdir(parents=True)
                    (folder / "predictions.json").write_text(json.dumps(boxes))
                    if command[0] == "cv":
                        (folder.parent / "best.ckpt").write_bytes(bytes(100))
                if command[0] == "cv":
                    (target / "metrics.json").write_text("{}")
        return 0, ""

    monkeypatch.setattr(side_by_side, "run_all", run_all)
    return begun, found


def flag(command, name):
    return command[command.index(name) + 1]


def test_a_row_is_held_against_the_default_by_the_same_radiographs(store, runs, tmp_path, capsys):
    begun, found = runs
    found["ema"] = 3
    out = tmp_path / "out"
    main(Config(store, out, rows=("ema", "one-view"), resamples=200))
    assert [(command[0], flag(command, "--save-path")) for command in begun] == [
        ("cv", str(out / "default" / "seed0")),
        ("cv", str(out / "ema" / "seed0")),
        ("infer", str(out / "one-view" / "seed0" / "fold0" / "out_of_fold")),
        ("infer", str(out / "one-view" / "seed0" / "fold1" / "out_of_fold")),
    ]
    assert "--no-ema" in begun[1]
    assert "--no-tta" in begun[2]
    assert flag(begun[2], "--weights") == str(out / "default" / "seed0" / "fold0")
    default, ema, view = json.loads((out / "numbers.json").read_text())["rows"]
    # All of 12 boxes are found, then 6 of 12, all of them right: the area under the curve is 1 and a half.
    assert default["values"]["map40"] == view["values"]["map40"] == 1
    assert ema["values"]["map40"] == ema["difference"] + 1 == 0.5
    assert -1 < ema["ci95"][0] < -0.5 < ema["ci95"][1] < 0
    assert view["ci95"] == [0, 0]
    table = (out / "table.md").read_text().splitlines()
    assert table[0].startswith("| row | mAP@0.4 | COCO AP | AP75 | mAP@0.4: difference | 95 % interval | minutes |")
    assert table[1] == "|---|---:|---:|---:|---:|---:|---:|"
    assert "| no moving average of the weights | 0.500 |" in table[3]
    assert "| -0.500 |" in table[3]
    assert "-0.500" in capsys.readouterr().out


def test_what_is_done_is_not_done_again_and_others_predictions_stand_beside(store, runs, tmp_path, capsys):
    begun, _ = runs
    out = tmp_path / "out"
    main(Config(store, out, rows=("ema",), resamples=0))
    n = len(begun)
    others = tmp_path / "others.json"
    others.write_text((out / "ema" / "seed0" / "fold0" / "out_of_fold" / "predictions.json").read_text())
    main(Config(store, out, rows=("ema", "flip"), resamples=0, beside=(f"script={others}",)))
    assert [flag(command, "--save-path") for command in begun[n:]] == [str(out / "flip" / "seed0")]
    rows = {row["name"]: row for row in json.loads((out / "numbers.json").read_text())["rows"]}
    assert rows["script"]["values"]["map40"] == 0.5
    assert rows["script"]["ci95"] is None
    assert rows["script"]["cpu_seconds"] is None
    # An interrupted cross-validation goes on.
    (out / "flip" / "seed0" / "metrics.json").unlink()
    (out / "flip" / "seed0" / "cv.yaml").touch()
    config = Config(store, out, rows=("flip",))
    (command,) = recipe.training_commands(config, recipe.check(config)[1], out / "flip" / "seed0", 0)
    assert command[-1] == "--resume"


def test_checkpoints_of_rows_that_are_done_are_removed_but_the_defaults_stay(store, runs, tmp_path, capsys):
    out = tmp_path / "out"
    main(Config(store, out, rows=("ema", "one-view"), resamples=0))
    assert [path.relative_to(out).as_posix() for path in sorted(out.glob("**/*.ckpt"))] == [
        f"default/seed0/fold{fold}/best.ckpt" for fold in (0, 1)
    ]
    assert "its 2 checkpoints are removed (0.0 GB)" in capsys.readouterr().out


def test_numbers_of_several_seeds_are_means(store, runs, tmp_path):
    _, found = runs
    found |= {("ema", "seed0"): 3, ("ema", "seed1"): 6}
    main(Config(store, tmp_path / "out", rows=("ema",), seeds=(0, 1), resamples=400))
    ema = json.loads((tmp_path / "out" / "numbers.json").read_text())["rows"][1]
    assert ema["values"]["map40"] == 0.75
    assert ema["difference"] == -0.25
    # Both seeds may be drawn twice: it reaches from what the first lost to nothing.
    assert ema["ci95"][0] < -0.4
    assert ema["ci95"][1] == 0


def test_an_interval_by_hand():
    assert interval([np.arange(1001.0)]) == pytest.approx([25, 975])
    assert interval([None, None]) is None
    low, high = interval([np.zeros(4000), np.ones(4000)])
    assert (low, high) == (0, 1)


def test_rows_that_fuse_come_after_those_that_they_need(store):
    names = [row.name for row in recipe.check(Config(store, rows=("two-families",)))]
    assert names == ["default", "retinanet", "two-families"]
    some = store / "store.json"
    names = [
        row.name for row in recipe.check(Config(store, rows=("all",), classifier=next(store.glob("*.json"), some)))
    ]
    assert names == ["default", "retinanet", "classifier", "all"]
    assert "labels" not in [row.name for row in recipe.check(Config(store))]


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_the_flags_of_every_row_are_read(task, tmp_path):
    for row in ingredients.OF_TASK[task]:
        if row.what == "train":
            _, config, *_ = cv.read(["--task", task, "--save-path", str(tmp_path), "--seed", "0", *row.flags])
            config.check()
        elif row.what == "infer":
            parse_flags(infer.Config, args=["--weights", "a", "--data-path", "b", "--save-path", "c", *row.flags])
    names = [row.name for row in ingredients.OF_TASK[task]]
    assert names[0] == ingredients.START
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"rows": ("no",)}, "--rows is no: it must be one of default, anchors"),
        ({"rows": ("labels",)}, "--rows labels needs a classifier"),
        ({"seeds": (1, 1)}, "--seeds is 1 1"),
        ({"beside": ("peer.json",)}, "--beside is peer.json"),
        ({"beside": ("a=none.json",)}, "--beside is a=none.json"),
    ],
)
def test_wrong_flags_are_named(store, flags, words):
    with pytest.raises(FlagError, match=words):
        recipe.check(Config(store, **flags))


def test_a_folder_of_another_experiment_is_left_alone(store, runs, tmp_path):
    main(Config(store, tmp_path / "out", rows=("ema",), resamples=0))
    file = tmp_path / "other.yaml"
    file.write_text("n-epochs: 3\n")
    with pytest.raises(FlagError, match="--config"):
        main(Config(store, tmp_path / "out", config=file, resamples=0))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(InputError, match="holds files that are not of this benchmark"):
        main(Config(store, tmp_path / "full"))


def test_mistakes_are_found_before_anything_trains(store, runs, tmp_path, capsys):
    begun, _ = runs
    out, others, recipe_file = tmp_path / "out", tmp_path / "others.json", tmp_path / "recipe.yaml"
    others.write_text('[{"image_id": "another", "category_id": 1, "bbox": [1, 1, 2, 2], "score": 0.5}]')
    with pytest.raises(InputError, match="another"):
        main(Config(store, out, beside=(f"script={others}",)))
    for beside in (("flip=" + str(others),), (f"a={others}", f"a={others}"), (f"={others}",)):
        with pytest.raises(FlagError, match="--beside"):
            main(Config(store, out, beside=beside))
    with pytest.raises(FlagError, match="--folds is 0 0: it must be each given once"):
        main(Config(store, out, folds=(0, 0)))
    recipe_file.write_text("fold: all\nlr: 0\n")
    with pytest.raises(FlagError, match="row default: --lr is 0"):
        main(Config(store, out, config=recipe_file))
    recipe_file.write_text("task: segmentation\nencoder: resnet18\n")
    with pytest.raises(FlagError, match=r"^row default: .*--"):
        main(Config(store, out, config=recipe_file))
    with pytest.raises(InputError, match="is a file: give a directory"):
        main(Config(store, others))
    assert begun == []
    assert not out.exists()
    out.mkdir()
    (out / "recipe.yaml").write_text("- 3\n")
    with pytest.raises(InputError, match=r"recipe.yaml is damaged"):
        main(Config(store, out))


def test_a_training_that_wrote_nothing_can_be_started_again(store, tmp_path, monkeypatch):
    """What it cost is kept where cross-validation has begun, which refuses a folder that holds other files."""
    out = tmp_path / "out"

    def run_all(works, slots, done):
        (out / "default" / "seed0").mkdir(parents=True)
        return 1, works[0].name

    monkeypatch.setattr(side_by_side, "run_all", run_all)
    with pytest.raises(InputError, match="row default ended with status 1"):
        main(Config(store, out, rows=("ema",)))
    assert list((out / "default" / "seed0").iterdir()) == []
