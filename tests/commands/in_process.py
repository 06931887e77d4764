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


def run_all(begun):
    """What takes the place of `xray.training.side_by_side.run_all`: works run here, one after another.

    begun: a list that gets (work, command, its flags) of each that is begun.
    """

    def run_all(works, slots, done):
        for work in works:
            for command, *flags in work.commands:
                begun.append((work.name, command, flags))
                ended = run(command, *flags)
                print(ended.stdout)
                print(ended.stderr, file=sys.stderr)
                if ended.returncode:
                    return ended.returncode, work.name
                done(work, command)
        return 0, ""

    return run_all
