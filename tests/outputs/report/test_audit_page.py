"""The page of an audit of many radiographs, categories and readers stays one that can be read."""

import json

import pytest

from xray.audit.audit import audit
from xray.audit.named import PATIENT
from xray.datasets.store import open_store
from xray.outputs.report.audit import write_audit

N_CATEGORIES, N_PATIENTS = 130, 300


@pytest.fixture
def store(tmp_path, write_table_store):
    """Two radiographs of each of 300 patients in two folds, 130 categories, and a reader for each patient."""
    categories = [{"id": number, "name": f"finding {number}"} for number in range(1, N_CATEGORIES + 1)]
    images = [(f"i{row}", "train", row % 2, f"p{row // 2}") for row in range(2 * N_PATIENTS)]
    boxes = [(row, 1 + row % N_CATEGORIES, (0, 0, 300 + row, 400)) for row in range(2 * N_PATIENTS)]
    folder = write_table_store(tmp_path / "data", images, boxes, categories)
    content = json.loads((folder / "annotations.json").read_text())
    for row, record in enumerate(content["images"]):
        record |= {"age": row % 90, "readers": [f"R{row // 2}"]}
    for row, box in enumerate(content["annotations"]):
        box["readers"] = [f"R{row // 2}"]
    (folder / "annotations.json").write_text(json.dumps(content))
    return open_store(folder, pixels=False)


def test_tables_are_cut_with_a_count(store, tmp_path, sketched):
    result = audit(store)
    assert len(result.of(PATIENT)) == N_PATIENTS
    write_audit(tmp_path / "audit.html", result)
    page = (tmp_path / "audit.md").read_text()
    assert f"40 of {N_PATIENTS}" in page
    assert f"100 of {N_CATEGORIES}; all are in audit.json." in page
    assert f"100 of {N_PATIENTS}; all are in audit.json." in page
    # Of 90 ages 60 have 7 radiographs each, the first 12 of which are listed; newborns have one, too.
    assert "7 0, 7 1, 7 10, " in page
    assert "of 78 other values" in page
    # The 40 categories with most boxes are drawn: 80 of 130 have five, the others four.
    assert "The 40 categories with most boxes of 130." in page
    # All of it, in numbers, is beside it.
    metrics = result.metrics
    assert len(metrics["counts"]["categories"]) == N_CATEGORIES
    assert len(metrics["named"]) == N_PATIENTS
    assert len(page) < 60_000
