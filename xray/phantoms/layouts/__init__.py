"""Layouts of public sets for phantoms: a module has a few of them, each a `xray.phantoms.layout.Layout`."""

LAYOUTS: dict[str, str] = {
    "nih": "nih_rsna",
    "rsna": "nih_rsna",
    "vindr": "vindr_fisabio",
    "chestxdet": "boxes_in_json",
    "fisabio": "vindr_fisabio",
    "tbx11k": "boxes_in_json",
    "objectcxr": "boxes_in_json",
    "coco": "trees",
    "yolo": "trees",
    "voc": "trees",
    "cvat": "labelling_tools",
    "labelstudio": "labelling_tools",
    "chexlocalize": "drawn_masks",
    "candid": "drawn_masks",
    "jsrt": "drawn_masks",
    "padchestgr": "grounded",
    "mscxr": "grounded",
    "chexpert": "chest_labels",
    "chexpertplus": "chest_labels",
    "mimic": "chest_labels",
    "padchest": "chest_labels",
}
"""Kind, as the source is called in `xray convert` (where a source has several layouts, as one of them is) → the module
here; in it, the kind in capitals is the layout."""
