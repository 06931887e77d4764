"""The Kaggle notebook, executed on phantoms; what is committed of it; and the folder it installs from."""

import base64
import csv
import functools
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient.exceptions import CellExecutionError
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "kaggle.ipynb"


def load(name):
    """A module of scripts/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(NOTEBOOK, as_version=4)


def parse_submission(path):
    """{image id: [(class, confidence, x1, y1, x2, y2)]}, by nothing but the csv module."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image_id", "PredictionString"]
    found = {}
    for name, text in rows:
        assert name not in found
        values = list(map(float, text.split(" ")))
        found[name] = [tuple(values[begin : begin + 6]) for begin in range(0, len(values), 6)]
    return found


@pytest.mark.slow
def test_the_notebook_goes_from_the_input_folder_to_a_submission(committed, tmp_path):
    script = load("notebook")
    script.draw(tmp_path, 14, 3, 128)
    # What is run is what is committed.
    script.execute(committed, tmp_path, 1)
    found = parse_submission(tmp_path / "submission.csv")
    with (tmp_path / "input" / "vinbig" / "sample_submission.csv").open(newline="") as file:
        wanted = [row[0] for row in csv.reader(file)][1:]
    assert list(found) == wanted
    assert len(wanted) == 3
    for rows in found.values():
        assert all(len(row) == 6 for row in rows)
        kinds = [row[0] for row in rows]
        # Kaggle scores "No finding" as a fifteenth class with the unit box.
        assert kinds.count(14) == 1
        assert rows[kinds.index(14)][2:] == (0, 0, 1, 1)
        values = np.array(rows)
        assert set(kinds) <= set(range(15))
        assert ((values[:, 1] >= 0) & (values[:, 1] <= 1)).all()
        assert (values[:, 4:] >= values[:, 2:4]).all()
        # In original pixels, not those of the canvas.
        assert values[:, 2:].max() <= 160
    # Both folds are in it, and the score is of one that was held out.
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["n_images"] == 7
    for fold in (0, 1):
        assert (tmp_path / "runs" / f"fold{fold}" / "model.safetensors").is_file()
    # Where the session ends here, another goes on with its output: nothing is converted or trained again.
    again = tmp_path / "again"
    again.mkdir()
    (again / "input").symlink_to(tmp_path / "input")
    (again / "previous").symlink_to(tmp_path)
    second = nbformat.read(NOTEBOOK, as_version=4)
    # What only looks would look at the same again.
    looks = ("tools/view.py", "tools/evaluate.py", "--overlays")
    second.cells = [cell for cell in second.cells if not any(word in cell.source for word in looks)]
    script.execute(second, again, 1)
    assert not (again / "data").exists()
    assert "epoch 1/1" not in nbformat.writes(second)
    assert parse_submission(again / "submission.csv").keys() == found.keys()


@pytest.mark.slow
def test_without_the_input_the_notebook_stops_and_says_so(committed, tmp_path):
    with pytest.raises(CellExecutionError, match=r"tools/convert\.py ended with status 1") as caught:
        load("notebook").execute(nbformat.from_dict(committed), tmp_path, 1)
    assert "error: " in str(caught.value)
    assert not (tmp_path / "submission.csv").exists()


