"""A run that is still being trained says so where its model is used."""

import json
import shutil

import pytest
import yaml

from xray.findings import FINDINGS
from xray.inference.unfinished import unfinished


def with_epochs(run, **flags):
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | flags))
    return run


def test_fewer_epochs_than_the_config_says_are_told(side_run, tmp_path):
    assert unfinished(side_run) == ""
    run = with_epochs(shutil.copytree(side_run, tmp_path / "run"), n_epochs=9)
    assert unfinished(run) == f"warning: {run} has trained 1 of its 9 epochs: this is the best of its models so far"
    assert unfinished(with_epochs(run, early_stop=2)).startswith(
        f"warning: {run} has trained 1 of its 9 epochs, and --early-stop 2 has not ended it: "
    )


@pytest.mark.parametrize(
    ("scores", "patience", "is_over"),
    [
        (["0.2", "0.3", "0.3", "0.25"], 2, True),
        (["0.2", "0.3", "0.3", "0.25"], 3, False),
        (["0.3", "0.1", "0.4"], 1, False),
        (["0.3", "nan", "nan"], 2, True),
        # Epochs that are not validated do not count.
        (["0.3", "", "0.2", ""], 2, False),
        (["0.3", "", "0.2", "", "0.1"], 2, True),
    ],
)
@pytest.mark.parametrize(
    ("task", "monitor", "names", "metric"),
    [
        ("detection", "auto", FINDINGS, "map40"),
        ("detection", "auto", ["Opacity"], "coco_ap"),
        ("detection", "coco_ap", FINDINGS, "coco_ap"),
        ("segmentation", None, ["Lung"], "dice"),
        ("classification", None, ["Normal"], "mean_auroc"),
    ],
)
def test_one_that_early_stop_has_ended_is_finished(tmp_path, scores, patience, is_over, task, monitor, names, metric):
    config = {"task": task, "n_epochs": 9, "early_stop": patience} | ({"monitor": monitor} if monitor else {})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    categories = {str(number): name for number, name in enumerate(names, 1)}
    (tmp_path / "model.json").write_text(json.dumps({"categories": categories}))
    rows = [f"{epoch},{score}" for epoch, score in enumerate(scores)]
    (tmp_path / "metrics.csv").write_text("\n".join([f"epoch,{metric}", *rows, ""]))
    assert (unfinished(tmp_path) == "") == is_over
    (tmp_path / "model.json").unlink()
    assert unfinished(tmp_path) == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.yaml", "- 1\n"), ("config.yaml", "n_epochs: many\n"), ("config.yaml", "n_epochs: .inf\n"),
     ("config.yaml", "{"), ("config.yaml", "a: " * 9),
     ("metrics.csv", "no,table\n1,2\n"), ("metrics.csv", "epoch\nx\n"), ("metrics.csv", "")],
)  # fmt: skip
def test_what_cannot_be_read_says_nothing(side_run, tmp_path, name, text):
    run = with_epochs(shutil.copytree(side_run, tmp_path / "run"), n_epochs=9)
    (run / name).write_text(text)
    assert unfinished(run) == ""
    (run / name).unlink()
    assert unfinished(run) == ""
