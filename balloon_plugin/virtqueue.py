"""Split virtqueues, the device's side (VIRTIO 1.3 §2.7).

Knows rings and chains of descriptors, and nothing of what is in the buffers. The driver
may be wrong or hostile, and may write to all of this while it is read. So a descriptor
or an index is read once, into locals, and checked there. What is wrong becomes a
sentence: in the chain where only that is lost, in the queue where the ring itself is.

Python has no memory barriers. Each load and store here is a call of its own, which the
interpreter does not reorder; nor does an x86-64 processor what matters here.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder
from balloon_plugin.layouts import (
    VIRTQUEUE_MAX_SIZE,
    VRING_AVAIL,
    VRING_DESC,
    VRING_DESC_F_INDIRECT,
    VRING_DESC_F_NEXT,
    VRING_DESC_F_WRITE,
    VRING_USED,
    VRING_USED_ELEM,
)
from balloon_plugin.memory import GuestMemory

__all__ = ["MAX_CHAIN_BYTES", "MAX_CHAIN_DESCRIPTORS", "Chain", "SplitQueue"]

MAX_CHAIN_DESCRIPTORS: Final = 256
"""Descriptors read of one chain, and in one indirect table.

A chain must not be longer than the queue (§2.7.5.3.1), but that may have 32768 entries,
and all its chains may share one long tail: without a limit one kick would cost minutes.
Free page reporting sends 32 in a chain, all else in a balloon 1 or 2. The limit is
expected (§2.7.4.1, MAY have a reasonable limit of descriptors).
"""

MAX_CHAIN_BYTES: Final = 1 << 32
"""Bytes in one chain (§2.7.5.2, MUST NOT be longer than 2**32 bytes in total)."""

_DESCRIPTOR: Final = VRING_DESC.size
_LINKED: Final = VRING_DESC_F_NEXT | VRING_DESC_F_INDIRECT

# Both rings begin with the words flags and idx (§2.7.6, §2.7.8).
_WORD: Final = 2
_FLAGS: Final = 0
_IDX: Final = 1
_HEADS: Final = VRING_AVAIL.size // _WORD
_INDEX_MASK: Final = 0xFFFF
"""Ring indexes run freely, and wrap at 65536 (§2.7.13.3)."""


class Chain(NamedTuple):
    """A buffer that the driver made available.

    A named tuple, since one is made for every buffer, and a frozen dataclass takes more
    than twice as long to make.

    :ivar head: number of its first descriptor, by which the driver knows it.
    :ivar readable: the device-readable parts as (guest-physical address, bytes); all of
        them in RAM, though not always in one region of it.
    :ivar writable: the device-writable parts, likewise.
    :ivar fault: what is wrong with the chain, a sentence, or ``None``. The parts are
        those before the fault. A faulty chain goes back to the driver like any other.
    """

    head: int
    readable: tuple[tuple[int, int], ...]
    writable: tuple[tuple[int, int], ...]
    fault: str | None = None


class SplitQueue:
    """A started split virtqueue.

    One that cannot be (its size, alignment or place) is no reason to raise, since it
    was the driver who chose: it is :attr:`broken` from the start.

    :param memory: RAM, in which the three parts of the queue and all buffers are.
    :param size: entries.
    :param desc: guest-physical address of the descriptor table.
    :param avail: guest-physical address of the available ring.
    :param used: guest-physical address of the used ring.
    :param byte_order: of everything in the queue: the guest's own on legacy (§2.7.3),
        little-endian with VERSION_1.
    :param next_avail: index in the available ring to go on from.
    :param indirect: whether VIRTIO_RING_F_INDIRECT_DESC was negotiated.
    """

    def __init__(  # noqa: PLR0913 - what a transport is told of a queue, each by itself
        self,
        memory: GuestMemory,
        size: int,
        desc: int,
        avail: int,
        used: int,
        byte_order: ByteOrder,
        *,
        next_avail: int = 0,
        indirect: bool = True,
    ) -> None:
        self._memory = memory
        self._size = size
        self._desc = desc
        self._byte_order = byte_order
        self._indirect = indirect
        self._next_avail = next_avail & _INDEX_MASK
        self._held: set[int] = set()
        self._broken: str | None = None
        self._map(_views(memory, size, desc, avail, used))
        self._unpack = VRING_DESC.of(byte_order).unpack_from
        self._pack = VRING_USED_ELEM.of(byte_order).pack

    def _map(self, views: list[memoryview] | str) -> None:
        if isinstance(views, str):
            self._broken = views
            views = [memoryview(bytearray(VRING_USED.size))] * 3
        self._table, avail, used = views
        self._avail = _Words(avail, self._byte_order)
        self._used = _Words(used, self._byte_order)
        self._elements = used[VRING_USED.size :]
        # Whoever served the queue before counted there, and may have asked the driver
        # not to notify, which we never do.
        self._next_used = self._used.load(_IDX)
        self._used.store(_FLAGS, 0)

    @property
    def byte_order(self) -> ByteOrder:
        """Return the byte order of the queue and of page numbers in its buffers."""
        return self._byte_order

    @property
    def desc(self) -> int:
        """Return the guest-physical address of the descriptor table."""
        return self._desc

    @property
    def broken(self) -> str | None:
        """Return why the ring itself is lost, a sentence, or ``None``."""
        return self._broken

    @property
    def next_avail(self) -> int:
        """Return the index in the available ring from which a successor has to go on.

        That is the first chain not pushed yet, so that a buffer which the device keeps
        (statistics) is not lost when the queue stops. Chains are pushed in order.
        """
        return (self._next_avail - len(self._held)) & _INDEX_MASK

    def pop(self, limit: int) -> list[Chain]:
        """Take up to ``limit`` available chains, in order."""
        chains: list[Chain] = []
        for head in self._heads(limit):
            if head >= self._size or head in self._held:
                self._broken = self._objection(head)
                break
            self._held.add(head)
            chains.append(self._chain(head))
        self._next_avail = (self._next_avail + len(chains)) & _INDEX_MASK
        return chains

    def push(self, chains: Sequence[Chain]) -> None:
        """Return chains to the driver, in one update.

        :raises HostError: if one is not from :meth:`pop` of this queue, or was returned
            before; nothing is returned then.
        """
        heads = [chain.head for chain in chains]
        if not heads:
            return
        if len(set(heads)) < len(heads) or not self._held.issuperset(heads):
            message = (
                f"of the chains {heads} some are not the device's to return: "
                "push each chain that this queue's pop() gave, once"
            )
            raise HostError(message)
        self._held.difference_update(heads)
        self._publish(heads)

    def release(self) -> None:
        """Let go of guest memory, so that it can be unmapped: the queue was stopped."""
        self._next_avail = self.next_avail
        self._held.clear()
        self._broken = "the queue was stopped"
        for view in (self._table, self._avail, self._used, self._elements):
            view.release()

    # --- rings ---

    def _heads(self, limit: int) -> list[int]:
        """Read the first descriptors' numbers of up to ``limit`` available chains."""
        if self._broken is not None:
            return []
        waiting = (self._avail.load(_IDX) - self._next_avail) & _INDEX_MASK
        if waiting > self._size:
            self._broken = f"the driver offers {waiting} buffers at once"
            return []
        place = self._next_avail % self._size
        count = min(waiting, limit)
        before_wrap = min(count, self._size - place)
        return self._avail.run(_HEADS + place, before_wrap) + self._avail.run(
            _HEADS, count - before_wrap
        )

    def _objection(self, head: int) -> str:
        # The specification is silent on both. A device that went on would return what
        # the driver does not know, or has not got back yet.
        if head >= self._size:
            return f"the driver offers descriptor {head} in a queue of {self._size}"
        return f"the driver offers descriptor {head} before it was returned"

    def _publish(self, heads: list[int]) -> None:
        # Used length 0: a balloon writes to no buffer (D5, §2.7.8).
        body = b"".join([self._pack(head, 0) for head in heads])
        start = self._next_used % self._size * VRING_USED_ELEM.size
        before_wrap = min(len(body), len(self._elements) - start)
        self._elements[start : start + before_wrap] = body[:before_wrap]
        self._elements[: len(body) - before_wrap] = body[before_wrap:]
        # §2.7.8.2, MUST set len prior to updating the used idx (D18).
        self._next_used = (self._next_used + len(heads)) & _INDEX_MASK
        self._used.store(_IDX, self._next_used)

    # --- chains ---

    def _chain(self, head: int) -> Chain:
        """Read a chain; nearly all are a single descriptor."""
        descriptor = self._unpack(self._table, head * _DESCRIPTOR)
        address, length, flags, _ = descriptor
        if flags & _LINKED or not self._memory.covers(address, length):
            return self._walk(head, descriptor)
        part = ((address, length),)
        if flags & VRING_DESC_F_WRITE:
            return Chain(head, (), part)
        return Chain(head, part, ())

    def _walk(self, head: int, descriptor: _Descriptor) -> Chain:
        """Follow a chain from its first descriptor, as far as it can be understood."""
        parts = _ChainParts(self._memory, min(self._size, MAX_CHAIN_DESCRIPTORS))
        fault = None
        try:
            for address, length, flags, _ in self._descriptors(descriptor):
                parts.add(address, length, flags)
        except _ChainError as error:
            fault = str(error)
        return Chain(head, tuple(parts.readable), tuple(parts.writable), fault)

    def _descriptors(self, descriptor: _Descriptor) -> Iterator[_Descriptor]:
        """Yield the descriptors of a chain, an indirect table's in place of its own.

        §2.7.5.3.2, MUST handle zero or more normal descriptors followed by one that is
        indirect. There may be no end to them.
        """
        for direct in self._follow(self._table, descriptor):
            if direct[2] & VRING_DESC_F_INDIRECT:
                table = self._indirect_table(direct)
                yield from self._follow(table, self._unpack(table))
            else:
                yield direct

    def _follow(
        self, table: memoryview | bytes, descriptor: _Descriptor
    ) -> Iterator[_Descriptor]:
        """Yield a descriptor and those linked to it in the same table."""
        yield descriptor
        while descriptor[2] & VRING_DESC_F_NEXT:
            entries, following = len(table) // _DESCRIPTOR, descriptor[3]
            if following >= entries:
                message = f"descriptor {following} is next in a table of {entries}"
                raise _ChainError(message)
            descriptor = self._unpack(table, following * _DESCRIPTOR)
            yield descriptor

    def _indirect_table(self, descriptor: _Descriptor) -> bytes:
        """Return the table that a descriptor refers to.

        §2.7.5.3.2, MUST ignore the write-only flag in such a descriptor (D18).
        """
        address, length, flags, _ = descriptor
        if not self._indirect:
            message = "an indirect descriptor, but that feature was not negotiated"
            raise _ChainError(message)
        if flags & VRING_DESC_F_NEXT:
            message = "an indirect descriptor has a next one (§2.7.5.3.1)"
            raise _ChainError(message)
        entries, rest = divmod(length, _DESCRIPTOR)
        if rest or not 0 < entries <= MAX_CHAIN_DESCRIPTORS:
            message = f"an indirect table has {length} bytes"
            raise _ChainError(message)
        table = self._memory.read(address, length)
        if table is None:
            message = f"an indirect table at {address:#x} is not in RAM"
            raise _ChainError(message)
        return table


