"""s3:// addresses as flags: against moto's S3 server, over wires that break, and with buckets that refuse."""

import contextlib
import dataclasses
import os
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path, PurePosixPath

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from s3_server import DUMMY, Wire

from xray.commands.runner import command, run_command
from xray.errors import FlagError, InputError
from xray.flags import parse_flags
from xray.radiographs.names import fault_of
from xray.storage import mirror, places, staging
from xray.storage import objects as remote
from xray.storage.addresses import address_of, is_remote, split_address
from xray.storage.objects import RemoteFile, download, list_files

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """(number) → switches to another machine's cache; no server, and nothing of this one's own settings."""
    for name, value in DUMMY.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("XRAY_UPLOAD_SECONDS", "1000")
    remote.client_of.cache_clear()

    def switch(number):
        monkeypatch.setenv("XRAY_CACHE", str(tmp_path / f"cache-{number}"))

    switch(1)
    yield switch
    remote.client_of.cache_clear()


@pytest.fixture
def connect(monkeypatch):
    """(endpoint) → has commands ask there."""

    def connect(endpoint):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        remote.client_of.cache_clear()

    return connect


def intercept(monkeypatch, **methods):
    """Has these methods of S3's client answered by others, which get the plain method first."""
    plain = remote.client

    class Client:
        def __getattr__(self, name):
            method = getattr(plain(), name)
            return partial(methods[name], method) if name in methods else method

    monkeypatch.setattr(remote, "client", Client)


@pytest.fixture
def bucket(s3, connect):
    """An empty bucket, in reach."""
    connect(s3.endpoint)
    return f"s3://{s3.bucket()}"


@dataclasses.dataclass(frozen=True)
class Config:
    """A command."""

    data_path: Path | None = None
    """Where."""
    save_path: Path | None = None
    """Where to."""
    weights: tuple[str, ...] = ()
    """More."""
    overwrite: bool = False
    """Replace."""
    debug: bool = False
    """Traceback."""


@pytest.fixture
def run(monkeypatch):
    """(main, *flags, **options) → exit status of a command whose main(config) this is."""

    def run(main, *flags, **options):
        monkeypatch.setattr(sys, "argv", ["tool.py", *map(str, flags)])
        return command(Config, main, **options)

    return run


@pytest.fixture
def run_another():
    """`run`, as another process of a training than the first."""

    def run(main, *flags):
        config = parse_flags(Config, list(map(str, flags)))
        return run_command(lambda: places.run_here(main, config, is_first=False))

    return run


# ---- addresses

PARTS = st.lists(
    st.text("abcXYZ019 .-_ü+&'()", min_size=1, max_size=12).filter(lambda part: part not in (".", "..")), max_size=4
)


@given(PARTS, st.booleans())
def test_an_address_survives_pathlib(parts, slash):
    address = "/".join(["s3://some-bucket", *parts])
    typed = address + "/" * slash
    assert is_remote(typed)
    assert is_remote(PurePosixPath(typed))
    assert address_of(typed) == address_of(PurePosixPath(typed)) == address_of(address_of(typed)) == address
    assert split_address(address) == ("some-bucket", "/".join(parts))


@pytest.mark.parametrize("value", ["data/vinbig", "s3", "s3.bucket/x", "", "imagenet", Path("a"), 3, None, True])
def test_what_is_no_address(value):
    assert not is_remote(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("s3://", "names no bucket"), ("s3:///key", ""), ("s3:/-", "names no bucket"), ("s3://b", "names no bucket"),
        ("s3://bucket/../other", "is no address"), ("s3://bucket/a\nb", "is no address"),
        ("s3://bucket/a\\b", "is no address"), (Path("gs://bucket/x"), "only s3:// addresses can"),
        ("https://host/x", "only s3:// addresses can"), ("S3A://bucket/x", "only s3:// addresses can"),
    ],
)  # fmt: skip
def test_bad_addresses_are_wrong_flags(value, said):
    if value == "s3:///key":
        # pathlib cannot tell it from another bucket.
        assert address_of(value) == "s3://key"
        return
    with pytest.raises(FlagError, match=said):
        is_remote(value)


