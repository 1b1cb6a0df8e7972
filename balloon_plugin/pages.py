"""Page numbers to runs, and what can be done with those.

Values only. A run is a first page number and a count, in pages of 4 KiB. Lists of runs
are as :func:`merge` and then :func:`clip` return them: sorted, disjoint, none longer
than it could be, and each within one range of RAM.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Final, Protocol, TypeVar

from balloon_plugin.events import MemoryRange, Run
from balloon_plugin.layouts import PAGE_SIZE

__all__ = [
    "between",
    "bounds",
    "clip",
    "covered",
    "join",
    "merge",
    "overlapping",
    "split",
    "total",
    "whole",
]

_FIRST: Final = itemgetter(0)
_COUNT: Final = itemgetter(1)


class _Stretch(Protocol):
    """A stretch of memory."""

    @property
    def start(self) -> int:
        """Its first address."""

    @property
    def size(self) -> int:
        """Its bytes."""


_Part = TypeVar("_Part", bound=_Stretch)


def merge(pfns: Iterable[int]) -> list[Run]:
    """Return page numbers, in any order and with duplicates, as runs (rule 11)."""
    ordered = sorted(pfns)
    if not ordered:
        return []
    # Most batches are one run, which need not be walked: as many different numbers as
    # there are between the first and the last.
    span = ordered[-1] - ordered[0] + 1
    if span <= len(ordered) and len(set(ordered)) == span:
        return [(ordered[0], span)]
    return _walk(ordered)


def _walk(ordered: list[int]) -> list[Run]:
    runs = []
    first = following = ordered[0]
    for pfn in ordered:
        if pfn > following:
            runs.append((first, following - first))
            first = pfn
        following = pfn + 1
    runs.append((first, following - first))
    return runs


def clip(runs: Sequence[Run], ranges: Sequence[MemoryRange]) -> tuple[list[Run], int]:
    """Return the parts of runs that are RAM, and how many pages are not.

    A run that spans adjacent ranges is split where they meet: they may be mapped far
    apart, so that no system call can cover both.

    :param runs: sorted and disjoint, as from :func:`merge`.
    :param ranges: RAM by ascending address.
    """
    parts = (between(runs, *bounds(each)) for each in overlapping(runs, ranges))
    inside = list(chain.from_iterable(parts))
    # Nearly always everything is.
    return inside, 0 if inside == runs else total(runs) - total(inside)


def overlapping(runs: Sequence[Run], parts: Sequence[_Part]) -> Sequence[_Part]:
    """Return the parts of memory in which runs may lie.

    :param runs: sorted and disjoint.
    :param parts: by ascending address and disjoint; a guest may have hundreds.
    """
    if not runs:
        return ()
    first, end = runs[0][0] * PAGE_SIZE, sum(runs[-1]) * PAGE_SIZE
    low = bisect_right(parts, first, key=lambda part: part.start + part.size)
    return parts[low : bisect_left(parts, end, low, key=lambda part: part.start)]


def covered(parts: Iterable[tuple[int, int]], unit: int) -> list[Run]:
    """Return the pages that ranges of bytes cover, in whole units, as runs.

    :param parts: (guest-physical address, bytes), in any order, overlapping or not.
    :param unit: bytes, a multiple of 4096. Several parts may cover one together.
    """
    runs: list[Run] = []
    start = end = 0
    for address, size in (*sorted(parts), (_NOWHERE, 0)):
        if address <= end:
            end = max(end, address + size)
            continue
        low, high = -(-start // unit) * unit, end // unit * unit
        if low < high:
            runs.append((low // PAGE_SIZE, (high - low) // PAGE_SIZE))
        start, end = address, address + size
    return runs


def whole(runs: Iterable[Run], pieces: int) -> list[Run]:
    """Return the host pages, of so many pages each, that are wholly in one run."""
    inner = []
    for first, count in runs:
        low, high = -(-first // pieces) * pieces, (first + count) // pieces * pieces
        if low < high:
            inner.append((low, high - low))
    return inner


_NOWHERE: Final = 1 << 65
"""An address behind all others."""


def split(runs: Sequence[Run], pages: int) -> tuple[list[Run], list[Run]]:
    """Return the first ``pages`` (1 or more) of runs, and the rest."""
    for place, (first, count) in enumerate(runs):
        if count >= pages:
            rest = [(first + pages, count - pages)] if count > pages else []
            return [*runs[:place], (first, pages)], [*rest, *runs[place + 1 :]]
        pages -= count
    return list(runs), []


def bounds(part: MemoryRange) -> tuple[int, int]:
    """Return the first page of a range, and the first behind it."""
    return part.start // PAGE_SIZE, (part.start + part.size) // PAGE_SIZE


def between(runs: Sequence[Run], start: int, end: int) -> list[Run]:
    """Return the parts of sorted runs from page ``start`` to before page ``end``."""
    if runs and start <= runs[0][0] and sum(runs[-1]) <= end:
        return list(runs)  # nearly always, and nothing to look for
    low = bisect_right(runs, start, key=sum)
    high = bisect_left(runs, end, key=_FIRST)
    parts = list(runs[low:high])
    if parts and parts[0][0] < start:
        parts[0] = (start, sum(parts[0]) - start)
    if parts and sum(parts[-1]) > end:
        parts[-1] = (parts[-1][0], end - parts[-1][0])
    return parts


def total(runs: Iterable[Run]) -> int:
    """Return how many pages runs have together."""
    return sum(map(_COUNT, runs))


def join(runs: Iterable[Run]) -> list[Run]:
    """Join runs, sorted by both their ends, that overlap or touch."""
    joined: list[Run] = []
    for first, count in runs:
        if joined and first <= sum(joined[-1]):
            start, _ = joined[-1]
            joined[-1] = (start, first + count - start)
        else:
            joined.append((first, count))
    return joined
