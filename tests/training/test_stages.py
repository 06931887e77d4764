"""The flags of a training in stages: where they come from, what is refused, and that the stage is named."""

import dataclasses

import pytest

from xray.errors import FlagError, InputError, UnreadFlagsError
from xray.training import stage_runs
from xray.training.recipes import read_training_flags, read_yaml, save_config
from xray.training.stage_runs import _save, train_in_stages
from xray.training.stages import SAVED, has_stages, read_training

RECIPE = """\
task: segmentation
encoder: resnet18
weights: none
lr: 0.1
save-path: {run}
stages:
- data-path: small
  lr: 1e-3
- data-path: large
  freeze-encoder: true
- lr: 0.01
"""


@pytest.fixture
def recipe(tmp_path):
    """(text) → the flags that name a recipe, by default RECIPE."""

    def write(text=RECIPE):
        path = tmp_path / "recipe.yaml"
        path.write_text(text.format(run=tmp_path / "run"))
        return ["--config", str(path)]

    return write


def test_a_stage_has_the_flags_of_all_but_for_its_own(recipe, tmp_path):
    run = tmp_path / "run"
    task, config, stages = read_training(recipe())
    assert (task, config.save_path) == ("segmentation", str(run))
    assert dataclasses.replace(config, save_path=stages[0].save_path) == stages[0]
    assert [stage.encoder for stage in stages] == ["resnet18"] * 3
    assert [stage.lr for stage in stages] == [0.001, 0.1, 0.01]
    assert [stage.data_path for stage in stages] == ["small", "large", "data/siim"]
    assert [stage.freeze_encoder for stage in stages] == [False, True, False]
    assert [stage.save_path for stage in stages] == [str(run / f"stage-{number}") for number in (1, 2, 3)]
    # Each starts from the one before.
    assert [stage.weights for stage in stages] == ["none", str(run / "stage-1"), str(run / "stage-2")]


def test_a_later_stage_that_leaves_the_network_to_xray_takes_that_of_the_first(recipe):
    base = "family: retinanet\nbackbone: resnet18\nsave_path: {run}\nstages:\n"
    _, _, stages = read_training(recipe(f"{base}- head: v1\n  anchor-ratios: [0.5, 2]\n- {{{{}}}}\n- lr: 0.01\n"))
    assert [stage.head for stage in stages] == ["v1"] * 3
    assert [stage.anchor_ratios for stage in stages] == [(0.5, 2)] * 3
    # Sides are those of the stage before, on its own canvas.
    sides = "[8, 16, 32, 64, 128]"
    _, _, stages = read_training(recipe(f"{base}- anchor-sides: {sides}\n- {{{{}}}}\n"))
    assert [stage.anchor_sides for stage in stages] == [(8, 16, 32, 64, 128), "auto"]
    # What the first one chooses is not known yet, and what differs is another network.
    for text, message in (
        ("- {{}}\n- head: v1\n", "stage 2: --head is v1, and auto in the first stage: all train one network"),
        ("- head: v1\n- head: v2\n", "stage 2: --head is v2, and v1 in the first stage"),
        (f"- {{{{}}}}\n- anchor-sides: {sides}\n", "stage 2: the number of --anchor-sides is 5, and auto in the first"),
    ):
        with pytest.raises(FlagError, match=message):
            read_training(recipe(base + text))


def test_flags_win_in_every_stage(recipe, tmp_path):
    flags = ["--lr", "5", "--fold", "3", "--weights", "imagenet", "--save-path", str(tmp_path / "other")]
    _, config, stages = read_training([*recipe(), *flags])
    assert [(stage.lr, stage.fold) for stage in stages] == [(5, 3)] * 3
    assert config.save_path == str(tmp_path / "other")
    assert [stage.weights for stage in stages] == ["imagenet", *(str(tmp_path / f"other/stage-{n}") for n in (1, 2))]


