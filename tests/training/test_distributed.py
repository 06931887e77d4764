"""Several processes train as one with their batches together; real ones, with torchrun and with --devices."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from conftest import CLASSIFICATION_FLAGS, SEGMENTATION_FLAGS, TINY_FLAGS, rarely

from xray.commands.train import main
from xray.errors import FlagError, InputError
from xray.flags import flag_value
from xray.training.checkpoints import check_resumable
from xray.training.config import ClassificationConfig
from xray.training.launch import Launch, find_launch, with_launch
from xray.training.recipes import read_training_flags

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "xray" / "train.py"
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SM_"))}

# Started from weights at random, a detector's proposals differ by less than rounding does.
DETECTION = (*TINY_FLAGS, "--norm", "frozen", "--n-pictures", 0)


def torchrun(flags, n=2, script=SCRIPT, **options):
    """Trains in `n` processes; what subprocess.run returns."""
    options = {"timeout": 300, "env": ENVIRON} | options
    return subprocess.run(launcher(flags, n, script), capture_output=True, text=True, **options)


def elastic(n=2, n_nodes=1):
    """The variables that torchrun gives each of `n` processes."""
    here = n // n_nodes
    job = {"TORCHELASTIC_RUN_ID": "t", "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(here)}
    return [job | {"RANK": str(rank), "LOCAL_RANK": str(rank % here)} for rank in range(n)]


def together(forks, flags, environs=None):
    """Trains in processes with these variables, by default `elastic()`; what `torchrun` returns.

    They are forked, where what starts them is not what is tested: imports would take longer than the training.
    """
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    environs = [ENVIRON | meet | own for own in environs or elastic()]
    ranks = [forks.start("xray/train.py", *flags, environ=environ) for environ in environs]
    status = max((rank.wait() for rank in ranks), key=abs)
    out, err = ("".join(getattr(rank, name) for rank in ranks) for name in ("out", "err"))
    return SimpleNamespace(returncode=status, stdout=out, stderr=err)


def launcher(flags, n=2, script=SCRIPT, *own):
    own = own or ("--standalone",)
    start = [sys.executable, "-m", "torch.distributed.run", *own, "--nproc-per-node", n, "--", script, *flags]
    return [str(word) for word in start]


def curves(run):
    """{name: [(step, value), …]} of what TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    names = [name for name in events.Tags()["scalars"] if not name.startswith("speed/")]
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}


def table(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if not name.startswith(("speed/", "seconds"))}
            for row in csv.DictReader(file)
        ]


def assert_same_losses(one, other, tolerance=1e-4):
    expected, found = curves(one), curves(other)
    names = [name for name in expected if name.startswith("train/")]
    assert expected.keys() == found.keys()
    assert len(expected["train/loss_step"]) > 2
    for name in names:
        for (step, value), (other_step, other_value) in zip(expected[name], found[name], strict=True):
            assert step == other_step
            assert other_value == pytest.approx(value, rel=tolerance, abs=tolerance), (name, step)


def test_what_two_processes_compute_together():
    """Batch norms, losses and draws, also where one process has fewer radiographs, or none."""
    done = torchrun([], script=Path(__file__).with_name("sharing.py"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("equal") == 2


def test_two_processes_train_a_detector_as_one_does(vinbig_store, vinbig_run, train_tiny, tmp_path):
    """Of the 7 radiographs the last batch has one, which leaves the second process none; 7 validate, 4 and 3."""
    flags = (*DETECTION, "--n-epochs", 2, "--weights", vinbig_run, "--lr", 0.003)
    one = train_tiny(vinbig_store, tmp_path / "one", *flags, "--batch-size", 6)
    two = tmp_path / "two"
    done = torchrun([*flags, "--batch-size", 3, "--data-path", vinbig_store, "--save-path", two])
    assert done.returncode == 0, done.stderr
    assert_same_losses(one, two)
    # Only the first process speaks.
    assert done.stdout.count("7 radiographs train, 7 validate") == done.stdout.count("epoch 1/2") == 1
    assert "error" not in done.stderr
    assert "Warning" not in done.stderr
    assert {path.name for path in two.iterdir() if not path.name.startswith("events")} == {
        path.name for path in one.iterdir() if not path.name.startswith("events")
    }
    assert len(list(two.glob("events*"))) == 1
    left, right = (safetensors.torch.load_file(run / "model.safetensors") for run in (one, two))
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=1e-4, atol=1e-5)
    scores = [
        sorted((row["image_id"], row["category_id"], row["score"]) for row in json.loads(text))
        for text in ((run / "validation" / "predictions.json").read_text() for run in (one, two))
    ]
    assert [row[:2] for row in scores[0]] == [row[:2] for row in scores[1]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "more"),
    [
        (SEGMENTATION_FLAGS, ("--accumulate", 2, "--loss", "mixed", "--positives", 0.7, "--optimizer", "sgd")),
        (CLASSIFICATION_FLAGS, ("--ema", "--clip-grad", 0.5, "--augment-on", "device", "--augment", "strong")),
    ],
)
def test_two_processes_train_other_tasks_as_one_does(forks, mask_store, tmp_path, first, more):
    """Their batch norms learn; of the 8 radiographs the last batch has two."""
    flags = (*first, "--n-pictures", 0, "--n-epochs", 2, "--lr", 0.001, *more)
    two = tmp_path / "two"
    one = tmp_path / "one"
    alone = [*flags, "--batch-size", 6, "--data-path", mask_store, "--save-path", one]
    assert main(*read_training_flags([str(word) for word in alone])) == 0
    done = together(forks, [*flags, "--batch-size", 3, "--data-path", mask_store, "--save-path", two])
    assert done.returncode == 0, done.stderr
    expected, found = curves(one), curves(two)
    for name in (name for name in expected if name.startswith("train/")):
        assert [step for step, _ in expected[name]] == [step for step, _ in found[name]]
        assert [v for _, v in found[name]] == pytest.approx([v for _, v in expected[name]], rel=1e-4, abs=1e-4), name


