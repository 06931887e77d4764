#!/bin/sh
# What is to be known of one GPU, in eight minutes at most: correctness, training, inference, loading, compiling.
#
#   benchmarks/gpu.sh [FOLDER]                       gpu.json and gpu.md go there; default: the current folder
#   benchmarks/gpu.sh FOLDER --miniature --device cpu    the same on a CPU with tiny networks, as a test
#
# It installs nothing and needs no network. PYTHON names the Python that has PyTorch (2.11 or newer), torchvision and
# Lightning; default: .venv of this checkout, else python3. Further packages of setup.cfg may lie in a folder that
# PYTHONPATH names. On a machine with a network:
#
#   python benchmarks/needs.py                       run by that Python: what is missing
#   pip install --no-deps --target PACKAGES NAME…    then PYTHONPATH=PACKAGES on the machine with the GPU
set -eu
out=${1:-.}
[ $# -eq 0 ] || shift
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ ! -x .venv/bin/python ] || PYTHON=.venv/bin/python
fi
unmet=$("$PYTHON" benchmarks/needs.py) || unmet="Python's own packaging"
if [ -n "$unmet" ]; then
    echo "not met here, so that some sections may fail:" >&2
    echo "$unmet" >&2
fi
# Sections end by themselves after 460 seconds, and what they measured until then is kept; this is for the case that
# the command itself hangs.
exec timeout --kill-after=5 475 "$PYTHON" -m benchmarks gpu --save-path "$out/gpu.json" "$@"
