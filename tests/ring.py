"""The driver's side of rings of both formats, in raw bytes.

For tests of the device's side, so it shares nothing with it, not even the layouts: one
misreading in both would cancel out. It checks nothing; a test may well want it wrong.
"""

from __future__ import annotations

import struct

NEXT, WRITE, INDIRECT = 1, 2, 4


class DriverRing:
    """A ring in ``ram``, whose first byte is at guest-physical address ``base``."""

    def __init__(self, ram, size, order, *, base=0, start=0):
        self.ram = ram
        self.size = size
        self.base = base
        self.desc = start
        self.avail = start + 16 * size
        self.used_event = self.avail + 4 + 2 * size
        self.used = (self.used_event + 2 + 3) & ~3
        self.avail_event = self.used + 4 + 8 * size
        self.end = self.avail_event + 2
        self.offered = 0
        self.seen = 0
        self._mark = {"little": "<", "big": ">"}[order.value]

    def put(self, form, address, *values):
        struct.pack_into(self._mark + form, self.ram, address - self.base, *values)

    def get(self, form, address):
        return struct.unpack_from(self._mark + form, self.ram, address - self.base)

    def entry(self, address, length, flags=0, following=0):
        """Return a descriptor as bytes."""
        return struct.pack(self._mark + "QIHH", address, length, flags, following)

    def describe(self, index, *fields):
        """Write a descriptor of the table."""
        start = self.desc + 16 * index - self.base
        self.ram[start : start + 16] = self.entry(*fields)

    def table(self, address, *entries):
        """Write an indirect table; return how long it is."""
        data = b"".join(self.entry(*fields) for fields in entries)
        start = address - self.base
        self.ram[start : start + len(data)] = data
        return len(data)

    def offer(self, *heads):
        """Make chains available, in one update."""
        for head in heads:
            place = self.avail + 4 + 2 * (self.offered % self.size)
            self.put("H", place, head)
            self.offered = (self.offered + 1) & 0xFFFF
        self.announce(self.offered)

    def announce(self, idx):
        """Write the index of the available ring."""
        self.put("H", self.avail + 2, idx)

    def wish(self, flags, used_event=0):
        """Say when to be notified."""
        self.put("H", self.avail, flags)
        self.put("H", self.used_event, used_event)

    @property
    def asked(self):
        """Return at which index the device wants to be kicked."""
        return self.get("H", self.avail_event)[0]

    @property
    def used_idx(self):
        return self.get("H", self.used + 2)[0]

    @property
    def used_flags(self):
        return self.get("H", self.used)[0]

    def returned(self):
        """Return what came back since the last time, as (head, written)."""
        elements = []
        while self.seen != self.used_idx:
            elements.append(self.get("II", self.used + 4 + 8 * (self.seen % self.size)))
            self.seen = (self.seen + 1) & 0xFFFF
        return elements


AVAIL, USED = 1 << 7, 1 << 15
ENABLE, DISABLE, AT_DESCRIPTOR = 0, 1, 2


class PackedDriverRing:
    """A packed ring in ``ram``, likewise.

    :ivar lists: for each buffer ID that is out, how many descriptors it has.
    """

    def __init__(self, ram, size, order, *, base=0, start=0):
        self.ram = ram
        self.size = size
        self.base = base
        self.desc = start
        self.avail = (start + 16 * size + 3) & ~3
        self.used = self.avail + 4
        self.end = self.used + 4
        self.place = self.seen = 0
        self.wrap = self.seen_wrap = 1
        self.lists = {}
        self._mark = {"little": "<", "big": ">"}[order.value]

    put, get = DriverRing.put, DriverRing.get

    def entry(self, address, length, flags=0, ident=0):
        """Return a descriptor as bytes."""
        return struct.pack(self._mark + "QIHH", address, length, ident, flags)

    def describe(self, index, *fields):
        """Write a descriptor, its flags as they are given."""
        start = self.desc + 16 * index - self.base
        self.ram[start : start + 16] = self.entry(*fields)

    table = DriverRing.table

    def begin(self, place, wrap):
        """Let both sides stand somewhere else than at the beginning."""
        self.place = self.seen = place
        self.wrap = self.seen_wrap = wrap
        for index in range(self.size):
            # As they were left: used, in the lap before or in this one.
            used = wrap if index < place else 1 - wrap
            self.describe(index, 0, 0, (AVAIL | USED) * used)

    def offer(self, ident, *elements):
        """Make a buffer of (address, length, flags) available."""
        self.lists[ident] = len(elements)
        for step, (address, length, flags) in enumerate(elements):
            marks = AVAIL if self.wrap else USED
            more = NEXT if step < len(elements) - 1 else 0
            self.describe(self.place, address, length, flags | marks | more, ident)
            self.place += 1
            if self.place == self.size:
                self.place, self.wrap = 0, 1 - self.wrap

    def flags(self, index):
        return self.get("H", self.desc + 16 * index + 14)[0]

    def returned(self):
        """Return what came back since the last time, as (ID, written)."""
        found = []
        while self.flags(self.seen) & (AVAIL | USED) == (AVAIL | USED) * self.seen_wrap:
            length, ident = self.get("IH", self.desc + 16 * self.seen + 8)
            if ident not in self.lists:
                break
            found.append((ident, length))
            self.seen += self.lists.pop(ident)
            if self.seen >= self.size:
                self.seen, self.seen_wrap = self.seen - self.size, 1 - self.seen_wrap
        return found

    def wish(self, flags, place=0, wrap=0):
        """Say when to be notified."""
        self.put("HH", self.avail, place | wrap << 15, flags)

    @property
    def asked(self):
        """Return when the device wants to be kicked, as (place, wrap, flags)."""
        place, flags = self.get("HH", self.used)
        return place & 0x7FFF, place >> 15, flags
