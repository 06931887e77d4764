"""The API's notebook: executed on small models, and what is committed of it."""

import base64
import importlib.util
import io
import json
import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from api_cases import write_dicom
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "api.ipynb"


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.mark.slow
def test_it_runs(committed, vinbig_run, vinbig_store, segmentation_run, tmp_path):
    demo = tmp_path / "demo"
    for name in ("01", "02", "04"):
        write_dicom(demo / "raw" / "vinbig" / "test" / f"{name}.dicom", int(name), width=90, height=80)
    for name, target in (("run", vinbig_run), ("head", segmentation_run), ("data", vinbig_store)):
        (demo / name).symlink_to(target)
    spec = importlib.util.spec_from_file_location("notebook", ROOT / "scripts" / "notebook.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    executed = nbformat.from_dict(committed)
    script.execute_api(executed, tmp_path)
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert (tmp_path / "found" / "predictions.json").is_file()


def test_what_is_committed_was_executed_in_order_without_errors(committed):
    nbformat.validate(committed)
    cells = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    # Each cell shows what its last line is, once, and nothing is written to stderr.
    assert [[output.output_type for output in cell.outputs] for cell in cells] == [["execute_result"]] * len(cells)


def test_its_outputs_are_small_and_say_nothing_of_the_machine(committed):
    assert NOTEBOOK.stat().st_size < 1e6
    outputs = [output for cell in committed.cells if cell.cell_type == "code" for output in cell.outputs]
    text = json.dumps([{**output, "data": {**output.data, "image/png": ""}} for output in outputs])
    assert not re.search(r"(?<![\w.])/(tmp|home|root|work|usr|opt|Users)/|\\u001b|Traceback|Warning", text)
    assert os.uname().nodename not in text
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.data]
    assert len(pictures) == 2
    for picture in pictures:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"), dtype=int)
        # Radiographs with boxes in colour.
        assert min(pixels.shape[:2]) > 200
        assert (np.ptp(pixels, axis=2) > 40).sum() > 100
