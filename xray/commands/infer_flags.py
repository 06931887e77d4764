"""The flags of infer."""

import dataclasses
import os
from typing import Annotated, Literal

import tyro
from annotated_types import Interval

from xray.flags import Processes, Share, alone_or_one_of


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
    """CSV whose image_id column gives the submission's rows; default: sample_submission.csv in or above the data; where
    --data-path is a single file, its own row alone."""
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


def part_of(config: Config) -> tuple[str | None, int | None]:
    """The split and the fold of a dataset directory that are asked for, each None for all."""
    return config.split or None, None if config.fold < 0 else config.fold
