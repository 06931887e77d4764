"""infer from and to a PACS that speaks DICOMweb: Orthanc with its plugin, on loopback."""

import csv
import io
import stat

import numpy as np
import pydicom
import pytest
from dicomweb_cases import Fake, answer_of, archive
from orthanc_server import Orthanc
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless

from xray.commands.infer import STAY_REMOTE, Config, check, check_out, main
from xray.errors import FlagError, InputError
from xray.inference.prediction_journal import PredictionJournal
from xray.phantoms.dicom import Storage, dicom_of, save_dicom
from xray.radiographs.file_warnings import NOT_RETRIEVED, OWN_PICTURE
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


def test_what_one_search_finds_is_retrieved(pacs, segmentation_run, tmp_path, auth, cache, capsys):
    orthanc, _ = pacs
    search = f"{orthanc.address}/studies?AccessionNumber=B2&ModalitiesInStudy=CR"
    assert infer(search, segmentation_run, tmp_path / "out", dicomweb_auth=auth, sr=True) == 0
    assert list(read_predictions(tmp_path / "out" / "predictions.json").image_ids) == [f"{OTHER_STUDY}.1.1"]
    said = capsys.readouterr()
    assert "B2" not in said.out + said.err
    for address, line in (
        (f"{orthanc.address}/studies?AccessionNumber=none", "has no objects"),
        (f"{orthanc.address}/studies/{STUDY}/series/{STUDY}.2", "holds no radiographs, but 2 CT"),
    ):
        with pytest.raises(InputError, match=line):
            infer(address, segmentation_run, tmp_path / "none", dicomweb_auth=auth)
    assert left_in(cache) == []
    with pytest.raises(InputError, match=r"no permission for .* \(401\): give --dicomweb-auth"):
        infer(f"{orthanc.address}/studies/{STUDY}", segmentation_run, tmp_path / "none")
    assert left_in(cache) == []
    assert not (tmp_path / "none").exists()


def test_an_interrupted_command_goes_on_and_leaves_nothing_in_the_end(
    pacs, segmentation_run, tmp_path, auth, cache, capsys, monkeypatch
):
    orthanc, _ = pacs
    add, done = PredictionJournal.add, []

    def add_one(self, portion):
        if done:
            raise KeyboardInterrupt
        add(self, portion)
        done.append(portion.stop)

    study, options = f"{orthanc.address}/studies/{STUDY}", {"dicomweb_auth": auth, "sr": True}
    with monkeypatch.context() as patch:
        patch.setattr(PredictionJournal, "add", add_one)
        with pytest.raises(KeyboardInterrupt):
            infer(study, segmentation_run, tmp_path / "out", **options)
    (home,) = (cache / "dicomweb").iterdir()
    assert f"what was retrieved stays in {home} for the same command" in capsys.readouterr().err
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert infer(study, segmentation_run, tmp_path / "out", **options) == 0
    said = capsys.readouterr().err
    assert "continuing after 1 of 3 radiographs" in said
    assert "retrieving" not in said
    assert left_in(cache) == []


@pytest.fixture
def fake():
    with Fake().running() as fake:
        yield fake


def test_an_object_that_an_archive_does_not_give_is_a_failure_and_no_normal_radiograph(
    fake, segmentation_run, tmp_path, cache, capsys
):
    files = {path.stem: path.read_bytes() for path in (write_image(tmp_path / "raw", n, "1.2.3") for n in (1, 2))}
    rule = archive(files | {"1.2.3.1.9": b""})
    fake.rule = lambda method, path: None if path.endswith("1.2.3.1.9") else rule(method, path)
    assert infer(f"{fake.address}/studies/1.2.3", segmentation_run, tmp_path / "out") == 1
    assert list(read_predictions(tmp_path / "out" / "predictions.json").image_ids) == ["1.2.3.1.1", "1.2.3.1.2"]
    with (tmp_path / "out" / "failures.csv").open() as file:
        (failure,) = csv.DictReader(file)
    assert failure["image_id"] == "1.2.3.1.9"
    assert "there is nothing at this address" in failure["reason"]
    first = "1 of 3 radiographs could not be read (the first, 1.2.3/1.2.3.1/1.2.3.1.9.dcm: object 1.2.3.1.9: "
    assert first in capsys.readouterr().err
    assert left_in(cache) == []


