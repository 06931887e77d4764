"""Python's collector of cycles, which conversion lets run more rarely: as before when it has ended."""

import gc

import pytest

from xray.datasets import sources
from xray.errors import InputError


@pytest.fixture
def thresholds():
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)


@pytest.mark.parametrize("own", [(700, 10, 10), (200_000, 5, 5), (0, 10, 10)])
def test_the_thresholds_are_those_of_before(tmp_path, monkeypatch, thresholds, own):
    gc.set_threshold(*own)
    meanwhile = []
    with sources._rarer_collection():
        meanwhile.append(gc.get_threshold()[0])
        with sources._rarer_collection():
            meanwhile.append(gc.get_threshold()[0])
        meanwhile.append(gc.get_threshold()[0])
    assert len(set(meanwhile)) == 1
    # Never more often than the caller's; 0 is never.
    assert meanwhile[0] == 0 if own[0] == 0 else meanwhile[0] >= max(100_000, own[0])
    assert gc.get_threshold() == own
    with pytest.raises(InputError):
        sources.convert("coco", tmp_path / "absent", tmp_path / "data")
    assert gc.get_threshold() == own