def with_one_validated(store, folder):
    """A copy of a dataset with one radiograph in fold 0."""
    shutil.copytree(store, folder)
    content = json.loads((folder / "annotations.json").read_text())
    kept = next(record["id"] for record in content["images"] if record["fold"] == 0 and record["split"] == "train")
    for record in content["images"]:
        if record["fold"] == 0 and record["id"] != kept:
            record["fold"] = 1
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("n_validated", [7, 1])
def test_a_validation_over_three_processes_is_that_of_one(
    forks, vinbig_store, vinbig_run, train_tiny, tmp_path, n_validated
):
    """With a learning rate that changes nothing, to the last digit; also of fewer radiographs than processes."""
    store = vinbig_store if n_validated == 7 else with_one_validated(vinbig_store, tmp_path / "data")
    flags = (*DETECTION, "--weights", vinbig_run, "--lr", 1e-30, "--batch-size", 2, "--weight-decay", 0)
    one = train_tiny(store, tmp_path / "one", *flags)
    done = together(forks, [*flags, "--data-path", store, "--save-path", tmp_path / "three"], elastic(3))
    assert done.returncode == 0, done.stderr
    (expected,), (found,) = table(one), table(tmp_path / "three")
    names = [name for name in expected if name.startswith(("map40", "ap40", "coco", "n_truth"))]
    assert any(float(expected[name]) > 0 for name in names)
    assert {name: found[name] for name in names} == {name: expected[name] for name in names}
    texts = [(run / "validation" / "predictions.json").read_text() for run in (one, tmp_path / "three")]
    rows = [json.loads(text) for text in texts]
    assert [row["image_id"] for row in rows[0]] == [row["image_id"] for row in rows[1]]
    assert [row["score"] for row in rows[0]] == pytest.approx([row["score"] for row in rows[1]], abs=1e-6)


@pytest.mark.slow
def test_lightning_starts_the_processes_as_well_and_two_nodes_are_two_processes(forks, mask_store, tmp_path):
    flags = [*CLASSIFICATION_FLAGS, "--n-pictures", 0, "--data-path", mask_store]
    runs = [tmp_path / name for name in ("devices", "nodes")]
    command = [sys.executable, SCRIPT, *flags, "--devices", 2, "--save-path", runs[0]]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600, env=ENVIRON)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("8 radiographs train") == 1
    assert "error" not in done.stderr
    done = together(forks, [*flags, "--save-path", runs[1]], elastic(n_nodes=2))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("8 radiographs train") == 1
    assert table(runs[0]) == table(runs[1])
    texts = [(run / "config.yaml").read_text() for run in runs]
    assert "devices: 2\nnum_nodes: 1\n" in texts[0]
    assert "devices: 1\nnum_nodes: 2\n" in texts[1]


