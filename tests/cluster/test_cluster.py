"""A Ray cluster of two nodes on one machine: order, losses, errors; commands that write the same bytes as without."""

import contextlib
import dataclasses
import functools
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import rarely

from xray.cluster.decoding import check_seen
from xray.cluster.ray import check_flags, connected
from xray.commands.convert import main as convert
from xray.commands.convert_flags import Folders
from xray.commands.infer import Config
from xray.commands.infer import main as infer
from xray.errors import FlagError, InputError
from xray.file_names import UNFINISHED

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("ray", reason='needs Ray: pip install -e ".[ray]"')


@pytest.fixture(scope="module")
def nodes():
    """Two nodes of one core each, of which the second may be lost and come back."""
    import ray
    import ray.cluster_utils

    # Paths of sockets have 107 bytes at most.
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    before = dict(os.environ)
    # Other tests' memory is none of Ray's business.
    os.environ |= {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0"}
    # Nodes know nothing of this file's functions.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    size = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = ray.cluster_utils.Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **size})
    yield Nodes(cluster, size)
    ray.shutdown()
    cluster.shutdown()
    os.environ.clear()
    os.environ.update(before)
    shutil.rmtree(folder, ignore_errors=True)


class Nodes:
    """The head node and, once it is asked for, another one."""

    def __init__(self, cluster, size):
        self.cluster, self.size, self.second = cluster, size, None

    @property
    def address(self):
        """Of both."""
        if self.second is None:
            self.second = self.cluster.add_node(**self.size)
            self.cluster.wait_for_nodes()
        return self.cluster.address

    def lose(self):
        """As if the second one's power had failed."""
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = None

    def lose_when(self, is_time):
        """The same in a thread, as soon as actors work on both nodes and it is time."""
        import ray

        def wait():
            while True:
                time.sleep(0.05)
                if is_time() and ray.is_initialized():
                    actors = ray._private.state.actors().values()
                    working = {
                        a["Address"]["NodeID"]
                        for a in actors
                        if a["State"] == "ALIVE" and "_Actor" in a["ActorClassName"]
                    }
                    if len(working) == 2:
                        return self.lose()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        return thread


# ---- parts of work


def doubling(folder, n_deaths, fatal):
    """Work that doubles a number; the part `fatal` kills its process as often as `n_deaths`."""

    def work(part):
        time.sleep(0.05 * (part % 3))
        if part == fatal:
            deaths = sorted(Path(folder).iterdir())
            if len(deaths) < n_deaths:
                (Path(folder) / str(len(deaths))).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return part * 2, os.getpid()

    return work


def failing(at_start=False):
    """Work that cannot be done."""
    if at_start:
        raise InputError("no model here")

    def work(part):
        if part == 3:
            raise OSError(13, "Permission denied", "/somewhere/Doe^Jane/1.dcm")
        return part

    return work


@pytest.fixture(scope="class")
def both(nodes):
    with connected(nodes.address) as cluster:
        yield cluster


class TestParts:
    def test_they_come_back_in_order_though_a_process_is_killed(self, both, tmp_path, capfd):
        assert (both.n_actors(), both.n_gpus) == (2, 0)
        found = list(both.in_order(functools.partial(doubling, tmp_path, 1, 5), range(30)))
        assert [double for double, _ in found] == [2 * part for part in range(30)]
        assert len({process for _, process in found} - {os.getpid()}) >= 2
        said = capfd.readouterr()
        assert re.fullmatch(
            r"the cluster lost a process or a node \(\w+\): what it had in hand is done again\n", said.err
        )
        assert said.out == ""

    @pytest.mark.slow
    def test_one_that_always_kills_is_given_up(self, both, tmp_path):
        found = both.in_order(functools.partial(doubling, tmp_path, 99, 1), range(12))
        assert next(found)[0] == 0
        with pytest.raises(InputError, match=r"lost the processes at work 4 times in a row, last by .*give the same"):
            next(found)

    def test_what_goes_wrong_comes_back_as_a_sentence(self, both):
        found = both.in_order(failing, range(8))
        assert [next(found) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(InputError) as error:
            next(found)
        assert str(error.value) == "on a node of the cluster, unexpected PermissionError: Permission denied"
        with pytest.raises(InputError, match=r"no model here \(weights and data must lie at a path that all nodes see"):
            list(both.in_order(functools.partial(failing, True), range(8)))

    def test_there_must_be_room(self, both):
        larger = dataclasses.replace(both, cores=3)
        with pytest.raises(InputError, match="no node of the cluster has 3 cores: add nodes or give a smaller"):
            next(larger.in_order(failing, range(8)))
        with pytest.raises(InputError, match="no node of the cluster has 1 cores and a GPU"):
            next(both.in_order(failing, range(8), gpu=True))


def test_files_that_only_this_machine_sees(tmp_path):
    check_seen([tmp_path / "gone.png"])
    (tmp_path / "there.png").touch()
    with pytest.raises(InputError, match=r"does not see there.png, which is there on this machine: weights and data"):
        check_seen([tmp_path / "gone.png", tmp_path / "there.png"])


def test_addresses_that_do_not_answer():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        # Bound, but nobody listens.
        with (
            pytest.raises(
                InputError, match=r"^--address 127.0.0.1:\d+ does not answer \(Connection refused\): give HOST"
            ),
            connected(f"127.0.0.1:{taken.getsockname()[1]}"),
        ):
            pass
    for address in ("head", "ray://head:10001", "head:"):
        with pytest.raises(FlagError, match="--address is"):
            check_flags("ray", address, 0)
    with pytest.raises(FlagError, match="--address is for --engine ray"):
        check_flags("local", "auto", 0)


# ---- commands


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Radiographs in two classes, three of them broken."""
    root = tmp_path_factory.mktemp("pictures") / "raw"
    grey = np.random.default_rng(0)
    for number in range(60):
        folder = root / ("ill" if number % 2 else "normal")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = grey.integers(20, 60, (700 + number, 900), dtype=np.uint8)
        pixels[200:300, 100 + number : 500] = 200
        assert cv2.imwrite(str(folder / f"{number:03d}.png"), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    for number in (7, 8, 59):
        (root / ("ill" if number % 2 else "normal") / f"{number:03d}.png").write_bytes(b"broken %d" % number)
    return root


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def conversion(pictures, out, **changes):
    return Folders(data_path=pictures, save_path=out, image_size=128, n_workers=1, **changes)


@pytest.fixture(scope="module")
def converted(pictures, tmp_path_factory):
    """What one machine writes."""
    out = tmp_path_factory.mktemp("converted") / "out"
    convert(conversion(pictures, out))
    return contents(out)


def test_a_cluster_converts_into_the_same_bytes(nodes, pictures, converted, tmp_path, capfd):
    convert(conversion(pictures, tmp_path / "out", engine="ray", address=nodes.address))
    assert contents(tmp_path / "out") == converted
    said = capfd.readouterr()
    assert "unreadable file 3" in " ".join(said.out.split())
    assert "ray" not in said.out.replace("xray", "").replace("radiographs", "")
    assert [line for line in said.err.splitlines() if "decoding" not in line] == []


@pytest.mark.nightly
def test_a_node_lost_in_the_middle_of_a_conversion_loses_nothing(nodes, pictures, converted, tmp_path, capfd):
    part = tmp_path / "out" / "images.npy.part"
    address = nodes.address
    thread = nodes.lose_when(lambda: part.exists())
    convert(conversion(pictures, tmp_path / "out", engine="ray", address=address))
    thread.join(1)
    assert not thread.is_alive()
    assert contents(tmp_path / "out") == converted
    assert "the cluster lost a process or a node" in capfd.readouterr().err


def inference(weights, data, out, **changes):
    values = {"n_workers": 1, "device": "cpu", "precision": "32", **changes}
    return Config(weights=tuple(map(str, weights)), data_path=str(data), save_path=str(out), **values)


@pytest.mark.nightly
def test_a_cluster_finds_the_same_bytes(nodes, pictures, vinbig_run, tmp_path, capfd):
    ill = pictures / "ill"
    assert infer(inference([vinbig_run], ill, tmp_path / "here")) == 1
    there = inference([vinbig_run], ill, tmp_path / "there", engine="ray", address=nodes.address)
    capfd.readouterr()
    assert infer(there) == 1
    found = contents(tmp_path / "there")
    # Noise is no frontal chest radiograph, as each node says.
    assert sorted(found) == ["failures.csv", "made_by.json", "predictions.json", "submission.csv", "warnings.csv"]
    assert found == contents(tmp_path / "here")
    said = capfd.readouterr()
    # Boxes, and the submission: nothing of the nodes.
    assert [line.split(",")[0].split(":")[0] for line in said.out.splitlines()] == ["28 radiographs", "submission"]
    assert "2 of 30 radiographs could not be read" in said.err


@pytest.mark.slow
def test_a_node_lost_and_a_command_killed_in_the_middle_of_inference(nodes, pictures, vinbig_run, tmp_path, capfd):
    data, out, address = pictures / "ill", tmp_path / "out", nodes.address
    assert infer(inference([vinbig_run], data, tmp_path / "whole")) == 1
    flags = ["--weights", vinbig_run, "--data-path", data, "--save-path", out, "--precision", 32, "--device", "cpu"]
    process = start(*flags, "--engine", "ray", "--address", address)
    wait_for(out / UNFINISHED, 3, process)
    nodes.lose()
    n_lines = (out / UNFINISHED).read_bytes().count(b"\n")
    wait_for(out / UNFINISHED, n_lines + 3, process)
    process.kill()
    process.communicate()
    assert not (out / "predictions.json").exists()
    assert infer(inference([vinbig_run], data, out, engine="ray", address=address)) == 1
    assert "continuing after " in capfd.readouterr().err
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_maps_pictures_and_labels_of_a_dataset_are_the_same_bytes(
    nodes, mask_store, segmentation_run, classification_run, tmp_path
):
    weights, wanted = [segmentation_run, classification_run], {"overlays": True, "probabilities": True}
    assert infer(inference(weights, mask_store, tmp_path / "here", **wanted)) == 0
    there = inference(weights, mask_store, tmp_path / "there", engine="ray", address=nodes.address, **wanted)
    assert infer(there) == 0
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.parametrize("which", rarely([signal.SIGINT, signal.SIGTERM]))
def test_ray_started_for_one_command_ends_with_it(nodes, pictures, tmp_path, which):
    # So many that no machine has decoded them when the signal comes.
    for number, path in itertools.product(range(20), sorted(pictures.rglob("*.*"))):
        many = tmp_path / "many" / path.relative_to(pictures).parent
        many.mkdir(parents=True, exist_ok=True)
        os.link(path, many / f"{number}-{path.name}")
    flags = ["--data-path", tmp_path / "many", "--save-path", tmp_path / "out", "--image-size", 1024, "--engine", "ray"]
    process = start("folders", *flags, tool="convert.py", mark=str(tmp_path))
    end = time.monotonic() + 600
    while not (tmp_path / "out" / "images.npy.part").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(1)
    os.kill(process.pid, which)
    said = process.communicate(timeout=600)
    assert process.returncode == 128 + which, said
    assert said[1].splitlines()[-1].endswith("interrupted" if which == signal.SIGINT else "terminated")
    assert "Traceback" not in said[1]
    end = time.monotonic() + 600
    while (left := marked(str(tmp_path))) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == []


def marked(mark):
    """Processes that a command of this mark has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"MARK={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes())
    return found


def start(*flags, tool="infer.py", mark=""):
    command = [sys.executable, ROOT / "tools" / tool, *flags]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen([*map(str, command)], **options, env={**os.environ, "MARK": mark})


def wait_for(journal, n_lines, process):
    """Until the journal has so many lines."""
    end = time.monotonic() + 600
    while not journal.exists() or journal.read_bytes().count(b"\n") < n_lines:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the command is too slow"
        time.sleep(0.05)
