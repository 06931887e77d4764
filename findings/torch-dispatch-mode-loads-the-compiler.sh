#!/usr/bin/env bash
# The first operation under a TorchDispatchMode (such as torch.utils.flop_counter's) imports torch._dynamo with SymPy: a
# process that counts or watches the operations of one network pays more than a second and 75 MiB for a compiler that
# it never uses, and its first timing is wrong by that.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import resource
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode


def state():
    return time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


network, images = torch.nn.Conv2d(1, 4, 3), torch.zeros(1, 1, 64, 64)
network(images)
loaded_before = "torch._dynamo" in sys.modules
before = state()
with FlopCounterMode(display=False) as counter:
    network(images)
after = state()
loaded_after = "torch._dynamo" in sys.modules
print(f"torch {torch.__version__}, Python {sys.version.split()[0]}")
print(f"torch._dynamo loaded before: {loaded_before}, after: {loaded_after}; {counter.get_total_flops()} operations")
print(f"one convolution under the mode: {after[0] - before[0]:.2f} s, {after[1] - before[1]:.0f} MiB more")
sys.exit(0 if loaded_after and not loaded_before else 1)
PYTHON
# Seen: torch 2.14.1+cu130, Python 3.11.7
# torch._dynamo loaded before: False, after: True; 276768 operations
# one convolution under the mode: 1.17 s, 75 MiB more
