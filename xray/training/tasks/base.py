"""Base of the LightningModules of all tasks: rows, seeds, loaders, optimizer."""

import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from xray.datasets.source import VAL
from xray.datasets.store import Store
from xray.errors import InputError
from xray.models.batch_shares import Share, begin_step, end_step, mean_of_processes
from xray.models.pretrained import Normalise
from xray.structures.predictions import Predictions
from xray.structures.sides import chosen
from xray.training.augment import Augmentation
from xray.training.changes import change_images, change_masks
from xray.training.checkpoints import Progress, progress_of
from xray.training.config import TrainingConfig
from xray.training.device_store import DeviceStore, check_memory, where_to_store
from xray.training.loaders import make_loader
from xray.training.loading import default_fold, sample_seed, training_rows
from xray.training.optimizers import configure
from xray.training.plan import Plan, plan
from xray.training.sampling import EpochSampler
from xray.training.synced_norms import synchronise_norms


class Task(L.LightningModule):
    """A task's model, `self.model`, with its data; subclasses add the losses and the validation.

    monitored: the validation metric that decides what is best; higher is better.
    needs_masks: whether its batches hold masks. names_sides: whether it learns categories, which may tell a side.
    validated: the predictions of the last validation, None before the first. metrics: the numbers of that validation.
    terms: names and values (T,) of the last step's losses.
    plan: the values chosen for flags that were "auto"; `config` has no "auto" left.
    swap: which categories swap names on a mirrored radiograph. flip: share of the radiographs that are mirrored: none
    where a category would become one that has no name.
    on_device: the canvases on the device that trains, None where they stay in their file.
    """

    monitored = ""
    model: nn.Module
    needs_masks = False
    names_sides = True

    def __init__(self, config: TrainingConfig, store: Store, chosen_flags: Plan | None = None) -> None:
        super().__init__()
        self.train_rows, self.val_rows = training_rows(store, config.fold)
        self.plan = chosen_flags or plan(config, len(self.train_rows))
        self.plan.choose("fold", *_fold_and_reason(store))
        self.config, self.store = self.plan.config, store
        config = self.config
        self.swap = chosen(store.categories, config.swap)
        is_nameless = bool(self.swap.alone) and self.names_sides
        self.flip = 0.0 if is_nameless or config.augment == "none" else config.flip
        self.validated: Predictions | None = None
        self.metrics: dict[str, Any] = {}
        self.first_epoch = self.first_batch = 0
        self.terms: tuple[tuple[str, ...], Tensor] = ((), torch.zeros(0))
        self.on_device: DeviceStore | None = None
        self.sampler: EpochSampler | None = None
        self.mirrored_channels = self.augmentation().mirrored_channels
        # The subclass builds the model next.
        torch.manual_seed(config.seed)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning tells the sampler which epoch a resumed training is in after workers fetched their first batches.
        progress = progress_of(checkpoint)
        self.first_epoch, self.first_batch = progress.epochs, progress.batches
        expected, loaded = self.state_dict(), checkpoint["state_dict"]
        # How canvases are normalised is in the checkpoint alone where it is not as for ImageNet.
        places = [place for place, module in self.named_modules() if isinstance(module, Normalise)]
        normalised = {f"{place}.{part}" for place in places for part in ("mean", "std")}
        for name in [name for name in (*expected, *loaded) if name not in normalised]:
            if name not in expected or name not in loaded or expected[name].shape != loaded[name].shape:
                raise InputError(f"the checkpoint holds another model ({name}) than the flags of this run describe")

    @property
    def ids(self) -> tuple[set[str], set[str]]:
        """Ids of the radiographs that train, and of those that validate."""
        training, validating = (
            {self.store.records[row]["source_id"] for row in rows} for rows in (self.train_rows, self.val_rows)
        )
        return training, validating

    @functools.cached_property
    def split(self) -> str:
        """SHA-256, in hex, of `ids`."""
        return hashlib.sha256(json.dumps([*map(sorted, self.ids)]).encode()).hexdigest()

    def check_split(self, progress: Progress) -> None:
        """Raises InputError where other radiographs train or validate than before: radiographs that have trained would
        decide which epoch is best."""
        if progress.split and progress.split != self.split:
            raise InputError(
                f"{self.config.data_path} has other radiographs, or other folds, than the dataset that the run was "
                "started with: give that one as --data-path, or start another run with --weights and this run"
            )

    def leave_out(self, unused: np.ndarray, why: str) -> None:
        """Takes radiographs out of training and validation, see `without`."""
        self.train_rows, self.val_rows = without(self.store, self.train_rows, self.val_rows, unused, why)

    def describe(self) -> dict[str, Any]:
        """What model.json says of this model; subclasses add their architecture and thresholds."""
        return {
            "categories": {str(category_id): name for category_id, name in self.store.categories.items()},
            "canvas_size": self.store.canvas_size,
            **({"bits": self.store.bits} if self.store.bits > 8 else {}),
            "flips": self.flip > 0,
            "swap": self.swap.pairs,
            "metrics": self.metrics,
        }

    def rows_to_show(self, count: int) -> list[int]:
        """Rows of up to `count` validation radiographs for pictures: those with the most kinds of findings first."""
        pairs = np.unique(np.stack([self.store.boxes.images, self.store.boxes.labels]), axis=1)
        kinds = np.bincount(pairs[0], minlength=len(self.store))[self.val_rows]
        return self.val_rows[np.argsort(kinds, kind="stable")[::-1][:count]].tolist()

    def augmentation(self) -> Augmentation:
        """The random changes that the config asks for."""
        return Augmentation(self.config.augment, self.swap.of, self.flip, self.config.distortion)

    @property
    def augments_on_device(self) -> bool:
        """Whether a batch is augmented as a whole, on the device that trains, and not by the workers."""
        if self.config.augment_on == "workers":
            return False
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        return self.config.augment_on == "device" or on_gpu or self.on_device is not None

    def training_options(self) -> dict[str, Any]:
        """Options of the training dataset: what it leaves to the device."""
        return {"later": self.augments_on_device, "pixels": self.on_device is None}

    def validation_options(self) -> dict[str, Any]:
        """Options of the validation dataset: what it leaves to the device."""
        return {"pixels": self.on_device is None}

    def loader(self, dataset: Any, collate: Any, sampler: EpochSampler | None = None) -> Any:
        """A loader with the config's batch size and workers."""
        if sampler is not None:
            sampler.set_epoch(self.first_epoch)
            sampler.first = (self.first_epoch, self.first_batch * self.config.batch_size)
            sampler.batch_size = self.config.batch_size
            self.sampler = sampler
        return make_loader(dataset, self.config.batch_size, self.config.n_workers, collate, sampler)

    def my_val_rows(self) -> np.ndarray:
        """The validation rows of this process; `gathered` leaves out duplicates."""
        rows = self.val_rows[self.global_rank :: self.trainer.world_size]
        # Lightning skips a validation without batches, and the other processes would wait for this one.
        return rows if len(rows) else self.val_rows[:1]

    def share(self, batch_index: int) -> Share | None:
        """This process's part of a batch; None where it trains alone."""
        world, rank = self.trainer.world_size, self.global_rank
        if world == 1 or self.sampler is None:
            return None
        draws = self.draws(batch_index, batch_index + 1)
        return Share(len(draws[rank::world]), len(draws), rank, world)

    def draws(self, first: int, last: int) -> range:
        """Numbers of the radiographs that all processes see in the batches from `first` to before `last`."""
        assert self.sampler is not None
        size, total = self.config.batch_size * self.trainer.world_size, self.sampler.total
        return range(min(first * size, total), min(last * size, total))

    def rows_of_batches(self, first: int, last: int) -> list[int]:
        """Rows of the store that all processes see in these batches of this epoch."""
        assert self.sampler is not None
        return self.train_rows[self.sampler.positions()[self.draws(first, last)]].tolist()

    def check_store_device(self, device: torch.device) -> None:
        """Raises InputError where the config's `store_device` does not go with `device`."""
        if (place := where_to_store(self.config.store_device, device)) is not None:
            check_memory(self.store, np.union1d(self.train_rows, self.val_rows), place, self.needs_masks)

    def check_validation(self) -> None:
        """Raises InputError where the validation radiographs cannot tell which epoch is best; subclasses define it."""

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            synchronise_norms(self.model)
        device = where_to_store(self.config.store_device, self.trainer.strategy.root_device)
        if device is not None and self.on_device is None:
            rows = np.union1d(self.train_rows, self.val_rows)
            self.on_device = DeviceStore(self.store, rows, device, self.needs_masks)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Completes a batch on its device: adds canvases that are there already, and augments them."""
        batch = dict(batch)
        if "images" not in batch:
            assert self.on_device is not None
            batch["images"] = self.on_device.images(batch["rows"])
            if self.needs_masks:
                batch["masks"] = self.on_device.masks(batch["rows"])
        changes = batch.pop("changes", None)
        if changes is not None:
            batch["images"] = change_images(batch["images"], changes)
            if "masks" in batch:
                batch["masks"] = change_masks(batch["masks"], changes, self.mirrored_channels)
        return batch

    def configure_optimizers(self) -> Any:
        return configure(self.model, self.config, int(self.trainer.estimated_stepping_batches), self.monitored)

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        # Whatever a step draws at random depends on seed, epoch, step and the place in the batch of all processes: so a
        # resumed run repeats it, and any number of processes draws the same.
        torch.manual_seed(sample_seed(self.config.seed, self.current_epoch, batch_index))
        begin_step(self.share(batch_index))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_index: int) -> None:
        end_step()

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The losses of a training batch on the device, by name, scalars; subclasses define them."""
        raise NotImplementedError

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        return self.total(self.losses(batch))

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The sum of a step's losses, by name, scalars; `terms` keeps those of all processes for the guard, which logs
        them too."""
        values = torch.stack(list(losses.values()))
        loss = values.sum()
        terms = mean_of_processes(values.detach())
        self.terms = (tuple(losses), terms)
        self.log("train/loss", terms.sum(), prog_bar=True, logger=False, batch_size=1)
        for name, value in zip(losses, terms, strict=True):
            self.log(f"train/{name}", value, logger=False, batch_size=1)
        return loss

    def gathered(self, part: Any) -> Sequence[Any]:
        """`part` of every process that has validation rows of its own, in the order of their ranks."""
        if self.trainer.world_size == 1:
            return [part]
        of_processes: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(of_processes, part)
        return of_processes[: len(self.val_rows)]

    def log_metrics(self, values: dict[str, Any]) -> None:
        """Logs numbers, and a dict of them as name/key."""
        flat: dict[str, float] = {}
        for name, value in values.items():
            if isinstance(value, dict):
                flat |= {f"{name}/{key}": float(number) for key, number in value.items() if _is_number(number)}
            elif _is_number(value) and name != "n_images":
                flat[name] = float(value)
        # All processes have the same metrics: each decides by them what is best, and whether to stop.
        self.log_dict(flat)


def need_located(store: Store, rows: np.ndarray, boxes: np.ndarray, what: str) -> None:
    """Raises InputError where the radiographs `rows` show findings, and none has one of `boxes`, rows of store.boxes.

    what: "box" or "mask". Radiographs that are all normal are no error.
    """
    if store.labels[rows].any() and not np.isin(store.boxes.images[boxes], rows).any():
        raise InputError(
            f"{store.path} has labels and no {what} among its {len(rows)} radiographs to train on: give --task "
            f"classification, or a dataset with a {what} there"
        )


def without(
    store: Store, train_rows: np.ndarray, val_rows: np.ndarray, unused: np.ndarray, why: str
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are not `unused`, (len(store),) bool; prints how many are left out, and why.

    Raises InputError where none would be left to train or to validate.
    """
    left = [rows[~unused[rows]] for rows in (train_rows, val_rows)]
    n_training, n_validating = len(train_rows) - len(left[0]), len(val_rows) - len(left[1])
    if not n_training and not n_validating:
        return train_rows, val_rows
    if not len(left[0]) or (len(val_rows) and not len(left[1])):
        what = "validate" if len(left[0]) else "train"
        raise InputError(f"none of the radiographs of {store.path} that {what} can be used: {why}")
    print(f"{n_training} radiographs that would train and {n_validating} that would validate are left out: {why}")
    return left[0], left[1]


def _fold_and_reason(store: Store) -> tuple[int | str, str]:
    """What validates by default, and the reason where it is not fold 0."""
    fold, n_val = default_fold(store), np.count_nonzero(store.splits == VAL)
    if fold == VAL:
        return fold, f"the dataset has a validation split of {n_val} radiographs"
    return fold, f"the dataset's validation split has only {n_val} radiographs, and is not used" if n_val else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
