"""Phantoms that several tests plant faults into."""

import pytest
from planting import draw_pictures


@pytest.fixture(scope="session")
def drawn():
    """48 phantoms of 128 pixels, and their boxes."""
    return draw_pictures(48, 128)
