"""What training chooses from its dataset: a value and a reason for each flag that is "auto"."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from xray.datasets.box_sizes import about_small_boxes
from xray.datasets.store import Store
from xray.flags import AUTO
from xray.models.detection.anchor_fit import (
    FASTER_RCNN,
    RETINANET,
    AnchorSides,
    by_level,
    fit_anchors,
    recall_of,
    standard_anchors,
)
from xray.models.detection.detector import head_in
from xray.models.detection.retinanet import GROUPS
from xray.structures.sides import chosen
from xray.training.config import DetectionConfig, TrainingConfig
from xray.training.readers import Readings
from xray.training.sampling import may_hide, repeat_factors

PUBLISHED_EPOCHS = 100
"""Epochs of the recipe configs/vinbig-r50.yaml, whose learning rate falls every 30 epochs."""
STEPS = 90_000
"""Optimizer steps of that recipe: 15,000 radiographs, 0.25 of the normal ones, batches of 8, 100 epochs."""
FEWEST_EPOCHS = 12
LONG = 60
"""Epochs from which on the published schedule has room for its steps."""
BATCH = 8
FEW_STEPS = 2000
"""A training of fewer steps gets smaller batches."""
SMALLEST_BATCH = 2
"""A batch norm needs two radiographs for statistics; below, norms are frozen."""
LARGE_BATCH = 16
"""From this batch size on, their statistics are good enough for a ResNet, too."""
FROZEN_LR, BATCH_NORM_LR = 0.005, 0.02
"""Learning rates of SGD for a batch of 8."""
DENSE_BATCH_NORM_LR = 0.005
"""The learning rate of a RetinaNet with norms that learn, whose heads sum over all anchors: at 0.02 the boxes of head
v2 leave what they should overlap within the warm-up, and never come back."""
FROZEN_ADAM_LR, BATCH_NORM_ADAM_LR = 0.0001, 0.0003
"""Learning rates of Adam and AdamW; the first is that of torchvision's retinanet_resnet50_fpn_v2
(github.com/pytorch/vision/pull/5756)."""
NO_SIDES = "no two categories are the left and the right of one thing"
EMA_SHARE = WARMUP_SHARE = 0.05
"""Share of all steps that the moving average of the weights spans, and the warm-up takes."""


@dataclasses.dataclass
class Plan:
    """A config whose "auto" is replaced one by one.

    reasons: flag → why it has its value, in words, for those that were "auto", in the order of the choices.
    notes: sentences about the boxes on this canvas.
    """

    config: Any
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def choose(self, name: str, value: Any, reason: str = "") -> None:
        """Gives a flag that is "auto" its value. reason: in words; empty where the flag has no effect."""
        if getattr(self.config, name) == AUTO:
            self.config = dataclasses.replace(self.config, **{name: value})
            self.reasons |= {name: reason} if reason else {}

    def lines(self) -> list[str]:
        """What train prints: a line for each choice, then the notes."""
        values = {name: getattr(self.config, name) for name in self.reasons}
        texts = {n: " ".join(f"{x:g}" for x in v) if isinstance(v, tuple) else str(v) for n, v in values.items()}
        choices = [f"--{name.replace('_', '-')} {texts[name]}: {reason}" for name, reason in self.reasons.items()]
        return [*choices, *self.notes]


def plan(config: TrainingConfig, n_rows: int) -> Plan:
    """Replaces what is "auto" in the flags of any task by values for `n_rows` training radiographs."""
    result = Plan(config)
    _choose_batch(result, n_rows)
    return result


def plan_detection(config: DetectionConfig, store: Store, used: Readings, added: float = 0.0) -> Plan:
    """Replaces what is "auto" in a detector's flags by values for this dataset.

    used: the radiographs and boxes that train; no other is looked at. added: how many radiographs an epoch shows beside
    them. Raises FlagError where a flag that is given does not go with what is chosen.
    """
    rows = used.rows
    boxes, images, labels = _boxes_on_canvas(store, rows, used.boxes)
    labels_of = np.split(labels, np.searchsorted(images, np.arange(1, len(rows))))
    result = Plan(config)
    hidden = may_hide(store, rows, used.boxes)
    shown = float(repeat_factors(labels_of, config.repeat_threshold, config.normals, hidden).sum()) + added
    _choose_length(result, shown)
    _choose_network(result)
    _choose_samples(result, np.array([len(one) for one in labels_of]))
    pairs = [
        f"{store.categories[one]} and {store.categories[other]}"
        for one, other in chosen(store.categories, config.swap).pairs
    ]
    result.choose("flip", 0.5, f"{', '.join(pairs)} swap their names" if pairs else NO_SIDES)
    _choose_anchors(result, boxes, store.canvas_size)
    longest = max(max(store.records[row]["width"], store.records[row]["height"]) for row in rows.tolist())
    result.notes += _about_hidden(store, rows, hidden, config.family)
    result.notes += about_small_boxes((boxes[:, 2:] - boxes[:, :2]).min(axis=1), longest, store.canvas_size)
    result.config.check()
    return result


def _about_hidden(store: Store, rows: np.ndarray, hidden: np.ndarray, family: str) -> list[str]:
    """What is said of categories that may lie in radiographs without a box."""
    numbers = dict(zip(store.categories.values(), store.unlocated[rows].sum(axis=0).tolist(), strict=True))
    if not any(numbers.values()):
        return []
    named = ", ".join(f"{name} in {number}" for name, number in numbers.items() if number)
    notes = [f"findings that may be there without a box: {named} radiographs, whose background says nothing of them"]
    if family == FASTER_RCNN and hidden.all():
        notes.append(
            "none of the training radiographs is known to have all its boxes, so that proposals learn no background: "
            "--family retinanet does without it"
        )
    return notes


def _boxes_on_canvas(store: Store, rows: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those of the boxes `drawn` that lie on the radiographs `rows`.

    Returns them (N, 4) in canvas pixels, the place in `rows` of each, and its category's id.
    """
    place = np.full(len(store.records), -1)
    place[rows] = np.arange(len(rows))
    inside = drawn[place[store.boxes.images[drawn]] >= 0]
    inside = inside[np.argsort(store.boxes.images[inside], kind="stable")]
    images = store.boxes.images[inside]
    boxes = np.zeros((len(inside), 4))
    for part in np.split(np.arange(len(inside)), np.flatnonzero(np.diff(images)) + 1) if len(inside) else ():
        boxes[part] = store.canvas(int(images[part[0]])).to_canvas(store.boxes.boxes[inside[part]])
    return boxes, place[images], store.boxes.labels[inside]


