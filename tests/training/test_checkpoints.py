"""Checkpoints are whole, or the ones before stay; what is none is refused by name, and never unpickled."""

import ast
import contextlib
import errno
import io
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from conftest import CLASSIFICATION_FLAGS

from xray.commands.runner import run_command
from xray.commands.train import main
from xray.errors import InputError
from xray.files import replacing
from xray.models import tensors as files
from xray.models.tensors import load_tensors, save_tensors
from xray.models.weights import read_weights
from xray.training import checkpoints
from xray.training.checkpoints import LastCheckpoint, WholeCheckpoints, check_resumable, progress_of, read_checkpoint
from xray.training.config import ClassificationConfig
from xray.training.recipes import read_training_flags

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    *CLASSIFICATION_FLAGS, "--network", "test_resnet", "--batch-size", "2", "--n-epochs", "1", "--n-pictures", "0",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(side_store, tmp_path_factory):
    """One epoch of a small classifier. Not to be changed."""
    run = tmp_path_factory.mktemp("checkpoints") / "run"
    main(*read_training_flags([*SMALL, "--data-path", str(side_store), "--save-path", str(run)]))
    return run


@pytest.fixture
def command(capsys, side_store):
    """(run, *flags) → (exit status, the lines on stderr): trains in this process."""

    def train(run, *flags):
        args = [*SMALL, "--data-path", str(side_store), "--save-path", str(run), *map(str, flags)]
        status = run_command(lambda: main(*read_training_flags(args)))
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return status, [line for line in err.splitlines() if line.startswith("error:")]

    return train


# Writing


