"""python tools/benchmark.py: the benchmarks of this checkout, as python -m benchmarks runs them."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # The repository's root in place of tools/, whose file names would shadow packages.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from benchmarks.__main__ import run

    sys.exit(run())