def _choose_batch(result: Plan, shown: float) -> None:
    """Smaller batches where there would be few steps. shown: radiographs of an epoch."""
    processes = result.config.devices * result.config.num_nodes
    epochs = PUBLISHED_EPOCHS if result.config.n_epochs == AUTO else result.config.n_epochs
    batch = BATCH
    while batch > SMALLEST_BATCH and shown * epochs < FEW_STEPS * batch * processes:
        batch //= 2
    result.choose(
        "batch_size",
        batch,
        f"{shown:,.0f} radiographs an epoch, for at most {epochs} {'epoch' if epochs == 1 else 'epochs'}",
    )


def _choose_length(result: Plan, shown: float) -> None:
    """How long a detector trains, and how the learning rate goes meanwhile. shown: radiographs of an epoch."""
    _choose_batch(result, shown)
    processes = result.config.devices * result.config.num_nodes
    steps = max(1.0, shown / (result.config.batch_size * processes * result.config.accumulate))
    epochs = int(np.clip(round(STEPS / steps), FEWEST_EPOCHS, PUBLISHED_EPOCHS))
    result.choose("n_epochs", epochs, f"of {steps:,.0f} steps each")
    epochs = result.config.n_epochs
    is_long = epochs >= LONG
    schedule = "step" if is_long else "cosine"
    result.choose(
        "schedule", schedule, "that of the published recipe for VinBigData" if is_long else f"fewer than {LONG} epochs"
    )
    has_steps = result.config.schedule in ("step", "plateau")
    result.choose("step_size", max(1, round(0.3 * epochs)), "three tenths of the epochs" if has_steps else "")
    decay = 1 - 1 / max(2.0, EMA_SHARE * epochs * steps)
    reason = "the moving average of the weights spans a twentieth of the steps" if result.config.ema else ""
    result.choose("ema_decay", round(decay, 5), reason)
    # No warm-up is longer than an epoch, whatever its flag says.
    warmup = min(500, math.ceil(WARMUP_SHARE * epochs * steps), math.ceil(steps))
    result.choose("warmup_steps", warmup, "a twentieth of the steps, at most an epoch and 500")


