"""Training and validation of the segmenter."""

from typing import Any

import numpy as np
from torch import Tensor

from xray.datasets.mask_canvas import mask_canvas
from xray.datasets.store import Store
from xray.errors import InputError
from xray.evaluation.mask_metrics import mask_sums, segmentation_metrics
from xray.evaluation.monitored import OF_TASK
from xray.models.segmentation.initial import load_initial_weights
from xray.models.segmentation.losses import loss_of_levels, segmentation_loss
from xray.models.segmentation.segmenter import NO_ATTENTION, Segmenter, build_segmenter, freeze_encoder
from xray.structures.boxes import BoxTable
from xray.structures.components import mask_findings
from xray.structures.predictions import Predictions
from xray.structures.triplet import Triplet
from xray.training.config import SegmentationConfig
from xray.training.loaders import collate_images
from xray.training.loading import MaskDataset
from xray.training.sampling import EpochSampler, PositiveSampler
from xray.training.tasks.base import Task, need_located


class SegmentationTask(Task):
    """U-Net or U-Net++ trained on a store's masks and validated by Dice on the fold held back."""

    monitored = OF_TASK["segmentation"]
    needs_masks = True
    config: SegmentationConfig

    def __init__(self, config: SegmentationConfig, store: Store) -> None:
        super().__init__(config, store)
        self._leave_out_boxes_without_masks()
        known = ~store.unlocated
        nothing: np.ndarray = np.all(~known, axis=1)
        self.leave_out(nothing, "of none of the categories is known where it is")
        need_located(store, self.train_rows, np.array(sorted(store.masks), dtype=np.int64), "mask")
        rows = np.union1d(self.train_rows, self.val_rows)
        # None where all are, so that training and numbers are those of a dataset that says everything.
        self.known = None if known[rows].all() else known
        self.architecture: dict[str, Any] = {
            "architecture": config.architecture,
            "encoder": config.encoder,
            "in_channels": config.in_channels,
            "depth": config.depth,
            "deep_supervision": config.deep_supervision,
        }
        if config.attention != NO_ATTENTION:
            # Only of such runs, so that versions that know none can read the others.
            self.architecture["attention"] = config.attention
        self.model: Segmenter = build_segmenter(n_classes=len(store.categories), **self.architecture)
        if config.freeze_encoder:
            freeze_encoder(self.model)
        self.positive = np.isin(np.arange(len(store)), store.boxes.images[sorted(store.masks)])
        self.loss = self._build_loss()
        self._batches: list[tuple[np.ndarray, ...]] = []
        self._findings: list[tuple[BoxTable, dict[int, Any]]] = []

    def _leave_out_boxes_without_masks(self) -> None:
        """Leaves out radiographs with a box that has no mask: they have the finding, but nobody drew where."""
        boxed = np.setdiff1d(np.arange(len(self.store.boxes)), list(self.store.masks))
        unmasked = np.unique(self.store.boxes.images[boxed])
        if not len(unmasked):
            return
        with_masks = [np.setdiff1d(rows, unmasked) for rows in (self.train_rows, self.val_rows)]
        if not len(with_masks[0]) or (len(self.val_rows) and not len(with_masks[1])):
            raise InputError(
                f"{self.store.path} has boxes without masks in {len(unmasked)} radiographs, which leaves none to train "
                "or to validate on: give a dataset with masks, or --task detection"
            )
        print(f"{len(unmasked)} radiographs have boxes without masks and are left out")
        self.train_rows, self.val_rows = with_masks

    def _build_loss(self) -> Any:
        config = self.config
        options = {}
        if config.loss in ("weighted_bce", "combined"):
            options["beta"] = config.beta or self._share_of_positive_pixels()
        return segmentation_loss(config.loss, **options)

    def _share_of_positive_pixels(self) -> float:
        rows = self.train_rows[self.positive[self.train_rows]]
        if self.known is None:
            area = sum(float(mask_canvas(self.store, row).mean()) for row in rows.tolist())
            return max(area / len(self.train_rows), 1e-6)
        shares = [mask_canvas(self.store, row).mean(axis=(1, 2))[self.known[row]].sum() for row in rows.tolist()]
        return max(float(sum(shares)) / int(self.known[self.train_rows].sum()), 1e-6)

    def load_initial_weights(self) -> str:
        """Loads the config's initial weights; a resumed run has its own. Returns what was loaded, in words."""
        return load_initial_weights(self.model, self.config.weights, self.config.encoder_from)

    def describe(self) -> dict[str, Any]:
        """What model.json says of this model."""
        return {
            "task": "segmentation",
            "architecture": self.architecture,
            "thresholds": {"mask": self.config.threshold},
            **super().describe(),
        }

    def train_dataloader(self) -> Any:
        config = self.config
        options = self.training_options()
        options["known"] = self.known
        dataset = MaskDataset(self.store, self.train_rows, self.augmentation(), config.seed, **options)
        processes = (self.global_rank, self.trainer.world_size)
        if config.positives:
            end = config.positives_end or config.positives
            positive = self.positive[self.train_rows]
            sampler: EpochSampler = PositiveSampler(
                positive, config.positives, end, config.n_epochs, config.seed, *processes
            )
        else:
            sampler = EpochSampler(np.ones(len(dataset)), config.seed, *processes)
        return self.loader(dataset, collate_images, sampler)

    def val_dataloader(self) -> Any:
        return self.loader(MaskDataset(self.store, self.my_val_rows(), **self.validation_options()), collate_images)

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        logits = self.model(batch["images"])
        return {f"loss_{self.config.loss}": loss_of_levels(self.loss, logits, batch["masks"], batch.get("known"))}

    def on_validation_epoch_start(self) -> None:
        self._batches, self._findings = [], []

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        probability = self.model(batch["images"]).float().sigmoid()
        predicted, truth = probability > self.config.threshold, batch["masks"].bool()
        sums = mask_sums(predicted, truth)
        # The union of all categories beside each: for the lungs, both together.
        whole = mask_sums(predicted.any(1, keepdim=True), truth.any(1, keepdim=True))
        rows = batch["rows"].cpu().numpy()
        triplet = Triplet(self.config.threshold, 0.0, self.config.threshold)
        labels = list(self.store.categories)
        self._batches.append((rows, *(x.cpu().numpy() for x in (*sums, *whole))))
        for row, canvas in zip(rows.tolist(), probability.cpu().numpy(), strict=True):
            self._findings.append(mask_findings(canvas, self.store.canvas(row), labels, triplet, row))

    def on_validation_epoch_end(self) -> None:
        parts = [part for process in self.gathered(self._batches) for part in process]
        findings = [item for process in self.gathered(self._findings) for item in process]
        self._batches, self._findings = [], []
        rows, *sums = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        # In the order of the radiographs, however many processes there are.
        order = np.argsort(rows, kind="stable")
        sums, findings = [column[order] for column in sums], [findings[number] for number in order.tolist()]
        known = np.ones(sums[0].shape, dtype=bool) if self.known is None else self.known[rows[order]]
        self.metrics = dict(segmentation_metrics(*sums[:3], counted=known))
        if len(self.store.categories) > 1:
            self.metrics["dice_by_category"] = {
                name: segmentation_metrics(*(column[:, k] for column in sums[:3]), counted=known[:, k])["dice"]
                for k, name in enumerate(self.store.categories.values())
                if known[:, k].any()
            }
            if (whole := np.all(known, axis=1, keepdims=True)).any():
                self.metrics["dice_union"] = segmentation_metrics(*sums[3:], counted=whole)["dice"]
        self.validated = self._predictions(findings)
        self.log_metrics(self.metrics)

    def _predictions(self, findings: list[tuple[BoxTable, dict[int, Any]]]) -> Predictions:
        place = {row: number for number, row in enumerate(self.val_rows.tolist())}
        tables: list[BoxTable] = []
        masks: dict[int, Any] = {}
        n = 0
        for table, masks_of_table in findings:
            tables.append(
                BoxTable.of([place[r] for r in table.images.tolist()], table.labels, table.boxes, table.scores)
            )
            masks |= {n + number: mask for number, mask in masks_of_table.items()}
            n += len(table)
        ids = tuple(self.store.records[row]["source_id"] for row in self.val_rows.tolist())
        return Predictions(ids, BoxTable.concatenate(tables), masks)
