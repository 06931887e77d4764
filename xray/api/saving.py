"""What `Results.save` writes: predictions, pictures, and DICOM objects."""

from collections.abc import Mapping
from pathlib import Path

from pydicom.dataset import Dataset

from xray.api.origin import Origin
from xray.api.results import Finder, Result, Results
from xray.errors import InputError, need
from xray.outputs.dicom.objects import inference_algorithm, read_source, save_object
from xray.outputs.dicom.results import DicomResults, fault_of_source, object_path
from xray.outputs.results import save_overlay
from xray.radiographs.names import inside, safe_path
from xray.structures.predictions import write_predictions

PREDICTIONS = "predictions.json"


def save_results(
    results: Results,
    folder: Path,
    overlays: bool,
    wanted: Mapping[str, bool],
    threshold: float | None,
    overwrite: bool,
) -> list[Path]:
    """`Results.save`. wanted: kinds of DICOM objects, "sr" … → whether they are wanted."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder")
    if (folder / PREDICTIONS).exists() and not overwrite:
        raise InputError(f"{folder} holds predictions already: give another folder, or overwrite=True")
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"threshold is {threshold}: it must lie between 0 and 1")
    objects: DicomResults | None = None
    references: dict[str, Dataset | None] = {}
    if any(wanted.values()) and len(results):
        objects = _dicom_results(results[0].finder, threshold, wanted)
        references = {result.id: _reference(result.origin) for result in results}
        if not any(reference is not None for reference in references.values()):
            raise InputError(f"{_said(wanted)} refer to DICOM images, and none of these radiographs is one")
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for result in results:
        if overlays:
            written.append(inside(folder, f"overlays/{safe_path(result.id)}.png"))
            findings = (result.rows, result.segmentations, result.finder.categories)
            lowest, thresholds = result.finder.shown(threshold)
            save_overlay(written[-1], result.id, result.pixels, *findings, None, lowest, thresholds)
        if objects is not None:
            written += _save_objects(folder, result, objects, references[result.id])
    categories = {number: name for result in results for number, name in result.finder.categories.items()}
    write_predictions(folder / PREDICTIONS, results.to_predictions(), categories)
    return [*written, folder / PREDICTIONS]


def _dicom_results(finder: Finder, threshold: float | None, wanted: Mapping[str, bool]) -> DicomResults:
    if wanted.get("seg") and not finder.has_masks:
        raise InputError("seg writes the masks of segmenters, and none was loaded")
    if not finder.runs:
        what = f"{_said(wanted)} name the models that found something"
        raise InputError(f"{what}, which are not known of fused results")
    need(_said(wanted), "dicom-out", "highdicom")
    lowest, fitted = finder.shown(threshold)
    described = lowest if fitted is None else fitted.description
    algorithm = inference_algorithm(finder.runs, described, finder.mirrored, finder.gate, finder.triplet, finder.scales)
    return DicomResults(finder.categories, algorithm, lowest, thresholds=fitted, **wanted)


def _said(wanted: Mapping[str, bool]) -> str:
    return ", ".join(kind for kind, is_wanted in wanted.items() if is_wanted)


def _reference(origin: Origin) -> Dataset | None:
    """What DICOM objects need to know of a radiograph; None where it is no DICOM image that says which it is."""
    if origin.path is None:
        return origin.reference
    return read_source(origin.path) if fault_of_source(origin.path) is None else None


def _save_objects(folder: Path, result: Result, objects: DicomResults, reference: Dataset | None) -> list[Path]:
    # Of findings that are not these.
    objects.discard(folder, result.id)
    if reference is None:
        return []
    written = []
    findings = (result.rows, result.segmentations, result.classified)
    radiograph = result.origin.radiograph() if objects.need_pixels else None
    for kind, dataset in objects.of(reference, *findings, radiograph).items():
        written.append(object_path(folder, kind, result.id))
        save_object(written[-1], dataset)
    return written
