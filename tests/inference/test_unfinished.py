"""A run that is still being trained says so where its model is used."""

import shutil

import pytest
import yaml

from xray.inference.unfinished import unfinished


def with_epochs(run, **flags):
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | flags))
    return run


def test_fewer_epochs_than_the_config_says_are_told(side_run, tmp_path):
    assert unfinished(side_run) == ""
    run = with_epochs(shutil.copytree(side_run, tmp_path / "run"), n_epochs=9)
    assert unfinished(run) == f"warning: {run} has trained 1 of its 9 epochs: this is the best of its models so far"
    assert unfinished(with_epochs(run, early_stop=2)) == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.yaml", "- 1\n"), ("config.yaml", "n_epochs: many\n"), ("config.yaml", "{"), ("config.yaml", "a: " * 9),
     ("metrics.csv", "no,table\n1,2\n"), ("metrics.csv", "epoch\nx\n"), ("metrics.csv", "")],
)  # fmt: skip
def test_what_cannot_be_read_says_nothing(side_run, tmp_path, name, text):
    run = with_epochs(shutil.copytree(side_run, tmp_path / "run"), n_epochs=9)
    (run / name).write_text(text)
    assert unfinished(run) == ""
    (run / name).unlink()
    assert unfinished(run) == ""
