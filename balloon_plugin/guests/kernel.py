"""The memory of a guest kernel: which frames are in use, and whether they survive.

A frame is a page of the kernel's own size. It is in use, free, or in the balloon. Some
of the frames in use bear marks in real RAM. Those that lost theirs, and frames in use
that the driver was made to free, are the harm that was done.

Low memory is the kernel's own, as on every platform, so that numbers which are too
small (the wrong shift of 2.6.29-3.3 divides an address by 256 on 64 KiB pages) hit what
is in use. A few more frames in use lie like islands in the rest. A frame that comes
back from the balloon is put to use at once, since a device may not touch it any more
(D4).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from balloon_plugin.errors import HostError
from balloon_plugin.guests.buddy import BLOCK, in_order
from balloon_plugin.guests.oops import Oops
from balloon_plugin.guests.ram import Ram
from balloon_plugin.guests.traits import Allocation
from balloon_plugin.layouts import PAGE_SIZE

__all__ = ["Kernel", "Layout"]

LOW_SIZE: Final = 4 << 20
"""Low memory in use: the kernel, its data, and at its end the drivers' heap."""

HEAP_SIZE: Final = 256 << 10
HEAP_FRAMES: Final = 8
"""The heap, for :meth:`Kernel.claim`: queues and their buffers; the larger of the two.

A driver has at most five queues, each aligned to a frame or to more.
"""

ISLAND_PAGES: Final = 32
"""Pages in use beyond low memory, in as many frames as that makes, at least two.

A page that bears a mark costs a page fault, 2 microseconds in a virtual machine; so
there are as many as are needed and no more, here and below.
"""

FIRST_ISLAND: Final = 100
"""Free frames below the first island: it lies within a first batch of 256."""

FREE_BLOCK: Final = 1 << 20
"""Bytes of a block that is reported or hinted at when it is free.

Linux's have 2 or 4 MiB, and a small guest with islands has none as large as that.
"""

REUSED_PAGES: Final = 64
"""Pages put to use when they come back from the balloon; any more become free."""

