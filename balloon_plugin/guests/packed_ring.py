"""The driver's end of a packed virtqueue, written from VIRTIO 1.3 §2.8.

Like the split one (:mod:`~balloon_plugin.guests.ring`) it shares no code with the
device's side, and has no lists of descriptors. It counts laps where the device has
positions in them.
"""

from __future__ import annotations

from typing import Final

from balloon_plugin.guests.form import RingForm
from balloon_plugin.guests.oops import Oops
from balloon_plugin.guests.ram import Ram
from balloon_plugin.layouts import (
    VRING_DESC_F_WRITE,
    VRING_PACKED_DESC,
    VRING_PACKED_DESC_EVENT,
    VRING_PACKED_DESC_F_AVAIL,
    VRING_PACKED_DESC_F_USED,
    VRING_PACKED_EVENT_F_WRAP_CTR,
    VRING_PACKED_EVENT_FLAG_DESC,
    VRING_PACKED_EVENT_FLAG_DISABLE,
)

__all__ = ["PackedRing"]

_FLAGS: Final = VRING_PACKED_DESC.offsets["flags"]
_MARKS: Final = VRING_PACKED_DESC_F_AVAIL, VRING_PACKED_DESC_F_USED
_EVENT_FLAGS: Final = VRING_PACKED_DESC_EVENT.offsets["flags"]


class PackedRing:
    """One packed queue in guest RAM.

    :param ram: where it lies.
    :param start: guest-physical address on a 16-byte boundary, :meth:`bytes_for` of
        them.
    :param size: entries.
    :param form: what was negotiated.

    :ivar desc: address of the descriptor ring.
    :ivar avail: address of what this side suppresses (driver area).
    :ivar used: address of what the device suppresses (device area).
    """

    def __init__(self, ram: Ram, start: int, size: int, form: RingForm) -> None:
        self.size = size
        self.desc = start
        self.avail = start + size * VRING_PACKED_DESC.size
        self.used = self.avail + VRING_PACKED_DESC_EVENT.size
        self._ram = ram
        self._form = form
        self._free = list(reversed(range(size)))
        self._posted: set[int] = set()
        self._offered = 0  # descriptors, in all laps together
        self._taken_back = 0
        ram.write(self.desc, bytes(self.bytes_for(size)))
        self._wait_for_next()

    @staticmethod
    def bytes_for(size: int) -> int:
        """Return how many bytes a queue of ``size`` entries takes up."""
        return size * VRING_PACKED_DESC.size + 2 * VRING_PACKED_DESC_EVENT.size

    def post(self, address: int, length: int, *, writable: bool = False) -> bool:
        """Offer one buffer to the device; return whether it wants to be kicked."""
        ident = self._free.pop()
        self._posted.add(ident)
        order, at = self._form.order, self._at(self._offered)
        body = VRING_PACKED_DESC.of(order).pack(address, length, ident, 0)
        self._ram.write(at, body[:_FLAGS])
        wrap = self._wrap(self._offered)
        flags = VRING_DESC_F_WRITE if writable else 0
        flags |= wrap << VRING_PACKED_DESC_F_AVAIL
        flags |= (not wrap) << VRING_PACKED_DESC_F_USED
        # Last: this publishes the descriptor (§2.8.21.1).
        self._ram.store16(at + _FLAGS, flags, order)
        self._offered += 1
        return self._kick_wanted()

    def reap(self) -> int:
        """Take back all buffers that the device has used; return how many."""
        before = self._taken_back
        while self._posted and self._used(self._taken_back):
            self._take_back()
            self._wait_for_next()
        return self._taken_back - before

    def _at(self, count: int) -> int:
        """Return the address of the descriptor that comes after so many."""
        return self.desc + count % self.size * VRING_PACKED_DESC.size

    def _wrap(self, count: int) -> bool:
        """Return the wrap counter after so many descriptors: it begins with 1."""
        return count // self.size % 2 == 0

    def _kick_wanted(self) -> bool:
        """Return whether the device waits for the descriptor just offered."""
        order = self._form.order
        wish = self._ram.load16(self.used + _EVENT_FLAGS, order) & 3
        if wish != VRING_PACKED_EVENT_FLAG_DESC:
            return wish != VRING_PACKED_EVENT_FLAG_DISABLE
        return self._ram.load16(self.used, order) == self._word(self._offered - 1)

    def _wait_for_next(self) -> None:
        """With EVENT_IDX say which descriptor's return is of interest: the next."""
        if self._form.event_idx:
            order, word = self._form.order, self._word(self._taken_back)
            self._ram.store16(self.avail, word, order)
            wish = VRING_PACKED_EVENT_FLAG_DESC
            self._ram.store16(self.avail + _EVENT_FLAGS, wish, order)

    def _word(self, count: int) -> int:
        """Return a place in the ring and its wrap counter as events have them."""
        wrap = self._wrap(count) << VRING_PACKED_EVENT_F_WRAP_CTR
        return count % self.size | wrap

    def _used(self, count: int) -> bool:
        """Return whether the device has used the descriptor after so many."""
        flags = self._ram.load16(self._at(count) + _FLAGS, self._form.order)
        avail, used = (flags >> bit & 1 for bit in _MARKS)
        return avail == used == self._wrap(count)

    def _take_back(self) -> None:
        entry = self._ram.read(self._at(self._taken_back), VRING_PACKED_DESC.size)
        _, _, ident, _ = VRING_PACKED_DESC.of(self._form.order).unpack(entry)
        if ident not in self._posted:
            # Linux: "id %u is not a head!", and the queue is broken for good.
            raise Oops(f"the device returned buffer {ident}, which it does not have")
        self._posted.remove(ident)
        self._free.append(ident)
        self._taken_back += 1
