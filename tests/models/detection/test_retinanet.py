"""RetinaNet computes what torchvision's own class computes, with the same weights, in losses, gradients and boxes."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead, _default_anchorgen
from torchvision.ops import FrozenBatchNorm2d

from xray.errors import InputError
from xray.models.detection.anchor_fit import RETINANET, best_overlaps, fit_anchors, recall_of, standard_anchors
from xray.models.detection.detector import RetinaNet, build_detector, load_initial_weights
from xray.models.detection.matching import match, overlaps, pad_truth
from xray.models.pretrained import MEAN, STD

SIZE, CHANNELS, CATEGORIES = 128, 32, 3


def batch(counts=(2, 0, 1), size=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (len(counts), 1, size, size), generator=generator, dtype=torch.uint8)
    targets = []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * size * 0.6
        sides = size * (0.05 + 0.35 * torch.rand(count, 2, generator=generator))
        labels = torch.randint(1, CATEGORIES + 1, (count,), generator=generator)
        targets.append({"boxes": torch.cat([corner, corner + sides], 1), "labels": labels})
    return images, targets


def pair(head="v1", backbone="resnet18", **options):
    """A detector and torchvision's, with the same weights, and scores that differ from box to box."""
    torch.manual_seed(0)
    # torchvision keeps its boxes in pixels: anchors of its sizes / 4, as on a canvas of 256.
    options = {"fpn_channels": CHANNELS, "score_threshold": 0.02, "max_detections": 60, "proposals": 300, **options}
    detector = build_detector(CATEGORIES, SIZE, backbone, head, family=RETINANET, **options)
    for module in detector.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.uniform_(0.5, 1.0).mul_(2 if backbone == "mobilenet_v2" else 1)
            module.bias.uniform_(-0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    images, _ = batch()
    with torch.no_grad():
        maps = detector.eval().backbone((images - detector.mean) / detector.std)
        for value, layer in zip(maps.values(), detector.backbone.fpn.layer_blocks, strict=False):
            layer[0].weight /= value.std()
        for layer in detector.head.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.08)
        classes = detector.head.classification_head.cls_logits
        # torchvision's own has a first class, the background, which it would report where it is likely.
        classes.bias.view(-1, CATEGORIES + 1)[:, 0] = -60
        classes.bias.view(-1, CATEGORIES + 1)[:, 1:] = -2
    anchors = standard_anchors(SIZE, options.get("anchor_scale", 1.0), RETINANET)
    generator = AnchorGenerator(anchors.sides, (anchors.ratios,) * 5)
    heads = RetinaNetHead(CHANNELS, 9, CATEGORIES + 1, norm_layer=partial(nn.GroupNorm, 32) if head == "v2" else None)
    if head == "v2":
        heads.regression_head._loss_type = "giou"
    own = build_detector(CATEGORIES, SIZE, backbone, head, family=RETINANET, fpn_channels=CHANNELS).backbone
    reference = TorchvisionRetinaNet(
        own,
        CATEGORIES + 1,
        min_size=SIZE,
        max_size=SIZE,
        image_mean=MEAN,
        image_std=STD,
        anchor_generator=generator,
        head=heads,
        score_thresh=options["score_threshold"],
        detections_per_img=options["max_detections"],
        topk_candidates=options["proposals"] // 2,
    )
    reference.load_state_dict(detector.state_dict(), strict=True)
    return detector, reference


def as_floats(images):
    return list((images / 255).repeat(1, 3, 1, 1))


@pytest.mark.parametrize(("backbone", "head"), [("resnet18", "v1"), ("mobilenet_v2", "v1"), ("resnet18", "v2")])
def test_detections(backbone, head):
    detector, reference = pair(head, backbone)
    images, _ = batch()
    detector.eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected, found = reference.eval()(as_floats(images)), detector(images)
    for one, other in zip(expected, found, strict=True):
        assert len(one["boxes"]) == len(other["boxes"]) > 20
        assert one["scores"].max() - one["scores"].min() > 0.01
        torch.testing.assert_close(other["scores"], one["scores"], atol=1e-5, rtol=0)
        # Where scores are this close to each other, rounding decides which comes first.
        one, other = (
            {key: value[each["boxes"].sum(1).argsort()] for key, value in each.items()} for each in (one, other)
        )
        torch.testing.assert_close(other["boxes"], one["boxes"], atol=1e-3, rtol=0)
        assert torch.equal(other["labels"], one["labels"])


