"""The growth benchmark: exponents by hand, what a process holds, and the radiographs it makes."""

import json

import pytest
from PIL import Image

from benchmarks import memory
from benchmarks.material import write_radiographs
from xray.datasets.sources import convert
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError


def rows(seconds, held):
    numbers = (100, 1000, 10000)
    return [{"n_images": n, "seconds": seconds(n), "cpu_seconds": 2 * seconds(n), "held": held(n)} for n in numbers]


def test_growth_by_hand():
    # What a command takes to start does not make it less than linear.
    linear = memory.fit(rows(lambda n: 7 + 0.01 * n, lambda n: 300 << 20))
    assert linear["exponent"] == pytest.approx(1)
    assert linear["cpu_exponent"] == pytest.approx(1)
    assert linear["seconds_per_image"] == pytest.approx(0.01)
    assert linear["held_per_image"] == 0
    square = memory.fit(rows(lambda n: 7 + 1e-6 * n * n, lambda n: 1000 + 64 * n))
    assert 1.9 < square["exponent"] < 2.1
    assert square["held_per_image"] == 64
    assert memory.fit(rows(lambda n: 7 + 0.01 * n, lambda n: 1)[:2])["exponent"] is None
    assert memory.fit(rows(lambda n: 7, lambda n: 1))["exponent"] is None


def test_memory_of_a_command_and_its_children(tmp_path):
    script = tmp_path / "hold.py"
    script.write_text(
        "import subprocess, sys, time\n"
        "child = None if sys.argv[1:] else subprocess.Popen([sys.executable, __file__, 'child'])\n"
        "block = bytearray(b'x') * (60 << 20)\n"
        "time.sleep(1.5)\n"
        "child and child.wait()\n"
    )
    usage = memory.run([str(script)])
    assert 120 << 20 < usage["held"] < 200 << 20
    assert usage["resident"] >= usage["held"]
    assert usage["seconds"] > 1.5
    assert 0 < usage["cpu_seconds"] < usage["seconds"]


def test_a_command_that_fails_is_said(tmp_path):
    script = tmp_path / "fail.py"
    script.write_text("import sys\nprint('more', file=sys.stderr)\nsys.exit('error: no data at nowhere')\n")
    with pytest.raises(InputError, match="ended with status 1: error: no data at nowhere"):
        memory.run([str(script)])


def test_the_radiographs_convert_without_loss(tmp_path):
    write_radiographs(tmp_path / "raw", 20, 64)
    convert("vinbig", tmp_path / "raw", tmp_path / "data", image_size=64, n_workers=0)
    store = open_store(tmp_path / "data")
    assert len(store) == 20
    assert not store.conversion.get("left_out")
    assert {record["height"] for record in store.records} == {77}
    # Half of them have boxes, which the three readers' rows were fused into.
    assert len(set(store.boxes.images.tolist())) == 10
    assert 10 <= len(store.boxes) <= 20
    assert len({store.images[row].tobytes() for row in range(16)}) == 16


def test_draws_a_figure(tmp_path):
    def measured(scale):
        return rows(lambda n: 5 + scale * n, lambda n: int(scale * 1e10) + n)

    memory.draw({"results": {"convert": measured(0.01), "train": measured(0.05)}}, tmp_path / "growth.png")
    with Image.open(tmp_path / "growth.png") as picture:
        assert picture.size == (1260, 585)


@pytest.mark.nightly
def test_runs_the_real_commands(tmp_path, capsys):
    memory.main(memory.Config(n_images=(20, 40), n_workers=0, batch_size=4, save_path=tmp_path / "growth.json"))
    report = json.loads((tmp_path / "growth.json").read_text())
    assert list(report["results"]) == ["convert", "train", "infer", "evaluate"]
    for measured in report["results"].values():
        assert [row["n_images"] for row in measured] == [20, 40]
        assert all(row["held"] > 20 << 20 for row in measured)
    assert (tmp_path / "growth.png").is_file()
    assert "exponent" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"n_images": (100,)}, "--n-images is 100"),
        ({"n_images": (200, 100)}, "--n-images is 200 100"),
        ({"n_images": (5, 100)}, "--n-images is 5 100"),
        ({"image_size": 16}, "--image-size is 16"),
    ],
)
def test_refuses_unusable_flags(flags, message):
    with pytest.raises(FlagError, match=message):
        memory.main(memory.Config(**flags))
