"""A training in Amazon SageMaker's container: its folders, hosts and GPUs as flags, its results where it wants them.

SageMaker's training toolkit gives hyperparameters as `--key value` and everything else as variables of the environment.
Flags that are given always win.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path

from xray.errors import InputError
from xray.file_names import CONFIG_FILE, CURVES, MODEL_FILE, VALIDATED, WEIGHTS_FILE
from xray.files import replacing
from xray.flags import flag_value

DATA_CHANNELS = ("TRAINING", "TRAIN", "DATA")
WEIGHTS_CHANNEL = "WEIGHTS"
DEPLOYED = (WEIGHTS_FILE, MODEL_FILE)
COURSE = (CURVES, CONFIG_FILE, VALIDATED)
"""What tells how a training went."""
PORT = "29500"


def is_sagemaker(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this is SageMaker's container."""
    return (
        "SM_MODEL_DIR" in environ or "SM_CURRENT_HOST" in environ or any(n.startswith("SM_CHANNEL_") for n in environ)
    )


def sagemaker_flags(args: Sequence[str], environ: MutableMapping[str, str]) -> list[str]:
    """Flags with what SageMaker says added: --data-path, --save-path, --weights, --devices, --num-nodes, --resume.

    For several hosts, variables for Lightning are added to `environ`: which host this is, and where they meet. A run in
    the folder that SageMaker keeps over interruptions is resumed. Raises InputError for values that cannot be used.
    """
    args = _bare_switches(args)
    if flag_value(args, "data_path") is None:
        args += ["--data-path", str(_data(environ))]
    if flag_value(args, "weights") is None and (weights := environ.get(f"SM_CHANNEL_{WEIGHTS_CHANNEL}")):
        args += ["--weights", str(_weights(Path(weights)))]
    if flag_value(args, "save_path") is None:
        args += ["--save-path", str(_run(environ))]
    save_path = flag_value(args, "save_path") or ""
    is_begun = any((Path(save_path) / name).is_file() for name in (CONFIG_FILE, "stages.yaml"))
    if flag_value(args, "resume") is None and is_begun:
        args.append("--resume")
    hosts = _hosts(environ)
    if flag_value(args, "num_nodes") is None and len(hosts) > 1:
        args += ["--num-nodes", str(len(hosts))]
        environ.setdefault("MASTER_ADDR", hosts[0])
        environ.setdefault("MASTER_PORT", PORT)
        environ.setdefault("NODE_RANK", str(hosts.index(environ["SM_CURRENT_HOST"])))
    gpus = environ.get("SM_NUM_GPUS", "0")
    if not gpus.isdecimal():
        raise InputError(f"SM_NUM_GPUS is {gpus!r}: it must be a number; or give --devices")
    if flag_value(args, "devices") is None and int(gpus) > 1:
        args += ["--devices", gpus]
    _check_model_folder(environ)
    return args


def publish(run: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Puts a run's best model into SM_MODEL_DIR, and its curves into SM_OUTPUT_DATA_DIR; missing files are left out.

    The deployed files of a run are those of its best epoch. Raises OSError where they cannot be written.
    """
    if (model := environ.get("SM_MODEL_DIR")) and all((run / name).is_file() for name in DEPLOYED):
        for name in DEPLOYED:
            _copy(run / name, Path(model) / name)
    if output := environ.get("SM_OUTPUT_DATA_DIR"):
        names = [name for name in COURSE if (run / name).is_file()]
        for name in [*names, *(path.name for path in run.glob("events.out.*"))]:
            _copy(run / name, Path(output) / name)


@contextlib.contextmanager
def failure_reported(environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Writes the line of an error into SageMaker's file `failure`, which its console shows."""
    try:
        yield
    except Exception as error:
        _tell(error, environ)
        raise


def _tell(error: Exception, environ: Mapping[str, str]) -> None:
    message = " ".join(str(error).split())
    if not isinstance(error, InputError):
        # Messages of libraries may contain folders that name a patient.
        message = f"unexpected {type(error).__name__}: the log says more"
    folder = Path(environ.get("SM_OUTPUT_DIR") or _base(environ) / "output")
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "failure").write_text(message[:1024] + "\n")


def _base(environ: Mapping[str, str]) -> Path:
    # The toolkit's own variable for another place, for tests outside of a container.
    return Path(environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml")


def _bare_switches(args: Sequence[str]) -> list[str]:
    """The toolkit writes `--ema True` for a hyperparameter that is on; a switch has no value."""
    plain: list[str] = []
    for arg in args:
        if arg.lower() in ("true", "false") and plain and plain[-1].startswith("--") and "=" not in plain[-1]:
            if arg.lower() == "false":
                plain[-1] = "--no-" + plain[-1].removeprefix("--").replace("_", "-")
        else:
            plain.append(arg)
    return plain


def _data(environ: Mapping[str, str]) -> Path:
    for name in DATA_CHANNELS:
        if folder := environ.get(f"SM_CHANNEL_{name}"):
            return _filled(Path(folder), name.lower())
    others = sorted(name.removeprefix("SM_CHANNEL_").lower() for name in environ if name.startswith("SM_CHANNEL_"))
    has = f"it has {', '.join(others)}" if others else "it has none"
    raise InputError(f"this SageMaker job has no channel training, train or data ({has}): add one, or give --data-path")


def _filled(folder: Path, channel: str) -> Path:
    """Raises InputError unless there is something in the folder of a channel."""
    if not folder.is_dir():
        raise InputError(f"the folder of the channel {channel} is not there ({folder}): see the job's input data")
    if not any(folder.iterdir()):
        raise InputError(f"the channel {channel} is empty ({folder}): see whether its S3 prefix holds the data")
    return folder


def _weights(folder: Path) -> Path:
    """A run directory, or the one file of weights in a channel."""
    folder = _filled(folder, WEIGHTS_CHANNEL.lower())
    if (folder / DEPLOYED[0]).is_file():
        return folder
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".pth", ".pt"))
    if len(files) != 1:
        raise InputError(
            f"the channel {WEIGHTS_CHANNEL.lower()} holds {len(files)} files of weights and no run directory: put one "
            ".pth or .safetensors there, or give --weights"
        )
    return files[0]


def _run(environ: Mapping[str, str]) -> Path:
    """The folder that SageMaker keeps when a spot instance is interrupted, if the job has one; else one beside it."""
    checkpoints = _base(environ) / "checkpoints"
    return (checkpoints if checkpoints.is_dir() else _base(environ)) / "run"


def _hosts(environ: Mapping[str, str]) -> list[str]:
    text = environ.get("SM_HOSTS", "[]")
    try:
        hosts = json.loads(text)
    except ValueError:
        hosts = None
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise InputError(f'SM_HOSTS is {text[:80]!r}: it must be a list such as ["algo-1", "algo-2"]')
    current = environ.get("SM_CURRENT_HOST", "")
    if hosts and current not in hosts:
        raise InputError(f"SM_CURRENT_HOST is {current!r}, which is not in SM_HOSTS ({', '.join(hosts)})")
    # All hosts have the same order; the others meet the first one.
    return sorted(hosts)


def _check_model_folder(environ: Mapping[str, str]) -> None:
    """Raises InputError unless SM_MODEL_DIR can be written: before the training, not after it."""
    if not (folder := environ.get("SM_MODEL_DIR")):
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"SM_MODEL_DIR, {folder}, cannot be written ({error.strerror}): the model would be lost"
        ) from None


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
