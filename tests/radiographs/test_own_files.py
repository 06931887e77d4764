"""What xray has written is no radiograph: results inside of a folder of radiographs are not read, and replace none."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from xray.errors import InputError
from xray.files import make_folder
from xray.outputs.pictures.overlays import save_picture
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.own_files import LEFT_OUT, check_apart, place_inside, said
from xray.radiographs.pictures import is_own_picture, of_own
from xray.radiographs.radiograph import SUFFIXES, RadiographError, find_radiographs, radiograph_size, read_radiograph


def write_grey(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.arange(600, dtype=np.uint8).reshape(20, 30))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_grey(tmp_path / "data/a.png")
    write_grey(tmp_path / "data/deep/b.jpg")
    return tmp_path / "data"


def test_what_xray_draws_says_so_and_stays_the_same_picture(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    save_picture(tmp_path / "drawn.png", picture)
    assert is_own_picture(tmp_path / "drawn.png")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "drawn.png"))[..., ::-1], picture)
    for read in (read_radiograph, radiograph_size):
        with pytest.raises(RadiographError, match=r"drawn\.png: a picture made by xray, and no radiograph"):
            read(tmp_path / "drawn.png")
    grey = write_grey(tmp_path / "grey.png")
    assert not is_own_picture(grey)
    assert not is_own_picture(tmp_path / "none.png")
    before = cv2.imread(str(grey), cv2.IMREAD_UNCHANGED)
    grey.write_bytes(of_own(grey.read_bytes()))
    np.testing.assert_array_equal(cv2.imread(str(grey), cv2.IMREAD_UNCHANGED), before)


def test_a_folder_that_is_written_to_is_not_searched(data: Path, tmp_path: Path) -> None:
    both = [data / "a.png", data / "deep/b.jpg"]
    write_grey(data / "out/overlays/a.png")
    assert len(find_radiographs(data)) == 3
    (tmp_path / "link").symlink_to(data)
    for apart in (data / "out", data / "deep/../out", tmp_path / "link/out"):
        assert find_radiographs(data, apart=apart) == both
    assert find_radiographs(data, apart=data / "deep") == [data / "a.png", data / "out/overlays/a.png"]
    for apart in (None, data, tmp_path, tmp_path / "elsewhere"):
        assert len(find_radiographs(data, apart=apart)) == 3


@pytest.mark.parametrize("mark", ["predictions.json", "predictions.part", "made_by.json"])
def test_results_of_other_commands_are_left_out_and_named(data: Path, mark: str) -> None:
    for name in ("overlays/a.png", "overlays/b.png", "sc/a.dcm", "mine/c.png"):
        write_grey(data / "old" / name) if name.endswith("png") else (data / "old/sc").mkdir()
    (data / "old" / mark).touch()
    passed: list[FileWarning] = []
    found = find_radiographs(data, passed_over=passed)
    assert [path.name for path in found] == ["a.png", "b.jpg", "c.png"]
    assert passed == [FileWarning(LEFT_OUT, "old/overlays/", "2 files"), FileWarning(LEFT_OUT, "old/sc/", "0 files")]
    # The same names beside anything else are radiographs'.
    (data / "old" / mark).unlink()
    assert len(find_radiographs(data)) == 5


def test_a_save_path_may_lie_in_what_is_searched(data: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(data)
    assert place_inside(tmp_path / "link/a/out", data) == Path("a/out")
    for out in (data / "out", tmp_path / "link/out", data / ".out", tmp_path, tmp_path / "out", tmp_path / "data2"):
        assert check_apart(out, data, SUFFIXES) == 0
    assert check_apart(tmp_path / "out", data / "a.png", SUFFIXES) == 0
    write_grey(data / "out/overlays/a.png"), write_grey(data / "out/b.png")
    assert check_apart(data / "out", data, SUFFIXES, is_begun=True) == 2
    assert said(2, Path("out")) == "2 files in out, where results are written, are not read"
    assert said(1, Path("out")) == "1 file in out, where results are written, is not read"
    assert said(0, Path("out")) == ""


def test_no_radiograph_is_passed_over_or_replaced(data: Path, tmp_path: Path) -> None:
    for out in (data, tmp_path / "data/deep/..", tmp_path / "link"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(data)
        for is_begun in (False, True):
            with pytest.raises(InputError, match=r"is the folder .*data itself.*: give --save-path another folder"):
                check_apart(out, data, SUFFIXES, is_begun)
    # A folder that has radiographs, and no results.
    with pytest.raises(InputError, match=r"deep, lies in .*data and holds .*\(b.jpg\), which would not be read"):
        check_apart(data / "deep", data, SUFFIXES)
    # Where results would be written, anywhere.
    write_grey(tmp_path / "other/overlays/a.png")
    with pytest.raises(InputError, match=r"other holds .*\(overlays/a.png\), which would be replaced"):
        check_apart(tmp_path / "other", data, SUFFIXES)
    with pytest.raises(InputError, match=r"overlays lies in .*other, where results are written"):
        check_apart(tmp_path / "other", tmp_path / "other/overlays", SUFFIXES)
    write_grey(tmp_path / "third/overlays/a.png").write_bytes(of_own((data / "a.png").read_bytes()))
    assert check_apart(tmp_path / "third", data, SUFFIXES) == 0


def test_a_link_to_itself_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "raw").mkdir()
    assert check_apart(tmp_path / "loop", tmp_path / "raw", SUFFIXES) == 0
    assert check_apart(tmp_path / "raw", tmp_path / "loop", SUFFIXES) == 0
    with pytest.raises(InputError, match="there is no folder"):
        find_radiographs(tmp_path / "loop", apart=tmp_path / "raw")
    with pytest.raises(InputError, match="cannot"):
        make_folder(tmp_path / "loop")
