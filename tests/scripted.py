"""A device that believes everything, and a guest in front of it.

The device shows the targets of a script, one after the other, and writes down what the
driver does, as bytes on the wire. It knows no policy and no rules, so that what a test
sees is the driver's doing alone.
"""

from __future__ import annotations

import dataclasses
import struct

from balloon_plugin.events import ByteOrder
from balloon_plugin.guests.guest import Guest
from balloon_plugin.guests.profiles import find
from balloon_plugin.guests.traits import Allocation, Conditions
from balloon_plugin.hosts.simulated import Setup, SimulatedHost

RFC = (16, 0)
"""The targets of the 2012 patch: a probe of 16 pages, and back to 0."""

SIDE_BY_SIDE = Conditions(allocation=Allocation.CONTIGUOUS)
"""Pages from number 1024 on, as where they come from does not matter to most tests."""

QUEUES = {0: "I", 1: "D", 2: "S"}


class ScriptedDevice:
    """A balloon without a mind of its own.

    :param targets: what to advertise; the next one after each write of ``actual``'s
        last byte, the last one for ever.
    :param features: of the device type, on offer.
    :param discards: whether to give back every page whose number it is told.
    :param answers: whether to return buffers.

    :ivar wire: (what, bytes) in order: ``R`` a read and ``W`` a write of one field, in
        one or four accesses; ``I``, ``D`` and ``S`` a buffer in a queue; ``RESET``,
        ``ACK`` and ``OK``.
    :ivar accesses: (offset, bytes) of each single access to configuration.
    """

    def __init__(self, *targets, features=0, discards=False, answers=True):
        self.targets = list(targets)
        self.features = features
        self.discards = discards
        self.answers = answers
        self.wire = []
        self.accesses = []
        self.space = bytearray(16)
        self.host = None
        self.ticks = 0
        self.unrealized = 0
        self.kept = []

    # --- hooks ---

    def realize(self, host):
        self.host = host

    def unrealize(self):
        self.unrealized += 1

    def reset(self):
        self.wire.append(("RESET", b""))
        self.space = bytearray(16)

    def tick(self):
        self.ticks += 1

    def get_features(self):
        return self.features

    def set_features(self, features):
        self.wire.append(("ACK", features.to_bytes(8, "little")))

    def driver_ready(self):
        self.wire.append(("OK", b""))

    def get_config(self, offset, size):
        struct.pack_into("<I", self.space, 0, self.targets[0])
        data = bytes(self.space[offset : offset + size])
        self._note("R", offset, data)
        return data

    def set_config(self, offset, data):
        self.space[offset : offset + len(data)] = data
        self._note("W", offset, data)
        if offset <= 7 < offset + len(data):
            self.next_target()

    def queue_notify(self, index):
        queue = self.host.queue(index)
        chains = queue.pop(16)
        for chain in chains:
            data = b"".join(self.host.memory.read(*part) for part in chain.readable)
            self.wire.append((QUEUES[index], data))
            if index == 0 and self.discards:
                self.discard(words(data, queue.byte_order))
        if index == 2 or not self.answers:
            self.kept += [(index, chain) for chain in chains]
        elif chains:
            queue.push(chains)
            self.host.notify_queue(index)
        return False

    # --- what a test does ---

    def next_target(self):
        """Advertise the next target; a driver that looks again sees it."""
        if len(self.targets) > 1:
            self.targets.pop(0)

    def show(self, *targets):
        """Advertise another target, and say so."""
        self.targets = list(targets)
        self.host.notify_config()

    def return_kept(self):
        """Return the buffers that were kept."""
        for index, chain in self.kept:
            self.host.queue(index).push([chain])
            self.host.notify_queue(index)
        self.kept.clear()

    def discard(self, pfns):
        """Give pages back to the host, as far as there are such pages."""
        start = self.host.setup.ram_start // 4096
        end = start + self.host.setup.ram_size // 4096
        inside = sorted({pfn for pfn in pfns if start <= pfn < end})
        self.host.discard([(pfn, 1) for pfn in inside])

    def _note(self, what, offset, data):
        self.accesses.append((offset, data))
        if self.wire and self.wire[-1][0] == what and offset % 4 and len(data) == 1:
            _, before = self.wire.pop()
            data = before + data
        self.wire.append((what, data))

    @property
    def trace(self):
        """What the driver did since it was there, without negotiation."""
        return [entry for entry in self.wire if entry[0] not in ("RESET", "ACK", "OK")]

    def buffers(self, what):
        """Return the data of all buffers of a queue."""
        return [data for kind, data in self.wire if kind == what]


def words(data, order=ByteOrder.LITTLE):
    """Return the 32-bit words in a buffer."""
    mark = "<" if order is ByteOrder.LITTLE else ">"
    return list(struct.unpack(f"{mark}{len(data) // 4}I", data))


def profile(name, *, driver=(), **changes):
    """Return a guest profile with other traits than its own."""
    known = find(name)
    traits = dataclasses.replace(known.driver, **dict(driver))
    return dataclasses.replace(known, driver=traits, **changes)


def boot(guest, device, conditions=None, **setup):
    """Boot a guest in front of a device; return both the guest and the host."""
    known = find(guest) if isinstance(guest, str) else guest
    host = SimulatedHost(
        device,
        Setup(
            byte_order=known.byte_order,
            legacy=not known.modern,
            ram_start=known.ram_start,
            **setup,
        ),
    )
    return Guest(known, host, conditions or SIDE_BY_SIDE), host
