"""A worker that is still starting when its pool is gone ends without a traceback; any other fault of it is shown."""

import sys

import pytest

from xray.radiographs.worker_startup import report_error
from xray.radiographs.workers import Workers


def hook(item: str) -> str:
    """Where the worker's own way to show errors comes from."""
    return sys.excepthook.__module__


def test_workers_start_quietly():
    with Workers(1, __name__) as workers:
        assert workers.submit(hook, "", "name").result(30) == "xray.radiographs.worker_startup"


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file or directory"), EOFError(), BrokenPipeError()])
def test_a_pool_that_is_gone_is_nothing_to_complain_of(error, capsys):
    report_error(type(error), error, None)
    assert capsys.readouterr().err == ""


def test_other_faults_are_shown(capsys):
    error = ModuleNotFoundError("No module named 'oops'")
    report_error(type(error), error, None)
    assert "ModuleNotFoundError: No module named 'oops'" in capsys.readouterr().err
