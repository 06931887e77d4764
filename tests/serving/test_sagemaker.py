"""SageMaker: the handler functions run by its inference toolkit, and what the HTTP server adds for its contract."""

import contextlib
import csv
import io
import json
import re
import shutil
import socket
import sys
import urllib.request

import boto3
import cv2
import numpy as np
import pydicom
import pytest
from moto.server import ThreadedMotoServer
from sagemaker_inference.default_handler_service import DefaultHandlerService
from sagemaker_inference.errors import GenericInferenceToolkitError
from serving_cases import TWELVE_BITS, Oracle, write_phantom
from starlette.testclient import TestClient

from xray.commands.infer import Config
from xray.commands.infer import main as infer
from xray.errors import InputError
from xray.outputs.dicom.objects import Algorithm
from xray.serving import invocations, sagemaker
from xray.serving.app import create_app
from xray.serving.invocations import RefusedError, S3Object, choose, fetch, object_of
from xray.serving.runs import runs_in
from xray.serving.service import Limits, Service
from xray.structures.predictions import NO_FINDING_CATEGORY, read_predictions

SECRET = "Doe^Jane"


class Context:
    """What the model server hands to the toolkit for each request (multi-model-server's mms.context.Context)."""

    def __init__(self, model_dir):
        self.system_properties = {"model_dir": str(model_dir)}
        self.request_processor = [self]
        self.headers = {}

    def get_request_properties(self):
        return self.headers

    def set_response_status(self, code=200, phrase="", idx=0):
        self.status, self.phrase = code, phrase

    def set_response_content_type(self, idx, kind):
        self.kind = kind


class Toolkit:
    """The toolkit's handler service as the model server starts and calls it."""

    def __init__(self, model_dir):
        self.context = Context(model_dir)
        self.handler = DefaultHandlerService()
        self.handler.initialize(self.context)
        self.model = self.handler._service._model

    def __call__(self, body, kind="application/dicom", accept=None):
        """Status, media type and body of the answer to one request."""
        self.context.headers = {"Content-Type": kind} | ({"Accept": accept} if accept else {})
        self.context.status = 200
        (answer,) = self.handler.handle([{"body": bytearray(body)}], self.context)
        return self.context.status, self.context.kind, answer


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A phantom's DICOM file, the same as PNG and JPEG."""
    folder = tmp_path_factory.mktemp("files")
    write_phantom(folder / "phantom.dcm", 3, (0, 3, 10, 12), (256, 300), TWELVE_BITS)
    picture = np.random.default_rng(0).integers(0, 255, (70, 90), dtype=np.uint8)
    cv2.rectangle(picture, (20, 20), (50, 45), 210, -1)
    assert cv2.imwrite(str(folder / "picture.png"), picture)
    assert cv2.imwrite(str(folder / "photo.jpg"), picture)
    return folder


@pytest.fixture(scope="module")
def model_dir(vinbig_run, tmp_path_factory):
    """A model directory as script mode unpacks it: a run, and code/inference.py."""
    folder = tmp_path_factory.mktemp("ml") / "model"
    shutil.copytree(vinbig_run, folder)
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_text("from xray.serving.sagemaker import *\n")
    return folder


