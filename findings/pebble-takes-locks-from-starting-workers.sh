#!/usr/bin/env bash
# A pool of pebble that is stopped removes the names of its locks first and ends its processes then, one by one: a worker that
# is still starting meanwhile (fork server) finds no lock and prints a traceback, though all work is done and right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install pebble==5.2.3
cat > "$folder/try.py" <<'PYTHON'
import importlib.metadata
import multiprocessing
import signal
import time

import pebble


class Late:
    """Takes a second to arrive in any worker but the first, as on a busy machine."""

    n = -1

    def __reduce__(self):
        Late.n += 1
        return time.sleep, (min(Late.n, 1),)


def start(late):
    pass


def work(number):
    # Takes its time to end, as a worker in the middle of a long call does.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return number


if __name__ == "__main__":
    print("pebble", importlib.metadata.version("pebble"), flush=True)
    context = multiprocessing.get_context("forkserver")
    pool = pebble.ProcessPool(2, initializer=start, initargs=(Late(),), context=context)
    print("result:", pool.schedule(work, (7,)).result(), flush=True)
    pool.stop()
    pool.join()
PYTHON
"$folder/venv/bin/python" "$folder/try.py" > "$folder/out" 2>&1
cat "$folder/out"
grep -q "result: 7" "$folder/out" && grep -q "FileNotFoundError" "$folder/out"
# Seen: result: 7, then "Traceback (most recent call last): … self._semlock = _multiprocessing.SemLock._rebuild(*state)
# FileNotFoundError: [Errno 2] No such file or directory".
