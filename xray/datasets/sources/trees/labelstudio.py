"""Label Studio's exports JSON and JSON_MIN → a source.

Regions are in percent of the picture's sides; rectangles are turned clockwise about their upper left corner, ellipses
about their centre. Each annotation of a task is a reader's. Choices are labels of the whole picture.
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from xray.datasets import source as reasons
from xray.datasets.source import Source
from xray.datasets.sources.coco_images import MALFORMED
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.normal_names import NormalNames
from xray.datasets.sources.table_answers import is_question, is_unsaid, is_unsure
from xray.datasets.sources.trees.labelstudio_tasks import (
    TAXONOMY,
    TEXTS,
    Reading,
    Task,
    is_short_place,
    picture_of,
    read_tasks,
)
from xray.datasets.sources.trees.parts import NOT_IN_TREE, read_sizes
from xray.datasets.sources.trees.regions import NO_AREA, Region, corners_and_mask
from xray.datasets.sources.trees.whole import WholeLabels
from xray.radiographs.file_warnings import FileWarning
from xray.structures.masks import MaskError
from xray.structures.values import shown

NOT_ANNOTATED = "picture of a task that nobody has annotated"
OLDER = "older annotation of the same person"
NOT_TRUTH = "annotation beside one that is marked as the truth"
OTHER_RESULTS = "results other than regions and choices, not read"
NOTHING_ELSE = "results that are not read, and nothing else is said of the picture"
SEVERAL_PICTURES = "task whose annotations are of several pictures"
TWO_TASKS = "picture of two tasks"

_YES, _NO = ("yes", "present", "true", "positive"), ("no", "absent", "false", "not present")
_NEGATIVE = "negative"
"""A no beside a yes; alone it says that nothing was found."""
_REGIONS = ("rectangle", "rectanglelabels", "polygon", "polygonlabels", "brush", "brushlabels", "ellipse",
            "ellipselabels")  # fmt: skip
"""Types of results that have a shape with an area."""
_SAYS_NOTHING = ("rating", "number", "datetime", "relation")
"""Types of results that cannot name a finding."""


def read_labelstudio_tree(root: Path, files: Sequence[Path], normal: NormalNames) -> Source:
    """Reads all files that `find_labelstudio` found.

    A picture that no task names is no part of the set, nor is one whose task nobody has annotated; an annotation
    without a region says that there is nothing. Of one person's annotations of a task the last counts; where one is
    marked as the truth (ground_truth), it alone. normal: labels that mean that nothing was found.
    Raises InputError where nothing is left.
    """
    collector = Collector("tree", root, layout="labelstudio")
    readers: dict[str, str] = {}
    tasks: dict[str, Task] = {}
    for file in files:
        collector.read(file.read_bytes())
        for task in read_tasks(collector, file, readers):
            key = task.texts[0] if task.texts else task.place
            if key in tasks and is_short_place(task.place):
                tasks[key].readings += task.readings
            else:
                tasks[key if key not in tasks else task.place] = task
    regions = [result for task in tasks.values() for each in task.readings for result in each.results]
    with_boxes = {label for result in regions if _is_region(result) for label in Region.labels_of(result)}
    answers = _answer_fields(regions)
    names = {label for result in regions for label in _category_names(result, answers)} | with_boxes
    whole = WholeLabels(collector, sorted(names), normal)
    for name in sorted(names):
        if not whole.is_normal(name):
            collector.category(name)
    seen: dict[str, str] = {}
    for task in tasks.values():
        _read_task(collector, task, whole, seen, answers)
    whole.finish()
    return collector.source(NOT_IN_TREE)


def _read_task(
    collector: Collector, task: Task, whole: WholeLabels, seen: dict[str, str], answers: Collection[str]
) -> None:
    name = picture_of(collector, task)
    if name is None:
        return
    if name in seen:
        collector.lose(name, task.place, TWO_TASKS, seen[name])
        return
    seen[name] = task.place
    readings = _chosen(collector, task)
    if not readings:
        collector.set_aside(name, NOT_ANNOTATED)
        return
    said = [result for each in readings for result in each.results if _is_region(result) or _is_choice(result)]
    objects = dict.fromkeys(str(result["to_name"]) for result in said if result.get("to_name"))
    pages = {str(result["item_index"]) for result in said if result.get("item_index") is not None}
    if len(objects) > 1 or len(pages) > 1:
        # Which of them is this radiograph, the export does not say.
        collector.lose(name, task.place, SEVERAL_PICTURES, ", ".join(objects if len(objects) > 1 else sorted(pages)))
        return
    collector.describe(name, split=task.split)
    for reading in readings:
        # What one person alone has drawn is not fused.
        reader = reading.reader if len(readings) > 1 else ""
        if reader:
            collector.describe(name, reader=reader)
        _read_results(collector, name, task.place, reading.results, reader, whole, answers)


def _chosen(collector: Collector, task: Task) -> list[Reading]:
    truth = [reading for reading in task.readings if reading.is_truth]
    if truth and len(truth) < len(task.readings):
        collector.leave_out(task.place, NOT_TRUTH, f"{len(task.readings) - len(truth)} of {len(task.readings)}")
    last: dict[str, Reading] = {}
    for reading in truth or task.readings:
        before = last.get(reading.reader)
        if before is not None:
            collector.leave_out(task.place, OLDER, f"of {reading.reader}")
        if before is None or reading.order >= before.order:
            last[reading.reader] = reading
    return list(last.values())


def _read_results(
    collector: Collector,
    name: str,
    place: str,
    results: list[dict[str, Any]],
    reader: str,
    whole: WholeLabels,
    answers: Collection[str],
) -> None:
    labels_of: dict[str, list[str]] = {}
    for result in results:
        if _is_region(result):
            labels_of.setdefault(str(result.get("id")), []).extend(Region.labels_of(result))
    tags: list[str] = []
    unsure: list[str] = []
    unread: list[str] = []
    n_shapes = 0
    marked: list[str] = []
    done: set[str] = set()
    for number, result in enumerate(results):
        where = f"{place} result {result.get('id', number)}"
        if _is_region(result):
            key = str(result.get("id", number))
            if key in done:
                continue  # Its labels stand in a result of their own.
            done.add(key)
            own = (labels_of.get(str(result.get("id"))) if "id" in result else Region.labels_of(result)) or []
            findings = [label for label in own if not whole.is_normal(label)]
            marked += [label for label in own if whole.is_normal(label)]
            if findings or not own:
                n_shapes += 1
                tags += _read_region(collector, name, where, result, findings, reader)
        elif _is_choice(result):
            for choice in _choices(result):
                field = str(result.get("from_name", ""))
                if choice.casefold() in _YES:
                    tags.append(field)
                elif _is_doubt(choice):
                    # Where the field names the finding by its choices, any may be meant.
                    unsure += [field] if field in answers or field in collector.categories else collector.categories
                elif not _is_no(choice, field, answers):
                    tags.append(choice)
        elif result.get("type") in _REGIONS:
            collector.lose(name, where, MALFORMED, f"{result['type']}: {shown(result.get('value'))}")
        elif result.get("type") == TAXONOMY:
            # A choice of one among many, as of a finding.
            collector.lose(name, where, OTHER_RESULTS, TAXONOMY)
        else:
            if result.get("type") != TEXTS:
                collector.warnings.append(FileWarning(OTHER_RESULTS, where, str(result.get("type"))))
            if result.get("type") not in _SAYS_NOTHING:
                unread.append(str(result.get("type")))
    if unread and not n_shapes and not marked and not any(map(_is_choice, results)):
        # The only thing that is said of the picture may be a finding.
        collector.lose(name, place, TEXTS if TEXTS in unread else NOTHING_ELSE, ", ".join(unread))
    whole.add(name, tags, n_shapes, place, marked)
    known = collector.categories
    if unsure:
        collector.describe(name, unknown=[known[field] for field in unsure if field in known])


def _read_region(
    collector: Collector, name: str, place: str, result: dict[str, Any], labels: list[str], reader: str
) -> list[str]:
    """Enters a region's boxes; returns its labels where it has no area and they are known of the whole picture."""
    region = Region.of(result)
    if region.is_without_area and labels:
        # What somebody has marked is there; without a box it must not become background.
        collector.warnings.append(FileWarning(NO_AREA, place, ", ".join(labels)))
        return labels
    size = region.size or read_sizes(collector, [name]).get(name)
    if size is None:
        return []  # The picture cannot be read, which is entered.
    if region.size is not None:
        collector.describe(name, size=region.size)
    if not labels:
        collector.lose(name, place, reasons.UNKNOWN_CLASS, "a region without a label")
        return []
    try:
        corners, mask = corners_and_mask(region, size)
    except MaskError as error:
        collector.lose(name, place, error.reason, str(error))
        return []
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        collector.lose(name, place, MALFORMED, f"{error}: {shown(result.get('value'))}")
        return []
    for label in dict.fromkeys(labels):
        collector.box(name, collector.categories[label], corners, place, reader, mask)
    return []


