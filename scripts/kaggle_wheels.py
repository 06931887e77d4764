"""Makes the folder from which notebooks/kaggle.ipynb installs xray without a network, to be uploaded to Kaggle.

    python scripts/kaggle_wheels.py --save-path xray-offline --python 3.11

It holds a wheel of xray, the wheels of all that xray needs but torch and torchvision, which Kaggle's image has, in the
versions installed beside this script, and checkout/: the commands and their recipes, of which a wheel has none. pip
takes of the wheels what is missing there or too old. --weights FILE puts files of initial weights beside them.
"""

import argparse
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHECKOUT = ("xray", "tools", "configs", "setup.cfg", "pyproject.toml", "LICENSE")
THERE = ("torch", "torchvision", "triton", "nvidia-", "cuda-")
"""What Kaggle's image has, in builds that fit its GPUs."""


def needed() -> dict[str, str]:
    """Canonical name → version of all that xray needs and that Kaggle's image may lack, as installed here."""
    # In .venv, where the Makefile installed the pins. packaging comes with what xray needs.
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    waiting = ["xray"]
    while waiting:
        for requirement in map(Requirement, importlib.metadata.requires(waiting.pop()) or ()):
            name = canonicalize_name(requirement.name)
            is_wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if is_wanted and name not in found and not name.startswith(THERE):
                found[name] = importlib.metadata.version(name).partition("+")[0]
                waiting.append(name)
    return found


def build(save_path: Path) -> Path:
    """A wheel of xray in `save_path`; built of a copy, so that nothing is left in the checkout."""
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "source"
        copy_checkout(source)
        shutil.copy(ROOT / "README.md", source)
        pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(save_path), str(source))
    (wheel,) = save_path.glob("xray-*.whl")
    return wheel


def copy_checkout(to: Path) -> None:
    """What the commands need: xray, tools, configs."""
    for name in CHECKOUT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, to)


def pip(*arguments: str) -> None:
    """Runs this Python's pip. Raises CalledProcessError."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    subprocess.run(command, check=True)


def main() -> int:
    """Makes the folder, complete or not at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save-path", type=Path, required=True, help="folder to make")
    own = "{}.{}".format(*sys.version_info)
    parser.add_argument("--python", default=own, help=f"Python of Kaggle's image, as sys.version says (default: {own})")
    parser.add_argument("--platform", default="manylinux_2_28_x86_64", help="of Kaggle's image (default: %(default)s)")
    parser.add_argument("--weights", type=Path, nargs="*", default=[], help="files of initial weights to put beside")
    parser.add_argument("--no-deps", action="store_true", help="only xray's own wheel and the checkout")
    arguments = parser.parse_args()
    if not re.fullmatch(r"3\.\d{1,2}", arguments.python):
        parser.error(f"--python {arguments.python}: give it as 3.11")
    if missing := [path for path in arguments.weights if not path.is_file()]:
        parser.error(f"--weights {missing[0]}: no such file")
    target = arguments.save_path
    if target.exists():
        parser.error(f"--save-path {target} exists already: give another, or delete it")
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        wheel = build(part)
        copy_checkout(part / "checkout")
        if not arguments.no_deps:
            pins = [f"{name}=={version}" for name, version in sorted(needed().items())]
            older = ["--platform", "manylinux_2_17_x86_64", "--platform", "manylinux2014_x86_64"]
            where = ["--python-version", arguments.python, "--platform", arguments.platform, *older]
            pip("download", "--no-deps", "--only-binary=:all:", *where, "--dest", str(part), *pins)
        for path in arguments.weights:
            shutil.copy(path, part)
        part.rename(target)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(part, ignore_errors=True)
        print(f"error: pip failed (status {error.returncode}), its own words are above", file=sys.stderr)
        return 1
    n = len(list(target.glob("*.whl")))
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{n} wheels ({wheel.name} among them) and the checkout, {size / 2**20:.0f} MiB: {target}")
    print(f"upload it with: kaggle datasets init -p {target}; kaggle datasets create -p {target} --dir-mode zip")
    return 0


if __name__ == "__main__":
    sys.exit(main())