def test_a_training_without_stages_is_read_as_ever(tmp_path):
    (tmp_path / "recipe.yaml").write_text("lr: 0.1\n")
    flags = ["--config", str(tmp_path / "recipe.yaml"), "--n-epochs", "3"]
    assert read_training(flags) == (*read_training_flags(flags), ())
    assert not has_stages(flags)
    assert not has_stages([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: 3\n", r"recipe.yaml: stages must be a list, of the flags of each stage"),
        ("stages: []\n", "stages must be a list"),
        ("stages:\n- 3\n", r"recipe.yaml, stage 1 must have one `flag: value` on each line"),
        ("stages:\n- lr: 1\n- lr: {{a: b}}\n", "recipe.yaml, stage 2: lr must be one value"),
        ("stages:\n- lr: 1\n- lr: 0\n", "stage 2: --lr is 0.0: it must be above 0"),
        ("stages:\n- lr: 1\n- save-path: a\n", "stage 2: save-path is of all stages: give it above them"),
        ("stages:\n- fold: 1\n", "stage 1: fold is of all stages"),
        ("stages:\n- lr: 1\n- weights: none\n", "stage 2: weights is of the first stage: others go on from it"),
        (
            "stages:\n- lr: 1\n- backbone: resnet18\n",
            "stage 2: --backbone is resnet18, and resnet50 in the first stage",
        ),
        ("stages:\n- stages: [1]\n", "stage 1: stages is no flag of a stage"),
        ("resume: true\nstages:\n- lr: 1\n", "resume is no flag of a recipe with stages: give --resume on the command"),
        (
            "stages:\n- lr: 1\n- anchor-ratios: [1]\n",
            r"stage 2: --anchor-ratios is \(1.0,\), and auto in the first stage",
        ),
        (
            "stages:\n- lr: 1\n- anchor-sides: [1, 2, 3, 4, 5]\n",
            "stage 2: the number of --anchor-sides is 5, and auto in the",
        ),
        ("task: nothing\nstages:\n- lr: 1\n", "--task nothing is unknown"),
    ],
)
def test_what_is_refused(recipe, text, message):
    with pytest.raises((FlagError, InputError), match=message):
        read_training(recipe(text))


def test_an_empty_save_path_is_refused(recipe):
    with pytest.raises(FlagError, match="--save-path is empty"):
        read_training([*recipe(), "--save-path", ""])


def test_the_stage_of_a_wrong_flag_is_named(recipe):
    with pytest.raises(UnreadFlagsError, match=r"^stage 2: .*lrate"):
        read_training(recipe("stages:\n- lr: 1\n- lrate: 1\n"))


def test_other_commands_refuse_such_a_recipe(recipe):
    with pytest.raises(FlagError, match="has stages: train and cv take such a recipe, no other command does"):
        read_training_flags(recipe())


