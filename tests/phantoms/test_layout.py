"""Phantoms in the layouts of public sets: what all of them have in common, and that runs go on and are repeatable."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from xray.commands.phantoms import Config, main
from xray.errors import FlagError, InputError
from xray.findings import FINDINGS
from xray.phantoms.layout import layout_of, outlines, write_layout
from xray.phantoms.layouts import LAYOUTS


def records_of(folder):
    return [json.loads(line) for line in (folder / "phantoms.jsonl").read_text().splitlines()]


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_radiograph_is_where_its_record_says_and_shows_what_it_says(layout_tree, kind):
    folder, layout = layout_tree(kind), layout_of(kind)
    records = records_of(folder)
    assert len(records) == 11
    assert {record["split"] for record in records} == set(layout.splits)
    assert all((folder / record["file_name"]).is_file() for record in records)
    # All that was written is named, so that --overwrite can delete it.
    assert {path.name for path in folder.iterdir()} - {"phantoms.json", "phantoms.jsonl"} == set(layout.made)
    assert {finding["name"] for record in records for finding in record["findings"]} == set(FINDINGS)
    for record in records:
        for finding in record["findings"]:
            x1, y1, x2, y2 = finding["box"]
            assert 0 <= x1 < x2 <= record["width"]
            assert 0 <= y1 < y2 <= record["height"]
            points = np.concatenate(finding["outlines"])
            assert (points >= [int(x1) - 2, int(y1) - 2]).all()
            assert (points <= [x2 + 2, y2 + 2]).all()


def test_patients_have_several_radiographs_and_stay_in_their_split(layout_tree):
    splits, visits = {}, {}
    for record in records_of(layout_tree("nih")):
        splits.setdefault(record["patient"], set()).add(record["split"])
        visits.setdefault(record["patient"], []).append((record["visit"], record["sex"], record["age"]))
    assert all(len(of_patient) == 1 for of_patient in splits.values())
    assert {len(of_patient) for of_patient in visits.values()} == {1, 2}
    for of_patient in visits.values():
        assert [visit for visit, *_ in of_patient] == list(range(len(of_patient)))
        assert len({(sex, age) for _, sex, age in of_patient}) == 1


def test_an_interrupted_run_goes_on_and_any_number_of_workers_writes_the_same(layout_tree, tmp_path):
    before = layout_tree("nih")
    folder = tmp_path / "nih"
    shutil.copytree(before, folder)
    for record in records_of(folder)[::4]:
        (folder / record["file_name"]).unlink()
    (folder / "phantoms.jsonl").write_text((folder / "phantoms.jsonl").read_text()[:-30])
    (folder / "test_list.txt").unlink()
    options = {"seed": 2, "size": 96, "normal_fraction": 0.4, "progress": False}
    written = write_layout("nih", tmp_path, 8, 3, n_workers=2, **options)
    assert written.n_drawn == 4
    assert digests(folder) == digests(before)
    with pytest.raises(InputError, match="--overwrite"):
        write_layout("nih", tmp_path, 2, 0, **options)
    assert write_layout("nih", tmp_path, 2, 0, overwrite=True, **options).n_drawn == 2
    assert len(list(folder.glob("images_*/images/*.png"))) == 2


def test_outlines_go_around_each_part_and_fall_back_to_the_box():
    mask = np.zeros((20, 30), bool)
    mask[2:8, 3:9] = mask[12:18, 20:27] = True
    assert sorted(sorted(map(tuple, polygon)) for polygon in outlines(mask, (3, 2, 27, 18))) == [
        [(3, 2), (3, 7), (8, 2), (8, 7)],
        [(20, 12), (20, 17), (26, 12), (26, 17)],
    ]
    assert outlines(np.zeros((20, 30), bool), (3.2, 2.5, 4.1, 3)) == [[[3, 2], [5, 2], [5, 3], [3, 3]]]


def test_the_command_draws_trees_and_names_the_next_one(tmp_path, capsys):
    main(Config(tmp_path, ("nih",), n_train=2, n_test=1, size=96, normal_fraction=0.5, n_workers=0))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"2 training and 1 test phantoms in {tmp_path / 'nih'}"
    assert lines[-1] == f"  python tools/convert.py nih --data-path {tmp_path / 'nih'} --save-path DATA"
    with pytest.raises(FlagError, match="give one or more of vinbig, siim, lungs, nih, "):
        main(Config(tmp_path, ()))
