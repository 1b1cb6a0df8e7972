"""Split virtqueues, the device's side (VIRTIO 1.3 §2.7).

Knows rings and chains of descriptors, and nothing of what is in the buffers. The driver
may be wrong or hostile, and may write to all of this while it is read. So a descriptor
or an index is read once, into locals, and checked there. What is wrong becomes a
sentence: in the chain where only that is lost, in the queue where the ring itself is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Final, TypeAlias

from balloon_plugin.layouts import (
    VRING_AVAIL,
    VRING_AVAIL_F_NO_INTERRUPT,
    VRING_DESC,
    VRING_DESC_F_INDIRECT,
    VRING_DESC_F_NEXT,
    VRING_DESC_F_WRITE,
    VRING_USED,
    VRING_USED_ELEM,
)
from balloon_plugin.memory import GuestMemory
from balloon_plugin.virtqueue.chain import (
    MAX_CHAIN_DESCRIPTORS,
    Chain,
    ChainError,
    Element,
    gather,
    read_table,
)
from balloon_plugin.virtqueue.inflight import InflightError, SplitInflight
from balloon_plugin.virtqueue.queue import DeviceQueue, Part, heads_of
from balloon_plugin.virtqueue.ring import Ring

__all__ = ["SplitQueue"]

_DESCRIPTOR: Final = VRING_DESC.size
_LINKED: Final = VRING_DESC_F_NEXT | VRING_DESC_F_INDIRECT

# Both rings begin with the words flags and idx (§2.7.6, §2.7.8). With EVENT_IDX they
# end with one more: used_event or avail_event.
_WORD: Final = 2
_FLAGS: Final = 0
_IDX: Final = 1
_HEADS: Final = VRING_AVAIL.size // _WORD
_INDEX_MASK: Final = 0xFFFF
"""Ring indexes run freely, and wrap at 65536 (§2.7.13.3)."""


class SplitQueue(DeviceQueue):
    """A started split virtqueue.

    :param memory: RAM, in which the queue and all buffers are.
    :param ring: where it lies, and what was negotiated.
    :param base: index in the available ring to go on from.
    :param inflight: the record of buffers in flight, if there is one. What is in it
        counts for more than ``base`` and the available ring.
    """

    START: ClassVar[int] = 0
    """The ``base`` of a queue that nobody has served yet."""

    def __init__(
        self,
        memory: GuestMemory,
        ring: Ring,
        base: int = START,
        inflight: memoryview | None = None,
    ) -> None:
        super().__init__(memory, ring, _parts)
        self._table, avail, used = self._views
        self._avail = self._words(avail)
        self._used = self._words(used)
        end = VRING_USED.size + self._size * VRING_USED_ELEM.size
        self._elements = used[VRING_USED.size : end]
        self._own(self._elements)
        self._used_event = _HEADS + self._size
        self._avail_event = end // _WORD
        self._unpack = VRING_DESC.of(ring.byte_order).unpack_from
        self._pack = VRING_USED_ELEM.of(ring.byte_order).pack
        self._held: set[int] = set()
        self._next_avail = base & _INDEX_MASK
        # Whoever served the queue before counted there.
        self._next_used = self._used.load(_IDX)
        # §2.7.10, MUST set flags to 0 with EVENT_IDX; we do without it as well.
        self._used.store(_FLAGS, 0)
        self._asked: int | None = None
        self._inflight: SplitInflight | None = None
        self._left: list[int] = []
        if inflight is not None and self._broken is None:
            self._take_up(inflight)
        if self._broken is None:
            self._broken = self._misplaced()

    @property
    def base(self) -> int:
        """Return the index in the available ring from which a successor has to go on.

        That is the first chain not pushed yet, so that a buffer which the device keeps
        (statistics) is not lost when the queue stops. Chains are pushed in order.
        """
        return (self._next_avail - len(self._held)) & _INDEX_MASK

    @staticmethod
    def distance(_size: int, start: int, end: int) -> int:
        """Return how many buffers there are from one base up to another."""
        return (end - start) & _INDEX_MASK

    def pop(self, limit: int) -> list[Chain]:
        """Take up to ``limit`` available chains, in order.

        If that leaves none, the driver kicks when it makes another available.
        """
        chains: list[Chain] = []
        for head in self._heads(limit):
            if head >= self._size or head in self._held:
                self._broken = self._objection(head)
                break
            self._held.add(head)
            if self._inflight is not None:
                self._inflight.take(head)
            chains.append(self._chain(head))
        self._next_avail = (self._next_avail + len(chains)) & _INDEX_MASK
        return chains

    def push(self, chains: Sequence[Chain]) -> bool:
        """Return chains to the driver, in one update.

        :returns: whether the driver wants to be notified of it.
        :raises HostError: if one is not from :meth:`pop` of this queue, or was returned
            before; nothing is returned then.
        """
        heads = heads_of(chains, self._held)
        if not heads:
            return False
        self._held.difference_update(heads)
        start = self._next_used
        if self._inflight is not None:
            self._inflight.returning(heads)
        self._publish(heads)
        if self._inflight is not None:
            self._inflight.returned(heads, self._next_used)
        self._fence()
        return self._wanted(start, len(heads))

    def release(self) -> None:
        """Let go of guest memory, so that it can be unmapped: the queue was stopped."""
        self._next_avail = self.base
        self._held.clear()
        super().release()

    # --- rings ---

    def _misplaced(self) -> str | None:
        """Return what is wrong with where the queue is to go on, if anything is.

        Between that and the used ring are buffers that were taken and not returned. To
        go on before it would serve buffers again that the driver has back.
        """
        if (self._next_avail - self._next_used) & _INDEX_MASK <= self._size:
            return None
        return (
            f"the queue cannot go on at {self._next_avail}, as its used ring stands at "
            f"{self._next_used}"
        )

    def _take_up(self, inflight: memoryview) -> None:
        """Go on where the record of buffers in flight says."""
        self._own(inflight)
        try:
            self._inflight = self._own(
                SplitInflight(inflight, self._size, self._next_used)
            )
        except InflightError as error:
            self._broken = str(error)
            return
        self._left = self._inflight.left
        if self._left:
            # Whatever was taken was returned, or is in flight.
            self._next_avail = self._next_used

    def _heads(self, limit: int) -> list[int]:
        """Return the first descriptors' numbers of up to ``limit`` available chains.

        Those that were left in flight come before all others. As many entries of the
        available ring were theirs, or those of others that came back earlier.
        """
        heads = self._available_heads(limit)
        if self._left:
            count = min(len(heads), len(self._left))
            heads[:count], self._left = self._left[:count], self._left[count:]
        return heads

    def _available_heads(self, limit: int) -> list[int]:
        waiting = self._waiting()
        if waiting <= limit and self._ring.event_idx:
            waiting = self._ask(waiting)
        count = min(waiting, limit)
        if count <= 0:
            return []
        place = self._next_avail % self._size
        before_wrap = min(count, self._size - place)
        return self._avail.run(_HEADS + place, before_wrap) + self._avail.run(
            _HEADS, count - before_wrap
        )

    def _waiting(self) -> int:
        """Return how many chains are available."""
        if self._broken is not None:
            return 0
        waiting = (self._avail.load(_IDX) - self._next_avail) & _INDEX_MASK
        if waiting <= self._size:
            return waiting
        self._broken = f"the driver offers {waiting} buffers at once"
        return 0

    def _ask(self, waiting: int) -> int:
        """Ask for a kick when more becomes available; return what has by then.

        Without EVENT_IDX the driver kicks each time, and what it adds while we work
        costs us one look at an eventfd; nobody would gain by being asked to stop.
        """
        event = (self._next_avail + waiting) & _INDEX_MASK
        if event == self._asked:
            return waiting
        self._asked = event
        self._used.store(self._avail_event, event)
        self._fence()
        return self._waiting()

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

    def _wanted(self, start: int, count: int) -> bool:
        """Return whether the driver wants to know of used elements from ``start`` on.

        §2.7.7.2: with EVENT_IDX if the one that it waits for is among them.
        """
        if self._ring.event_idx:
            event = self._avail.load(self._used_event)
            return (event - start) & _INDEX_MASK < count
        return not self._avail.load(_FLAGS) & VRING_AVAIL_F_NO_INTERRUPT

    # --- chains ---

    def _chain(self, head: int) -> Chain:
        """Read a chain; nearly all are a single descriptor."""
        descriptor = self._unpack(self._table, head * _DESCRIPTOR)
        address, length, flags, _ = descriptor
        if flags & _LINKED or not self._memory.covers(address, length):
            elements = self._elements_of(descriptor)
            longest = min(self._size, MAX_CHAIN_DESCRIPTORS)
            return gather(self._memory, head, elements, longest)
        part = ((address, length),)
        if flags & VRING_DESC_F_WRITE:
            return Chain(head, (), part)
        return Chain(head, part, ())

    def _elements_of(self, descriptor: _Descriptor) -> Iterator[Element]:
        """Yield the elements of a chain, an indirect table's in place of its own.

        §2.7.5.3.2, MUST handle zero or more normal descriptors followed by one that is
        indirect. There may be no end to them.
        """
        for direct in self._follow(self._table, descriptor):
            if not direct[2] & VRING_DESC_F_INDIRECT:
                yield direct[:3]
                continue
            table = read_table(self._memory, direct[:3], negotiated=self._ring.indirect)
            for entry in self._follow(table, self._unpack(table)):
                if entry[2] & VRING_DESC_F_INDIRECT:
                    raise ChainError(
                        "an indirect table has an indirect descriptor in it "
                        "(§2.7.5.3.1)"
                    )
                yield entry[:3]

    def _follow(
        self, table: memoryview | bytes, descriptor: _Descriptor
    ) -> Iterator[_Descriptor]:
        """Yield a descriptor and those linked to it in the same table."""
        yield descriptor
        while descriptor[2] & VRING_DESC_F_NEXT:
            entries, following = len(table) // _DESCRIPTOR, descriptor[3]
            if following >= entries:
                raise ChainError(
                    f"descriptor {following} is next in a table of {entries}"
                )
            descriptor = self._unpack(table, following * _DESCRIPTOR)
            yield descriptor


_Descriptor: TypeAlias = tuple[int, int, int, int]
"""``addr``, ``len``, ``flags`` and ``next``."""


def _parts(ring: Ring, size: int) -> tuple[Part, Part, Part]:
    """Return where the parts of a split queue are."""
    event = _WORD if ring.event_idx else 0
    avail = VRING_AVAIL.size + size * _WORD + event
    used = VRING_USED.size + size * VRING_USED_ELEM.size + event
    return (
        Part("descriptor table", ring.desc, 16, size * _DESCRIPTOR),
        Part("available ring", ring.avail, 2, avail),
        Part("used ring", ring.used, 4, used),
    )