@given(
    st.text(st.characters(codec="utf-8"), max_size=40)
    | st.sampled_from(["../a", "a/../../b", "/etc/x", "a//b", "C:/x", "."])
)
def test_names_of_objects_never_lead_out_of_their_folder(name):
    if fault_of(name) is not None:
        return
    folder = Path("/cache/files")
    inside = Path(os.path.normpath(folder / name))
    assert folder in inside.parents
    assert inside.relative_to(folder).as_posix() == name
    assert not set("\\\0\n").intersection(name)


# ---- listings and single objects


def test_a_listing_has_what_lies_below_and_nothing_beside(bucket, s3, capsys):
    names = ["run/a", "run/b/c", "run/b/d e+ü.bin", "run2/x", "run/empty/", "runs"]
    for name in names:
        s3.put(f"{bucket}/{name}", b"1" * len(name))
    in_twos = "provide-client-params.s3.ListObjectsV2"
    remote.client().meta.events.register(in_twos, lambda params, **more: {"MaxKeys": 2} | params)
    found = list_files(f"{bucket}/run")
    assert [(file.name, file.size) for file in found] == [("a", 5), ("b/c", 7), ("b/d e+ü.bin", 15)]
    assert list_files(f"{bucket}/run/a") == [RemoteFile("", 5, found[0].etag, found[0].modified)]
    assert list_files(f"{bucket}/ru") == list_files(f"{bucket}/nothing") == []
    assert [file.name for file in list_files(bucket)] == ["run/a", "run/b/c", "run/b/d e+ü.bin", "run2/x", "runs"]
    assert capsys.readouterr().err == ""


def test_names_that_could_not_be_files_are_left_out_and_counted(bucket, s3, capsys):
    for name in ("good", "x/../../evil", "a\\b", "two//parts", "file", "file/Doe^John"):
        s3.put(f"{bucket}/data/{name}", b"1")
    assert [file.name for file in list_files(f"{bucket}/data")] == ["file/Doe^John", "good"]
    assert capsys.readouterr().err == f"{bucket}/data: 4 objects are left out, their names cannot be those of files\n"


def test_an_object_that_changes_or_vanishes_after_the_listing_is_not_taken(bucket, s3, tmp_path):
    s3.put(f"{bucket}/Doe", b"one")
    (listed,) = list_files(bucket)
    for change in (lambda: s3.put(f"{bucket}/Doe", b"two"), lambda: s3.delete(f"{bucket}/Doe")):
        change()
        with pytest.raises(InputError, match="was changed or deleted while it was being read") as raised:
            download(bucket, listed, tmp_path / "part")
        assert "Doe" not in str(raised.value)


@pytest.mark.parametrize("n_cuts", [1, 4])
def test_a_line_that_is_cut_again_and_again_delivers_all_the_same(bucket, s3, connect, tmp_path, n_cuts):
    content = os.urandom(2**20)
    s3.put(f"{bucket}/x", content)
    with Wire(s3.port, down=200_000, n_cuts=n_cuts) as wire:
        connect(wire.endpoint)
        download(bucket, list_files(bucket)[0], tmp_path / "x")
        # It went on where it was cut.
        assert wire.n_down < 1.3 * len(content)
    assert (tmp_path / "x").read_bytes() == content


@pytest.fixture
def small_parts(monkeypatch):
    """Uploads in parts of 5 MiB, which is the least."""
    monkeypatch.setattr(remote, "PART_BYTES", 5 * 2**20)


def pending_uploads(s3, bucket):
    return s3.client.list_multipart_uploads(Bucket=bucket.removeprefix("s3://")).get("Uploads", [])


def test_large_objects_go_up_in_parts_and_appear_as_a_whole(bucket, s3, tmp_path, small_parts, connect):
    content = os.urandom(11 * 2**20)
    (tmp_path / "x").write_bytes(content + b"grown meanwhile")
    with (tmp_path / "x").open("rb") as file:
        etag = remote.upload(f"{bucket}/out", "x", file, len(content))
        assert s3.objects(f"{bucket}/out") == {"x": content}
        assert list_files(f"{bucket}/out")[0].etag == etag
        with Wire(s3.port, up=300_000, n_cuts=10**6) as wire:
            connect(wire.endpoint)
            with pytest.raises(InputError, match=f"{bucket}/out does not answer"), remote.explained(bucket + "/out"):
                remote.upload(f"{bucket}/out", "y", file, len(content))
    assert list(s3.objects(f"{bucket}/out")) == ["x"]
    assert pending_uploads(s3, bucket) == []