def _is_region(result: dict[str, Any]) -> bool:
    value = result.get("value")
    return isinstance(value, dict) and not _is_choice(result) and Region.has_shape(value)


def _is_choice(result: dict[str, Any]) -> bool:
    """Choices of the whole picture; those of a region have its shape beside them, and are not read."""
    value = result.get("value")
    return isinstance(value, dict) and isinstance(value.get("choices"), list) and not Region.has_shape(value)


def _choices(result: dict[str, Any]) -> list[str]:
    return [str(choice).strip() for choice in result["value"]["choices"] if str(choice).strip()]


def _answer_fields(results: Iterable[dict[str, Any]]) -> set[str]:
    """The fields of choices that are called after a finding, and say yes or no."""
    return {
        str(result.get("from_name", ""))
        for result in results
        if _is_choice(result) and any(choice.casefold() in (*_YES, *_NO) for choice in _choices(result))
    }


def _is_no(choice: str, field: str, answers: Collection[str]) -> bool:
    return choice.casefold() in _NO or (choice.casefold() == _NEGATIVE and field in answers)


def _is_doubt(choice: str) -> bool:
    """Whether a choice says that somebody is in doubt, or that nobody has said anything."""
    return is_unsure(choice) or is_unsaid(choice) or is_question(choice)


def _category_names(result: dict[str, Any], answers: Collection[str]) -> Iterable[str]:
    for choice in _choices(result) if _is_choice(result) else ():
        field = str(result.get("from_name", ""))
        if choice.casefold() in _YES or _is_no(choice, field, answers):
            yield field
        elif not _is_doubt(choice):
            yield choice