@pytest.mark.nightly
def test_two_nodes_of_torchrun_meet(mask_store, tmp_path):
    meet = ("--nnodes", 2, "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "t")
    flags = [*CLASSIFICATION_FLAGS, "--n-pictures", 0, "--data-path", mask_store, "--save-path", tmp_path / "run"]
    command = launcher(flags, 1, SCRIPT, *meet)
    nodes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRON)
        for _ in range(2)
    ]
    said = [node.communicate(timeout=600) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert sum(out.count("8 radiographs train") for out, _ in said) == 1
    assert "devices: 1\nnum_nodes: 2\n" in (tmp_path / "run" / "config.yaml").read_text()


def free_port():
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def processes_of(word):
    """Processes of this machine with `word` among their arguments, and their environment."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word in (entry / "cmdline").read_bytes().decode().split("\0"):
                found[int(entry.name)] = (entry / "environ").read_bytes().decode().split("\0")
        except (OSError, ValueError):
            continue
    return found


def start_and_wait_for(command, run):
    """A training of which a checkpoint is there, and its processes by rank; loaders are none."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRON, start_new_session=True
    )
    end = time.monotonic() + 600
    while not (run / "last.ckpt").is_file():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)
    ranks = {}
    for number, environ in processes_of(str(run)).items():
        for rank in (0, 1):
            if f"LOCAL_RANK={rank}" in environ:
                ranks[rank] = number
    return process, ranks


LONG = (*CLASSIFICATION_FLAGS, "--n-pictures", 0, "--n-epochs", 400, "--batch-size", 1, "--log-step", 1)


@pytest.mark.parametrize("by", rarely(["torchrun", "lightning"]))
def test_a_process_that_is_killed_ends_the_others_and_the_run_goes_on(forks, mask_store, tmp_path, by):
    run = tmp_path / "run"
    flags = [*LONG, "--data-path", mask_store, "--save-path", run]
    alone = [str(word) for word in (sys.executable, SCRIPT, *flags, "--devices", 2)]
    process, ranks = start_and_wait_for(launcher(flags) if by == "torchrun" else alone, run)
    os.kill(ranks[1], signal.SIGKILL)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 1
    lines = [line for line in stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, stderr
    assert re.search(
        "another process of this training has ended|process 1 of this training ended by signal 9", lines[0]
    )
    assert lines[0].endswith("continue with --resume") or lines[0].endswith("from the last checkpoint with --resume")
    assert not processes_of(str(run))
    done = int(table(run)[-1]["epoch"]) + 1
    again = ["--task", "classification", "--save-path", run, "--resume", "--n-epochs", done + 1]
    assert together(forks, again).returncode == 0
    assert len(table(run)) == done + 1


@pytest.mark.slow
def test_sigterm_saves_in_all_processes_and_the_run_goes_on(forks, mask_store, tmp_path):
    """torchrun hands SIGTERM on to its processes; in an epoch of 4 steps they stop at its end."""
    run = tmp_path / "run"
    flags = [*LONG, "--n-workers", 1, "--data-path", mask_store]
    process, _ = start_and_wait_for(launcher([*flags, "--save-path", run]), run)
    process.terminate()
    _, stderr = process.communicate(timeout=600)
    assert process.returncode != 0
    saved = [line for line in stderr.splitlines() if line.startswith("stopped by SIGTERM and saved: epoch")]
    assert len(saved) == 1, stderr
    assert not [line for line in stderr.splitlines() if line.startswith("error:")]
    assert not processes_of(str(run))
    done = len(table(run))
    again = ["--task", "classification", "--save-path", run, "--resume", "--n-epochs", done + 1]
    assert together(forks, again).returncode == 0
    assert [row["epoch"] for row in table(run)] == [str(number) for number in range(done + 1)]


def test_an_epoch_that_was_cut_goes_on_with_as_many_radiographs_a_step(tmp_path):
    progress = {"current": {"started": 1, "processed": 0}}
    loops = {"epoch_progress": progress, "epoch_loop.batch_progress": {"current": {"processed": 4}}}
    checkpoint = {
        "state_dict": {}, "optimizer_states": [], "lr_schedulers": [], "callbacks": {}, "epoch": 0, "global_step": 4,
        "loops": {"fit_loop": loops}, "layout": {"batch-size": 4, "accumulate": 1, "devices": 2},
    }  # fmt: skip
    torch.save(checkpoint, tmp_path / "last.ckpt")
    for size, devices, nodes in ((4, 2, 1), (4, 1, 2), (8, 1, 1), (2, 2, 2)):
        config = ClassificationConfig(batch_size=size, devices=devices, num_nodes=nodes)
        assert check_resumable(tmp_path, config).batches == 4
    for config, message in (
        (
            ClassificationConfig(batch_size=4),
            "1 processes of --batch-size 4 see 4 radiographs a step, and the run was stopped within an epoch with 2 "
            "processes and 8: give --batch-size 8, or 2 processes until that epoch is over",
        ),
        (ClassificationConfig(batch_size=4, devices=3), "with 2 processes and 8: give 2 processes until"),
        (ClassificationConfig(batch_size=8, devices=2), "--batch-size is 8, and .* with 4: give --batch-size 4"),
        (ClassificationConfig(batch_size=4, devices=2, accumulate=2), "--accumulate is 2, and .* with 1"),
    ):
        with pytest.raises(InputError, match=message):
            check_resumable(tmp_path, config)


# Who started the processes

ELASTIC = {
    "TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
}  # fmt: skip
SLURM = {
    "SLURM_NTASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS_PER_NODE": "4", "SLURM_STEP_ID": "0",
    "SLURM_JOB_NAME": "train",
}  # fmt: skip


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Launch()),
        (ELASTIC, Launch("torchrun", 5, 8, 1, 4)),
        (SLURM, Launch("srun", 5, 8, 1, 4)),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}, Launch("srun", 0, 1, 0, 1)),
        (SLURM | {"SLURM_JOB_NAME": "bash"}, Launch()),
        # torchrun within a SLURM job.
        (SLURM | ELASTIC, Launch("torchrun", 5, 8, 1, 4)),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2", "NODE_RANK": "0"}, Launch("lightning", 1, 2, 1, 0)),
        ({"NODE_RANK": "1"}, Launch(rank=1)),
    ],
)
def test_who_started_this_process(environ, expected):
    assert find_launch(environ) == expected


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (ELASTIC | {"WORLD_SIZE": "many"}, "WORLD_SIZE in the environment is 'many': it must be a whole number"),
        (ELASTIC | {"WORLD_SIZE": "7"}, "torchrun started 7 processes, 4 of them on this node"),
        ({name: value for name, value in SLURM.items() if "STEP" not in name}, "start the command with srun"),
        ({name: value for name, value in SLURM.items() if "PER_NODE" not in name}, "#SBATCH --ntasks-per-node=N"),
    ],
)
def test_an_environment_that_cannot_be(environ, message):
    with pytest.raises(InputError, match=message):
        find_launch(environ)


