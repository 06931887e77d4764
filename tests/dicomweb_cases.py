"""A DICOMweb server in a thread that answers as tests tell it to, well or badly."""

import contextlib
import http.server
import json
import threading

import pydicom
from pydicom.uid import ComputedRadiographyImageStorage

from xray.storage.dicomweb.multipart import content_type_of, end_of, head_of

STUDY = "1.2.3"


def related(*contents, boundary="b"):
    """A multipart body of DICOM files, and its content type."""
    parts = [head_of(boundary, {"Content-Type": "application/dicom"}) + content + b"\r\n" for content in contents]
    return b"".join(parts) + end_of(boundary), content_type_of(boundary)


class Fake:
    """A server. requests: (method, path with query, headers, body) of all that came. answers: status, headers and body
    of the next ones, which come first; then `rule`: (method, path) → the same, None for 404."""

    def __init__(self, rule=lambda method, path: None):
        self.requests, self.answers, self.rule = [], [], rule
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fake.requests.append((self.command, self.path, dict(self.headers), body))
                given = fake.answers.pop(0) if fake.answers else fake.rule(self.command, self.path)
                status, headers, content = given or (404, {}, b"nothing")
                self.send_response(status)
                headers = {"Content-Length": str(len(content)), **headers}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                # An answer that promises more than it brings ends with its connection.
                self.close_connection = headers["Content-Length"] != str(len(content))

            do_GET = do_POST = answer

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port, self.scheme = self.server.server_address[1], "http"

    @property
    def address(self):
        return f"{self.scheme}://localhost:{self.port}/dicom-web"

    def over_tls(self, context):
        """Has it speak TLS."""
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.scheme = "https"
        return self

    @contextlib.contextmanager
    def running(self):
        thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()


def item(**elements):
    """DICOM JSON of these elements."""
    dataset = pydicom.Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset.to_json_dict()


def archive(files, page=1000):
    """The rule of an archive of one study with one series. files: SOP Instance UID → content. page: most matches that
    one answer has."""

    def rule(method, path):
        path, _, query = path.partition("?")
        asked = dict(part.split("=") for part in query.split("&") if "=" in part)
        offset = int(asked.get("offset", 0))
        series = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": f"{STUDY}.1"}
        if path.endswith("/series"):
            found = [item(Modality="CR", **series)]
        elif path.endswith("/instances"):
            about = {"SOPClassUID": ComputedRadiographyImageStorage, **series}
            found = [item(SOPInstanceUID=uid, **about) for uid in files]
        elif (uid := path.rpartition("/")[2]) in files:
            body, kind = related(files[uid])
            return 200, {"Content-Type": kind}, body
        else:
            return None
        return 200, {"Content-Type": "application/dicom+json"}, json.dumps(found[offset : offset + page]).encode()

    return rule


def answer_of(referenced=(), failed=(), status=200):
    """The answer to a request that stores. referenced: UIDs of what was stored; failed: (UID, reason) of the rest."""
    answer = {}
    if referenced:
        answer["00081199"] = {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in referenced]}
    if failed:
        items = [
            {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [code]}}
            for uid, code in failed
        ]
        answer["00081198"] = {"vr": "SQ", "Value": items}
    return status, {"Content-Type": "application/dicom+json"}, json.dumps(answer).encode()
