"""Studies from other DICOM nodes: found by accession number, brought by C-GET or C-MOVE, from dcmqrscp and Orthanc."""

import copy
import csv
import dataclasses
import subprocess

import numpy as np
import pydicom
import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("highdicom")

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE, evt
from test_dicom_node import free_port, wait_for
from test_dicom_real_peers import FINDINGS, Orthanc, end, listens, program

from xray.commands.infer import Config, check
from xray.errors import FlagError, InputError
from xray.outputs.dicom.objects import Algorithm
from xray.outputs.dicom.results import DicomResults
from xray.phantoms.dicom import Storage, dicom_of
from xray.radiographs.file_warnings import NOT_RETRIEVED, OWN_PICTURE
from xray.serving import dicom_fetch, dicom_query
from xray.serving.dicom_fetch import GET, PATIENCE, fetched
from xray.serving.dicom_peers import Peer
from xray.serving.dicom_query import parse_query
from xray.serving.dicom_sending import ae_of
from xray.serving.dicom_studies import write_studies

PDF = "1.2.840.10008.5.1.4.1.1.104.1"
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


@pytest.fixture(scope="module")
def results(studies, tmp_path_factory):
    """What xray has sent back into that study, and more that is no radiograph: a key object selection, and a document
    in a series of modality OT, as scanners write them."""
    path = tmp_path_factory.mktemp("results") / "image.dcm"
    studies[0].save_as(path, enforce_file_format=True)
    made = DicomResults(Algorithm("xray", "0.1.0"), sr=True, seg=True, gsps=True, sc=True).of(path, FINDINGS)
    others = []
    for number, modality, sop_class in ((11, "KO", "1.2.840.10008.5.1.4.1.1.88.59"), (12, "OT", PDF)):
        other = of_study(number, 3, "20240301", "A3", series=str(number), Modality=modality)
        other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = sop_class
        for keyword in ("PixelData", "Rows", "Columns"):
            delattr(other, keyword)
        others.append(other)
    return [*made.values(), *others]


def fetch(tmp_path, address, told=None):
    """What comes: (UIDs of instances, rows of studies.csv). told: gets failures and warnings."""
    with fetched(parse_query(address), tmp_path / "out") as brought:
        write_studies(tmp_path / "out", brought)
        files = {path.stem: pydicom.dcmread(path) for path in brought.folder.rglob("*.dcm")}
    if told is not None:
        told += [*brought.failures, *((one.kind, one.detail or one.where) for one in brought.warnings)]
    assert not (tmp_path / "out" / "studies.part").exists()
    with (tmp_path / "out" / "studies.csv").open(newline="") as file:
        return files, {row["image_id"]: row for row in csv.DictReader(file)}


def check_what_came(tmp_path, address, studies, results, capsys):
    """→ what was said, and what is told of what is no radiograph: of kinds, and of our picture."""
    first, lateral, _, prior, *_ = studies
    told = []
    files, rows = fetch(tmp_path, f"{address}&priors=1", told)
    assert set(files) == set(rows) == {first.SOPInstanceUID, lateral.SOPInstanceUID, prior.SOPInstanceUID}
    # As the archive has it: a compressed file comes compressed.
    assert files[lateral.SOPInstanceUID].file_meta.TransferSyntaxUID == JPEG2000Lossless
    assert files[lateral.SOPInstanceUID].PixelData == lateral.PixelData
    assert rows[lateral.SOPInstanceUID]["view_position"] == "LL"
    assert rows[lateral.SOPInstanceUID]["series_description"] == "Chest lateral"
    assert {uid: row["is_prior"] for uid, row in rows.items()}[prior.SOPInstanceUID] == "1"
    said = capsys.readouterr().err
    assert "prior of 20230201: 1 object may be radiographs\n" in said
    assert "Planted" not in said
    assert all(kind == NOT_RETRIEVED for kind, _ in told[:-1])
    picture = results[3]
    name = f"{picture.StudyInstanceUID}/{picture.SeriesInstanceUID}/{picture.SOPInstanceUID}.dcm"
    assert told[-1] == (OWN_PICTURE, name)
    return said, [what for _, what in told[:-1]]


