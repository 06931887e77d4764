"""What `Results.save` writes: predictions, pictures, and DICOM objects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from xray.api.finder import Finder
from xray.api.made_by import made_by_results
from xray.api.origin import Origin
from xray.api.result import Result, findings_of
from xray.api.results import Results
from xray.api.savable import Savable
from xray.errors import InputError, need
from xray.file_names import PREDICTIONS
from xray.outputs.dicom.objects import inference_algorithm, read_source
from xray.outputs.dicom.results import DicomResults, fault_of_source
from xray.outputs.results import save_overlay
from xray.radiographs.names import inside, safe_path
from xray.structures.made_by import write_made_by
from xray.structures.predictions import write_predictions

WORDS = {"sr": ("comprehensive", "comprehensive3d"), "seg": ("binary", "fractional")}
"""Kind of DICOM objects → what it may be asked for as, beside True."""


def save_results(
    found: Savable,
    folder: Path,
    overlays: bool,
    wanted: Mapping[str, Any],
    threshold: float | None,
    overwrite: bool,
) -> list[Path]:
    """`Results.save`. wanted: kinds of objects, "sr" … → whether they are wanted, or as what."""
    results = Results([found]) if isinstance(found, Result) else found
    assert isinstance(results, Results)  # nothing else can be saved
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
        if objects.need_maps and any(result.maps is None for result in results):
            raise InputError('seg="fractional" writes probability maps: have them kept, by predict(…, maps=True)')
        if not any(reference is not None for reference in references.values()):
            raise InputError(f"{_said(wanted)} refer to DICOM images, and none of these radiographs is one")
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for result in results:
        if overlays:
            written.append(inside(folder, f"overlays/{safe_path(result.id)}.png"))
            shown = result.finder.shown(threshold)
            save_overlay(written[-1], result.id, result.pixels, findings_of(result), None, *shown)
        if objects is not None:
            written += _save_objects(folder, result, objects, references[result.id])
    categories = {number: name for result in results for number, name in result.finder.categories.items()}
    write_predictions(folder / PREDICTIONS, results.to_predictions(), categories)
    write_made_by(folder, (PREDICTIONS,), made_by_results(results))
    return [*written, folder / PREDICTIONS]


def _dicom_results(finder: Finder, threshold: float | None, wanted: Mapping[str, Any]) -> DicomResults:
    for kind, words in WORDS.items():
        if not isinstance(wanted[kind], bool) and wanted[kind] not in words:
            raise InputError(f"{kind} is {wanted[kind]!r}: give True, False, {' or '.join(map(repr, words))}")
    if wanted.get("seg") and not finder.has_masks:
        raise InputError("seg writes the masks of segmenters, and none was loaded")
    if not finder.runs:
        what = f"{_said(wanted)} name the models that found something"
        raise InputError(f"{what}, which are not known of fused results")
    if _said(wanted) != "fhir":
        need(_said(wanted), "dicom-out", "highdicom")
    lowest, fitted = finder.shown(threshold)
    described = lowest if fitted is None else fitted.description
    settings = (finder.mirrored, finder.gate, finder.triplet, finder.scales)
    algorithm = inference_algorithm(
        finder.runs,
        described,
        *settings,
        finder.upright,
        gate_threshold=finder.hard_gate,
        prune=finder.prune or None,
    )
    return DicomResults(algorithm, lowest, thresholds=fitted, map_labels=finder.map_labels, **wanted)


def _said(wanted: Mapping[str, Any]) -> str:
    return ", ".join(kind for kind, is_wanted in wanted.items() if is_wanted)


def _reference(origin: Origin) -> Dataset | None:
    """What DICOM objects need to know of a radiograph; None where it is no DICOM image that says which it is."""
    if origin.path is None:
        return origin.reference
    return read_source(origin.path) if fault_of_source(origin.path) is None else None


def _save_objects(folder: Path, result: Result, objects: DicomResults, reference: Dataset | None) -> list[Path]:
    radiograph = result.origin.radiograph() if objects.need_pixels and reference is not None else None
    return objects.write(folder, result.id, reference, findings_of(result), radiograph)
