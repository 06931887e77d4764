"""Scripts written for 0.1 go on, and are told the new names."""

import importlib
import warnings

import pytest

from xray import data


@pytest.mark.parametrize("name", sorted(data.MOVED))
def test_each_old_name_finds_the_new_module(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old = importlib.import_module(f"xray.data.{name}")
    for place in data.MOVED[name]:
        new = importlib.import_module(place)
        public = [each for each in vars(new) if not each.startswith("_")]
        assert public
        assert all(getattr(old, each) is not None for each in public if getattr(new, each) is not None)
    with pytest.raises(AttributeError, match=f"'xray.data.{name}' has no attribute 'nothing'"):
        _ = old.nothing


def test_what_has_moved_within_a_module():
    with pytest.warns(DeprecationWarning, match=r"xray\.data\.masks is now xray\.structures\.masks and"):
        importlib.reload(importlib.import_module("xray.data.masks"))
    from xray.data.masks import decode_mask, mask_canvas

    from xray import findings
    from xray.datasets import mask_canvas as new
    from xray.structures import masks, sides

    assert (mask_canvas, decode_mask) == (new.mask_canvas, masks.decode_mask)
    assert findings.mirrored is sides.mirrored
    with pytest.raises(AttributeError):
        _ = findings.nothing
