"""Flags, YAML recipes and saved configs of training, and the range of every value."""

import ast
import dataclasses
import inspect

import pytest
import yaml

from xray.commands.infer import Config
from xray.errors import FlagError, InputError, UnreadFlagsError
from xray.file_names import CONFIG_FILE
from xray.training.config import DetectionConfig, TrainingConfig
from xray.training.recipes import read_training_flags, read_yaml, save_config


def write_recipe(folder, text):
    path = folder / "recipe.yaml"
    path.write_text(text)
    return str(path)


def started_run(folder, **values):
    """A run directory of which only the saved config matters."""
    folder.mkdir(parents=True)
    save_config(folder / CONFIG_FILE, "detection", DetectionConfig(save_path=str(folder), **values))
    return folder


def test_defaults_are_a_complete_command():
    task, config = read_training_flags(["--device", "cuda", "--n-epochs", "100"])
    assert task == "detection"
    assert config == DetectionConfig(device="cuda", n_epochs=100)
    assert (config.data_path, config.save_path) == ("data/vinbig", "runs/detection")


def test_a_recipe_is_read_as_flags(tmp_path):
    path = write_recipe(
        tmp_path,
        "task: detection\nlr: 1e-3\nbatch-size: 4\nn_epochs: 7\nema: true\ndevice: cpu\nweights: none\n"
        "weight-decay: 5.0e-4\nprecision: 32\nsave_path: runs/with a space\n",
    )
    expected = DetectionConfig(
        lr=0.001, batch_size=4, n_epochs=7, ema=True, device="cpu", weights="none", weight_decay=5e-4, precision="32",
        save_path="runs/with a space",
    )  # fmt: skip
    # YAML 1.1 takes 1e-3 for a text.
    assert read_yaml(tmp_path / "recipe.yaml")["lr"] == "1e-3"
    assert read_training_flags(["--config", path]) == ("detection", expected)
    assert read_training_flags([f"--config={path}", "--task=detection"]) == ("detection", expected)


@pytest.mark.parametrize("flags", [["--lr", "0.5", "--no-ema"], ["--lr=0.5", "--no_ema"]])
def test_flags_win_over_the_recipe_on_either_side_of_it(tmp_path, flags):
    path = write_recipe(tmp_path, "lr: 0.1\nema: true\nseed: 3\n")
    for args in (["--config", path, *flags], [*flags, "--config", path]):
        _, config = read_training_flags(args)
        assert (config.lr, config.ema, config.seed) == (0.5, False, 3)


def test_an_empty_recipe_changes_nothing(tmp_path):
    assert read_training_flags(["--config", write_recipe(tmp_path, "# nothing yet\n")])[1] == DetectionConfig()


@pytest.mark.parametrize(
    ("recipe", "named"),
    [("learning_rate: 1", "--learning-rate"), ("lr: fast", "--lr"), ("family: yolo", "--family"), ("ema: 3", "3")],
)
def test_wrong_keys_and_values_of_a_recipe_are_named(tmp_path, recipe, named):
    with pytest.raises(UnreadFlagsError, match=named):
        read_training_flags(["--config", write_recipe(tmp_path, recipe)])


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("- lr\n- 1\n", "one `flag: value` on each line"),
        ("lr: [1\n", "is not YAML"),
        ("1: 2\n", "one `flag: value` on each line"),
        ("lr: !!python/object/apply:os.getcwd []\n", "is not YAML"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path, recipe, message):
    with pytest.raises(InputError, match=message):
        read_training_flags(["--config", write_recipe(tmp_path, recipe)])


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no config at .*none\.yaml"):
        read_training_flags(["--config", str(tmp_path / "none.yaml")])


@pytest.mark.parametrize("flag", ["--config", "--task"])
def test_a_flag_without_its_value(flag):
    with pytest.raises(FlagError, match=f"{flag} needs a value"):
        read_training_flags(["--lr", "1", flag])


