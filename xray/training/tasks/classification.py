"""Training and validation of the classifier of whole radiographs."""

from typing import Any

import numpy as np
from torch import Tensor

from xray.datasets.store import Store
from xray.errors import InputError
from xray.evaluation.label_metrics import classification_metrics
from xray.evaluation.monitored import OF_TASK
from xray.findings import NO_FINDING_BOX
from xray.models.classification.classifier import Classifier, build_classifier, load_initial_weights
from xray.models.classification.losses import balancing_weights, classification_loss
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY, Predictions
from xray.training.config import ClassificationConfig
from xray.training.loaders import collate_images
from xray.training.loading import LabelDataset
from xray.training.sampling import EpochSampler
from xray.training.tasks.base import Task

ABNORMAL = "abnormal"
NOT_ABNORMAL = "they show nothing that is known, and not all is known"
"""Why radiographs are left out that are neither normal nor abnormal."""


class ClassificationTask(Task):
    """A classifier trained on the labels of whole radiographs and validated by AUROC on the fold held back."""

    monitored = OF_TASK["classification"]
    config: ClassificationConfig

    def __init__(self, config: ClassificationConfig, store: Store) -> None:
        # Abnormal is the same from both sides.
        self.names_sides = config.target != ABNORMAL
        super().__init__(config, store)
        self.labels, known = image_labels(store, config.target), known_labels(store, config.target)
        nothing: np.ndarray = np.all(~known, axis=1)
        self.leave_out(nothing, "no label of theirs is known" if self.names_sides else NOT_ABNORMAL)
        rows = np.union1d(self.train_rows, self.val_rows)
        # None where all are, so that training and numbers are those of a dataset that says everything.
        self.known = None if known[rows].all() else known
        self.names = [ABNORMAL] if config.target == ABNORMAL else list(store.categories.values())
        if self.known is not None:
            self._say_unknown(self.known, rows)
        self.architecture: dict[str, Any] = {
            "name": config.network,
            "n_outputs": len(self.names),
            "in_channels": config.in_channels,
        }
        self.model: Classifier = build_classifier(canvas=store.canvas_size, **self.architecture)
        weights = None
        if config.loss == "bce" and config.balance:
            rows = self.train_rows
            n_known = len(rows) if self.known is None else self.known[rows].sum(axis=0)
            weights = balancing_weights(self.labels[rows].sum(axis=0), n_known)
        self.loss = classification_loss(config.loss, weights)
        self._batches: list[tuple[np.ndarray, np.ndarray]] = []

    def _say_unknown(self, known: np.ndarray, rows: np.ndarray) -> None:
        """Prints of how many radiographs each label is not known, and of which nobody has said anything."""
        n_unknown = np.count_nonzero(~known[rows], axis=0).tolist()
        named = ", ".join(f"{name} in {n}" for name, n in zip(self.names, n_unknown, strict=True) if n)
        print(f"labels that are not known are neither learned nor measured: {named} of {len(rows)} radiographs")
        is_taught = known[self.train_rows].any(axis=0).tolist()
        if nothing := [name for name, taught in zip(self.names, is_taught, strict=True) if not taught]:
            print(f"of {', '.join(nothing)} nothing is known in training: what the model says of it means nothing")

    def check_validation(self) -> None:
        """Raises InputError where no label tells the validation radiographs apart: no epoch could be called best."""
        labels, rows = self.labels[self.val_rows], self.val_rows
        known = np.ones(labels.shape, dtype=bool) if self.known is None else self.known[rows]
        has_both = (labels & known).any(axis=0) & (~labels & known).any(axis=0)
        if len(rows) and not has_both.any():
            raise InputError(
                f"of the {len(rows)} validation radiographs, all or none show each finding, as far as it is known, so "
                "that no AUROC is defined: hold back another --fold, or --fold all"
            )

    def load_initial_weights(self) -> str:
        """Loads the config's initial weights; a resumed run has its own. Returns what was loaded, in words."""
        return load_initial_weights(self.model, self.config.weights)

    def describe(self) -> dict[str, Any]:
        """What model.json says of this model."""
        return {
            "task": "classification",
            "architecture": self.architecture,
            "labels": self.names,
            "target": self.config.target,
            "thresholds": {"label": 0.5},
            **super().describe(),
        }

    def train_dataloader(self) -> Any:
        augmentation, options = self.augmentation(), self.training_options()
        order = self.mirrored_channels if self.names_sides else [0]
        data = (self.store, self.train_rows, self.labels)
        dataset = LabelDataset(
            *data, augmentation, self.config.seed, **options, mirrored_labels=order, known=self.known
        )
        sampler = EpochSampler(np.ones(len(dataset)), self.config.seed, self.global_rank, self.trainer.world_size)
        return self.loader(dataset, collate_images, sampler)

    def val_dataloader(self) -> Any:
        dataset = LabelDataset(self.store, self.my_val_rows(), self.labels, **self.validation_options())
        return self.loader(dataset, collate_images)

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        logits = self.model(batch["images"])
        return {f"loss_{self.config.loss}": self.loss(logits, batch["labels"], known=batch.get("known"))}

    def on_validation_epoch_start(self) -> None:
        self._batches = []

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        probability = self.model(batch["images"]).sigmoid()
        self._batches.append((batch["rows"].cpu().numpy(), probability.float().cpu().numpy()))

    def on_validation_epoch_end(self) -> None:
        parts = [part for process in self.gathered(self._batches) for part in process]
        self._batches = []
        rows, probability = (np.concatenate(column) for column in zip(*parts, strict=True))
        # In the order of the radiographs, however many processes there are.
        order = np.argsort(rows, kind="stable")
        rows, probability = rows[order], probability[order]
        known = None if self.known is None else self.known[rows]
        self.metrics = classification_metrics(probability, self.labels[rows], self.names, known)
        self.validated = self._predictions(rows, probability.astype(np.float64))
        self.log_metrics(self.metrics)

    def _predictions(self, rows: np.ndarray, probability: np.ndarray) -> Predictions:
        """A label of a whole radiograph has no box; COCO results need one: that of the radiograph."""
        records = [self.store.records[row] for row in rows.tolist()]
        ids = tuple(record["source_id"] for record in records)
        n, k = probability.shape
        if self.config.target == ABNORMAL:
            boxes = np.tile(np.array(NO_FINDING_BOX, dtype=np.float64), (n, 1))
            return Predictions(ids, BoxTable.of(np.arange(n), [NO_FINDING_CATEGORY] * n, boxes, 1 - probability[:, 0]))
        whole = np.array([(0, 0, record["width"], record["height"]) for record in records], dtype=np.float64)
        labels = np.tile(list(self.store.categories), n)
        return Predictions(
            ids, BoxTable.of(np.repeat(np.arange(n), k), labels, np.repeat(whole, k, axis=0), probability.ravel())
        )


def image_labels(store: Store, target: str) -> np.ndarray:
    """(N, K) bool: which radiographs show each category; for the target "abnormal" (N, 1), which show any."""
    return store.abnormal[0][:, None] if target == ABNORMAL else store.labels


def known_labels(store: Store, target: str) -> np.ndarray:
    """(N, K) bool, or (N, 1): of which radiographs each of the `image_labels` is known; see `Store.abnormal`."""
    return store.abnormal[1][:, None] if target == ABNORMAL else ~store.unknown
