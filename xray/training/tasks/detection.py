"""Training and validation of the detector."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from xray.datasets.store import Store
from xray.evaluation.box_metrics import detection_metrics
from xray.evaluation.located import located_in, nothing_located
from xray.evaluation.monitored import monitored_by
from xray.flags import AUTO
from xray.models.detection.anchor_fit import FASTER_RCNN
from xray.models.detection.backbones import IMAGENET_WEIGHTS
from xray.models.detection.detector import Detector, build_detector, describe_anchors, load_initial_weights
from xray.models.kernels.convolutions import apply_norms_in_convolutions, speed_up_training
from xray.structures.boxes import BoxTable
from xray.structures.predictions import Predictions
from xray.training.config import DetectionConfig
from xray.training.loaders import collate_boxes
from xray.training.loading import BoxDataset, default_fold, training_rows
from xray.training.plan import plan_detection
from xray.training.pseudo import in_words, join, with_pseudo
from xray.training.readers import readings
from xray.training.sampling import EpochSampler, may_hide, repeat_factors
from xray.training.tasks.base import Task, need_located, without


class DetectionTask(Task):
    """A detector trained on a store's boxes and validated with the true metric on the fold held back."""

    config: DetectionConfig

    def __init__(self, config: DetectionConfig, store: Store) -> None:
        if config.fold == AUTO and config.pseudo:
            # Pseudo-labels are made for one fold or split held back.
            config = dataclasses.replace(config, fold=default_fold(store))
        rows, val_rows = training_rows(store, config.fold)
        rows, val_rows = without(
            store, rows, val_rows, nothing_located(store), "the dataset does not locate anything in them"
        )
        joined = join(store, Path(config.pseudo), config.fold) if config.pseudo else None
        store = store if joined is None else joined
        used = readings(store, rows, config.readers, config.without_readers, config.reader_weights)
        n_labelled = len(used.rows)
        every = used if joined is None else with_pseudo(joined, used, config)
        # How often an epoch shows each of the radiographs that are added: without a box as seldom as normal ones.
        is_boxed = np.isin(every.rows[n_labelled:], store.boxes.images[every.boxes])
        added = np.where(is_boxed, 1.0, config.normals) * config.pseudo_share
        chosen = plan_detection(config, store, used, float(added.sum()))
        if n_unread := len(rows) - n_labelled:
            chosen.notes.append(f"{n_unread} training radiographs are left out: no chosen reader read them")
        if joined is not None:
            chosen.notes.append(in_words(joined, every, config))
        config = chosen.config
        super().__init__(config, store, chosen)
        need_located(store, every.rows, every.boxes, "box")
        self.readings, self.train_rows, self.val_rows = every, every.rows, val_rows
        # None where all are, so that training is that of a dataset whose boxes are all there are.
        self.unlocated = store.unlocated if store.unlocated[every.rows].any() else None
        self.n_labelled, self.added = n_labelled, added
        self.monitored = monitored_by("detection", config.monitor, store.categories)
        self.architecture: dict[str, Any] = {
            "backbone": config.backbone,
            "head": config.head,
            "norm": config.norm,
            "fpn_channels": config.fpn_channels,
            **describe_anchors(config.anchor_sides, config.anchor_ratios, store.canvas_size, config.family),
            "proposals": config.proposals,
            "score_threshold": config.score_threshold,
            "max_detections": config.max_detections,
        }
        if config.family != FASTER_RCNN:
            self.architecture["family"] = config.family
        self.model: Detector = build_detector(
            n_categories=max(store.categories),
            canvas_size=store.canvas_size,
            trainable_layers=5 if config.weights == "none" else config.trainable_layers,
            rpn_samples=config.rpn_samples,
            roi_samples=config.roi_samples,
            soft_targets=config.agreement == "target",
            **self.architecture,
        )
        if config.backbone in IMAGENET_WEIGHTS:  # other trunks may run their norms in another order
            apply_norms_in_convolutions(self.model)
        speed_up_training(self.model)
        self._batches: list[BoxTable] = []

    def load_initial_weights(self) -> str:
        """Loads the config's initial weights; a resumed run has its own. Returns what was loaded, in words."""
        return load_initial_weights(self.model, self.config.weights, self.config.backbone, self.config.head)

    def describe(self) -> dict[str, Any]:
        """What model.json says of this model."""
        return {
            "task": "detection",
            "architecture": self.architecture,
            "thresholds": {"detection": self.config.score_threshold},
            **super().describe(),
        }

    def train_dataloader(self) -> Any:
        config = self.config
        options = self.training_options()
        dataset = BoxDataset(
            self.store,
            self.train_rows,
            self.augmentation(),
            config.seed,
            boxes=self.readings.boxes,
            shares=None if config.agreement == "none" and not config.pseudo else self.readings.shares,
            unlocated=self.unlocated,
            **options,
        )
        labels_of = dataset.labels_of()[: self.n_labelled]
        hidden = may_hide(self.store, self.train_rows[: self.n_labelled], self.readings.boxes)
        repeats = repeat_factors(labels_of, config.repeat_threshold, config.normals, hidden)
        sampler = EpochSampler(np.append(repeats, self.added), config.seed, self.global_rank, self.trainer.world_size)
        return self.loader(dataset, collate_boxes, sampler)

    def val_dataloader(self) -> Any:
        return self.loader(BoxDataset(self.store, self.my_val_rows(), **self.validation_options()), collate_boxes)

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.model(batch["images"], batch["targets"])
        return losses

    def on_validation_epoch_start(self) -> None:
        self._batches = []

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        detections = self.model(batch["images"])
        for row, predicted in zip(batch["rows"].tolist(), detections, strict=True):
            boxes = self.store.canvas(row).to_original(predicted["boxes"].float().cpu().numpy())
            labels, scores = predicted["labels"].cpu().numpy(), predicted["scores"].float().cpu().numpy()
            # Of a box in the border around the radiograph nothing is left; inference leaves it out, too.
            has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            self._batches.append(
                BoxTable.of(np.full(has_area.sum(), row), labels[has_area], boxes[has_area], scores[has_area])
            )

    def on_validation_epoch_end(self) -> None:
        predicted = BoxTable.concatenate(self.gathered(BoxTable.concatenate(self._batches)))
        # In the order of the radiographs, however many processes there are: equal scores keep theirs.
        predicted = predicted.select(np.argsort(predicted.images, kind="stable"))
        self._batches = []
        # Images are renumbered: the metric is of the fold alone.
        place = np.full(len(self.store.records), -1)
        place[self.val_rows] = np.arange(len(self.val_rows))
        inside = place[self.store.boxes.images] >= 0
        truth = self.store.boxes.select(inside)
        truth = BoxTable.of(place[truth.images], truth.labels, truth.boxes)
        predicted = BoxTable.of(place[predicted.images], predicted.labels, predicted.boxes, predicted.scores)
        ids = tuple(self.store.records[row]["source_id"] for row in self.val_rows.tolist())
        self.validated = Predictions(ids, predicted)
        located = located_in(self.store, self.val_rows)
        self.metrics = detection_metrics(truth, predicted, len(ids), self.store.categories, located=located)
        self.log_metrics(self.metrics)
