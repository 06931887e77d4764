"""Contenders that share the test's process, where it is not processes that are tested: each imports for seconds."""


class Here:
    """What stands in for `benchmarks.processes.Contender`."""

    def __init__(self, make, *args):
        self._made = make(*args)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def call(self, method, *args):
        return getattr(self._made, method)(*args)
