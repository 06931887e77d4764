"""XML of others, read without what could make it grow."""

import re
from xml.etree import ElementTree

LONGEST_XML = 2**30
"""Bytes."""
_DECLARATION = re.compile(rb"<!(doctype|entity)", re.IGNORECASE)


def parse_xml(content: bytes) -> ElementTree.Element:
    """The root element. Raises ValueError for XML that is damaged, or declares entities.

    Entities could grow without end; neither labelling tools nor spreadsheets have them.
    """
    if _DECLARATION.search(content[: 2**16]):
        raise ValueError("it declares a document type, which no labelling tool writes")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"no XML ({error})") from None