@pytest.mark.parametrize("counts", [(2, 0, 1), (0, 0)])
@pytest.mark.parametrize(("backbone", "head"), [("resnet18", "v1"), ("mobilenet_v2", "v1"), ("resnet18", "v2")])
def test_losses_and_gradients(backbone, head, counts):
    detector, reference = pair(head, backbone)
    images, targets = batch(counts)
    expected = reference.train()(as_floats(images), targets)
    found = detector.train()(images, targets)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)
    assert (found["bbox_regression"] > 0) == any(counts)
    for losses in (expected, found):
        sum(losses.values()).backward()
    own = dict(detector.named_parameters())
    for name, value in reference.named_parameters():
        difference = (own[name].grad - value.grad).norm() / value.grad.norm().clamp(min=1e-12)
        # Far down the trunk, a ReLU or a maximum that rounding decides in another way shows.
        assert difference < (2e-2 if name.startswith("backbone.body") else 5e-4), name


def test_a_finding_of_a_share_of_the_readers():
    """By hand, of one anchor that belongs to it: counted by the share, or wanted with that probability."""
    detector, _ = pair()
    images, targets = batch((1,))
    maps = list(detector.eval().backbone((images - detector.mean) / detector.std).values())
    layout = detector.layout(maps, SIZE)
    truth = pad_truth([{**targets[0], "shares": torch.tensor([0.25])}])
    _, labels = match(overlaps(truth, layout.anchors), truth, 0.4, 0.5, every_finding=True)
    belongs = labels[0] > 0
    logits, offsets = torch.zeros(1, len(layout.anchors), CATEGORIES + 1), torch.zeros(1, len(layout.anchors), 4)
    with torch.no_grad():
        whole = detector.losses(logits, offsets, layout, truth._replace(shares=None))
        weighed = detector.losses(logits, offsets, layout, truth)
        detector.soft_targets = True
        soft = detector.losses(logits, offsets, layout, truth)
    # At a logit of 0, cross-entropy is ln 2, 1 − p_t is a half, and alpha 0.25 for what is wanted, 0.75 for the rest.
    n, once = int(belongs.sum()), np.log(2) / 4
    of_background = (labels[0] == 0).sum() * (CATEGORIES + 1) * 0.75 * once
    of_anchor = (0.25 + CATEGORIES * 0.75) * once
    assert float(whole["classification"]) == pytest.approx(float(of_background + n * of_anchor) / n, rel=1e-5)
    assert float(weighed["classification"]) == pytest.approx(float(of_background + 0.25 * n * of_anchor) / n, rel=1e-5)
    of_soft = (0.25 * 0.25 + 0.75 * 0.75 + CATEGORIES * 0.75) * once
    assert float(soft["classification"]) == pytest.approx(float(of_background + n * of_soft) / n, rel=1e-5)
    for losses in (weighed, soft):
        torch.testing.assert_close(losses["bbox_regression"], 0.25 * whole["bbox_regression"])


@pytest.mark.parametrize(("head", "build"), [("v1", retinanet_resnet50_fpn), ("v2", retinanet_resnet50_fpn_v2)])
def test_torchvisions_functions_make_the_same_tensors_and_anchors(head, build):
    with torch.device("meta"):
        reference = build(weights=None, weights_backbone=None, num_classes=5)
        detector = build_detector(4, 1024, "resnet50", head, norm="batch", family=RETINANET)
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (detector, reference)]
    assert shapes[0] == shapes[1]
    assert detector.anchor_generator.sizes == _default_anchorgen().sizes


def test_a_seed_gives_torchvisions_weights():
    torch.manual_seed(4)
    reference = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5)
    torch.manual_seed(4)
    detector = build_detector(4, 1024, "resnet50", norm="batch", family=RETINANET)
    state = reference.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in detector.state_dict().items())


