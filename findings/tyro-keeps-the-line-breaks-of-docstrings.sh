#!/usr/bin/env bash
# tyro joins the lines of a help text, which it then wraps to the terminal; a line that begins with a letter belongs to the
# paragraph before. In a docstring under a field it looks for such lines while they still have the indentation of the
# class, so that none begins with a letter: every break of the source file stays, and sentences end in the middle of a line.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install tyro==1.0.17 docstring_parser==0.18.0
cat > "$folder/try.py" <<'PYTHON'
import contextlib
import dataclasses
import importlib.metadata
import io
import os
import sys
from typing import Annotated

import tyro

TEXT = "Words that stand in the first line of the source file\n    and go on in the second line of it."


@dataclasses.dataclass
class Config:
    below: int = 0
    """Words that stand in the first line of the source file
    and go on in the second line of it."""
    given: Annotated[int, tyro.conf.arg(help=" ".join(TEXT.split()))] = 0


os.environ["COLUMNS"] = "200"
said = io.StringIO()
with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
    tyro.cli(Config, args=["--help"])
print("tyro", importlib.metadata.version("tyro"))
print(said.getvalue())
lines = said.getvalue().splitlines()
below = next(line for line in lines if "--below INT " in line)
given = next(line for line in lines if "--given INT " in line)
sys.exit("and go on" in below or "and go on" not in given)
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
