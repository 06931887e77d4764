"""Prints the lowest versions that setup.cfg allows as a requirements file: `make test-lowest` runs the suite with them.

    python scripts/lowest.py [--keep torch torchvision]

Every direct dependency, those of the extras too, is held at its floor: `numpy>=2.1,<3` gives `numpy==2.1`. What --keep
names stays at its pinned version: a second build of torch is a download of gigabytes. What the direct
dependencies need themselves is left to pip. Uses the standard library alone, as it runs before anything is installed.
"""

import argparse
import configparser
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLOOR = re.compile(r"(?P<name>[\w.-]+) *(?:>=|==) *(?P<version>\d[\w.]*)(?: *,.*)?")


def floors(setup_cfg: str) -> dict[str, str]:
    """Name → lowest version of every direct dependency in the text of a setup.cfg.

    Raises ValueError for one whose range does not begin with `>=VERSION` or `==VERSION`: it would have no floor.
    """
    config = configparser.ConfigParser()
    config.read_string(setup_cfg)
    groups = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    found = {}
    for line in filter(None, (line.strip() for group in groups for line in group.splitlines())):
        match = FLOOR.fullmatch(line)
        if match is None:
            raise ValueError(f"setup.cfg: {line!r} names no lowest version: begin its range with >=")
        found[match["name"]] = match["version"]
    return found


def pins(requirements: str) -> dict[str, str]:
    """Name → version of the `name==version` lines in the text of a requirements file."""
    return dict(line.strip().split("==") for line in requirements.splitlines() if "==" in line.partition("#")[0])


def main() -> int:
    """Reads setup.cfg and the pins, writes to stdout."""
    parser = argparse.ArgumentParser(description="The lowest versions that setup.cfg allows, as a requirements file.")
    parser.add_argument("--keep", nargs="*", default=[], help="names that stay at their pinned version")
    keep = parser.parse_args().keep
    texts = [(ROOT / name).read_text() for name in ("requirements.txt", "requirements-dev.txt")]
    lowest, pinned = floors((ROOT / "setup.cfg").read_text()), pins("\n".join(texts))
    if unknown := sorted(set(keep) - (set(lowest) & set(pinned))):
        parser.error(f"--keep {' '.join(unknown)}: no direct dependency of that name")
    print("# The lowest versions that setup.cfg allows, made by scripts/lowest.py.")
    for name, version in sorted(lowest.items(), key=lambda item: item[0].lower()):
        print(f"{name}=={pinned[name]}  # kept: its floor is {version}" if name in keep else f"{name}=={version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
