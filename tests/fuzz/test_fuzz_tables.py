"""A sample of `make fuzz`: mutated tables, run lengths, JSON and YAML, of every kind some, through their readers."""

from pathlib import Path

import fuzz_images
import fuzz_tables
import pytest

PER_KIND = 20


def test_originals_are_read(tmp_path: Path) -> None:
    for kind, own in fuzz_tables.KINDS.items():
        for number in (0, 1):
            folder = tmp_path / f"{kind} {number}"
            folder.mkdir()
            own.read(folder, own.original(), number)


@pytest.mark.timeout(120)
def test_mutated_texts_give_a_clear_error_or_are_read(tmp_path: Path) -> None:
    rows = fuzz_tables.new_rows()
    # Models need torch, which every worker would import for this alone: see below.
    kinds = [kind for kind in fuzz_tables.KINDS if not kind.startswith("model")]
    names = [fuzz_images.name_of(kind, 1, number) for number in range(PER_KIND) for kind in kinds]
    breaches = [
        breach
        for name, outcome in fuzz_tables.run_tables(tmp_path, names, 2)
        if (breach := fuzz_tables.count(rows, name, outcome))
    ]
    assert breaches == []
    refused = sum(row.refused for row in rows.values())
    assert len(names) // 4 < refused < len(names)


@pytest.mark.parametrize("kind", ["model.json", "model.safetensors"])
def test_mutated_models_give_a_clear_error_or_are_read(kind: str, tmp_path: Path) -> None:
    tried = [fuzz_tables.try_table((tmp_path, fuzz_images.name_of(kind, 1, number))) for number in range(PER_KIND)]
    assert [each.breach for each in tried if each.breach] == []
    assert any(each.refused for each in tried)
