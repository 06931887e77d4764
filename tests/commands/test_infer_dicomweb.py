"""infer from and to a PACS that speaks DICOMweb: Orthanc with its plugin, on loopback."""

import csv

import numpy as np
import pydicom
import pytest
from orthanc_server import Orthanc
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless

from xray.commands.infer import STAY_REMOTE, Config, check, check_out, main
from xray.phantoms.dicom import Storage, dicom_of, save_dicom
from xray.storage.places import run_here
from xray.structures.predictions import read_predictions

pytest.importorskip("highdicom")
pytest.importorskip("urllib3")
pytestmark = pytest.mark.timeout(300)

STUDY, OTHER_STUDY = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"
PASSWORD = "open-sesame"


def write_image(path, number, study=STUDY, syntax=ExplicitVRLittleEndian, **elements):
    """A radiograph with a bright rectangle, which the segmenter takes for a pneumothorax."""
    rng = np.random.default_rng(number)
    pixels = rng.uniform(0.08, 0.23, (72, 80)).astype(np.float32)
    pixels[20:44, 30:60] = 0.82
    dataset = dicom_of(pixels, Storage(8, False, True, syntax, True), "Doe", 0.14, "M", 50, "PA", rng)
    elements = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "AccessionNumber": "A1"} | elements
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.SOPInstanceUID = f"{dataset.SeriesInstanceUID}.{number}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    path.mkdir(exist_ok=True)
    save_dicom(dataset, path / f"{dataset.SOPInstanceUID}.dcm")
    return path / f"{dataset.SOPInstanceUID}.dcm"


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    """An archive with two studies: one of three radiographs in three transfer syntaxes, and two slices of CT."""
    folder = tmp_path_factory.mktemp("orthanc")
    raw = folder / "raw"
    with Orthanc(folder / "orthanc", {"doctor": PASSWORD}) as orthanc:
        for number, syntax in enumerate((ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless), 1):
            orthanc.put(write_image(raw, number, syntax=syntax))
        for number in (1, 2):
            changes = {"Modality": "CT", "SOPClassUID": CTImageStorage, "SeriesInstanceUID": f"{STUDY}.2"}
            orthanc.put(write_image(raw, number, **changes))
        orthanc.put(write_image(raw, 1, OTHER_STUDY, AccessionNumber="B2"))
        yield orthanc, raw


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XRAY_CACHE", str(tmp_path / "cache"))
    for name in ("TOKEN", "USER", "PASSWORD"):
        monkeypatch.delenv(f"XRAY_DICOMWEB_{name}", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def auth(tmp_path):
    path = tmp_path / "auth"
    path.write_text(f"basic doctor:{PASSWORD}\n")
    path.chmod(0o600)
    return str(path)


def infer(data, run, out, **changes):
    options = {"device": "cpu", "n_workers": 0, "batch_size": 1, "tta": False, **changes}
    config = Config(weights=(str(run),), data_path=str(data), save_path=str(out), **options)
    return run_here(main, config, check, check_out, STAY_REMOTE)


def left_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_study_is_retrieved_and_its_results_are_stored_beside_it(
    pacs, segmentation_run, tmp_path, auth, cache, capsys
):
    orthanc, raw = pacs
    out, study = tmp_path / "out", f"{orthanc.address}/studies/{STUDY}"
    before = orthanc.modalities()
    options = {"return_to": orthanc.address, "dicomweb_auth": auth, "report_threshold": 0.0}
    assert infer(study, segmentation_run, out, **options) == 0
    said = capsys.readouterr()
    assert f"{study}: 3 objects may be radiographs; left out: 2 CT" in said.err
    assert f"{orthanc.address}: 3 SEG stored, 3 SR stored: {out / 'returned.csv'}" in said.out
    assert PASSWORD not in said.out + said.err
    # The same findings as in the files themselves.
    names = [f"{STUDY}.1.{number}" for number in (1, 2, 3)]
    assert infer(raw, segmentation_run, tmp_path / "local") == 0
    found, local = (read_predictions(tmp_path / name / "predictions.json") for name in ("out", "local"))
    assert list(found.image_ids) == names
    rows = np.isin(local.table.images, [local.image_ids.index(name) for name in names])
    np.testing.assert_array_equal(found.table.boxes, local.table.boxes[rows])
    after = orthanc.modalities()
    assert {kind: uids for kind, uids in after.items() if kind in before} == before
    with (out / "returned.csv").open() as file:
        returned = list(csv.DictReader(file))
    for kind in ("sr", "seg"):
        files = {path.stem: pydicom.dcmread(path).SOPInstanceUID for path in (out / kind).iterdir()}
        assert sorted(files) == names
        assert sorted(files.values()) == after[kind.upper()]
        assert {row["image_id"]: row["sop_instance_uid"] for row in returned if row["kind"] == kind} == files
    assert {row["status"] for row in returned} == {"stored"}
    with (out / "warnings.csv").open() as file:
        assert ("no radiograph, not retrieved", "2 CT") in [(r["warning"], r["detail"]) for r in csv.DictReader(file)]
    assert left_in(cache) == []
    # A second sending doubles nothing.
    assert infer(study, segmentation_run, tmp_path / "again", **options) == 0
    assert orthanc.modalities() == after
    assert "left out: 2 CT, 3 SEG, 3 SR" in capsys.readouterr().err
