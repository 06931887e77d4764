"""How other DICOM nodes are named in flags; needs no DICOM library."""

import dataclasses
import re

from xray.errors import FlagError

MAX_AET = 16


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another node: its title, host and port."""

    aet: str
    host: str
    port: int


def check_aet(flag: str, title: str) -> str:
    """The same application entity title. Raises FlagError if it is none (PS3.5 6.2: 1 to 16 characters)."""
    if not re.fullmatch(r"[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?", title):
        raise FlagError(f"{flag} names the title {title!r}: give 1 to {MAX_AET} characters, none of them a backslash")
    return title


def parse_peer(flag: str, text: str) -> Peer:
    """AET@HOST:PORT → Peer. Raises FlagError if it is none."""
    match = re.fullmatch(r"([^@]*)@(\[[0-9A-Fa-f:.]+\]|[^@:\s\[\]]+):(\d{1,5})", text)
    if match is None or not 0 < int(match[3]) < 65536:
        raise FlagError(f"{flag} is {text!r}: give AET@HOST:PORT, such as PACS@192.168.1.5:104")
    return Peer(check_aet(flag, match[1]), match[2].strip("[]"), int(match[3]))
