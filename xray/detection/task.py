"""Training and validation of the detector."""

from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from xray.config import DetectionConfig
from xray.data.augment import Augmentation
from xray.data.boxes import BoxTable
from xray.data.dataset import BoxDataset, EpochSampler, collate_boxes, make_loader, repeat_factors, sample_seed
from xray.data.predictions import Predictions
from xray.data.store import Store
from xray.detection.metrics import detection_metrics
from xray.detection.model import Detector, build_detector, load_initial_weights
from xray.findings import mirrored
from xray.training.optimizers import configure
from xray.training.rows import training_rows

MONITORED = "map40"


class DetectionTask(L.LightningModule):
    """Faster R-CNN trained on a store's boxes and validated with the true metric on the fold held back."""

    monitored = MONITORED

    def __init__(self, config: DetectionConfig, store: Store) -> None:
        super().__init__()
        self.config, self.store = config, store
        self.train_rows, self.val_rows = training_rows(store, config.fold)
        torch.manual_seed(config.seed)
        norm = config.norm if config.norm != "auto" else ("batch" if config.weights == "none" else "frozen")
        self.architecture = {
            "backbone": config.backbone,
            "head": config.head,
            "norm": norm,
            "fpn_channels": config.fpn_channels,
            "anchor_scale": config.anchor_scale,
            "proposals": config.proposals,
            "score_threshold": config.score_threshold,
            "max_detections": config.max_detections,
        }
        self.model: Detector = build_detector(
            n_categories=max(store.categories),
            canvas_size=store.canvas_size,
            trainable_layers=5 if config.weights == "none" else config.trainable_layers,
            rpn_samples=config.rpn_samples,
            roi_samples=config.roi_samples,
            **self.architecture,
        )
        self.validated: Predictions | None = None
        self.metrics: dict[str, Any] = {}
        self._batches: list[BoxTable] = []

    def load_initial_weights(self) -> str:
        """Loads the config's initial weights; a resumed run has its own. Returns what was loaded, in words."""
        return load_initial_weights(self.model, self.config.weights, self.config.backbone, self.config.head)

    def describe(self) -> dict[str, Any]:
        """What model.json says of this model."""
        return {
            "task": "detection",
            "architecture": self.architecture,
            "categories": {str(category_id): name for category_id, name in self.store.categories.items()},
            "canvas_size": self.store.canvas_size,
            "flips": self.config.flip > 0 and self.config.augment != "none",
            "thresholds": {"detection": self.config.score_threshold},
            "metrics": self.metrics,
        }

    # Data

    def train_dataloader(self) -> Any:
        config = self.config
        augmentation = Augmentation(config.augment, mirrored(self.store.categories), config.flip)
        dataset = BoxDataset(self.store, self.train_rows, augmentation, config.seed)
        repeats = repeat_factors(dataset.labels_of(), config.repeat_threshold, config.normals)
        sampler = EpochSampler(repeats, config.seed, self.global_rank, self.trainer.world_size)
        return make_loader(dataset, config.batch_size, config.n_workers, collate_boxes, sampler)

    def val_dataloader(self) -> Any:
        mine = self.val_rows[self.global_rank :: self.trainer.world_size]
        return make_loader(BoxDataset(self.store, mine), self.config.batch_size, self.config.n_workers, collate_boxes)

    # Training

    def configure_optimizers(self) -> Any:
        return configure(self.model, self.config, self.trainer.estimated_stepping_batches, self.monitored)

    def on_train_epoch_start(self) -> None:
        # The losses sample anchors and proposals at random: their draws depend on nothing but seed, epoch and process.
        torch.manual_seed(sample_seed(self.config.seed, self.current_epoch, self.global_rank))

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        losses = self.model(batch["images"], batch["targets"])
        loss = torch.stack(list(losses.values())).sum()
        size = len(batch["images"])
        self.log("train/loss", loss.detach(), prog_bar=True, on_step=True, on_epoch=True, batch_size=size)
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()}, batch_size=size)
        return loss

    # Validation

    def on_validation_epoch_start(self) -> None:
        self._batches = []

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        detections = self.model(batch["images"])
        for row, found in zip(batch["rows"].tolist(), detections, strict=True):
            boxes = self.store.canvas(row).to_original(found["boxes"].float().cpu().numpy())
            labels = found["labels"].cpu().numpy()
            self._batches.append(
                BoxTable.of(np.full(len(boxes), row), labels, boxes, found["scores"].float().cpu().numpy())
            )

    def on_validation_epoch_end(self) -> None:
        found = self._gathered(BoxTable.concatenate(self._batches))
        self._batches = []
        # Images are numbered anew: the metric speaks of the fold alone.
        place = np.full(len(self.store.records), -1)
        place[self.val_rows] = np.arange(len(self.val_rows))
        inside = place[self.store.boxes.images] >= 0
        truth = self.store.boxes.select(inside)
        truth = BoxTable.of(place[truth.images], truth.labels, truth.boxes)
        found = BoxTable.of(place[found.images], found.labels, found.boxes, found.scores)
        ids = tuple(self.store.records[row]["source_id"] for row in self.val_rows.tolist())
        self.validated = Predictions(ids, found)
        self.metrics = detection_metrics(truth, found, len(ids), self.store.categories)
        values = {name: value for name, value in self.metrics.items() if isinstance(value, int | float)}
        values |= {f"ap40/{name}": value for name, value in self.metrics["ap40"].items()}
        values.pop("n_images", None)
        self.log_dict({name: float(value) for name, value in values.items()}, rank_zero_only=True)

    def rows_to_show(self, count: int) -> list[int]:
        """Rows of up to `count` validation radiographs for pictures: those with the most kinds of findings first."""
        kinds = [len(np.unique(self.store.boxes.labels[self.store.boxes.images == row])) for row in self.val_rows]
        return self.val_rows[np.argsort(kinds, kind="stable")[::-1][:count]].tolist()

    def _gathered(self, mine: BoxTable) -> BoxTable:
        if self.trainer.world_size == 1:
            return mine
        tables: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(tables, mine)
        return BoxTable.concatenate(tables)
