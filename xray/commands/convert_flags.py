"""The flags of convert: a dataclass for each source, which is the subcommand of its name."""

import dataclasses
import functools
import operator
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from annotated_types import Interval

from xray.datasets.sources import PUBLIC
from xray.flags import Processes, Seed

SAME_SIZE = (
    "Pictures whose width and height no file says are as large as when they were annotated: boxes that all lie in "
    "their left upper quarter are right, and nothing is warned of."
)
SameSize = Annotated[bool, tyro.conf.arg(help=SAME_SIZE)]


@dataclasses.dataclass
class Flags:
    data_path: Path
    """Directory of the source: radiographs and their table."""
    save_path: Path
    """Where the dataset directory goes; an unfinished one there is continued."""
    image_size: Annotated[int, Interval(ge=32, le=8192)] = 1024
    """Side of the square canvas every radiograph is letterboxed onto, in pixels (32 to 8192)."""
    bits: Literal[8, 16] = 8
    """Bits of a pixel on the canvas. 16 keeps the finer grey of DICOM files and 16-bit PNG through training and
    inference, with twice the memory on disk."""
    n_folds: Annotated[int, Interval(ge=2, le=100)] = 5
    """Number of folds (2 to 100), stratified by finding; all radiographs of a patient are in one fold."""
    n_workers: Processes = 0
    """Processes that decode (0 to 512); 0 is one a CPU."""
    map: str | None = None
    """YAML file that says what categories are called here, which are joined and which are dropped (Effusion: Pleural
    effusion); or vinbig, the shipped map of this set onto VinBigData's 14 findings."""
    splits: tuple[str, ...] = ()
    """Who trains, validates and tests: train=FILE val=FILE test=FILE with a name a line, test=FOLDER, or a table with a
    column of names and one of splits. Where train is given, radiographs that no file names are left out; else they
    keep the split of their source."""
    splits_by: Literal["name", "patient"] = "name"
    """What --splits names: name, radiographs by file or id; patient, patients."""
    leaks: Literal["drop", "keep"] = "drop"
    """Radiographs for training whose patient is also validated or tested on, and those that validate whose patient is
    tested on. drop: they are left out and named; keep: they stay, and are named."""
    seed: Seed = 0
    """Decides between similar patients when the folds are made (0 to 4294967295)."""
    overwrite: bool = False
    """Replace the dataset at --save-path; the old one stays until the new one is complete."""
    engine: Literal["local", "ray"] = "local"
    """Who decodes: local, this machine's processes; ray, the nodes of a Ray cluster. Both write the same bytes."""
    address: str = ""
    """HOST:PORT of the Ray cluster's head node, or auto for the one that this machine belongs to; by default Ray is
    started on this machine."""
    cores_per_actor: Processes = 0
    """Cores of each Ray actor (1 to 512), which decodes with as many processes; 0 is 1."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclasses.dataclass
class ReaderFlags(Flags):
    readers: Literal["fuse", "all"] = "fuse"
    """fuse: one box of those that an image's readers drew around the same finding; all: every reader's box."""


@dataclasses.dataclass
class VinBig(ReaderFlags):
    """VinBigData: train.csv and train/ with DICOM files, or with the 1024-pixel pictures and their train_meta.csv."""

    table_only: bool = False
    """Convert the table alone: no radiograph is opened and no images.npy written."""


@dataclasses.dataclass
class Coco(ReaderFlags):
    """Anyone's own radiographs, under images/ or as their COCO file says; boxes or masks of any categories."""

    annotations: str | None = None
    """The COCO file, relative to --data-path or to here; needed only where there are several."""
    crowds: Literal["auto", "keep", "ignore"] = "auto"
    """Run lengths with iscrowd 1. keep: each is one object, as CVAT's brush and supervision mean it; ignore: they are
    regions of many objects, as in the COCO set, and radiographs that have one are left out; auto: keep, unless the file
    has crowds that can be no single object."""
    unplaced: Literal["refuse", "ignore"] = "refuse"
    """Annotations of images that the file does not list. refuse: nothing is converted, as radiographs without
    annotations may not be normal; ignore: these annotations are left out."""
    normal: tuple[str, ...] = ()
    """Categories that mean that nothing was found, whatever box they have; by default those called No finding, Normal,
    healthy or the like; "" for none."""
    same_size: SameSize = False


@dataclasses.dataclass
class Siim(Flags):
    """SIIM-ACR Pneumothorax: DICOM files with train-rle.csv, png_images/ and png_masks/, or a table ImageId,Class."""

    table: str | None = None
    """The table, relative to --data-path; needed only where there are several."""
    dialect: Literal["relative", "absolute"] = "relative"
    """Run lengths count from the end of the run before (as SIIM's do), or, from 1, from the first pixel."""
    mask_size: Annotated[int, Interval(ge=1, le=10_000)] | None = None
    """Side in pixels (1 to 10000) of the squares in which the run lengths count (1024 in SIIM's table), where the
    radiographs have been resized since; the radiographs' own size if not given."""


