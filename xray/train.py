"""python xray/train.py: `xray train` of this checkout; each process of a training is started by it."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder first: xray/storage would shadow a package of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from xray.__main__ import start

    start("train")
