"""Two processes with gloo that compute a batch together and compare with one that has all of it: torchrun sharing.py.

Ends with an AssertionError where they differ.
"""

import copy
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from xray.models.batch_shares import Share, begin_step, end_step, mean_of_processes, normaliser
from xray.models.classification.losses import classification_loss
from xray.models.detection.matching import sample
from xray.models.segmentation.losses import LOSSES, segmentation_loss
from xray.training.synced_norms import synchronise_norms


def share_of(total):
    rank, world = dist.get_rank(), dist.get_world_size()
    return Share(len(range(rank, total, world)), total, rank, world)


def mine_of(batch):
    """A process's radiographs, or one that does not count."""
    mine = batch[dist.get_rank() :: dist.get_world_size()]
    return mine if len(mine) else batch[:1]


def average_gradients(parameters):
    """As DistributedDataParallel leaves them."""
    for parameter in parameters:
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()


def check_norms(total):
    """Values, gradients and running statistics of batch norms, timm's among them, in float64."""
    torch.manual_seed(0)
    alone = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), BatchNormAct2d(3), nn.Flatten(),
        nn.Linear(48, 2), nn.BatchNorm1d(2),
    ).double()  # fmt: skip
    for parameter in alone.parameters():
        nn.init.normal_(parameter)
    together = copy.deepcopy(alone)
    assert synchronise_norms(together) == 3
    assert synchronise_norms(together) == 0
    assert list(together.state_dict()) == list(alone.state_dict())
    loss = classification_loss("focal")
    for _ in range(3):
        images, truth = torch.randn(total, 1, 8, 8).double(), torch.randint(2, (total, 2))
        alone.zero_grad()
        together.zero_grad()
        expected = loss(alone(images), truth)
        expected.backward()
        begin_step(share_of(total))
        found = loss(together(mine_of(images)), mine_of(truth))
        found.backward()
        found = mean_of_processes(found.detach())
        end_step()
        average_gradients(together.parameters())
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
        for one, other in zip(alone.parameters(), together.parameters(), strict=True):
            # The loss is computed in float32.
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], value, rtol=1e-9, atol=1e-12)
    alone.eval()
    together.eval()
    torch.testing.assert_close(together(images), alone(images), rtol=1e-9, atol=1e-12)


def check_loss(loss, shape, total, n_true, known=None):
    """The mean over the processes is the loss of all, and so are the gradients. known: (total, K) bool, or None."""
    torch.manual_seed(1)
    logits, truth = torch.randn(total, *shape), torch.zeros(total, *shape)
    truth[:n_true, ..., : shape[-1] // 2] = 1
    weight = torch.ones(shape, requires_grad=True)
    expected = loss(logits * weight, truth, known=known)
    (gradient,) = torch.autograd.grad(expected, weight)
    begin_step(share_of(total))
    found = loss(mine_of(logits) * weight, mine_of(truth), known=None if known is None else mine_of(known))
    found.backward()
    found = mean_of_processes(found.detach())
    end_step()
    average_gradients([weight])
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6)


def check_samples(total):
    """What is drawn for a radiograph, however many boxes the others of its process have."""
    torch.manual_seed(2)
    labels = torch.randint(-1, 3, (total, 200))
    torch.manual_seed(3)
    chosen, real = sample(labels, 16, 0.5)
    begin_step(share_of(total))
    torch.manual_seed(3)
    longer = torch.cat([labels, torch.full((total, 7 * dist.get_rank()), -1)], 1)
    mine, mine_real = sample(mine_of(longer), 16, 0.5)
    if share_of(total).counts:
        assert torch.equal(mine, mine_of(chosen))
        assert torch.equal(mine_real, mine_of(real))
    count = normaliser(mine_real.sum())
    parts = mean_of_processes(mine_real.sum() / count)
    end_step()
    torch.testing.assert_close(parts, torch.tensor(1.0))


if __name__ == "__main__":
    dist.init_process_group("gloo")
    for n in (4, 3, 1):  # both have as many, one has less, one has none
        check_samples(n)
        # Something is known in both processes; in the first alone; nothing anywhere.
        unknown = [torch.zeros(n, 2, dtype=torch.bool) for _ in range(3)]
        unknown[0][:2, 0] = unknown[1][0, 1] = True
        if n > 1:
            check_norms(n)
        for name in LOSSES:
            options = {"beta": 0.1} if name in ("weighted_bce", "combined") else {}
            for positives in (0, 2):
                check_loss(segmentation_loss(name, **options), (2, 6, 6), n, positives)
            for known in unknown[1:]:
                check_loss(segmentation_loss(name, **options), (2, 6, 6), n, 2, known)
        for name, weights in (("bce", [2.0, 0.5]), ("bce", None), ("focal", None)):
            for known in (None, *unknown):
                check_loss(classification_loss(name, weights), (2,), n, 1, known)
    dist.destroy_process_group()
    print("equal")
