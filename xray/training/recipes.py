"""The flags of a training, from a command line, a YAML recipe and a run's saved config."""

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from xray.errors import FlagError, InputError
from xray.file_names import CONFIG_FILE
from xray.files import read_yaml_text, replacing
from xray.flags import flag_value, parse_flags, require, take_flags
from xray.flags.wrong import nearest
from xray.storage.places import as_given
from xray.structures.sides import NONE
from xray.training.config import TASKS, TrainingConfig

MAX_CHARACTERS = 2**17
"""Longest recipe; PyYAML reads that many in a second or two."""

CHOSEN = "chosen"
"""Of a run's config: sentences about the values that training chose itself. It is no flag."""

STAGES = "stages"
"""Of a recipe: a list of flags, those of each stage, see `xray.training.stages`. It is no flag either."""

KEPT = (
    "ema", "optimizer", "schedule", "weights",
    "family", "backbone", "head", "norm", "trainable_layers", "fpn_channels",
    "anchor_scale", "anchor_sides", "anchor_ratios",
    "architecture", "encoder", "freeze_encoder", "in_channels", "depth", "deep_supervision",
    "attention",
    "network", "target", "monitor", "fold", "swap",
)  # fmt: skip
"""Flags that a resumed run cannot change. Some belong to the model or optimizer in its checkpoint. The others keep its
scores comparable, which decide what is best: with another metric they would begin again, so that a worse model could
replace a better one; on another fold they would come from radiographs that the model was trained on."""