_Descriptor: TypeAlias = tuple[int, int, int, int]
"""``addr``, ``len``, ``flags`` and ``next``."""


class _ChainError(Exception):
    """A chain cannot be understood any further; the text is its fault."""


class _ChainParts:
    """The parts of a chain as they are found.

    :param longest: descriptors to accept.
    """

    def __init__(self, memory: GuestMemory, longest: int) -> None:
        self.readable: list[tuple[int, int]] = []
        self.writable: list[tuple[int, int]] = []
        self._memory = memory
        self._longest = longest
        self._count = 0
        self._bytes = 0

    def add(self, address: int, length: int, flags: int) -> None:
        """Take the next descriptor.

        :raises _ChainError: if it cannot be the next.
        """
        self._count += 1
        self._bytes += length
        fault = self._fault(address, length, flags)
        if fault is not None:
            raise _ChainError(fault)
        writes = flags & VRING_DESC_F_WRITE
        (self.writable if writes else self.readable).append((address, length))

    def _fault(self, address: int, length: int, flags: int) -> str | None:
        if flags & VRING_DESC_F_INDIRECT:
            return "an indirect table has an indirect descriptor in it (§2.7.5.3.1)"
        if self._count > self._longest:
            return f"the chain has a loop, or more than {self._longest} descriptors"
        if self._bytes > MAX_CHAIN_BYTES:
            return f"the chain has {self._bytes} bytes (§2.7.5.2)"
        if self.writable and not flags & VRING_DESC_F_WRITE:
            return "a device-readable part follows a device-writable one (§2.7.4.2)"
        if not self._memory.covers(address, length):
            return f"a part of {length} bytes at {address:#x} is not in RAM"
        return None