def test_an_unknown_task_is_refused():
    with pytest.raises(FlagError, match="--task diagnosis is unknown: use one of detection"):
        read_training_flags(["--task", "diagnosis"])


def test_a_saved_config_reads_back(tmp_path):
    config = DetectionConfig(
        lr=3e-5, ema=True, weights="coco", data_path="1234", save_path="null", device="cpu", score_threshold=1e-7,
        precision="16", clip_grad=2.0, debug=True,
    )  # fmt: skip
    save_config(tmp_path / CONFIG_FILE, "detection", config)
    content = yaml.safe_load((tmp_path / CONFIG_FILE).read_text())
    assert content["task"] == "detection"
    # How a process was started is no property of the run.
    assert {"resume", "debug"}.isdisjoint(content)
    task, again = read_training_flags(["--config", str(tmp_path / CONFIG_FILE)])
    assert (task, again) == ("detection", dataclasses.replace(config, debug=False))


def test_a_resumed_run_keeps_its_values_unless_flags_change_them(tmp_path):
    run = started_run(tmp_path / "run", lr=0.03, ema=True, n_epochs=5, fold=2, backbone="resnet18")
    _, config = read_training_flags(["--save-path", str(run), "--resume", "--n-epochs", "9"])
    expected = DetectionConfig(
        save_path=str(run), resume=True, lr=0.03, ema=True, n_epochs=9, fold=2, backbone="resnet18"
    )
    assert config == expected
    recipe = write_recipe(tmp_path, "n_epochs: 9\nresume: true\n")
    assert read_training_flags(["--config", recipe, "--save-path", str(run)])[1] == expected


def test_a_run_that_was_moved_is_resumed_where_it_is(tmp_path, monkeypatch):
    started_run(tmp_path / "old", lr=0.03)
    (tmp_path / "runs").mkdir()
    (tmp_path / "old").rename(tmp_path / "runs" / "detection")
    monkeypatch.chdir(tmp_path)
    _, config = read_training_flags(["--resume"])
    assert (config.save_path, config.lr) == ("runs/detection", 0.03)


def test_a_resumed_run_keeps_its_model(tmp_path):
    run = started_run(tmp_path / "run", backbone="resnet18", head="v1", optimizer="sgd")
    for flags in (
        ["--backbone", "resnet34"],
        ["--fpn-channels", "64"],
        ["--head", "v2"],
        ["--optimizer", "adam"],
        ["--no-ema"],
        # Scores by another metric, or of radiographs trained on, cannot be compared with the best so far.
        ["--monitor", "coco_ap"],
        ["--fold", "1"],
    ):
        name = flags[0].replace("--no-", "--")
        with pytest.raises(FlagError, match=f"{name} is .* the run was started with it"):
            read_training_flags(["--save-path", str(run), "--resume", *flags])
    # One cycle is laid out over the whole training; the other schedules can be continued.
    cycle = started_run(tmp_path / "cycle", schedule="onecycle", n_epochs=5)
    with pytest.raises(FlagError, match="--n-epochs is 9: it must be 5"):
        read_training_flags(["--save-path", str(cycle), "--resume", "--n-epochs", "9"])
    # The same value is no change.
    assert read_training_flags(["--save-path", str(run), "--resume", "--backbone", "resnet18"])[1].head == "v1"


def test_nothing_to_resume(tmp_path):
    with pytest.raises(InputError, match=r"nothing to resume in .*: it has no config.yaml; start without --resume"):
        read_training_flags(["--save-path", str(tmp_path), "--resume"])


def test_a_run_of_another_task_is_not_resumed(tmp_path):
    (tmp_path / CONFIG_FILE).write_text("task: segmentation\nencoder: resnet34\n")
    with pytest.raises(InputError, match="is a run of task segmentation: resume it with --task segmentation"):
        read_training_flags(["--save-path", str(tmp_path), "--resume"])


