"""What can be saved: one result, or several."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xray.outputs.dicom.results import SegKind, SrKind


class Savable:
    """One result, or several."""

    def save(
        self,
        folder: str | Path,
        *,
        overlays: bool = False,
        sr: "SrKind" = False,
        seg: "SegKind" = False,
        gsps: bool = False,
        sc: bool = False,
        fhir: bool = False,
        threshold: float | None = None,
        overwrite: bool = False,
    ) -> list[Path]:
        """Writes FOLDER/predictions.json, COCO results as `xray infer` writes them, made_by.json, which says what made
        them where one `load` did, or all that was fused is known, and what else is asked for.

        overlays: pictures, FOLDER/overlays/<id>.png. sr: structured reports, FOLDER/sr/<id>.dcm (TID 1500), True for
        Comprehensive SR or "comprehensive3d" for Comprehensive 3D SR. seg: masks as DICOM segmentations,
        FOLDER/seg/<id>.dcm, of which a radiograph without a mask has none; "fractional" for the probabilities of all
        that `predict(…, maps=True)` kept. gsps: what viewers draw over the image, FOLDER/gsps/<id>.dcm (presentation
        states); an image in colour has none. sc: the image with the findings drawn on it, FOLDER/sc/<id>.dcm (secondary
        captures). fhir: what a structured report says as HL7 FHIR R5, FOLDER/fhir/<id>.json. Radiographs that are no
        DICOM image, or do not say which one, have none of these.
        threshold: lowest confidence, in [0, 1], that overlays, reports and pictures show; None for what was fitted, or
            0.3.
        overwrite: replaces what is there.
        Returns the files, each written whole; predictions.json is the last, and made_by.json is not among them. Raises
        InputError if the folder holds predictions already, no radiograph is a DICOM image, or highdicom is not
        installed (for DICOM).
        """
        from xray.api.saving import save_results

        wanted = {"sr": sr, "seg": seg, "gsps": gsps, "sc": sc, "fhir": fhir}
        return save_results(self, Path(folder), overlays, wanted, threshold, overwrite)
