"""Finds abnormalities in radiographs: python tools/infer.py --weights RUN --data-path DIR --save-path OUT."""

import contextlib
import dataclasses
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xray.commands.archives import check_dicomweb, send_back, with_kinds, with_unretrieved
from xray.commands.find_all import dicom_results_of, find_all, fingerprint_of, load_models
from xray.commands.infer_flags import Config, part_of
from xray.commands.runner import command
from xray.errors import FlagError, InputError, need
from xray.file_names import PREDICTIONS, UNFINISHED
from xray.files import check_writable, make_folder
from xray.flags import check_part, check_paths, check_ranges, require
from xray.inference.options import check_options

if TYPE_CHECKING:
    from xray.datasets.inputs import Inputs
    from xray.datasets.store import Store
    from xray.serving.dicom_fetch import Fetched

STAY_REMOTE = ("return_to",)
"""Flags that name an address which no folder stands for."""


def main(config: Config, brought: "Fetched | None" = None) -> int:
    """Exit status 0, or 1 if a radiograph could not be read. brought: what another DICOM node has put into its
    data_path."""
    check(config)
    if config.runtime == "onnx":
        need("--runtime onnx", "export", "onnx", "onnxruntime")
    elif config.runtime == "openvino" or config.precision == "int8":
        need("--runtime openvino" if config.runtime == "openvino" else "--precision int8", "openvino", "openvino")
    out, data = Path(config.save_path), Path(config.data_path)
    check_out(config)
    if is_of_node(config):
        return of_node(config)
    inputs, order, truth = asked_for(config)

    # torch last: what is wrong with the input has been said by now.
    from xray.models.compiler import without_compiler

    with without_compiler():
        importlib.import_module("torchvision")
    from xray.commands.infer_results import failures_of, say_what_was_written, write_files
    from xray.inference.ensemble_file import files_of
    from xray.inference.prediction_journal import PredictionJournal
    from xray.inference.thresholds import say, thresholds_of
    from xray.inference.unfinished import unfinished
    from xray.outputs.fisabio import FisabioSubmission

    if config.runtime == "onnx":
        config = dataclasses.replace(config, precision="32")
    pipeline, models, start = load_models(config, len(inputs))
    for flag, what in (("probabilities", "keeps the maps"), ("seg", "writes the masks")):
        if getattr(config, flag) and not pipeline.segmenters:
            raise InputError(f"--{flag} {what} of segmenters, and --weights names none")
    config = with_kinds(config, bool(pipeline.segmenters))
    is_shown = config.overlays or config.sr or config.gsps or config.sc or config.fhir
    runs = [Path(run) for run in config.weights]
    for warning in filter(None, map(unfinished, files_of(runs))):
        print(warning, file=sys.stderr)
    fitted = thresholds_of(runs) if is_shown else None
    if fitted is not None:
        say(f"findings are shown {fitted.instead(config.threshold).description}")
    dicom_results = dicom_results_of(config, inputs, pipeline, start.way, fitted)
    fisabio = None
    if config.submission == "fisabio":
        fisabio = FisabioSubmission(data, inputs, pipeline.categories, config.sample_submission)
    with contextlib.ExitStack() as stack:
        cluster = None
        if config.engine == "ray":
            need("--engine ray", "ray", "ray")
            from xray.cluster.ray import connected

            cluster = stack.enter_context(connected(config.address, config.cores_per_actor))
        make_folder(out)
        fingerprint = fingerprint_of(config, inputs, fitted)
        journal = PredictionJournal(out / UNFINISHED, fingerprint, inputs.ids, config.overwrite)
        stack.enter_context(journal)
        if journal.done:
            print(f"continuing after {journal.done} of {len(inputs)} radiographs", file=sys.stderr)
        find_all(pipeline, inputs, journal, truth, config, dicom_results, models, start, cluster, fitted)
        order, failures, left_out = with_unretrieved(data, order, failures_of(journal, inputs, order), brought)
        written = write_files(config, pipeline, inputs, journal, order, failures, left_out, fitted, fisabio)
        n_unsent = send_back(config, dicom_results, inputs) if dicom_results and config.return_to else 0
        if not n_unsent:
            # Or the same command, given again, sends the rest.
            journal.remove()
    say_what_was_written(config, pipeline, inputs, order, failures, written, dicom_results)
    return 1 if failures or n_unsent else 0


