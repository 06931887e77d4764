"""The runs that a model directory holds, as SageMaker unpacks one."""

from pathlib import Path

from xray.errors import InputError


def runs_in(folder: Path) -> list[Path]:
    """The runs of a model directory: itself, its ensemble.yaml, or run directories in it, in the order of their names.

    Raises InputError if it holds none.
    """
    # xray.models.weights knows this name too, and needs torch.
    name = "model.json"
    if (folder / name).is_file():
        return [folder]
    if (folder / "ensemble.yaml").is_file():
        return [folder / "ensemble.yaml"]
    runs = sorted(path.parent for path in folder.glob(f"*/{name}")) if folder.is_dir() else []
    if not runs:
        raise InputError(
            f"no model in {folder}: it must hold model.json and model.safetensors of a run, or folders that do"
        )
    return runs
