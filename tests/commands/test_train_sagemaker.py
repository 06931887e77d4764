"""The train command in SageMaker's container: its folders, hosts, hyperparameters, and what is left for it."""

import json
import os

import pytest
import safetensors.torch

from xray.errors import InputError
from xray.training.sagemaker import failure_reported, is_sagemaker, publish, sagemaker_flags

# As the toolkit writes hyperparameters.
HYPERPARAMETERS = (
    "--task", "classification", "--network", "resnet10t", "--weights", "none", "--n_epochs", "1", "--batch_size", "2",
    "--n_workers", "0", "--n_pictures", "0", "--ema", "False", "--device", "cpu",
)  # fmt: skip


@pytest.fixture
def container(mask_store, tmp_path):
    """The variables of a job with one host, whose folders lie in tmp_path."""
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("SM_", "SLURM", "NODE_RANK", "MASTER"))}
    base = tmp_path / "ml"
    (base / "checkpoints").mkdir(parents=True)
    return clean | {
        "SAGEMAKER_BASE_DIR": str(base),
        "SM_CHANNEL_TRAINING": str(mask_store),
        "SM_CHANNELS": '["training"]',
        "SM_MODEL_DIR": str(base / "model"),
        "SM_OUTPUT_DATA_DIR": str(base / "output" / "data"),
        "SM_OUTPUT_DIR": str(base / "output"),
        "SM_HOSTS": '["algo-1"]',
        "SM_CURRENT_HOST": "algo-1",
        "SM_NUM_GPUS": "0",
    }


def train(forks, environ, *flags):
    """The ended command."""
    return forks.run("xray/train.py", *flags, environ=environ)


@pytest.mark.slow
def test_a_job_leaves_its_best_model_and_its_curves_and_goes_on_where_it_was_cut(forks, container, tmp_path):
    from xray.models.weights import load_deployed

    done = train(forks, container, *HYPERPARAMETERS)
    assert done.status == 0, done.err
    base = tmp_path / "ml"
    run = base / "checkpoints" / "run"
    assert (run / "last.ckpt").is_file()
    assert sorted(path.name for path in (base / "model").iterdir()) == ["model.json", "model.safetensors"]
    description, state = load_deployed(base / "model")
    assert description["task"] == "classification"
    from xray.training.checkpoints import read_checkpoint

    best = read_checkpoint(run / "best.ckpt")
    assert description["epoch"] == best["epoch"]
    for name, value in state.items():
        assert (value == best["state_dict"]["model." + name]).all()
    output = base / "output" / "data"
    kept = {path.name for path in output.iterdir() if not path.name.startswith("events.out")}
    assert kept == {"metrics.csv", "config.yaml", "validation"}
    assert len(list(output.glob("events.out*"))) == 1
    assert not (base / "output" / "failure").exists()
    # The spot instance comes back with another number of epochs: nothing says --resume.
    done = train(forks, container, *HYPERPARAMETERS[:6], "--n_epochs", 2)
    assert done.status == 0, done.err
    assert "goes on after 1 epochs" in done.out
    assert len((output / "metrics.csv").read_text().splitlines()) == 3


def test_a_failure_is_told_where_sagemaker_looks(forks, container, tmp_path):
    done = train(forks, container, *HYPERPARAMETERS, "--fold", "9")
    assert done.status == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert line == "error: " + (tmp_path / "ml" / "output" / "failure").read_text().strip()
    assert "fold 9" in line


