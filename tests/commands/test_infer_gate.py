"""--gate-image and --upright of the infer command: what is named, what is refused, and where boxes and masks are."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pydicom.data
import pytest

from xray.commands.infer import Config, main
from xray.errors import FlagError, InputError
from xray.outputs import results
from xray.phantoms.dicom import Storage, dicom_of, save_dicom
from xray.phantoms.drawing import draw_phantom
from xray.radiographs.image_check import BACK, TURNED
from xray.structures.masks import decode_mask
from xray.structures.predictions import read_predictions

TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"
CT_SAID = "no frontal chest radiograph: its header says CT"
LATERAL_SAID = "no frontal chest radiograph: its header says chest, lateral"


@pytest.fixture(scope="module")
def phantom():
    """(256, 232) uint8, upright, whose marker and pneumothorax tell its sides."""
    return (draw_phantom(11, 232, 256, (12,)).pixels * 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path, phantom):
    """A frontal radiograph, a lateral one by its header, a slice of CT, and a radiograph that lies on its side."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, view in (("a", "PA"), ("b", "LL")):
        storage = Storage(12, False, True, "1.2.840.10008.1.2.1", False)
        dataset = dicom_of(phantom / np.float32(255), storage, name, 0.14, "F", 50, "PA", np.random.default_rng(1))
        dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", view
        save_dicom(dataset, raw / f"{name}.dcm")
    (raw / "ct.dcm").write_bytes((TEST_FILES / "CT_small.dcm").read_bytes())
    assert cv2.imwrite(str(raw / "turned.png"), np.rot90(phantom))
    return raw


def infer(data, run, out, **changes):
    options = {"device": "cpu", "n_workers": 0, "batch_size": 1, "tta": False, "sizes": "none", **changes}
    return main(Config(weights=(str(run),), data_path=str(data), save_path=str(out), **options))


def rows_of(path):
    with open(path, newline="") as file:
        return {row["image_id"]: row for row in csv.DictReader(file)}


def test_what_is_no_upright_frontal_chest_is_named_and_used(folder, segmentation_run, tmp_path, capsys, monkeypatch):
    pytest.importorskip("highdicom")
    drawn, draw = {}, results.draw_findings

    def noting(pixels, findings, title, **options):
        drawn[title.partition(":")[0]] = options["notes"]
        return draw(pixels, findings, title, **options)

    monkeypatch.setattr(results, "draw_findings", noting)
    assert infer(folder, segmentation_run, tmp_path / "out", sr=True, overlays=True) == 0
    said = {name: row["warning"] for name, row in rows_of(tmp_path / "out" / "warnings.csv").items()}
    assert said == {"b": LATERAL_SAID, "ct": CT_SAID, "turned": TURNED[3]}
    assert f"warning: 1 × {CT_SAID} (ct.dcm)" in capsys.readouterr().err
    assert set(read_predictions(tmp_path / "out" / "predictions.json").image_ids) <= {"a", "b", "ct", "turned"}
    comments = {}
    for name in ("a", "b", "ct"):
        report = pydicom.dcmread(tmp_path / "out" / "sr" / f"{name}.dcm")
        found = [item for _, item in _items(report) if item.get("TextValue") and _concept(item) == "121106"]
        comments[name] = [item.TextValue for item in found if item.TextValue in said.values()]
    assert comments == {"a": [], "b": [LATERAL_SAID], "ct": [CT_SAID]}
    # The pictures say it themselves.
    assert drawn == {"a": [], "b": [LATERAL_SAID], "ct": [CT_SAID], "turned": [TURNED[3]]}


def _items(dataset, depth=0):
    for item in dataset.get("ContentSequence", []):
        yield depth, item
        yield from _items(item, depth + 1)


def _concept(item):
    return item.ConceptNameCodeSequence[0].CodeValue


