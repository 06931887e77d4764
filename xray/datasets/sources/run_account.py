"""What the run lengths of a table say together: which are masks, and whether they are in the dialect expected."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from xray.datasets import source as reasons
from xray.datasets.source import Dropped
from xray.datasets.sources.mask_account import WITH_IMAGE
from xray.datasets.sources.mask_reading import Region, RunRegions
from xray.errors import InputError
from xray.radiographs.workers import Failed
from xray.structures import rle

OTHER_DIALECT = "run lengths in the other dialect"


@dataclasses.dataclass(frozen=True)
class RunOutcome:
    """What was read of one radiograph's mask.

    left_out: why the radiograph is left out, None where it is used.
    fits_other: its run lengths are no mask in the table's dialect, but are one in the other.
    """

    regions: Sequence[Region] = ()
    left_out: Dropped | None = None
    fits_other: bool = False


def judge_runs(
    file_name: str, image_id: str, place: str, dialect: rle.Dialect, outcome: RunRegions | Failed
) -> RunOutcome:
    """What becomes of a radiograph's run lengths; place: where they were read."""
    if isinstance(outcome, Failed):
        return RunOutcome(left_out=Dropped(file_name, reasons.UNREADABLE, detail=outcome.reason))
    if outcome.regions is not None:
        return RunOutcome(outcome.regions)
    hint = ""
    if outcome.fits_other and not outcome.is_other:
        hint = f"; it would be a mask in the {rle.other(dialect)} dialect"
    reason = OTHER_DIALECT if outcome.is_other else outcome.reason
    detail = f"{image_id}: {outcome.error}{hint}"
    return RunOutcome(left_out=Dropped(place, reason, WITH_IMAGE, detail), fits_other=outcome.fits_other)


def check_dialect(table: Path, outcomes: Sequence[RunOutcome], dialect: rle.Dialect, mask_size: int | None) -> None:
    """Raises InputError if more masks are refused for one reason that concerns the whole table than can be used."""
    n_usable = sum(bool(outcome.regions) for outcome in outcomes)
    n_other = sum(outcome.fits_other for outcome in outcomes)
    refused = [outcome.left_out.reason for outcome in outcomes if outcome.left_out is not None]
    n_beyond = refused.count(rle.BEYOND)
    if n_other > n_usable:
        other = rle.other(dialect)
        raise InputError(
            f"{table}: {n_other} masks are run lengths of the {other} dialect, {n_usable} of the {dialect} one: "
            f"add --dialect {other}"
        )
    if n_beyond > n_usable:
        advice = f"--mask-size is {mask_size}" if mask_size else "have they been resized? Give --mask-size 1024"
        raise InputError(f"{table}: {n_beyond} masks run beyond their radiographs, {n_usable} lie within: {advice}")
