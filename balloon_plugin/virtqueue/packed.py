"""Packed virtqueues, the device's side (VIRTIO 1.3 §2.8).

Descriptors go there and back in one ring. The driver makes one available, the device
marks it used in the same place; which of both was the last is in two bits of its flags,
whose meaning turns with each lap of the ring (:mod:`~balloon_plugin.virtqueue.laps`).

As in a split queue the driver may be hostile, and everything is read once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

from balloon_plugin.layouts import (
    VRING_DESC_F_INDIRECT,
    VRING_DESC_F_NEXT,
    VRING_DESC_F_WRITE,
    VRING_PACKED_DESC,
    VRING_PACKED_DESC_EVENT,
    VRING_PACKED_EVENT_FLAG_DESC,
    VRING_PACKED_EVENT_FLAG_DISABLE,
    VRING_PACKED_EVENT_FLAG_ENABLE,
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
from balloon_plugin.virtqueue.inflight import InflightError, PackedInflight
from balloon_plugin.virtqueue.laps import MARKS, WRAP, Laps
from balloon_plugin.virtqueue.queue import DeviceQueue, Part, heads_of
from balloon_plugin.virtqueue.ring import Ring

__all__ = ["PackedQueue"]

_DESCRIPTOR: Final = VRING_PACKED_DESC.size
_BODY: Final = VRING_PACKED_DESC.offsets["flags"]
"""Bytes of a descriptor before its flags, which publish them."""

_WORD: Final = 2
_STRIDE: Final = _DESCRIPTOR // _WORD
_FLAGS: Final = _BODY // _WORD
_NEXT: Final = VRING_DESC_F_NEXT

_MARKS_AND_NEXT: Final = MARKS | _NEXT

_EVENT_PLACE: Final = VRING_PACKED_DESC_EVENT.offsets["off_wrap"] // _WORD
_EVENT_FLAGS: Final = VRING_PACKED_DESC_EVENT.offsets["flags"] // _WORD
_EVENT_MASK: Final = 3
"""The rest of these flags is reserved."""

_HALF: Final = 16
"""Bits of a position on the wire; a ``base`` has two."""


class PackedQueue(DeviceQueue):
    """A started packed virtqueue.

    :param memory: RAM, in which the queue and all buffers are.
    :param ring: where it lies, and what was negotiated.
    :param base: where to go on if the ring itself does not tell, as vhost-user has it:
        in the upper 16 bits the place where the device marks the next descriptor used,
        and its wrap counter. The lower half, where it looks for the next available one,
        may be ahead of that by what a predecessor took and did not return; that is
        taken again (rule 3).
    :param inflight: the record of buffers in flight, if there is one. What is in it
        counts for more than ``base`` and the ring.
    """

    START: ClassVar[int] = WRAP << _HALF | WRAP
    """The ``base`` of a queue that nobody has served yet: both wrap counters are 1."""

    def __init__(
        self,
        memory: GuestMemory,
        ring: Ring,
        base: int = START,
        inflight: memoryview | None = None,
    ) -> None:
        super().__init__(memory, ring, _parts)
        self._ring_view, driver, device = self._views
        self._marks = self._words(self._ring_view)
        self._driver = self._words(driver)
        self._device = self._words(device)
        layout = VRING_PACKED_DESC.of(ring.byte_order)
        self._unpack, self._pack = layout.unpack_from, layout.pack
        self._laps = Laps(self._size)
        self._held: dict[int, int] = {}  # descriptors of each buffer
        self._outstanding = 0
        self._used = self._start(base >> _HALF)
        self._inflight: PackedInflight | None = None
        self._left: deque[tuple[int, list[Element]]] = deque()
        if inflight is not None and self._broken is None:
            self._take_up(inflight)
        self._go_to(self._used)
        self._asked: int | None = None
        self._device.store(_EVENT_FLAGS, VRING_PACKED_EVENT_FLAG_ENABLE)

    @property
    def base(self) -> int:
        """Return where a successor has to go on, as vhost-user has it.

        That is the first buffer not pushed yet, so that one which the device keeps
        (statistics) is not lost when the queue stops. Buffers are pushed in order.
        """
        return _base(self._laps.encode(self._used))

    @staticmethod
    def distance(size: int, start: int, end: int) -> int:
        """Return how many descriptors there are from one base up to another."""
        laps = Laps(size)
        return laps.distance(laps.decode(start >> _HALF), laps.decode(end >> _HALF))

    def pop(self, limit: int) -> list[Chain]:
        """Take up to ``limit`` available buffers, in order.

        If that leaves none, the driver kicks when it makes another available.
        """
        chains: list[Chain] = []
        while self._offered() and len(chains) < limit:
            chains += self._take(limit - len(chains))
        return chains

    def push(self, chains: Sequence[Chain]) -> bool:
        """Return buffers to the driver, one after the other.

        :returns: whether the driver wants to be notified of it.
        :raises HostError: if one is not from :meth:`pop` of this queue, or was returned
            before; nothing is returned then.
        """
        heads = heads_of(chains, self._held.keys())
        if not heads:
            return False
        start = self._used
        self._publish(heads)
        self._fence()
        return self._wanted(start)

    def release(self) -> None:
        """Let go of guest memory, so that it can be unmapped: the queue was stopped."""
        self._held.clear()
        super().release()

    def _start(self, used: int) -> int:
        """Return the position at which to go on.

        That is in the ring itself, unless there are lists in it; and drivers that can
        have indirect tables make no lists. A front end may know less: QEMU lost its
        count if its back end died, and User-Mode Linux (6.1 virtio_uml.c, vu_setup_vq)
        has all queues start at 0, where the second lap begins.

        :param used: the upper half of a base.
        """
        if self._broken is None and (self._ring.indirect or not used):
            found = self._shown()
            if found is not None:
                return found
        if used & (WRAP - 1) >= self._size and self._broken is None:
            self._broken = f"descriptor {used & (WRAP - 1)} is not in the ring"
        return self._laps.decode(used)

    def _shown(self) -> int | None:
        """Return the position that the ring itself shows."""
        return self._laps.find(self._marks.run(_FLAGS, self._size, _STRIDE))

    def _take_up(self, inflight: memoryview) -> None:
        """Go on where the record of buffers in flight says.

        Not if no descriptor is marked used though some were, lists or not: another
        driver laid out the ring, and the front end kept the record.
        """
        self._own(inflight)
        laps = self._laps
        try:
            record = PackedInflight(
                inflight,
                self._size,
                laps.encode(self._used),
                lambda word: self._available(laps.decode(word)) is not None,
            )
        except InflightError as error:
            self._broken = str(error)
            return
        self._inflight = self._own(record)
        if laps.decode(record.used) and self._shown() == 0:
            self._broken = "the record of buffers in flight is of another ring"
            return
        self._used = laps.decode(record.used)
        self._left.extend(record.left)

    # --- available ---

    def _take(self, limit: int) -> list[Chain]:
        """Take buffers, those that were left in flight before all others.

        As many descriptors of the ring were theirs, or those of others that came back
        earlier. None are taken if the ring is lost.
        """
        if self._left:
            return self._hold(*self._left.popleft())
        # What is recorded is recorded one by one.
        if self._inflight is not None:
            return self._take_list()
        return self._take_singles(limit) or self._take_list()

    def _offered(self) -> bool:
        """Return whether the next descriptor is available.

        If it is not, ask for a kick when it will be, and look once more.
        """
        if self._broken is not None:
            return False
        if self._shows_offer():
            return True
        if self._asked == self._next or not self._ring.event_idx:
            return False
        self._asked = self._next
        self._device.store(_EVENT_PLACE, self._laps.encode(self._next))
        self._device.store(_EVENT_FLAGS, VRING_PACKED_EVENT_FLAG_DESC)
        self._fence()
        return self._shows_offer()

    def _shows_offer(self) -> bool:
        flags = self._marks.load(self._place * _STRIDE + _FLAGS)
        return flags & MARKS == self._offer

    def _available(self, position: int) -> int | None:
        """Return the flags of a descriptor if it is available (§2.8.1)."""
        flags = self._marks.load(self._laps.place(position) * _STRIDE + _FLAGS)
        return flags if flags & MARKS == self._laps.offer(position) else None

    def _take_singles(self, limit: int) -> list[Chain]:
        """Take buffers of one descriptor each, as nearly all are.

        Up to the end of the ring, or to the first that is a list or makes no sense.
        """
        chains: list[Chain] = []
        first, offer = self._place, self._offer
        count = min(limit, self._size - first, self._size - self._outstanding)
        every = self._marks.run(first * _STRIDE + _FLAGS, count, _STRIDE)
        for place, flags in enumerate(every, first):
            if flags & _MARKS_AND_NEXT != offer:
                break
            chain = self._single(place, flags)
            if chain.head in self._held:
                break
            self._held[chain.head] = 1
            chains.append(chain)
        self._advance(len(chains))
        return chains

    def _single(self, place: int, flags: int) -> Chain:
        """Read a buffer of one descriptor."""
        address, length, head, _ = self._unpack(self._ring_view, place * _DESCRIPTOR)
        if flags & VRING_DESC_F_INDIRECT or not self._memory.covers(address, length):
            return self._gather(head, [(address, length, flags)])
        part = ((address, length),)
        if flags & VRING_DESC_F_WRITE:
            return Chain(head, (), part)
        return Chain(head, part, ())

    def _take_list(self) -> list[Chain]:
        """Take one buffer of any number of descriptors, or find that the ring is lost.

        The last descriptor has the ID (§2.8.6). A list that is too long is followed to
        its end, since the next buffer begins there.
        """
        elements: list[Element] = []
        count, flags = 0, _NEXT
        while flags & _NEXT:
            position = self._laps.after(self._next, count)
            offered = self._available(position)
            if offered is None or count == self._size:
                self._broken = f"a list has no end after {count} descriptors"
                return []
            at = self._laps.place(position) * _DESCRIPTOR
            address, length, head, _ = self._unpack(self._ring_view, at)
            flags, count = offered, count + 1
            elements.append((address, length, flags))
        taken = self._hold(head, elements)
        if self._inflight is not None and taken:
            self._inflight.take(head, elements)
        return taken

    def _hold(self, head: int, elements: list[Element]) -> list[Chain]:
        """Take a buffer with these descriptors, or find that the ring is lost."""
        count = len(elements)
        if head in self._held or self._outstanding + count > self._size:
            self._broken = f"the driver offers buffer {head} before it was returned"
            return []
        self._held[head] = count
        self._advance(count)
        return [self._gather(head, elements)]

    def _advance(self, count: int) -> None:
        self._outstanding += count
        self._go_to(self._laps.after(self._next, count))

    def _go_to(self, position: int) -> None:
        """Look for the next available descriptor there."""
        self._next = position
        self._place = self._laps.place(position)
        self._offer = self._laps.offer(position)

    def _gather(self, head: int, elements: list[Element]) -> Chain:
        return gather(self._memory, head, self._meant(elements), MAX_CHAIN_DESCRIPTORS)

    def _meant(self, elements: list[Element]) -> Iterator[Element]:
        """Yield the elements of a list, or those of the table that it refers to."""
        for element in elements:
            if not element[2] & VRING_DESC_F_INDIRECT:
                yield element
            elif len(elements) > 1:
                raise ChainError("an indirect descriptor is one of a list (§2.8.19)")
            else:
                yield from self._table(element)

    def _table(self, element: Element) -> Iterator[Element]:
        """Yield the elements of an indirect table; only one flag counts (§2.8.7)."""
        table = read_table(self._memory, element, negotiated=self._ring.indirect)
        for at in range(0, len(table), _DESCRIPTOR):
            address, length, _, flags = self._unpack(table, at)
            yield address, length, flags & VRING_DESC_F_WRITE

    # --- used ---

    def _publish(self, heads: list[int]) -> None:
        """Mark a descriptor used for each buffer, in order, and the last thing of it.

        So the ring shows at any moment how many were returned, also to a successor of
        one who was killed here. Used length 0: a balloon writes to no buffer (D5).
        """
        for head in heads:
            place, mark = self._laps.place(self._used), self._laps.use(self._used)
            count, at = self._held.pop(head), place * _DESCRIPTOR
            self._outstanding -= count
            self._used = self._laps.after(self._used, count)
            if self._inflight is not None:
                self._inflight.returning(head, self._laps.encode(self._used))
            self._ring_view[at : at + _BODY] = self._pack(0, 0, head, mark)[:_BODY]
            self._marks.store(place * _STRIDE + _FLAGS, mark)
            if self._inflight is not None:
                self._inflight.returned(head)

    def _wanted(self, start: int) -> bool:
        """Return whether the driver wants to know what was used from ``start`` on.

        §2.8.10: always, never, or if the descriptor that it waits for is in that.
        """
        wish = self._driver.load(_EVENT_FLAGS) & _EVENT_MASK
        if wish == VRING_PACKED_EVENT_FLAG_DISABLE:
            return False
        if wish != VRING_PACKED_EVENT_FLAG_DESC or not self._ring.event_idx:
            return True
        event = self._laps.decode(self._driver.load(_EVENT_PLACE))
        distance = self._laps.distance
        return distance(start, event) < distance(start, self._used)


def _base(word: int) -> int:
    """Return the base of which both halves are this."""
    return word << _HALF | word


def _parts(ring: Ring, size: int) -> tuple[Part, Part, Part]:
    """Return where the parts of a packed queue are (§2.8.10.1)."""
    event = VRING_PACKED_DESC_EVENT.size
    return (
        Part("descriptor ring", ring.desc, 16, size * _DESCRIPTOR),
        Part("driver event suppression", ring.avail, 4, event),
        Part("device event suppression", ring.used, 4, event),
    )
