"""Studies from other DICOM nodes: found by accession number, brought by C-GET or C-MOVE, from dcmqrscp and Orthanc."""

import csv
import dataclasses
import subprocess

import numpy as np
import pydicom
import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("highdicom")

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE, evt
from test_dicom_node import free_port, wait_for
from test_dicom_real_peers import Orthanc, end, listens, program

from xray.commands.infer import Config, check
from xray.errors import FlagError, InputError
from xray.phantoms.dicom import Storage, dicom_of
from xray.serving import dicom_query
from xray.serving.dicom_fetch import fetched, write_studies
from xray.serving.dicom_peers import Peer
from xray.serving.dicom_query import parse_query

STUDY = "dicom://PACS@127.0.0.1:104/?"


def test_addresses():
    query = parse_query("dicom://A%20B@pacs.example:11112/?AccessionNumber=A1&priors=2&aet=ME&port=4000&retrieve=move")
    assert query.peer == Peer("A B", "pacs.example", 11112)
    assert query.keys == {"AccessionNumber": "A1"}
    assert (query.priors, query.aet, query.port, query.retrieve) == (2, "ME", 4000, "move")
    assert parse_query("dicom://P@[::1]:104?StudyInstanceUID=1.2").keys == {"StudyInstanceUID": "1.2"}
    assert parse_query(f"{STUDY}PatientID=7&StudyDate=20200101-").keys["StudyDate"] == "20200101-"
    for wrong in (
        "",
        "AccessionNumber=",
        "AccessionNumber=A*",
        "AccessionNumber=A?",
        "AccessionNumber=A\\B",
        "AccessionNumber=A&AccessionNumber=B",
        "StudyDate=20200101",
        "PatientID=7&StudyDate=yesterday",
        "PatientName=Doe",
        "AccessionNumber=A&priors=-1",
        "AccessionNumber=A&priors=x",
        "AccessionNumber=A&port=70000",
        "AccessionNumber=A&retrieve=send",
        "AccessionNumber=A&aet=SEVENTEEN LETTERS",
        "AccessionNumber=A&tls-cert=a",
    ):
        with pytest.raises(FlagError, match="--data-path"):
            parse_query(STUDY + wrong)
    for wrong in ("dicom://PACS/?AccessionNumber=1", "dicom://PACS@host:104/studies?AccessionNumber=1"):
        with pytest.raises(FlagError, match="--data-path"):
            check(Config(weights=("run",), data_path=wrong, save_path="out"))
    with pytest.raises(FlagError, match="tls-cert"):
        parse_query("dicoms://PACS@host:104/?AccessionNumber=1")


def of_study(number, study, date, accession, series="1", syntax=ExplicitVRLittleEndian, **elements):
    """A radiograph of a patient's study, and of which series it is."""
    rng = np.random.default_rng(number)
    storage = Storage(12, False, True, syntax, True)
    pixels = rng.random((64, 80), dtype=np.float32)
    dataset = dicom_of(pixels, storage, f"image {number}", 0.14, "F", 40, "PA", rng)
    dataset.PatientName, dataset.PatientID = "Planted^Name", "planted-id"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"2.25.1{study}", f"2.25.1{study}{series}"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = date, "120000", accession
    dataset.SeriesNumber, dataset.InstanceNumber = int(series), number
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.fixture(scope="module")
def studies():
    """A patient's study of today with two views, one in JPEG 2000, beside something else; and two earlier ones."""
    report = of_study(9, 3, "20240301", "A3", series="9", Modality="SR")
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(report, keyword)
    lateral = of_study(2, 3, "20240301", "A3", series="2", syntax=JPEG2000Lossless)
    lateral.ViewPosition, lateral.SeriesDescription = "LL", "Chest lateral"
    return [
        of_study(1, 3, "20240301", "A3", SeriesDescription="Chest PA"),
        lateral,
        report,
        of_study(3, 2, "20230201", "A2"),
        of_study(4, 1, "20200101", "A1"),
        of_study(5, 4, "20250101", "A4"),
    ]


