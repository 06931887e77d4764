"""Trains a recipe of several stages: each in a folder of the run directory, the next from the weights of the last."""

import contextlib
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from xray.errors import InputError, spelled
from xray.file_names import CONFIG_FILE, CURVES, MODEL_FILE, TRAINED_ON, VALIDATED, WEIGHTS_FILE
from xray.files import differing, make_folder, replacing
from xray.flags import AUTO
from xray.storage.addresses import is_remote
from xray.storage.places import as_given
from xray.training.config import TrainingConfig
from xray.training.recipes import (
    STAGES,
    config_values,
    read_yaml,
    yaml_flags,
)
from xray.training.side_by_side import EXIT_TERMINATED, Work, run_all
from xray.training.stages import DONE, SAVED, STARTS, Rows, plain_flags, read_saved, stage_values, starts_of

FINAL = (WEIGHTS_FILE, CURVES, CONFIG_FILE, TRAINED_ON, VALIDATED, MODEL_FILE)
"""The files that RUN gets from the last stage; model.json, which marks a run as trained, comes last."""


def train_in_stages(task: str, config: TrainingConfig, stages: Sequence[TrainingConfig], rows_of: Rows) -> int:
    """Trains the stages that are not done, one after another. config, stages: of `read_training`.

    All of them are checked before the first trains. Returns the exit status: 143 where SIGTERM stopped a stage, after
    it saved a checkpoint. Raises InputError where one failed.
    """
    run = Path(config.save_path)
    if any(one.num_nodes > 1 for one in (config, *stages)) or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "stages start their trainings themselves, on one machine: start them without torchrun or srun, and without "
            "--num-nodes; or train each by itself, with --weights RUN of the one before"
        )
    stages = [_here(stage, config, number) for number, stage in enumerate(stages, 1)]
    saved = run / SAVED
    done = read_saved(saved)[DONE] if saved.is_file() else 0
    if done < len(stages):
        _check_all(stages, done, rows_of)
    make_folder(run)
    _save(saved, task, stages, done)
    go_on = f"continue with {spelled('train')} --save-path {run} --resume"
    for number, stage in enumerate(stages, 1):
        name = f"stage {number} of {len(stages)}"
        if number <= done:
            print(f"{name} is done: {stage.save_path}")
            continue
        print(f"\n{name}, in {stage.save_path}: {_in_words(task, stages, number)}")
        command = _command(task, stage, stages[number - 2] if number > 1 else None)
        status, _ = run_all([Work(name, (command,))], [{}], lambda *_: None)
        if status == EXIT_TERMINATED:
            print(f"{name} was stopped by SIGTERM: {go_on}", file=sys.stderr)
            return EXIT_TERMINATED
        if status:
            how = f"by signal {-status}" if status < 0 else f"with status {status}, as its own message above says"
            if number == 1 and status > 0 and not (Path(stage.save_path) / CONFIG_FILE).is_file():
                _forget(run)
                raise InputError(
                    f"{name} ended {how}, before it trained: correct the cause, then start again without --resume"
                )
            raise InputError(f"{name} ended {how}: {go_on}")
        _save(saved, task, stages, number)
    _deploy(Path(stages[-1].save_path), run)
    print(f"\nall {len(stages)} stages are done, and {run} has the model of the last one; next:")
    print(f"  {spelled('infer')} --weights {run} --data-path RADIOGRAPHS --save-path OUT")
    return 0


def _here(stage: TrainingConfig, config: TrainingConfig, number: int) -> TrainingConfig:
    """A stage with folders of this machine, which `config` has in place of s3:// addresses.

    Raises InputError for an address that is not in `config`, too.
    """
    run = Path(config.save_path)
    paths: dict[str, Any] = {"save_path": str(run / f"stage-{number}")}
    if number == 1:
        paths |= {name: getattr(config, name) for name in ("data_path", *STARTS) if hasattr(config, name)}
    else:
        paths |= starts_of(stage, str(run / f"stage-{number - 1}"))
        if is_remote(stage.data_path):
            if as_given(config.data_path) != stage.data_path:
                raise InputError(
                    f"stage {number}: --data-path is {stage.data_path}: a stage with a dataset of its own reads it "
                    "from a folder, so copy it to this machine first"
                )
            paths["data_path"] = config.data_path
    return dataclasses.replace(stage, **paths)