def test_a_resumed_training_keeps_its_flags(recipe, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(InputError, match=rf"nothing to resume in {run}: it has no stages.yaml; start without --resume"):
        read_training([*recipe(), "--resume"])
    task, config, stages = read_training([*recipe(), "--n-epochs", "7"])
    run.mkdir()
    _save(run / SAVED, task, stages, 1)
    assert read_yaml(run / SAVED)["done"] == 1
    # With the recipe or without it.
    for flags in (["--save-path", str(run)], [*recipe(), "--n-epochs", "7", "--device", "cpu"]):
        task, config, again = read_training([*flags, "--resume"])
        assert task == "segmentation"
        assert config.resume
        assert [dataclasses.replace(stage, resume=False, device="auto") for stage in again] == list(stages)
    for flags, message in (
        (["--lr", "3"], rf"stage 1: --lr is 3.0, and {run} was started with 0.001: leave it out"),
        (["--config", str(tmp_path / "recipe.yaml")], "stage 1: --n-epochs is 20, and .* was started with 7"),
    ):
        with pytest.raises(FlagError, match=message):
            read_training(["--save-path", str(run), "--resume", *flags])
    # A recipe without stages would be left unread; one dataset in place of two would train other canvases.
    (tmp_path / "plain.yaml").write_text("task: segmentation\nlr: 3\n")
    for flags, message in (
        (["--config", str(tmp_path / "plain.yaml")], "plain.yaml has no stages, as .* has: leave it out"),
        (["--data-path", "large"], "--data-path names one dataset, and the stages of .* have small and large"),
    ):
        with pytest.raises(FlagError, match=message):
            read_training(["--save-path", str(run), "--resume", *flags])
    # The run may have been moved.
    run.rename(tmp_path / "moved")
    *_, moved = read_training(["--save-path", str(tmp_path / "moved"), "--resume"])
    assert moved[1].weights == str(tmp_path / "moved" / "stage-1")


def test_what_is_chosen_by_itself_now_stays_what_it_was_in_an_earlier_version(recipe, tmp_path):
    flags = recipe("family: retinanet\nsave_path: {run}\nstages:\n- lr: 0.01\n- n_epochs: 3\n")
    task, _, stages = read_training(flags)
    assert {(stage.head, stage.optimizer) for stage in stages} == {("auto", "auto")}
    (tmp_path / "run").mkdir()
    # Its defaults were these.
    early = [dataclasses.replace(stage, head="v1", optimizer="sgd") for stage in stages]
    _save(tmp_path / "run" / SAVED, task, early, 1)
    *_, again = read_training([*flags, "--resume"])
    assert [dataclasses.replace(stage, resume=False) for stage in again] == early
    # What is asked for is still another training.
    with pytest.raises(FlagError, match=r"stage 1: --head is v2, and .* was started with v1"):
        read_training([*flags, "--head", "v2", "--resume"])


@pytest.mark.parametrize("text", ["", "task: segmentation\ndone: 1\n", "done: many", "done: 9", "done: -1"])
def test_a_damaged_record_is_told(recipe, tmp_path, text):
    run = tmp_path / "run"
    task, _, stages = read_training(recipe())
    run.mkdir()
    _save(run / SAVED, task, stages, 1)
    (run / SAVED).write_text((run / SAVED).read_text().replace("done: 1", text) if text.count(":") == 1 else text)
    with pytest.raises(InputError, match=rf"{run}/stages.yaml is damaged: restore it, or start another run"):
        read_training(["--save-path", str(run), "--resume"])


def ended(status):
    """What stands for the process of a stage: it ends with this status at once."""
    return lambda works, slots, done: (status, works[0].name)


def test_a_first_stage_that_never_began_leaves_nothing(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(stage_runs, "run_all", ended(1))
    with pytest.raises(InputError, match=r"stage 1 of 3 ended with status 1, .* before it trained: correct the cause"):
        train_in_stages(*read_training(recipe()), lambda _: (set(), set()))
    assert not (tmp_path / "run").exists()
    # Killed, it may be resumed.
    monkeypatch.setattr(stage_runs, "run_all", ended(-9))
    with pytest.raises(InputError, match="ended by signal 9: continue with"):
        train_in_stages(*read_training(recipe()), lambda _: (set(), set()))
    assert (tmp_path / "run" / SAVED).is_file()


def test_the_dataset_of_a_stage_that_is_done_may_be_gone(recipe, tmp_path, monkeypatch, capsys):
    def rows_of(stage):
        if stage.data_path == "small":
            raise InputError("no data at small")
        return set(), set()

    run = tmp_path / "run"
    task, config, stages = read_training(recipe())
    with pytest.raises(InputError, match="stage 1: no data at small"):
        train_in_stages(task, config, stages, rows_of)
    run.mkdir()
    _save(run / SAVED, task, stages, 1)
    monkeypatch.setattr(stage_runs, "run_all", ended(1))
    with pytest.raises(InputError, match="stage 2 of 3 ended with status 1"):
        train_in_stages(*read_training(["--save-path", str(run), "--resume"]), rows_of)
    assert "stage 1 is done, and is not checked again: no data at small" in capsys.readouterr().out


def test_a_last_stage_that_lost_its_model_is_not_called_done(recipe, tmp_path):
    run = tmp_path / "run"
    task, config, stages = read_training(recipe())
    (run / "stage-3").mkdir(parents=True)
    _save(run / SAVED, task, stages, 3)
    with pytest.raises(InputError, match=r"stage-3 has no model.safetensors, though its training is done"):
        train_in_stages(task, config, stages, lambda _: (set(), set()))


def test_of_a_run_without_stages_nothing_changes(tmp_path):
    _, config = read_training_flags(["--save-path", str(tmp_path)])
    save_config(tmp_path / "config.yaml", "detection", config)
    assert read_training(["--save-path", str(tmp_path), "--resume"])[2] == ()


def test_several_machines_are_refused(recipe, monkeypatch):
    task, config, stages = read_training(recipe(RECIPE + "  num-nodes: 2\n"))
    with pytest.raises(InputError, match="on one machine"):
        train_in_stages(task, config, stages, lambda _: (set(), set()))
    task, config, stages = read_training([*recipe(), "--num-nodes", "2"])
    with pytest.raises(InputError, match="on one machine: start them without torchrun or srun"):
        train_in_stages(task, config, stages, lambda _: (set(), set()))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="on one machine"):
        train_in_stages(*read_training(recipe()), lambda _: (set(), set()))


def test_radiographs_that_an_earlier_stage_trains_on_do_not_validate(recipe):
    def rows_of(stage):
        return ({"a", "b"}, {"c"}) if stage.data_path == "small" else ({"a", "c"}, {"b"})

    message = "stage 2: 1 radiographs of large validate, b among them, on which an earlier stage trains, in small"
    with pytest.raises(InputError, match=message):
        train_in_stages(*read_training(recipe()), rows_of)
