"""Ids of radiographs that only their files name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.datasets.naming import source_ids


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        ([], []),
        (["s1.png", "s2.jpg", "a/s3.DCM", "1.2.840.1"], ["s1", "s2", "s3", "1.2.840.1"]),
        # Only those that would be called alike get a longer id.
        (["s1.png", "s1.jpg", "s2.png"], ["s1.png", "s1.jpg", "s2"]),
        (["a/s1.png", "b/s1.png", "b/s2.png"], ["a/s1", "b/s1", "s2"]),
        (["a/s1.png", "a/s1.jpg", "b/s1.png"], ["a/s1.png", "a/s1.jpg", "b/s1"]),
        (["a/s1.png", "s1.png"], ["a/s1", "s1"]),
        (["s1.png", "s1.PNG", "S1.png"], ["s1.png", "s1.PNG", "S1"]),
        # A longer id must not be another's short one.
        (["s1.png", "s1.jpg", "s1.png.dcm"], ["s1.png", "s1.jpg", "s1.png.dcm"]),
        (["s1", "s1.png", "a/s1.png"], ["s1", "s1.png", "a/s1"]),
    ],
)
def test_by_hand(names, ids):
    assert source_ids(names) == ids
    assert source_ids(names[::-1]) == ids[::-1]


PARTS = st.sampled_from(["a", "s1", "s1.png", "S1"])
NAMES = st.builds(
    lambda folders, stem, suffix: "/".join([*folders, stem + suffix]),
    st.lists(PARTS, max_size=2),
    PARTS,
    st.sampled_from(["", ".png", ".PNG", ".jpg", ".dcm", ".1"]),
)


@given(st.lists(NAMES, unique=True, max_size=12))
def test_different_names_have_different_ids(names):
    ids = source_ids(names)
    assert len(set(ids)) == len(names)
    # Nothing is made up: an id is the end of its own name.
    for name, own in zip(names, ids, strict=True):
        assert f"/{name}".rpartition(f"/{own}")[1]
