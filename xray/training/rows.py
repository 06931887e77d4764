"""Which radiographs train and which validate."""

import numpy as np

from xray.datasets.store import Store
from xray.errors import InputError


def training_rows(store: Store, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the store that train (every fold but one) and that validate (that fold); test radiographs do neither.

    Raises InputError if the fold does not exist or nothing would be left on either side.
    """
    validation = store.rows(split="train", fold=fold)
    training = np.setdiff1d(store.rows(split="train"), validation)
    if len(training) == 0:
        raise InputError(
            f"all {len(validation)} training radiographs are in fold {fold}: convert with --n-folds 2 or more"
        )
    return training, validation