@pytest.mark.parametrize("how", ["get", "move"])
def test_orthanc_gives_a_study_and_its_prior(studies, results, tmp_path, capsys, how):
    program("Orthanc", "orthanc")
    port = free_port()
    with Orthanc(tmp_path / "orthanc", port) as orthanc:
        for number, dataset in enumerate((*studies, *results)):
            dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
            orthanc.ask("/instances", (tmp_path / f"{number}.dcm").read_bytes())
        address = f"dicom://ORTHANC@127.0.0.1:{orthanc.port}/?AccessionNumber=A3&retrieve={how}&port={port}"
        said, left_out = check_what_came(tmp_path, address, studies, results, capsys)
        assert left_out == ["1 Encapsulated PDF", "1 KO", "1 PR", "1 SEG", "2 SR"]
        assert f"study of 20240301: 3 objects may be radiographs; left out: {', '.join(left_out)}\n" in said
        assert f"left out of these: 1 {OWN_PICTURE}\n" in said
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
def test_dcmqrscp_gives_a_study_and_its_prior(studies, results, tmp_path, capsys, how):
    qrscp, storescu = program("dcmqrscp", "dcmtk"), program("storescu", "dcmtk")
    port, own = free_port(), free_port()
    (tmp_path / "kept").mkdir()
    (tmp_path / "qr.cfg").write_text(QRSCP.format(port=port, own=own, folder=tmp_path / "kept"))
    archive = subprocess.Popen([qrscp, "-c", str(tmp_path / "qr.cfg"), "+xv", "-xv", str(port)], cwd=tmp_path)
    try:
        wait_for(lambda: listens(port) or archive.poll() is not None)
        for number, dataset in enumerate((*studies, *results)):
            path = tmp_path / f"{number}.dcm"
            dataset.save_as(path, enforce_file_format=True)
            # -R: storescu 3.6.7 offers no segmentations by itself.
            flags = ["-R", *(["-xv"] if dataset.file_meta.TransferSyntaxUID == JPEG2000Lossless else [])]
            command = [storescu, *flags, "-aec", "PACS", "127.0.0.1", str(port), str(path)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stderr
        address = f"dicom://PACS@127.0.0.1:{port}/?AccessionNumber=A3&retrieve={how}&port={own}"
        said, left_out = check_what_came(tmp_path, address, studies, results, capsys)
        # It says neither how many objects a series has, nor of which class they are.
        kinds = ["1 series of KO", "1 series of PR", "1 series of SEG", "2 series of SR"]
        assert left_out == [*kinds, "1 Encapsulated PDF"]
        assert f"study of 20240301: 4 objects may be radiographs; left out: {', '.join(kinds)}\n" in said
        assert f"left out of these: 1 Encapsulated PDF, 1 {OWN_PICTURE}\n" in said
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


def test_what_an_archive_repeats_counts_once(tmp_path):
    images = [answer("IMAGE", SOPInstanceUID=uid, SOPClassUID=CR) for uid in ("1.4", "1.5", "1.4")]
    reports = answer("SERIES", SeriesInstanceUID="1.9", Modality="SR", NumberOfSeriesRelatedInstances=2)
    answers = [STUDY_ANSWER, STUDY_ANSWER, SERIES_ANSWER, reports, SERIES_ANSWER, reports, *images]
    with Odd(*answers) as odd:
        (study,) = dicom_query.find_studies(parse_query(odd.address), ae_of("XRAY", PATIENCE))
    assert [image.uid for image in study.images] == ["1.4", "1.5"]
    assert study.left_out.in_words == ["2 SR"]


def test_a_node_that_is_not_there_is_named(tmp_path):
    port = free_port()
    with pytest.raises(InputError, match=f"ODD at 127.0.0.1:{port}: no connection"):
        fetch(tmp_path, f"dicom://ODD@127.0.0.1:{port}/?AccessionNumber=A1")


class Silent:
    """An archive of two radiographs and a document that says of neither which class it is, and gives but one of the
    radiographs and the document; a context manager."""

    def __init__(self, first, lacking, document):
        self.held = [first, document]
        ae = AE(ae_title="ODD")
        ae.add_supported_context(dicom_query.FIND)
        ae.add_supported_context(GET)
        for one in self.held:
            ae.add_supported_context(one.SOPClassUID, scp_role=True, scu_role=True)
        told = {"StudyInstanceUID": first.StudyInstanceUID, "AccessionNumber": "A1", "SeriesInstanceUID": "1.3"}
        images = [answer("IMAGE", SOPInstanceUID=one.SOPInstanceUID) for one in (first, lacking, document)]
        answers = [answer("STUDY", **told), answer("SERIES", Modality="OT", **told), *images]

        def find(event):
            for one in answers:
                if one.QueryRetrieveLevel == event.identifier.QueryRetrieveLevel:
                    yield 0xFF00, one

        def get(event):
            asked = event.identifier.get("SOPInstanceUID")
            found = [one for one in self.held if asked in (None, one.SOPInstanceUID)]
            yield len(found)
            for one in found:
                yield 0xFF00, one

        handlers = [(evt.EVT_C_FIND, find), (evt.EVT_C_GET, get)]
        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.address = f"dicom://ODD@127.0.0.1:{self.server.server_address[1]}/?AccessionNumber=A1&retrieve=get"

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.server.shutdown()


def test_one_image_that_does_not_come_stops_no_other(studies, results, tmp_path, monkeypatch):
    # Each is asked for in an association of its own.
    monkeypatch.setattr(dicom_fetch, "COMPRESSED", dicom_fetch.COMPRESSED[:1])
    first, lacking, document = studies[0], studies[3], results[-1]
    told = []
    with Silent(first, lacking, document) as archive:
        files, _ = fetch(tmp_path, archive.address, told)
        assert set(files) == {first.SOPInstanceUID}
        name = f"{first.StudyInstanceUID}/1.3/{lacking.SOPInstanceUID}.dcm"
        assert told == [(name, "it did not come from ODD: ask there"), (NOT_RETRIEVED, "1 Encapsulated PDF")]
        del archive.held[0]
        with pytest.raises(InputError, match="no radiographs of this study, only 1 Encapsulated PDF, and 2 that did"):
            fetch(tmp_path, archive.address)
        del archive.held[0]
        with pytest.raises(InputError, match="none of 3 images came from ODD"):
            fetch(tmp_path, archive.address)
    assert not (tmp_path / "out" / "studies.part").exists()


@pytest.mark.parametrize("sop_class", [dicom_fetch.OTHER_CLASSES[number] for number in (0, 82, 90, -1)])
def test_objects_of_any_class_are_named_where_an_archive_tells_none(sop_class, studies, results, tmp_path, monkeypatch):
    """There are more classes than an association has contexts: what is left is asked for in further ones."""
    monkeypatch.setattr(dicom_fetch, "COMPRESSED", dicom_fetch.COMPRESSED[:1])
    first, other = studies[0], copy.deepcopy(results[-1])
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = sop_class
    told = []
    name = UID(sop_class).name.removesuffix(" Storage")
    with Silent(first, first, other) as archive:
        files, _ = fetch(tmp_path, archive.address, told)
        assert set(files) == {first.SOPInstanceUID}
        assert told == [(NOT_RETRIEVED, f"1 {name}")]
        del archive.held[0]
        with pytest.raises(InputError, match=f"no radiographs of this study, only 1 {name}, and 1 that did not come"):
            fetch(tmp_path, archive.address)


@pytest.mark.slow
def test_infer_runs_over_a_study_of_a_node(studies, results, tmp_path, vinbig_run, capsys):
    from xray.commands import infer

    program("Orthanc", "orthanc")
    with Orthanc(tmp_path / "orthanc", free_port()) as orthanc:
        for number, dataset in enumerate((*studies, *results)):
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
        # What came back to the archive before is neither analysed nor an error.
        with (tmp_path / "out" / "warnings.csv").open(newline="") as file:
            told = [(row["warning"], row["detail"]) for row in csv.DictReader(file)]
        for kind in ("1 Encapsulated PDF", "1 KO", "1 PR", "1 SEG", "2 SR"):
            assert (NOT_RETRIEVED, kind) in told
        assert (OWN_PICTURE, "") in told
        assert not (tmp_path / "out" / "failures.csv").exists()
        assert not (tmp_path / "out" / "studies.part").exists()
        with pytest.raises(InputError, match="holds predictions already"):
            infer.main(config)
        assert infer.main(dataclasses.replace(config, overwrite=True)) == 0
