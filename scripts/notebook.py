"""Executes a notebook on phantoms, and keeps its outputs in it.

    python scripts/notebook.py          notebooks/kaggle.ipynb, on phantoms that it draws
    python scripts/notebook.py api      notebooks/api.ipynb, on what `make demo` left

Code cells are run as they are, with XRAY_ variables that name folders of a temporary directory.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "kaggle.ipynb"
API_NOTEBOOK = ROOT / "notebooks" / "api.ipynb"
SECONDS = 1200
"""For one cell."""


def draw(folder: Path, n_train: int, n_test: int, size: int) -> None:
    """Phantoms in the layout of the competition's input, in `folder`/input/vinbig."""
    flags = ["--trees", "vinbig", "--n-train", n_train, "--n-test", n_test, "--size", size, "--normal-fraction", "0.2"]
    command = [sys.executable, ROOT / "tools" / "phantoms.py", "--save-path", folder / "input", *flags]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def execute(notebook: Any, folder: Path, n_epochs: int) -> None:
    """Runs Kaggle's notebook, in place, with `folder` for Kaggle's. Raises nbclient's CellExecutionError."""
    # Relative, so that outputs name no folder of this machine.
    variables = {"XRAY_INPUT": "input/vinbig", "XRAY_OFFLINE": "offline", "XRAY_PREVIOUS": "previous"}
    variables |= {"XRAY_WORKING": ".", "XRAY_QUICK": str(n_epochs), "MPLBACKEND": "agg"}
    _execute(notebook, folder, variables)


def execute_api(notebook: Any, folder: Path) -> None:
    """Runs the API's notebook, in place, with the demo in `folder`/demo. Raises nbclient's CellExecutionError."""
    _execute(notebook, folder, {"XRAY_DEMO": "demo", "PYTHONPATH": str(ROOT)})


def _execute(notebook: Any, folder: Path, variables: dict[str, str]) -> None:
    from nbclient import NotebookClient

    # The kernel is this Python's.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    )
    client.execute(env={**os.environ, **variables, "PATH": path})


def main() -> int:
    """Executes a notebook and writes it back."""
    import nbformat

    path = API_NOTEBOOK if sys.argv[1:] == ["api"] else NOTEBOOK
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as temporary:
        if path == API_NOTEBOOK:
            Path(temporary, "demo").symlink_to(ROOT / "demo")
            execute_api(notebook, Path(temporary))
        else:
            draw(Path(temporary), 120, 8, 256)
            execute(notebook, Path(temporary), 8)
    # What the kernel says of itself differs between machines.
    notebook.metadata["language_info"] = {"name": "python"}
    text = nbformat.writes(notebook)
    if found := re.search(r"/tmp/|/home/|/root/|/work/", text):
        raise SystemExit(f"an output names a folder of this machine ({found[0]}): it was not kept")
    path.write_text(text + "\n")
    print(f"{path}: {len(text) / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
