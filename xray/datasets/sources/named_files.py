"""Which file of a source a table means: by name, with or without suffix, or by the number that the name spells."""

import dataclasses
import filecmp
import functools
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from xray.datasets import source as reasons
from xray.datasets.naming import source_ids
from xray.datasets.source import Dropped
from xray.datasets.sources.coco_paths import PathsElsewhere
from xray.radiographs.names import fault_of
from xray.radiographs.radiograph import source_id
from xray.structures.values import identity, text_of

MOST_ALIKE = 16
"""At most so many files of one stem are compared; more are no copies, but one file in each patient's folder."""


class NamedFiles:
    """The files of a source, each with an id of its own, and what a table may call them.

    names: of the files, relative to their source, with / between folders. ids: name → id, as
    `xray.datasets.naming.source_ids` has it: the stem where no other file has it.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = sorted(set(names))
        self.ids = dict(zip(self.names, source_ids(self.names), strict=True))
        self._by_text: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._by_number: dict[int, list[str]] = defaultdict(list)
        for name in self.names:
            last = name.rpartition("/")[2]
            for text in {name, last}:
                self._by_text[text].append(name)
            stem = source_id(last)
            for text in {stem, self.ids[name]}:
                self._by_stem[text].append(name)
            number = identity(stem)
            if isinstance(number, int):
                self._by_number[number].append(name)

    def meant_by(self, name: str) -> list[str]:
        """The files that a table may mean: none, one, or several of which it does not say which.

        A whole name goes before a stem, and a stem before the number that it spells: 7, 7.0 and "007" are 007.png,
        unless there is a 7.png as well.
        """
        text = name.replace("\\", "/").removeprefix("./")
        for names in (self._by_text.get(text), self._by_stem.get(text), self._by_stem.get(source_id(text))):
            if names:
                return names
        number = identity(source_id(text))
        if not isinstance(number, int):
            return []
        return self._by_number.get(number, [])

    # Paths are known by few tables, but by those in each of their columns that may name radiographs.
    @functools.cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """Paths of files without suffix → the files."""
        stems: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            stems[without_suffix(name)].append(name)
        return dict(stems)

    @functools.cached_property
    def by_path(self) -> dict[str, list[str]]:
        """Paths of files, with and without suffix → the files."""
        whole = {stem: list(names) for stem, names in self.by_stem.items()}
        for name in self.names:
            if name not in (names := whole.setdefault(name, [])):
                names.append(name)
        return whole

    @functools.cached_property
    def last_two(self) -> set[str]:
        """The last two parts of these paths without suffix."""
        return {"/".join(stem.rsplit("/", 2)[-2:]) for stem in self.by_stem}


class PathEnds:
    """Which files the paths of a table mean that may have been written on another machine.

    texts: all that the table calls radiographs. Of `p1/frontal.jpg` and `p2/frontal.jpg` in it the last part says
    nothing by itself, be there one file of that name or several. Files may have further folders before theirs: as
    /data/train/p1/frontal.jpg, set/train/p1/frontal.jpg is meant where no other file ends so, see `PathsElsewhere`.
    """

    def __init__(self, files: NamedFiles, texts: Iterable[str]) -> None:
        self._files = files
        self._texts = {_path_in(text) for text in texts}
        self._last_parts = Counter(text.rpartition("/")[2] for text in self._texts)

    def meant_by(self, text: str) -> list[str]:
        """The files that a text may mean: by the longest end of it that is a file's path, or as `NamedFiles` does."""
        if "/" not in text and "\\" not in text:
            return self._files.meant_by(text)
        ends, whole = list(ends_of(text)), self._files.by_path
        # A suffix is taken off once, not from each end.
        stems = list(ends_of(without_suffix(ends[0]))) if ends else []
        for end, stem in zip(ends[:-1], stems, strict=False):
            if names := whole.get(end) or whole.get(stem):
                return names
        if names := self._with_its_folder(stems):
            return names
        if len(ends) > 1 and self._last_parts[ends[-1]] > 1:
            return []
        return self._files.meant_by(ends[-1] if len(ends) > 1 else text)

    @functools.cached_property
    def _elsewhere(self) -> PathsElsewhere:
        paths = (next(iter(ends_of(text)), "") for text in self._texts)
        return PathsElsewhere(self._files.by_stem, (without_suffix(path) for path in paths if path), "")

    def _with_its_folder(self, stems: Sequence[str]) -> list[str]:
        """The files that end as a path does in its last two parts at least. stems: its ends, without suffix."""
        if len(stems) < 2 or stems[-2] not in self._files.last_two:
            return []
        found = self._elsewhere.files_of(stems[0])
        return [name for stem in found if f"/{stem}".endswith(f"/{stems[-2]}") for name in self._files.by_stem[stem]]


def without_suffix(name: str) -> str:
    """A file name with its folders, without its suffix."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + source_id(last)


def ends_of(text: str) -> Iterable[str]:
    """A path, and what is left of it without its first folders: a table may have been written on another machine."""
    parts = [part for part in _path_in(text).split("/") if part not in ("", ".", "..")]
    return ("/".join(parts[start:]) for start in range(len(parts)))


def _path_in(text: str) -> str:
    """The path that a table writes, with / between folders; of an address without what stands behind its file."""
    if "://" in text:
        return urllib.parse.unquote(urllib.parse.urlsplit(text).path)
    return text.replace("\\", "/")


@dataclasses.dataclass(frozen=True)
class Resolved:
    """What a table calls radiographs, made one id for each.

    ids: text of the table → id. names: id → name of its file, for those that have one. unclear: id → why it has
    none although there are files: a text may mean several, and findings of one would be learned as those of another.
    """

    ids: dict[str, str]
    names: dict[str, str]
    unclear: dict[str, str]


def resolve_ids(texts: Iterable[str], files: NamedFiles | None) -> Resolved:
    """The radiographs that a table means.

    texts: distinct texts. files: None where none are looked for: then there are no names, and of the texts those that
    spell one number are one. A text without a file stays as it is, unless it spells a number: 7.0 becomes 7.
    """
    texts = list(texts)
    # Where a name leads out of its folder, its stem is not asked for either.
    result = Resolved({text: text for text in texts if fault_of(text)}, {}, {})
    texts = [text for text in texts if text not in result.ids]
    known = files or NamedFiles(text for text in texts if text == text_of(text))
    for text in texts:
        names = known.meant_by(text)
        result.ids[text] = known.ids[names[0]] if len(names) == 1 else text_of(text) or text
        if len(names) == 1 and files is not None:
            result.names[result.ids[text]] = names[0]
        if len(names) > 1:
            why = f"{text} may be {' or '.join(names[:5])}"
            result.unclear.update(dict.fromkeys((result.ids[text], *(known.ids[name] for name in names)), why))
    for image_id in result.unclear:
        result.names.pop(image_id, None)
    return result


def without_copies(paths: dict[str, Path], dropped: list[Dropped]) -> dict[str, Path]:
    """Name → file without those that are, byte for byte, another of the same stem; they are entered in `dropped`."""
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in sorted(paths):
        by_stem[source_id(name.rpartition("/")[2])].append(name)
    distinct = dict(paths)
    for names in by_stem.values():
        for number, name in enumerate(names if len(names) <= MOST_ALIKE else ()):
            others = (other for other in names[:number] if other in distinct)
            same = next((other for other in others if _are_equal(paths[other], paths[name])), None)
            if same is not None:
                dropped.append(Dropped(name, reasons.COPY, detail=f"the same as {same}"))
                del distinct[name]
    return distinct


def _are_equal(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False
