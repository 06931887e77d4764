"""Addresses of DICOMweb services: what of an archive a command reads, and where it sends its results.

https://host/dicom-web/studies/UID[/series/UID[/instances/UID]]    what is to be retrieved
https://host/dicom-web/studies?AccessionNumber=…                   what is to be searched for (PS3.18 10.6)
https://host/dicom-web                                             where results are stored
"""

import dataclasses
import re
from pathlib import PurePath
from urllib.parse import SplitResult, urlsplit

from xray.errors import FlagError

UID = r"[0-9]+(?:\.[0-9]+)+"
"""As PS3.5 9.1 has it, but for leading zeros, which are met."""
LEVELS = ("studies", "series", "instances")
PORTS = {"http": 80, "https": 443}

_SCHEME = re.compile(r"https?:/", re.IGNORECASE)
_RESOURCE = re.compile(
    rf"(?P<base>.*?)/studies(?:/(?P<study>{UID}))?(?:/series(?:/(?P<series>{UID}))?)?"
    rf"(?:/instances(?:/(?P<instance>{UID}))?)?"
)
_SEARCH_ALL = re.compile(r"(?P<base>.*)/(?P<level>series|instances)")


@dataclasses.dataclass(frozen=True)
class Resource:
    """A part of an archive.

    base: address of the service. study, series, instance: identifiers, "" where all are meant. level: one of LEVELS,
    of what `query` searches for; without a query, of what is named.
    """

    base: str
    study: str = ""
    series: str = ""
    instance: str = ""
    level: str = "studies"
    query: str = ""

    @property
    def address(self) -> str:
        """Without the query, whose values may name a patient."""
        parts = [self.base]
        for level, uid in zip(LEVELS, (self.study, self.series, self.instance), strict=True):
            parts += [level, uid] if uid else []
        return "/".join(parts) if not self.query else f"{'/'.join([*parts, self.level])}?…"


def is_dicomweb(value: object) -> bool:
    """Whether a flag's value begins as the address of an HTTP server; pathlib makes `https:/h/d` of `https://h/d`."""
    return isinstance(value, str | PurePath) and bool(_SCHEME.match(str(value)))


def resource_of(flag: str, text: str) -> Resource:
    """What an address names. Raises FlagError where that is no DICOMweb resource, or a whole archive."""
    url = _split(flag, text)
    path = re.sub(r"//+", "/", url.path).rstrip("/")
    origin = origin_of(text)
    if match := _RESOURCE.fullmatch(path):
        study, series, instance = (match[name] or "" for name in ("study", "series", "instance"))
        last = path.rpartition("/")[2]
        level = last if last in LEVELS else LEVELS[(bool(series) + bool(instance)) if study else 0]
        is_complete = all(_is_uid(uid) for uid in (study, series, instance) if uid) and not (instance and not series)
        if is_complete and (url.query or (study and last not in LEVELS)):
            return Resource(origin + match["base"], study, series, instance, level, url.query)
        if is_complete and study:
            # …/studies/UID/series is the study, whose series are all searched.
            return Resource(origin + match["base"], study, series, instance, "series" if series else "studies")
    elif (match := _SEARCH_ALL.fullmatch(path)) and url.query:
        return Resource(origin + match["base"], level=match["level"], query=url.query)
    raise FlagError(
        f"--{flag} {shown(text)} names no part of an archive: give https://HOST/…/studies/UID, or "
        "https://HOST/…/studies?AccessionNumber=… with what to search for"
    )


def service_of(flag: str, text: str) -> str:
    """The address of a service that stores, without /studies at its end. Raises FlagError where it is none."""
    url = _split(flag, text)
    if url.query or not _SCHEME.match(text):
        raise FlagError(f"--{flag} is {shown(text)}: give the address of a DICOMweb service, https://HOST/dicom-web")
    path = re.sub(r"//+", "/", url.path).rstrip("/").removesuffix("/studies")
    return origin_of(text) + path


def origin_of(url: str) -> str:
    """Scheme, host and port of an address, as they decide who may see credentials: https://host:8443.

    Raises ValueError if there is no host.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if not host:
        raise ValueError("an address without a host")
    port = parts.port or PORTS.get(parts.scheme.lower())
    name = f"[{host}]" if ":" in host else host
    is_usual = port == PORTS.get(parts.scheme.lower())
    return f"{parts.scheme.lower()}://{name}" + ("" if is_usual else f":{port}")


def shown(url: str) -> str:
    """An address as messages may repeat it: without passwords, and without a query, whose values may name a patient."""
    try:
        parts = urlsplit(re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", "?", url))
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + ("?…" if parts.query else "")
    except ValueError:
        return "the address"


def _split(flag: str, text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        is_right = bool(url.hostname) and url.scheme.lower() in PORTS and (url.port is None or url.port > 0)
    except ValueError:
        is_right = False
    if not is_right or re.search(r"[\x00-\x20\x7f-\x9f\\]", text) or ".." in url.path.split("/"):
        raise FlagError(f"--{flag} is {shown(text)}: it is no address of the form https://HOST[:PORT]/…")
    if "@" in url.netloc:
        raise FlagError(f"--{flag} {shown(text)} holds a user or a password: put them in the file of --dicomweb-auth")
    return url


def _is_uid(text: str) -> bool:
    return len(text) <= 64


def valid_uid(value: object) -> str:
    """A UID that came from a server, "" where it is none: it becomes a part of a path."""
    text = str(value).strip(" \0") if isinstance(value, str) else ""
    return text if len(text) <= 64 and re.fullmatch(UID, text, re.ASCII) else ""
