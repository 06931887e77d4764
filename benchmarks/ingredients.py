"""The rows of the benchmark `recipe`: one ingredient of the recipe is left out, changed or added in each."""

import dataclasses
from typing import Literal

START = "default"
"""The row that all others are held against."""
CLASSIFIER = "classifier"
"""The row of labels that others fuse with boxes; it has no boxes itself."""


@dataclasses.dataclass(frozen=True)
class Ingredient:
    """One row of the table.

    title: what is different from the default. what: "train" (a training of its own), "infer" (the default's models
    predict in another way) or "tune" (the predictions of other rows, fused with settings that `xray tune` fits).
    flags: of the training or the inference. models: rows whose boxes are fused. with_labels: the classifier's, too.
    """

    name: str
    title: str
    what: Literal["train", "infer", "tune"] = "train"
    flags: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    with_labels: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """Rows that come before it."""
        if self.what == "infer":
            return (START,)
        return (*self.models, *([CLASSIFIER] if self.with_labels else []))


def _of(name: str, title: str, *flags: str) -> Ingredient:
    return Ingredient(name, title, flags=flags)


def _view(name: str, title: str, *flags: str) -> Ingredient:
    return Ingredient(name, title, "infer", flags)


DETECTION = (
    _of(START, "all flags left to `train`"),
    _of("anchors", "torchvision's anchors, not fitted ones", "--anchor-scale", "1"),
    _of("ema", "no moving average of the weights", "--no-ema"),
    _of("batch", "batches of 8", "--batch-size", "8"),
    _of("norm", "batch norms frozen, with their learning rate", "--norm", "frozen"),
    _of("rate", "half the learning rate", "--lr", "0.01"),
    _of("schedule", "steps, not a cosine", "--schedule", "step"),
    _of("flip", "no mirroring in training", "--flip", "0"),
    _of("plain", "no augmentation but mirroring", "--augment", "none"),
    _of("strong", "strong augmentation", "--augment", "strong"),
    _of("samples", "256 anchors, 512 regions and 2,000 proposals a radiograph", "--rpn-samples", "256",
        "--roi-samples", "512", "--proposals", "2000"),
    _of("average", "weights of the three best epochs averaged", "--average-best", "3"),
    _of("retinanet", "RetinaNet in place of Faster R-CNN", "--family", "retinanet"),
    _view("one-view", "no mirrored view in inference", "--no-tta"),
    _view("scales", "three sizes of the canvas in inference", "--scales", "0.8", "1", "1.25"),
    Ingredient("tuned", "boxes by `tune`", "tune", models=(START,)),
    Ingredient("two-families", "with RetinaNet, by `tune`", "tune", models=(START, "retinanet")),
    Ingredient("labels", "with the classifier, by `tune`", "tune", models=(START,), with_labels=True),
    Ingredient("all", "with RetinaNet and the classifier, by `tune`", "tune", models=(START, "retinanet"),
               with_labels=True),
)  # fmt: skip

SEGMENTATION = (
    _of(START, "all flags left to `train`"),
    _of("ema", "no moving average of the weights", "--no-ema"),
    _of("flip", "no mirroring in training", "--flip", "0"),
    _of("plain", "no augmentation but mirroring", "--augment", "none"),
    _of("strong", "strong augmentation", "--augment", "strong"),
    _of("average", "weights of the three best epochs averaged", "--average-best", "3"),
    _view("one-view", "no mirrored view in inference", "--no-tta"),
    _view("scales", "three sizes of the canvas in inference", "--scales", "0.8", "1", "1.25"),
)

OF_TASK = {"detection": DETECTION, "segmentation": SEGMENTATION}
"""Task → its rows, the default first."""
