"""Which radiographs a model counts as having been run on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from xray.datasets.store import Store, open_store
from xray.inference.coverage import Coverage
from xray.structures.boxes import BoxTable
from xray.structures.predictions import Predictions


@pytest.fixture
def store(tmp_path: Path, write_table_store: Callable[..., Path]) -> Store:
    images = [(name, "train", fold, None) for fold, names in enumerate(("ab", "cd")) for name in names]
    return open_store(write_table_store(tmp_path / "data", images, []), pixels=False)


def found(*rows: tuple[str, int]) -> Predictions:
    """Rows of (image_id, category)."""
    names = tuple(dict.fromkeys(name for name, _ in rows))
    boxes = [(0, 0, 1, 1) if label == 15 else (0, 0, 9, 9) for _, label in rows]
    table = BoxTable.of([names.index(name) for name, _ in rows], [label for _, label in rows], boxes, [0.5] * len(rows))
    return Predictions(names, table)


def test_a_file_is_of_what_it_names_or_of_whole_folds(store: Store) -> None:
    everywhere = found(*((name, 15) for name in "abcd"), ("stranger", 1))
    for model, covered, without_store in (
        (found(("a", 15), ("a", 1), ("c", 15)), "ac", "ac"),
        (found(("a", 15), ("b", 1)), "ab", "all"),
        (found(("a", 1)), "ab", "all"),
        (found(("a", 1), ("c", 1)), "abcd", "all"),
        (found(), "", ""),
    ):
        coverage = Coverage.of([everywhere, model], store)
        assert coverage.image_ids == (*"abcd", "stranger")
        assert coverage.covered == (frozenset(coverage.image_ids), frozenset(covered))
        alone = Coverage.of([everywhere, model]).covered[1]
        assert alone == frozenset(coverage.image_ids if without_store == "all" else without_store)
        assert Coverage.of([everywhere, model], store, [False, True]).covered[1] == frozenset(model.image_ids)


def test_what_is_missing_is_named_and_counted(store: Store) -> None:
    coverage = Coverage.of([found(("a", 1)), found(("b", 15), ("c", 15))], store)
    end = "its model has no vote there, and the others' weights count alone"
    assert list(coverage.gaps(["one.json", "two.json"])) == [
        f"one.json was not run on 1 of 3 radiographs (such as 'c'): {end}",
        f"two.json was not run on 1 of 3 radiographs (such as 'a'): {end}",
    ]
    (said,) = Coverage.of([found(("a", 1)), found()], store).gaps(["one.json", "empty.json"])
    assert said.startswith("empty.json has no rows, so that nothing says on what its model was run: it has no vote")
