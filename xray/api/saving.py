"""What `Results.save` writes: predictions, pictures, and DICOM objects."""

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
    results: Results, folder: Path, overlays: bool, sr: bool, seg: bool, threshold: float, overwrite: bool
) -> list[Path]:
    """`Results.save`."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder")
    if (folder / PREDICTIONS).exists() and not overwrite:
        raise InputError(f"{folder} holds predictions already: give another folder, or overwrite=True")
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold is {threshold}: it must lie between 0 and 1")
    objects: DicomResults | None = None
    references: dict[str, Dataset | None] = {}
    if (sr or seg) and len(results):
        objects = _dicom_results(results[0].finder, threshold, sr, seg)
        references = {result.id: _reference(result.origin) for result in results}
        if not any(reference is not None for reference in references.values()):
            raise InputError("sr and seg refer to DICOM images, and none of these radiographs is one")
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for result in results:
        if overlays:
            written.append(inside(folder, f"overlays/{safe_path(result.id)}.png"))
            findings = (result.rows, result.segmentations, result.finder.categories)
            save_overlay(written[-1], result.id, result.pixels, *findings, truth=None, threshold=threshold)
        if objects is not None:
            written += _save_objects(folder, result, objects, references[result.id])
    categories = {number: name for result in results for number, name in result.finder.categories.items()}
    write_predictions(folder / PREDICTIONS, results.to_predictions(), categories)
    return [*written, folder / PREDICTIONS]


def _dicom_results(finder: Finder, threshold: float, sr: bool, seg: bool) -> DicomResults:
    if seg and not finder.has_masks:
        raise InputError("seg writes the masks of segmenters, and none was loaded")
    if not finder.runs:
        raise InputError("sr and seg name the models that found something, which are not known of fused results")
    need("sr or seg", "dicom-out", "highdicom")
    algorithm = inference_algorithm(finder.runs, threshold, finder.mirrored, finder.gate, finder.triplet, finder.scales)
    return DicomResults(finder.categories, algorithm, threshold, sr, seg)


def _reference(origin: Origin) -> Dataset | None:
    """What SR and SEG need to know of a radiograph; None where it is no DICOM image that says which it is."""
    if origin.path is None:
        return origin.reference
    return read_source(origin.path) if fault_of_source(origin.path) is None else None


def _save_objects(folder: Path, result: Result, objects: DicomResults, reference: Dataset | None) -> list[Path]:
    # Of findings that are not these.
    objects.discard(folder, result.id)
    if reference is None:
        return []
    written = []
    for kind, dataset in objects.of(reference, result.rows, result.segmentations, result.classified).items():
        written.append(object_path(folder, kind, result.id))
        save_object(written[-1], dataset)
    return written
