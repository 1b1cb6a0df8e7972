"""Guest RAM as the guest's own kernel touches it: bytes, words, and marks of content.

Apart from the device's view of the same memory, on purpose. A mark is one 64-bit word
at the very end of a 4 KiB page, different for each page: a page that the host took away
and gave back empty, or that was written over, no longer has it. Marks are laid and read
with one strided copy for a run of pages, because a simulation checks thousands of them.
"""

from __future__ import annotations

import sys
from array import array
from typing import Final

from balloon_plugin.events import ByteOrder
from balloon_plugin.layouts import PAGE_SIZE

__all__ = ["Ram"]

_MARK_SIZE: Final = 8
_WORDS: Final = PAGE_SIZE // _MARK_SIZE
_MARK: Final = 0x62616C6C << 32
"""Upper half of every mark; the lower half is the number of its page."""


class Ram:
    """One range of guest RAM.

    :param start: guest-physical address of the first byte, on a 4 KiB boundary.
    :param view: the bytes, a multiple of 4 KiB of them, writable.

    :ivar first_page: number of the first 4 KiB page.
    :ivar pages: how many 4 KiB pages there are.
    """

    def __init__(self, start: int, view: memoryview) -> None:
        self.start = start
        self.first_page = start // PAGE_SIZE
        self.pages = len(view) // PAGE_SIZE
        self._bytes = view.cast("B")
        self._halves = self._bytes.cast("H")
        self._words = self._bytes.cast("Q")
        self._unwatched: set[int] = set()

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes at a guest-physical address."""
        at = address - self.start
        return bytes(self._bytes[at : at + size])

    def write(self, address: int, data: bytes) -> None:
        """Store bytes; a page whose mark they cover is not watched any more."""
        at = address - self.start
        self._bytes[at : at + len(data)] = data
        # Nearly always empty: this asks for page ends among the bytes just written.
        first, end = address // PAGE_SIZE, (address + len(data) + _MARK_SIZE - 1)
        self._unwatched.update(range(first, end // PAGE_SIZE))

    def load16(self, address: int, order: ByteOrder) -> int:
        """Return the 16-bit word at an even address, read in one go."""
        return _turn16(self._halves[(address - self.start) >> 1], order)

    def store16(self, address: int, value: int, order: ByteOrder) -> None:
        """Write the 16-bit word at an even address in one go.

        Never with ``struct.pack_into``, which clears the bytes before it stores them: a
        device on another thread would see an index that never was.
        """
        self._halves[(address - self.start) >> 1] = _turn16(value, order)

    def mark(self, page: int, count: int = 1) -> None:
        """Give ``count`` 4 KiB pages from number ``page`` on their marks."""
        self._words[self._ends(page, count)] = array("Q", _marks(page, count))
        self._unwatched.difference_update(range(page, page + count))

    def unmarked(self, page: int, count: int = 1) -> list[int]:
        """Return which of ``count`` pages from ``page`` on have lost their marks."""
        found = self._words[self._ends(page, count)].tolist()
        wanted = _marks(page, count)
        if found == list(wanted):
            return []
        pages = zip(range(page, page + count), wanted, found, strict=True)
        lost = [number for number, mark, word in pages if mark != word]
        return [number for number in lost if number not in self._unwatched]

    def _ends(self, page: int, count: int) -> slice:
        """Return the last words of these pages as a slice of all words."""
        last = (page - self.first_page + 1) * _WORDS - 1
        return slice(last, last + (count - 1) * _WORDS + 1, _WORDS)


def _marks(page: int, count: int) -> range:
    return range(_MARK + page, _MARK + page + count)


def _turn16(value: int, order: ByteOrder) -> int:
    """Turn a word between the order of this computer and ``order``."""
    if order.value == sys.byteorder:
        return value
    return (value & 0xFF) << 8 | value >> 8