OUT_OF_RANGE = {
    "n_epochs": [0, -3], "batch_size": [0], "lr": [0, -1, float("nan")], "momentum": [-0.1, 1], "flip": [-0.1, 1.1],
    "weight_decay": [-1e-9], "step_size": [0], "gamma": [0, 1.5], "warmup_steps": [-1], "clip_grad": [-1],
    "accumulate": [0], "ema_decay": [0, 1], "device": ["gpu", "cuda:0"], "devices": [0], "num_nodes": [0],
    "n_workers": [-1], "fold": [-1], "distortion": [-0.1, 1.1], "seed": [-1], "log_step": [0], "early_stop": [-1],
    "val_every": [0], "n_pictures": [-1], "trainable_layers": [-1, 6], "fpn_channels": [7], "anchor_scale": [0],
    "repeat_threshold": [-0.1, 1.1], "normals": [-0.1, 1.1], "rpn_samples": [0], "proposals": [1], "roi_samples": [0],
    "score_threshold": [-0.1, 1], "max_detections": [0], "save_every_n_steps": [-1], "skip_bad_steps": [-1],
    "pseudo_share": [-0.1, 0, 1.5], "average_best": [-1, 101],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in OUT_OF_RANGE.items() for value in values]
)
def test_a_value_out_of_range_is_refused_and_named(name, value):
    with pytest.raises(FlagError, match=rf"^--{name.replace('_', '-')} is {value}: (it must be|give) "):
        DetectionConfig(**{name: value}).check()


def test_every_number_has_a_range():
    numbers = {field.name for field in dataclasses.fields(DetectionConfig) if type(field.default) in (int, float)}
    assert numbers <= OUT_OF_RANGE.keys()


@pytest.mark.parametrize(
    "values",
    [
        {"lr": 1e-12, "momentum": 0, "gamma": 1, "weight_decay": 0, "warmup_steps": 0, "trainable_layers": 0},
        {"n_workers": 0, "n_pictures": 0, "repeat_threshold": 0, "normals": 0, "score_threshold": 0},
        {"weights": "coco", "backbone": "resnet50", "head": "v2"},
    ],
)
def test_the_ends_of_ranges_are_allowed(values):
    DetectionConfig(**values).check()


@pytest.mark.parametrize("values", [{"backbone": "resnet18"}, {"fpn_channels": 128}])
def test_coco_weights_ask_for_their_architecture(values):
    with pytest.raises(FlagError, match="--weights is coco: it must be used with --backbone resnet50"):
        DetectionConfig(weights="coco", **values).check()


def test_flags_are_checked_before_anything_is_done():
    with pytest.raises(FlagError, match="--batch-size is 0"):
        read_training_flags(["--batch-size", "0"])


@pytest.mark.parametrize("config", [TrainingConfig, DetectionConfig, Config])
def test_every_field_has_a_help_text(config):
    body = ast.parse(inspect.getsource(config)).body[0].body
    for statement, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            text = getattr(getattr(after, "value", None), "value", None)
            assert isinstance(text, str), f"{config.__name__}.{statement.target.id}"
            assert len(text) > 10
            assert text.endswith(".")
    assert config.__doc__


def test_help_shows_every_flag(capsys):
    with pytest.raises(SystemExit) as ended:
        read_training_flags(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(DetectionConfig):
        assert f"--{field.name.replace('_', '-')} " in shown.replace(",", " "), field.name
    words = " ".join(shown.replace("│", " ").split())
    assert "Factor of each reduction of the learning rate" in words
    assert "--task" in words
    assert "--config FILE.yaml" in words


def test_distortion_needs_an_augmentation():
    with pytest.raises(FlagError, match=r"--distortion is 0\.3: it must be 0 with --augment none"):
        DetectionConfig(distortion=0.3, augment="none").check()
    DetectionConfig(distortion=0.3, augment="light").check()
