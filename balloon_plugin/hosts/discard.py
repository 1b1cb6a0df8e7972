"""Giving pages of guest RAM back to the operating system.

Knows mappings and files, nothing of balloons. What really frees a page depends on what
is behind it: shared memory keeps its pages whatever a mapping is advised, so the hole
is punched in the file; private memory is dropped from the mapping.

Several spans go to the kernel in one call, where it takes that. A single short one goes
through :meth:`mmap.mmap.madvise`, which costs a microsecond less than a call through
ctypes (5.8 against 6.8 for one page of a memfd) but holds the interpreter lock; a long
one goes through ``fallocate``, which does not, or in short pieces.

The kernel may refuse (a locked mapping, a file system without holes). That is no error:
the pages are simply not given back.

Huge pages are of two sorts. One of hugetlb is given back as a whole or not at all, and
whoever describes such memory says so (:attr:`Backing.page_size`). A transparent one is
split by the kernel: shared memory is freed page by page at once, but private memory
only when all of a huge page was dropped, or when memory runs short.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from balloon_plugin.events import Run
from balloon_plugin.hosts.advise import advise
from balloon_plugin.layouts import PAGE_SIZE
from balloon_plugin.pages import between, overlapping, total

__all__ = ["LOCK_HELD_FOR", "Backing", "give_back"]

LOCK_HELD_FOR: Final = 1 << 20
"""Bytes up to which the interpreter lock may be held: 0.2 ms at the worst.

A huge page of private memory is one call whatever its size, and takes microseconds.
"""

_FALLOC_FL_KEEP_SIZE: Final = 1
_FALLOC_FL_PUNCH_HOLE: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_fallocate.restype = ctypes.c_int


@dataclass(frozen=True, slots=True, eq=False)
class Backing:
    """A range of guest RAM and what is behind it.

    :ivar start: guest-physical address of the first byte, a multiple of 4096.
    :ivar size: bytes, a multiple of 4096.
    :ivar mapping: the mapping in which the range lies.
    :ivar at: where in the mapping the range begins.
    :ivar file: file descriptor of what is mapped, if it is shared; ``None`` for private
        anonymous memory.
    :ivar file_at: where in the file the range begins.
    :ivar page_size: what the kernel can give back at the least. A part of a huge page
        is not given back: the kernel would fill it with zeros, and keep it.
    """

    start: int
    size: int
    mapping: mmap.mmap
    at: int = 0
    file: int | None = None
    file_at: int = 0
    page_size: int = mmap.PAGESIZE

    def give_back(self, runs: Sequence[Run]) -> int:
        """Give back the whole pages of runs, as far as they lie in the range.

        :returns: how many pages of 4 KiB the kernel took.
        """
        first = self.start // PAGE_SIZE
        runs = between(runs, first, first + self.size // PAGE_SIZE)
        if self.page_size > PAGE_SIZE:
            runs = self._whole(runs)
        advice = mmap.MADV_DONTNEED if self.file is None else mmap.MADV_REMOVE
        at_once = 0
        if len(runs) > 1:
            at_once = advise(self.mapping, advice, runs, self._page_0)
        return total(runs[:at_once]) + sum(
            count
            for page, count in runs[at_once:]
            if self._give_back(page * PAGE_SIZE - self.start, count * PAGE_SIZE)
        )

    @property
    def _page_0(self) -> int:
        """Where in the mapping the page number 0 would be."""
        return self.at - self.start

    def _whole(self, runs: Sequence[Run]) -> list[Run]:
        """Return the huge pages that are wholly in runs, as runs of 4 KiB pages."""
        # A mapping begins where a page of its file does, so this aligns in both.
        size, page_0 = self.page_size // PAGE_SIZE, self._page_0 // PAGE_SIZE
        whole = []
        for page, count in runs:
            low = -(-(page_0 + page) // size) * size
            high = (page_0 + page + count) // size * size
            if low < high:
                whole.append((low - page_0, high - low))
        return whole

    def _give_back(self, offset: int, size: int) -> bool:
        if self.file is None:
            return self._drop(self.at + offset, size)
        if size <= LOCK_HELD_FOR and self._advise(
            mmap.MADV_REMOVE, self.at + offset, size
        ):
            return True
        mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
        return bool(_fallocate(self.file, mode, self.file_at + offset, size) == 0)

    def _drop(self, at: int, size: int) -> bool:
        # Of less than a huge page the kernel says that it is dropped, and keeps it.
        step = max(LOCK_HELD_FOR, self.page_size)
        return all(
            self._advise(mmap.MADV_DONTNEED, piece, min(step, at + size - piece))
            for piece in range(at, at + size, step)
        )

    def _advise(self, advice: int, at: int, size: int) -> bool:
        try:
            self.mapping.madvise(advice, at, size)
        except OSError:
            return False
        return True


def give_back(backings: Sequence[Backing], runs: Sequence[Run]) -> int:
    """Give pages back, and return how many really were, in pages of 4 KiB.

    :param backings: by ascending address, disjoint. What lies outside is left alone.
    :param runs: as promised by the device: sorted, disjoint, whole host pages.
    """
    return sum(backing.give_back(runs) for backing in overlapping(runs, backings))
