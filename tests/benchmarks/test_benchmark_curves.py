"""The benchmark of loss curves: its arithmetic by hand, and the command on a few radiographs."""

import json

import numpy as np
import pytest

from benchmarks import curves
from benchmarks.curves import compare, main, windowed
from xray.errors import FlagError


def test_windows_and_differences_by_hand():
    found = windowed([[1.0, 3, 5, 7, 9], [0.0, 0, 6, 2, 4]], 2)
    assert [part.tolist() for part in found] == [[3, 2], [8, 3]]
    result = compare(np.array([1.0, 2, 3]), np.array([1.5, 2, 4]))
    assert (result["float32"], result["bfloat16"], result["difference"]) == (2, 2.5, 0.5)
    # Differences of 0.5, 0 and 1: a standard deviation of 0.5, and t of two degrees of freedom is 4.303.
    assert result["of_differences"] == pytest.approx(0.5)
    assert result["ci95"] == pytest.approx([0.5 - 4.303 * 0.5 / 3**0.5, 0.5 + 4.303 * 0.5 / 3**0.5])
    assert result["between_seeds"] == pytest.approx(1)


def test_the_command(vinbig_store, tmp_path, capsys):
    flags = {"steps": 4, "windows": 2, "seeds": (0, 1), "fpn_channels": 16, "device": "cpu"}
    main(curves.Config(data_path=vinbig_store, n_images=4, save_path=tmp_path / "curves.json", **flags))
    report = json.loads((tmp_path / "curves.json").read_text())
    assert {name: [len(one) for one in of_seeds] for name, of_seeds in report["curves"].items()} == {
        "32": [4, 4],
        "bf16": [4, 4],
    }
    # A seed gives both the same start, and arithmetic alone tells them apart.
    for one, other in zip(report["curves"]["32"], report["curves"]["bf16"], strict=True):
        assert one[0] == pytest.approx(other[0], rel=0.05)
        assert one != other
    assert "loss, steps 3 to 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "flag"), [({"seeds": (1, 1)}, "seeds"), ({"seeds": (1,)}, "seeds"), ({"steps": 3}, "steps")]
)
def test_wrong_flags_are_named(flags, flag):
    with pytest.raises(FlagError, match=flag):
        main(curves.Config(**flags))
