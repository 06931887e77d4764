"""One frozen dataclass per task: flags, YAML recipes and a run's saved config all come from it."""

import dataclasses
import math
import os
import re
from typing import Annotated, Literal

from annotated_types import Interval

from xray.errors import FlagError
from xray.flags import (
    AUTO,
    MAX_SEED,
    Count,
    CountOrAuto,
    CountOrZero,
    CountOrZeroOrAuto,
    FoldNumber,
    NotNegative,
    NumbersOrAuto,
    OptimizerName,
    OptimizerOrAuto,
    Positive,
    PositiveOrAuto,
    Processes,
    ProposalsOrAuto,
    Schedule,
    ScheduleOrAuto,
    Seed,
    Share,
    ShareAboveZero,
    ShareBelowOne,
    ShareOrAuto,
    ShareWithin,
    ShareWithinOrAuto,
    StagesOrAuto,
    check_ranges,
    require,
)
from xray.flags.wrong import about_device
from xray.structures.sides import NONE

TRACKERS_FILE = "trackers.json"
"""Of a run directory: which runs of Weights & Biases and MLflow hold its curves."""
LOADERS = min(4, os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Flags of every task's training."""

    data_path: str = "data/vinbig"
    """Dataset directory of tools/convert.py, or a raw VinBig directory (converted once into SAVE_PATH/dataset)."""
    save_path: str = ""
    """Run directory to write; empty means runs/<task>."""
    resume: bool = False
    """Continue the run in SAVE_PATH from its last checkpoint; flags not given keep the values it was started with."""
    n_epochs: Count = 100
    """Passes over the training fold(s); with --resume the total, not what is added."""
    batch_size: CountOrAuto = AUTO
    """Radiographs per step and device. auto: 8, or 4 or 2 where there would be fewer than 2,000 steps."""
    lr: Positive = 0.005
    """Learning rate after warm-up, per optimizer step."""
    optimizer: OptimizerName = "sgd"
    """What applies the gradients."""
    momentum: ShareBelowOne = 0.9
    """Momentum of SGD, in [0, 1)."""
    weight_decay: NotNegative = 0.0005
    """L2 weight decay."""
    schedule: Schedule = "step"
    """How the learning rate falls; cosine and onecycle are laid out for --n-epochs, plateau follows the validation."""
    step_size: Count = 30
    """Epochs between reductions of the learning rate; with plateau, validations without a better one before it."""
    gamma: ShareAboveZero = 0.1
    """Factor of each reduction of the learning rate, in (0, 1]."""
    warmup_steps: CountOrZero = 500
    """Optimizer steps over which the learning rate rises linearly; never more than the first epoch."""
    clip_grad: NotNegative = 10.0
    """Largest gradient norm; 0 leaves gradients as they are."""
    accumulate: Count = 1
    """Batches whose gradients are added up for one optimizer step."""
    ema: bool = False
    """Validate and deploy an exponential moving average of the weights."""
    ema_decay: ShareWithin = 0.999
    """Decay of that average per optimizer step, in (0, 1)."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""
    devices: Annotated[int, Interval(ge=1, le=1024)] = 1
    """Devices per node; more than 1 trains with DDP."""
    num_nodes: Annotated[int, Interval(ge=1, le=1024)] = 1
    """Nodes of a DDP training."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """Arithmetic of convolutions and matrix products; weights, gradients and the optimizer are float32. auto: bf16 on a
    GPU that has it, and for 200 steps or more on a CPU with AMX, or with AVX-512 BF16 where a short trial finds it
    faster for this network; otherwise 32. A resumed run keeps what it began with."""
    compile: bool = False
    """GPU: compile the network (of a detector backbone, pyramid and proposals' head); the first steps take minutes."""
    n_workers: Processes = LOADERS
    """Processes that load and augment radiographs; 0 loads in the main process. Default: one a core, 4 at most."""
    fold: FoldNumber | Literal["auto", "val", "all"] = AUTO
    """Which radiographs validate. A number: that fold; the other folds train. val: the dataset's validation split;
    every fold trains. all: none; all radiographs but those for testing train, and the last weights are deployed. auto:
    val where the dataset has a validation split of 20 radiographs or more, otherwise 0."""
    seed: Seed = 0
    """Seed of weights, order, augmentation and sampling."""
    augment: Literal["none", "light", "strong"] = "light"
    """Random shifts, contrast, noise and flips of the training radiographs."""
    distortion: Share = 0.0
    """Share of the training radiographs that are also distorted, in [0, 1]: elastically, like a bent grid, or like a
    picture of a lens, with their boxes and masks. Needs --augment light or strong."""
    flip: Share = 0.5
    """Share of the training radiographs that are mirrored, in [0, 1]; at 0, inference does not mirror either."""
    swap: tuple[str, ...] = ("auto",)
    """Which categories swap names on a mirrored radiograph. auto: those whose names tell the side (Left lung, Right
    lung). "LEFT NAME=RIGHT NAME", once or more: these pairs, too; "A=A" keeps A as it is. --no-swap (the same as --swap
    none): only the named pairs. Where a category tells its side and has no opposite, nothing is mirrored."""
    augment_on: Literal["auto", "workers", "device"] = "auto"
    """Where --augment is computed: by the workers, one radiograph at a time, or on the device that trains, a batch at a
    time. The same seed gives the same changes but for rounding and noise; auto is device on a GPU, otherwise
    workers."""
    store_device: Literal["cpu", "cuda"] = "cpu"
    """Where canvases lie. cpu: in their mapped file. cuda: in the memory of each GPU (one byte a pixel, at most half of
    the memory), all that train and validate; workers cannot augment them then."""
    log_step: Count = 10
    """Training steps between entries of the log."""
    early_stop: CountOrZero = 0
    """Epochs without a better validation score after which training stops; 0 never stops early."""
    average_best: Annotated[int, Interval(ge=0, le=100)] = 0
    """How many of the best checkpoints are averaged (0 to 100; the run keeps their weights). The average is deployed if
    its validation score is at least that of the best checkpoint. 0 and 1 average nothing."""
    val_every: Count = 1
    """Epochs between validations."""
    n_pictures: CountOrZero = 4
    """Validation radiographs drawn into --logger after each validation."""
    logger: tuple[Literal["tensorboard", "csv", "wandb", "mlflow"], ...] = ("tensorboard",)
    """Where curves and pictures go, one or more: tensorboard, files of the run directory; csv, a table of all steps
    there, without pictures; wandb, Weights & Biases, which WANDB_MODE=offline and its other variables direct; mlflow,
    the server of --tracking-uri. metrics.csv, a row an epoch, is always written."""
    tracking_uri: str = ""
    """Address of MLflow, e.g. http://localhost:5000; MLFLOW_TRACKING_URI where it is not given."""
    experiment: str = ""
    """Experiment of MLflow, or project of Weights & Biases; else MLFLOW_EXPERIMENT_NAME, WANDB_PROJECT, or xray."""
    save_every_n_steps: CountOrZero = 0
    """Optimizer steps between checkpoints within an epoch; 0 saves at its end, and when SIGTERM ends the training."""
    skip_bad_steps: CountOrZero = 0
    """How many steps with a loss or gradients that are not finite are left out before training stops; 0 stops at the
    first."""
    deterministic: bool = False
    """Use only operations whose result is the same every time. On a CPU all operations are such; on a GPU this costs
    speed (not measured), and an operation without such a form is an error."""
    debug: bool = False
    """Show the traceback of an error."""

    def check(self) -> None:
        """Raises FlagError if a value is out of range."""
        check_ranges(self)
        for name in ("data_path", "save_path", "weights", "backbone", "encoder", "network"):
            require(getattr(self, name, None) != "", name, "empty", "given, or left out")
        for pair in self.swap or ("",):
            fits = pair in (AUTO, NONE) or "=" in pair.strip("= ")
            require(fits, "swap", repr(pair), 'auto, none or "A=B" with the names of two categories')
        fits = self.n_epochs == AUTO or self.val_every <= self.n_epochs
        require(fits, "val_every", self.val_every, f"at most --n-epochs, {self.n_epochs}")
        require(len(self.logger) > 0, "logger", "empty", "one or more of tensorboard, csv, wandb, mlflow")
        if re.search(r"://[^/?#]*@", self.tracking_uri):
            # Not repeated: messages end up in the logs of others, and flags in config.yaml.
            allowed = "the environment: MLFLOW_TRACKING_URI, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            raise FlagError(f"--tracking-uri holds a name or password, which a run would keep: give it by {allowed}")
        fits = self.store_device == "cpu" or self.augment_on != "workers"
        require(fits, "augment_on", self.augment_on, "auto or device with --store-device cuda")
        wanted = f"auto, cpu or cuda{about_device(self.device)}"
        require(self.device in ("auto", "cpu", "cuda"), "device", self.device, wanted)
        fits = self.distortion == 0 or self.augment != "none"
        require(fits, "distortion", self.distortion, "0 with --augment none")
        if self.fold == "all":
            without = "with --fold all, which validates nothing"
            require(self.early_stop == 0, "early_stop", self.early_stop, f"0 {without}")
            require(self.average_best < 2, "average_best", self.average_best, f"0 {without}")
            require(self.schedule != "plateau", "schedule", self.schedule, f"step, cosine or onecycle {without}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionConfig(TrainingConfig):
    """Train torchvision's Faster R-CNN or RetinaNet, with a feature pyramid, on the boxes of a dataset directory."""

    save_path: str = "runs/detection"
    """Run directory to write."""
    n_epochs: CountOrAuto = AUTO
    """Passes over the training folds; with --resume the total, not what is added. auto: 100, at most 90,000 steps."""
    lr: PositiveOrAuto = AUTO
    """Learning rate after warm-up, per optimizer step. auto: by --family, --optimizer, --norm and --batch-size."""
    optimizer: OptimizerOrAuto = AUTO
    """What applies the gradients. auto: adamw for retinanet with --lr auto, otherwise sgd."""
    schedule: ScheduleOrAuto = AUTO
    """How the learning rate falls; cosine and onecycle are laid out for --n-epochs, plateau follows the validation.
    auto: step for 60 epochs or more, otherwise cosine."""
    step_size: CountOrAuto = AUTO
    """Epochs between reductions of the learning rate; with plateau, validations without a better one before it. auto:
    three tenths of --n-epochs."""
    warmup_steps: CountOrZeroOrAuto = AUTO
    """Optimizer steps over which the learning rate rises linearly; never more than the first epoch. auto: a twentieth
    of all steps, at most 500."""
    ema: bool = True
    """Validate and deploy an exponential moving average of the weights."""
    ema_decay: ShareWithinOrAuto = AUTO
    """Decay of that average per optimizer step, in (0, 1). auto: it reaches over a twentieth of the training."""
    flip: ShareOrAuto = AUTO
    """Share of the training radiographs mirrored, in [0, 1]; at 0, inference does not mirror either. auto: 0.5."""
    family: Literal["faster_rcnn", "retinanet"] = "faster_rcnn"
    """Kind of detector: faster_rcnn proposes regions and looks into each; retinanet finds boxes in one step, has no use
    for --rpn-samples and --roi-samples, and differs enough to gain from an ensemble of both."""
    backbone: str = "resnet50"
    """Backbone of the detector: resnet18, resnet34, resnet50, resnet101, mobilenet_v2, or any of timm's that has
    features at strides 4, 8, 16 and 32, e.g. convnext_tiny, tf_efficientnetv2_s, resnetrs50, densenet121."""
    head: Literal["auto", "v1", "v2"] = "auto"
    """Original heads, or torchvision's v2: more convolutions; of retinanet group norms and generalized IoU. auto: v1
    for faster_rcnn, v2 for retinanet; with --weights FILE of a RetinaNet, the head in that file."""
    weights: str = "imagenet"
    """Initial weights: imagenet (backbone), coco (whole detector, resnet50 only), none, or a .pth/.safetensors FILE."""
    norm: Literal["auto", "frozen", "batch"] = "auto"
    """Batch norm of the backbone: frozen keeps the initial weights' statistics. auto: frozen for pretrained ResNets
    with batches below 16, and for batches below 4."""
    trainable_layers: StagesOrAuto = AUTO
    """Stages of the backbone that train, from the last, 0–5; all train when weights is none. auto: 3 with frozen norms,
    otherwise 5."""
    fpn_channels: Annotated[int, Interval(ge=8, le=MAX_SEED)] = 256
    """Channels of the feature pyramid; weights of coco need 256."""
    anchor_scale: PositiveOrAuto = AUTO
    """Anchor sides are this times 32, 64, 128, 256 and 512 pixels on a canvas of 1024, and shrink with the canvas.
    auto: 1 where these sides fit the boxes of the dataset, otherwise sides and ratios that are fitted to them."""
    anchor_sides: NumbersOrAuto = AUTO
    """Anchor sides in canvas pixels (roots of areas) of the five pyramid levels, fine to coarse; equally many for
    each."""
    anchor_ratios: NumbersOrAuto = AUTO
    """Height ÷ width of the anchors."""
    repeat_threshold: Share = 0.02
    """Repeat-factor sampling: findings on a smaller share of the images than this are shown more often; 0 is off."""
    normals: Share = 0.25
    """Share of the radiographs without boxes that each epoch shows, in [0, 1]."""
    readers: tuple[str, ...] = ()
    """Readers whose boxes train, by name (R8 R9 R10); all, if not given. Radiographs that none of them read are left
    out. Validation keeps the boxes of all."""
    without_readers: tuple[str, ...] = ()
    """Readers whose boxes do not train."""
    reader_weights: tuple[str, ...] = ()
    """NAME=NUMBER for each reader who counts more or less than 1 in --agreement."""
    agreement: Literal["none", "weight", "target"] = "none"
    """What it means that only a share of a radiograph's readers drew a box. none: nothing; weight: its losses count by
    that share; target: that share is the probability that the box head learns for it."""
    pseudo: str = ""
    """Directory of pseudo-labels (of xray pseudo) that train, too; their scores weigh like shares of readers."""
    pseudo_share: ShareAboveZero = 0.5
    """How often a radiograph of --pseudo is shown, as a share of how often a labelled one is, above 0 and up to 1."""
    rpn_samples: CountOrAuto = AUTO
    """Anchors per radiograph in the loss of the region proposals. auto: 64 to 256, by the boxes of a radiograph."""
    roi_samples: CountOrAuto = AUTO
    """Proposals per radiograph in the loss of the box head. auto: 64 to 512, by the boxes of a radiograph."""
    proposals: ProposalsOrAuto = AUTO
    """Proposals per radiograph that training keeps, also per pyramid level before suppression; inference keeps half.
    auto: 500 to 2000, by the boxes of a radiograph."""
    monitor: Literal["auto", "map40", "map40_kaggle", "coco_ap"] = "auto"
    """Validation metric that decides what is best: auto is map40 for the 14 findings, coco_ap for other categories."""
    score_threshold: ShareBelowOne = 0.001
    """Lowest score of a detection; mAP gains from low ones."""
    max_detections: Count = 100
    """Most detections per radiograph."""

    def check(self) -> None:
        """Raises FlagError if a value is out of range."""
        super().check()
        if self.weights == "coco":
            fits = self.backbone == "resnet50" and self.fpn_channels == 256
            require(fits, "weights", "coco", "used with --backbone resnet50 and --fpn-channels 256")
        require(not self.pseudo or self.store_device == "cpu", "store_device", self.store_device, "cpu with --pseudo")
        fits = not self.reader_weights or self.agreement != "none"
        require(fits, "reader_weights", " ".join(self.reader_weights), "used with --agreement weight or target")
        for name, count in (("anchor_sides", 5), ("anchor_ratios", 1)):
            numbers = getattr(self, name)
            if numbers != AUTO:
                fits = len(numbers) > 0 and len(numbers) % count == 0 and all(0 < one < math.inf for one in numbers)
                wanted = "five positive numbers, or ten, fifteen …" if count > 1 else "positive numbers"
                require(fits, name, " ".join(f"{one:g}" for one in numbers) or "empty", wanted)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationConfig(TrainingConfig):
    """Train a U-Net or U-Net++ on the masks of a dataset directory."""

    data_path: str = "data/siim"
    """Dataset directory of tools/convert.py with masks."""
    save_path: str = "runs/segmentation"
    """Run directory to write."""
    n_epochs: Count = 20
    """Passes over the training fold(s); with --resume the total, not what is added."""
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    """What applies the gradients."""
    schedule: Schedule = "cosine"
    """How the learning rate falls; cosine and onecycle are laid out for --n-epochs, plateau follows the validation."""
    lr: Positive = 0.0005
    """Learning rate after warm-up, per optimizer step."""
    architecture: Literal["unet", "unetplusplus"] = "unet"
    """Decoder: a U-Net's, or U-Net++'s nested ones."""
    encoder: str = "resnet34"
    """Backbone: any encoder of segmentation-models-pytorch; tu-NAME for any of timm's."""
    weights: str = "imagenet"
    """Initial weights of the encoder: imagenet, none, or a .pth / .safetensors FILE; or a run directory, of which the
    whole network is taken if it is the same."""
    encoder_from: str = ""
    """Run directory whose backbone becomes the encoder, instead of --weights: of a detector or a classifier."""
    freeze_encoder: bool = False
    """Train the decoder alone."""
    in_channels: Literal[1, 3] = 3
    """Channels of the encoder: one grey, or three that repeat it."""
    depth: Annotated[int, Interval(ge=3, le=5)] = 5
    """How often the encoder halves the resolution, 3 to 5."""
    deep_supervision: bool = False
    """Of unetplusplus: train an output for every nested U-Net, so that inference may use a smaller one."""
    attention: Literal["none", "scse"] = "none"
    """What the decoder weighs its features by: nothing, or scse, a weight for each channel and one for each place."""
    loss: Literal[
        "dice", "bce", "weighted_bce", "focal", "combined", "mixed", "bce_dice_focal", "lovasz", "tversky"
    ] = "bce_dice_focal"
    """What is minimised; the formulas are in xray/models/segmentation/losses.py."""
    beta: Share = 0.0
    """Share of positive pixels for weighted_bce and combined; 0 computes it from the training masks."""
    positives: Share = 0.0
    """Share of the radiographs shown in the first epoch that have a mask, in [0, 1]; 0 shows them as they are."""
    positives_end: Share = 0.0
    """That share in the last epoch; 0 keeps --positives."""
    threshold: ShareWithin = 0.5
    """Probability above which a pixel belongs to a mask, in (0, 1)."""

    def check(self) -> None:
        """Raises FlagError if a value is out of range."""
        super().check()
        fits = not self.deep_supervision or self.architecture == "unetplusplus"
        require(fits, "deep_supervision", "given", "used with --architecture unetplusplus")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationConfig(TrainingConfig):
    """Train a classifier of whole radiographs on the labels of a dataset directory."""

    save_path: str = "runs/classification"
    """Run directory to write."""
    n_epochs: Count = 20
    """Passes over the training fold(s); with --resume the total, not what is added."""
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    """What applies the gradients."""
    schedule: Schedule = "cosine"
    """How the learning rate falls; cosine and onecycle are laid out for --n-epochs, plateau follows the validation."""
    lr: Positive = 0.0001
    """Learning rate after warm-up, per optimizer step."""
    network: str = "densenet121"
    """Any of timm's networks, e.g. densenet121, densenet169, densenet201, resnet34."""
    weights: str = "imagenet"
    """Initial weights: imagenet, none, a .pth / .safetensors FILE, or a run directory."""
    in_channels: Literal[1, 3] = 3
    """Channels of the network: one grey, or three that repeat it."""
    target: Literal["findings", "abnormal"] = "findings"
    """findings: an output for each category of the dataset. abnormal: a single one, for radiographs with any box."""
    loss: Literal["bce", "focal"] = "bce"
    """What is minimised."""
    balance: bool = True
    """Of bce: let the positives of each label weigh as much as its negatives."""


TASKS: dict[str, type[TrainingConfig]] = {
    "detection": DetectionConfig,
    "segmentation": SegmentationConfig,
    "classification": ClassificationConfig,
}