def asked_for(config: Config) -> "tuple[Inputs, list[str], Store | None]":
    """The radiographs to look at, the names of the submission's rows in order, and the dataset with the truth to draw.

    Raises InputError or FlagError where there are none, or a flag is not for them.
    """
    from xray.datasets.inputs import open_inputs
    from xray.structures.submission import rows_of_submission

    data = Path(config.data_path)
    beside = [Path(config.sample_submission)] if config.sample_submission else []
    inputs = open_inputs(data, *part_of(config), config.sizes, beside, apart=Path(config.save_path))
    if config.submission == "fisabio":
        # Of that challenge all radiographs count, and its sample submission names studies as well.
        order = list(inputs.ids)
    else:
        order = rows_of_submission(data, inputs.ids, config.sample_submission)
    inputs = gated(config, inputs)
    truth = truth_of(config, inputs)
    if skipped := len(inputs) - len(set(inputs.ids).intersection(order)):
        print(f"{skipped} radiographs are not in the sample submission and are left out", file=sys.stderr)
        inputs = inputs.only(set(order))
    return inputs, order, truth


def of_node(config: Config) -> int:
    """Looks at a study that another DICOM node has; OUT/studies.csv says which radiograph is of which study."""
    from xray.serving.dicom_fetch import fetched
    from xray.serving.dicom_query import parse_query
    from xray.serving.dicom_studies import write_studies

    out = Path(config.save_path)
    with fetched(parse_query(config.data_path), out) as brought:
        status = main(dataclasses.replace(config, data_path=str(brought.folder)), brought)
        write_studies(out, brought)
    return status


def is_of_node(config: Config) -> bool:
    """Whether --data-path names a DICOM node; asked here, as xray.serving.dicom_query needs an extra's package."""
    return str(config.data_path).startswith(("dicom://", "dicoms://"))


def check_node(config: Config) -> None:
    """Raises FlagError for a --data-path that names a DICOM node in a wrong way, or a part of it."""
    if not is_of_node(config):
        return
    need("a dicom:// address", "serve", "pynetdicom")
    from xray.serving.dicom_query import parse_query

    parse_query(config.data_path)


def check(config: Config) -> None:
    """Raises FlagError if a value is out of range."""
    from xray.cluster.ray import check_flags

    check_paths(config, "weights", "data_path", "save_path")
    check_options(config)
    check_ranges(config)
    check_flags(config.engine, config.address, config.cores_per_actor)
    if config.engine == "ray":
        flag = "--precision int8" if config.precision == "int8" else f"--runtime {config.runtime}"
        is_torch = config.runtime in ("auto", "torch") and config.precision != "int8"
        require(is_torch, "engine", config.engine, f"local with {flag}")
        require(":" not in config.device, "device", config.device, "auto, cpu or cuda: nodes number their own GPUs")
    require(config.split in ("", "train", "val", "test"), "split", config.split, "train, val or test")
    check_part(*part_of(config))
    check_dicomweb(config)
    check_node(config)
    if config.truth and not config.overlays:
        raise FlagError("--truth is drawn by --overlays: add that, or leave --truth out")


def check_out(config: Config) -> None:
    """Raises InputError if --save-path cannot be written to, or holds predictions and there is no --overwrite."""
    from xray.datasets.store import is_store
    from xray.radiographs.own_files import check_apart, said
    from xray.radiographs.radiograph import SUFFIXES

    out = Path(config.save_path)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder as --save-path")
    is_begun = (out / UNFINISHED).exists()
    if (has_predictions := (out / PREDICTIONS).exists()) and not config.overwrite and not is_begun:
        raise InputError(f"{out} holds predictions already: give another --save-path, or --overwrite")
    check_writable(out)
    data = Path(config.data_path)
    # A dataset directory is not searched for radiographs.
    if not is_store(data) and (words := said(check_apart(out, data, SUFFIXES, is_begun or has_predictions), out)):
        print(words, file=sys.stderr)


def gated(config: Config, inputs: "Inputs") -> "Inputs":
    """The inputs, which are looked at as --gate-image and --upright say. Raises FlagError if they are no files."""
    from xray.radiographs.image_check import Gate

    if inputs.store is None:
        return dataclasses.replace(inputs, gate=Gate(config.gate_image, config.upright))
    if config.gate_image == "refuse" or config.upright:
        flag = "--upright" if config.upright else "--gate-image refuse"
        raise FlagError(f"{flag} is for files, and {config.data_path} is a dataset directory: leave it out")
    return inputs


def truth_of(config: Config, inputs: "Inputs") -> "Store | None":
    """The dataset with the truth to draw, or None. Raises InputError if --truth has none of the radiographs."""
    from xray.datasets.store import open_store

    if not config.truth:
        # Boxes that models have found are not the truth.
        return None if inputs.store is None or inputs.store.pseudo is not None else inputs.store
    store = open_store(Path(config.truth), pixels=False)
    if set(inputs.ids).isdisjoint(store.index_of):
        raise InputError(
            f"--truth {config.truth} has none of the {len(inputs)} radiographs (such as {inputs.ids[0]!r}): give the "
            "dataset directory that they were converted into"
        )
    return store


def run() -> int:
    """The command; returns its exit status."""
    return command(Config, main, check, check_out, lambda config: STAY_REMOTE)