class _Words:
    """The 16-bit words of a ring, loaded and stored whole (rule 10).

    All that goes to such a word goes through here: an item of a memory view is one
    aligned access, while ``struct.pack_into`` writes zeros first, which a driver on
    another processor can see.
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

    def run(self, place: int, count: int) -> list[int]:
        """Return consecutive words."""
        words = array("H", self._words[place : place + count].tolist())
        if self._foreign:
            words.byteswap()
        return words.tolist()

    def release(self) -> None:
        """Let go of the ring."""
        self._words.release()


def _swapped(word: int) -> int:
    return (word & 0xFF) << 8 | word >> 8


def _views(
    memory: GuestMemory, size: int, desc: int, avail: int, used: int
) -> list[memoryview] | str:
    """Return the parts of a queue, or why there cannot be such a queue."""
    if not 0 < size <= VIRTQUEUE_MAX_SIZE or size & (size - 1):
        return f"a queue cannot have {size} entries (§2.7)"
    # Without VIRTIO_F_EVENT_IDX the rings end with their last entry.
    parts = (
        ("descriptor table", desc, 16, size * _DESCRIPTOR),
        ("available ring", avail, 2, VRING_AVAIL.size + size * _WORD),
        ("used ring", used, 4, VRING_USED.size + size * VRING_USED_ELEM.size),
    )
    views = []
    for name, address, align, length in parts:
        view = memory.view(address, length)
        if view is None:
            return f"the {name} at {address:#x} is not in one region of RAM"
        if address % align:
            return f"the {name} at {address:#x} is not aligned to {align} bytes (§2.7)"
        views.append(view)
    return views
