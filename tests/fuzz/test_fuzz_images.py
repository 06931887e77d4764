"""A sample of `make fuzz`: mutated radiographs, of every kind some, through the pool that decodes."""

import collections
from pathlib import Path

import fuzz_images
import pytest
from fuzz_bytes import mutated
from fuzz_files import write_originals

from xray.radiographs.decoding import Decoded, decode_canvases

PER_KIND = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the originals."""
    folder = tmp_path_factory.mktemp("fuzz")
    write_originals(folder / "originals")
    return folder


def test_originals_are_read_and_mutations_are_others(folder: Path) -> None:
    """What is fuzzed was readable before, but for what no radiograph is; the same number makes the same file."""
    paths = sorted((folder / "originals").iterdir())
    outcomes = decode_canvases(paths, 64, 2)
    refused = [path.name for path, outcome in zip(paths, outcomes, strict=True) if not isinstance(outcome, Decoded)]
    assert refused == ["dicom explicit frames"]
    for path in paths:
        made = {mutated(path.read_bytes(), path.name, 5, number) for number in range(20)}
        assert len(made) > 15
        assert mutated(path.read_bytes(), path.name, 5, 7) in made


def test_mutated_radiographs_cost_themselves_only(folder: Path) -> None:
    kinds = sorted(path.name for path in (folder / "originals").iterdir())
    rows = fuzz_images.new_rows(kinds)
    names = [fuzz_images.name_of(kind, 1, number) for number in range(PER_KIND) for kind in kinds]
    breaches = [
        breach
        for name, outcome in fuzz_images.run_images(folder, names, 2)
        if (breach := fuzz_images.count(rows, name, outcome))
    ]
    assert breaches == []
    total = collections.Counter()
    for row in rows.values():
        total.update(tried=row.tried, refused=row.refused)
    # Both happen, or nothing was tested.
    assert total["tried"] == len(names)
    assert len(names) // 4 < total["refused"] < len(names)
