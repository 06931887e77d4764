#!/usr/bin/env python
"""The container's entry: `serve` and `train` as SageMaker calls them; anything else is run as it is.

serve    tools/serve.py on the runs in SM_MODEL_DIR, at all addresses, port SAGEMAKER_BIND_TO_PORT or 8080.
         XRAY_SERVE_FLAGS may hold more of its flags, such as "--no-tta --max-megabytes 25"; a flag that stands there
         counts in place of the one given here, and with --weights SM_MODEL_DIR is not looked into.
train    xray/train.py with the hyperparameters of the job as flags; what SageMaker says in files it gets as the
         environment variables that its toolkits set.

SAGEMAKER_BASE_DIR stands for /opt/ml, as in SageMaker's toolkits.
"""

import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BASE = Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml")


def main(arguments: list[str]) -> int:
    """Exit status of what was asked for."""
    match arguments:
        case ["serve"]:
            serve()
        case ["train"]:
            train()
        case []:
            print("error: nothing to do: docker run IMAGE serve, train, or a command", file=sys.stderr)
            return 2
        case [program, *_]:
            try:
                os.execvp(program, arguments)
            except OSError as error:
                print(f"error: {program}: {error.strerror}: give serve, train, or a command", file=sys.stderr)
                return 127
    return 1


def serve() -> None:
    """Becomes the server, so that SIGTERM reaches it."""
    sys.path.insert(0, str(ROOT))
    from xray.errors import InputError
    from xray.serving.runs import runs_in

    port = os.environ.get("SAGEMAKER_BIND_TO_PORT") or "8080"
    flags = ["--host", "0.0.0.0", "--port", port, "--sagemaker"]
    try:
        given = shlex.split(os.environ.get("XRAY_SERVE_FLAGS", ""))
        # Of most flags the last one counts; one of several values is refused where it is given twice.
        if "--weights" not in {flag.partition("=")[0] for flag in given}:
            runs = runs_in(Path(os.environ.get("SM_MODEL_DIR") or BASE / "model"))
            flags = ["--weights", *map(str, runs), *flags]
    except ValueError as error:
        print(f"error: XRAY_SERVE_FLAGS cannot be read ({error}): write flags as in a shell", file=sys.stderr)
        sys.exit(2)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    os.execv(sys.executable, [sys.executable, str(ROOT / "tools" / "serve.py"), *flags, *given])


def train() -> None:
    """Becomes the training, so that SIGTERM reaches it; it leaves its best model, and why it failed, by itself."""
    flags = flags_of(_json("input/config/hyperparameters.json"))
    environment = {**described(), **os.environ}
    os.execve(sys.executable, [sys.executable, str(ROOT / "xray" / "train.py"), *flags], environment)


def described() -> dict[str, str]:
    """SM_ variables, as SageMaker's training toolkit names them, of what it tells a container in files."""
    n_gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    found = {"SM_MODEL_DIR": str(BASE / "model"), "SM_OUTPUT_DATA_DIR": str(BASE / "output" / "data")}
    found["SM_NUM_GPUS"] = str(n_gpus)
    for channel in _json("input/config/inputdataconfig.json"):
        found[f"SM_CHANNEL_{channel.upper()}"] = str(BASE / "input" / "data" / channel)
    resources = _json("input/config/resourceconfig.json")
    hosts = resources.get("hosts") or ["localhost"]
    return found | {"SM_HOSTS": json.dumps(hosts), "SM_CURRENT_HOST": resources.get("current_host") or hosts[0]}


def flags_of(hyperparameters: dict[str, str]) -> list[str]:
    """Flags of xray/train.py: {"n_epochs": "5", "ema": "true"} → --n-epochs 5 --ema.

    Values are text, some of it JSON: SageMaker's SDK writes "resnet50" with its quotes. Its own settings are left out.
    """
    flags = []
    for name, text in sorted(hyperparameters.items()):
        if name.startswith(("sagemaker_", "_")):
            continue
        try:
            value = json.loads(text)
        except (ValueError, TypeError):
            value = text
        flag = "--" + re.sub("_", "-", name)
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, list):
            flags += [flag, *map(str, value)]
        else:
            # As it was written: 1e-4 shall not come out as 0.0001, nor 10 as 10.0.
            flags += [flag, value if isinstance(value, str) else str(text)]
    return flags


def _json(name: str) -> dict[str, Any]:
    try:
        content = json.loads((BASE / name).read_text())
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
