"""Commands run in this process, where the process itself is not what is tested: it saves all imports of a new one."""

import contextlib
import importlib
import io
import os
import sys
from types import SimpleNamespace
from unittest import mock


def run(name, *args, cwd=None):
    """What `tools/NAME.py ARGS` prints, and its exit status, by the names that `subprocess.run` has for them."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd or os.getcwd()),
        mock.patch.object(sys, "argv", [f"{name}.py", *map(str, args)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            status = importlib.import_module(f"xray.commands.{name}").run()
        except SystemExit as end:
            status = end.code
    return SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=err.getvalue())