_FREE: Final = 0
_USED: Final = 1
_BALLOONED: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a kernel lays out its memory.

    :ivar page_size: bytes in a frame, a multiple of 4 KiB.
    :ivar watched: how many of the lowest pages bear marks.
    :ivar allocation: where free frames come from.
    :ivar seed: of the scattering.
    :ivar queue_align: bytes to which the addresses of queues are aligned, if that is
        more than a frame.
    """

    page_size: int = PAGE_SIZE
    watched: int = 16
    allocation: Allocation = Allocation.TOP
    seed: int = 0
    queue_align: int = PAGE_SIZE


class Kernel:
    """The frames of one guest kernel, which takes over RAM when it is made.

    :param ram: the guest's RAM.
    :param layout: how to lay it out.
    :raises HostError: if there is too little of it.

    :ivar queue_align: bytes to which the addresses of queues are aligned.
    :ivar double_frees: how often a free frame was freed ("refcount underflow").
    :ivar peak_ballooned: the most pages that were in the balloon at once.
    """

    def __init__(self, ram: Ram, layout: Layout) -> None:
        self.ram = ram
        self.double_frees = 0
        self.peak_ballooned = 0
        self._pieces = layout.page_size // PAGE_SIZE
        self._first = ram.first_page // self._pieces
        # A queue is whole frames (alloc_pages_exact, dma_alloc_coherent).
        self.queue_align = max(layout.page_size, layout.queue_align)
        self._states = bytearray(ram.pages // self._pieces)
        low = min(LOW_SIZE, ram.pages * PAGE_SIZE // 4) // layout.page_size
        self._lay_out(low, layout)
        block = max(1, BLOCK // layout.page_size)
        frames = range(low, len(self._states))
        order = in_order(frames, layout.allocation, block, layout.seed)
        self._fresh = (index for index in order if self._states[index] == _FREE)
        self._free: list[int] = []
        self._reused: dict[int, None] = {}
        self._freed_in_use: set[int] = set()
        self._ballooned = 0

    def _lay_out(self, low: int, layout: Layout) -> None:
        """Take low memory and the islands into use, and give out marks."""
        self._heap_end = self.ram.start + low * layout.page_size
        self._heap_size: int = max(HEAP_SIZE, HEAP_FRAMES * self.queue_align)
        self._heap: int
        self.empty_heap()
        if self._heap < self.ram.start:
            least = 4 * self._heap_size >> 20
            raise HostError(f"give a guest at least {least} MiB of RAM")
        self._watched: list[tuple[int, int]] = []
        self._states[:low] = bytes([_USED]) * low
        self._watch(self.ram.first_page, min(layout.watched, low * self._pieces))
        for index in self._islands(low, BLOCK // layout.page_size):
            self._states[index] = _USED
            self._watch(self._page(index), self._pieces)

    def _islands(self, low: int, block: int) -> list[int]:
        """Return where they lie: all over RAM, and near where each order begins."""
        start, end = low + FIRST_ISLAND, len(self._states)
        step = max(end - start, 1) // max(ISLAND_PAGES // self._pieces, 2)
        top = end - block + min(FIRST_ISLAND, block // 2)
        return [*range(start, end, step + 1), *range(max(top, start), end, end)]

    def _watch(self, page: int, count: int) -> None:
        self.ram.mark(page, count)
        self._watched.append((page, count))

    # --- what a driver asks for ---

    def claim(self, size: int, align: int = PAGE_SIZE) -> int:
        """Return the address of memory for a queue or a buffer, on pages of its own.

        :param align: bytes, a multiple of 4 KiB, to which the address is aligned.
        :raises HostError: if the heap is exhausted; it is enough for one driver.
        """
        start, pages = -(-self._heap // align) * align, -(-size // PAGE_SIZE)
        self._heap = start + pages * PAGE_SIZE
        if self._heap > self._heap_end:
            raise HostError(
                f"a driver wants more than {self._heap_size >> 10} KiB for its queues: "
                "make them smaller"
            )
        self.ram.mark(start // PAGE_SIZE, pages)
        self._claimed.append((start // PAGE_SIZE, pages))
        return start

    def empty_heap(self) -> None:
        """Forget all that was claimed: the driver that had it is gone."""
        self._heap = self._heap_end - self._heap_size
        self._claimed: list[tuple[int, int]] = []

    def allocate(self, count: int) -> list[int]:
        """Return the numbers of frames for the balloon, fewer if there are no more.

        The last ones freed come first, then those never used before. When there are no
        more, what was put to use after the balloon gives way, as a page cache does.
        """
        taken: list[int] = []
        for source in (self._freed, self._never_used, self._given_way):
            more = source(count - len(taken))
            for index in more:
                self._states[index] = _BALLOONED
            taken += more
        self._ballooned += len(taken)
        self.peak_ballooned = max(self.peak_ballooned, self.ballooned)
        return [self._first + index for index in taken]

    def free_blocks(self) -> list[tuple[int, int]]:
        """Return blocks of which every frame is free, as (address, bytes)."""
        frames = max(1, FREE_BLOCK // (self._pieces * PAGE_SIZE))
        size, free = frames * self._pieces * PAGE_SIZE, bytes(frames)
        first = -self._first % frames
        return [
            (self._page(index) * PAGE_SIZE, size)
            for index in range(first, len(self._states) - frames + 1, frames)
            if self._states[index : index + frames] == free
        ]

    def free(self, frames: Iterable[int]) -> None:
        """Free frames, which the driver may be quite wrong about.

        :raises Oops: at one that is not RAM; there is no ``struct page`` for it.
        """
        indexes = [frame - self._first for frame in frames]
        if self._all_ballooned(indexes):
            self._free_many(indexes)
            return
        for index in indexes:
            self._free_one(index)

    def _all_ballooned(self, indexes: list[int]) -> bool:
        """Return whether these are different frames that are in the balloon."""
        if not indexes or min(indexes) < 0 or max(indexes) >= len(self._states):
            return False
        states = bytes(map(self._states.__getitem__, indexes))
        different = len(set(indexes)) == len(indexes)
        return different and states.count(_BALLOONED) == len(states)

    def _free_many(self, indexes: list[int]) -> None:
        """Free what a right driver frees, which is nearly always the case."""
        self._ballooned -= len(indexes)
        room = -(-REUSED_PAGES // self._pieces) - len(self._reused)
        for index in indexes[: max(0, room)]:
            self._put_to_use(index)
        for index in indexes[max(0, room) :]:
            self._release(index)

    def _free_one(self, index: int) -> None:
        if not 0 <= index < len(self._states):
            frame = index + self._first
            raise Oops(f"freed page frame {frame:#x}, which is not RAM")
        state = self._states[index]
        if state == _FREE:
            self.double_frees += 1
        elif state == _USED:
            self._freed_in_use.add(index)
            self._reused.pop(index, None)
            self._release(index)
        else:
            self._ballooned -= 1
            self._reuse(index)

    # --- what came of it ---

    @property
    def ballooned(self) -> int:
        """Pages that the kernel lacks because they were taken for the balloon."""
        return self._ballooned * self._pieces

    def lost_pages(self) -> int:
        """Return how many pages in use were lost so far, 4 KiB each.

        By their content, where they bear marks, or because the driver freed them.
        """
        reused = [(self._page(index), self._pieces) for index in self._reused]
        runs = self._watched + self._claimed + reused
        lost = {page for run in runs for page in self.ram.unmarked(*run)}
        for index in self._freed_in_use:
            lost.update(range(self._page(index), self._page(index + 1)))
        return len(lost)

    # --- frames ---

    def _freed(self, count: int) -> list[int]:
        return [self._free.pop() for _ in range(min(count, len(self._free)))]

    def _never_used(self, count: int) -> list[int]:
        return list(islice(self._fresh, count))

    def _given_way(self, count: int) -> list[int]:
        return [self._reused.popitem()[0] for _ in range(min(count, len(self._reused)))]

    def _reuse(self, index: int) -> None:
        if len(self._reused) * self._pieces >= REUSED_PAGES:
            self._release(index)
            return
        self._put_to_use(index)

    def _put_to_use(self, index: int) -> None:
        self._states[index] = _USED
        self._reused[index] = None
        self.ram.mark(self._page(index), self._pieces)

    def _release(self, index: int) -> None:
        self._states[index] = _FREE
        self._free.append(index)

    def _page(self, index: int) -> int:
        return (self._first + index) * self._pieces