@dataclasses.dataclass
class Lungs(Flags):
    """Lung masks of Montgomery (ManualMask/) or Shenzhen (mask/), or any folder of radiographs and one of masks."""

    lungs: Literal["joined", "apart"] = "joined"
    """Montgomery's two masks as one category "Lung", or apart as "Right lung" and "Left lung"."""
    images: str | None = None
    """Folder of radiographs, relative to --data-path, in place of a known layout; needs --masks."""
    masks: str | None = None
    """Folder of their masks, named like them, with or without _mask; needs --images."""
    category: str = "Lung"
    """What the masks show, in layouts with one mask a radiograph, whatever values they are drawn in."""
    values: tuple[str, ...] = ()
    """Values of these masks that are categories of their own, VALUE=NAME each, such as 1="Right lung" 2="Left lung" or
    "#FA3253=Right lung" (a number as it is stored, the index of a palette, or a colour); all others are background."""
    patients: Path | None = None
    """CSV (file_name,patient) or COCO file that names each radiograph's patient, so that folds keep them together."""


@dataclasses.dataclass
class Folders(Flags):
    """Image folders: CLASS/, or train/CLASS/, val/CLASS/ and test/CLASS/, for classification and for pretraining.

    train/ is dealt into folds; val/ stays for validating, test/ for testing.
    """

    normal: str | None = None
    """Class folder of the radiographs that show nothing, which get no label; "" makes every class a category. If not
    given, the one named NORMAL, healthy, negative, No finding or no_…, in upper or lower case."""
    patients: Path | None = None
    """CSV (file_name,patient) or COCO file that names each radiograph's patient, so that folds keep them together;
    without it every radiograph is a patient of its own: nothing is guessed from file names."""


@dataclasses.dataclass
class Tree(ReaderFlags):
    """A tree of a labelling tool or a trainer: COCO, Roboflow, YOLO, Pascal VOC, CVAT, Label Studio. Splits stay."""

    format: Literal["coco", "yolo", "voc", "cvat", "labelstudio"] | None = None
    """What the tree is; found by itself, and needed only where two fit."""
    patients: Path | None = None
    """CSV (file_name,patient) or COCO file that names each radiograph's patient, so that folds keep them together."""
    crowds: Literal["auto", "keep", "ignore"] = "auto"
    """Of coco: run lengths with iscrowd 1, as for `convert coco`."""
    unplaced: Literal["refuse", "ignore"] = "refuse"
    """Of coco: annotations of images that their file does not list, as for `convert coco`."""
    difficult: Literal["keep", "ignore"] = "keep"
    """Of voc: objects marked as difficult. keep: as any other; ignore: left out, and a detection of their category in
    that radiograph is neither right nor wrong."""
    corners: Literal["auto", "pixels", "edges"] = "auto"
    """Of voc: what xmin to ymax are. pixels: the first and the last one of the box, counted from 1, as in VOC itself;
    edges: from 0, as LabelImg, CVAT and Roboflow write them; auto: as the file's <source> says, or else edges."""
    yaml: str | None = None
    """Of yolo: the YAML file that describes the tree, relative to --data-path or to here; needed only where several
    say different things."""
    normal: tuple[str, ...] = ()
    """Labels that mean that nothing was found, whatever box they have; by default those called No finding, Normal,
    healthy or the like; "" for none."""
    same_size: SameSize = False


@dataclasses.dataclass
class ViewFlags(Flags):
    views: Literal["frontal", "all"] = "frontal"
    """frontal: lateral radiographs, and those of which the table does not say that they are frontal, are left out, by
    name; all: every one is kept, with its view."""


@dataclasses.dataclass
class ChexpertFlags(ViewFlags):
    uncertain: Literal["unknown", "positive", "negative"] = "unknown"
    """What -1, uncertain, means. unknown: neither learned nor scored (U-Ignore of the CheXpert paper); positive:
    present (U-Ones); negative: absent (U-Zeros)."""
    unmentioned: Literal["unknown", "negative"] = "unknown"
    """What an empty cell, not mentioned in the report, means. negative: absent, as many programs take it. Where the
    report has no finding at all, it is absent anyhow."""


@dataclasses.dataclass
class Chexpert(ChexpertFlags):
    """CheXpert: train.csv, valid.csv and the radiographs' folders, or CheXpert Plus: df_chexpert_plus_240401.csv and
    chexbert_labels/; labels of whole radiographs, for classification."""

    table: str | None = None
    """Labels of the training radiographs in place of train.csv, such as train_visualCheXbert.csv, relative to
    --data-path; of CheXpert Plus in place of chexbert_labels/impression_fixed.json."""