def fetch(tmp_path, address):
    """What comes: (UIDs of instances, rows of studies.csv)."""
    with fetched(parse_query(address), tmp_path / "out") as (folder, found):
        write_studies(tmp_path / "out", folder, found)
        files = {path.stem: pydicom.dcmread(path) for path in folder.rglob("*.dcm")}
    assert not (tmp_path / "out" / "studies.part").exists()
    with (tmp_path / "out" / "studies.csv").open(newline="") as file:
        return files, {row["image_id"]: row for row in csv.DictReader(file)}


def check_what_came(tmp_path, address, studies, capsys):
    first, lateral, _, prior, *_ = studies
    files, rows = fetch(tmp_path, f"{address}&priors=1")
    assert set(files) == set(rows) == {first.SOPInstanceUID, lateral.SOPInstanceUID, prior.SOPInstanceUID}
    # As the archive has it: a compressed file comes compressed.
    assert files[lateral.SOPInstanceUID].file_meta.TransferSyntaxUID == JPEG2000Lossless
    assert files[lateral.SOPInstanceUID].PixelData == lateral.PixelData
    assert rows[lateral.SOPInstanceUID]["view_position"] == "LL"
    assert rows[lateral.SOPInstanceUID]["series_description"] == "Chest lateral"
    assert {uid: row["is_prior"] for uid, row in rows.items()}[prior.SOPInstanceUID] == "1"
    said = capsys.readouterr().err
    assert "study of 20240301: 2 images, without 1 SR" in said
    assert "prior of 20230201: 1 images" in said
    assert "Planted" not in said


@pytest.mark.parametrize("how", ["get", "move"])
def test_orthanc_gives_a_study_and_its_prior(studies, tmp_path, capsys, how):
    program("Orthanc", "orthanc")
    port = free_port()
    with Orthanc(tmp_path / "orthanc", port) as orthanc:
        for number, dataset in enumerate(studies):
            dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
            orthanc.ask("/instances", (tmp_path / f"{number}.dcm").read_bytes())
        address = f"dicom://ORTHANC@127.0.0.1:{orthanc.port}/?AccessionNumber=A3&retrieve={how}&port={port}"
        check_what_came(tmp_path, address, studies, capsys)
        with pytest.raises(InputError, match="ORTHANC has no study of AccessionNumber A9"):
            fetch(tmp_path, address.replace("A3", "A9"))
        # It hangs up on a title that it does not know.
        with pytest.raises(InputError, match="no answer: perhaps it does not know our title"):
            fetch(tmp_path, address + "&aet=STRANGER")


QRSCP = """NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
xray = (XRAY, 127.0.0.1, {own})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
PACS {folder} RW (200, 1024mb) ANY
AETable END
"""


@pytest.mark.parametrize("how", ["get", "move"])
def test_dcmqrscp_gives_a_study_and_its_prior(studies, tmp_path, capsys, how):
    qrscp, storescu = program("dcmqrscp", "dcmtk"), program("storescu", "dcmtk")
    port, own = free_port(), free_port()
    (tmp_path / "kept").mkdir()
    (tmp_path / "qr.cfg").write_text(QRSCP.format(port=port, own=own, folder=tmp_path / "kept"))
    archive = subprocess.Popen([qrscp, "-c", str(tmp_path / "qr.cfg"), "+xv", "-xv", str(port)], cwd=tmp_path)
    try:
        wait_for(lambda: listens(port) or archive.poll() is not None)
        for number, dataset in enumerate(studies):
            path = tmp_path / f"{number}.dcm"
            dataset.save_as(path, enforce_file_format=True)
            flags = ["-xv"] if dataset.file_meta.TransferSyntaxUID == JPEG2000Lossless else []
            command = [storescu, *flags, "-aec", "PACS", "127.0.0.1", str(port), str(path)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
        address = f"dicom://PACS@127.0.0.1:{port}/?AccessionNumber=A3&retrieve={how}&port={own}"
        check_what_came(tmp_path, address, studies, capsys)
    finally:
        end(archive)


class Odd:
    """A node that answers whatever it is asked with the same; a context manager."""

    def __init__(self, *answers, status=0x0000):
        self.answers, self.status = answers, status
        ae = AE(ae_title="ODD")
        ae.add_supported_context(dicom_query.FIND)
        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, self.find)])
        self.address = f"dicom://ODD@127.0.0.1:{self.server.server_address[1]}/?AccessionNumber=A1"

    def find(self, event):
        for answer in self.answers:
            if answer.get("QueryRetrieveLevel") == event.identifier.QueryRetrieveLevel:
                yield 0xFF00, answer
        if self.status:
            yield self.status, None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.server.shutdown()


