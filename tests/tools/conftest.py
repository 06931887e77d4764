"""Fixtures of the tests that run whole commands."""

from collections.abc import Iterator

import pytest
from forking import Forks


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """A process that forks commands; it takes seconds to start, so that all tests share it."""
    with Forks() as started:
        yield started