_PLAIN = (str, int, float, bool, datetime.date, type(None))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of flags, names with dashes or underscores, and those of its `stages`.

    Raises InputError if it is missing or not a mapping.
    """
    content = read_yaml_text(path, "config", "the recipes are in configs/", MAX_CHARACTERS)
    if content is None:
        return {}
    is_staged = isinstance(content, dict) and STAGES in content
    stages = content.pop(STAGES) if is_staged else []
    recipe = _flags_of(content, str(path))
    if is_staged:
        if not isinstance(stages, list) or not stages:
            raise InputError(f"{path}: {STAGES} must be a list, of the flags of each stage")
        names = [f"{path}, stage {number}" for number in range(1, len(stages) + 1)]
        recipe[STAGES] = [_flags_of(stage, name) for stage, name in zip(stages, names, strict=True)]
    return recipe


def _flags_of(content: Any, where: str) -> dict[str, Any]:
    """Flags from a mapping in YAML, with underscores. where: the file, for errors."""
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{where} must have one `flag: value` on each line")
    if "help" in content:
        raise InputError(f"{where}: help is no flag of a recipe")
    for key, value in content.items():
        if not key[:1].isalpha():
            raise InputError(f"{where}: {key[:80]!r} is no name of a flag, which has no dashes before it")
        # Nested lists, which may refer to each other, are small in the file and endless as text.
        if not all(isinstance(item, _PLAIN) for item in (value if isinstance(value, list) else [value])):
            raise InputError(f"{where}: {key[:80]} must be one value, or a list of values")
    return {key.replace("-", "_"): value for key, value in content.items()}


def yaml_flags(recipe: dict[str, Any]) -> list[str]:
    """A recipe as command-line flags, so that both are checked by the same parser.

    That parser also reads `lr: 1e-3`, which YAML 1.1 takes for a text.
    """
    flags: list[str] = []
    for key, value in recipe.items():
        if key in ("task", CHOSEN, STAGES):
            continue
        name = "--" + key.replace("_", "-")
        if isinstance(value, bool):
            flags.append(name if value else "--no-" + key.replace("_", "-"))
        elif isinstance(value, list):
            flags += [name, *(str(item) for item in value)]
        elif str(value).startswith("-"):
            flags.append(f"{name}={value}")
        else:
            flags += [name, "" if value is None else str(value)]
    return flags


def joined_swaps(flags: Sequence[str]) -> list[str]:
    """Flags in which all of `--swap A=B`, `--swap=A=B` and `--no-swap` are joined to one `--swap`, at the end."""
    rest: list[str] = []
    swaps: list[str] = []
    open_ended = False
    for flag in flags:
        if flag.startswith("--"):
            open_ended = flag == "--swap"
            if flag == "--no-swap" or flag == "--no_swap":
                swaps.append(NONE)
            elif flag.startswith("--swap="):
                swaps.append(flag.removeprefix("--swap="))
            elif not open_ended:
                rest.append(flag)
        elif open_ended:
            swaps.append(flag)
        else:
            rest.append(flag)
    if "--swap" in flags and not swaps:
        return [*rest, "--swap", ""]
    return [*rest, "--swap", *dict.fromkeys(swaps)] if swaps else rest


def parse_training(
    task: str, parts: Sequence[tuple[Sequence[str], str]], beside: Sequence[str] = (), **tyro_options: Any
) -> TrainingConfig:
    """The config of a task's flags, not checked. parts: flags and the file in which they stand, "" of those that were
    typed, which come last. beside: flags that the command reads by itself."""
    typed = next((some for some, file in parts if not file), ())
    if typed and not typed[0].startswith("-"):
        parts = [(typed, "")]  # after those of a recipe, what follows no flag would be one more value of the last
    flags = [flag for some, _ in parts for flag in some]
    files = [file for some, file in parts if file for _ in some]
    kinds, known = {f"--task {name}": kind for name, kind in TASKS.items()}, ("--task", "--config", *beside)
    config: TrainingConfig = parse_flags(TASKS[task], flags, kinds=kinds, beside=known, files=files, **tyro_options)
    return config


def read_training_flags(
    args: Sequence[str], saved_as: str = CONFIG_FILE, beside: Sequence[str] = ()
) -> tuple[str, TrainingConfig]:
    """`--task`, `--config` and the task's own flags → the task's name and its config, checked.

    Values come, later ones winning, from the defaults, the saved config of a run that is resumed, the YAML of
    `--config`, and the flags. saved_as: the file of that saved config. beside: flags that the command reads by itself.

    Raises InputError or FlagError.
    """
    taken, args = take_flags(args, task=None, config=None)
    recipe = read_yaml(Path(taken["config"])) if taken["config"] else {}
    if STAGES in recipe:
        raise FlagError(
            f"--config {taken['config']} has stages: train and cv take such a recipe, no other command does"
        )
    task = task_of(taken["task"], recipe)
    if (given := flag_value(args, "pseudo")) is not None and (task != "detection" or not given):
        raise FlagError(f"--pseudo is {given!r} of --task {task}: it is for detectors, and must name a directory")
    description = (
        f"{TASKS[task].__doc__}\n\nWhat is trained is chosen by --task {'|'.join(TASKS)} (default: detection; this "
        "help is that of the chosen task). --config FILE.yaml reads flags from a recipe; flags given beside it win."
    )
    flags = [(joined_swaps(yaml_flags(recipe)), str(taken["config"])), (joined_swaps(args), "")]
    config = parse_training(task, flags, beside, description=description)
    if config.resume:
        saved = Path(config.save_path) / saved_as
        if not saved.is_file():
            raise InputError(f"nothing to resume in {config.save_path}: it has no {saved_as}; start without --resume")
        previous = read_yaml(saved)
        if previous.get("task", task) != task:
            raise InputError(
                f"{config.save_path} is a run of task {previous['task']}: resume it with --task {previous['task']}"
            )
        # The run may have been moved since.
        previous["save_path"] = config.save_path
        flags = [(yaml_flags(previous), str(saved)), *flags]
        before = parse_training(task, flags[:1])
        config = parse_training(task, flags, beside)
        # One cycle is laid out over the whole training.
        for name in (*KEPT, "n_epochs") if before.schedule == "onecycle" else KEPT:
            value, old = getattr(config, name, None), getattr(before, name, None)
            require(value == old, name, value, f"{old}, the run was started with it; or start another run")
    config.check()
    return task, config


def task_of(given: str | None, recipe: dict[str, Any]) -> str:
    """The task's name: of `--task`, else of the recipe, else detection. Raises FlagError for one that is unknown."""
    task = str(given or recipe.get("task") or "detection")
    if task not in TASKS:
        meant = nearest(task, [*TASKS]) or f": use one of {', '.join(TASKS)}"
        raise FlagError(f"--task {task} is unknown{meant}")
    return task


def config_values(task: str, config: TrainingConfig) -> dict[str, Any]:
    """What a run's config.yaml says of its flags."""
    values = {"task": task, **dataclasses.asdict(config)}
    # How this process was started does not belong to the run.
    for name in ("resume", "debug"):
        values.pop(name)
    # Nor does the local folder that stands for an s3:// address: another machine has another.
    return values | {name: as_given(value) for name, value in values.items() if isinstance(value, str)}


def save_config(
    path: Path,
    task: str,
    config: TrainingConfig,
    chosen: Sequence[str] = (),
    stages: Sequence[dict[str, Any]] = (),
) -> None:
    """Writes a run's config.yaml, which `--config` reads back.

    chosen: sentences about flags that were "auto", kept under that name; those of the file that is there, if empty.
    stages: the flags of each stage, kept under that name.
    """
    values = config_values(task, config)
    sentences = list(chosen) or (read_yaml(path).get(CHOSEN) if path.is_file() else None)
    if sentences:
        values[CHOSEN] = sentences
    if stages:
        values[STAGES] = list(stages)
    # If the process is killed while writing, the run must not be resumed with half of its flags.
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False))