def answer(level, **elements):
    dataset = Dataset()
    dataset.QueryRetrieveLevel = level
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


CR = "1.2.840.10008.5.1.4.1.1.1"
STUDY_ANSWER = answer("STUDY", StudyInstanceUID="1.2", AccessionNumber="A1")
SERIES_ANSWER = answer("SERIES", SeriesInstanceUID="1.3", Modality="CR")


@pytest.mark.parametrize(
    ("answers", "status", "why"),
    [
        # An archive that does not know a key answers with all that it has (PS3.4 C.2.2.2.4).
        ([answer("STUDY", StudyInstanceUID="1.2", AccessionNumber="A2")], 0, "A1; 1 that it names instead"),
        ([answer("STUDY", StudyInstanceUID="1.2")], 0, "A1; 1 that it names instead"),
        ([answer("STUDY", StudyInstanceUID="", AccessionNumber="A1")], 0, "StudyInstanceUID that is no identifier"),
        ([STUDY_ANSWER, answer("SERIES", SeriesInstanceUID="../../etc", Modality="CR")], 0, "is no identifier"),
        ([STUDY_ANSWER, answer("SERIES", SeriesInstanceUID="1.3", Modality="MR")], 0, "has no radiographs of this"),
        ([STUDY_ANSWER], 0xA700, r"level STUDY \(status A700\)"),
        # It offers no C-GET, and no C-MOVE either.
        ([STUDY_ANSWER, SERIES_ANSWER, answer("IMAGE", SOPInstanceUID="1.4", SOPClassUID=CR)], 0, "ODD gives nothing"),
    ],
)
def test_answers_that_were_not_asked_for_are_not_believed(tmp_path, answers, status, why):
    with Odd(*answers, status=status) as odd, pytest.raises(InputError, match=why):
        fetch(tmp_path, f"{odd.address}&port={free_port()}")
    assert not (tmp_path / "out" / "studies.part").exists()


def test_a_node_that_is_not_there_is_named(tmp_path):
    port = free_port()
    with pytest.raises(InputError, match=f"ODD at 127.0.0.1:{port}: no connection"):
        fetch(tmp_path, f"dicom://ODD@127.0.0.1:{port}/?AccessionNumber=A1")


@pytest.mark.slow
def test_infer_runs_over_a_study_of_a_node(studies, tmp_path, vinbig_run, capsys):
    from xray.commands import infer

    program("Orthanc", "orthanc")
    with Orthanc(tmp_path / "orthanc", free_port()) as orthanc:
        for number, dataset in enumerate(studies):
            dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
            orthanc.ask("/instances", (tmp_path / f"{number}.dcm").read_bytes())
        config = Config(
            weights=(str(vinbig_run),),
            data_path=f"dicom://ORTHANC@127.0.0.1:{orthanc.port}/?AccessionNumber=A3&priors=5",
            save_path=str(tmp_path / "out"),
            device="cpu",
            tta=False,
            n_workers=0,
            sr=True,
        )
        assert infer.main(config) == 0
        with (tmp_path / "out" / "studies.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert sorted((row["study_date"], row["is_prior"]) for row in rows) == [
            ("20200101", "1"),
            ("20230201", "1"),
            ("20240301", "0"),
            ("20240301", "0"),
        ]
        assert {path.stem for path in (tmp_path / "out" / "sr").iterdir()} == {row["image_id"] for row in rows}
        assert not (tmp_path / "out" / "studies.part").exists()
        with pytest.raises(InputError, match="holds predictions already"):
            infer.main(config)
        assert infer.main(dataclasses.replace(config, overwrite=True)) == 0
