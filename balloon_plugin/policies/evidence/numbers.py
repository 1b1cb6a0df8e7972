"""What the numbers in a buffer look like, for each way in which drivers write them.

Pure functions over the entries of one buffer. They answer one question, "could a driver
that encodes its pages like this have sent these entries?", never "is it likely".
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from balloon_plugin.events import MemoryRange

__all__ = ["Encoding", "RamMap", "swap32", "swap_all"]

Entries: TypeAlias = Sequence[int]

MANY_NEIGHBOURS = 32
"""Neighbouring numbers that, without any number twice, rule out the wrong shift.

Where pages lie side by side the wrong shift gives them the same number. Where they are
scattered at random over so few groups that 32 of the numbers are neighbours, about half
as many would be the same: that none is has a chance below ``exp(-12)``.
"""


class Encoding(enum.Enum):
    """How a driver writes the number of a page into its 32-bit entries."""

    RIGHT = "one entry per 4 KiB, address / 4096"
    SWAPPED = "right, in the wrong byte order"
    UNSHIFTED = "one entry per guest page, the guest's own page number"
    SHIFTED = "one entry per guest page, its number shifted the wrong way"
    SLOTS = "right, in slots of 8 bytes"


def swap32(value: int) -> int:
    """Return the 32-bit ``value`` as one who reads the wrong byte order sees it."""
    return int.from_bytes(value.to_bytes(4, "little"), "big")


def swap_all(entries: Entries) -> tuple[int, ...]:
    """Return every entry byte-swapped."""
    swapped = array("I", entries)
    swapped.byteswap()
    return tuple(swapped)


@dataclass(frozen=True, slots=True)
class RamMap:
    """The guest's RAM as ranges of page numbers, for telling numbers in and outside.

    :ivar starts: first page number of each range, ascending.
    :ivar ends: page number after the last of each.
    """

    starts: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, ram: Sequence[MemoryRange]) -> RamMap:
        """Return the map of the guest's RAM in 4 KiB pages."""
        return cls(
            tuple(part.start >> 12 for part in ram),
            tuple((part.start + part.size) >> 12 for part in ram),
        )

    def image(self, shift: int) -> RamMap:
        """Return where RAM lies for one who divides page numbers by ``1 << shift``."""
        return RamMap(
            tuple(start >> shift for start in self.starts),
            tuple(((end - 1) >> shift) + 1 for end in self.ends),
        )

    def holds(self, entries: Entries) -> bool:
        """Return whether every entry is in RAM."""
        if not self.starts or min(entries) < self.starts[0]:
            return False
        if len(self.starts) == 1:
            return max(entries) < self.ends[0]
        return all(
            entry < self.ends[bisect_right(self.starts, entry) - 1] for entry in entries
        )

    def could_hold(self, encoding: Encoding, page: int, entries: Entries) -> bool:
        """Return whether a driver with this encoding could have sent ``entries``.

        :param page: 4 KiB pages in the guest's page, a power of two.
        :param entries: one buffer, not empty.
        """
        shift = page.bit_length() - 1
        match encoding:
            case Encoding.RIGHT:
                return self._right(page, entries)
            case Encoding.SWAPPED:
                return self._right(page, swap_all(entries))
            case Encoding.UNSHIFTED:
                return _distinct(entries) and self.image(shift).holds(entries)
            case Encoding.SHIFTED:
                # 2.6.29 to 3.3: up to ``page`` neighbours have the same number.
                most = max(Counter(entries).values())
                return (
                    most <= page
                    and self.image(2 * shift).holds(entries)
                    and (most > 1 or _neighbours(entries) < MANY_NEIGHBOURS)
                )
            case Encoding.SLOTS:
                low, high = entries[::2], entries[1::2]
                return len(low) == len(high) and not any(high) and self._right(1, low)

    def _right(self, page: int, entries: Entries) -> bool:
        return _distinct(entries) and self.holds(entries) and _whole(page, entries)


def _neighbours(entries: Entries) -> int:
    """Return how many of the numbers are followed by their successor."""
    ordered = sorted(entries)
    return sum(after - before == 1 for before, after in pairwise(ordered))


def _distinct(entries: Entries) -> bool:
    return len(set(entries)) == len(entries)


def _whole(page: int, entries: Entries) -> bool:
    """Return whether the entries are whole, aligned guest pages, each in order."""
    if page == 1:
        return True
    firsts = entries[::page]
    return len(entries) % page == 0 and all(
        first % page == 0 and tuple(entries[i : i + page]) == _pieces(first, page)
        for i, first in zip(range(0, len(entries), page), firsts, strict=True)
    )


def _pieces(first: int, page: int) -> tuple[int, ...]:
    return tuple(range(first, first + page))
