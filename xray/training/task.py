"""What the LightningModules of all tasks share: rows, seeds, loaders, optimizer."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch

from xray.config import TrainingConfig
from xray.data.augment import Augmentation
from xray.data.dataset import EpochSampler, make_loader, sample_seed
from xray.data.predictions import Predictions
from xray.data.store import Store
from xray.findings import mirrored
from xray.training.optimizers import configure
from xray.training.rows import training_rows


class Task(L.LightningModule):
    """A task's model, `self.model`, with its data; subclasses add the losses and the validation.

    monitored: the validation metric that decides what is best; higher is better.
    validated: what the last validation predicted, None before it. metrics: its numbers.
    """

    monitored = ""

    def __init__(self, config: TrainingConfig, store: Store) -> None:
        super().__init__()
        self.config, self.store = config, store
        self.train_rows, self.val_rows = training_rows(store, config.fold)
        self.validated: Predictions | None = None
        self.metrics: dict[str, Any] = {}
        self.first_epoch = 0
        # Whoever builds the model does it next.
        torch.manual_seed(config.seed)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning tells the sampler which epoch a resumed training is in after workers fetched their first batches.
        self.first_epoch = checkpoint["epoch"] + 1

    def describe(self) -> dict[str, Any]:
        """What model.json says of this model; subclasses add their architecture and thresholds."""
        return {
            "categories": {str(category_id): name for category_id, name in self.store.categories.items()},
            "canvas_size": self.store.canvas_size,
            "flips": self.config.flip > 0 and self.config.augment != "none",
            "metrics": self.metrics,
        }

    def rows_to_show(self, count: int) -> list[int]:
        """Rows of up to `count` validation radiographs for pictures: those with the most kinds of findings first."""
        kinds = [len(np.unique(self.store.boxes.labels[self.store.boxes.images == row])) for row in self.val_rows]
        return self.val_rows[np.argsort(kinds, kind="stable")[::-1][:count]].tolist()

    def augmentation(self) -> Augmentation:
        """The random changes that the config asks for."""
        return Augmentation(self.config.augment, mirrored(self.store.categories), self.config.flip)

    def loader(self, dataset: Any, collate: Any, sampler: EpochSampler | None = None) -> Any:
        """A loader with the config's batch size and workers."""
        if sampler is not None:
            sampler.set_epoch(self.first_epoch)
        return make_loader(dataset, self.config.batch_size, self.config.n_workers, collate, sampler)

    def my_val_rows(self) -> np.ndarray:
        """The share of the validation rows that this process looks at."""
        return self.val_rows[self.global_rank :: self.trainer.world_size]

    def configure_optimizers(self) -> Any:
        return configure(self.model, self.config, self.trainer.estimated_stepping_batches, self.monitored)

    def on_train_epoch_start(self) -> None:
        # Whatever a step draws at random depends on nothing but seed, epoch and process: so a resumed run repeats it.
        torch.manual_seed(sample_seed(self.config.seed, self.current_epoch, self.global_rank))

    def gathered(self, mine: Any) -> Sequence[Any]:
        """`mine` of every process, in the order of their ranks."""
        if self.trainer.world_size == 1:
            return [mine]
        everyone: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(everyone, mine)
        return everyone

    def log_metrics(self, values: dict[str, Any]) -> None:
        """Logs numbers, and a dict of them as name/key."""
        flat: dict[str, float] = {}
        for name, value in values.items():
            if isinstance(value, dict):
                flat |= {f"{name}/{key}": float(number) for key, number in value.items() if _is_number(number)}
            elif _is_number(value) and name != "n_images":
                flat[name] = float(value)
        self.log_dict(flat, rank_zero_only=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
