"""Files that are complete or not there: what mode they have."""

import os

import pytest
import safetensors.torch
import torch

from xray.files import complete, replacing
from xray.models.weights import MODEL_FILE, WEIGHTS_FILE, save_deployed

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
