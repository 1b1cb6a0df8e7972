"""Guest-physical addresses to bytes, bounds checked.

Knows regions of RAM and nothing of what is in them. Every address here comes from a
guest, so a range outside RAM is an ordinary answer (``None``), never an exception.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from balloon_plugin.errors import HostError
from balloon_plugin.events import MemoryRange
from balloon_plugin.layouts import PAGE_SIZE

__all__ = ["GuestMemory", "Region"]

_ADDRESS_SPACE: Final = 1 << 64
"""Addresses in a descriptor have 64 bits (VIRTIO 1.3 §2.7.5)."""


# Without eq: comparing two views compares their bytes, a whole guest of them.
@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A range of guest RAM that is mapped here.

    :ivar start: guest-physical address of the first byte.
    :ivar data: writable view of its bytes (format ``B``). Whole pages of 4 KiB, and
        mapped at a page boundary: ring words are stored whole only where they are
        aligned.
    """

    start: int
    data: memoryview

    @property
    def end(self) -> int:
        """Address of the first byte after it."""
        return self.start + len(self.data)


class GuestMemory:
    """All RAM of one guest.

    :param regions: in any order.
    :raises HostError: if regions overlap, or one is not made of whole pages, not inside
        the address space or not a writable view of bytes.
    """

    def __init__(self, regions: Iterable[Region]) -> None:
        ordered = tuple(sorted(regions, key=lambda region: region.start))
        for region in ordered:
            _check(region)
        for below, above in itertools.pairwise(ordered):
            if above.start < below.end:
                message = (
                    f"the regions of RAM at {below.start:#x} and {above.start:#x} "
                    "overlap: map each guest-physical address once"
                )
                raise HostError(message)
        self._take(ordered)

    @property
    def regions(self) -> tuple[Region, ...]:
        """Return the regions by ascending address."""
        return self._regions

    @property
    def ranges(self) -> tuple[MemoryRange, ...]:
        """Return where RAM is, by ascending address; one range for each region."""
        return self._ranges

    def covers(self, address: int, size: int) -> bool:
        """Return whether these bytes are RAM; they may lie in adjacent regions.

        No bytes at all are RAM where RAM is, and right behind its end.
        """
        place = bisect_right(self._starts, address) - 1
        return place >= 0 and 0 <= size <= self._reach[place] - address

    def view(self, address: int, size: int) -> memoryview | None:
        """Return a view of these bytes, or ``None`` if not all are in one region.

        The view keeps the region mapped: let go of it before :meth:`release`.
        """
        place = bisect_right(self._starts, address) - 1
        if place < 0:
            return None
        region = self._regions[place]
        if not 0 <= size <= region.end - address:
            return None
        offset = address - region.start
        return region.data[offset : offset + size]

    def read(self, address: int, size: int) -> bytes | None:
        """Return a copy of these bytes, or ``None`` if not all are RAM."""
        view = self.view(address, size)
        if view is not None:
            return bytes(view)
        if not self.covers(address, size):
            return None
        return b"".join(self._pieces(address, size))

    def release(self) -> None:
        """Let go of all RAM, so that its mappings can be closed; nothing is RAM then.

        Views that :meth:`view` gave out are their owners' to release.
        """
        for region in self._regions:
            region.data.release()
        self._take(())

    def _take(self, regions: tuple[Region, ...]) -> None:
        self._regions = regions
        self._ranges = tuple(
            MemoryRange(region.start, len(region.data)) for region in regions
        )
        self._starts = [region.start for region in regions]
        self._reach = _reach(regions)

    def _pieces(self, address: int, size: int) -> Iterator[memoryview]:
        """Yield what each region holds of a range that is known to be RAM."""
        place = bisect_right(self._starts, address) - 1
        while size:
            region = self._regions[place]
            offset = address - region.start
            piece = region.data[offset : offset + size]
            yield piece
            address, size, place = address + len(piece), size - len(piece), place + 1


def _check(region: Region) -> None:
    data = region.data
    if not _is_writable_view(data):
        message = (
            f"the region of RAM at {region.start:#x} is no writable view of bytes: "
            "pass memoryview(mapping), with a mapping that can be written"
        )
        raise HostError(message)
    whole = region.start % PAGE_SIZE == 0 and len(data) % PAGE_SIZE == 0
    if not whole or not 0 <= region.start < region.end <= _ADDRESS_SPACE:
        message = (
            f"a region of RAM cannot be {len(data)} bytes at {region.start:#x}: give "
            f"whole pages of {PAGE_SIZE} bytes, below 2**64"
        )
        raise HostError(message)


def _is_writable_view(data: object) -> bool:
    return (
        isinstance(data, memoryview)
        and (data.format, data.ndim) == ("B", 1)
        and data.contiguous
        and not data.readonly
    )


def _reach(regions: tuple[Region, ...]) -> list[int]:
    """Return for each region where the RAM that it is part of ends."""
    ends = [region.end for region in regions]
    for place in range(len(regions) - 2, -1, -1):
        if ends[place] == regions[place + 1].start:
            ends[place] = ends[place + 1]
    return ends
