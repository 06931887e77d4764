"""CANDID-PTX (Dunedin, 2021): masks of pneumothoraces, chest tubes and acute rib fractures → a source to convert.

Tables: `Pneumothorax_reports.csv` (SOPInstanceUID, EncodedPixels, filename, Report), `chest_tube.csv` and
`acute_rib_fracture.csv`, also called Rib_fracture_mask_rle.csv (anon_SOPUID, mask_rle). Radiographs: DICOM files
without a suffix, named by their SOPInstanceUID, in dataset/ or anywhere else below; 1024 x 1024 pixels.

In EncodedPixels, -1 says that there is no pneumothorax; an empty cell says nothing: whether there is one is unknown. An
image has a row for each part of its mask, and some rows are repeated. The run lengths are read as SIIM-ACR's, counted
from the end of the run before (two public programs for the set do so); others are caught, as there.

Of the other two tables, a radiograph without a row has no such thing: all radiographs were read for all three (Feng et
al., Radiology: Artificial Intelligence 3(6), 2021). A table that is missing is no category.

The patient is what stands in front of `_` in `filename`, in whichever table; in an edition of the tables that has
StudyInstanceUID in place of it, each study is one. Where tables of both editions lie together, the patient counts, also
for the other radiographs of a study; radiographs of which only a study is known then are named. The published splits
have patients in several parts and are not used: all radiographs are for training, in folds that keep patients together.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from xray.datasets import source as reasons
from xray.datasets.source import Source, data_root
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.mask_account import read_masks
from xray.datasets.sources.mask_reading import Runs, read_runs
from xray.datasets.sources.run_account import RunOutcome, check_dialect, judge_runs
from xray.datasets.sources.set_tables import check_ids, need_table, one_table
from xray.datasets.sources.siim_tables import CONTRADICTORY
from xray.datasets.sources.tables import read_table
from xray.radiographs.file_warnings import FileWarning
from xray.structures import rle
from xray.structures.values import is_missing

PNEUMOTHORAX = "Pneumothorax"
REPORTS = ("Pneumothorax_reports.csv", "*[Pp]neumothorax*.csv")
OTHERS = {
    "Chest tube": ("chest_tube.csv", "*[Cc]hest*[Tt]ube*.csv"),
    "Acute rib fracture": ("acute_rib_fracture.csv", "*[Rr]ib*[Ff]racture*.csv"),
}
"""Category → names that its table may have."""

SEVERAL_PATIENTS = "radiograph of several patients"
STUDY_FOR_PATIENT = "radiographs of which only the study is known, taken for a patient, while others have their patient"
WHOSE = ("filename", "StudyInstanceUID")
"""Columns that tell whose a radiograph is, the surer one first: the patient, and the study."""
People = dict[str, dict[str, str]]
"""File → what a column of WHOSE calls its patient or study → where it first says so."""


@dataclasses.dataclass
class _Cells:
    """The rows of one table about one radiograph. runs: texts of masks, each once."""

    place: str
    runs: dict[str, None] = dataclasses.field(default_factory=dict)
    is_negative: bool = False


def read_candid(
    data_path: Path | str,
    *,
    dialect: rle.Dialect = "relative",
    mask_size: int | None = None,
    n_workers: int = 1,
) -> Source:
    """Reads the tables and masks; of the radiographs, the headers of those with a mask.

    dialect: of the run lengths. mask_size: side in pixels of the squares in which they count (1024 in the set), where
    the radiographs have been made smaller. n_workers: processes that read masks; 0 reads them in this one.

    Each 8-connected component of a mask becomes one annotation. Raises InputError for a missing directory, table or
    column, and for a table most of whose masks fit the radiographs only in the other dialect, or not at all.
    """
    root = data_root(data_path, "put CANDID-PTX's Pneumothorax_reports.csv and its folder dataset/ there")
    paths = {PNEUMOTHORAX: need_table(root, REPORTS, "CANDID-PTX")}
    paths |= {name: path for name, names in OTHERS.items() if (path := one_table(root, *names)) is not None}
    collector = Collector("candid", root, paths)
    people: dict[str, People] = {column: defaultdict(dict) for column in WHOSE}
    cells = {}
    for name, path in paths.items():
        columns = ("SOPInstanceUID", "EncodedPixels") if name == PNEUMOTHORAX else ("anon_SOPUID", "mask_rle")
        cells[name] = _read_cells(collector, path, *columns, people)
    _name_patients(collector, *(people[column] for column in WHOSE))
    known = {name for of_table in cells.values() for name in of_table}
    for name in sorted(known):
        # Nobody reported on a radiograph that is in another table alone.
        of_image = {category: of_table[name] for category, of_table in cells.items() if name in of_table}
        unknown = [] if PNEUMOTHORAX in of_image else [collector.category(PNEUMOTHORAX)]
        for category, of_table in of_image.items():
            if of_table.runs and of_table.is_negative:
                collector.lose(name, of_table.place, CONTRADICTORY)
            elif not of_table.runs and not of_table.is_negative:
                unknown.append(collector.category(category))
        size = None if mask_size is None else (mask_size, mask_size)
        collector.describe(name, unknown=unknown, size=size)
    outcomes = {
        category: _read_masks(collector, of_table, dialect, mask_size, n_workers)
        for category, of_table in cells.items()
    }
    # All tables together: the few masks of a small one do not say in which dialect the set is.
    judged = [outcome for of_category in outcomes.values() for outcome in of_category.values()]
    check_dialect(paths[PNEUMOTHORAX], judged, dialect, mask_size)
    for category, of_category in outcomes.items():
        for name, outcome in of_category.items():
            if outcome.left_out is not None:
                drop = outcome.left_out
                collector.lose(name, drop.where, drop.reason, drop.detail)
            for region in outcome.regions:
                label, place = collector.category(category), cells[category][name].place
                collector.box(name, label, region.box.tolist(), place, mask=region.rle)
    return collector.source()


def _read_cells(
    collector: Collector, path: Path, id_column: str, cell_column: str, people: Mapping[str, People]
) -> dict[str, _Cells]:
    """File → what a table says of it. people: for each of WHOSE, what is known so far; it is added to."""
    table, content = read_table(path, (id_column, cell_column), WHOSE)
    collector.read(content)
    check_ids(path, table, id_column, (not is_missing(t) and not rle.is_empty(t) for t in table[cell_column]))
    names = (table[column].tolist() if column in table.columns else [""] * len(table) for column in WHOSE)
    cells: dict[str, _Cells] = {}
    seen: set[tuple[str, str]] = set()
    columns = (table[id_column].tolist(), table[cell_column].tolist(), *names, table["line"].tolist())
    for uid, text, file_name, study, line in zip(*columns, strict=True):
        place = f"{path.name} line {line}"
        if not uid:
            continue
        name = collector.file_of(uid, place)
        if name is None:
            continue
        for column, said in zip(WHOSE, (file_name.partition("_")[0], study), strict=True):
            if not is_missing(said):
                people[column][name].setdefault(said, place)
        value = "" if is_missing(text) else "-1" if rle.is_empty(text) else text
        if (name, value) in seen:
            collector.leave_out(place, reasons.DUPLICATE)
            continue
        seen.add((name, value))
        of_image = cells.setdefault(name, _Cells(place))
        of_image.is_negative |= value == "-1"
        of_image.runs |= {} if value in ("", "-1") else {value: None}
    return cells


def _name_patients(collector: Collector, patients: People, studies: People) -> None:
    """Tells the collector the patients; loses radiographs that have several, or several studies and no patient."""
    of_study: dict[str, set[str]] = defaultdict(set)
    for name, of_image in studies.items():
        if len(of_image) == 1:
            of_study[next(iter(of_image))].update(patients.get(name, {}))
    for name in sorted({*patients, *studies}):
        said = patients.get(name) or studies[name]
        if len(said) > 1:
            first, (other, place) = next(iter(said)), list(said.items())[1]
            collector.lose(name, place, SEVERAL_PATIENTS, f"{first} and {other}")
            continue
        ((who, place),) = said.items()
        if name not in patients:
            known = of_study.get(who, set())
            if len(known) == 1:
                who = next(iter(known))
            elif patients:
                collector.warnings.append(FileWarning(STUDY_FOR_PATIENT, name, place))
        collector.describe(name, patient=who)


def _read_masks(
    collector: Collector, cells: dict[str, _Cells], dialect: rle.Dialect, mask_size: int | None, n_workers: int
) -> dict[str, RunOutcome]:
    """File → what its run lengths are, for those that have any."""
    names = [name for name, of_image in cells.items() if of_image.runs]
    size = (mask_size, mask_size) if mask_size else None
    runs = [Runs(collector.paths[name], tuple(cells[name].runs), dialect, size) for name in names]
    return {
        name: judge_runs(name, collector.files.ids[name], cells[name].place, dialect, outcome)
        for name, outcome in zip(names, read_masks(read_runs, runs, n_workers), strict=True)
    }
