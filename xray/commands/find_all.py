"""What the command infer does with the radiographs: finds, draws, reports, and keeps what is done."""

import contextlib
import dataclasses
import hashlib
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from xray.errors import InputError, need
from xray.file_names import ANNOTATIONS, IMAGES, MODEL_FILE, WEIGHTS_FILE
from xray.storage.places import as_given

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xray.cluster.ray import Cluster
    from xray.commands.infer_flags import Config
    from xray.datasets.inputs import Inputs
    from xray.datasets.store import Store
    from xray.inference.pipeline import Pipeline
    from xray.inference.prediction_journal import PredictionJournal
    from xray.inference.streaming import Batch
    from xray.inference.ways import Models, Start, Way
    from xray.outputs.dicom.results import DicomResults
    from xray.structures.thresholds import Thresholds


def dicom_results_of(
    config: "Config", inputs: "Inputs", pipeline: "Pipeline", way: "Way", fitted: "Thresholds | None" = None
) -> "DicomResults | None":
    """The writer of DICOM objects and FHIR, None where none is asked for. Raises InputError for a dataset directory."""
    wanted = {kind: getattr(config, kind) for kind in ("sr", "seg", "gsps", "sc", "fhir")}
    if not any(wanted.values()):
        return None
    flags = " ".join(f"--{kind}" for kind, is_wanted in wanted.items() if is_wanted)
    if inputs.store is not None:
        raise InputError(
            f"{flags}: these refer to DICOM files, and {config.data_path} is a dataset directory: give the files"
        )
    if flags != "--fhir":
        need(flags, "dicom-out", "highdicom")
    from xray.inference.ensemble_file import files_of, is_ensemble
    from xray.outputs.dicom.objects import inference_algorithm
    from xray.outputs.dicom.results import DicomResults
    from xray.structures.thresholds import in_force

    runs = files_of([Path(run) for run in config.weights])
    if way.runtime == "onnx":
        from xray.inference.onnx_runtime import onnx_file

        runs = [onnx_file(run) for run in runs]
    elif way.runtime == "openvino":
        from xray.inference.openvino_files import openvino_file

        runs = [run if is_ensemble(run) else openvino_file(run, way.precision) for run in runs]
    triplet = dataclasses.astuple(pipeline.triplet) if pipeline.segmenters else ()
    threshold, thresholds = in_force(fitted, config.report_threshold, config.threshold)
    described = threshold if thresholds is None else thresholds.description
    settings = (config.tta, config.gate, triplet, config.scales, config.upright)
    hard_gate, prune = pipeline.hard_gate, config.prune or None
    algorithm = inference_algorithm(runs, described, *settings, gate_threshold=hard_gate, prune=prune)
    map_labels = tuple(pipeline.segmenters[0].categories) if pipeline.segmenters else ()
    return DicomResults(algorithm, threshold, thresholds=thresholds, map_labels=map_labels, **wanted)


def load_models(config: "Config", n_radiographs: int) -> "tuple[Pipeline, Models, Start]":
    """The models that the flags name, made and loaded in the way in which so many radiographs are best begun."""
    from xray.export.ready import make_ready
    from xray.inference.ways import Models
    from xray.models.device import keep_freed_memory

    models = Models.of_flags(config)
    make_ready(models)
    start = models.start(n_radiographs)
    pipeline = models.load(start.way)
    if pipeline.device.type == "cpu":
        # Not before: what loading frees goes back to the system.
        keep_freed_memory()
    return pipeline, models, start


def find_all(
    pipeline: "Pipeline",
    inputs: "Inputs",
    journal: "PredictionJournal",
    truth: "Store | None",
    config: "Config",
    dicom_results: "DicomResults | None",
    models: "Models",
    start: "Start",
    cluster: "Cluster | None" = None,
    fitted: "Thresholds | None" = None,
) -> None:
    """Finds what the radiographs show that are not in the journal yet; writes the journal, their maps and pictures.

    pipeline: what `models.load(start.way)` gave.
    """
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from xray.datasets.originals import enlarged
    from xray.inference.precision import choose_precision, choose_precision_by_trial, trial_size
    from xray.inference.streaming import consecutive, portion_of, radiographs, run
    from xray.outputs.results import map_writer, save_overlay
    from xray.radiographs.decoding import whole_of
    from xray.radiographs.names import inside, safe_path
    from xray.structures.thresholds import in_force

    drawn = in_force(fitted, config.overlay_threshold, config.threshold)
    out, begin = Path(config.save_path), journal.done
    rest = inputs.only(set(inputs.ids[begin:]))
    if cluster is None:
        chosen = choose_precision(pipeline, journal, models, start, config.batch_size)
        pipeline, batch_size, undecided = chosen
    maps = map_writer(out, pipeline, journal) if config.probabilities else None
    columns = (*Progress.get_default_columns()[:3], MofNCompleteColumn(), TimeRemainingColumn())

    def write(batch: "Batch") -> None:
        portion = portion_of(batch, begin)
        for number, item in enumerate(batch.decoded):
            position = begin + item.index
            if maps is not None and batch.findings.maps is not None:
                maps.add(position, item.width, item.height, batch.findings.maps[number], portion.labels[position])
            if not config.overlays and dicom_results is None:
                continue
            name, findings = inputs.ids[position], batch.findings.of(number, pipeline.categories)
            findings = dataclasses.replace(findings, notes=inputs.gate.warnings_of(item.check))
            if config.overlays:
                pixels = getattr(item, "pixels", None)
                pixels = inputs.pixels(position) if pixels is None else enlarged(pixels, item.width, item.height)
                path = inside(out, f"overlays/{safe_path(name)}.png")
                save_overlay(path, name, pixels, findings, truth, *drawn)
            if dicom_results is not None:
                dicom_results.write(out, name, inputs.paths[position], findings, whole_of(item))
        if dicom_results is not None:
            for position, *_ in portion.failures:
                dicom_results.discard(out, inputs.ids[position])
        # Last, since it says that the radiographs are done.
        journal.add(portion)
        progress.update(task, completed=portion.stop)

    keeps_pixels = config.overlays or (dicom_results is not None and dicom_results.need_pixels)
    items = radiographs(rest, pipeline.canvas_size, config.n_workers, config.timeout, keeps_pixels, pipeline.bits)
    with contextlib.closing(items), Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("radiographs", total=len(inputs), completed=begin)
        if cluster is not None:
            for batch in batches_of_cluster(cluster, config, rest, journal):
                write(batch)
        else:
            stream = consecutive(items, batch_size)
            if undecided:
                tried = list(itertools.islice(stream, trial_size(len(inputs), batch_size)))
                stream = itertools.chain(tried, stream)
                first = [item for batch in tried for item in batch]
                pipeline = choose_precision_by_trial(pipeline, journal, models, first, batch_size, len(inputs))
            run(pipeline, stream, write)
    if maps is not None:
        maps.close()