def test_what_was_not_stored_is_named_and_sent_by_the_same_command(fake, segmentation_run, tmp_path, capsys, waits):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for number in (1, 2, 3):
        write_image(raw, number, "1.2.3")
    options = {"return_to": fake.address, "sr": True, "fhir": True}
    sent = []

    def rule(method, path):
        body = fake.requests[-1][3]
        uid = pydicom.dcmread(
            io.BytesIO(body[body.index(b"\r\n\r\n") + 4 :]), specific_tags=["SOPInstanceUID"]
        ).SOPInstanceUID
        sent.append(uid)
        return answer_of([], [(uid, 0xA700)], 409) if len(sent) == 2 else answer_of([uid])

    fake.rule = rule
    assert infer(raw, segmentation_run, out, **options) == 1
    said = capsys.readouterr()
    assert "1 SR not stored, 2 SR stored" in said.out
    assert "error: 1 of 3 objects were not stored (first SR of 1.2.3.1.2: out of resources (A700))" in said.err
    with (out / "returned.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["stored", "not stored", "stored"]
    # The archive is away: the findings are there all the same.
    fake.answers = [(503, {}, b"")] * 6
    with pytest.raises(InputError, match=r"is busy \(503\), 6 times\. The findings are in .*sends the rest"):
        infer(raw, segmentation_run, out, **options)
    assert (out / "predictions.json").exists()
    assert infer(raw, segmentation_run, out, **options) == 0
    assert "continuing after 3 of 3 radiographs" in capsys.readouterr().err
    assert sent[3:] == [sent[1]]
    assert sorted(path.name for path in out.iterdir() if path.suffix == ".part") == []
    with pytest.raises(InputError, match="holds predictions already"):
        infer(raw, segmentation_run, out, **options)


def test_what_other_findings_have_replaced_is_sent_too(fake, segmentation_run, tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for number in (1, 2):
        write_image(raw, number, "1.2.3")
    sent = []

    def rule(method, path):
        body = fake.requests[-1][3]
        sent.append(str(pydicom.dcmread(io.BytesIO(body[body.index(b"\r\n\r\n") + 4 :])).SOPInstanceUID))
        return answer_of([], [(sent[-1], 0xA700)], 409) if len(sent) == 2 else answer_of(sent[-1:])

    fake.rule = rule
    assert infer(raw, segmentation_run, out, return_to=fake.address, sr=True) == 1
    assert infer(raw, segmentation_run, out, return_to=fake.address, sr=True, threshold=0.9, overwrite=True) == 0
    assert "2 SR stored" in capsys.readouterr().out
    there = {str(pydicom.dcmread(path).SOPInstanceUID) for path in (out / "sr").iterdir()}
    assert set(sent[2:]) == there
    assert not there & set(sent[:2])
    with (out / "returned.csv").open() as file:
        assert {row["sop_instance_uid"] for row in csv.DictReader(file)} == there


@pytest.fixture
def waits(monkeypatch):
    from xray.storage.dicomweb import client

    waits = []
    monkeypatch.setattr(client, "sleep", lambda seconds, stopped=None: waits.append(seconds))
    return waits


@pytest.mark.parametrize(
    ("data", "changes", "line"),
    [
        ("https://h/dicom-web", {}, "names no part of an archive"),
        ("https://h/dicom-web/studies/1.2", {"split": "val"}, "not for an archive"),
        ("raw", {"return_to": "pacs"}, "--return is"), ("raw", {"ca": "x"}, "--ca is for a --data-path or a --return"),
        ("raw", {"dicomweb_auth": "x"}, "--dicomweb-auth is for"),
        ("https://h/studies/1.2", {"ca": "/none"}, "--ca /none cannot be used"),
        ("https://h/studies/1.2", {"dicomweb_auth": "/none"}, "--dicomweb-auth /none cannot be read"),
        ("https://h/studies/1.2", {"dicomweb_timeout": 0.0}, "--dicomweb-timeout is 0"),
        ("https://u:p@h/studies/1.2", {}, "holds a user or a password"),
    ],
)  # fmt: skip
def test_wrong_flags_are_named_before_anything_is_asked(data, changes, line, tmp_path):
    with pytest.raises(FlagError, match=line):
        infer(data, tmp_path / "run", tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_what_came_back_to_the_archive_is_not_analysed_again(pacs, segmentation_run, tmp_path, auth, capsys):
    orthanc, _ = pacs
    options = {"return_to": orthanc.address, "dicomweb_auth": auth, "report_threshold": 0.0}
    study, kinds = f"{orthanc.address}/studies/{OTHER_STUDY}", {"sr": True, "seg": True, "gsps": True, "sc": True}
    assert infer(study, segmentation_run, tmp_path / "out", **options, **kinds) == 0
    assert "1 GSPS stored, 1 SC stored, 1 SEG stored, 1 SR stored" in capsys.readouterr().out
    assert infer(study, segmentation_run, tmp_path / "again", sr=True, dicomweb_auth=auth) == 0
    said = capsys.readouterr().err
    assert "2 objects may be radiographs; left out: 1 PR, 1 SEG, 1 SR" in said
    assert "1 of them left out: pictures of findings, made by xray" in said
    assert list(read_predictions(tmp_path / "again" / "predictions.json").image_ids) == [f"{OTHER_STUDY}.1.1"]
    with (tmp_path / "again" / "warnings.csv").open() as file:
        told = [(row["warning"], row["detail"]) for row in csv.DictReader(file)]
    assert [detail for kind, detail in told if kind == NOT_RETRIEVED] == ["1 PR", "1 SEG", "1 SR"]
    assert [kind for kind, _ in told].count(OWN_PICTURE) == 1
    assert not (tmp_path / "again" / "failures.csv").exists()
