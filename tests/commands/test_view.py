"""tools/view.py on a small dataset written by hand: which radiographs it draws, under which names, and its errors."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from xray.commands.view import Config, choose_rows, draw_both, draw_truth, file_names, main
from xray.datasets.prediction_ids import read_any_predictions
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError
from xray.findings import colour_of
from xray.outputs.pictures.findings import not_said

SIZE = 128


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Six radiographs of 200 x 100 pixels, grey level 50 + row; rows 0 to 3 have a box each, row 5 is a test image."""
    path = tmp_path / "data"
    path.mkdir()
    images = np.zeros((6, SIZE, SIZE), dtype=np.uint8)
    images[:, 32:96] = 50 + np.arange(6)[:, None, None]
    np.save(path / "images.npy", images)
    records = [
        {
            "id": row,
            "file_name": f"train/{row}.png",
            "source_id": f"id/{row}",
            "width": 200,
            "height": 100,
            "fold": -1 if row == 5 else row % 2,
            "split": "test" if row == 5 else "train",
            "readers": ["R1", "R2", "R3"],
        }
        for row in range(6)
    ]
    annotations = [
        {"id": row, "image_id": row, "category_id": 1 + row % 2, "bbox": [50, 25, 100, 50], "readers": ["R1", "R3"]}
        for row in range(4)
    ]
    mask = np.zeros((100, 200), dtype=np.uint8, order="F")
    mask[25:75, 50:150] = 1
    annotations[0]["segmentation"] = {**(rle := coco_mask.encode(mask)), "counts": rle["counts"].decode()}
    categories = [{"id": 1, "name": "Nodule/Mass"}, {"id": 2, "name": "ILD"}]
    content = {"images": records, "annotations": annotations, "categories": categories}
    (path / "annotations.json").write_text(json.dumps(content))
    (path / "conversion.json").write_text(json.dumps({"parameters": {"image_size": SIZE}}))
    return path


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def test_boxes_lie_on_the_cropped_canvas(dataset):
    picture = draw_truth(open_store(dataset), 1, min_side=800)
    assert picture.shape[1] == 800
    top = next(y for y in range(picture.shape[0]) if tuple(picture[y, 799]) == (51, 51, 51))
    assert 0 < top < 60
    assert (picture[top : top + 400, 797] == 51).all()
    # x 50 of 200 lies at 200 of 800, y 25 of 100 at 100 of 400: four times larger.
    for x, y in ((200, 200), (600, 200), (400, 300)):
        assert tuple(picture[top + y, x]) == rgb(colour_of(2)), (x, y)
    assert tuple(picture[top + 200, 400]) == (51, 51, 51)


def test_masks_are_drawn(dataset):
    store = open_store(dataset)
    masked, plain = draw_truth(store, 0, min_side=800), draw_truth(store, 2, min_side=800)
    top = next(y for y in range(masked.shape[0]) if tuple(masked[y, 799]) == (50, 50, 50))
    # Rows 0 and 2 have the same box and finding; only the first has a mask, which fills its box.
    tint = (masked[top : top + 400].astype(int) - plain[top : top + 400]).max(axis=2)
    assert (tint[110:290, 210:590] > 5).mean() > 0.99
    assert (tint[:, :190] < 1).all()
    assert (tint[:, 610:] < 1).all()


def test_chooses_rows(dataset):
    store = open_store(dataset)
    assert choose_rows(store, Config(all=True)) == [0, 1, 2, 3, 4, 5]
    assert choose_rows(store, Config(split="test")) == [5]
    assert choose_rows(store, Config(fold=1)) == [1, 3]
    assert choose_rows(store, Config(finding="nodule/mass")) == [0, 2]
    assert choose_rows(store, Config(finding="No finding")) == [4, 5]
    some = choose_rows(store, Config(n=3, seed=1))
    assert len(set(some)) == 3
    assert some == sorted(some) == choose_rows(store, Config(n=3, seed=1))
    assert len({tuple(choose_rows(store, Config(n=3, seed=seed))) for seed in range(8)}) > 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"finding": "Gout"}, "no finding named 'Gout': it has Nodule/Mass, ILD, No finding"),
        ({"finding": "ILD", "split": "test"}, "no radiograph that fits"),
        ({"fold": 7}, "has no fold 7"),
    ],
)
def test_names_what_is_not_there(dataset, flags, message):
    with pytest.raises(InputError, match=message):
        choose_rows(open_store(dataset), Config(**flags))


