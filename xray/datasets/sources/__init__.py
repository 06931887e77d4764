"""The sources of datasets: a module for each, whose `read_NAME` makes a `xray.datasets.source.Source` of its files."""

import contextlib
import gc
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray.errors import InputError

if TYPE_CHECKING:
    from xray.datasets.source import Source

_NUMBERED = re.compile(r"(?:(?:class|category|label|cls|cat|id|target|finding)?[ _-]*)?\d+", re.IGNORECASE)
"""Names that are numbers: 0, class_3, "Label 7"."""
NUMBERS = "categories that are called by numbers: --map FILE.yaml gives them names (0: normal, 1: Nodule)"

PUBLIC: dict[str, str] = {
    "nih": """NIH ChestX-ray14: Data_Entry_2017_v2020.csv, BBox_List_2017.csv and folders of PNG files; with
    train_val_list.txt and test_list.txt, its official split.""",
    "rsna": """RSNA Pneumonia Detection Challenge 2018: stage_2_train_labels.csv, stage_2_detailed_class_info.csv and
    stage_2_train_images/; with RSNA's mapping to NIH's set, its patients.""",
    "vindr": """VinDr-CXR of PhysioNet: annotations/, train/ and test/; 22 local and 5 global findings.""",
    "chestxdet": """ChestX-Det: ChestX_Det_train.json, ChestX_Det_test.json, train_data/ and test_data/; boxes with
    outlines of 13 findings.""",
    "fisabio": """SIIM-FISABIO-RSNA COVID-19 Detection: train_image_level.csv, train_study_level.csv and train/.""",
    "tbx11k": """TBX11K: annotations/json/ and imgs/; boxes of tuberculosis, healthy and sick radiographs.""",
    "objectcxr": """Object-CXR: train.csv, dev.csv, test.csv and the folders of JPEG files; foreign objects.""",
    "jsrt": "JSRT: raw JPCLN001.IMG, JPCNN001.IMG, … (or pictures of these names) and CLNDAT_EN.txt; nodules.",
    "mscxr": "MS-CXR: its table beside MIMIC-CXR-JPG's folder files/; boxes of 8 findings, others unknown.",
    "padchestgr": "PadChest-GR: grounded_reports_….json, master_table.csv and the PNG files; boxes by two readers.",
}
"""Public sets that need no flag of their own: kind → what it is and what it needs, for --help.

Each has a module of that name with `read_<kind>(data_path)`.
"""


def convert(
    kind: str, data_path: Path | str, save_path: Path | str, *, n_workers: int = 1, **flags: Any
) -> dict[str, Any]:
    """Converts a source into a dataset directory; returns the content of its conversion.json.

    kind: a subcommand of `convert`, such as "vinbig" or "coco". flags: the arguments of `read_<kind>` in the module of
    that name, and those of `xray.datasets.conversion.write_store`; with VinBigData's `table_only` no radiograph is
    opened and no images.npy written. Further flags, which every source has:
    map: file of a category map, or the name of a shipped one. splits, splits_by: which radiographs train, validate and
    test, see `xray.datasets.splits.apply_splits`. leaks: "drop" leaves out radiographs whose patient is in another
    split as well, "keep" only names them.
    Raises InputError as these functions do.
    """
    # Workers that read masks import modules of this package: they need not load all that conversion needs.
    from xray.datasets.category_map import read_map
    from xray.datasets.conversion import write_store
    from xray.datasets.mapped import apply_map
    from xray.datasets.splits import apply_splits, without_leaks

    names = ("image_size", "bits", "n_folds", "readers", "seed", "overwrite", "decode")
    writing = {name: flags.pop(name) for name in names if name in flags}
    map_name, splits = flags.pop("map", None), flags.pop("splits", ())
    by, leaks = flags.pop("splits_by", "name"), flags.pop("leaks", "drop")
    # Before anything is read: reading may take minutes.
    mapping = read_map(str(map_name), kind) if map_name else None
    if kind in ("siim", "lungs", "folders", "candid", "chexlocalize"):
        # These open files before radiographs are decoded: masks, or possible copies.
        flags["n_workers"] = n_workers
    if mapping and kind in ("coco", "tree", "table"):
        # A line for "Normal" goes before what its name sounds like.
        flags["kept"] = mapping.findings
    read = getattr(importlib.import_module(f"{__name__}.{kind}"), f"read_{kind}")
    pixels = not flags.get("table_only", False)
    with _rarer_collection():
        source = read(data_path, **flags)
        if mapping:
            source = apply_map(source, mapping)
        if splits:
            source = apply_splits(source, splits, by, data_path)
        source = without_leaks(source, leaks == "keep")
        _check_names(source)
        _name_numbers(source)
        return write_store(source, save_path, n_workers=n_workers, pixels=pixels, **writing)


@contextlib.contextmanager
def _rarer_collection() -> Iterator[None]:
    """Lets Python look for cycles among its objects more rarely.

    A table of 120,000 radiographs is millions of objects that stay, and looking through all of them again and again
    takes 40 % of the time; there are hardly any cycles.
    """
    before = gc.get_threshold()
    if before[0]:  # 0 is never, which a caller may have chosen.
        gc.set_threshold(max(before[0], 100_000), 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _check_names(source: "Source") -> None:
    """Raises InputError for a category whose name no table, file or terminal can hold as it is."""
    from xray.radiographs.names import has_control

    names = [category["name"] for category in source.categories if has_control(category["name"])]
    if names:
        raise InputError(
            f"{source.layout} has a category named {names[0]!r}, with a control character or a line break in it"
            + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
            + ": rename it there, or by --map"
        )


def _name_numbers(source: "Source") -> None:
    """Warns where all categories are numbers, whose meaning is not guessed: 0 need not be a normal radiograph."""
    from xray.radiographs.file_warnings import FileWarning

    names = [category["name"] for category in source.categories]
    if names and all(_NUMBERED.fullmatch(name.strip()) for name in names):
        source.warnings.append(FileWarning(NUMBERS, source.layout, ", ".join(names[:10])))
