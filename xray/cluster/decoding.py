"""Decoding by the nodes of a Ray cluster: what `xray.radiographs.decoding` does on one machine."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from xray.cluster.ray import SHARED, Cluster, Work
from xray.errors import InputError
from xray.radiographs.decoding import NO_GATE, Decoded, Undecodable, decode_canvas
from xray.radiographs.image_check import Gate
from xray.radiographs.workers import TIMEOUT, Failed, Workers

Item = Decoded | Undecodable

PART_BYTES = 2**24
"""Of canvases, in one part."""


def decoder(cluster: Cluster) -> Callable[..., Iterator[Item]]:
    """`xray.radiographs.decoding.decode_canvases` by the cluster: same arguments, same items in the same order."""
    return functools.partial(_decode, cluster)


def _decode(
    cluster: Cluster, paths: Sequence[Path], size: int, n_workers: int, timeout: float = TIMEOUT, bits: int = 8
) -> Iterator[Item]:
    """n_workers: not used; an actor decodes with as many processes as it has cores."""
    cores, n = cluster.cores_of(False), len(paths)
    most = min(16 * cores, max(1, PART_BYTES // (size**2 * bits // 8)))
    length = max(1, min(most, n // (4 * max(1, cluster.n_actors()))))
    parts = [tuple(path.absolute() for path in paths[start : start + length]) for start in range(0, n, length)]
    make = functools.partial(_decoding, size, cores, timeout, bits)
    start = 0
    for items, unseen in cluster.in_order(make, parts):
        check_seen(unseen)
        for item in items:
            yield here(item, start, paths[start + item.index])
        start += len(items)


def _decoding(size: int, n_workers: int, timeout: float, bits: int) -> Work:
    decode = Decoders(n_workers)

    def work(paths: tuple[Path, ...]) -> tuple[list[Item], list[Path]]:
        items = list(decode(paths, size, timeout, bits))
        return items, unseen_files(items)

    return work


class Decoders:
    """The processes of an actor that decode: they stay from part to part, as starting them takes a second."""

    def __init__(self, n_workers: int) -> None:
        self._workers = Workers(n_workers, decode_canvas.__module__)

    def __call__(
        self, paths: Sequence[Path], size: int, timeout: float, bits: int = 8, gate: Gate = NO_GATE
    ) -> Iterator[Item]:
        """As `decode_canvases`; all canvases may wait at once."""
        decode = functools.partial(decode_canvas, bits=bits, gate=gate)
        works = [(functools.partial(decode, index, path), path.name) for index, path in enumerate(paths)]
        futures = collections.deque(self._workers.submit(work, size, name, timeout) for work, name in works)
        for index, path in enumerate(paths):
            outcome = futures.popleft().result()
            yield Undecodable(index, path, outcome.reason) if isinstance(outcome, Failed) else outcome


def unseen_files(items: Sequence[Item]) -> list[Path]:
    """Of the files that could not be decoded, those that are not there, for `check_seen` on the other side."""
    return [item.path for item in items if isinstance(item, Undecodable) and not item.path.exists()]


def check_seen(unseen: Sequence[Path]) -> None:
    """Raises InputError if this machine sees a file that a node did not see, and which would count as broken."""
    for path in unseen:
        if path.exists():
            raise InputError(
                f"a node of the cluster does not see {path.name}, which is there on this machine: {SHARED}"
            )


def here(item: Item, start: int, path: Path) -> Item:
    """An item as this machine would have made it. start: place of its part's first. path: as it was given."""
    changes: dict[str, Any] = {"index": start + item.index, "path": path}
    if isinstance(item, Undecodable):
        changes["reason"] = item.reason.replace(str(item.path), str(path))
    return dataclasses.replace(item, **changes)