def test_file_names_are_safe_and_distinct():
    names = file_names(["a", "A", "../../etc/passwd", "contact_sheet", "é b", "", "a" * 500, "1.2.840"])
    assert names[:4] == ["a.png", "A-2.png", "_.._etc_passwd.png", "contact_sheet-2.png"]
    assert all("/" not in name and name.isascii() and len(name) < 130 for name in names)
    assert names[7] == "1.2.840.png"
    assert len({name.casefold() for name in names}) == len(names)


def test_writes_pictures_and_a_contact_sheet(dataset, tmp_path, capsys):
    main(Config(data_path=dataset, save_path=tmp_path / "pictures", split="train"))
    files = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert files == ["contact_sheet.png", *(f"id_{row}.png" for row in range(5))]
    assert cv2.imread(str(tmp_path / "pictures" / "id_1.png")).shape[1] == 768
    assert "5 pictures in" in capsys.readouterr().out
    main(Config(data_path=dataset, save_path=tmp_path / "more", n=1, contact_sheet=False))
    assert len(list((tmp_path / "more").iterdir())) == 1


def test_refuses_unusable_flags(dataset, tmp_path):
    with pytest.raises(FlagError, match="--n is 0"):
        main(Config(data_path=dataset, save_path=tmp_path, n=0))
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(InputError, match="is a file"):
        main(Config(data_path=dataset, save_path=file))
    assert file.read_text() == "kept"


def test_one_line_of_error_from_any_folder(tmp_path):
    script = Path(__file__).resolve().parents[2] / "tools" / "view.py"
    run = [sys.executable, str(script), "--data-path", "nowhere", "--save-path", "pictures"]
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: no dataset at nowhere")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "pictures").exists()


def test_predictions_stand_beside_the_truth(dataset, tmp_path, capsys):
    store = open_store(dataset)
    rows = [{"image_id": f"id/{row}", "category_id": 2, "bbox": [0, 0, 40, 40], "score": 0.8 - row} for row in (0,)]
    faint = {"image_id": "id/1", "category_id": 1, "bbox": [150, 50, 40, 40], "score": 0.2}
    (tmp_path / "p.json").write_text(json.dumps([*rows, faint]))
    main(Config(dataset, tmp_path / "out", predictions=tmp_path / "p.json"))
    # Only what the predictions name.
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["contact_sheet.png", "id_0.png", "id_1.png"]
    for row, (ours, theirs) in enumerate((((2,), (0, 0, 40, 40)), ((), (150, 50, 40, 40)))):
        predictions = read_any_predictions(tmp_path / "p.json", store)
        picture = draw_both(store, row, predictions, threshold=0.3)
        truth, found = np.split(picture, [picture.shape[1] // 2], axis=1)
        # The true box on the left, in its colour; on the right what was found, unless it is too faint.
        assert (truth == rgb(colour_of(1 + row % 2))).all(axis=2).any()
        assert [label for label in (1, 2) if (found == rgb(colour_of(label))).all(axis=2).any()] == list(ours), theirs
    every = choose_rows(store, Config(dataset, all=True, predictions=tmp_path / "p.json"), predictions)
    assert len(every) == 6


def test_what_is_not_known_is_written_below(tmp_path, vinbig_store):
    data = tmp_path / "data"
    shutil.copytree(vinbig_store, data)
    content = json.loads((data / "annotations.json").read_text())
    content["images"][0] |= {"labels": [4], "unlocated": [4], "unknown": [1, 2, 3, 5, 6]}
    (data / "annotations.json").write_text(json.dumps(content))
    store = open_store(data)
    assert not_said(store.records[0], store.categories) == [
        "not located: Cardiomegaly",
        "not known: Aortic enlargement, Atelectasis, Calcification and 2 more",
    ]
    before, after = draw_truth(open_store(vinbig_store), 0), draw_truth(store, 0)
    # The radiograph is the same, the legend below it is not.
    assert np.array_equal(before[:500], after[:500])
    assert not np.array_equal(before[600:], after[600:])
    # Not located is not normal; and a finding is found by its label.
    assert 0 in choose_rows(store, Config(data, all=True, finding="Cardiomegaly"))
    assert 0 not in choose_rows(store, Config(data, all=True, finding="No finding"))
    assert 0 in choose_rows(open_store(vinbig_store), Config(vinbig_store, all=True, finding="No finding"))


def test_no_radiograph_of_the_same_name_is_replaced(dataset, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "id_3.png").write_bytes(b"\x89PNG\r\n\x1a\n a radiograph")
    with pytest.raises(InputError, match=r"id_3\.png is there, and no picture that this command has drawn"):
        main(Config(data_path=dataset, save_path=tmp_path / "files"))
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["id_3.png"]
    (tmp_path / "files" / "id_3.png").unlink()
    for _ in range(2):
        main(Config(data_path=dataset, save_path=tmp_path / "files"))
