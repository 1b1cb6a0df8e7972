"""Back ends that record what is in flight, step by step as the text has it.

"Inflight I/O tracking" in QEMU's ``docs/interop/vhost-user.rst``. They share nothing
with the device's side, and return buffers in any order. A method that gives or takes is
a generator that stops between its steps: whoever does not go on has killed it there.
"""

from __future__ import annotations

import struct

from ring import AVAIL, NEXT, USED


class TextBackEnd:
    """What is the same for both formats.

    :ivar again: what a predecessor left in flight, and nobody took up yet.
    """

    HEAD = STATE = 0

    def __init__(self, region, ring):
        self.region, self.ring = region, ring
        self.counter = 1000
        if self.get("H", 8):
            assert self.get("H", 10) == ring.size
            self.recover()
        else:
            self.put("HH", 8, 1, ring.size)
            self.begin()
        in_flight = [entry for entry in range(ring.size) if self.of(entry, "B", 0)]
        self.again = sorted(in_flight, key=lambda entry: self.of(entry, "Q", 8))

    def get(self, form, at):
        return struct.unpack_from("=" + form, self.region, at)[0]

    def put(self, form, at, *values):
        struct.pack_into("=" + form, self.region, at, *values)

    def of(self, entry, form, at):
        return self.get(form, self.HEAD + entry * self.STATE + at)

    def set(self, entry, form, at, *values):
        self.put(form, self.HEAD + entry * self.STATE + at, *values)

    def count(self, entry):
        self.counter += 1
        self.set(entry, "Q", 8, self.counter)
        yield
        self.set(entry, "B", 0, 1)
        yield


class TextSplit(TextBackEnd):
    """For a split queue; :class:`ring.DriverRing` is the driver's side."""

    HEAD = STATE = 16

    def __init__(self, region, ring):
        super().__init__(region, ring)
        self.next = ring.used_idx + len(self.again)

    def begin(self):
        self.put("H", 14, self.ring.used_idx)

    def recover(self):
        missing = (self.ring.used_idx - self.get("H", 14)) & 0xFFFF
        head = self.get("H", 12)
        for _ in range(missing):
            self.set(head, "B", 0, 0)
            head = self.of(head, "H", 6)
        self.put("H", 14, self.ring.used_idx)

    def taking(self, found):
        """Take one buffer, if there is one, and append its head."""
        if self.again:
            found.append(self.again.pop(0))
            return
        if self.next & 0xFFFF == self.ring.offered:
            return
        place = self.ring.avail + 4 + 2 * (self.next % self.ring.size)
        (head,) = self.ring.get("H", place)
        yield
        yield from self.count(head)
        self.next += 1
        found.append(head)

    def giving(self, heads):
        """Return buffers in one batch."""
        ring, used = self.ring, self.ring.used_idx
        for step, head in enumerate(heads):
            ring.put("II", ring.used + 4 + 8 * ((used + step) % ring.size), head, 0)
            self.set(head, "H", 6, self.get("H", 12))
            yield
            self.put("H", 12, head)
            yield
        ring.put("H", ring.used + 2, (used + len(heads)) & 0xFFFF)
        yield
        for head in heads:
            self.set(head, "B", 0, 0)
            yield
        self.put("H", 14, ring.used_idx)


class TextPacked(TextBackEnd):
    """For a packed queue; :class:`ring.PackedDriverRing` is the driver's side."""

    HEAD = STATE = 32

    def __init__(self, region, ring):
        super().__init__(region, ring)
        self.entries = {}
        for entry in self.again:
            last = entry
            for _ in range(self.of(entry, "H", 6) - 1):
                last = self.of(last, "H", 2)
            self.entries[self.of(last, "H", 16)] = entry
        taken = sum(self.of(entry, "H", 6) for entry in self.again)
        self.next = self.after(self.position, taken)

    @property
    def position(self):
        return self.get("H", 16), self.get("B", 20)

    def begin(self):
        for entry in range(self.ring.size):
            self.set(entry, "H", 2, entry + 1)
        self.put("BB", 20, 1, 1)

    def recover(self):
        # The text compares the indices alone, and so does not see a batch that went
        # once around the ring. The wrap counters show that.
        if self.position != (self.get("H", 18), self.get("B", 21)):
            flags = self.ring.flags(self.get("H", 18))
            offered = AVAIL if self.get("B", 21) else USED
            if flags & (AVAIL | USED) != offered:
                self.commit()
        self.put("H", 12, self.get("H", 14))
        self.put("H", 16, self.get("H", 18))
        self.put("B", 20, self.get("B", 21))
        free = self.get("H", 12)
        while free < self.ring.size:
            self.set(free, "B", 0, 0)
            free = self.of(free, "H", 2)

    def commit(self):
        self.put("H", 14, self.get("H", 12))
        self.put("B", 21, self.get("B", 20))
        self.put("H", 18, self.get("H", 16))

    def after(self, position, count):
        place, wrap = position[0] + count, position[1]
        size = self.ring.size
        return (place - size, 1 - wrap) if place >= size else (place, wrap)

    def taking(self, found):
        """Take one buffer, if there is one, and append its ID."""
        if self.again:
            entry = self.again.pop(0)
            found.append(next(i for i, e in self.entries.items() if e == entry))
            return
        place, wrap = self.next
        if self.ring.flags(place) & (AVAIL | USED) != (AVAIL if wrap else USED):
            return
        head, more = self.get("H", 14), NEXT
        self.set(head, "H", 6, 0)
        yield from self.count(head)
        while more:
            place, wrap = self.next
            address, length, ident, flags = self.ring.get(
                "QIHH", self.ring.desc + 16 * place
            )
            more, free = flags & NEXT, self.get("H", 12)
            if not more:
                self.set(head, "H", 4, free)
            self.set(head, "H", 6, self.of(head, "H", 6) + 1)
            yield
            self.set(free, "HHIQ", 16, ident, flags, length, address)
            self.put("H", 12, self.of(free, "H", 2))
            yield
            self.next = self.after(self.next, 1)
        self.put("H", 14, self.get("H", 12))
        self.entries[ident] = head
        found.append(ident)

    def giving(self, idents):
        """Return buffers in one batch, published all at once."""
        marks = []
        position = self.position
        for ident in idents:
            entry = self.entries[ident]
            self.set(self.of(entry, "H", 4), "H", 2, self.get("H", 12))
            self.put("H", 12, entry)
            yield
            marks.append((position, ident))
            position = self.after(position, self.of(entry, "H", 6))
        self.put("H", 16, position[0])
        self.put("B", 20, position[1])
        yield
        for (place, wrap), ident in marks:
            at = self.ring.desc + 16 * place
            self.ring.put("IHH", at + 8, 0, ident, (AVAIL | USED) * wrap)
        yield
        for ident in idents:
            self.set(self.entries.pop(ident), "B", 0, 0)
            yield
        self.commit()
