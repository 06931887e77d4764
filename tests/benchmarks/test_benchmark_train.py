"""The training benchmark: agreement by hand, what a round counts, and that a detector that differs is refused."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import peers, train
from benchmarks.peers import PeakMemory, compare, spread_weights, table_of, torchvision_detector
from benchmarks.train import main
from xray.errors import FlagError, InputError
from xray.structures.boxes import BoxTable

CPU = torch.device("cpu")


def small(store, **flags):
    values = {"n_images": 4, "repeats": 1, "n_steps": 1, "backbone": "resnet18", "roi_samples": 8, "proposals": 40}
    return train.Config(**{**values, "n_workers": 0, "device": "cpu", "data_path": store, **flags})


def test_agreement_by_hand():
    first = BoxTable.of(
        [0, 0, 0, 1], [1, 1, 2, 1], [[0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 9, 9], [0, 0, 4, 4]], [0.9, 0.5, 0.4, 0.1]
    )
    second = BoxTable.of([0, 0, 0], [1, 1, 2], [[0, 0, 10, 9], [50, 50, 60, 60], [0, 0, 9, 9]], [0.8, 0.5, 0.4])
    # The box at 0.1 has no partner: of four and three, six are found by both.
    found = compare(first, second, floor=0.05, slack=0.01)
    assert found.boxes == 7
    assert found.matched == pytest.approx(6 / 7)
    assert found.pixels == 1
    assert found.score == pytest.approx(0.1)
    assert found.iou == pytest.approx(0.9)
    assert compare(first, second, floor=0.2, slack=0.01).matched == 1
    # What lies just above the floor on one side and just below it on the other has a partner, too.
    low = BoxTable.of([0], [1], [[0, 0, 10, 10]], [0.0495])
    high = BoxTable.of([0], [1], [[0, 0, 10, 10]], [0.0505])
    assert compare(low, high, floor=0.05, slack=0.001).matched == 1
    assert compare(low, high, floor=0.05, slack=0.0001).matched == 0
    assert compare(BoxTable.empty(), BoxTable.empty(), 0.05, 0.01).matched == 1


def test_spread_weights_find_some_and_not_all():
    torch.manual_seed(0)
    options = {"rpn_post_nms_top_n_test": 100, "box_score_thresh": 0.05}
    detector = torchvision_detector(14, 128, "resnet18", **options)
    images = [torch.rand(3, 128, 128) for _ in range(2)]
    spread_weights(detector, images)
    with torch.no_grad():
        found = table_of(detector(images))
    # Before, each of 14 classes has a score of about 1/15 at each proposal.
    assert 1 <= (found.scores > 0.05).sum() < 100
    assert found.scores.std() > 0.03


def test_losses_must_agree_beyond_chance():
    def losses(mean, spread, name="loss"):
        return lambda: {name: torch.normal(torch.tensor(mean), spread)}

    close = train.compare_losses(losses(1.0, 0.01), losses(1.02, 0.01))
    assert 0 < close["loss"]["difference"] < 0.05
    assert 0.001 < close["loss"]["standard_error"] < 0.01
    # Within three standard errors, though 20 % apart.
    train.compare_losses(losses(1.0, 0.5), losses(1.2, 0.5))
    with pytest.raises(InputError, match=r"loss is .* for ours and 1\."):
        train.compare_losses(losses(1.0, 0.01), losses(1.2, 0.01))
    with pytest.raises(InputError, match="loss of one of them alone"):
        train.compare_losses(losses(1.0, 0.01), losses(1.0, 0.01, "loss_b"))
    with pytest.raises(InputError, match="loss is nan"):
        train.compare_losses(losses(float("nan"), 0.01), losses(1.0, 0.01))


@pytest.mark.slow
def test_detectors_that_differ_are_refused(vinbig_store, tmp_path):
    steps = train.Training(small(vinbig_store, n_images=2, batch_size=2), ["torchvision"], CPU, tmp_path)
    agreement = steps.check()
    assert agreement["detections"]["boxes"] > 0
    assert set(agreement["losses"]) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    predictor = steps.theirs.roi_heads.box_predictor
    with torch.no_grad():
        predictor.bbox_pred.bias += 0.1
    with pytest.raises(InputError, match="loss_box_reg is"):
        steps.check()
    with torch.no_grad():
        predictor.bbox_pred.bias -= 0.1
    # What no loss shows.
    steps.theirs.roi_heads.score_thresh = 0.2
    with pytest.raises(InputError, match=r"detections .* were found by both"):
        steps.check()


def test_rounds_count_their_steps_alone():
    turns = []
    rounds = train.Rounds(1, 2, CPU, lambda: turns.append(len(rounds.done)))
    model = nn.Linear(2, 2)
    for index in range(6):
        batch = {"images": torch.zeros(5, 1)}
        rounds.on_train_batch_start(None, model, batch, index)
        rounds.on_train_batch_end(None, model, None, batch, index)
    assert turns == [1, 2]
    assert [run.n for run in rounds.done] == [10, 10]
    assert all(0 <= run.result["waited"] <= run.seconds for run in rounds.done)


def test_peak_memory_sees_what_is_freed_again():
    memory = PeakMemory(CPU, nn.Linear(1, 1))
    if memory.peak() is None:
        pytest.skip("this system does not tell peak memory")
    block = np.ones(200 * 2**20, dtype=np.uint8)
    del block
    assert 190 * 2**20 < memory.peak() < 400 * 2**20
    assert PeakMemory(CPU, nn.Linear(1, 1)).peak() < 100 * 2**20


@pytest.mark.slow
def test_writes_its_numbers(vinbig_store, tmp_path, capsys):
    flags = {"n_images": 4, "peer": ("torchvision", "torchvision-amp"), "save_path": tmp_path / "train.json"}
    main(small(vinbig_store, **flags))
    report = json.loads((tmp_path / "train.json").read_text())
    [measured] = report["results"]
    assert set(measured["contenders"]) == {"ours", "torchvision", "torchvision-amp"}
    assert {side["n"] for side in measured["contenders"].values()} == {2}
    assert [pair["peer"] for pair in measured["ratios"]] == ["torchvision", "torchvision-amp"]
    for pair in measured["ratios"]:
        [theirs], [ours] = (measured["contenders"][name]["seconds"] for name in (pair["peer"], "ours"))
        assert pair["ratio"]["median"] == pytest.approx(theirs / ours)
    assert 0 <= report["with_loader"]["data_wait_share"] < 1
    assert "same losses" in capsys.readouterr().out


def test_the_peers_step_is_sgd():
    torch.manual_seed(0)
    detector = torchvision_detector(2, 64, "resnet18", rpn_post_nms_top_n_train=20, box_batch_size_per_image=8)
    images, targets = (
        [torch.rand(3, 64, 64)],
        [{"boxes": torch.tensor([[4.0, 4, 40, 40]]), "labels": torch.ones(1).long()}],
    )
    spread_weights(detector, images)
    loop = peers.TorchvisionLoop(detector, CPU, amp=False, lr=1e-3)
    torch.manual_seed(1)
    sum(detector(images, targets).values()).backward()
    moved = {
        name: value.detach() - 1e-3 * (value.grad + 1e-4 * value.detach())
        for name, value in detector.named_parameters()
        if value.grad is not None
    }
    # Three of the five stages of the trunk train, as in torchvision's references.
    assert "backbone.body.layer2.0.conv1.weight" in moved
    assert "backbone.body.layer1.0.conv1.weight" not in moved
    start = {name: value.detach().clone() for name, value in detector.named_parameters()}
    steps = [(moved[name] - start[name]).abs().max() for name in moved]
    assert np.median(steps) > 1e-5
    detector.zero_grad()
    torch.manual_seed(1)
    loop.step(images, targets)
    for name, value in detector.named_parameters():
        if name in moved:
            torch.testing.assert_close(value.detach(), moved[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({"n_steps": 0}, FlagError, "--n-steps is 0"),
        ({"batch_size": 5}, FlagError, "--n-images is 4: give at least --batch-size, 5"),
        ({"proposals": 1}, FlagError, "--proposals is 1"),
        ({"device": "tpu"}, InputError, "--device tpu"),
    ],
)
def test_refuses_unusable_flags(flags, error, message, tmp_path):
    with pytest.raises(error, match=message):
        main(small(tmp_path, **flags))
