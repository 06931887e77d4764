"""A side of a comparison in a process of its own. Apart from the others: that process imports this file."""

import pytest

from benchmarks.sides import Side
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


def test_a_side_works_in_another_process():
    with Side(Echo, "ab") as side:
        assert side.call("say", 2) == "abab"
        with pytest.raises(InputError, match="as asked"):
            side.call("fail", "input")
        with pytest.raises(RuntimeError, match="ValueError: as asked"):
            side.call("fail", "value")
        assert side.call("say", 1) == "ab"
        process = side._process
    assert process.exitcode is not None
    with pytest.raises(InputError, match="nothing to echo"):
        Side(Echo, "nothing")
