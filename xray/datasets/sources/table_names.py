"""The usual names of columns in anybody's table, without case and punctuation."""

LABELS = (
    "classname", "labelname", "categoryname", "findingname", "findinglabel", "findinglabels", "finding", "findings",
    "label", "labels", "class", "classes", "category", "categories", "diagnosis", "diagnoses", "pathology",
    "pathologies", "disease", "abnormality", "lesiontype", "name", "target", "variable",
)  # fmt: skip
SPLITS = ("split", "splits", "datasetsplit", "subset", "partition", "set", "phase", "dataset", "usage")
NOTHING_ELSE = SPLITS[:3]
"""Names of columns that are of splits whatever their cells are."""
READERS = (
    "radid",
    "reader",
    "readerid",
    "radiologist",
    "radiologistid",
    "annotator",
    "annotatorid",
    "rater",
    "raterid",
)
VIEWS = ("viewposition", "view", "projection", "appa")
SEXES = ("sex", "gender", "patientsex", "patientgender")
AGES = ("age", "patientage")
"""In the order in which they are looked for."""
NO_LABELS = {
    "fold", "followup", "iscrowd", "crowd", "difficult", "truncated", "occluded", "area", "index", "line", "score",
    "confidence", "duplicate", "isduplicate", "count", "nboxes", "numboxes", "hasbox", "hasboxes",
}  # fmt: skip
"""Columns that may hold 0 and 1 and are no findings."""
