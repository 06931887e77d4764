"""made_by.json speaks of the files that it was written beside, and of nothing else."""

import json
from pathlib import Path

import pytest

from xray.file_names import MADE_BY
from xray.structures.made_by import folders_of, parts_of, read_made_by, write_made_by

MODEL = {"name": "fold0", "files": {"model.safetensors": "ab"}}
CONTENT = {"models": [MODEL], "ensemble": None, "settings": {}, "radiographs": {"n": 1, "dataset": None}}


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    (tmp_path / "predictions.json").write_text("[]")
    write_made_by(tmp_path, ("predictions.json", "submission.csv"), CONTENT)
    return tmp_path / "predictions.json"


def test_what_is_written_is_read(predictions: Path) -> None:
    found = read_made_by(predictions)
    assert found is not None
    assert CONTENT.items() <= found.items()
    assert list(found["files"]) == ["predictions.json"]
    assert parts_of(found) == [found]
    both = {"fused": [found, {"fused": [found], "settings": {}}], "settings": {}}
    assert parts_of(both) == [found, found]


def test_of_another_file_it_says_nothing(predictions: Path) -> None:
    (predictions.parent / "other.json").write_text("[]")
    assert read_made_by(predictions.parent / "other.json") is None
    predictions.write_text("[ ]")
    assert read_made_by(predictions) is None
    predictions.write_text("[]")
    assert read_made_by(predictions) is not None
    # Predictions of which it is not known take it away.
    write_made_by(predictions.parent, ("predictions.json",), None)
    assert read_made_by(predictions) is None
    write_made_by(predictions.parent, ("predictions.json",), None)
    assert not (predictions.parent / MADE_BY).exists()


def test_a_link_leads_to_what_lies_beside_its_file(predictions: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "cv.json"
    link.symlink_to(predictions)
    assert read_made_by(link) == read_made_by(predictions)
    assert folders_of(link) == [link.parent, predictions.parent]
    # What lies beside the link is of it, if it says so.
    write_made_by(link.parent, ("cv.json",), CONTENT | {"settings": {"beside": "link"}})
    assert read_made_by(link)["settings"] == {"beside": "link"}


@pytest.mark.parametrize(
    "change",
    ["{", "[]", "7", {"version": 2}, {"models": None}, {"models": [7]}, {"models": [{"name": "a"}]}, {"files": 3},
     {"settings": None}, {"settings": [7]}, {"ensemble": {}}, {"ensemble": 7}, {"models": [MODEL | {"fold": [1]}]},
     {"models": [{"name": "a", "files": {"model.safetensors": [1]}}]}, {"radiographs": {"dataset": {}}}, {"fused": []},
     {"fused": [CONTENT | {"settings": None}]}, {"radiographs": {}}, {"radiographs": {"dataset": 7}}, {"fused": 7},
     {"fused": [{}]}, "[" * 100_000],
)  # fmt: skip
def test_what_is_damaged_or_another_tools_says_nothing(predictions: Path, change: object) -> None:
    path = predictions.parent / MADE_BY
    path.write_text(change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | dict(change)))
    assert read_made_by(predictions) is None