def test_what_is_refused_is_a_failure_with_its_reason(folder, segmentation_run, tmp_path, capsys):
    out = tmp_path / "out"
    assert infer(folder, segmentation_run, out, gate_image="refuse") == 1
    failures = {name: row["reason"] for name, row in rows_of(out / "failures.csv").items()}
    assert failures == {
        "b": LATERAL_SAID,
        "ct": CT_SAID,
        "turned": TURNED[3],
    }
    assert not (out / "warnings.csv").exists()
    assert "3 of 4 radiographs could not be read or were refused" in capsys.readouterr().err
    found = read_predictions(out / "predictions.json")
    assert {found.image_ids[image] for image in found.table.images.tolist()} <= {"a"}


def test_it_can_be_left_out(folder, segmentation_run, tmp_path):
    assert infer(folder, segmentation_run, tmp_path / "out", gate_image="off") == 0
    assert not (tmp_path / "out" / "warnings.csv").exists()


def test_turned_radiographs_have_their_findings_where_they_are_in_the_file(phantom, segmentation_run, tmp_path):
    raw, masks, boxes = tmp_path / "raw", {}, {}
    raw.mkdir()
    for turn in range(4):
        assert cv2.imwrite(str(raw / f"{turn}.png"), np.rot90(phantom, -turn))
    flags = {"upright": True, "triplet": (0.01, 0.0, 0.01)}
    assert infer(raw, segmentation_run, tmp_path / "out", **flags) == 0
    said = {name: row["warning"] for name, row in rows_of(tmp_path / "out" / "warnings.csv").items()}
    assert said == {str(turn): BACK[turn] for turn in (1, 2, 3)}
    found = read_predictions(tmp_path / "out" / "predictions.json")
    for row, image in enumerate(found.table.images.tolist()):
        turn = int(found.image_ids[image])
        pixels = decode_mask(found.masks[row])
        assert pixels.shape == np.rot90(phantom, -turn).shape
        # A box is that of its mask in the file's own pixels, to the pixel.
        y, x = np.nonzero(pixels)
        assert found.table.boxes[row].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        masks.setdefault(turn, []).append(np.rot90(pixels, turn).tobytes())
        boxes.setdefault(turn, []).append(found.table.scores[row])
    assert len(masks[0]) >= 1
    assert all(sorted(masks[turn]) == sorted(masks[0]) for turn in range(4))
    assert all(sorted(boxes[turn]) == sorted(boxes[0]) for turn in range(4))


def test_datasets_are_not_looked_at(mask_store, segmentation_run, tmp_path):
    assert infer(mask_store, segmentation_run, tmp_path / "out", sizes="") == 0
    assert not (tmp_path / "out" / "warnings.csv").exists()
    for flags in ({"gate_image": "refuse"}, {"upright": True}):
        with pytest.raises(FlagError, match=r"for files, and .* is a dataset directory"):
            infer(mask_store, segmentation_run, tmp_path / "other", sizes="", **flags)


def test_pictures_are_not_written_where_the_next_command_would_read_them(folder, segmentation_run, tmp_path, capsys):
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match=r"is the folder .* itself, whose radiographs and results must stay apart"):
        infer(folder, segmentation_run, folder, overlays=True)
    assert sorted(folder.rglob("*")) == before
    # In a folder of its own among them they are left out by the next command, which sees the same radiographs.
    answers = []
    for overwrite in (False, True):
        assert infer(folder, segmentation_run, folder / "out", overlays=True, overwrite=overwrite) == 0
        answers.append((folder / "out" / "predictions.json").read_bytes())
        capsys.readouterr()
    assert answers[0] == answers[1]
    assert any((folder / "out" / "overlays").iterdir())


def test_objects_that_there_are_none_of_have_no_folder(phantom, segmentation_run, tmp_path, capsys):
    pytest.importorskip("highdicom")
    (tmp_path / "raw").mkdir()
    assert cv2.imwrite(str(tmp_path / "raw" / "a.png"), phantom)
    assert infer(tmp_path / "raw", segmentation_run, tmp_path / "out", sr=True) == 0
    said = capsys.readouterr().out
    assert "0 SR\nleft out by SR: 1 (no DICOM file)\n" in said
