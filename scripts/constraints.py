"""Writes constraints.txt: the version of everything that comes along with the pins of both requirements files.

    python scripts/constraints.py       (or `make constraints`)

pip resolves the pins afresh, against whatever index it is set up with, without installing anything; its answer for this
Python and this platform is written down. requirements.txt includes the file by `-c`, which asks for nothing that would
not be installed anyway: a line that another platform does not need is without effect there.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

TORCH_BUILD = ("cuda-", "nvidia-", "triton")
"""What only some builds of torch bring along. torch itself asks for exact versions of most of it."""

HEADER = """\
# What comes along with the pins of both requirements files, written by scripts/constraints.py (`make constraints`).
# torch's CUDA packages are left to torch.
"""


def canonical(name: str) -> str:
    """The one spelling of a distribution's name (PyPA's name normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    """Resolves the pins and replaces constraints.txt."""
    texts = [(ROOT / name).read_text() for name in ("requirements.txt", "requirements-dev.txt")]
    lines = (line.partition("#")[0].strip() for text in texts for line in text.splitlines())
    pins = [line for line in lines if "==" in line]
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    report = json.loads(subprocess.run([*pip, *pins], check=True, stdout=subprocess.PIPE).stdout)
    found = {canonical(item["metadata"]["name"]): item["metadata"]["version"] for item in report["install"]}
    direct = {canonical(pin.partition("==")[0]) for pin in pins}
    rest = [name for name in sorted(found) if name not in direct and not name.startswith(TORCH_BUILD)]
    text = HEADER + "".join(f"{name}=={found[name].partition('+')[0]}\n" for name in rest)
    (ROOT / "constraints.txt").write_text(text)
    print(f"constraints.txt: {len(rest)} versions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