def test_a_file_takes_its_place_when_it_is_whole_and_on_the_disk(tmp_path, monkeypatch):
    path, order = tmp_path / "file", []
    path.write_text("old")
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: order.append("sync") or sync(descriptor))
    monkeypatch.setattr(os, "replace", lambda *paths: order.append("replace") or replace(*paths))
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    # The file, its name, and the folder that holds the name.
    assert order == ["sync", "replace", "sync"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_what_fails_leaves_the_file_before_it(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


class Full(io.RawIOBase):
    """A file on a disk with so many bytes left."""

    def __init__(self, room):
        self.room = room

    def write(self, data):
        if len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(data)
        return len(data)


@pytest.mark.parametrize("room", [0, 1, 100, 1000, 3000, 5000, 20_000])
def test_a_full_disk_is_an_exception_and_does_not_end_the_process(room):
    """PyTorch's C++ ends the process if an exception comes out of the file that it writes to."""
    writer = files._Writer(Full(room))
    torch.save({"a": torch.arange(5000.0), "b": [torch.zeros(3)] * 3}, writer)
    assert isinstance(writer.error, OSError)
    assert writer.error.errno == errno.ENOSPC


def small_disk(folder, megabytes):
    """Mounts a disk of so many megabytes; skips where that is not allowed."""
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount here")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")
    return folder


def unmount(folder):
    subprocess.run(["umount", "-l", folder], check=True)


def contents(run):
    return {p.relative_to(run): p.read_bytes() for p in run.rglob("*") if p.is_file() and "tfevents" not in p.name}


def test_a_full_tmpfs_gives_one_line_and_leaves_the_checkpoint(run, command, tmp_path):
    disk = small_disk(tmp_path / "disk", 64)
    try:
        mine = Path(shutil.copytree(run, disk / "run"))
        before = contents(mine)
        free = shutil.disk_usage(disk).free
        # Room for the curves, and for half of a checkpoint.
        (disk / "filler").write_bytes(bytes(free - (mine / "last.ckpt").stat().st_size // 2))
        status, lines = command(mine, "--resume", "--n-epochs", 2)
        assert status == 1
        assert lines == [
            f"error: the disk of {mine} is full: free some of it and continue with --resume; the last checkpoint is "
            "whole"
        ]
        assert (mine / "last.ckpt").read_bytes() == before[Path("last.ckpt")]
        assert not list(mine.rglob("*.part"))
        # With room it goes on.
        (disk / "filler").unlink()
        assert command(mine, "--resume", "--n-epochs", 2) == (0, [])
        assert progress_of(read_checkpoint(mine / "last.ckpt")).epochs == 2
    finally:
        unmount(disk)


def test_a_completely_full_tmpfs(run, command, tmp_path):
    """Not even the curves can be written."""
    disk = small_disk(tmp_path / "disk", 64)
    try:
        mine = Path(shutil.copytree(run, disk / "run"))
        before = contents(mine)
        with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        status, lines = command(mine, "--resume", "--n-epochs", 2)
        assert status == 1
        assert len(lines) == 1
        assert "disk" in lines[0]
        assert "full" in lines[0]
        after = contents(mine)
        assert after[Path("last.ckpt")] == before[Path("last.ckpt")]
        assert after[Path("config.yaml")] == before[Path("config.yaml")]
    finally:
        unmount(disk)


def test_a_limit_on_the_size_of_files(run, command, tmp_path):
    mine = shutil.copytree(run, tmp_path / "run")
    before = (mine / "last.ckpt").read_bytes()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        status, lines = command(mine, "--resume", "--n-epochs", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert status == 1
    assert len(lines) == 1
    assert "is full" in lines[0]
    assert (mine / "last.ckpt").read_bytes() == before
    assert not list(mine.rglob("*.part"))


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt", "model.safetensors", "model.json", "metrics.csv"])
def test_no_space_at_any_of_its_files(run, command, tmp_path, monkeypatch, name):
    mine = shutil.copytree(run, tmp_path / "run")
    before = contents(mine)
    sync = os.fsync

    def fails(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(f"{name}.part"):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fails)
    # A score that any epoch surpasses: best.ckpt and the deployed files are written.
    checkpoint = torch.load(mine / "last.ckpt", weights_only=True)
    for state in checkpoint["callbacks"].values():
        if "best_model_score" in state:
            state["best_model_score"] = torch.tensor(-1.0)
        if "deployed" in state:
            state["deployed"] = None
    torch.save(checkpoint, mine / "last.ckpt")
    before[Path("last.ckpt")] = (mine / "last.ckpt").read_bytes()
    status, lines = command(mine, "--resume", "--n-epochs", 2)
    assert status == 1
    assert len(lines) == 1
    assert "is full" in lines[0]
    assert contents(mine)[Path(name)] == before[Path(name)]
    assert contents(mine)[Path("last.ckpt")] == before[Path("last.ckpt")]
    monkeypatch.undo()
    assert command(mine, "--resume", "--n-epochs", 2) == (0, [])


def test_what_a_killed_run_was_writing_is_cleared_when_it_goes_on(run, command, tmp_path):
    mine = shutil.copytree(run, tmp_path / "run")
    names = ("last.ckpt", "best.ckpt", "metrics.csv", "config.yaml", "model.json", "model.safetensors")
    for name in (*names, "validation/predictions.json"):
        (mine / f"{name}.part").write_bytes(b"half")
    (mine / "notes.part").write_text("somebody's own")
    assert command(mine, "--resume") == (0, [])
    assert [path.name for path in mine.rglob("*.part")] == ["notes.part"]


# Reading


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def foreign(kind, path, trap):
    """Puts a file that is no checkpoint at `path`."""
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Bomb(trap)}))
    elif kind == "pickle in a zip":
        torch.save({"state_dict": Bomb(trap)}, path)
    elif kind == "text":
        path.write_text("no checkpoint\n" * 100)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "zip without data":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/version", "3")
    elif kind == "empty zip":
        zipfile.ZipFile(path, "w").close()
    elif kind == "compressed zip":
        # 64 MB of zeros in 64 kB.
        buffer = io.BytesIO()
        torch.save({"state_dict": {"a": torch.zeros(2**24)}}, buffer)
        with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for entry in old.infolist():
                new.writestr(entry.filename, old.read(entry))
    elif kind == "png":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    elif kind == "a whole object":
        torch.save(torch.nn.Linear(2, 2), path)
    elif kind == "another program's":
        torch.save({"state_dict": {"a": torch.ones(3)}, "epoch": 3}, path)
    elif kind == "a list":
        torch.save([1, 2], path)
    elif kind == "loops of another kind":
        torch.save(
            {name: {} for name in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks")}
            | {"epoch": 1, "global_step": 2},
            path,
        )


FOREIGN = (
    "pickle", "pickle in a zip", "text", "empty", "zip without data", "empty zip", "compressed zip", "png",
    "a whole object", "another program's", "a list", "loops of another kind",
)  # fmt: skip


NO_WEIGHTS = tuple(kind for kind in FOREIGN if kind not in ("another program's", "loops of another kind"))


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_checkpoint_is_refused_by_name(run, command, tmp_path, kind):
    mine = shutil.copytree(run, tmp_path / "run")
    foreign(kind, mine / "last.ckpt", tmp_path / "trap")
    before = contents(mine)
    status, lines = command(mine, "--resume", "--n-epochs", 2)
    assert status == 1
    assert len(lines) == 1
    assert f"{mine / 'last.ckpt'} " in lines[0]
    assert "unexpected" not in lines[0]
    assert contents(mine) == before
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    "kind", [kind for kind in FOREIGN if kind not in ("another program's", "loops of another kind")]
)
def test_foreign_weights_are_refused_by_name(tmp_path, kind):
    for name in ("weights.pth", "weights.ckpt"):
        foreign(kind, tmp_path / name, tmp_path / "trap")
        with pytest.raises(InputError, match=name):
            read_weights(tmp_path / name)
    assert not (tmp_path / "trap").exists()


def test_a_checkpoint_cut_short_anywhere_is_refused(run, tmp_path):
    whole = (run / "last.ckpt").read_bytes()
    path = tmp_path / "last.ckpt"
    for number in range(40):
        path.write_bytes(whole[: len(whole) * number // 40])
        with pytest.raises(InputError, match=r"last\.ckpt is damaged or foreign"):
            read_checkpoint(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"last\.ckpt is damaged or foreign"):
        read_checkpoint(path)
    path.write_bytes(whole)
    assert progress_of(read_checkpoint(path)).epochs == 1


def test_a_checkpoint_with_changed_bytes_is_refused(run, tmp_path):
    """PyTorch does not check the sums of an archive that it reads."""
    whole = (run / "last.ckpt").read_bytes()
    path = tmp_path / "last.ckpt"
    with zipfile.ZipFile(run / "last.ckpt") as archive:
        entries = [entry for entry in archive.infolist() if entry.file_size > 100]
    for entry in entries[:: max(1, len(entries) // 20)]:
        changed = bytearray(whole)
        changed[entry.header_offset + 200] ^= 0x10
        path.write_bytes(changed)
        if entry.header_offset + 200 < entry.header_offset + entry.file_size:
            with pytest.raises(InputError, match=r"last\.ckpt is damaged or foreign"):
                read_checkpoint(path)


def lying(header, body=b"", length=None):
    """A safetensors file with a header of one's own."""
    header = header if isinstance(header, bytes) else header.encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + body


@pytest.mark.parametrize(
    "content",
    [
        lying("{}", length=2**63),
        lying("{}", length=100_000_001),
        lying("{}", length=50),
        lying('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}', bytes(8)),
        lying('{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 16]}}', bytes(16)),
        lying('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}', bytes(16)),
        lying('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 18446744073709551615]}}', bytes(16)),
        lying('{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 16]}}', bytes(16)),
        lying(
            '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, '
            '"b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}',
            bytes(16),
        ),
        lying('{"a": {"dtype": "PICKLE", "shape": [4], "data_offsets": [0, 16]}}', bytes(16)),
        lying("[" * 10_000),
        lying(b"\xff" * 20),
        b"",
        b"\x10",
    ],
)
def test_safetensors_with_a_lying_header_are_refused_by_name(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        read_weights(path)


def test_weights_cut_short_anywhere_are_refused(run, tmp_path):
    state = safetensors.torch.load_file(run / "model.safetensors")
    torch.save(state, tmp_path / "whole.pth")
    for name, source in (("w.safetensors", run / "model.safetensors"), ("w.pth", tmp_path / "whole.pth")):
        whole = source.read_bytes()
        for number in range(25):
            (tmp_path / name).write_bytes(whole[: len(whole) * number // 25])
            with pytest.raises(InputError, match=name):
                read_weights(tmp_path / name)


def test_what_was_saved_is_loaded(tmp_path):
    content = {"a": torch.arange(6.0).reshape(2, 3), "b": [1, "two", None, 3.5], "c": {"d": torch.tensor(7)}}
    save_tensors(content, tmp_path / "file.ckpt")
    found = load_tensors(tmp_path / "file.ckpt")
    assert torch.equal(found["a"], content["a"])
    assert found["b"] == content["b"]
    assert WholeCheckpoints().load_checkpoint
    # The files of PyTorch before 1.6 are no archives.
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_weights(tmp_path / "old.pth")["a"].tolist() == [1, 1]


def test_a_lost_checkpoint_of_several_epochs_is_no_new_start(run, tmp_path):
    mine = shutil.copytree(run, tmp_path / "run")
    (mine / "last.ckpt").unlink()
    # Killed between the first row and the first checkpoint.
    config = ClassificationConfig()
    assert check_resumable(mine, config) is None
    (mine / "metrics.csv").write_text("epoch,step\n0,1\n1,2\n")
    with pytest.raises(InputError, match=r"has no last.ckpt, though 2 epochs were finished: restore it"):
        check_resumable(mine, config)


def test_a_checkpoint_of_another_model_is_refused(run, command, tmp_path):
    mine = shutil.copytree(run, tmp_path / "run")
    config = (mine / "config.yaml").read_text()
    (mine / "config.yaml").write_text(config.replace("target: findings", "target: abnormal"))
    status, lines = command(mine, "--resume", "--n-epochs", 2, "--target", "abnormal")
    assert status == 1
    assert len(lines) == 1
    assert "the checkpoint holds another model (model." in lines[0]


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}


def test_nothing_is_unpickled_anywhere():
    """Beyond what PyTorch's `weights_only` lets through, and what our processes on a Ray cluster tell each other."""
    imported, loads = set(), 0
    for path in [*(ROOT / "xray").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree) if path.parent.name != "cluster" else ():
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
        # Loaders of our own make no objects either.
        bases = [ast.unparse(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
        loaders = {base for base in bases if base.endswith("Loader") and base.rpartition(".")[0] in ("", "yaml")}
        assert loaders <= {"yaml.BaseLoader", "yaml.SafeLoader"}, f"{path.relative_to(ROOT)}: {loaders}"
        for name, keywords in calls(tree):
            last = name.rpartition(".")[2]
            where = f"{path.relative_to(ROOT)}: {name}"
            if name == "torch.load" or last in ("load_state_dict_from_url", "load_from_checkpoint"):
                loads += 1
                assert keywords.get("weights_only") == "True", where
            if name.endswith(".fit") and "ckpt_path" in keywords:
                assert keywords.get("weights_only") == "True", where
            if name in ("np.load", "numpy.load"):
                assert keywords.get("allow_pickle", "False") == "False", where
            if name.startswith("yaml."):
                assert last in ("safe_load", "safe_dump"), where
            assert last not in ("read_pickle", "unsafe_load", "full_load"), where
    assert loads > 0
    assert not imported & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def test_an_epoch_that_was_cut_goes_on_with_the_same_batches_only(command, tmp_path, monkeypatch):
    """Within an epoch another batch size would show some radiographs twice and others never."""
    from xray.training.tasks.classification import ClassificationTask

    step = ClassificationTask.training_step

    def fails(task, batch, index):
        if task.current_epoch == 1 and index == 3:
            raise InputError("the machine went away")
        return step(task, batch, index)

    mine = tmp_path / "run"
    monkeypatch.setattr(ClassificationTask, "training_step", fails)
    assert command(mine, "--n-epochs", 2, "--save-every-n-steps", 2)[0] == 1
    monkeypatch.undo()
    found = progress_of(read_checkpoint(mine / "last.ckpt"))
    assert (found.epochs, found.batches, found.steps) == (1, 2, 6)
    assert check_resumable(mine, ClassificationConfig(batch_size=2)) == found
    for flag, value, before in (("--batch-size", 3, 2), ("--accumulate", 2, 1)):
        status, lines = command(mine, "--resume", "--n-epochs", 2, flag, value)
        assert status == 1
        assert lines == [
            f"error: {flag} is {value}, and the run was stopped within an epoch with {before}: give {flag} {before} "
            "until that epoch is over"
        ]
    assert command(mine, "--resume", "--n-epochs", 2) == (0, [])
    assert progress_of(read_checkpoint(mine / "last.ckpt")).steps == 8
    # Between epochs it may change.
    assert command(mine, "--resume", "--n-epochs", 3, "--batch-size", 3) == (0, [])


def test_a_run_goes_on_with_its_own_folds_only(command, run, side_store, tmp_path):
    """Otherwise it would be told what is best by radiographs that it has learned from."""
    mine = tmp_path / "run"
    shutil.copytree(run, mine)
    before = (mine / "config.yaml").read_bytes()
    other = tmp_path / "other"
    shutil.copytree(side_store, other)
    tables = json.loads((other / "annotations.json").read_text())
    for image in tables["images"]:
        image["fold"] = 1 - image["fold"] if image["fold"] in (0, 1) else image["fold"]
    (other / "annotations.json").write_text(json.dumps(tables))
    status, lines = command(mine, "--resume", "--n-epochs", 2, "--data-path", other)
    assert status == 1
    assert lines == [
        f"error: {other} has other radiographs, or other folds, than the dataset that the run was started with: give "
        "that one as --data-path, or start another run with --weights and this run"
    ]
    assert (mine / "config.yaml").read_bytes() == before
    # It may lie elsewhere.
    moved = tmp_path / "moved"
    shutil.copytree(side_store, moved)
    assert command(mine, "--resume", "--n-epochs", 2, "--data-path", moved) == (0, [])


def test_of_several_processes_the_one_that_fails_says_why_before_sigterm_ends_it(tmp_path, monkeypatch):
    """As with torchrun: its SIGTERM comes when this process has just lost the other, before its line is printed."""
    before = signal.getsignal(signal.SIGTERM)
    ends = []
    monkeypatch.setattr(checkpoints, "_end_now", lambda: ends.append(last.was_validating))
    alone, several = (SimpleNamespace(world_size=n, validating=False, training=True) for n in (1, 2))
    last = LastCheckpoint(tmp_path)
    try:
        last.last_words()
        of_the_start = signal.getsignal(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(ends) == 1
        # Lightning has a handler of its own until it has cleaned up, and gives back the one before.
        last.on_train_start(several, None)
        last.on_exception(several, None, RuntimeError("connection closed by peer"))
        os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, of_the_start)
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(ends) == 1
        monkeypatch.setattr(last, "_asked_at", last._asked_at - checkpoints.TWICE - 1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(ends) == 2
        # A training of one process gets the handler from before back.
        signal.signal(signal.SIGTERM, before)
        last = LastCheckpoint(tmp_path)
        last.on_train_start(alone, None)
        last.on_exception(alone, None, RuntimeError("no"))
        assert signal.getsignal(signal.SIGTERM) == before
    finally:
        signal.signal(signal.SIGTERM, before)