def _choose_network(result: Plan) -> None:
    """Which head there is, which stages train, whether norms learn, by which optimizer and how fast."""
    _choose_head(result)
    config, batch = result.config, result.config.batch_size
    if config.weights == "none":
        result.choose("norm", "batch", "there are no pretrained weights")
    elif batch < SMALLEST_BATCH or (config.backbone.startswith("resnet") and batch < LARGE_BATCH):
        # As torchvision's Faster R-CNN, and the published one on VinBigData.
        result.choose("norm", "frozen", f"{batch} radiographs are too few for statistics of their own")
    else:
        result.choose("norm", "batch", f"{batch} radiographs are enough for statistics of their own")
    learns = result.config.norm == "batch"
    if config.weights == "none":
        result.choose("trainable_layers", 5, "there are no pretrained weights")
    elif learns:
        result.choose("trainable_layers", 5, "the norms train, so all stages do")
    else:
        result.choose("trainable_layers", 3, "the weights are trained already, and the norms frozen")
    whole = batch * config.devices * config.num_nodes * config.accumulate
    _choose_optimizer(result)
    optimizer = result.config.optimizer
    # With norms that learn, small batches do well with the rate of larger ones; with Adam, whose steps do not grow with
    # the gradients, always.
    by_root = max(1.0, whole / BATCH) ** 0.5
    if optimizer != "sgd":
        rate = (BATCH_NORM_ADAM_LR if learns else FROZEN_ADAM_LR) * by_root
    elif learns:
        rate = (DENSE_BATCH_NORM_LR if config.family == RETINANET else BATCH_NORM_LR) * by_root
    else:
        rate = FROZEN_LR * whole / BATCH
    norms = "batch norms that train" if learns else "frozen norms"
    by = "" if optimizer == "sgd" else f", by {optimizer}"
    result.choose("lr", float(f"{rate:.2g}"), f"for {whole} radiographs a step and {norms}{by}")


def _choose_head(result: Plan) -> None:
    config = result.config
    if config.family != RETINANET:
        result.choose("head", "v1", "the original one of Faster R-CNN")
        return
    if config.head == AUTO and (held := head_in(config.weights)):
        result.choose("head", held, "that of the weights")
    elif config.fpn_channels % GROUPS or config.fpn_channels == GROUPS:
        # With one channel in a group, nothing would be left of a level with a single cell.
        result.choose("head", "v1", f"group norms need {2 * GROUPS} channels in the pyramid, or another multiple")
    else:
        result.choose("head", "v2", "without group norms little of a gradient comes through four convolutions at first")


def _choose_optimizer(result: Plan) -> None:
    config = result.config
    if config.family != RETINANET:
        result.choose("optimizer", "sgd", "as Faster R-CNN was published")
    elif config.lr != AUTO:
        result.choose("optimizer", "sgd", "--lr is given, and recipes give rates for sgd")
    else:
        result.choose("optimizer", "adamw", "gradients of heads and trunk differ much in size, steps of adamw do not")


def _choose_samples(result: Plan, boxes_of: np.ndarray) -> None:
    """How many anchors and proposals of a radiograph learn, by how many boxes radiographs have.

    boxes_of: (N,) boxes of each.
    """
    with_boxes = boxes_of[boxes_of > 0]
    many = int(np.ceil(np.quantile(with_boxes, 0.95))) if len(with_boxes) else 1
    reason = f"19 of 20 radiographs with boxes have at most {many}"
    samples = 2 ** math.ceil(math.log2(32 * many))
    # A RetinaNet draws no samples.
    of_samples = reason if result.config.family == FASTER_RCNN else ""
    result.choose("rpn_samples", min(max(samples, 64), 256), of_samples)
    result.choose("roi_samples", min(max(samples, 64), 512), of_samples)
    result.choose("proposals", min(max(250 * many, 500), 2000), reason)


def _choose_anchors(result: Plan, boxes: np.ndarray, canvas_size: int) -> None:
    """Anchors that fit the boxes on the canvas, as far as flags do not give them."""
    config = result.config
    if AUTO not in (config.anchor_scale, config.anchor_sides, config.anchor_ratios):
        return  # such as in a run that is resumed: a fit takes seconds
    fit = fit_anchors(boxes, canvas_size, config.family)
    anchors, source = fit.anchors, "the standard layout fits the boxes" if fit.is_standard else "fitted to the boxes"
    if config.anchor_scale != AUTO:
        anchors, source = (
            standard_anchors(canvas_size, config.anchor_scale, config.family),
            f"--anchor-scale {config.anchor_scale:g}",
        )
    sides = config.anchor_sides if config.anchor_sides != AUTO else tuple(np.ravel(anchors.sides).tolist())
    ratios = config.anchor_ratios if config.anchor_ratios != AUTO else anchors.ratios
    anchors = AnchorSides(by_level(sides), ratios)
    recall = f"{_recall(recall_of(anchors, boxes, config.family))}; the standard layout: {_recall(fit.standard)}"
    result.choose("anchor_scale", 1.0)
    result.choose("anchor_sides", sides, f"{source}; {recall}")
    result.choose("anchor_ratios", ratios, f"height to width; {source}")


def _recall(recall: Mapping[float, float]) -> str:
    if math.isnan(recall[0.5]):
        return "no box to compare with"
    return f"{recall[0.5]:.1%} of the boxes have an anchor at IoU 0.5, {recall[0.7]:.1%} at 0.7"
