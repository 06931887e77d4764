"""Converts radiographs and their annotations into the dataset directory that training reads."""

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

from xray.commands.convert_flags import Config, Flags, Lungs, Table
from xray.commands.runner import command
from xray.errors import FlagError, InputError, need, spelled
from xray.flags import check_ranges


def main(config: Flags) -> None:
    """Converts, then prints what was taken, what was left out, and the next command."""
    check(config)
    if config.save_path.resolve() == config.data_path.resolve():
        raise InputError(f"--save-path and --data-path are both {config.data_path}: choose another --save-path")
    others = ("debug", "engine", "address", "cores_per_actor")
    names = [field.name for field in dataclasses.fields(config) if field.name not in others]
    flags: dict[str, Any] = {name: getattr(config, name) for name in names}
    flags["n_workers"] = config.n_workers or len(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        if config.engine == "ray":
            need("--engine ray", "ray", "ray")
            from xray.cluster.decoding import decoder
            from xray.cluster.ray import connected

            flags["decode"] = decoder(stack.enter_context(connected(config.address, config.cores_per_actor)))
        # The sources are imported here: --help need not wait for them.
        from xray.datasets.sources import convert

        conversion = convert(type(config).__name__.lower(), **flags)
    show(conversion, config.save_path)


def check(config: Flags) -> None:
    """Raises FlagError if a value is out of range or two flags contradict each other."""
    from xray.cluster.ray import check_flags

    check_ranges(config)
    check_flags(config.engine, config.address, config.cores_per_actor)
    if config.engine == "ray" and getattr(config, "table_only", False):
        raise FlagError("--engine ray decodes radiographs, and --table-only opens none: leave one of the two out")
    for name in ("annotations", "table", "yaml", "images", "masks", "category"):
        if getattr(config, name, None) == "":
            raise FlagError(f"--{name} is empty: give a name, or leave the flag out")
    if isinstance(config, Table):
        from xray.datasets.sources.table_boxes import units_of

        units_of(config.units)
    if config.map == "" or "" in config.splits:
        raise FlagError("--map and --splits need a value: give one, or leave the flag out")
    if config.splits_by == "patient" and not config.splits:
        raise FlagError("--splits-by patient says what --splits names: give that too")
    if isinstance(config, Lungs) and (config.images is None) != (config.masks is None):
        raise FlagError("--images and --masks name two folders: give both, or neither for a known layout")
    if isinstance(config, Lungs) and config.values:
        from xray.datasets.sources.mask_account import read_named_values

        if config.category != "Lung":
            raise FlagError("--category is one name for all masks, --values names each value: give one of the two")
        read_named_values(config.values)


def show(conversion: dict[str, Any], save_path: Path) -> None:
    """Prints the counts of a conversion.json as a table, and the next command."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from xray.datasets.conversion_account import print_account

    counts, dropped = conversion["counts"], conversion["dropped"]["counts"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    folds = ", ".join(str(count) for count in counts["images_per_fold"].values())
    table.add_row(Text("radiographs", "bold"), str(counts["images"]))
    table.add_row("  for training, by fold", folds)
    if counts["val_images"]:
        table.add_row("  for validating", str(counts["val_images"]))
    if counts["test_images"]:
        table.add_row("  for testing", str(counts["test_images"]))
    is_classified = conversion["source"] in ("folders", "chexpert", "mimic", "padchest")
    has_labels_alone = is_classified or conversion["layout"] == "labels"
    if not has_labels_alone:
        table.add_row("  without a box", str(counts["images_without_boxes"]))
    if counts["masks"] or not counts["annotations"]:
        for name, count in counts["images_per_label"].items():
            table.add_row(f"  with {name}", str(count))
    if has_labels_alone:
        table.add_row("  without a label", str(counts["images_without_labels"]))
    else:
        table.add_row(Text("boxes", "bold"), str(counts["annotations"]))
        if counts["masks"]:
            table.add_row("  with a mask", str(counts["masks"]))
        for name, count in counts["annotations_per_category"].items():
            table.add_row(f"  {name}", str(count))
    table.add_row(Text("left out or changed", "bold"), str(sum(dropped.values())))
    for reason, count in dropped.items():
        table.add_row(f"  {reason}", str(count))
    # Names of findings may look like Rich's markup.
    console = Console(highlight=False, markup=False)
    console.print(table)
    if unknown := counts.get("unknown_per_label"):
        named = ", ".join(f"{name} in {n}" for name, n in unknown.items())
        text = f"not known, so that neither training nor metrics count it: {named} of {counts['images']} radiographs"
        console.print(text, soft_wrap=True)
    print_account(conversion, save_path)
    if conversion["parameters"]["pixels"]:
        console.print(f"next: {following(conversion)} --data-path {save_path}", soft_wrap=True)


def following(conversion: dict[str, Any]) -> str:
    """The command that takes the dataset, without its --data-path."""
    counts, source = conversion["counts"], conversion["source"]
    if not counts["train_images"]:
        split = "val" if counts["val_images"] else "test"
        return f"{spelled('infer')} --weights RUN --split {split} --save-path OUT"
    if not counts["train_annotations"] or source in ("folders", "chexpert", "mimic", "padchest"):
        return f"{spelled('train')} --task classification"
    if source in ("siim", "lungs", "candid", "chexlocalize") and counts["masks"]:
        return f"{spelled('train')} --task segmentation"
    return spelled("train")


def run() -> int:
    """The command; returns its exit status."""
    return command(Config, main, check)
