"""tools/audit.py from the command line: its files, what it prints, and what it refuses."""

import csv
import json
import sys

import numpy as np
import pytest
from planting import draw_pictures, plant, predict

from xray.commands import audit as audit_command
from xray.commands.audit import Config, main, run
from xray.errors import InputError


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """36 phantoms of two categories, with a fault of each kind, and predictions of a good model."""
    folder = tmp_path_factory.mktemp("audit")
    pictures, boxes = draw_pictures(36, 112, seed=3)
    boxes = [[(1 + label % 2, box) for label, box in of_picture] for of_picture in boxes]
    faulty = plant(folder / "data", pictures, boxes, 3, 1, 1, 1, n_categories=2)
    predict(faulty, boxes, folder / "p.json")
    return faulty, folder / "p.json"


def test_writes_a_page_numbers_and_a_table(planted, tmp_path, capsys, sketched):
    faulty, predictions = planted
    out = tmp_path / "out"
    main(Config(faulty.path, out, predictions))
    names = {path.name for path in out.iterdir()}
    assert names == {
        "audit.html", "audit.md", "audit.json", "named.csv", "copies.png", "odd.png", "labels.png", "places.png",
    }  # fmt: skip
    numbers = json.loads((out / "audit.json").read_text())
    assert numbers["n_images"] == 39
    with (out / "named.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(numbers["named"])
    assert {(row["radiograph"], row["other"]) for row in rows if row["why"] == "near-duplicate"} == {
        (f"r{first}", f"r{second}") for first, second in faulty.copies
    }
    by_reason = numbers["named_by_reason"]
    assert (by_reason["inverted"], by_reason["turned"], by_reason["category of a box"]) == (1, 1, 1)
    page = (out / "audit.html").read_text()
    assert "every number is in audit.json beside this page" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    said = capsys.readouterr()
    assert f"named: {numbers['n_named']} of 39 radiographs" in said.out
    assert "without_box" not in said.out
    with pytest.raises(InputError, match=r"audit\.json exists: give --overwrite"):
        main(Config(faulty.path, out, predictions))


def test_without_pixels_the_tables_are_looked_through(tmp_path, write_table_store, capsys, sketched):
    images = [("a", "train", 0, "P"), ("b", "train", 1, "P"), ("c", "test", -1, None)]
    data = write_table_store(tmp_path / "data", images, [(0, 4, (10, 10, 500, 500))])
    main(Config(data, tmp_path / "out"))
    numbers = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert [entry["why"] for entry in numbers["named"]] == ["patient in two places"]
    assert numbers["readers"] is None
    assert "the dataset has no pixels" in capsys.readouterr().err
    assert not (tmp_path / "out" / "copies.png").exists()


def test_the_dataset_may_stand_first(planted, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["xray audit", str(tmp_path / "nowhere"), "--save-path", str(tmp_path / "out")])
    assert run() == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: no dataset at {tmp_path / 'nowhere'}")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_predictions_of_another_dataset_are_refused_before_anything_is_read(planted, tmp_path):
    faulty, _ = planted
    row = {"image_id": "elsewhere", "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}
    (tmp_path / "p.json").write_text(json.dumps([row]))
    with pytest.raises(InputError, match=r"none of the 1 images in p\.json"):
        main(Config(faulty.path, tmp_path / "out", tmp_path / "p.json"))
    assert not (tmp_path / "out").exists()
    assert np.load(faulty.path / "images.npy", mmap_mode="r").shape[0] == 39


@pytest.mark.parametrize("when", ["reading", "looking for copies"])
def test_interrupted_while_it_looks_nothing_is_written(planted, tmp_path, monkeypatch, when):
    shown = []

    def show(bar, what, share):
        shown.append((what, share))
        if what == when:
            raise KeyboardInterrupt

    monkeypatch.setattr(audit_command._Bar, "show", show)
    with pytest.raises(KeyboardInterrupt):
        main(Config(planted[0].path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert next(share for what, share in shown if what == "reading") == pytest.approx(1 / 39)


def test_the_bar_ends_full(write_table_store, tmp_path, capsys, sketched):
    data = write_table_store(tmp_path / "data", [("a", "train", 0, "P"), ("b", "train", 1, "Q")], [])
    main(Config(data, tmp_path / "out"))
    last = [line for line in capsys.readouterr().err.splitlines() if "%" in line or "page" in line][-1]
    assert last.split()[0] == "done"
    assert " 100% " in last


def test_interrupted_while_it_writes_it_starts_anew(write_table_store, tmp_path, monkeypatch, sketched):
    data = write_table_store(tmp_path / "data", [("a", "train", 0, "P"), ("b", "train", 1, "Q")], [])
    with monkeypatch.context() as patch:
        patch.setattr(audit_command, "_write_named", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            main(Config(data, tmp_path / "out"))
    # The page is there as a whole, numbers and names are not, not even in part.
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left >= {"audit.html", "audit.md", "audit.part"}
    assert not left & {"named.csv", "audit.json"}
    main(Config(data, tmp_path / "out"))
    assert {"audit.json", "named.csv"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert not (tmp_path / "out" / "audit.part").exists()
