"""The tasks of Label Studio's JSON and JSON_MIN: who annotated them, with what results, and of which picture."""

import dataclasses
import json
import re
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xray.datasets import source as reasons
from xray.datasets.source import TRAIN, relative_name
from xray.datasets.sources.coco_images import MALFORMED
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.splits import split_of
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.names import is_inside
from xray.radiographs.radiograph import SUFFIXES

CANCELLED = "annotation that was skipped or cancelled"
REJECTED = "annotation that a review has rejected"
TEXTS = "texts of JSON_MIN, which may be choices, not read: export JSON"
_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")
TAXONOMY = "taxonomy"
_IMAGE_KEYS = ("image", "img", "picture", "radiograph", "url", "path", "file")
_OF_ANNOTATION = ("annotations", "completions")


@dataclasses.dataclass
class Reading:
    """One person's annotation of one picture."""

    reader: str
    results: list[dict[str, Any]]
    order: str = ""
    is_truth: bool = False


@dataclasses.dataclass
class Task:
    """A picture that was given to people. texts: what may name its file, the likeliest first."""

    place: str
    texts: list[str]
    split: str
    readings: list[Reading]


def find_labelstudio(root: Path) -> list[Path]:
    """The JSON files of Label Studio at the root of a tree, or one folder below."""
    found = [path for pattern in ("*.json", "*/*.json") for path in sorted(root.glob(pattern))[:50]]
    return [path for path in found if is_inside(path, root) and _tasks(path)]


def _tasks(path: Path) -> list[dict[str, Any]]:
    """The tasks of a JSON file; empty where it is none of Label Studio's."""
    try:
        with open(path, "rb") as file:
            if not file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                return []
        tasks = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        return []
    return tasks if tasks and all(_is_task(task) or _is_short(task) for task in tasks) else []


def _is_task(task: dict[str, Any]) -> bool:
    return isinstance(task.get("data"), dict) and any(isinstance(task.get(key), list) for key in _OF_ANNOTATION)


def _is_short(task: dict[str, Any]) -> bool:
    return "annotation_id" in task and ("annotator" in task or "lead_time" in task)


def is_short_place(place: str) -> bool:
    """Whether a task is of JSON_MIN, which has a record for each annotation and not for each task."""
    return " record " in place


def read_tasks(collector: Collector, file: Path, readers: dict[str, str]) -> Iterable[Task]:
    """The tasks of one file, each with its annotations. readers: e-mail address → number, of all files; added to."""
    where = relative_name(file, collector.root)
    for number, task in enumerate(_tasks(file)):
        if not _is_task(task):
            yield _short_task(collector, task, f"{where} record {number}", readers)
            continue
        place = f"{where} task {task.get('id', number)}"
        readings = []
        for position, each in enumerate(each for key in _OF_ANNOTATION for each in task.get(key) or ()):
            at = f"{place} annotation {position}"
            if not isinstance(each, dict) or not isinstance(each.get("result"), list):
                collector.leave_out(at, MALFORMED, "an annotation needs its result")
                continue
            if each.get("was_cancelled") or each.get("skipped"):
                collector.leave_out(at, CANCELLED)
                continue
            if _is_rejected(each):
                collector.leave_out(at, REJECTED)
                continue
            results = [result for result in each["result"] if isinstance(result, dict)]
            order = str(each.get("updated_at") or each.get("created_at") or "")
            readings.append(
                Reading(_reader(each.get("completed_by"), readers), results, order, bool(each.get("ground_truth")))
            )
        texts = [*_references(task["data"]), *([task["file_upload"]] if task.get("file_upload") else [])]
        split = split_of(str(task["data"].get("split") or "")) or split_of(where) or TRAIN
        yield Task(place, [text for text in texts if isinstance(text, str)], split, readings)


def _short_task(collector: Collector, task: dict[str, Any], place: str, readers: dict[str, str]) -> Task:
    results: list[dict[str, Any]] = []
    references, keys = _references(task), list(task)
    # What people have said stands behind the data and the id, before the annotator.
    said = keys[keys.index("id") + 1 : keys.index("annotator")] if {"id", "annotator"} <= set(keys) else []
    for key, value in task.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                kind = "choices" if "choices" in each else "region"
                results.append({"type": kind, "from_name": key, "value": each, **each})
            elif isinstance(each, list) and each:
                results.append({"type": TAXONOMY, "from_name": key, "value": {TAXONOMY: each}})
            elif isinstance(each, str) and each not in references and not key.endswith("_at"):
                collector.warnings.append(FileWarning(TEXTS, place, key))
                results += [{"type": TEXTS}] if key in said else []
    reading = Reading(_reader(task.get("annotator"), readers), results, str(task.get("updated_at") or ""))
    split = split_of(str(task.get("split") or "")) or TRAIN
    return Task(place, references, split, [reading])


def _is_rejected(annotation: dict[str, Any]) -> bool:
    """Whether the last of an annotation's reviews rejects it, as Label Studio Enterprise exports them."""
    reviews = annotation.get("reviews")
    accepted = [each.get("accepted") for each in reviews if isinstance(each, dict)] if isinstance(reviews, list) else []
    return bool(accepted) and accepted[-1] is False


def _reader(value: Any, readers: dict[str, str]) -> str:
    """A person's number, or for one who is named by an address a number of ours: names must not travel."""
    if isinstance(value, dict):
        value = value.get("id") if value.get("id") is not None else value.get("email")
    text = str(value) if value is not None else "unknown"
    if text.isdecimal() or text == "unknown":
        return text
    return readers.setdefault(text, f"annotator {len(readers) + 1}")


def _references(data: dict[str, Any]) -> list[str]:
    """What a task calls its picture, the likeliest first."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    likely = [texts[key] for key in _IMAGE_KEYS if key in texts]
    looks = [text for text in texts.values() if _path_in(text).lower().endswith(SUFFIXES) or "/data/" in text]
    return list(dict.fromkeys([*(text for text in likely if text in looks), *looks, *likely]))


def _path_in(text: str) -> str:
    """The path in a reference: of ?d=… that behind it, of an address that of its file."""
    parsed = urllib.parse.urlsplit(text)
    inner = urllib.parse.parse_qs(parsed.query).get("d") or urllib.parse.parse_qs(parsed.query).get("fileuri")
    return urllib.parse.unquote(inner[0] if inner else parsed.path if parsed.scheme or "?" in text else text)


def picture_of(collector: Collector, task: Task) -> str | None:
    """The radiograph of a task; None, with an entry of what is left out, where there is none or more than one."""
    candidates = []
    for text in task.texts:
        parts = [part for part in _path_in(text).replace("\\", "/").split("/") if part not in ("", ".", "..")]
        candidates += ["/".join(parts[start:]) for start in range(len(parts))]
    # An uploaded file has eight digits in front of its own name.
    candidates += [_UPLOAD.sub("", each) for each in candidates if _UPLOAD.match(each)]
    for candidate in candidates:
        if "/" in candidate and candidate not in collector.paths:
            continue  # A path is only meant as a whole: its last part comes later.
        if collector.files.meant_by(candidate):
            return collector.file_of(candidate, task.place)
    collector.leave_out(task.place, reasons.MISSING_FILE, ", ".join(task.texts)[:200])
    return None
