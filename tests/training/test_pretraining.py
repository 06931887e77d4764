"""From class folders to an encoder: a classifier is trained on them, and its trunk begins a U-Net or U-Net++."""

import cv2
import numpy as np
import pytest
import torch

from xray.commands.train import main as train
from xray.commands.training_inputs import build_task
from xray.datasets.sources import convert
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.models.weights import load_deployed
from xray.training.recipes import read_training_flags

SIZE = 64
FLAGS = (
    "--device", "cpu", "--n-workers", "0", "--n-epochs", "1", "--batch-size", "4", "--n-pictures", "0",
    "--log-step", "1", "--warmup-steps", "2",
)  # fmt: skip
DECODERS = (
    ("--architecture", "unet"),
    ("--architecture", "unetplusplus", "--deep-supervision", "--depth", "4"),
)


def write_shadow(folder, number, mask_folder=None):
    """A dim picture, whose even numbers have a bright square, drawn into `mask_folder` too."""
    random = np.random.default_rng(number)
    pixels, mask = random.integers(20, 60, (70, 80), dtype=np.uint8), np.zeros((70, 80), dtype=np.uint8)
    if number % 2 == 0:
        x, y = random.integers(0, 45, 2)
        mask[y : y + 25, x : x + 25] = 255
    for into, content in ((folder, np.maximum(pixels, mask // 2)), (mask_folder, mask)):
        if into is not None:
            into.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(into / f"{number}.png"), content)


@pytest.fixture(scope="module")
def class_store(tmp_path_factory):
    raw = tmp_path_factory.mktemp("folders")
    for number in range(16):
        split = ("train", "train", "val", "test")[number // 2 % 4]
        write_shadow(raw / split / ("NORMAL" if number % 2 else "PNEUMONIA"), number)
    convert("folders", raw, raw / "data", image_size=SIZE, n_folds=2, n_workers=0)
    return raw / "data"


@pytest.fixture(scope="module")
def mask_store(tmp_path_factory):
    raw = tmp_path_factory.mktemp("masks")
    for number in range(8):
        write_shadow(raw / "films", number, raw / "drawn")
    flags = {"images": "films", "masks": "drawn", "image_size": SIZE, "n_folds": 2, "n_workers": 0}
    convert("lungs", raw, raw / "data", category="Shadow", **flags)
    return raw / "data"


def flags_of(task, data, run, *flags):
    places = ("--data-path", str(data), "--save-path", str(run))
    return read_training_flags(["--task", task, *FLAGS, *places, *map(str, flags)])


@pytest.fixture(scope="module")
def classifier_run(class_store, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "pretraining"
    train(*flags_of("classification", class_store, run, "--network", "resnet18", "--weights", "none"))
    return run


def trunk_of(run):
    """The classifier's tensors by the names that timm, torchvision and segmentation-models-pytorch share."""
    description, state = load_deployed(run)
    assert description["labels"] == ["PNEUMONIA"]
    return {name.removeprefix("network."): value for name, value in state.items()}


def same(encoder, trunk):
    """How many tensors an encoder has; each must be the trunk's."""
    for name, value in encoder.items():
        assert torch.equal(value, trunk[name]), name
    return len(encoder)


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda flags: flags[1])
def test_a_segmenter_starts_from_the_classifiers_trunk(classifier_run, mask_store, tmp_path, decoder):
    encoder = ("--encoder", "resnet18", "--encoder-from", classifier_run)
    task = build_task(*flags_of("segmentation", mask_store, tmp_path, *encoder, *decoder), open_store(mask_store))
    trunk = trunk_of(classifier_run)
    at_random = {name: value.clone() for name, value in task.model.encoder.state_dict().items()}
    assert not torch.equal(at_random["conv1.weight"], trunk["conv1.weight"])
    said = task.load_initial_weights()
    assert said == f"encoder resnet18 starts from {classifier_run} (a classification run with resnet18)"
    n = same(task.model.encoder.state_dict(), trunk)
    # All of it but the last layer, and at depth 4 its last stage.
    assert n == len([name for name in trunk if "fc." not in name and ("layer4" not in name or "unet" in decoder)])
    # What the encoder computes is what the classifier saw.
    from xray.models.classification.classifier import build_classifier

    classifier = build_classifier("resnet18")
    classifier.load_state_dict(load_deployed(classifier_run)[1])
    images = torch.randint(0, 256, (1, 1, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    deepest = []
    layer = "layer4" if "unet" in decoder else "layer3"
    classifier.network.get_submodule(layer).register_forward_hook(lambda *hooked: deepest.append(hooked[2]))
    with torch.no_grad():
        classifier.eval()(images)
        model = task.model.eval()
        torch.testing.assert_close(model.encoder(model.normalise(images))[-1], deepest[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda flags: flags[1])
def test_the_commands_one_after_the_other(classifier_run, mask_store, tmp_path, decoder, capsys):
    flags = ("--encoder", "resnet18", "--encoder-from", classifier_run, *decoder)
    train(*flags_of("segmentation", mask_store, tmp_path / "frozen", *flags, "--freeze-encoder"))
    train(*flags_of("segmentation", mask_store, tmp_path / "trained", *flags))
    assert capsys.readouterr().out.count(f"encoder resnet18 starts from {classifier_run}") == 2
    trunk = trunk_of(classifier_run)
    frozen, trained = (
        {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
        for _, state in (load_deployed(tmp_path / run) for run in ("frozen", "trained"))
    )
    # To the end of a training, if frozen; otherwise it learns.
    assert same(frozen, trunk) == len(trained)
    assert not torch.equal(trained["conv1.weight"], trunk["conv1.weight"])


@pytest.mark.parametrize("encoder", ["resnet34", "resnet50", "tu-resnet10t", "densenet121"])
@pytest.mark.parametrize("decoder", DECODERS, ids=lambda flags: flags[1])
def test_another_encoder_is_refused_in_one_line(classifier_run, mask_store, tmp_path, encoder, decoder):
    if encoder.startswith("tu-") and "--deep-supervision" in decoder:
        decoder = decoder[:2]
    flags = ("--encoder", encoder, "--encoder-from", classifier_run, *decoder)
    with pytest.raises(InputError) as error:
        train(*flags_of("segmentation", mask_store, tmp_path / "run", *flags))
    assert str(error.value).startswith(
        f"{classifier_run} (a classification run with resnet18) does not hold the weights of the encoder {encoder}; "
        "give --encoder resnet18 or tu-resnet18, the backbone of that run: "
    )
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