@pytest.fixture(scope="module")
def toolkit(model_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", "")
        # The model server starts its processes with this folder in their path.
        patch.syspath_prepend(model_dir / "code")
        toolkit = Toolkit(model_dir)
        yield toolkit
        toolkit.model.service.__exit__(None, None, None)
        sys.modules.pop("inference", None)


def rows_of(answer):
    """(category id, score, box) of the findings of a JSON answer, "No finding" last."""
    rows = [(f["category_id"], f["score"], f["box"]) for f in answer["findings"]]
    return [*rows, (NO_FINDING_CATEGORY, answer["normal"], [0, 0, 1, 1])]


def assert_same_as_infer(answer, predictions, name):
    image = predictions.image_ids.index(name)
    table = predictions.table.select(predictions.table.images == image)
    rows = rows_of(answer)
    assert len(rows) == len(table) > 1
    # Equal scores may come in another order.
    expected = sorted(zip(table.labels, table.scores.round(4), table.boxes.round(1).tolist(), strict=True))
    found = sorted((label, round(score, 4), np.round(box, 1).tolist()) for label, score, box in rows)
    assert [row[0] for row in found] == [row[0] for row in expected]
    np.testing.assert_allclose([r[1] for r in found], [r[1] for r in expected], atol=2e-4)
    np.testing.assert_allclose([r[2] for r in found], [r[2] for r in expected], atol=0.21)


def inferred(run, data, out, **options):
    infer(Config(weights=run, data_path=str(data), save_path=str(out), device="cpu", n_workers=0, **options))
    return read_predictions(out / "predictions.json")


def test_the_toolkit_answers_as_infer_does(toolkit, vinbig_run, files, tmp_path):
    predictions = inferred((str(vinbig_run),), files, tmp_path / "out", sr=True)
    for name, kind in (
        ("phantom.dcm", "application/dicom"),
        ("picture.png", "image/png"),
        ("photo.jpg", "image/jpeg"),
        ("photo.jpg", "application/octet-stream"),
    ):
        status, given, answer = toolkit((files / name).read_bytes(), kind)
        assert (status, given) == (200, "application/json")
        assert_same_as_infer(json.loads(answer), predictions, (files / name).stem)
        assert json.loads(answer)["models"] == ["model"]
    # The report, too, but for what is new in every object: identifiers and the time.
    status, given, report = toolkit((files / "phantom.dcm").read_bytes(), accept="application/dicom")
    assert (status, given) == (200, "application/dicom")
    theirs = pydicom.dcmread(tmp_path / "out" / "sr" / "phantom.dcm")
    assert content_of(pydicom.dcmread(io.BytesIO(report))) == content_of(theirs)
    assert pydicom.dcmread(io.BytesIO(report)).StudyInstanceUID == theirs.StudyInstanceUID
    # And in FHIR, from the same file.
    status, given, text = toolkit((files / "phantom.dcm").read_bytes(), accept="application/fhir+json")
    assert (status, given) == (200, "application/fhir+json")
    resources = [entry["resource"] for entry in json.loads(text)["entry"]]
    n_regions = sum(resource["resourceType"] == "ImagingSelection" for resource in resources)
    assert n_regions == content_of(theirs).count("'Image Region'")
    status, _, line = toolkit((files / "picture.png").read_bytes(), "image/png", "application/fhir+json")
    assert status == 422
    assert "no DICOM file: FHIR refers to one" in str(line)


def content_of(report):
    text = "\n".join(str(item) for item in report.ContentSequence)
    # 2.25 is where its own identifiers come from; what follows the point is rounding.
    return re.sub(r"2\.25\.\d+|(?<=\.\d)\d+", "", text)


def test_real_radiographs(toolkit, vinbig_run, shared_data, tmp_path):
    paths = sorted((shared_data / "dicom").glob("*.dcm"))
    folder = tmp_path / "in"
    folder.mkdir()
    for path in paths:
        shutil.copy(path, folder)
    # Some of them are no radiographs that can be read: then both say so.
    with contextlib.suppress(SystemExit):
        predictions = inferred((str(vinbig_run),), folder, tmp_path / "out")
    failures = (tmp_path / "out" / "failures.csv").read_text() if (tmp_path / "out" / "failures.csv").exists() else ""
    n = 0
    for path in paths:
        status, _, answer = toolkit(path.read_bytes())
        if path.stem in failures:
            assert status in (415, 422)
            continue
        assert status == 200
        assert_same_as_infer(json.loads(answer), predictions, path.stem)
        n += 1
    assert n >= 2


def test_csv_says_the_same_as_json(toolkit, files):
    body = (files / "phantom.dcm").read_bytes()
    answer = json.loads(toolkit(body)[2])
    for accept in ("text/csv", "text/html, text/csv;q=0.9, application/json;q=0.1", "text/*"):
        status, kind, text = toolkit(body, accept=accept)
        assert (status, kind) == (200, "text/csv")
        header, *rows = csv.reader(io.StringIO(text))
        assert header == ["category_id", "category", "score", "x1", "y1", "x2", "y2"]
        assert [(int(row[0]), float(row[2]), [float(value) for value in row[3:]]) for row in rows] == rows_of(answer)
        assert rows[-1][1] == "No finding"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/csv, application/json", "text/csv"),
        ("application/json;q=0.2, text/csv;q=0.3", "text/csv"),
        ("application/*", "application/json"),
        ("image/png, */*;q=0.1", "application/json"),
        ("APPLICATION/DICOM", "application/dicom"),
        ("application/json;q=0, */*", "text/csv"),
        ("application/json; charset=utf-8", "application/json"),
        ("image/png", None),
        ("application/json;q=0", None),
        ("application/json;q=much", None),
        ("nonsense", None),
    ],
)
def test_accept_is_understood_as_http_has_it(accept, kind):
    kinds = ("application/json", "text/csv", "application/dicom")
    if kind is None:
        with pytest.raises(RefusedError, match="accept application/json") as caught:
            choose(accept, kinds)
        assert caught.value.status == 406
    else:
        assert choose(accept, kinds) == kind