def _check_all(stages: Sequence[TrainingConfig], done: int, rows_of: Rows) -> None:
    """Raises InputError where a stage cannot train, or validates on radiographs that an earlier one trains on.

    The dataset of a stage that is done may be gone.
    """
    trained: dict[str, str] = {}
    for number, stage in enumerate(stages, 1):
        try:
            # What is not there yet cannot be read: the stage before writes it.
            starts: dict[str, Any] = {"weights": "none"} if number > 1 and hasattr(stage, "weights") else {}
            training, validating = rows_of(dataclasses.replace(stage, **starts))
        except InputError as error:
            if number <= done:
                print(f"stage {number} is done, and is not checked again: {error}")
                continue
            raise type(error)(f"stage {number}: {error}") from None
        leaked = validating & trained.keys()
        if leaked:
            raise InputError(
                f"stage {number}: {len(leaked)} radiographs of {stage.data_path} validate, {min(leaked)} among them, "
                f"on which an earlier stage trains, in {trained[min(leaked)]}: convert both datasets from the same "
                "source with the same --n-folds, --seed and --patients, or name what validates with --fold"
            )
        trained |= dict.fromkeys(training, stage.data_path)


def _save(path: Path, task: str, stages: Sequence[TrainingConfig], done: int) -> None:
    values = {"task": task, "fold": stages[0].fold, DONE: done, STAGES: stage_values(task, stages)}
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False))


def _forget(run: Path) -> None:
    """Removes what a training wrote whose first stage never began, so that it can be started with other flags."""
    (run / SAVED).unlink(missing_ok=True)
    for folder in (run / "stage-1", run):
        # One that holds anything stays.
        with contextlib.suppress(OSError):
            folder.rmdir()


def _in_words(task: str, stages: Sequence[TrainingConfig], number: int) -> str:
    """What a stage starts from, and which flags differ from those of the one before."""
    if number == 1:
        return f"{stages[0].n_epochs} epochs on {as_given(stages[0].data_path)}"
    before, now = (plain_flags(task, stages[place], 2) for place in (number - 2, number - 1))
    changes = ", ".join(f"{name.replace('_', '-')} {now[name]}" for name in differing(before, now))
    return f"from stage {number - 1}" + (f", with {changes}" if changes else "")


def _command(task: str, stage: TrainingConfig, previous: TrainingConfig | None) -> tuple[str, ...]:
    """The training of a stage, or its continuation."""
    places = ("--save-path", stage.save_path, "--device", stage.device, "--n-workers", str(stage.n_workers))
    debug = ("--debug",) if stage.debug else ()
    if (Path(stage.save_path) / CONFIG_FILE).is_file():
        # It knows its other flags, and which values were found for those that are chosen by themselves.
        return ("train", "--task", task, "--resume", "--data-path", stage.data_path, *places, *debug)
    values = yaml.safe_load(yaml.safe_dump(config_values(task, stage)))
    values |= {"data_path": stage.data_path, "save_path": stage.save_path}
    values |= {name: getattr(stage, name) for name in STARTS if hasattr(stage, name)}
    if previous is not None and values.get("anchor_sides") == AUTO:
        values |= _anchors_of(previous, stage)
    given = {name: value for name, value in values.items() if value != ""}
    return ("train", "--task", task, *yaml_flags(given), *debug)


def _anchors_of(previous: TrainingConfig, stage: TrainingConfig) -> dict[str, Any]:
    """The anchors of a detector's stage that is done, on the canvas of the next: other ones would need other heads."""
    from xray.datasets.store import open_store

    chosen = read_yaml(Path(previous.save_path) / CONFIG_FILE)
    # Its dataset may be gone by now.
    before = json.loads((Path(previous.save_path) / MODEL_FILE).read_text())["canvas_size"]
    now = open_store(Path(stage.data_path), pixels=False).canvas_size
    sides = [side * now / before for side in chosen["anchor_sides"]]
    return {"anchor_scale": 1.0, "anchor_sides": sides, "anchor_ratios": chosen["anchor_ratios"]}


def _deploy(last: Path, run: Path) -> None:
    """Copies the deployed model of the last stage into RUN, with its curves and validation.

    Raises InputError where the stage has lost it, and RUN has none yet.
    """
    lacking = [name for name in (WEIGHTS_FILE, CONFIG_FILE, MODEL_FILE) if not (last / name).is_file()]
    if lacking and (run / MODEL_FILE).is_file():
        return
    if lacking:
        raise InputError(
            f"{last} has no {lacking[0]}, though its training is done: restore it, or start another run with "
            "--weights of the stage before"
        )
    for name in FINAL:
        if (last / name).is_file():
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            with replacing(run / name) as temporary:
                shutil.copyfile(last / name, temporary)
