#!/usr/bin/env bash
# A Python process that has imported torch (Linux, CUDA build) takes its highest memory when it ends: who runs a process
# for each radiograph, or limits and measures the memory of jobs, pays 100 MiB and half a second that no code of theirs
# uses. Ending by os._exit, after flushing, avoids both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import os
import sys

import torch


def cost(code):
    """Processor seconds and highest resident MiB of a process that runs the code."""
    process = os.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-c", code])
    _, status, usage = os.wait4(process, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, {sys.platform}")
usual = min(cost("import torch") for _ in range(3))
early = min(cost("import torch, os; os._exit(0)") for _ in range(3))
print(f"import torch, usual end: {usual[0]:.2f} s of processor time, {usual[1]:.0f} MiB at most")
print(f"import torch, os._exit:  {early[0]:.2f} s of processor time, {early[1]:.0f} MiB at most")
sys.exit(0 if usual[1] > 1.1 * early[1] else 1)
PYTHON
# Seen: torch 2.14.1+cu130, Python 3.11.7, linux
# import torch, usual end: 2.09 s of processor time, 632 MiB at most
# import torch, os._exit:  1.52 s of processor time, 507 MiB at most
