#!/usr/bin/env bash
# Host names the server with its port, unless that is the scheme's usual one (RFC 9110 7.2). dicomweb-client sends the name
# alone, whatever the port: a server that checks Host refuses it, and one that makes addresses of Host (RetrieveURL,
# BulkDataURI) makes wrong ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install dicomweb-client==0.61.2 requests==2.34.2
cat > "$folder/try.py" <<'PYTHON'
import http.server
import importlib.metadata
import sys
import threading

import requests
from dicomweb_client.api import DICOMwebClient

hosts = []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        hosts.append(self.headers["Host"])
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *args):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
name = f"127.0.0.1:{server.server_address[1]}"
requests.get(f"http://{name}/studies", timeout=60)
DICOMwebClient(f"http://{name}").search_for_studies()
for package in ("requests", "dicomweb-client"):
    print(package, importlib.metadata.version(package), "asks for", hosts[package != "requests"], "at", name)
sys.exit(hosts != [name, "127.0.0.1"])
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
