"""docs/hospital.md, "Try it on one machine": its blocks, run by a shell as a reader pastes them.

Only sizes and ports are others.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from orthanc_server import PLUGIN, free_port
from page_blocks import blocks, replaced, section

ROOT = Path(__file__).resolve().parents[1]
RECIPE = section((ROOT / "docs" / "hospital.md").read_text(), "Try it on one machine")
SMALLER = {
    "--n-train 150": "--n-train 10",
    "--n-epochs 8": "--n-epochs 1 --val-every 1 --batch-size 4 --device cpu --n-workers 0",
}
PORTS = ("8080", "11112", "8043", "4243")
PROGRAMS = {
    "bash": "bash",
    "curl": "curl",
    "/usr/bin/echoscu": "dcmtk",
    "/usr/bin/storescu": "dcmtk",
    "/usr/bin/dsrdump": "dcmtk",
    "/usr/sbin/Orthanc": "orthanc",
    str(PLUGIN): "orthanc-dicomweb",
}
"""What the recipe needs → Debian's package that has it."""


def script() -> str:
    return replaced("\n".join(blocks(RECIPE, "sh")), SMALLER | {port: str(free_port()) for port in PORTS})


def test_the_recipe_names_what_it_needs():
    text = "\n".join(blocks(RECIPE, "sh"))
    for program, package in PROGRAMS.items():
        assert package in ("bash", "curl") or program in text
        assert package == "bash" or f"{package}" in RECIPE.partition("```")[0]
    # Whoever pastes it opens nothing to others.
    assert set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text)) == {"127.0.0.1"}
    assert '"RemoteAccessAllowed": false' in text
    assert '"DicomAlwaysAllowStore": false' in text


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_recipe_runs(tmp_path):
    pytest.importorskip("pynetdicom")
    pytest.importorskip("highdicom")
    for program, package in PROGRAMS.items():
        if not (shutil.which(program) or Path(program).is_file()):
            pytest.skip(f"{program} is not here (Debian's package {package})")
    # The command, as an installation has it, and the folder of a checkout.
    command = tmp_path / "bin" / "xray"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m xray "$@"\n')
    command.chmod(0o755)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "script").write_text(script())
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "out").open("wb") as out:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "script"],
            cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        status = shell.wait()
    finally:
        # What the recipe has started and, where it fails, not stopped.
        left = True
        try:
            os.killpg(shell.pid, signal.SIGKILL)
        except ProcessLookupError:
            left = False
    said = (tmp_path / "out").read_text()
    logs = "".join(f"\n--- {log.name}\n{log.read_text()}" for log in sorted(tmp_path.glob("try/*.log")))
    assert status == 0, said + logs
    assert not left, "the recipe leaves processes behind"
    assert not (tmp_path / "try").exists()
    assert "Received Echo Response (Success)" in said
    assert said.count("Received Store Response (Success)") == 8
    # Of each a report, a presentation state, and a segmentation where a network that has learned nothing found one.
    assert re.search(r'"answered":4,.*"received":4,.*"returned":(8|9|10|11|12),', said)
    # The reports, as dcmtk shows them, and as Orthanc tells of them by DICOMweb.
    assert said.count('"CAD Processing and Findings Summary")=(') == 4
    assert "xray findings, not for clinical use" in said
