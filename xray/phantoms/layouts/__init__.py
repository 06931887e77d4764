"""Layouts of public sets for phantoms: a module has a few of them, each a `xray.phantoms.layout.Layout`."""

LAYOUTS: dict[str, str] = {
    "nih": "nih_rsna",
}
"""Kind, as the source is called in `xray convert`, → the module here; in it, the kind in capitals is the layout."""
