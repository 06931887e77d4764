"""Files that are complete or not there, what mode they have, and folders that commands may write to."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import in_process
import pytest
import safetensors.torch
import torch

from xray.errors import InputError
from xray.file_names import MODEL_FILE, WEIGHTS_FILE
from xray.files import check_output, check_writable, complete, finishing, replacing, size_in_words
from xray.models.weights import save_deployed

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def allowed(request):
    """The mode of a new file under a umask."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def mode_of(path):
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("write", [complete, replacing])
def test_a_file_has_the_mode_of_any_new_one_whatever_its_writer_does(allowed, tmp_path, write):
    with write(tmp_path / "weights") as temporary:
        safetensors.torch.save_file({"a": torch.ones(1)}, temporary)
    with write(tmp_path / "plain") as temporary:
        temporary.write_text("text")
    assert {path.name: mode_of(path) for path in tmp_path.iterdir()} == {"weights": allowed, "plain": allowed}


def test_a_model_can_be_read_by_those_who_can_read_its_description(allowed, tmp_path):
    save_deployed(tmp_path, {"a": torch.ones(1)}, {"task": "detection"})
    assert mode_of(tmp_path / WEIGHTS_FILE) == mode_of(tmp_path / MODEL_FILE) == allowed


def test_a_private_file_stays_private(allowed, tmp_path):
    with complete(tmp_path / "accounts", private=True) as temporary:
        temporary.touch(mode=0o600)
    assert mode_of(tmp_path / "accounts") == 0o600


# Where a command can write, and where it should not


@pytest.fixture(params=[errno.EROFS, errno.EACCES], ids=["read-only disk", "no permission"])
def closed(request, tmp_path, monkeypatch):
    """A folder that nothing can be written to, also for root, and the reason."""
    folder = tmp_path / "closed"
    folder.mkdir()
    access, statvfs = os.access, os.statvfs
    is_read_only = request.param == errno.EROFS

    def denied(path, mode):
        return not Path(path).is_relative_to(folder) and access(path, mode)

    def flags(path):
        is_inside = is_read_only and Path(path).is_relative_to(folder)
        return SimpleNamespace(f_flag=os.ST_RDONLY if is_inside else 0, f_bavail=statvfs(path).f_bavail)

    monkeypatch.setattr(os, "access", denied)
    monkeypatch.setattr(os, "statvfs", flags)
    return folder, os.strerror(request.param)


def test_what_cannot_be_written_is_said_before_any_work_with_its_whole_path(closed):
    folder, reason = closed
    for place, what in ((folder, "be written to"), (folder / "a" / "b", "be made")):
        line = f"{place} cannot {what} ({reason}): choose another --save-path"
        for check in (check_writable, check_output):
            with pytest.raises(InputError) as refused:
                check(place)
            assert str(refused.value) == line
    assert list(folder.iterdir()) == []


def test_what_can_be_written_is_not_made_by_looking(tmp_path, monkeypatch):
    check_writable(tmp_path / "a" / "b")
    monkeypatch.chdir(tmp_path)
    check_writable(Path("a"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match=r"file is a file: choose another --save-path"):
        check_writable(tmp_path / "file" / "out")


@pytest.mark.parametrize("name", ["mkdir", "touch"])
def test_a_disk_that_turns_read_only_meanwhile_is_one_line(tmp_path, monkeypatch, name):
    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, name, refuse)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"out cannot be .* \(Read-only file system\): choose another --save-path"):
        finishing(out, "card").__enter__()


def test_a_full_disk_is_not_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError, match="No space left"), finishing(tmp_path / "out", "card"):
        pytest.fail("it goes on")


COMMANDS = {
    "train": ["--data-path", "none"],
    "cv": ["--data-path", "none"],
    "infer": ["--weights", "run", "--data-path", "none"],
    "evaluate": ["--predictions", "none.json", "--data-path", "none"],
    "audit": ["--data-path", "none"],
    "card": ["run"],
    "export": ["--weights", "run", "other", "--format", "run"],
    "tune": ["--predictions", "a.json", "b.json", "--data-path", "none"],
    "fuse": ["--predictions", "a.json", "b.json", "--data-path", "none"],
    "pseudo": ["--weights", "run", "--images", "none", "--data-path", "none"],
    "lr_find": ["--data-path", "none"],
    "phantoms": ["--n-train", "1"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_so_at_once(closed, tmp_path, name):
    folder, reason = closed
    ended = in_process.run(name, *COMMANDS[name], "--save-path", folder / "out", cwd=tmp_path)
    assert ended.returncode == 1, ended.stderr
    out = folder / "out" / ("vinbig" if name == "phantoms" else "")
    assert f"error: {out} cannot be made ({reason}): choose another --save-path" in ended.stderr


@pytest.mark.parametrize("format", ["coco", "yolo", "voc"])
def test_an_export_of_a_dataset_says_so_before_it_reads_it(closed, tmp_path, format):
    folder, reason = closed
    flags = ("--format", format, "--data-path", "none", "--save-path", folder / "out")
    ended = in_process.run("export", *flags, cwd=tmp_path)
    assert ended.returncode == 1, ended.stderr
    assert f"error: {folder / 'out'} cannot be made ({reason}): choose another --save-path" in ended.stderr


def test_phantoms_look_at_all_folders_before_the_first_is_drawn(tmp_path):
    (tmp_path / "siim").mkdir()
    (tmp_path / "siim" / "mine.txt").touch()
    ended = in_process.run("phantoms", "--save-path", tmp_path, "--trees", "vinbig", "siim", "--n-train", "1")
    assert "siim exists and holds no phantoms: give another --save-path" in ended.stderr
    assert not (tmp_path / "vinbig").exists()


def test_sizes_are_in_a_unit_that_says_something():
    words = [size_in_words(n) for n in (0, 999, 1_851_392, 35_200_000_000)]
    assert words == ["0 bytes", "999 bytes", "1.9 MB", "35.2 GB"]