@pytest.mark.parametrize(
    ("body", "kind", "accept", "status", "line"),
    [
        (b"", "application/dicom", None, 400, "the body is empty"),
        (b"hello", "application/dicom", None, 415, "neither DICOM nor PNG nor JPEG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "image/png", None, 422, "damaged PNG file"),
        (b"1,2", "text/csv", None, 415, "this is 'text/csv'"),
        (b"x", "video/mp4", None, 415, "this is 'video/mp4'"),
        (b"{", "application/json", None, 400, "not the JSON of an address"),
        (b'{"s3_uri": 1}', "application/json; charset=utf-8", None, 400, "not the JSON of an address"),
        (b"[" * 60_000, "application/json", None, 400, "not the JSON of an address"),
        (b" " * 70_000, "application/json", None, 413, "larger than an address"),
        (b'{"s3_uri": "file:///etc/passwd"}', "application/json", None, 400, "no address of an object"),
        (b'{"s3_uri": "s3://bucket/a"}', "application/json", None, 403, "XRAY_S3_BUCKETS is not set"),
        (None, "application/dicom", "image/png", 406, "accept application/json"),
        (b"\x89PNG\r\n\x1a\n", "image/png", "application/dicom", 422, "damaged PNG file"),
        ("picture", "image/png", "application/dicom", 422, "the file is no DICOM file"),
    ],
)  # fmt: skip
def test_refuses_with_a_status_and_one_line(toolkit, files, monkeypatch, body, kind, accept, status, line):
    monkeypatch.delenv(invocations.BUCKETS, raising=False)
    if not isinstance(body, bytes):
        body = (files / ("picture.png" if body else "phantom.dcm")).read_bytes()
    found, given, answer = toolkit(body, kind, accept)
    assert (found, given) == (status, "application/json")
    told = json.loads(answer)["detail"]
    assert line in told
    assert toolkit.context.phrase == told
    # The toolkit puts tracebacks of exceptions into answers; no path and no file of ours is in any.
    assert not re.search(r"\n|Traceback|\.py|[0-9a-f]{32}", answer)
    assert list(toolkit.model.service.folder.iterdir()) == []


def test_what_nobody_expected_is_named_by_its_type_alone(toolkit, files, monkeypatch):
    def fail(*arguments):
        raise RuntimeError(SECRET)

    body = (files / "phantom.dcm").read_bytes()
    for place, name in ((toolkit.model.service, "find"), (invocations, "choose"), (invocations, "fetch")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, fail)
            patch.setenv(invocations.BUCKETS, "bucket")
            status, _, answer = toolkit(b'{"s3_uri": "s3://bucket/a"}' if name == "fetch" else body,
                                        "application/json" if name == "fetch" else "application/dicom")  # fmt: skip
            assert (status, json.loads(answer)) == (500, {"detail": "the request failed (RuntimeError)"})
    monkeypatch.setattr(sagemaker, "MAX_BYTES", 100)
    assert toolkit(body)[0] == 413
    # Who calls the functions without the toolkit gets its error.
    with pytest.raises(GenericInferenceToolkitError) as caught:
        sagemaker.output_fn(sagemaker.input_fn(b"", "image/png"), "application/json")
    assert caught.value.status_code == 400


def test_several_runs_are_an_ensemble(vinbig_run, files, tmp_path, monkeypatch):
    for fold in ("fold0", "fold1"):
        shutil.copytree(vinbig_run, tmp_path / "model" / fold)
    (tmp_path / "model" / "code").mkdir()
    monkeypatch.setenv("PYTHONPATH", "")
    # Installed, the module itself can be named.
    monkeypatch.setenv("SAGEMAKER_PROGRAM", "xray.serving.sagemaker")
    toolkit = Toolkit(tmp_path / "model")
    try:
        answer = json.loads(toolkit((files / "picture.png").read_bytes(), "image/png")[2])
    finally:
        toolkit.model.service.__exit__(None, None, None)
    assert answer["models"] == ["fold0", "fold1"]
    runs = tuple(str(tmp_path / "model" / fold) for fold in ("fold0", "fold1"))
    predictions = inferred(runs, files / "picture.png", tmp_path / "out")
    assert_same_as_infer(answer, predictions, "picture")


def test_a_directory_without_a_model_says_so(tmp_path):
    (tmp_path / "code").mkdir()
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"^no model in .*model\.json and model\.safetensors"):
            sagemaker.model_fn(str(folder))
    (tmp_path / "model.json").write_text("{}")
    assert runs_in(tmp_path) == [tmp_path]
    with pytest.raises(InputError, match="holds no trained model"):
        sagemaker.model_fn(str(tmp_path))
    (tmp_path / "ensemble.yaml").write_text("version: 1")
    assert runs_in(tmp_path) == [tmp_path]
    (tmp_path / "model.json").unlink()
    assert runs_in(tmp_path) == [tmp_path / "ensemble.yaml"]


