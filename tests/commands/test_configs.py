"""The recipes in configs/: all of them are read, and those of competitions' winners train in miniature."""

import re
import sys
from pathlib import Path

import in_process
import pytest
from conftest import MASK_FLAGS, TINY_FLAGS

from xray.models.weights import load_deployed
from xray.training import stage_runs
from xray.training.recipes import read_yaml
from xray.training.stages import read_training

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
WINNERS = {path.stem: path for path in CONFIGS if "winner" in path.stem}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_is_read_and_begins_with_its_command(path):
    task, config, stages = read_training(["--config", str(path)])
    recipe = read_yaml(path)
    assert task == recipe["task"]
    for flags, of_stage in zip(recipe.get("stages", [{}]), stages or [config], strict=True):
        for name, value in ({**recipe, **flags}).items():
            if name not in ("task", "stages", "save_path", *(["weights"] if stages else [])):
                assert str(getattr(of_stage, name)).lower() == str(value).lower() or float(value) == pytest.approx(
                    getattr(of_stage, name)
                )
    assert re.search(rf"^#   make |^#   python .*--config configs/{path.name}", path.read_text(), re.MULTILINE)


def test_the_winners_are_marked_as_not_run():
    for name in ("siim-winner-stages", "vinbig-winner"):
        comment = " ".join(line.strip("# ") for line in WINNERS[name].read_text().splitlines() if line.startswith("#"))
        assert "Not run on the competition's data" in comment


def test_the_stages_of_siims_winner():
    *_, stages = read_training(["--config", str(WINNERS["siim-winner-stages"])])
    assert [stage.lr for stage in stages] == [1e-3, 1e-4, 1e-5, 1e-6]
    assert [stage.positives for stage in stages] == [0.8, 0.8, 0.6, 0.4]
    assert [stage.data_path for stage in stages] == ["data/siim512"] + ["data/siim1024"] * 3
    assert [stage.freeze_encoder for stage in stages] == [False, True, False, False]
    assert {(stage.attention, stage.distortion, stage.average_best) for stage in stages} == {("scse", 0.3, 3)}


def test_siims_winner_in_miniature(mask_store, tmp_path, monkeypatch):
    def run_all(works, slots, done):
        ended = in_process.run(*works[0].commands[0])
        print(ended.stderr, file=sys.stderr)
        return ended.returncode, works[0].name

    monkeypatch.setattr(stage_runs, "run_all", run_all)
    flags = ("--config", WINNERS["siim-winner-stages"], *MASK_FLAGS, "--encoder", "resnet18", "--depth", 3)
    done = in_process.run("train", *flags, "--data-path", mask_store, "--save-path", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "all 4 stages are done" in done.stdout
    assert load_deployed(tmp_path / "run")[0]["architecture"]["attention"] == "scse"


def test_vinbigs_winner_in_miniature(vinbig_store, tmp_path):
    flags = ("--config", WINNERS["vinbig-winner"], *TINY_FLAGS, "--n-epochs", 2)
    done = in_process.run("train", *flags, "--data-path", vinbig_store, "--save-path", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "average of epochs 1, 2" in done.stdout
    assert load_deployed(tmp_path / "run")[0]["task"] == "detection"
