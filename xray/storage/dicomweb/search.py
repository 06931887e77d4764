"""What an archive holds of what an address names, by QIDO-RS (PS3.18 10.6): which instances may be radiographs."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode

from pydicom import uid

from xray.storage.dicomweb.addresses import Resource, valid_uid
from xray.storage.dicomweb.client import Client, RefusedError, persist, read_all
from xray.storage.dicomweb.multipart import media_type
from xray.storage.left_out import LeftOut

PAGE = 200
"""Matches asked for at a time; servers may give fewer."""
MAX_MATCHES = 100_000
MAX_BYTES = 64 * 2**20
"""Of one page of JSON."""
JSON = "application/dicom+json"

MODALITIES = ("CR", "DX", "DR", "RG", "SC", "OT", "")
"""Of series that may hold radiographs; "" where the archive does not say."""
CLASSES = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
)
"""Of instances that may be radiographs."""

STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
MODALITY, CLASS, N_INSTANCES = "00080060", "00080016", "00201209"


@dataclasses.dataclass(frozen=True, order=True)
class Instance:
    """One object of an archive, by its identifiers."""

    study: str
    series: str
    uid: str

    @property
    def path(self) -> str:
        """Below the address of a service."""
        return f"studies/{self.study}/series/{self.series}/instances/{self.uid}"


@dataclasses.dataclass
class Found:
    """What an address names. instances: that may be radiographs."""

    instances: list[Instance] = dataclasses.field(default_factory=list)
    left_out: LeftOut = dataclasses.field(default_factory=LeftOut)


def find(client: Client, resource: Resource) -> Found:
    """Searches for the instances of a resource. Raises InputError where there are none at all, or on failure."""
    found = Found()
    if resource.instance:
        found.instances.append(Instance(resource.study, resource.series, resource.instance))
        return found
    if resource.level == "instances":
        for item in matches(client, _path(resource), resource.query):
            _add(found, item, resource.study, resource.series)
    elif resource.series and not resource.query:
        _add_series(client, found, resource.base, resource.study, resource.series)
    elif resource.query and resource.level == "studies":
        for item in matches(client, _path(resource), resource.query):
            _add_study(client, found, resource.base, valid_uid(value_of(item, STUDY)))
    elif resource.query:
        for item in matches(client, _path(resource), resource.query):
            _add_one_of_series(client, found, resource.base, valid_uid(value_of(item, STUDY)) or resource.study, item)
    else:
        _add_study(client, found, resource.base, resource.study)
    found.instances = sorted(set(found.instances))
    if not found.instances and not found.left_out.in_words:
        raise RefusedError(f"{resource.address} has no objects: check the address, or what it searches for", 404)
    return found


def _path(resource: Resource) -> str:
    parts = [resource.base]
    parts += ["studies", resource.study] if resource.study else []
    parts += ["series", resource.series] if resource.series else []
    return "/".join([*parts, resource.level])


def _add_study(client: Client, found: Found, base: str, study: str) -> None:
    if not study:
        found.left_out.objects["studies without a valid identifier"] += 1
        return
    for item in matches(client, f"{base}/studies/{study}/series"):
        _add_one_of_series(client, found, base, study, item)


def _add_one_of_series(client: Client, found: Found, base: str, study: str, item: Any) -> None:
    series, modality = valid_uid(value_of(item, SERIES)), _word(value_of(item, MODALITY))
    if not study or not series:
        found.left_out.objects["series without a valid identifier"] += 1
    elif modality in MODALITIES:
        _add_series(client, found, base, study, series)
    else:
        found.left_out.add_series(modality, value_of(item, N_INSTANCES))


def _add_series(client: Client, found: Found, base: str, study: str, series: str) -> None:
    for item in matches(client, f"{base}/studies/{study}/series/{series}/instances"):
        _add(found, item, study, series)


def _add(found: Found, item: Any, study: str, series: str) -> None:
    instance = valid_uid(value_of(item, INSTANCE))
    study, series = valid_uid(value_of(item, STUDY)) or study, valid_uid(value_of(item, SERIES)) or series
    storage, modality = str(value_of(item, CLASS) or "").strip(" \0"), _word(value_of(item, MODALITY))
    if not (study and series and instance):
        found.left_out.objects["objects without a valid identifier"] += 1
    elif modality not in MODALITIES:
        found.left_out.objects[modality] += 1
    elif storage and storage not in CLASSES:
        name = uid.UID(storage).name if valid_uid(storage) else "of an unknown class"
        found.left_out.objects[name.removesuffix(" Storage")] += 1
    else:
        found.instances.append(Instance(study, series, instance))


def matches(client: Client, url: str, query: str = "") -> Iterator[Any]:
    """All matches of a search, page by page: DICOM JSON objects.

    query: as the user typed it; with a limit or an offset of its own it is asked once.
    """
    given = parse_qsl(query, keep_blank_values=True)
    names = {name.lower() for name, _ in given}
    seen: set[int] = set()
    while True:
        paging = [] if names & {"limit", "offset"} else [("limit", str(PAGE)), ("offset", str(len(seen)))]
        page = _page(client, f"{url}?{urlencode(given + paging, safe=',*^/')}", url)
        # Servers that know no offset give the same page for ever.
        fresh = {key: item for item in page if (key := hash(json.dumps(item, sort_keys=True))) not in seen}
        seen |= fresh.keys()
        yield from fresh.values()
        if not fresh or not paging:
            return
        if len(seen) > MAX_MATCHES:
            raise RefusedError(f"{url} has more than {MAX_MATCHES} matches: search for less")


def _page(client: Client, url: str, where: str) -> list[Any]:
    def ask() -> list[Any]:
        with client.answer("GET", url, {"Accept": JSON}) as response:
            content = read_all(response, MAX_BYTES, where)
            if response.status == 204 or not content.strip():
                return []
            kind = media_type(response.headers.get("content-type", ""))
            try:
                items = json.loads(content)
            except (ValueError, RecursionError):
                items = None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise RefusedError(
                f"{where} answers with {kind or 'something'} that is no DICOM JSON: is it a DICOMweb service?"
            )
        return items

    return persist(ask)


def value_of(item: Any, tag: str) -> Any:
    """The first value of an element of a DICOM JSON object (PS3.18 F.2), None where there is none."""
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _word(value: Any) -> str:
    """A code string, made safe to print."""
    return "".join(mark for mark in str(value or "").strip().upper() if mark.isalnum() or mark in " _-")[:16]