def test_a_server_that_does_not_read_on_is_not_waited_for_without_end(bucket, s3, connect, monkeypatch, tmp_path):
    (tmp_path / "x").write_bytes(bytes(12 * 2**20))
    for name, value in {"READ_SECONDS": 0.2, "CONNECT_SECONDS": 0.2}.items():
        monkeypatch.setattr(remote, name, value)
    with socket.create_server(("127.0.0.1", 0)) as deaf, (tmp_path / "x").open("rb") as file:
        connect(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(InputError, match=f"{bucket} does not answer"), remote.explained(bucket, "write"):
            remote.upload(bucket, "x", file, 12 * 2**20)


# ---- errors

DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
BROKEN = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>sorry</Message></Error>"


def answer(status, body):
    return b"HTTP/1.1 %d X\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


@pytest.mark.parametrize("flag", ["--data-path", "--save-path"])
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("closed", r"s3://some/Doe does not answer \(EndpointConnectionError, asked at http://127.0.0.1:9\): check"),
        ("silent", r"s3://some/Doe does not answer \((ReadTimeoutError|ConnectionClosedError), asked at http"),
        ("denied", r"no permission to read s3://some/Doe \(AccessDenied\): ask for it"),
        ("broken", r"s3://some/Doe does not answer \(InternalError, asked at http"),
        ("no bucket", r"there is no bucket some for s3://some/Doe: check its name"),
        ("no credentials", r"no credentials for s3://some/Doe: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"),
        ("no extra", r"an s3:// address needs boto3: pip install -e \"\.\[remote\]\" in the folder of xray"),
    ],
)  # fmt: skip
def test_what_cannot_be_reached_is_told_in_one_line(what, said, flag, run, s3, connect, monkeypatch, capsys):
    for name, value in {"READ_SECONDS": 0.3, "N_ATTEMPTS": 2}.items():
        monkeypatch.setattr(remote, name, value)
    with contextlib.ExitStack() as stack:
        if what in ("silent", "denied", "broken"):
            said_back = {"silent": b"", "denied": answer(403, DENIED), "broken": answer(500, BROKEN)}[what]
            connect(stack.enter_context(Wire(s3.port, answer=said_back)).endpoint)
        elif what != "closed":
            connect(s3.endpoint)
        if what == "no credentials":
            monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        if what == "no extra":
            monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert run(lambda config: pytest.fail("it ran"), flag, "s3://some/Doe") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.match(f"error: {said}", err), err


def test_nothing_at_an_address(run, bucket, capsys):
    assert run(lambda config: pytest.fail("it ran"), "--data-path", f"{bucket}/data") == 1
    assert capsys.readouterr().err == f"error: there is nothing at {bucket}/data: check the address\n"


def test_flags_are_right_before_anything_is_asked_for(run, capsys):
    def check(config):
        raise FlagError("--overwrite is wrong")

    assert run(lambda config: pytest.fail("it ran"), "--data-path", "s3://some/where", check=check) == 2
    assert capsys.readouterr().err == "error: --overwrite is wrong\n"


def test_nothing_is_imported_without_an_address():
    code = "import sys, xray.commands.runner, xray.training.config, xray.storage.places; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not {"boto3", "botocore", "xray.storage.objects", "xray.storage.staging"}.intersection(done.stdout.split())


# ---- what is read


