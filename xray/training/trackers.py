"""Where the curves and pictures of a training go: TensorBoard, a CSV table, Weights & Biases, MLflow.

TensorBoard and the table are files of the run directory, and a disk that is full ends the training. Weights & Biases
and MLflow are kept elsewhere: whether they answer is checked before the training begins; later failures are reported
and counted, and the training goes on.
"""

import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger

from xray.errors import InputError, need
from xray.files import replacing
from xray.training.config import TRACKERS_FILE, TrainingConfig
from xray.training.recipes import config_values
from xray.training.step_table import StepTable

EXPERIMENT = "xray"
"""The experiment of MLflow, or project of Weights & Biases, where neither a flag nor the environment names one."""
PAUSE = 60.0
"""Seconds after a failure in which a tracker is not asked again: an unreachable tracker must not slow the training."""
TITLES = {"wandb": "Weights & Biases", "mlflow": "MLflow"}
_PATHS = ("data_path", "save_path", "weights", "encoder_from", "pseudo")
_PARAMETER = 250
"""Characters of a parameter that Lightning gives to MLflow."""
_LONGEST = 300
"""Characters of another program's message that ours repeats."""


class Tracker(Logger):
    """A logger of Lightning for a service that may fail at any time: the training goes on without it.

    The first failure is reported on stderr. Lost entries are counted, and the count is printed when the training ends.
    """

    def __init__(self, inner: WandbLogger | MLFlowLogger, title: str) -> None:
        super().__init__()
        self.inner, self.title, self.lost = inner, title, 0
        self._asks_again = -float("inf")

    @property
    def name(self) -> str | None:
        """The name of the experiment or project."""
        return self.inner.name

    @property
    def version(self) -> str | int | None:
        """The tracker's id of the run."""
        return self.inner.version

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Logs scalars of one step."""
        if isinstance(self.inner, MLFlowLogger):
            metrics = {mlflow_name(name): value for name, value in metrics.items()}
        self._attempt(lambda: self.inner.log_metrics(metrics, step))

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Logs the flags of the training."""
        self._attempt(lambda: self._log_hyperparams(params))

    def log_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """picture: (H, W, 3) uint8."""
        inner = self.inner
        if isinstance(inner, WandbLogger):
            self._attempt(lambda: inner.log_image(name, [picture], step))
        else:
            key = mlflow_name(name)
            self._attempt(
                lambda: inner.experiment.log_image(inner.run_id, picture, key=key, step=step, synchronous=True)
            )

    def finalize(self, status: str) -> None:
        """Ends the run in the tracker, and prints how many entries are missing."""
        # Entries of the last minutes that could not be sent are tried once more.
        self._asks_again = -float("inf")
        self._attempt(lambda: self._end(status), is_entry=False)
        if self.lost:
            print(
                f"{self.title}: {self.lost} entries could not be logged there; metrics.csv of the run has every epoch",
                file=sys.stderr,
            )

    def _log_hyperparams(self, params: dict[str, Any]) -> None:
        inner = self.inner
        if isinstance(inner, MLFlowLogger):
            # Parameters of MLflow never change. What a resumed run changed, --n-epochs most often, becomes a tag.
            before = inner.experiment.get_run(inner.run_id).data.params
            for name in before.keys() & params.keys():
                if before[name] != str(params[name])[:_PARAMETER]:
                    inner.experiment.set_tag(inner.run_id, f"resumed.{name}", str(params[name]))
            params = {name: value for name, value in params.items() if name not in before}
        inner.log_hyperparams(params)

    def _end(self, status: str) -> None:
        self.inner.finalize(status)
        if isinstance(self.inner, WandbLogger):
            # The next training of this process has a run of its own.
            self.inner.experiment.finish(exit_code=0 if status in ("success", "finished") else 1)

    def _attempt(self, call: Callable[[], Any], is_entry: bool = True) -> None:
        if time.monotonic() < self._asks_again:
            self.lost += is_entry
            return
        try:
            call()
        except Exception as error:
            if not self.lost:
                print(f"{self.title} failed, the training goes on: {_message_of(error)}", file=sys.stderr)
            self.lost += is_entry
            self._asks_again = time.monotonic() + PAUSE


def check_trackers(config: TrainingConfig) -> None:
    """Raises InputError where the package of a tracker of `--logger` is missing."""
    for name, extra in (("wandb", "wandb"), ("mlflow", "mlflow")):
        if name in config.logger:
            need(f"--logger {name}", extra, name)


def build_loggers(
    config: TrainingConfig, task: str, run: Path, is_first: bool, steps_done: int | None = None
) -> list[Logger]:
    """The loggers of `--logger`, those of trackers with a run that is open there.

    run: the run directory; its trackers.json names the runs there, which a resumed training continues.
    is_first: whether this process is the one that logs.
    steps_done: optimizer steps of a run that is resumed; later points in TensorBoard and the table are replaced.

    Raises InputError where a tracker does not answer, or has no such run any more; nothing was trained then.
    """
    known = _read_known(run) if config.resume else {}
    loggers: list[Logger] = []
    try:
        for name in dict.fromkeys(config.logger):
            if name == "tensorboard":
                loggers.append(TensorBoardLogger(run, name="", version="", purge_step=steps_done))
            elif not is_first:
                loggers.append(DummyLogger())
            elif name == "csv":
                loggers.append(StepTable(run, steps_done))
            else:
                start = _start_mlflow if name == "mlflow" else _start_wandb
                tracker, known[name] = start(config, run, known.get(name, {}))
                loggers.append(tracker)
                tracker.log_hyperparams(hyperparameters(task, config))
    except InputError:
        for tracker in (one for one in loggers if isinstance(one, Tracker)):
            tracker.finalize("failed")
        raise
    if is_first and known:
        run.mkdir(parents=True, exist_ok=True)
        with replacing(run / TRACKERS_FILE) as temporary:
            temporary.write_text(json.dumps(known, indent=1))
    if is_first and config.n_pictures and set(config.logger) == {"csv"}:
        print("--logger csv holds numbers only: pictures of the validation are not drawn")
    return loggers


