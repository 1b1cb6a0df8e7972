"""The driver's side of a split ring, in raw bytes.

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
        self.used = (self.avail + 4 + 2 * size + 3) & ~3
        self.end = self.used + 4 + 8 * size
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
