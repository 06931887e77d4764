"""Run directories with OpenVINO's models beside their weights."""

import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test writes into the user's cache."""
    monkeypatch.setenv("XRAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def runs(vinbig_run: Path, segmentation_run: Path, classification_run: Path, tmp_path_factory: Any) -> list[Path]:
    """Copies of the three runs, each with its float file. Not to be changed."""
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    from xray.export.openvino import save, to_openvino, writing
    from xray.inference.openvino_files import FLOAT_FILE

    folder = tmp_path_factory.mktemp("openvino")
    copies = []
    for run in (vinbig_run, segmentation_run, classification_run):
        copies.append(shutil.copytree(run, folder / run.name, ignore=shutil.ignore_patterns("*.ckpt")))
        with writing(copies[-1] / FLOAT_FILE) as temporary:
            save(to_openvino(copies[-1]), temporary)
    return copies


@pytest.fixture(scope="session")
def quantised(runs: list[Path], vinbig_store: Path, tmp_path_factory: Any) -> Path:
    """The detector with its INT8 file beside the float one. Not to be changed."""
    pytest.importorskip("nncf", reason="the extra openvino is not installed")
    from xray.commands import export
    from xray.export import int8

    run = shutil.copytree(runs[0], tmp_path_factory.mktemp("int8") / "run")
    with pytest.MonkeyPatch.context() as patch:
        # A detector of seconds moves by chance.
        patch.setattr(int8, "MOST_MOVE", 1.0)
        export.main(export.Config(weights=(run,), format="openvino", int8=True, check_data=vinbig_store))
    return run