def batches_of_cluster(
    cluster: "Cluster", config: "Config", inputs: "Inputs", journal: "PredictionJournal"
) -> "Iterator[Batch]":
    """The findings of the nodes in the remaining radiographs, in order."""
    from xray.cluster.inference import Plan, choose_precision_for_all, device_for, find
    from xray.structures.triplet import Triplet

    plan = Plan(
        runs=tuple(Path(run).absolute() for run in config.weights),
        device=device_for(cluster, config.device),
        flips=config.tta,
        gate=config.gate,
        gate_threshold=config.gate_threshold,
        triplet=Triplet(*config.triplet) if config.triplet else None,
        prune=config.prune,
        precision=config.precision,
        batch_size=config.batch_size,
        timeout=config.timeout,
        store=None if inputs.store is None else Path(config.data_path).absolute(),
        maps=config.probabilities or config.seg == "fractional",
        scales=config.scales,
        gate_image=inputs.gate,
    )
    return find(choose_precision_for_all(plan, cluster, inputs, journal, len(journal.image_ids)), cluster, inputs)


def settings_for(
    config: "Config", pipeline: "Pipeline", inputs: "Inputs", journal: "PredictionJournal"
) -> dict[str, object]:
    """The settings that made_by.json names: those that decide what is found."""
    from xray.outputs.made_by import settings_of

    gate = None if inputs.store is not None else inputs.gate.mode
    # A cluster notes no runtime; without a radiograph there is no choice.
    chosen = {"runtime": "torch", "precision": None} | (journal.choices or {})
    way = {name: chosen[name] for name in ("runtime", "precision")}
    return settings_of(pipeline, prune=config.prune, upright=config.upright, gate_image=gate, **way)


def fingerprint_of(config: "Config", inputs: "Inputs", fitted: "Thresholds | None" = None) -> dict[str, object]:
    """Everything that decides the findings: a command resumes the journal of another only if these are equal."""
    from xray.inference.ensemble import FUSION_IOU, FUSION_SCORE
    from xray.inference.ensemble_file import files_of
    from xray.inference.prediction_journal import stamp

    without_effect = {"n_workers", "timeout", "overwrite", "debug", "engine", "address", "cores_per_actor"}
    without_effect |= {"return_to", "dicomweb_auth", "ca", "dicomweb_timeout"}
    # What these hold counts.
    without_effect |= {"weights", "data_path", "save_path", "sample_submission", "sizes", "submission"}
    fingerprint = {name: value for name, value in dataclasses.asdict(config).items() if name not in without_effect}
    # Another version of xray may fuse views and models in another way: half of each would be neither.
    fingerprint["how xray fuses"] = [FUSION_SCORE, FUSION_IOU]
    if fitted is not None:
        fingerprint["thresholds"] = fitted.digest
    names: tuple[str, ...] = (MODEL_FILE, "model.onnx" if config.runtime == "onnx" else WEIGHTS_FILE)
    if config.runtime == "openvino" or config.precision == "int8":
        names += ("openvino.xml", "openvino-int8.xml")
    runs = files_of([Path(run) for run in config.weights])
    files = [file for run in runs for file in ([run] if run.is_file() else [run / name for name in names])]
    # As a hash: what an interrupted command leaves must not tell where on whose machine it ran.
    places = [hashlib.sha256(os.fsencode(as_given(path.absolute()))).hexdigest() for path in files]
    fingerprint["weights"] = [(place, stamp(path)) for place, path in zip(places, files, strict=True)]
    digest = hashlib.sha256()
    for number, name in enumerate(inputs.ids):
        content = stamp(inputs.paths[number]) if inputs.rows is None else int(inputs.rows[number])
        digest.update(repr((name, content)).encode())
    of_store = [stamp(Path(config.data_path) / name) for name in (ANNOTATIONS, IMAGES)]
    if inputs.originals:
        fingerprint["sizes"] = hashlib.sha256(repr(inputs.originals).encode()).hexdigest()
    fingerprint["data_path"] = (of_store if inputs.store is not None else [], digest.hexdigest())
    return fingerprint