@pytest.mark.slow
def test_two_hosts_train_together(forks, container, tmp_path):
    """Each with folders of its own, as in SageMaker; the hosts' names lead nowhere here, so the address is given."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    hosts = []
    for name in ("algo-1", "algo-2"):
        base = tmp_path / name
        base.mkdir()
        environ = container | {
            "SAGEMAKER_BASE_DIR": str(base), "SM_MODEL_DIR": str(base / "model"), "SM_OUTPUT_DIR": str(base / "output"),
            "SM_OUTPUT_DATA_DIR": str(base / "output" / "data"), "SM_HOSTS": '["algo-1", "algo-2"]',
            "SM_CURRENT_HOST": name, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        hosts.append(forks.start("xray/train.py", *HYPERPARAMETERS, environ=environ))
    assert [host.wait() for host in hosts] == [0, 0], [(host.out, host.err) for host in hosts]
    assert "best mean_auroc" in hosts[0].out
    assert hosts[1].out == ""
    assert (tmp_path / "algo-1" / "model" / "model.safetensors").is_file()
    assert not (tmp_path / "algo-2" / "model" / "model.safetensors").exists()
    assert not (tmp_path / "algo-2" / "run" / "last.ckpt").exists()


# What it says, as flags


def test_flags_of_a_job(container, mask_store, tmp_path):
    base = tmp_path / "ml"
    found = sagemaker_flags(["--n_epochs", "1", "--ema", "True", "--compile", "false"], dict(container))
    expected = ["--n_epochs", "1", "--ema", "--no-compile", "--data-path", str(mask_store)]
    assert found == [*expected, "--save-path", str(base / "checkpoints" / "run")]
    (base / "checkpoints").rmdir()
    assert sagemaker_flags([], dict(container))[-1] == str(base / "run")


def test_flags_that_are_given_win(container, tmp_path):
    given = ["--data_path", "a", "--save-path=b", "--devices", "1", "--num-nodes", "1", "--weights", "none"]
    environ = container | {"SM_NUM_GPUS": "8", "SM_HOSTS": '["algo-1", "algo-2"]', "SM_CHANNEL_WEIGHTS": "/nowhere"}
    assert sagemaker_flags(given, environ) == given
    assert "MASTER_ADDR" not in environ


def test_hosts_gpus_and_weights(container, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "resnet.pth").write_bytes(b"x")
    environ = container | {
        "SM_NUM_GPUS": "8", "SM_HOSTS": '["algo-2", "algo-1"]', "SM_CURRENT_HOST": "algo-2",
        "SM_CHANNEL_WEIGHTS": str(weights),
    }  # fmt: skip
    found = sagemaker_flags([], environ)
    assert found[2:4] == ["--weights", str(weights / "resnet.pth")]
    assert found[-4:] == ["--num-nodes", "2", "--devices", "8"]
    assert (environ["MASTER_ADDR"], environ["MASTER_PORT"], environ["NODE_RANK"]) == ("algo-1", "29500", "1")
    safetensors.torch.save_file({}, weights / "model.safetensors")
    assert sagemaker_flags([], environ)[2:4] == ["--weights", str(weights)]


@pytest.mark.parametrize("name", ["TRAINING", "TRAIN", "DATA"])
def test_the_channels_that_hold_data(container, mask_store, name):
    del container["SM_CHANNEL_TRAINING"]
    assert str(mask_store) in sagemaker_flags([], container | {f"SM_CHANNEL_{name}": str(mask_store)})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"SM_CHANNEL_TRAINING": "{}/none"}, "the folder of the channel training is not there"),
        ({"SM_CHANNEL_TRAINING": "{}/empty"}, "the channel training is empty"),
        ({"SM_CHANNEL_TRAINING": "", "SM_CHANNEL_VAL": "x"}, r"no channel training, train or data \(it has .*val\)"),
        ({"SM_CHANNEL_WEIGHTS": "{}/empty"}, "the channel weights is empty"),
        ({"SM_HOSTS": '["algo-2"]'}, r"SM_CURRENT_HOST is 'algo-1', which is not in SM_HOSTS \(algo-2\)"),
        ({"SM_HOSTS": "algo-1"}, "SM_HOSTS is 'algo-1': it must be a list"),
        ({"SM_HOSTS": "[1]"}, "it must be a list"),
        ({"SM_NUM_GPUS": "all"}, "SM_NUM_GPUS is 'all': it must be a number"),
        ({"SM_MODEL_DIR": "{}/file/model"}, "SM_MODEL_DIR, .*/file/model, cannot be written"),
    ],
)
def test_what_cannot_be_used(container, tmp_path, changed, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    changed = {name: value.replace("{}", str(tmp_path)) for name, value in changed.items()}
    with pytest.raises(InputError, match=message):
        sagemaker_flags([], container | changed)


def test_outside_of_sagemaker_nothing_changes():
    assert not is_sagemaker({"PATH": "/bin"})
    for name in ("SM_MODEL_DIR", "SM_CURRENT_HOST", "SM_CHANNEL_X"):
        assert is_sagemaker({name: "x"})


def test_a_run_without_a_model_publishes_none(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.json").write_text(json.dumps({}))
    publish(tmp_path / "run", {"SM_MODEL_DIR": str(tmp_path / "model")})
    assert not (tmp_path / "model").exists()


def test_what_a_library_says_is_not_repeated(tmp_path):
    with pytest.raises(OSError, match="somebody"), failure_reported({"SM_OUTPUT_DIR": str(tmp_path)}):
        raise OSError("no /data/somebody")
    assert "somebody" not in (tmp_path / "failure").read_text()