def contents(folder):
    folder = Path(folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def downloads(monkeypatch):
    """Names of the objects that were downloaded."""
    names = []
    plain = mirror.download

    def download(address, file, *rest):
        names.append(file.name)
        plain(address, file, *rest)

    monkeypatch.setattr(mirror, "download", download)
    return names


def test_a_second_command_downloads_only_what_has_changed(run, bucket, s3, downloads, capsys):
    seen = []

    def main(config):
        seen.append(contents(config.data_path))
        assert config.data_path.name == "data"
        print(f"reads {config.data_path}/x")

    for name in ("Doe/1", "Doe/2", "3"):
        s3.put(f"{bucket}/data/{name}", name.encode())
    assert run(main, "--data-path", f"{bucket}/data") == 0
    captured = capsys.readouterr()
    assert captured.out == f"reads {bucket}/data/x\n"
    assert captured.err.startswith(f"{bucket}/data: 3 objects, 11 bytes\n")
    assert "Doe" not in captured.err
    assert sorted(downloads) == ["3", "Doe/1", "Doe/2"]
    assert run(main, "--data-path", f"{bucket}/data/") == 0
    assert len(downloads) == 3
    s3.put(f"{bucket}/data/3", b"new")
    s3.delete(f"{bucket}/data/Doe/1")
    s3.put(f"{bucket}/data/3/now a folder", b"4")
    s3.delete(f"{bucket}/data/3")
    s3.put(f"{bucket}/data/3/now a folder", b"4")
    # Damaged here, it is not what is known.
    next(Path(os.environ["XRAY_CACHE"]).rglob("Doe/2")).write_bytes(b"?")
    assert run(main, "--data-path", f"{bucket}/data") == 0
    assert sorted(downloads[3:]) == ["3/now a folder", "Doe/2"]
    assert seen[-1] == {"Doe/2": b"Doe/2", "3/now a folder": b"4"}


def test_a_download_that_broke_off_goes_on_with_the_next_command(run, bucket, s3, connect, capsys, monkeypatch):
    sent = {str(number): os.urandom(400_000) for number in range(6)}
    for name, content in sent.items():
        s3.put(f"{bucket}/data/{name}", content)
    with monkeypatch.context() as patch:
        asked = []

        def get(plain, **what):
            asked.append(what)
            if len(asked) > 3:
                raise ConnectionError("the server is gone")
            return plain(**what)

        patch.setattr(mirror, "in_threads", map)
        intercept(patch, get_object=get)
        patch.setattr(remote, "N_ATTEMPTS", 1)
        assert run(lambda config: pytest.fail("it ran"), "--data-path", f"{bucket}/data") == 1
        assert f"error: {bucket}/data does not answer" in capsys.readouterr().err
    files = next(Path(os.environ["XRAY_CACHE"]).rglob("files"))
    assert sorted(Path(name).name for name in contents(files)) == ["0", "1", "2"]

    def main(config):
        assert contents(config.data_path) == sent

    with Wire(s3.port) as wire:
        connect(wire.endpoint)
        assert run(main, "--data-path", f"{bucket}/data") == 0
        assert 1_200_000 < wire.n_down < 1_400_000
    assert "6 objects, 2.4 MB, 3 of them are here already" in capsys.readouterr().err


def test_only_what_a_command_reads_is_downloaded(run, bucket, s3, downloads):
    for name in ("model.json", "model.safetensors", "last.ckpt", "validation/predictions.json", "dataset/images.npy"):
        s3.put(f"{bucket}/run/{name}", b"1")
    for name in ("annotations.json", "images.npy", "conversion.json", "notes.txt"):
        s3.put(f"{bucket}/data/{name}", b"1")
    s3.put(f"{bucket}/weights.pth", b"1")

    def main(config):
        assert sorted(contents(config.weights[0])) == ["model.json", "model.safetensors"]
        assert Path(config.weights[1]).read_bytes() == b"1"
        assert config.weights[2] == "imagenet"
        assert sorted(contents(config.data_path)) == ["annotations.json", "conversion.json", "images.npy"]

    weights = ("--weights", f"{bucket}/run", f"{bucket}/weights.pth", "imagenet")
    assert run(main, "--data-path", f"{bucket}/data", *weights) == 0


def test_what_commands_use_beside_an_address_comes_too(run, bucket, s3, downloads):
    s3.put(f"{bucket}/raw/data/x", b"1")
    s3.put(f"{bucket}/raw/sample_submission.csv", b"2")
    seen = []

    def main(config):
        assert contents(config.data_path) == {"x": b"1"}
        seen.append((config.data_path.parent / "sample_submission.csv").is_file())

    flags = ("--data-path", f"{bucket}/raw/data")
    assert run(main, *flags) == run(main, *flags) == 0
    assert sorted(downloads) == ["../sample_submission.csv", "x"]
    s3.delete(f"{bucket}/raw/sample_submission.csv")
    assert run(main, *flags) == 0
    assert seen == [True, True, False]
    names = ["model.json", "validation/predictions.json", "validation/probabilities.npy"]
    for name in (*names, "last.ckpt", "validation/other.json"):
        s3.put(f"{bucket}/run/{name}", b"1")
    with places.localizing() as here:
        path = here.input(f"{bucket}/run/validation/predictions.json", "predictions")
        assert sorted(contents(path.parents[1])) == names
    s3.put(f"{bucket}/data/x", b"1")
    with places.localizing() as here:
        # Nothing lies beside a bucket.
        assert sorted(contents(here.input(bucket, "data_path")))[0] == "data/x"


def test_fields_that_a_command_keeps_stay_addresses(run, bucket):
    def main(config):
        assert address_of(config.data_path) == f"{bucket}/data"
        assert not is_remote(config.save_path)
        (config.save_path / "x").parent.mkdir()

    flags = ("--data-path", f"{bucket}/data", "--save-path", f"{bucket}/out")
    assert run(main, *flags, stay_remote=lambda config: ("data_path",)) == 0


def test_a_disk_that_is_too_small_is_told_before(run, bucket, s3, capsys, monkeypatch):
    s3.put(f"{bucket}/data/x", b"1" * 5000)
    full = type("usage", (), {"free": 2000})
    monkeypatch.setattr(mirror.shutil, "disk_usage", lambda path: full)
    assert run(lambda config: pytest.fail("it ran"), "--data-path", f"{bucket}/data") == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith(f"error: {bucket}/data needs 5.0 kB here, and {os.environ['XRAY_CACHE']} has 2.0 kB: make")


# ---- what is written


@pytest.fixture
def requests(monkeypatch):
    """(method, name) of all that was changed at an address, in order; `refuse` makes those of a name fail."""
    done, done_refuse = [], set()

    def note(what, plain, **arguments):
        name = arguments["Key"].rpartition("/")[2]
        if name in done_refuse:
            raise ConnectionError("gone")
        done.append((what, name))
        return plain(**arguments)

    intercept(monkeypatch, put_object=partial(note, "put"), delete_object=partial(note, "delete"))
    monkeypatch.setattr(staging, "in_threads", lambda act, items: map(act, items))
    return done, done_refuse


def writer(files, *deleted, status=0):
    """A main(config) that writes these files and deletes others."""

    def main(config):
        for name, content in files.items():
            path = config.save_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for name in deleted:
            (config.save_path / name).unlink()
        return status

    return main


def test_what_is_written_goes_up_and_files_about_others_last(run, bucket, s3, requests):
    whole = ("predictions.json", "model.json", "model.safetensors", "last.ckpt", "a/b.csv", "evaluation.part", "zzz")
    files = dict.fromkeys((*whole, "last.ckpt.part", "x.csv.part", ".hidden.part"), b"1")
    assert run(writer(files, status=1), "--save-path", f"{bucket}/out") == 1
    uploaded = [name for method, name in requests[0] if method == "put"]
    assert sorted(uploaded[:3]) == ["b.csv", "model.safetensors", "zzz"]
    assert uploaded[3:] == ["evaluation.part", "model.json", "predictions.json", "last.ckpt"]
    assert sorted(s3.objects(f"{bucket}/out")) == sorted(whole)


def test_a_file_may_be_what_is_written(run, bucket, s3):
    assert (
        run(lambda config: config.save_path.write_bytes(b"weights") and None, "--save-path", f"{bucket}/x/m.pth") == 0
    )
    assert s3.objects(f"{bucket}/x") == {"m.pth": b"weights"}


def test_what_was_there_is_there_for_the_command_and_nothing_foreign_is_touched(run, bucket, s3, machine, requests):
    assert run(writer({"metrics.json": b"1", "figure.png": b"2", "old.csv": b"3"}), "--save-path", f"{bucket}/out") == 0
    s3.put(f"{bucket}/out/mine/notes.txt", b"mine")
    s3.put(f"{bucket}/out2", b"beside")
    machine(2)
    requests[0].clear()

    def main(config):
        assert sorted(contents(config.save_path)) == ["figure.png", "metrics.json", "mine/notes.txt", "old.csv"]
        # Nobody reads pictures back.
        assert (config.save_path / "figure.png").read_bytes() == b""
        assert (config.save_path / "metrics.json").read_bytes() == b"1"
        return writer({"metrics.json": b"new", "report.html": b"4"}, "old.csv")(config)

    assert run(main, "--save-path", f"{bucket}/out") == 0
    # What says that all is there does not stand beside files of which only some are new.
    assert requests[0] == [
        ("delete", "metrics.json"),
        ("put", "report.html"),
        ("put", "metrics.json"),
        ("delete", "old.csv"),
    ]
    assert s3.objects(f"{bucket}/out") == {
        "figure.png": b"2", "metrics.json": b"new", "mine/notes.txt": b"mine", "report.html": b"4",
    }  # fmt: skip
    assert s3.objects(bucket)["out2"] == b"beside"


def test_an_upload_that_fails_is_made_up_for_by_the_same_command(run, bucket, s3, requests, capsys):
    requests[1].add("metrics.json")
    main = writer({"metrics.json": b"1", "report.html": b"2"})
    assert run(main, "--save-path", f"{bucket}/out") == 1
    err = capsys.readouterr().err
    assert err.count("error:") == 1
    assert "What was not uploaded is kept: the same command, given again, uploads it" in err
    assert s3.objects(f"{bucket}/out") == {"report.html": b"2"}
    requests[1].clear()
    assert run(lambda config: pytest.fail("it ran again"), "--save-path", f"{bucket}/out") == 0
    assert s3.objects(f"{bucket}/out") == {"metrics.json": b"1", "report.html": b"2"}
    # Then it is a command like any other.
    assert run(lambda config: 5, "--save-path", f"{bucket}/out") == 5


def test_what_a_failed_command_had_done_goes_up(run, bucket, s3, capsys):
    def main(config):
        writer({"journal.part": b"1"})(config)
        raise InputError(f"{config.save_path} is not to my liking")

    assert run(main, "--save-path", f"{bucket}/out") == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {bucket}/out is not to my liking"
    assert s3.objects(f"{bucket}/out") == {"journal.part": b"1"}


def test_interrupted_a_command_says_what_its_address_lacks(run, bucket, s3, capsys):
    def main(config):
        writer({"x": b"1"})(config)
        raise KeyboardInterrupt

    assert run(main, "--save-path", f"{bucket}/out") == 130
    lacks = f"{bucket}/out lacks what was done last: the same command goes on from here, and uploads it\n"
    assert capsys.readouterr().err == f"{lacks}interrupted\n"
    assert s3.objects(f"{bucket}/out") == {}
    assert run(lambda config: len(contents(config.save_path)), "--save-path", f"{bucket}/out") == 1
    assert s3.objects(f"{bucket}/out") == {"x": b"1"}


SLOW = """
import dataclasses, os, signal, sys, time
from pathlib import Path
from xray.commands.runner import command

@dataclasses.dataclass
class Config:
    save_path: Path
    dies: bool = False

def main(config):
    config.save_path.mkdir(exist_ok=True)
    for number in range(3):
        (config.save_path / f"{number}.csv").write_text("x")
        time.sleep(0.4)
    print("written", flush=True)
    (config.save_path / "late.csv").write_text("x")
    if config.dies:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)

sys.exit(command(Config, main))
"""
"""A command that writes file after file, and ends by being killed alone."""


def test_a_killed_command_has_left_what_was_complete_and_goes_on_here(run, bucket, s3):
    environ = {**os.environ, "XRAY_UPLOAD_SECONDS": "0.1", "PYTHONPATH": str(ROOT)}
    args = [sys.executable, "-c", SLOW, "--save-path", f"{bucket}/out", "--dies"]
    done = subprocess.run(args, env=environ, capture_output=True, text=True, timeout=600)
    assert done.returncode == -9, done.stderr
    assert {"0.csv", "1.csv"} <= s3.objects(f"{bucket}/out").keys()
    assert "late.csv" not in s3.objects(f"{bucket}/out")

    def main(config):
        # What had not been uploaded is not lost.
        assert sorted(contents(config.save_path)) == ["0.csv", "1.csv", "2.csv", "late.csv"]

    assert run(main, "--save-path", f"{bucket}/out") == 0
    assert sorted(s3.objects(f"{bucket}/out")) == ["0.csv", "1.csv", "2.csv", "late.csv"]


def test_two_commands_do_not_write_to_one_address(run, run_another, bucket, capsys):
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    args = [sys.executable, "-c", SLOW, "--save-path", f"{bucket}/out"]
    with subprocess.Popen(args, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as other:
        assert other.stdout.readline() == "written\n"
        assert run(lambda config: pytest.fail("it ran"), "--save-path", f"{bucket}/out") == 1
        # Of one training they may be several, of which the first uploads.
        assert run_another(lambda config: len(contents(config.save_path)), "--save-path", f"{bucket}/out") >= 3
        other.kill()
    assert capsys.readouterr().err == f"error: another command is writing to {bucket}/out: wait for it, or stop it\n"


def test_another_machine_has_gone_on_meanwhile(run, bucket, s3, machine, capsys):
    assert run(writer({"last.ckpt": b"one", "metrics.csv": b"1"}), "--save-path", f"{bucket}/out") == 0
    # Killed before this was uploaded.
    path = next(Path(os.environ["XRAY_CACHE"]).rglob("last.ckpt"))
    path.write_bytes(b"one and a half")
    machine(2)
    assert run(writer({"last.ckpt": b"two"}), "--save-path", f"{bucket}/out") == 0
    machine(1)
    seen = []
    assert run(lambda config: seen.append(contents(config.save_path)), "--save-path", f"{bucket}/out") == 0
    assert seen == [{"last.ckpt": b"two", "metrics.csv": b"1"}]
    assert f"{bucket}/out was changed by another machine since: goes on from there" in capsys.readouterr().err
    # Nothing is lost.
    assert b"one and a half" in [path.read_bytes() for path in Path(os.environ["XRAY_CACHE"]).rglob("last.ckpt")]


def test_an_upload_that_arrived_unnoticed_is_not_taken_for_anothers(run, bucket, s3, monkeypatch, capsys):
    flags = ("--save-path", f"{bucket}/out")
    assert run(writer({"last.ckpt": b"1"}), *flags) == 0
    plain = staging.Staging.note
    monkeypatch.setattr(staging.Staging, "note", lambda self, name, known: None)
    assert run(writer({"last.ckpt": b"2", "new.csv": b"3"}), *flags) == 0
    monkeypatch.setattr(staging.Staging, "note", plain)
    capsys.readouterr()
    seen = []
    assert run(lambda config: seen.append(contents(config.save_path)), *flags, "--overwrite") == 0
    assert seen == [{"last.ckpt": b"2", "new.csv": b"3"}]
    assert "another machine" not in capsys.readouterr().err


def test_a_bucket_that_may_only_be_read_is_told_before_the_work(run, bucket, monkeypatch, capsys):
    def deny(plain, **what):
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "PutObject")

    intercept(monkeypatch, put_object=deny, create_multipart_upload=deny)
    assert run(lambda config: pytest.fail("it ran"), "--save-path", f"{bucket}/out") == 1
    assert capsys.readouterr().err.startswith(f"error: no permission to write {bucket}/out (AccessDenied)")


def test_only_the_first_process_of_a_training_uploads(run, run_another, bucket, s3):
    assert run(writer({"config.yaml": b"1"}), "--save-path", f"{bucket}/out") == 0
    assert run_another(writer({"config.yaml": b"other", "more": b"2"}), "--save-path", f"{bucket}/out") == 0
    assert s3.objects(f"{bucket}/out") == {"config.yaml": b"1"}


def test_the_tasks_of_a_job_each_upload_their_own(run, bucket, s3, monkeypatch):
    """`srun --ntasks 4 python tools/infer.py …` starts commands that know nothing of each other."""
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert run(writer({"predictions.json": b"3"}), "--save-path", f"{bucket}/3") == 0
    assert s3.objects(f"{bucket}/3") == {"predictions.json": b"3"}


@given(st.sampled_from([*staging.COMPLETE, "last.ckpt", "conversion.part", "x.csv", "images.npy", "model.safetensors"]))
def test_checkpoints_go_up_after_all_else(name):
    assert staging.rank(name) <= staging.rank("last.ckpt")
    assert staging.rank(f"folder/{name}")[0] == staging.rank(name)[0]


def test_addresses_stand_for_folders_while_a_command_runs_only(run, bucket, s3):
    s3.put(f"{bucket}/data/x", b"1")

    def main(config):
        assert places.as_given(config.data_path) == f"{bucket}/data"
        assert places.as_given(config.data_path / "x") == f"{bucket}/data/x"
        assert places.as_given(f"{config.data_path}2") == f"{config.data_path}2"

    assert run(main, "--data-path", f"{bucket}/data") == 0
    assert places._addresses == {}
