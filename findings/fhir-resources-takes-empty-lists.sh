#!/usr/bin/env bash
# fhir.resources takes a list without an element for valid, which FHIR's JSON forbids ("an array can't be empty"), and
# leaves it out when it writes: only what it gives back tells.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install fhir.resources==8.3.0 fhir_core==1.1.12
cat > "$folder/try.py" <<'PYTHON'
import importlib.metadata
import sys

from fhir.resources.observation import Observation
from pydantic import ValidationError

print("fhir.resources", importlib.metadata.version("fhir.resources"))
given = '{"resourceType": "Observation", "status": "final", "code": {"text": "a"}, "note": []}'
try:
    given_back = Observation.model_validate_json(given).model_dump_json()
except ValidationError:
    given_back = "refused"
print("note: [] ", given_back)
sys.exit(given_back != '{"resourceType":"Observation","status":"final","code":{"text":"a"}}')
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
# Seen: {"resourceType":"Observation","status":"final","code":{"text":"a"}}.
