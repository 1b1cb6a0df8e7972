"""What the numbers in a buffer look like, for each way in which drivers write them.

Pure functions over the entries of one buffer. They answer one question, "could a driver
that encodes its pages like this have sent these entries?", never "is it likely".
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeAlias

from balloon_plugin.events import MemoryRange

__all__ = ["Buffer", "Encoding", "RamMap", "swap32", "swap_all"]

Entries: TypeAlias = tuple[int, ...]

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


def swap_all(entries: Entries) -> Entries:
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

    def covers(self, first: int, last: int) -> bool:
        """Return whether all numbers from ``first`` to ``last`` are in one range."""
        within = bisect_right(self.starts, first) - 1
        return within >= 0 and last < self.ends[within]

    def spans(self, ordered: Sequence[int]) -> bool:
        """Return whether each of some sorted numbers is in RAM.

        :param ordered: not empty.
        """
        seen = 0
        for start, end in zip(self.starts, self.ends, strict=True):
            if ordered[seen] < start:
                return False
            seen = bisect_left(ordered, end, seen)
            if seen == len(ordered):
                return True
        return False


class Buffer:
    """The entries of one buffer, and what is to be seen in them.

    Dozens of kinds of drivers ask the same of a buffer, so each answer is worked out
    once, and only when it is asked for.

    :param entries: not empty.
    :param ram: the guest's RAM.
    :param taken: the entries that are in the balloon already, as far as known.

    :ivar count: how many entries there are.
    """

    def __init__(
        self,
        entries: Entries,
        ram: RamMap,
        taken: set[int] | frozenset[int] = frozenset(),
    ) -> None:
        self.count = len(entries)
        self._entries = entries
        self._ram = ram
        self._taken = taken
        self._images: dict[int, bool] = {}
        self._ordered = sorted(entries)
        # No number is there twice, or in the balloon already.
        once = len(set(entries)) == len(entries)
        self._distinct = once and (not taken or taken.isdisjoint(entries))

    def fits(self, encoding: Encoding, page: int) -> bool:
        """Return whether a driver with this encoding could have sent it.

        :param page: 4 KiB pages in the guest's page, a power of two.
        """
        shift = page.bit_length() - 1
        match encoding:
            case Encoding.RIGHT:
                right = self._distinct and self._holds(0)
                return right and (page == 1 or page <= self._grain)
            case Encoding.SWAPPED:
                return self._distinct and self._swapped.fits(Encoding.RIGHT, page)
            case Encoding.UNSHIFTED:
                return self._distinct and self._holds(shift)
            case Encoding.SHIFTED:
                # 2.6.29 to 3.3: up to ``page`` neighbours have the same number.
                return (
                    self._most <= page
                    and self._holds(2 * shift)
                    and (not self._distinct or self._neighbours < MANY_NEIGHBOURS)
                )
        # In slots of 8 bytes.
        return self._slots is not None and self._slots.fits(Encoding.RIGHT, 1)

    def _holds(self, shift: int) -> bool:
        """Return whether every entry is in RAM, its numbers divided by a page."""
        if shift not in self._images:
            ram = self._ram.image(shift) if shift else self._ram
            self._images[shift] = (
                not ram.starts  # not known yet
                or ram.covers(self._ordered[0], self._ordered[-1])
                or ram.spans(self._ordered)
            )
        return self._images[shift]

    @cached_property
    def _grain(self) -> int:
        """The largest page of which these are whole and aligned ones, each in order.

        It divides the number of entries, and where and at what number each run begins.
        Usually that is one run: no number twice, in order, and none left out.
        """
        entries, ordered = self._entries, self._ordered
        places = len(entries) | entries[0]
        span = ordered[-1] - ordered[0] + 1
        if not self._distinct or span > len(entries) or ordered != list(entries):
            for place, (before, after) in enumerate(pairwise(entries), 1):
                if after - before != 1:
                    places |= place | after
        return places & -places

    @cached_property
    def _most(self) -> int:
        """How often the most frequent entry is there."""
        return 1 if self._distinct else max(Counter(self._entries).values())

    @cached_property
    def _neighbours(self) -> int:
        """How many of all numbers so far are followed by their successor."""
        numbers = self._taken.union(self._entries)
        return sum(number + 1 in numbers for number in numbers)

    @cached_property
    def _swapped(self) -> Buffer:
        return Buffer(swap_all(self._entries), self._ram)

    @cached_property
    def _slots(self) -> Buffer | None:
        """The lower halves of slots of 8 bytes, if the upper ones are empty."""
        low, high = self._entries[::2], self._entries[1::2]
        is_wide = len(low) == len(high) and not any(high)
        return Buffer(low, self._ram) if is_wide else None