def test_what_is_committed_was_executed_in_order_without_errors(committed):
    nbformat.validate(committed)
    cells = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert all(output.get("name", "stdout") == "stdout" for output in outputs)
    (parameters,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", ())]
    assert "/kaggle/input/vinbigdata-chest-xray-abnormalities-detection" in parameters.source
    assert "/kaggle/working" in parameters.source
    text = "".join(output.get("text", "") for output in outputs)
    assert re.search(r"\d+ rows in the order of sample_submission\.csv", text)


def test_its_outputs_are_small_and_say_nothing_of_the_machine(committed):
    assert NOTEBOOK.stat().st_size < 1e6
    outputs = [output for cell in committed.cells if cell.cell_type == "code" for output in cell.outputs]
    text = json.dumps([{**output, "data": {**output.get("data", {}), "image/png": ""}} for output in outputs])
    assert not re.search(r"(?<![\w.])/(tmp|home|root|work|usr|opt|Users)/|\\u001b|Traceback|Warning", text)
    assert os.uname().nodename not in text
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2
    for picture in pictures:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"), dtype=int)
        # A radiograph with boxes in colour, not an empty frame.
        assert min(pixels.shape[:2]) > 200
        assert pixels.std() > 30
        assert (np.ptp(pixels, axis=2) > 40).sum() > 100


def test_its_commands_are_those_of_the_repository(committed):
    source = "\n".join(cell.source for cell in committed.cells if cell.cell_type == "code")
    commands = set(re.findall(r'run\("([\w/.]+)"', source))
    assert commands == {
        *("tools/convert.py", "tools/view.py", "xray/train.py", "tools/evaluate.py", "tools/infer.py"),
    }  # fmt: skip
    assert all((ROOT / command).is_file() for command in commands)
    assert (ROOT / "configs" / "vinbig-r50.yaml").is_file()
    # Nothing is asked of a network.
    assert not re.search(r"https?://|pip install(?!.*no-index)|download", source)


@functools.cache
def help_of(command, *words):
    asked = [sys.executable, str(ROOT / command), *words, "--help"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("page", ["kaggle.md", "sagemaker.md"])
def test_the_commands_of_the_pages_have_the_flags_that_they_are_given(page):
    text = (ROOT / "docs" / page).read_text()
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    commands = re.findall(r"python (?:\S*/)?((?:tools|xray|scripts)/\w+\.py)(.*)", blocks)
    for command, rest in commands:
        words = rest.partition("#")[0].split()
        subcommand = words[:1] if command == "tools/convert.py" else []
        task = ["--task", "segmentation"] if "siim" in rest and command == "xray/train.py" else []
        told = help_of(command, *subcommand, *task)
        for flag in (word for word in words if word.startswith("--") and word != "--config"):
            assert re.search(rf"{flag}\b", told), f"{command} has no {flag}"
    for path in re.findall(r"(configs/[\w-]+\.yaml|scripts/\w+\.py|notebooks/\w+\.ipynb|tests/\w+\.py)", text):
        assert (ROOT / path).is_file(), path
    assert commands or page == "sagemaker.md"


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """The folder that is uploaded to Kaggle, without the wheels of others."""
    folder = tmp_path_factory.mktemp("kaggle") / "xray-offline"
    command = [sys.executable, str(ROOT / "scripts" / "kaggle_wheels.py"), "--save-path", str(folder), "--no-deps"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("1 wheels (xray-")
    return folder


def test_the_wheel_holds_the_package_and_its_data(offline):
    (wheel,) = offline.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = [path for path in (ROOT / "xray").rglob("*.py") if "__pycache__" not in path.parts]
    data = [ROOT / "xray" / "py.typed", *(ROOT / "xray" / "outputs" / "report").glob("*.j2")]
    data += (ROOT / "xray" / "serving" / "page").iterdir()
    data += (ROOT / "xray" / "datasets" / "maps").rglob("*.yaml")
    data += (ROOT / "xray" / "radiographs").glob("*.npz")
    assert len(data) > 5
    assert held == {str(path.relative_to(ROOT)) for path in (*sources, *data) if path.is_file()}


def test_what_is_uploaded_installs_and_runs_without_a_network(offline, tmp_path):
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    subprocess.run([*pip, "--find-links", str(offline), "--no-deps", "--target", str(target), "xray"], check=True)
    code = "import xray.datasets.sources.vinbig, xray.structures.submission; print(xray.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(target)}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == str(target / "xray" / "__init__.py")
    # The commands that a notebook calls come as the checkout, beside the wheel.
    for command in ("tools/infer.py", "xray/train.py"):
        asked = [sys.executable, *f"{offline}/checkout/{command} --help".split()]
        assert "--data-path" in subprocess.run(asked, capture_output=True, text=True, check=True, cwd=tmp_path).stdout


def test_all_that_xray_needs_is_vendored_but_torch():
    found = load("kaggle_wheels").needed()
    assert {"pebble", "tyro", "ensemble-boxes", "python-gdcm", "albumentations", "albucore", "lightning"} <= set(found)
    assert not {"torch", "torchvision", "xray", "pytest", "fastapi"} & set(found)
    assert found["pebble"] == importlib.metadata.version("pebble")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--python", "three"], "--python three: give it as 3.11"),
        (["--weights", "nowhere.pth"], "--weights nowhere.pth: no such file"),
        (["--save-path", "."], "exists already"),
    ],
)
def test_the_script_says_what_is_wrong(tmp_path, flags, line):
    command = [sys.executable, str(ROOT / "scripts" / "kaggle_wheels.py"), "--save-path", "out", *flags]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert result.returncode == 2
    assert line in result.stderr
    assert list(tmp_path.iterdir()) == []
