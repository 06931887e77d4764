"""Killed at any moment, a training goes on and ends bit for bit where the undisturbed one does."""

import contextlib
import csv
import json
import os
import random
import shutil
import signal
import time

import pytest
import torch
from conftest import CLASSIFICATION_FLAGS, TINY_FLAGS
from equality import assert_same
from killed import SLOWED, Nursery
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

FLAGS = {
    "classification": (
        *CLASSIFICATION_FLAGS, "--network", "test_resnet", "--batch-size", "2", "--n-epochs", "3", "--n-pictures", "1",
        "--save-every-n-steps", "2", "--ema", "--val-every", "1", "--augment", "strong",
    ),
    "detection": (
        *TINY_FLAGS, "--batch-size", "2", "--n-epochs", "2", "--n-pictures", "0", "--save-every-n-steps", "1",
        "--accumulate", "2", "--repeat-threshold", "0.6", "--normals", "0.6",
    ),
}  # fmt: skip
MEASURED = ("seconds", "speed/")
COMPARED = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "global_step")


@pytest.fixture(scope="module")
def nursery():
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="module")
def undisturbed(nursery, side_store, tmp_path_factory):
    """(kind) → (run, seconds) of a training that nothing happened to."""
    done = {}

    def train(kind):
        if kind not in done:
            folder = tmp_path_factory.mktemp(kind)
            begin = time.monotonic()
            flags = [*FLAGS[kind], "--data-path", side_store, "--save-path", folder / "run"]
            assert nursery.run(flags, folder / "log", "slow_saves") == 0, (folder / "log").read_text()
            done[kind] = folder / "run", time.monotonic() - begin
        return done[kind]

    return train


def rows_of(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith(MEASURED)} for row in csv.DictReader(file)]


def curves_of(run):
    """What TensorBoard shows: {tag: [(step, value)]}; pictures by their size alone."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    shown = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags["scalars"]}
    shown |= {tag: [(event.step, event.width) for event in events.Images(tag)] for tag in tags["images"]}
    return {tag: values for tag, values in shown.items() if not tag.startswith(MEASURED)}


def assert_ends_alike(run, whole):
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (torch.load(where / name, weights_only=True) for where in (whole, run))
        for part in COMPARED:
            assert_same(one.get(part), other.get(part), f"{name}/{part}")
        assert one["epoch"] == other["epoch"]
    for name in ("model.safetensors", "model.json", "validation/predictions.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert rows_of(run) == rows_of(whole)
    assert curves_of(run) == curves_of(whole)
    assert not list(run.rglob("*.part"))


def at(seconds):
    """A moment counted from the first question on."""
    begin = []

    def is_time():
        begin.append(time.monotonic())
        return begin[-1] - begin[0] > seconds

    return is_time


def saving(run, number, seconds):
    """The moment when the `number`th file is being written, and some seconds later."""
    seen, since = set(), []

    def is_time():
        with contextlib.suppress(FileNotFoundError):
            for folder in (run, run / "validation"):
                if folder.is_dir():
                    seen.update((e.name, e.inode()) for e in os.scandir(folder) if e.name.endswith(".part"))
        if len(seen) >= number:
            since.append(time.monotonic())
        return bool(since) and since[-1] - since[0] > seconds

    return is_time


def moment(draw, run, seconds, is_saving):
    if is_saving:
        return saving(run, draw.randint(1, 12), draw.uniform(0, 2 * SLOWED))
    return at(draw.uniform(0, 0.9 * seconds))


@pytest.mark.parametrize(
    ("kind", "number", "is_saving"),
    [
        ("classification", 0, False),
        ("classification", 0, True),
        *(pytest.param("classification", n, False, marks=pytest.mark.nightly) for n in range(1, 11)),
        *(pytest.param("classification", n, True, marks=pytest.mark.nightly) for n in range(1, 9)),
        pytest.param("detection", 0, True, marks=pytest.mark.slow),
        *(pytest.param("detection", n, False, marks=pytest.mark.nightly) for n in range(6)),
        *(pytest.param("detection", n, True, marks=pytest.mark.nightly) for n in range(1, 4)),
    ],
)
def test_killed_at_a_random_moment(nursery, undisturbed, side_store, tmp_path, kind, number, is_saving):
    """Every third run is killed once more when it goes on."""
    whole, seconds = undisturbed(kind)
    draw = random.Random(f"{kind} {number} {is_saving}")
    run, log = tmp_path / "run", tmp_path / "log"
    places = ["--data-path", side_store, "--save-path", run]
    for attempt in range(2 if number % 3 == 2 else 1):
        # Before config.yaml is whole there is nothing to resume, and the same command starts.
        resume = ["--resume"] if (run / "config.yaml").exists() else []
        flags = [*FLAGS[kind], *places, *resume]
        seconds /= attempt + 1
        status = nursery.kill(flags, log, moment(draw, run, seconds, is_saving), "slow_saves")
        while status == 0 and attempt == 0:
            # The machine has become faster since the undisturbed training: it was over before its moment.
            shutil.rmtree(run)
            seconds /= 2
            status = nursery.kill(flags, log, moment(draw, run, seconds, is_saving), "slow_saves")
        assert status in (0, -signal.SIGKILL), log.read_text()
    resume = ["--resume"] if (run / "config.yaml").exists() else []
    assert nursery.run([*FLAGS[kind], *places, *resume], log) == 0, log.read_text()
    assert_ends_alike(run, whole)


def asked(run, log, n):
    """The moment when a training has made `n` epochs and begun another."""
    return lambda: (run / "metrics.csv").is_file() and len(rows_of(run)) >= n


@pytest.mark.parametrize(
    ("kind", "n_workers", "hook"),
    [
        ("classification", 0, None),
        pytest.param("classification", 2, "loader_group", marks=pytest.mark.slow),
        pytest.param("detection", 0, None, marks=pytest.mark.slow),
    ],
)
def test_sigterm_saves_and_stops(nursery, undisturbed, side_store, tmp_path, kind, n_workers, hook):
    """In one case the loaders' processes get it, too, as from the manager of a job."""
    whole, _ = undisturbed(kind)
    run, log = tmp_path / "run", tmp_path / "log"
    flags = [*FLAGS[kind], "--data-path", side_store, "--save-path", run, "--n-workers", n_workers]
    # Nothing but the signal saves within an epoch.
    process = nursery.start([*flags, "--save-every-n-steps", "0"], log, hook)
    is_time = asked(run, log, 1)
    while not is_time():
        time.sleep(0.001)
    (os.killpg if hook else os.kill)(process, signal.SIGTERM)
    assert nursery.wait() == 143, log.read_text()
    said = [line for line in log.read_text().splitlines() if "SIGTERM" in line]
    assert len(said) == 2, said
    assert said[0].startswith("SIGTERM: saves and stops")
    assert said[1].startswith("stopped by SIGTERM and saved: epoch ")
    assert said[1].endswith(f"continue with python xray/train.py --task {kind} --save-path {run} --resume")
    assert "Traceback" not in log.read_text()
    saved = torch.load(run / "last.ckpt", weights_only=True)
    assert saved["global_step"] > 0
    assert nursery.run([*flags, "--resume"], log) == 0, log.read_text()
    assert_ends_alike(run, whole)