def log_picture(logger: Logger, name: str, picture: np.ndarray, step: int) -> None:
    """Gives (H, W, 3) uint8 to a logger; a table has no place for it."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, picture, step, dataformats="HWC")
    elif isinstance(logger, Tracker):
        logger.log_picture(name, picture, step)


def holds_pictures(logger: Logger) -> bool:
    """Whether `log_picture` has a use for this logger."""
    return isinstance(logger, TensorBoardLogger | Tracker)


def hyperparameters(task: str, config: TrainingConfig) -> dict[str, Any]:
    """The flags as a tracker gets them: of paths the last name alone, as folders often have the names of people."""
    values = {name: value for name, value in config_values(task, config).items() if name != "tracking_uri"}
    return values | {name: Path(values[name]).name for name in _PATHS if values.get(name)}


def mlflow_name(name: str) -> str:
    """A metric's name in the characters that MLflow takes: other letters become their code, other signs an
    underscore."""
    return re.sub(r"[^a-zA-Z0-9_/. -]", lambda sign: f"u{ord(sign[0]):04x}" if sign[0].isalnum() else "_", name)


def _start_mlflow(config: TrainingConfig, run: Path, known: dict[str, str]) -> tuple[Tracker, dict[str, str]]:
    # By default MLflow reports its use to its makers, and asks an unreachable server for minutes.
    for variable, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "30"),
    ):
        os.environ.setdefault(variable, value)
    logging.getLogger("lightning.pytorch.loggers.mlflow").setLevel(logging.ERROR)

    from mlflow.tracking import get_tracking_uri

    uri = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or known.get("tracking_uri")
    # A store that MLflow chooses itself, a file in this folder, where nobody says which.
    uri = uri or get_tracking_uri()
    experiment = config.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    run_id = known.get("run_id")
    shown = without_secrets(uri)
    try:
        inner = MLFlowLogger(experiment, os.environ.get("MLFLOW_RUN_NAME") or run.resolve().name, uri, run_id=run_id)
        # Opens the run there, or finds it again.
        client, run_id = inner.experiment, inner.run_id
        if known:
            client.update_run(run_id, status="RUNNING")
    except Exception as error:
        if known and getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            raise InputError(
                f"--logger mlflow: {shown} has no run {run_id}, which {run / TRACKERS_FILE} names: give the "
                "--tracking-uri that the run began with, or delete that file to begin another one there"
            ) from error
        raise InputError(
            f"--logger mlflow: {shown} cannot be used: {_message_of(error)}; see that its server runs, or give another "
            "--tracking-uri (http://HOST:PORT; files and databases need the whole package: pip install mlflow)"
        ) from error
    print(f"MLflow: run {run_id} at {shown}")
    # An address with a name or a password stays in the environment.
    return Tracker(inner, TITLES["mlflow"]), {"run_id": str(run_id)} | ({"tracking_uri": uri} if shown == uri else {})


def _start_wandb(config: TrainingConfig, run: Path, known: dict[str, str]) -> tuple[Tracker, dict[str, str]]:
    # Its reports of errors hold paths of this machine.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

    import wandb

    run.mkdir(parents=True, exist_ok=True)
    inner = WandbLogger(
        name=os.environ.get("WANDB_NAME") or run.resolve().name,
        save_dir=run,
        id=known.get("run_id"),
        project=config.experiment or os.environ.get("WANDB_PROJECT") or EXPERIMENT,
        # Printed lines may name radiographs.
        settings=wandb.Settings(console="off", quiet=True, save_code=False, disable_git=True),
    )
    try:
        opened = inner.experiment
    except Exception as error:
        with contextlib.suppress(OSError):
            run.rmdir()
        raise InputError(
            f"--logger wandb: Weights & Biases cannot begin: {_message_of(error)}; log in with wandb login, or keep "
            "the run here with WANDB_MODE=offline and send it later with wandb sync"
        ) from error
    print(f"Weights & Biases: run {opened.id} at {opened.url or opened.dir}")
    return Tracker(inner, TITLES["wandb"]), {"run_id": str(opened.id)}


def _read_known(run: Path) -> dict[str, dict[str, str]]:
    """What trackers.json says: tracker → run_id and, of MLflow, tracking_uri."""
    path = run / TRACKERS_FILE
    if not path.is_file():
        return {}
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}): restore it, or delete it") from None
    is_table = isinstance(known, Mapping) and all(
        isinstance(facts, Mapping) and all(isinstance(value, str) for value in facts.values())
        for facts in known.values()
    )
    if not is_table:
        raise InputError(f"{path} is damaged: it must name a run_id for each tracker; restore it, or delete it")
    return {name: dict(facts) for name, facts in known.items()}


def without_secrets(text: str) -> str:
    """Text without the NAME:PASSWORD@ of addresses."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)


def _message_of(error: BaseException) -> str:
    """The message of another program on one line."""
    text = " ".join(without_secrets(str(error)).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"
