"""The wheel, installed where nothing of a checkout is near: from radiographs to predictions by the command `xray`."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "--backbone",
    "resnet18",
    "--weights",
    "none",
    "--fpn-channels",
    "16",
    "--n-epochs",
    "1",
    "--batch-size",
    "2",
    "--n-workers",
    "0",
    "--device",
    "cpu",
    "--proposals",
    "20",
    "--max-detections",
    "5",
    "--log-step",
    "1",
]


@pytest.fixture(scope="module")
def xray(tmp_path_factory):
    """(arguments) → stdout of the installed command, run in a folder of its own."""
    base = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    # The sources are copied: building leaves folders beside them.
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(base), str(sources(base / "sources"))]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = base.glob("xray-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(base / "env")], check=True)
    python = base / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-index", "--no-deps", str(wheel)], check=True)
    # What xray needs is installed already, elsewhere: gigabytes.
    (site,) = (base / "env" / "lib").glob("python*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    work = base / "elsewhere"
    work.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def call(*args):
        command = [str(base / "env" / "bin" / "xray"), *map(str, args)]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    call.folder, call.python = work, python
    return call


def sources(folder):
    """The files that git knows, without their tests."""
    listed = subprocess.run(
        ["git", "ls-files", "xray", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in listed:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.mark.slow
def test_from_phantoms_to_predictions(xray):
    found = subprocess.run([xray.python, "-c", "import xray; print(xray.__file__)"], cwd=xray.folder,
                           capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert str(xray.folder.parent / "env") in found
    assert "convert" in xray("--help")
    xray("phantoms", "--save-path", "raw", "--trees", "vinbig", "--n-train", 12, "--n-test", 3, "--size", 96)
    xray("convert", "vinbig", "--data-path", "raw/vinbig", "--save-path", "data", "--image-size", 64, "--n-folds", 2)
    xray("train", "--data-path", "data", "--save-path", "run", *SMALL)
    xray("infer", "--weights", "run", "--data-path", "raw/vinbig/test", "--save-path", "out", "--device", "cpu")
    rows = (xray.folder / "out" / "submission.csv").read_text().splitlines()
    assert len(rows) == 4
    xray("evaluate", "--predictions", "run/validation/predictions.json", "--data-path", "data", "--save-path", "report")
    # The report's page is data that the wheel has to hold.
    assert "<html" in (xray.folder / "report" / "report.html").read_text()


@pytest.mark.slow
def test_from_the_folder_above_a_clone_the_package_is_found(tmp_path):
    """Not the clone itself, which is called xray too, and to Python is a namespace package without anything in it."""
    clone = sources(tmp_path / "above" / "xray")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", str(python)]
    install = ["install", "--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed", "-e", str(clone)]
    subprocess.run([*pip, *install], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run([python, "-S", "-c", FOUND], cwd=clone.parent, env={**environment, "SITE": str(site)},
                           capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert found.strip() == str(clone / "xray" / "__init__.py")


FOUND = """\
import os, site, sys
for name in os.listdir(os.environ["SITE"]):
    # Without what the tests themselves have installed.
    if "editable" in name and name.endswith(".pth"):
        site.addpackage(os.environ["SITE"], name, None)
sys.path.append(os.environ["SITE"])
import xray
print(xray.__file__)
"""
