"""How made_by.json names the models that it was given."""

from pathlib import Path

import pytest

from xray.outputs.made_by import model_of


def test_a_run_that_is_the_working_directory_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "fold0"
    run.mkdir()
    (run / "model.safetensors").write_bytes(b"weights")
    monkeypatch.chdir(run)
    assert model_of(Path())["name"] == "fold0"
    assert model_of(Path()) == model_of(run)
