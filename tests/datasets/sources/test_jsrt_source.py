"""JSRT: a centre and a diameter become a square box; ages of ?, lines that end in a carriage return."""

import numpy as np
import pytest
from set_cases import boxes_of, picture, reasons_of

from xray.datasets import source as reasons
from xray.datasets.conversion import write_store
from xray.datasets.source import NOT_IN_TABLE
from xray.datasets.sources.jsrt import NO_JSRT_NAME, NO_NODULE, OTHER_EDITION, SHORT_LINE, read_jsrt
from xray.datasets.store import open_store
from xray.errors import InputError

NODULES = [
    "JPCLN001.IMG\t5\t14\t53\tMale\t1634\t692\tmalignant\tl.upper lobe\tlung cancer",
    "JPCLN002.IMG\t3\t35\t?\tFemale\t2040\t60\tbenign\tr.lower lobe\tinflammatory mass",
    "JPCLN003.IMG\t1\t?\t63\tfemale\t1000\t900\tmalignant\tr.hilum\tlung cancer",
    "JPCLN005.IMG\t1\t10\t63\tfemale\t1000\t900\tmalignant\tr.hilum\tlung cancer",
]
OTHERS = ["JPCNN001.IMG 35 Female non-nodule", "JPCNN002.IMG ? male non-nodule"]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "in"
    for name in ("JPCLN001", "JPCLN002", "JPCLN003", "JPCNN001", "JPCNN002", "JPCNN003"):
        picture(folder / f"All247images/{name}.png", 32, 32)  # made smaller
    (folder / "CLNDAT_EN.txt").write_bytes("\r".join([*NODULES, ""]).encode())
    (folder / "CNNDAT_EN.TXT").write_bytes("\r".join([*OTHERS, ""]).encode())
    return folder


def test_a_nodules_box_is_the_square_around_its_circle(root, tmp_path):
    source = read_jsrt(root)
    # 14 mm / 0.175 mm = 80 pixels, 35 mm are 200.
    assert boxes_of(source) == [
        ("All247images/JPCLN001.png", "Nodule", [1594, 652, 1674, 732], ()),
        ("All247images/JPCLN002.png", "Nodule", [1940, -40, 2140, 160], ()),
    ]
    labels = [(image.source_id, image.labels, image.unlocated) for image in source.images]
    assert labels == [
        ("JPCLN001", (1,), ()),
        ("JPCLN002", (1,), ()),
        ("JPCLN003", (1,), (1,)),  # of unknown size: somewhere
        ("JPCNN001", (), ()),
        ("JPCNN002", (), ()),
        ("JPCNN003", (), ()),
    ]
    first, second, third, fourth, fifth, sixth = (image.extra for image in source.images)
    assert first == {"view": "PA", "sex": "M", "age": "50-59", "subtlety": 5, "malignancy": "malignant"}
    assert second == {"view": "PA", "sex": "F", "subtlety": 3, "malignancy": "benign"}
    assert third["subtlety"] == 1
    assert [fourth, fifth, sixth] == [
        {"view": "PA", "sex": "F", "age": "30-39"},
        {"view": "PA", "sex": "M"},
        {"view": "PA"},
    ]
    assert reasons_of(source) == {reasons.MISSING_FILE: ["CLNDAT_EN.txt line 4"]}
    write_store(source, tmp_path / "out", image_size=64, n_folds=2, n_workers=0)
    store = open_store(tmp_path / "out")
    assert store.boxes.boxes.tolist() == [[1594, 652, 1674, 732], [1940, 0, 2048, 160]]
    assert [(record["width"], record["height"]) for record in store.records] == [(2048, 2048)] * 6
    assert store.unlocated[:, 0].tolist() == [False, False, True, False, False, False]


def test_raw_files_go_before_pictures_of_the_same_radiograph(root):
    np.full((2048, 2048), 500, dtype=">u2").tofile(root / "JPCNN001.IMG")
    picture(root / "All247images/other.png")
    picture(root / "All247images/JPCLN004.png")
    source = read_jsrt(root)
    assert "JPCNN001.IMG" in [image.file_name for image in source.images]
    drops = reasons_of(source)
    assert drops[OTHER_EDITION] == ["All247images/JPCNN001.png"]
    assert drops[NO_JSRT_NAME] == ["All247images/other.png"]
    assert drops[NO_NODULE] == ["All247images/JPCLN004.png"]
    assert NOT_IN_TABLE not in drops


def test_lines_may_end_otherwise_and_be_faulty(root):
    lines = [NODULES[0], NODULES[1].replace("\t60\t", "\tx\t"), "JPCLN003.IMG\t1\t20", "a comment"]
    (root / "CLNDAT_EN.txt").write_text("\r\n".join(lines))
    (root / "CNNDAT_EN.TXT").unlink()
    source = read_jsrt(root)
    assert [image.source_id for image in source.images] == ["JPCLN001", "JPCNN001", "JPCNN002", "JPCNN003"]
    drops = reasons_of(source)
    assert drops[reasons.NOT_A_NUMBER] == ["CLNDAT_EN.txt line 2"]
    assert drops[SHORT_LINE] == ["CLNDAT_EN.txt line 3"]
    (root / "CLNDAT_EN.txt").write_text("nothing")
    with pytest.raises(InputError, match="no line about a JPCLN"):
        read_jsrt(root)
    (root / "CLNDAT_EN.txt").unlink()
    with pytest.raises(InputError, match=r"has no CLNDAT_EN\.txt"):
        read_jsrt(root)


@pytest.mark.parametrize("subtlety", ["9" * 5000, "6", "\u0663", "\u00b2"])
def test_a_subtlety_that_is_none(root, subtlety):
    (root / "CLNDAT_EN.txt").write_bytes(NODULES[0].replace("\t5\t", f"\t{subtlety}\t").encode())
    assert "subtlety" not in read_jsrt(root).images[0].extra
