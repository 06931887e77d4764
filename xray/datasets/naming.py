"""Ids of radiographs that have no name but that of their file: one rule for every source and for inference."""

from collections import Counter
from collections.abc import Sequence

from xray.radiographs.radiograph import source_id


def source_ids(names: Sequence[str]) -> list[str]:
    """Names of files relative to their source, with / between folders → the id of each, in the same order.

    An id is the file's stem where no other file has it; else its path without the suffix; else, where two files differ
    in their suffix alone, its path with the suffix. Only files whose ids would be equal get a longer one. Different
    names have different ids, whatever their order; upper and lower case are different.
    """
    distinct = sorted(set(names))
    length = dict.fromkeys(distinct, 0)
    while True:
        ids = {name: _spellings(name)[length[name]] for name in distinct}
        holders = Counter(ids.values())
        # The longest id is the name itself, which no two files share; files whose id is shared get a longer one.
        shared = [name for name in distinct if holders[ids[name]] > 1 and length[name] < 2]
        if not shared:
            return [ids[name] for name in names]
        for name in shared:
            length[name] += 1


def _spellings(name: str) -> tuple[str, str, str]:
    folder, slash, last = name.rpartition("/")
    stem = source_id(last)
    return stem, folder + slash + stem, name