@pytest.fixture(scope="module")
def s3(files):
    """An S3 server on loopback, with the files in two buckets → its address."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        address = "http://{}:{}".format(*server.get_host_and_port())
        patch.setenv("AWS_ENDPOINT_URL", address)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.session.Session().client("s3")
        for bucket in ("radiographs", "others"):
            client.create_bucket(Bucket=bucket)
            for path in files.iterdir():
                client.upload_file(str(path), bucket, f"in/{SECRET}/{path.name}")
        client.put_object(Bucket="radiographs", Key="empty", Body=b"")
        client.put_object(Bucket="radiographs", Key="note.txt", Body=b"hello")
        yield address
    server.stop()


def check_who_asks(address, after):
    """Has moto refuse requests of accounts that it does not know, after so many."""
    headers = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"{address}/moto-api/reset-auth", after, headers)
    urllib.request.urlopen(request, timeout=600).close()


class TestS3:
    """Addresses in JSON, against moto's S3 server."""

    @pytest.fixture
    def bucket(self, s3, monkeypatch):
        monkeypatch.setenv(invocations.BUCKETS, "radiographs, more")
        return s3

    @staticmethod
    def address(key, bucket="radiographs"):
        return json.dumps({"s3_uri": f"s3://{bucket}/{key}"}).encode()

    def test_an_object_is_answered_as_its_file(self, toolkit, files, bucket):
        for kind in ("application/json", "application/json; charset=utf-8"):
            status, _, answer = toolkit(self.address(f"in/{SECRET}/phantom.dcm"), kind)
            assert status == 200
            assert rows_of(json.loads(answer)) == rows_of(json.loads(toolkit((files / "phantom.dcm").read_bytes())[2]))

    @pytest.mark.parametrize(
        ("key", "of", "status", "line"),
        [
            (f"in/{SECRET}/none.dcm", "radiographs", 422, "there is no such object"),
            (f"in/{SECRET}", "radiographs", 422, "there is no such object"),
            ("a", "more", 422, "there is no such object"),
            ("empty", "radiographs", 422, "the object is empty"),
            ("note.txt", "radiographs", 415, "neither DICOM nor PNG nor JPEG"),
            (f"in/{SECRET}/phantom.dcm", "others", 403, "have it named in XRAY_S3_BUCKETS"),
            (f"../others/in/{SECRET}/phantom.dcm", "radiographs", 400, "no address of an object"),
            ("x/./y", "radiographs", 400, "no address of an object"),
            ("a\\nb", "radiographs", 400, "no address of an object"),
            ("", "radiographs", 400, "no address of an object"),
            ("a", "RADIO", 400, "no address of an object"),
        ],
    )
    def test_refuses_what_cannot_be_had(self, toolkit, bucket, key, of, status, line):
        body = f'{{"s3_uri": "s3://{of}/{key}"}}'.encode()
        found, _, answer = toolkit(body, "application/json")
        assert found == status
        assert line in json.loads(answer)["detail"]
        assert SECRET not in answer

    def test_too_large_is_refused_before_it_is_read(self, toolkit, bucket, monkeypatch):
        monkeypatch.setattr(sagemaker, "MAX_BYTES", 1000)
        status, _, answer = toolkit(self.address(f"in/{SECRET}/phantom.dcm"), "application/json")
        assert status == 413
        assert "the object has more than the" in answer

    def test_without_permission(self, toolkit, bucket):
        check_who_asks(bucket, after=b"0")
        try:
            status, _, answer = toolkit(self.address("note.txt"), "application/json")
        finally:
            check_who_asks(bucket, after=b"inf")
        assert status == 422
        assert "may not read that object" in answer

    def test_an_endpoint_that_does_not_answer(self, bucket, monkeypatch):
        with socket.socket() as door:
            door.bind(("127.0.0.1", 0))
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{door.getsockname()[1]}")
            with pytest.raises(RefusedError, match="S3 did not give the object") as caught:
                fetch(S3Object("radiographs", "note.txt"), io.BytesIO(), 100, 2)
            # It takes connections, and says nothing.
            door.listen()
            with pytest.raises(RefusedError, match="S3 did not give the object") as silent:
                fetch(S3Object("radiographs", "a"), io.BytesIO(), 100, 2)
        assert {caught.value.status, silent.value.status} <= {502, 504}
        assert "127.0.0.1" not in caught.value.line + silent.value.line

    def test_the_server_takes_addresses_too(self, app_client, files, bucket):
        body = self.address(f"in/{SECRET}/phantom.dcm")
        headers = {"content-type": "application/json"}
        response = app_client.post("/invocations", content=body, headers=headers)
        assert response.status_code == 200
        direct = app_client.post("/invocations", content=(files / "phantom.dcm").read_bytes())
        assert {**response.json(), "seconds": 0} == {**direct.json(), "seconds": 0}
        other = app_client.post("/invocations", content=self.address("a", "others"), headers=headers)
        assert other.status_code == 403
        # The page's own way in does not.
        assert app_client.post("/predict", content=body, headers=headers).status_code == 415
        large = app_client.post("/invocations", content=b" " * 70_000, headers=headers)
        assert large.status_code == 413