def test_training_lowers_the_loss_in_bfloat16_too():
    torch.manual_seed(0)
    detector = build_detector(CATEGORIES, SIZE, "mobilenet_v2", norm="batch", family=RETINANET, fpn_channels=CHANNELS)
    images, targets = batch()
    optimizer = torch.optim.SGD(detector.train().parameters(), lr=0.01, momentum=0.5)
    seen = []
    for _ in range(4):
        with torch.autocast("cpu", torch.bfloat16):
            loss = sum(detector(images, targets).values())
        seen.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        assert [name for name, value in detector.named_parameters() if value.grad is None] == []
        optimizer.step()
    assert min(seen[1:]) < seen[0]


def test_group_norms_need_whole_groups():
    with pytest.raises(InputError, match="--fpn-channels 48 is no multiple of 32, which --head v2 needs"):
        build_detector(1, SIZE, "mobilenet_v2", "v2", family=RETINANET, fpn_channels=48)


def test_one_radiograph_of_a_single_cell_is_no_error():
    # Of canvases up to 128 pixels the coarsest level has one cell, and of 32 channels each group one value.
    torch.manual_seed(0)
    detector = build_detector(2, 64, "mobilenet_v2", family="retinanet", head="v2", fpn_channels=32).eval()
    images = torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        alone, together = detector(images[:1])[0], detector(images)[0]
    # Boxes of the same score to rounding may change places.
    assert len(alone["boxes"]) == len(together["boxes"]) > 0
    nearest = torch.cdist(alone["boxes"].double(), together["boxes"].double(), p=torch.inf).min(1).values
    assert nearest.max() < 1e-3


def test_it_starts_from_one_of_other_categories_and_not_from_another_family(tmp_path):
    options = {"backbone": "mobilenet_v2", "fpn_channels": 16}
    donor = build_detector(5, SIZE, family=RETINANET, **options)
    detector = build_detector(2, SIZE, family=RETINANET, **options)
    torch.save(donor.state_dict(), tmp_path / "retina.pth")
    said = load_initial_weights(detector, str(tmp_path / "retina.pth"), "mobilenet_v2", "v1")
    assert said == "detector starts from retina.pth, its last layer from random"
    ours, theirs = detector.head.regression_head.bbox_reg.weight, donor.head.regression_head.bbox_reg.weight
    assert torch.equal(ours, theirs)
    torch.save(build_detector(2, SIZE, **options).state_dict(), tmp_path / "faster.pth")
    with pytest.raises(InputError, match=r"does not hold the weights of this detector .* check --backbone, --family"):
        load_initial_weights(detector, str(tmp_path / "faster.pth"), "mobilenet_v2", "v1")


def test_anchors_are_fitted_to_its_strides():
    random = np.random.default_rng(0)
    middle, half = random.uniform(60, 196, (200, 2)), random.uniform(30, 50, (200, 2)) * [0.3, 1]
    boxes = np.concatenate([middle - half, middle + half], 1)
    fit = fit_anchors(boxes, 256, RETINANET)
    assert fit.recall[0.5] >= 0.95
    assert recall_of(fit.anchors, boxes, RETINANET) == fit.recall
    detector = build_detector(
        1, 256, "mobilenet_v2", family=RETINANET, fpn_channels=16,
        anchor_sides=fit.anchors.sides, anchor_ratios=fit.anchors.ratios,
    )  # fmt: skip
    assert isinstance(detector, RetinaNet)
    maps = list(detector.backbone(torch.zeros(1, 3, 256, 256)).values())
    layout = detector.layout(maps, 256)
    assert layout.stride.tolist() == [8, 16, 32, 64, 128]
    # The fit's overlaps are those of the anchors that are made, but for their whole corners.
    box = torch.from_numpy(boxes[:20]).float()
    common = torch.minimum(box[:, None, 2:], layout.anchors[:, 2:]) - torch.maximum(
        box[:, None, :2], layout.anchors[:, :2]
    )
    common = common.clamp(min=0).prod(-1)
    areas = [(one[:, 2:] - one[:, :2]).prod(-1) for one in (box, layout.anchors)]
    overlap = (common / (areas[0][:, None] + areas[1] - common)).amax(1)
    assert np.abs(overlap.numpy() - best_overlaps(fit.anchors, boxes[:20], (8, 16, 32, 64, 128))).max() < 0.06
