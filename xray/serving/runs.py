"""The runs that a model directory holds, as SageMaker unpacks one."""

from pathlib import Path

from xray.errors import InputError
from xray.file_names import ENSEMBLE, MODEL_FILE


def runs_in(folder: Path) -> list[Path]:
    """The runs of a model directory: itself, its ensemble.yaml, or run directories in it, in the order of their names.

    Raises InputError if it holds none.
    """
    if (folder / MODEL_FILE).is_file():
        return [folder]
    if (folder / ENSEMBLE).is_file():
        return [folder / ENSEMBLE]
    runs = sorted(path.parent for path in folder.glob(f"*/{MODEL_FILE}")) if folder.is_dir() else []
    if not runs:
        raise InputError(
            f"no model in {folder}: it must hold model.json and model.safetensors of a run, or folders that do"
        )
    return runs
