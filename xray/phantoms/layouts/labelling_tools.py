"""Exports of labelling tools: CVAT for images 1.1, and Label Studio's JSON, each with three splits."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from xray.findings import FINDINGS, NO_FINDING_NAME
from xray.phantoms.layout import Layout, Record, write_json
from xray.phantoms.tree import write_text

SUBSETS = {"train": "Train", "val": "Validation", "test": "Test"}
"""Splits, as CVAT calls a project's subsets."""


def _write_cvat(folder: Path, records: Sequence[Record], seed: int) -> None:
    """Findings in one piece are polygons, others boxes; of the radiographs without any, every second has a tag."""
    labels = "".join(
        f"<label><name>{escape(name)}</name><color>#3d3df5</color><type>any</type><attributes></attributes></label>"
        for name in (*FINDINGS, NO_FINDING_NAME)
    )
    images = ""
    n_empty = 0
    for number, record in enumerate(records):
        shapes = "".join(_cvat_shape(finding) for finding in record["findings"])
        n_empty += not shapes
        if not shapes and n_empty % 2:
            shapes = f'<tag label={quoteattr(NO_FINDING_NAME)} source="manual"></tag>\n'
        subset, name = SUBSETS[record["split"]], record["file_name"].removeprefix("images/")
        images += (
            f'<image id="{number}" name={quoteattr(name)} subset="{subset}" task_id="1" width="{record["width"]}" '
            f'height="{record["height"]}">\n{shapes}</image>\n'
        )
    task = f"<id>1</id><name>phantoms</name><size>{len(records)}</size><mode>annotation</mode><labels>{labels}</labels>"
    write_text(
        folder / "annotations.xml",
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
        f"<meta><task>{task}</task></meta>\n{images}</annotations>\n",
    )


def _cvat_shape(finding: Record) -> str:
    about = f'label={quoteattr(finding["name"])} source="manual" occluded="0"'
    if len(finding["outlines"]) == 1:
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in finding["outlines"][0])
        return f'<polygon {about} points="{points}" z_order="0"></polygon>\n'
    x1, y1, x2, y2 = finding["box"]
    return f'<box {about} xtl="{x1:.2f}" ytl="{y1:.2f}" xbr="{x2:.2f}" ybr="{y2:.2f}" z_order="0"></box>\n'


CVAT = Layout(
    place=lambda entry: f"images/{SUBSETS[entry.split]}/{entry.index:06d}.png",
    tables=_write_cvat,
    made=("images", "annotations.xml"),
    splits=tuple(SUBSETS),
    source="tree",
)


def _write_labelstudio(folder: Path, records: Sequence[Record], seed: int) -> None:
    """Pictures were uploaded, so that eight digits stand before their names; one person has annotated all of them."""
    tasks: list[Record] = []
    for number, record in enumerate(records, start=1):
        name = Path(record["file_name"]).name
        digits = hashlib.sha256(name.encode()).hexdigest()[:8]
        size = {"original_width": record["width"], "original_height": record["height"], "image_rotation": 0}
        results = [
            {"id": f"{number}-{place}", "type": "rectanglelabels", "from_name": "finding", "to_name": "image"}
            | {"origin": "manual", "value": _labelstudio_box(finding, record)}
            | size
            for place, finding in enumerate(record["findings"])
        ]
        annotation = {"id": number, "completed_by": 1, "result": results, "was_cancelled": False, "ground_truth": False}
        data = {"image": f"/data/upload/1/{digits}-{name}", "split": record["split"]}
        tasks.append({"id": number, "annotations": [annotation], "file_upload": f"{digits}-{name}", "data": data})
    write_json(folder / "project-1.json", tasks)


def _labelstudio_box(finding: Record, record: Record) -> dict[str, Any]:
    """The box in percent of the radiograph's sides."""
    x1, y1, x2, y2 = finding["box"]
    across, down = 100 / record["width"], 100 / record["height"]
    sides = {"x": x1 * across, "y": y1 * down, "width": (x2 - x1) * across, "height": (y2 - y1) * down}
    return sides | {"rotation": 0, "rectanglelabels": [finding["name"]]}


LABELSTUDIO = Layout(
    place=lambda entry: f"images/{entry.image_id}.png",
    tables=_write_labelstudio,
    made=("images", "project-1.json"),
    splits=tuple(SUBSETS),
    source="tree",
)
