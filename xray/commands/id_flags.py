"""Flags of several commands that say what the ids in files of predictions mean."""

from typing import Annotated, Literal

import tyro

_IMAGES = (
    "What image_id means in files of predictions. source: the radiograph's own id, as tools/infer.py writes it, or its "
    "file; coco: the id in the source's own COCO file; rows: the id in annotations.json of --data-path; auto: numbers "
    "are coco's, texts source's, and what could be read in two ways is refused."
)
_CATEGORIES = (
    "What category_id means there. source: the id in the source's own COCO file; dataset: the id in annotations.json "
    "of --data-path; auto: what image_id, or the category's name in the file, says."
)
_EACH = " One for all files or one for each; rows that name their file or category need none."

_ImageIds = Literal["auto", "source", "coco", "rows"]
_CategoryIds = Literal["auto", "source", "dataset"]
# Of commands that read one file of predictions, and of those that read several.
ImageIds = Annotated[_ImageIds, tyro.conf.arg(help=_IMAGES)]
CategoryIds = Annotated[_CategoryIds, tyro.conf.arg(help=_CATEGORIES)]
ImageIdsOfEach = Annotated[tuple[_ImageIds, ...], tyro.conf.arg(help=_IMAGES + _EACH)]
CategoryIdsOfEach = Annotated[tuple[_CategoryIds, ...], tyro.conf.arg(help=_CATEGORIES)]
