"""Exported models of run directories, made where a command needs one that nobody has written."""

import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from xray.errors import InputError, need, spelled
from xray.file_names import CONFIG_FILE, WEIGHTS_FILE
from xray.inference.openvino_files import (
    FLOAT_FILE,
    INT8,
    INT8_FILE,
    cached_file,
    can_be_written,
    failure_of,
    file_beside,
    note_failure,
)
from xray.inference.ways import Models, place_of, runtime_for

WORDS = spelled("export") + " --weights {} --format openvino"


def make_ready(models: Models) -> None:
    """Makes what loading would not find: OpenVINO's models of run directories, once for their weights.

    Nothing is made unless the flags want OpenVINO. Float models go into the cache. INT8 models go beside the weights,
    calibrated and checked on the dataset that the run was trained on. What is wrong with the weights is left to
    loading.
    Raises InputError for flags that this machine cannot follow, and where a run cannot be exported, the cache not be
    written, or INT8 does not keep the metric.
    """
    place_of(models.device, models.precision, models.runtime)
    precision = models.precision
    if runtime_for(models.runtime, precision) != "openvino":
        return
    for run in models.runs:
        if not run.is_dir() or not (run / WEIGHTS_FILE).is_file():
            continue
        if precision == INT8:
            _make_int8(run)
            continue
        if precision == "auto":
            if file_beside(run, INT8_FILE):
                continue
            if (run / INT8_FILE).is_file():
                print(f"{run / INT8_FILE} was made from other weights and is not used", file=sys.stderr)
        if (run / FLOAT_FILE).is_file() or (cached := cached_file(run)).is_file():
            continue
        need("--runtime openvino with a run directory", "export", "onnx", "onnxscript")
        # Here, as the exporter takes seconds to import.
        from xray.export.openvino import save, to_openvino, writing

        print(f"making OpenVINO's model of {run}, once for its weights", file=sys.stderr)
        try:
            with writing(cached) as temporary:
                save(to_openvino(run), temporary)
        except OSError as error:
            raise _unwritable(cached, error, WORDS.format(run)) from None


def _make_int8(run: Path) -> None:
    """The INT8 model of a run, unless it is there. Raises InputError where it cannot be made, or loses the metric."""
    if file_beside(run, INT8_FILE):
        return
    command = f"{WORDS.format(run)} --int8 --check-data DATASET"
    now = versions()
    if why := failure_of(run, now):
        raise InputError(f"{run} has no INT8 model: {why}; use --precision auto, or check on other data with {command}")
    data, reason = own_dataset(run)
    if data is None:
        raise InputError(f"{run} has no INT8 model of its weights, and {reason}: make it with {command}")
    need("--precision int8", "openvino", "nncf")
    need("--precision int8", "export", "onnx", "onnxscript")
    out = run / INT8_FILE if can_be_written(run) else cached_file(run, INT8_FILE)
    print(f"making the INT8 model of {run}, once for its weights, with {data}", file=sys.stderr)

    from xray.datasets.store import open_store
    from xray.export.int8 import LostMetricError, write_quantised

    try:
        words = write_quantised(run, out, open_store(data))
    except LostMetricError as error:
        note_failure(run, str(error), now)
        raise InputError(f"{run} has no INT8 model: {error}; use --precision auto") from None
    except OSError as error:
        raise _unwritable(out, error, command) from None
    print(f"{out}: {words}", file=sys.stderr)


def _unwritable(out: Path, error: OSError, command: str) -> InputError:
    return InputError(
        f"{out.parent} cannot be written ({error.strerror or error}): set XRAY_CACHE to another folder, or run "
        f"{command}"
    )


def versions() -> dict[str, str]:
    """Of what quantises, as far as it is there."""
    return {name: version(name) for name in ("openvino", "nncf") if find_spec(name) is not None}


def own_dataset(run: Path) -> tuple[Path | None, str]:
    """The dataset directory that a run was trained on; None, and why in words, where it is not there any more."""
    from xray.datasets.store import ALL_FOLDS, is_store, open_store
    from xray.training.pseudo import held_back
    from xray.training.recipes import read_yaml

    if not (run / CONFIG_FILE).is_file():
        return None, f"it has no {CONFIG_FILE} that says what it was trained on"
    config = read_yaml(run / CONFIG_FILE)
    given = str(config.get("data_path") or "")
    # A raw directory was converted into the run.
    places = [place for place in (Path(given), run / "dataset") if given and is_store(place)]
    if not places:
        return None, f"the dataset that it was trained on is not at {given or 'any place that it knows'}"
    fold, why = held_back(run, open_store(places[0], pixels=False))
    if fold is None and config.get("fold") != ALL_FOLDS:
        return None, f"{places[0]} is not what it was trained on: {why}"
    return places[0], ""
