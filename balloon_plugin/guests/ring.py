"""The driver's end of a split virtqueue, written from VIRTIO 1.3 §2.7.

This is the second time that the ring is written in this package, and it shares no code
with the first (:mod:`balloon_plugin.virtqueue`): one misreading in both would cancel
out. Balloon drivers send a single descriptor for each buffer, so there are no chains
here.
"""

from __future__ import annotations

from typing import Final

from balloon_plugin.guests.form import RingForm
from balloon_plugin.guests.oops import Oops
from balloon_plugin.guests.ram import Ram
from balloon_plugin.layouts import (
    VRING_AVAIL,
    VRING_DESC,
    VRING_DESC_F_WRITE,
    VRING_USED,
    VRING_USED_ELEM,
    VRING_USED_F_NO_NOTIFY,
)

__all__ = ["SplitRing"]

_ALIGN: Final = 4096
"""Boundary of the used ring in a legacy queue (§2.7.2); modern ones may have the
same."""

_EVENT: Final = 2
"""Bytes of used_event and avail_event, at the ends of their rings even if unused."""


class SplitRing:
    """One split queue in guest RAM, laid out as a legacy driver must (§2.7.2).

    :param ram: where it lies.
    :param start: guest-physical address on a 4 KiB boundary, :meth:`bytes_for` of them.
    :param size: entries, a power of 2.
    :param form: what was negotiated.

    :ivar desc: address of the descriptor table.
    :ivar avail: address of the available ring.
    :ivar used: address of the used ring.
    """

    def __init__(self, ram: Ram, start: int, size: int, form: RingForm) -> None:
        self.size = size
        self.desc = start
        self.avail = start + size * VRING_DESC.size
        self.used = start + _used_offset(size)
        self._ram = ram
        self._order = form.order
        self._event_idx = form.event_idx
        self._used_event = self.avail + VRING_AVAIL.size + 2 * size
        self._avail_event = self.used + VRING_USED.size + size * VRING_USED_ELEM.size
        self._free = list(reversed(range(size)))
        self._posted: set[int] = set()
        self._next_avail = 0
        self._next_used = 0
        ram.write(self.desc, bytes(size * VRING_DESC.size))
        ram.write(self.avail, bytes(VRING_AVAIL.size + 2 * size + _EVENT))
        ram.write(self.used, bytes(_used_size(size)))

    @staticmethod
    def bytes_for(size: int) -> int:
        """Return how many bytes a queue of ``size`` entries takes up."""
        return _used_offset(size) + _used_size(size)

    def post(self, address: int, length: int, *, writable: bool = False) -> bool:
        """Offer one buffer to the device; return whether it wants to be kicked."""
        head = self._free.pop()
        self._posted.add(head)
        flags = VRING_DESC_F_WRITE if writable else 0
        entry = VRING_DESC.of(self._order).pack(address, length, flags, 0)
        self._ram.write(self.desc + head * VRING_DESC.size, entry)
        slot = self.avail + VRING_AVAIL.size + 2 * (self._next_avail % self.size)
        self._ram.store16(slot, head, self._order)
        # The index comes last: it publishes the entry (§2.7.13).
        self._next_avail = (self._next_avail + 1) & 0xFFFF
        idx = self.avail + VRING_AVAIL.offsets["idx"]
        self._ram.store16(idx, self._next_avail, self._order)
        return self._kick_wanted()

    def _kick_wanted(self) -> bool:
        """Return whether the device wants to know of the entry just published.

        With EVENT_IDX if it waits for that very one (§2.7.10).
        """
        if self._event_idx:
            event = self._ram.load16(self._avail_event, self._order)
            return event == (self._next_avail - 1) & 0xFFFF
        wishes = self._ram.load16(self.used + VRING_USED.offsets["flags"], self._order)
        return not wishes & VRING_USED_F_NO_NOTIFY

    def reap(self) -> int:
        """Take back all buffers that the device has used; return how many."""
        count = 0
        idx = self.used + VRING_USED.offsets["idx"]
        while self._next_used != self._ram.load16(idx, self._order):
            self._take_back(self._next_used % self.size)
            self._next_used = (self._next_used + 1) & 0xFFFF
            count += 1
            if self._event_idx:
                # As Linux's virtqueue_get_buf(): the next return is of interest.
                self._ram.store16(self._used_event, self._next_used, self._order)
        return count

    def _take_back(self, slot: int) -> None:
        at = self.used + VRING_USED.size + slot * VRING_USED_ELEM.size
        elem = self._ram.read(at, VRING_USED_ELEM.size)
        head, _ = VRING_USED_ELEM.of(self._order).unpack(elem)
        if head not in self._posted:
            # Linux: "id %u is not a head!", and the queue is broken for good.
            raise Oops(f"the device returned buffer {head}, which it does not have")
        self._posted.remove(head)
        self._free.append(head)


def _used_offset(size: int) -> int:
    """Return where the used ring begins: on the next boundary after the others."""
    end = size * VRING_DESC.size + VRING_AVAIL.size + 2 * size + _EVENT
    return -(-end // _ALIGN) * _ALIGN


def _used_size(size: int) -> int:
    return VRING_USED.size + size * VRING_USED_ELEM.size + _EVENT