@pytest.fixture(scope="module")
def app_client(files):
    oracle = Oracle()
    truth = write_phantom(files / "phantom.dcm", 3, (0, 3, 10, 12), (256, 300), TWELVE_BITS)
    oracle.learn(files / "phantom.dcm", truth, (0.93, 0.71, 0.55, 0.12))
    with Service(oracle, ["run"], Limits(n_workers=1)) as service:
        algorithm = Algorithm("xray", "1", {"model 1": "sha256:0"})
        with TestClient(create_app(service, algorithm)) as client:
            client.service = service
            yield client


def test_the_server_answers_in_what_accept_asks_for(app_client, files):
    body = (files / "phantom.dcm").read_bytes()
    answer = app_client.post("/invocations", content=body, headers={"accept": "*/*"}).json()
    table = app_client.post("/invocations", content=body, headers={"accept": "text/csv"})
    assert table.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [float(row["score"]) for row in rows] == [*(f["score"] for f in answer["findings"]), answer["normal"]]
    response = app_client.post("/invocations", content=body, headers={"accept": "application/dicom;q=0.9, */*;q=0.1"})
    assert response.headers["content-type"] == "application/dicom"
    report = str(pydicom.dcmread(io.BytesIO(response.content)))
    # 0.93, 0.71 and 0.55 are reported, 0.12 is below the confidence that reports begin with.
    assert all(value in report for value in ("93", "71", "55"))
    assert "'12'" not in report
    refused = app_client.post("/invocations", content=body, headers={"accept": "image/png"})
    assert refused.status_code == 406
    assert "accept application/json, text/csv, application/dicom" in refused.json()["detail"]
    assert list(app_client.service.folder.iterdir()) == []


def test_the_server_tells_batch_transforms_how_to_ask(app_client):
    answer = app_client.get("/execution-parameters").json()
    assert answer == {"MaxConcurrentTransforms": 1, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 100}


def test_an_address_of_a_long_body_is_no_address():
    with pytest.raises(RefusedError) as caught:
        object_of("x" * 70_000)
    assert caught.value.status == 413