def test_how_many_processes_there_are_says_who_started_them():
    launch = find_launch(ELASTIC)
    assert with_launch(["--lr", "1"], launch) == ["--lr", "1", "--devices", "4", "--num-nodes", "2"]
    assert with_launch(["--devices=4", "--num_nodes", "2"], launch) == ["--devices=4", "--num_nodes", "2"]
    assert with_launch(["--devices", "4"], Launch()) == ["--devices", "4"]
    with pytest.raises(
        FlagError, match="--devices is 8, but torchrun started 4 processes on each node: leave --devices"
    ):
        with_launch(["--devices", "8"], launch)
    with pytest.raises(FlagError, match=r"--num-nodes is 3, but srun started 2 nodes: .* #SBATCH --nodes=3"):
        with_launch(["--num-nodes=3"], find_launch(SLURM))


def test_the_value_of_a_flag():
    args = ["--n_epochs", "3", "--ema", "--lr=1", "--resume"]
    assert [flag_value(args, name) for name in ("n-epochs", "n_epochs", "lr", "ema", "devices")] == [
        "3",
        "3",
        "1",
        "",
        None,
    ]


def test_a_wrong_number_of_processes_is_told_before_torch_is_imported(tmp_path):
    command = [sys.executable, "-X", "importtime", str(SCRIPT), "--devices", "3", "--save-path", str(tmp_path / "run")]
    environ = ENVIRON | ELASTIC | {"RANK": "0", "LOCAL_RANK": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environ)
    assert done.returncode == 2
    assert "error: --devices is 3, but torchrun started 4 processes on each node" in done.stderr
    assert not re.search(r"\| +torch$", done.stderr, re.MULTILINE)


@pytest.mark.slow
def test_a_job_of_one_task_under_slurm(forks, mask_store, tmp_path):
    flags = [*CLASSIFICATION_FLAGS, "--n-pictures", 0, "--data-path", mask_store, "--save-path"]
    one = {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "1", "SLURM_PROCID": "0",
           "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "1234", "SLURM_JOB_NAME": "train"}  # fmt: skip
    done = together(forks, [*flags, tmp_path / "run"], [one])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()
    two = one | {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_STEP_ID": "0", "SLURM_NODELIST": "127.0.0.1"}
    ranks = [two | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    done = together(forks, [*flags, tmp_path / "two"], ranks)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("8 radiographs train") == 1


@pytest.mark.slow
def test_one_process_converts_and_one_tells_what_is_wrong(tmp_path, raw_vinbig):
    """The fold does not exist, so that the training ends after the conversion."""
    raw = raw_vinbig(lambda number: True)
    flags = [*TINY_FLAGS, "--fold", 9, "--data-path", raw, "--save-path", tmp_path / "run"]
    done = torchrun(flags)
    assert done.returncode == 1
    assert done.stdout.count("converting it once into") == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    # The second process holds its line back for a while, in which torchrun ends it, unless the machine is very slow.
    assert len(set(lines)) == 1, done.stderr
    assert "fold 9" in lines[0]
    assert (tmp_path / "run" / "dataset" / "conversion.json").is_file()
