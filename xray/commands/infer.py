"""Finds abnormalities in radiographs: python tools/infer.py --weights RUN --data-path DIR --save-path OUT."""

import contextlib
import dataclasses
import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from annotated_types import Interval

from xray.commands.archives import check_dicomweb, send_back, with_kinds, with_unretrieved
from xray.commands.find_all import dicom_results_of, find_all, fingerprint_of, load_models, settings_for
from xray.commands.runner import command
from xray.errors import FlagError, InputError, need
from xray.file_names import LABELS, PREDICTIONS, SUBMISSION, UNFINISHED
from xray.files import check_writable, make_folder
from xray.flags import Processes, Share, alone_or_one_of, check_part, check_paths, check_ranges, require
from xray.inference.options import check_options

if TYPE_CHECKING:
    from xray.datasets.inputs import Inputs
    from xray.datasets.store import Store
    from xray.serving.dicom_fetch import Fetched

STAY_REMOTE = ("return_to",)
"""Flags that name an address which no folder stands for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Run trained models over radiographs; writes OUT/submission.csv, OUT/predictions.json and what flags ask for.

    Several detectors are fused, several segmenters or classifiers averaged. A segmenter beside a detector refines its
    pneumothorax boxes and gives them a mask; a classifier of findings weighs its boxes.

    A file that cannot be read does not stop the others: it is listed in OUT/failures.csv, its row in the submission
    says "No finding", and the exit status is 1.

    After an interruption, the same command resumes where it stopped.
    """

    weights: tuple[str, ...]
    """Run directories of trained models of any task, or an ensemble.yaml of tools/tune.py, which names some; with
    --runtime onnx also .onnx files."""
    data_path: str
    """A folder of DICOM, PNG or JPEG files (searched through), one such file, a dataset directory, or what an archive
    has, of which CR, DX and secondary captures are retrieved, and deleted here at the end. By DICOMweb:
    https://HOST/dicom-web/studies/UID, with /series/UID and /instances/UID too, or
    https://HOST/dicom-web/studies?AccessionNumber=… with what to search for. From a DICOM node:
    dicom://AET@HOST:PORT/?AccessionNumber=… (or StudyInstanceUID, PatientID); &priors=2 adds two earlier studies, &aet=
    is our title, &retrieve=move has images sent to our &port=; dicoms:// is TLS, with
    &tls-cert=FILE&tls-key=FILE&tls-ca=FILE."""
    save_path: str
    """Folder to write into; inside of --data-path, what lies in it is not read."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""
    tta: bool = True
    """Run the models on the mirrored radiograph, too, and fuse both (test-time augmentation)."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes of the canvas that detectors and segmenters look at, 0.25 to 4 times the one they were trained on, such as
    0.8 1 1.25: the decoded canvas, scaled to the nearest multiple of 32 pixels. Boxes are fused, masks averaged; the
    time grows with the sum of the squares."""
    gate: Literal["soft", "hard"] = "soft"
    """What a classifier does to the others' findings: soft weighs boxes by its probability of their finding (score ×
    the root of the probability, or as tools/tune.py fitted), masks by that of pneumothorax, and gives "No finding" its
    confidence; hard leaves out the masks, or all that was found, where it is below --gate-threshold."""
    gate_threshold: float | None = None
    """Probability below which --gate hard leaves findings out, in [0, 1]; default: what was fitted, or 0.5."""
    triplet: tuple[float, float, float] | None = None
    """TOP MIN_AREA BOTTOM: a radiograph has a mask if MIN_AREA of its pixels, a share, exceed TOP; it is made of those
    above BOTTOM. Default: what tools/evaluate.py --fit stored in the run, else the threshold it was trained with."""
    prune: int = 0
    """Cut U-Net++ trained with --deep-supervision to this level, 1 to 4, for speed; 0 leaves them whole."""
    probabilities: bool = False
    """Keep the probability map of each radiograph, so that tools/evaluate.py can search thresholds without a model."""
    overlays: bool = False
    """Draw the findings of each radiograph into OUT/overlays, beside the truth where it is known."""
    truth: str = ""
    """Dataset directory with the truth to draw; default: --data-path where that is one."""
    overlay_threshold: Share | None = None
    """Lowest confidence that overlays show, in [0, 1]; default: as --threshold."""
    threshold: Share | None = None
    """Lowest confidence, in [0, 1], of the findings that overlays and reports show, calibrated where that was fitted.
    Default: for each finding what tools/evaluate.py --fit kept beside the models, else 0.3. predictions.json and
    submission.csv hold all findings with their scores in any case."""
    sr: Annotated[
        bool | Literal["comprehensive", "comprehensive3d"], alone_or_one_of("comprehensive", "comprehensive3d")
    ] = False
    """Write the findings in each DICOM file as a structured report, OUT/sr/<id>.dcm (TID 1500), with their sizes in mm
    where the image says how far pixels are apart. --sr alone is Comprehensive SR, which most archives and viewers know;
    --sr comprehensive3d is Comprehensive 3D SR, which IHE's AI Results asks for, with the same content."""
    seg: Annotated[bool | Literal["binary", "fractional"], alone_or_one_of("binary", "fractional")] = False
    """Write the masks in each DICOM file as a segmentation, OUT/seg/<id>.dcm; there is none without a mask. --seg
    fractional writes the probabilities that masks are made of, in 255ths, for every DICOM file."""
    gsps: bool = False
    """Write boxes, names and outlines of masks for each DICOM file as a presentation state, OUT/gsps/<id>.dcm (GSPS),
    which viewers draw over the image, in the window that the models saw."""
    sc: bool = False
    """Write each DICOM file with the findings drawn on it as a new image, OUT/sc/<id>.dcm (secondary capture, RGB)."""
    fhir: bool = False
    """Write what a structured report says of each DICOM file as HL7 FHIR R5, OUT/fhir/<id>.json: a Bundle with a
    DiagnosticReport, Observations and ImagingSelections, which names the patient by the identifier alone."""
    report_threshold: Share | None = None
    """Lowest confidence of the findings in structured reports, presentation states, secondary captures and FHIR, in
    [0, 1]; default: as --threshold."""
    return_to: Annotated[str, tyro.conf.arg(name="return")] = ""
    """https://HOST/dicom-web of a service that stores the objects of --sr, --seg, --gsps and --sc (STOW-RS); where none
    of these is given, reports and, of segmenters, segmentations. OUT/returned.csv says what became of each."""
    dicomweb_auth: str = ""
    """File with who this is to DICOMweb services: a line "bearer TOKEN" or "basic USER:PASSWORD", with https://HOST in
    front where there are several. Default: XRAY_DICOMWEB_TOKEN, or XRAY_DICOMWEB_USER and XRAY_DICOMWEB_PASSWORD."""
    ca: str = ""
    """PEM file of a certificate authority to trust beside those of the system, for DICOMweb services."""
    dicomweb_timeout: Annotated[float, Interval(gt=0, le=3600)] = 60.0
    """Seconds that a DICOMweb service may keep silent, above 0 and up to 3600."""
    gate_image: Literal["off", "warn", "refuse"] = "warn"
    """Whether each file is looked at, header and pixels, for being a frontal chest radiograph that is upright and no
    negative. warn: what is not is named in OUT/warnings.csv and used all the same; refuse: it is listed in
    OUT/failures.csv and gets no findings. A dataset directory is not looked at."""
    upright: bool = False
    """Turn radiographs that lie on a side or upside down before the models look; boxes and masks are in the file's own
    pixels all the same."""
    sizes: str = ""
    """Original sizes of PNG and JPEG files that were made smaller, so that boxes and masks are in original pixels: a
    CSV file of any name (a column of ids or file names; width,height or dim1,dim0 or columns,rows), WIDTHxHEIGHT for
    all of them, or none where they are the originals. Default: test_meta.csv, train_meta.csv, or such columns of
    test.csv, train.csv or sample_submission.csv, in or above the data."""
    sample_submission: str = ""
    """CSV whose image_id column gives the submission's rows; default: sample_submission.csv in or above the data."""
    submission: Literal["auto", "fisabio"] = "auto"
    """What submission.csv is: auto, VinBigData's or SIIM-ACR's, as the models' categories are; fisabio, that of
    SIIM-FISABIO-RSNA COVID-19 with a row a study and a row a radiograph, from a detector of opacity and, for the
    studies, a classifier of what xray convert fisabio made. Files are then <study>/<series>/<radiograph>.dcm."""
    split: str = ""
    """Of a dataset directory: only this split, train, val or test."""
    fold: Annotated[int, Interval(ge=-1, le=99)] = -1
    """Of a dataset directory: only this fold, from 0; -1 is all."""
    precision: Literal["auto", "32", "bf16", "16", "int8"] = "auto"
    """What convolutions are computed in. auto: bf16 on GPUs that have it; on CPUs the fastest of 32, bf16 and, where
    tools/export.py left models of OpenVINO beside the weights, int8, of which a trial on the first 32 radiographs finds
    that metrics move by less than 0.003. What it found is kept in RUN/precision.json, for this processor and these
    weights, and not tried again; jobs of fewer than 64 radiographs make no trial. int8: OpenVINO in 8-bit integers on
    the CPU; the model is made once, with the dataset that the run was trained on, and used only if the metric held."""
    batch_size: int = 0
    """Radiographs per pass (0 to 4096); 0 chooses 2 on a CPU and as many as its memory allows on a GPU."""
    n_workers: Processes = os.cpu_count() or 1
    """Processes that decode files while the model works (0 to 512); 0 decodes in the main process."""
    timeout: Annotated[float, Interval(gt=0, le=86_400)] = 60.0
    """Seconds that one file may take to decode, above 0 and up to 86400."""
    overwrite: bool = False
    """Replace the predictions that OUT holds."""
    runtime: Literal["auto", "torch", "onnx", "openvino"] = "auto"
    """What runs the models. auto: PyTorch, or what --precision chooses. onnx and openvino take the files of
    tools/export.py; for OpenVINO one is made where there is none."""
    engine: Literal["local", "ray"] = "local"
    """Who decodes and runs the models: local, this machine; ray, the nodes of a Ray cluster. Both write the same bytes;
    pictures, reports and tables are written by this machine in any case."""
    address: str = ""
    """HOST:PORT of the Ray cluster's head node, or auto for the one that this machine belongs to; by default Ray is
    started on this machine."""
    cores_per_actor: Processes = 0
    """Cores of each Ray actor (1 to 512), which decodes with as many processes; 0 chooses 1, and where nodes have GPUs,
    of which each actor gets one, a GPU's share of the cores."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config, brought: "Fetched | None" = None) -> int:
    """Exit status 0, or 1 if a radiograph could not be read. brought: what another DICOM node has put into its
    data_path."""
    check(config)
    if config.runtime == "onnx":
        need("--runtime onnx", "export", "onnx", "onnxruntime")
    elif config.runtime == "openvino" or config.precision == "int8":
        need("--runtime openvino" if config.runtime == "openvino" else "--precision int8", "openvino", "openvino")
    out = Path(config.save_path)
    check_out(config)
    if is_of_node(config):
        return of_node(config)

    from xray.datasets.inputs import open_inputs
    from xray.structures.submission import rows_of_submission

    data = Path(config.data_path)
    beside = [Path(config.sample_submission)] if config.sample_submission else []
    part = (config.split or None, None if config.fold < 0 else config.fold)
    inputs = open_inputs(data, *part, config.sizes, beside, apart=out)
    is_fisabio = config.submission == "fisabio"
    # Of that challenge all radiographs count, and its sample submission names studies as well.
    order = list(inputs.ids) if is_fisabio else rows_of_submission(data, inputs.ids, config.sample_submission)
    inputs = gated(config, inputs)
    truth = truth_of(config, inputs)
    if skipped := len(inputs) - len(set(inputs.ids).intersection(order)):
        print(f"{skipped} radiographs are not in the sample submission and are left out", file=sys.stderr)
        inputs = inputs.only(set(order))

    # torch last: what is wrong with the input has been said by now.
    from xray.models.compiler import without_compiler

    with without_compiler():
        importlib.import_module("torchvision")
    from xray.inference.ensemble_file import files_of
    from xray.inference.prediction_journal import PredictionJournal
    from xray.inference.thresholds import say, thresholds_of
    from xray.inference.unfinished import unfinished
    from xray.outputs.fisabio import FisabioSubmission
    from xray.outputs.made_by import made_by_models, radiographs_of
    from xray.outputs.results import WARNINGS, kind_of_submission, warnings_of, what_was_written, write_results
    from xray.radiographs.file_warnings import print_warnings
    from xray.structures.made_by import write_made_by
    from xray.structures.probability_maps import INDEX
    from xray.structures.thresholds import in_force

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
    fisabio = FisabioSubmission(data, inputs, pipeline.categories, config.sample_submission) if is_fisabio else None
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
        failures = [
            (inputs.ids[at], file, why.removeprefix(f"{file}: "))
            for p in journal.portions()
            for at, file, why in p.failures
        ]
        absent = set(order).difference(inputs.ids)
        failures += [(name, "", "no such file") for name in order if name in absent]
        order, failures, left_out = with_unretrieved(data, order, failures, brought)
        if not config.probabilities:
            # Maps of an earlier command would be taken for these predictions'.
            (out / INDEX).unlink(missing_ok=True)
        kind = "" if fisabio else kind_of_submission(pipeline)
        if fisabio:
            fisabio.write(out / SUBMISSION, journal)
        warnings = warnings_of(inputs, journal) + left_out
        # What nothing is drawn by is no warning.
        counted_by = fitted or thresholds_of(runs, warn=lambda line: None)
        shown = in_force(counted_by, config.overlay_threshold if config.overlays else None, config.threshold)
        n_boxes = write_results(out, journal, order, pipeline.categories, kind, failures, warnings, shown)
        settings = settings_for(config, pipeline, inputs, journal)
        made_by = made_by_models(files_of(runs), settings, radiographs_of(inputs.ids, inputs.store, *part))
        write_made_by(out, (PREDICTIONS, SUBMISSION, LABELS), made_by)
        n_unsent = send_back(config, dicom_results, inputs) if dicom_results and config.return_to else 0
        if not n_unsent:
            # Or the same command, given again, sends the rest.
            journal.remove()
    if dicom_results is not None:
        failed = {name for name, *_ in failures}
        read = [(n, path) for n, path in zip(inputs.ids, inputs.paths, strict=True) if n not in failed]
        print(*dicom_results.summary(out, read), sep="\n")
    print_warnings([warning for _, warning in warnings], str(out / WARNINGS))
    has_submission, is_of_masks = bool(kind or fisabio), bool(pipeline.segmenters) and not pipeline.detectors
    n_read = len(order) - len(failures)
    print(what_was_written(out, n_read, n_boxes, shown, has_submission, config.overlays, is_of_masks))
    if failures:
        refused = " or were refused" if inputs.gate.mode == "refuse" else ""
        print(
            f"error: {len(failures)} of {len(order)} radiographs could not be read{refused} (the first, "
            f"{failures[0][1] or failures[0][0]}: {failures[0][2]}): see {out / 'failures.csv'}",
            file=sys.stderr,
        )
    return 1 if failures or n_unsent else 0


def of_node(config: Config) -> int:
    """Runs over what another DICOM node has of a study, and says in OUT/studies.csv which radiograph is what."""
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
    check_part(config.split, None if config.fold < 0 else config.fold)
    check_dicomweb(config)
    check_node(config)
    if config.truth and not config.overlays:
        raise FlagError("--truth is drawn by --overlays: add that, or leave --truth out")


def check_out(config: Config) -> None:
    """Raises InputError if --save-path cannot be written to, or holds predictions that are to stay."""
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
    """The same with --gate-image and --upright. Raises FlagError where these are for files, and there are none."""
    from xray.radiographs.image_check import Gate

    if inputs.store is None:
        return dataclasses.replace(inputs, gate=Gate(config.gate_image, config.upright))
    if config.gate_image == "refuse" or config.upright:
        flag = "--upright" if config.upright else "--gate-image refuse"
        raise FlagError(f"{flag} is for files, and {config.data_path} is a dataset directory: leave it out")
    return inputs


def truth_of(config: Config, inputs: "Inputs") -> "Store | None":
    """The dataset with the truth to draw, None where there is none. Raises InputError if --truth has none of them."""
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