def test_killed_before_its_first_checkpoint_it_starts_anew(nursery, undisturbed, side_store, tmp_path):
    whole, _ = undisturbed("classification")
    run, log = tmp_path / "run", tmp_path / "log"
    flags = [*FLAGS["classification"], "--data-path", side_store, "--save-path", run]
    assert nursery.kill(flags, log, (run / "config.yaml").exists) == -signal.SIGKILL
    assert not (run / "last.ckpt").exists()
    assert nursery.run([*flags, "--resume"], log) == 0, log.read_text()
    assert "was ended before its first checkpoint: it starts from the beginning" in log.read_text()
    assert_ends_alike(run, whole)


def test_the_pair_of_deployed_files_is_of_one_epoch_whenever_it_is_killed(tmp_path):
    """Every order of old and new that a kill between the two renames can leave."""
    from xray.models.weights import load_deployed, save_deployed

    old, new = ({"task": "detection", "epoch": epoch} for epoch in (3, 4))
    for folder, description, value in (("old", old, 1.0), ("new", new, 2.0)):
        (tmp_path / folder).mkdir()
        save_deployed(tmp_path / folder, {"a": torch.tensor([value])}, description)
    between = tmp_path / "between"
    between.mkdir()
    (between / "model.safetensors").write_bytes((tmp_path / "new" / "model.safetensors").read_bytes())
    (between / "model.json").write_bytes((tmp_path / "old" / "model.json").read_bytes())
    description, state = load_deployed(between)
    assert description == new
    assert state["a"].item() == 2.0
    # What was fitted later into the model.json of these weights counts.
    edited = json.loads((tmp_path / "new" / "model.json").read_text()) | {"thresholds": {"mask": 0.4}}
    (between / "model.json").write_text(json.dumps(edited))
    assert load_deployed(between)[0] == {**new, "thresholds": {"mask": 0.4}}