@dataclasses.dataclass
class Mimic(ChexpertFlags):
    """MIMIC-CXR: mimic-cxr-2.0.0-chexpert.csv.gz, -split and -metadata, and files/ with JPEG or DICOM files; labels of
    whole radiographs, for classification."""

    labeler: Literal["chexpert", "negbio"] = "chexpert"
    """Whose labels: those of CheXpert's program, or of NegBio's."""


@dataclasses.dataclass
class Padchest(ViewFlags):
    """PadChest: PADCHEST_chest_x_ray_images_labels_….csv and the PNG files; labels of whole radiographs, for
    classification."""


@dataclasses.dataclass
class Chexlocalize(ViewFlags):
    """CheXlocalize: gt_segmentations_{val,test}.json or gt_annotations_{val,test}.json, val_labels.csv, test_labels.csv
    and val/ and test/ of CheXpert; masks of 10 findings, to evaluate on."""


@dataclasses.dataclass
class Candid(Flags):
    """CANDID-PTX: Pneumothorax_reports.csv, chest_tube.csv, acute_rib_fracture.csv and dataset/; masks."""

    dialect: Literal["relative", "absolute"] = "relative"
    """Run lengths count from the end of the run before, or, from 1, from the first pixel."""
    mask_size: Annotated[int, Interval(ge=1, le=10_000)] | None = None
    """Side in pixels (1 to 10000) of the squares in which the run lengths count (1024 in the set's tables), where the
    radiographs have been made smaller; the radiographs' own size if not given."""


@dataclasses.dataclass
class Table(ReaderFlags):
    """Any table of radiographs: a row a box, a label or a radiograph; CSV (also packed), TSV, Parquet or Excel.

    Columns are found by the usual names, and the command says which it took; "none" for a column's name takes none.
    """

    table: str | None = None
    """The table, relative to --data-path or to here; needed only where there are several."""
    sheet: str | None = None
    """Sheet of a spreadsheet; needed only where several hold something."""
    id: str = ""
    """Column that names the radiographs: files, with or without folders and suffix."""
    label: str = ""
    """Column of labels; several in a cell are joined by | or ;. Or columns of 0 and 1, joined by commas: A,B,C. If not
    given and none is called so, all columns that hold 0 and 1."""
    box: Literal["xywh", "xyxy", "cxcywh"] | None = None
    """What a box's numbers are: x, y, width, height; two corners; or centre, width, height. By default as the columns'
    names say."""
    columns: str = ""
    """Four columns of a box, joined by commas, or one that holds lists [x, y, w, h]."""
    units: str = "pixels"
    """pixels: of the radiographs, or of the sizes in --width and --height; share: of their sides, 0 to 1; or a number
    N: pixels of pictures of N x N that whole radiographs were squeezed to."""
    patient: str = ""
    """Column of patients, who stay within one fold."""
    split: str = ""
    """Column of splits: train, val, test or words for these."""
    reader: str = ""
    """Column of who read the radiograph."""
    width: str = ""
    """Column of the original width, in pixels."""
    height: str = ""
    """Column of the original height, in pixels."""
    view: str = ""
    """Column of the view: PA, AP, LL, RL."""
    sex: str = ""
    """Column of the sex."""
    age: str = ""
    """Column of the age, in years or as DICOM has it."""
    normal: tuple[str, ...] = ()
    """Labels that mean that nothing was found; by default those called No finding, Normal, healthy or the like; "" for
    none."""
    blank: Literal["unknown", "negative"] = "unknown"
    """What a blank label says. unknown: nothing, neither loss nor metric counts it; negative: that it is not there."""
    uncertain: Literal["unknown", "negative", "positive"] = "unknown"
    """What -1 says in columns of 0 and 1."""
    same_size: SameSize = False
    table_only: bool = False
    """Convert the table alone: no radiograph is decoded and no images.npy written."""


OWN_FLAGS: tuple[type[Flags], ...] = (
    VinBig, Coco, Siim, Lungs, Folders, Tree, Table, Chexpert, Mimic, Padchest, Chexlocalize, Candid,
)  # fmt: skip
"""Sources with flags of their own; each is the subcommand of its name."""


def _subcommands() -> Any:
    """The union of all sources' flags, for tyro: those above, and the public sets, which have the common ones alone."""
    public = [dataclasses.make_dataclass(kind, [], bases=(ReaderFlags,)) for kind in PUBLIC]
    for made, text in zip(public, PUBLIC.values(), strict=True):
        made.__doc__ = text
    kinds = [Annotated[kind, tyro.conf.subcommand(kind.__name__.lower())] for kind in (*OWN_FLAGS, *public)]
    return functools.reduce(operator.or_, kinds)


Config: Any = _subcommands()
