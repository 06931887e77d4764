"""A contender in a process of its own. Apart from the others: that process imports this file."""

import pytest

from benchmarks.processes import Contender
from xray.errors import InputError


class Echo:
    def __init__(self, word):
        if word == "nothing":
            raise InputError("nothing to echo")
        self.word = word

    def say(self, times):
        return self.word * times

    def fail(self, kind):
        raise {"input": InputError, "value": ValueError}[kind]("as asked")


def test_a_contender_works_in_another_process():
    with Contender(Echo, "ab") as contender:
        assert contender.call("say", 2) == "abab"
        with pytest.raises(InputError, match="as asked"):
            contender.call("fail", "input")
        with pytest.raises(ValueError, match="as asked"):
            contender.call("fail", "value")
        assert contender.call("say", 1) == "ab"
        [process] = contender._pool._processes.values()
    assert process.exitcode is not None
    with pytest.raises(InputError, match="nothing to echo"):
        Contender(Echo, "nothing")
