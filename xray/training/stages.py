"""A training in stages, as the winners of competitions do it: each starts from the deployed weights of the one before.

A recipe's `stages` is a list; each entry has the flags in which that stage differs from those above, which hold for
all. Every stage is a run directory of its own, RUN/stage-1, RUN/stage-2, …, trained by a process of its own. RUN itself
has the model of the last one at the end.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

from xray.errors import FlagError, InputError
from xray.file_names import CONFIG_FILE
from xray.files import differing
from xray.flags import AUTO, flag_value, require, take_flags
from xray.training.config import TASKS, TrainingConfig
from xray.training.recipes import (
    CHOSEN,
    STAGES,
    config_values,
    joined_swaps,
    parse_training,
    read_training_flags,
    read_yaml,
    task_of,
    yaml_flags,
)

SAVED = "stages.yaml"
"""In RUN: the flags of every stage, and how many are done."""
DONE = "done"
STARTS = ("weights", "encoder_from")
"""Flags of the first stage alone: the others start from the one before."""
FREE = ("save_path", "data_path", "device", "n_workers")
"""Flags that may differ when a training is resumed; a dataset directory may have been moved."""
ONE_NETWORK = (
    "family", "backbone", "head", "fpn_channels", "architecture", "encoder", "in_channels", "depth",
    "deep_supervision", "attention", "network", "target", "anchor_scale", "anchor_ratios",
)  # fmt: skip
"""Flags that are the same in all stages, so that each can start from the one before."""


def read_training(
    args: Sequence[str],
    saved_as: str = CONFIG_FILE,
    beside: Sequence[str] = (),
    begun: Sequence[dict[str, Any]] = (),
) -> tuple[str, TrainingConfig, tuple[TrainingConfig, ...]]:
    """Task and config of a training's flags, and the configs of its stages; none for a training without stages.

    With stages, the config is that of the first, but with RUN as its `save_path`; the stages have folders within RUN.
    saved_as, beside: see `read_training_flags`. begun: all flags of each stage of a training that goes on, for those
    that are "auto" by themselves.
    Raises InputError or FlagError, which names the stage.
    """
    taken, others = take_flags(args, task=None, config=None)
    recipe = read_yaml(Path(taken["config"])) if taken["config"] else {}
    task = task_of(taken["task"], recipe)
    saved = Path(flag_value(others, "save_path") or recipe.get("save_path") or TASKS[task].save_path) / SAVED
    is_resumed = "--resume" in others and saved.is_file()
    if STAGES not in recipe and not is_resumed:
        return *read_training_flags(args, saved_as, beside), ()
    before = read_saved(saved) if is_resumed else {}
    if STAGES not in recipe:
        if taken["config"]:
            raise FlagError(f"--config {taken['config']} has no stages, as {saved.parent} has: leave it out")
        recipe = before
        task = task_of(taken["task"], recipe)
    elif "--resume" in others and not is_resumed:
        raise InputError(f"nothing to resume in {saved.parent}: it has no {SAVED}; start without --resume")
    # Of what is chosen by itself now, an earlier version may have had a value.
    begun = before.get(STAGES, begun)
    config, stages = _configs(task, recipe, others, taken["config"] or str(saved), beside, begun)
    if is_resumed:
        if before.get("task") != task or len(before[STAGES]) != len(stages):
            raise FlagError(f"{saved.parent} was started with other stages: give those, or another --save-path")
        check_same(before[STAGES], stage_values(task, stages), saved.parent)
        require(config.fold == before.get("fold"), "fold", config.fold, f"{before.get('fold')}, as at the start")
        datasets = list(dict.fromkeys(stage.get("data_path") for stage in before[STAGES]))
        if flag_value(others, "data_path") is not None and len(datasets) > 1:
            raise FlagError(
                f"--data-path names one dataset, and the stages of {saved.parent} have "
                f"{' and '.join(map(str, datasets))}: leave it out, or, if they were moved, give --config with the "
                "recipe in which their new places stand"
            )
    return task, config, stages


def has_stages(args: Sequence[str]) -> bool:
    """Whether the recipe that these flags name has stages. Raises InputError where it cannot be read."""
    taken, _ = take_flags(args, config=None)
    return bool(taken["config"]) and STAGES in read_yaml(Path(taken["config"]))


def read_saved(path: Path) -> dict[str, Any]:
    """What `_save` wrote. Raises InputError where it is something else."""
    values = read_yaml(path)
    stages, done = values.get(STAGES), values.get(DONE)
    if values.get("task") not in TASKS or not stages or not isinstance(done, int) or not 0 <= done <= len(stages):
        raise InputError(
            f"{path} is damaged: restore it, or start another run with --weights {path.parent}/stage-N, from the last "
            "stage that has a model.json"
        )
    return values


def check_same(
    before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]], run: Path, free: Collection[str] = FREE
) -> None:
    """Raises FlagError where a flag of a stage is not what the training in `run` was started with.

    free: flags that may differ.
    """
    for number, (was, is_now) in enumerate(zip(before, now, strict=True), 1):
        for name in differing(was, is_now):
            if name not in free:
                raise FlagError(
                    f"stage {number}: --{name.replace('_', '-')} is {is_now.get(name)}, and {run} was started with "
                    f"{was.get(name)}: leave it out, or give another --save-path"
                )


def _configs(
    task: str,
    recipe: dict[str, Any],
    args: Sequence[str],
    file: str,
    beside: Sequence[str],
    begun: Sequence[dict[str, Any]],
) -> tuple[TrainingConfig, tuple[TrainingConfig, ...]]:
    """The checked config of each stage, in RUN/stage-N, and before them that of the first in RUN.

    file: the recipe. begun: as of `read_training`.
    """
    if "resume" in recipe:
        raise FlagError("resume is no flag of a recipe with stages: give --resume on the command line")
    shared = {name: value for name, value in recipe.items() if name not in ("task", STAGES, DONE)}
    configs: list[TrainingConfig] = []
    run = ""
    for number, flags in enumerate(recipe[STAGES], 1):
        for name in flags:
            if name in ("task", "save_path", "resume", "fold"):
                raise FlagError(f"stage {number}: {name.replace('_', '-')} is of all stages: give it above them")
            if name in STARTS and number > 1:
                raise FlagError(f"stage {number}: {name.replace('_', '-')} is of the first stage: others go on from it")
            if name in (STAGES, CHOSEN):
                raise FlagError(f"stage {number}: {name} is no flag of a stage")
        earlier = begun[number - 1] if len(begun) == len(recipe[STAGES]) else {}
        typed = (joined_swaps(args), "")
        try:
            config = parse_training(task, [(joined_swaps(yaml_flags(shared | flags)), file), typed], beside)
            if had := {name: value for name, value in earlier.items() if getattr(config, name, None) == AUTO}:
                config = parse_training(task, [(joined_swaps(yaml_flags(had | shared | flags)), file), typed], beside)
            run = config.save_path
            require(run != "", "save_path", "empty", "given, or left out")
            starts = starts_of(config, str(Path(run) / f"stage-{number - 1}")) if number > 1 else {}
            config = dataclasses.replace(config, save_path=str(Path(run) / f"stage-{number}"), **starts)
            config.check()
        except FlagError as error:
            raise type(error)(f"stage {number}: {error}") from None
        for name in ONE_NETWORK if configs else ():
            value, first = getattr(config, name, None), getattr(configs[0], name, None)
            if value == AUTO != first:
                # It goes on from weights of which this is known.
                known: dict[str, Any] = {name: first}
                config = dataclasses.replace(config, **known)
            elif value != first:
                raise FlagError(
                    f"stage {number}: --{name.replace('_', '-')} is {value}, and {first} in the first stage: all train "
                    "one network"
                )
        if configs:
            counts = [_n_sides(one) for one in (config, configs[0])]
            if counts[0] not in (AUTO, counts[1]):
                raise FlagError(
                    f"stage {number}: the number of --anchor-sides is {counts[0]}, and {counts[1]} in the first stage: "
                    "give as many in each stage, or in none"
                )
        configs.append(config)
    return dataclasses.replace(configs[0], save_path=run), tuple(configs)


def _n_sides(config: TrainingConfig) -> int | str:
    """How many anchor sides a stage was given, or "auto"; 0 of other tasks."""
    sides = getattr(config, "anchor_sides", ())
    return sides if isinstance(sides, str) else len(sides)


def starts_of(config: TrainingConfig, previous: str) -> dict[str, Any]:
    """The flags of initial weights of a stage that is not the first."""
    starts = {"weights": previous, "encoder_from": ""}
    return {name: value for name, value in starts.items() if hasattr(config, name)}


def plain_flags(task: str, config: TrainingConfig, number: int) -> dict[str, Any]:
    """The flags of a stage as YAML has them, but for those that its place decides, and those of all stages."""
    values = config_values(task, config)
    for name in ("task", "save_path", "fold", *(STARTS if number > 1 else ())):
        values.pop(name, None)
    plain: dict[str, Any] = yaml.safe_load(yaml.safe_dump(values))
    return plain


def stage_values(task: str, stages: Sequence[TrainingConfig]) -> list[dict[str, Any]]:
    """The flags of all stages as YAML has them."""
    return [plain_flags(task, config, number) for number, config in enumerate(stages, 1)]


Rows = Callable[[TrainingConfig], tuple[set[str], set[str]]]
"""Checks all that a stage needs before it trains, without training: → ids of the radiographs that train, and that
validate. Raises InputError."""
