"""The 16-bit words through which a device and a driver on two processors agree.

All that goes to such a word goes through here (rule 10), and so does the one thing that
its order is not enough for.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock
from array import array
from collections.abc import Callable

from balloon_plugin.events import ByteOrder

__all__ = ["Words", "make_fence"]


class Words:
    """The words of a ring, loaded and stored whole.

    An item of a memory view is one aligned access, while ``struct.pack_into`` writes
    zeros first, which a driver on another processor can see.

    Each load and store is a call of its own, which the interpreter does not reorder.
    Nor does an x86-64 processor, but for one case: a load may come before an earlier
    store to another place (Intel SDM, volume 3, "Memory Ordering"). So what was read of
    a buffer is no older than the word that published it, and what a word publishes is
    there before it. Where a store has to come before a load, see :func:`make_fence`.
    """

    def __init__(self, ring: memoryview, order: ByteOrder) -> None:
        self._words = ring.cast("H")
        self._foreign = order.value != sys.byteorder

    def load(self, place: int) -> int:
        """Return a word."""
        word = self._words[place]
        return _swapped(word) if self._foreign else word

    def store(self, place: int, word: int) -> None:
        """Set a word."""
        self._words[place] = _swapped(word) if self._foreign else word

    def run(self, place: int, count: int, step: int = 1) -> list[int]:
        """Return words that follow each other at a distance."""
        words = self._words[place : place + count * step : step].tolist()
        if not self._foreign:
            return words
        swapped = array("H", words)
        swapped.byteswap()
        return swapped.tolist()

    def release(self) -> None:
        """Let go of the ring."""
        self._words.release()


def _swapped(word: int) -> int:
    return (word & 0xFF) << 8 | word >> 8


def make_fence() -> Callable[[], None]:
    """Return a full memory barrier: loads after a call come after the stores before it.

    Two sides that each store a word and then load the other's need one, or both may
    miss what the other did, and wait for ever. Here that is to return a buffer and then
    see whether the driver wants to know, and to ask for a kick and then see whether a
    buffer came before that.

    Python has no barrier, but whatever takes a lock has to do so with one locked
    instruction, and on x86-64 no load or store is reordered with such (Intel SDM,
    volume 3, "Memory Ordering"). The lock guards nothing, and nobody waits for it: each
    queue has its own. On processors with a weaker order (64-bit Arm, POWER, RISC-V)
    neither this nor :class:`Words` is enough; docs/architecture.md says what follows.
    """
    lock = allocate_lock()

    def fence() -> None:
        with lock:
            pass

    return fence
