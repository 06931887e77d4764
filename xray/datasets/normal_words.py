"""Words that mean that nothing was found: "No finding", "Normal", …: the one place where it is decided which do."""

import re

_NORMAL = re.compile(
    r"(normal|healthy)(chest)?(xrays?|cxrs?|radiographs?|images?|scans?|study|studies|cases?|patients?|subjects?)?"
    r"|normals|negative|clear|unremarkable|nad|withinnormallimits|(healthy|normal)?controls?"
    r"|no(findings?|abnormality|abnormalities|disease|lesions?|pathology)(detected|found|identified|present|seen)?"
    r"|nothing(detected|found|identified|present|seen)"
)
"""How they are called, without case, blanks and punctuation. A normal lung may be a place in a picture, and who has no
pneumonia may have something else."""


def sounds_normal(label: str) -> bool:
    """Whether a label is called as if it meant that nothing was found."""
    return _NORMAL.fullmatch("".join(filter(str.isalnum, label.casefold()))) is not None
