"""Says which packages of setup.cfg are missing or too old here: python benchmarks/needs.py. Imports none of them."""

import configparser
import importlib.metadata
from pathlib import Path

SETUP = Path(__file__).resolve().parents[1] / "setup.cfg"


def unmet(setup: Path = SETUP) -> list[str]:
    """What of the package's requirements this Python does not meet, each with the version that is there."""
    from packaging.requirements import Requirement  # torch and Lightning bring it

    config = configparser.ConfigParser()
    config.read(setup)
    missing = []
    for line in config["options"]["install_requires"].split("\n"):
        if not line.strip():
            continue
        wanted = Requirement(line)
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{line} (not installed)")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            missing.append(f"{line} (installed: {version})")
    return missing


if __name__ == "__main__":
    print("\n".join(unmet()))
