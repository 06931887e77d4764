"""python tools/account.py: `xray account` of this checkout."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # The repository's root in place of tools/, whose file names would shadow packages.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from xray.__main__ import start

    start("account")
