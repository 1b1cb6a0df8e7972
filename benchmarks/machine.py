"""A machine to measure on: RAM in a shared memfd, real rings, the daemon's own host.

The guest writes to RAM through a mapping of its own, as it would in another process.
So its page tables, not the device's, hold the pages that a discard has to find.
"""

from __future__ import annotations

import mmap
import os
import struct

from balloon_plugin import make_device
from balloon_plugin.events import ByteOrder, Judgement
from balloon_plugin.features import DeviceOptions, queues
from balloon_plugin.hosts.vhost_user.effects import Notifier
from balloon_plugin.hosts.vhost_user.host import SlotHost
from balloon_plugin.hosts.vhost_user.payloads import Region
from balloon_plugin.virtqueue import Ring

PAGE = 4096
QUEUE_SIZE = 128
QUEUES = 5
"""As many as a balloon can have."""

BATCH = 256
"""Page numbers in one buffer, as many as Linux sends."""

_DESC, _AVAIL, _USED = 0x1000, 0x1800, 0x2000
_BETWEEN_QUEUES = 0x2000
_BUFFERS = 0x10000
FIRST_PAGE = 256
"""Below it are rings and buffers, above it the pages that go into the balloon."""

VERSION_1, INDIRECT, EVENT_IDX, PACKED = 1 << 32, 1 << 28, 1 << 29, 1 << 34
START = 0, 0x8000_8000
"""Where a new queue starts, split or packed."""

_F_AVAIL, _F_USED = 1 << 7, 1 << 15
_NEXT, _WRITE = 1, 2


class Driver:
    """The guest's side: rings and pages in a mapping of RAM, written as raw bytes.

    :param ram: the mapping.
    :param base: guest-physical address of its first byte.
    """

    def __init__(self, ram, base=0):
        self.base = base
        self._ram = ram
        self._offered = [0] * QUEUES

    def ring(self, queue):
        """Return the addresses of a queue's descriptors, available and used ring."""
        at = self.base + queue * _BETWEEN_QUEUES
        return at + _DESC, at + _AVAIL, at + _USED

    def offer(self, batches, queue=0):
        """Make a buffer of each batch of page numbers available, all in one update."""
        buffers = []
        for head, pfns in enumerate(batches):
            at = _BUFFERS + head * 4 * BATCH
            size = 4 * len(pfns)
            self._ram[at : at + size] = struct.pack(f"<{len(pfns)}I", *pfns)
            buffers.append((self.base + at, size))
        self._publish(buffers, queue)

    def _publish(self, buffers, queue):
        desc, avail, _ = (at - self.base for at in self.ring(queue))
        for head, (at, size) in enumerate(buffers):
            struct.pack_into("<QIHH", self._ram, desc + 16 * head, at, size, 0, 0)
            place = (self._offered[queue] + head) % QUEUE_SIZE
            struct.pack_into("<H", self._ram, avail + 4 + 2 * place, head)
        self._offered[queue] = (self._offered[queue] + len(buffers)) & 0xFFFF
        struct.pack_into("<H", self._ram, avail + 2, self._offered[queue])

    def answered(self, queue=0):
        """Return whether all buffers of a queue came back."""
        used = self.ring(queue)[2] - self.base
        (index,) = struct.unpack_from("<H", self._ram, used + 2)
        return index == self._offered[queue]

    def send(self, data, queue):
        """Make a buffer with these bytes available."""
        self._ram[_BUFFERS : _BUFFERS + len(data)] = data
        self._publish([(self.base + _BUFFERS, len(data))], queue)

    def lend(self, ranges, queue):
        """Make a buffer available whose parts the device may write to.

        :param ranges: (first page, pages) each.
        """
        desc = self.ring(queue)[0] - self.base
        parts = [(first * PAGE, count * PAGE) for first, count in ranges]
        self._publish(parts[:1], queue)
        for place, (address, size) in enumerate(parts):
            more = place + 1 < len(parts)
            struct.pack_into(
                "<QIHH",
                self._ram,
                desc + 16 * place,
                *(address, size, _WRITE | (_NEXT if more else 0), place + 1),
            )

    def populate(self, pfns):
        """Write to pages, so that they exist."""
        first = self.base // PAGE
        for pfn in pfns:
            self._ram[(pfn - first) * PAGE] = 1


class PackedDriver(Driver):
    """The same with packed rings."""

    def _publish(self, buffers, queue):
        desc = self.ring(queue)[0] - self.base
        for ident, (at, size) in enumerate(buffers):
            place, flags = self._next(queue, ident)
            struct.pack_into(
                "<QIHH", self._ram, desc + 16 * place, at, size, ident, flags
            )
        self._offered[queue] += len(buffers)

    def answered(self, queue=0):
        """Return whether all buffers of a queue came back."""
        place, flags = self._next(queue, -1)
        desc = self.ring(queue)[0] - self.base
        (found,) = struct.unpack_from("<H", self._ram, desc + 16 * place + 14)
        return found & (_F_AVAIL | _F_USED) == (_F_AVAIL | _F_USED) * bool(
            flags & _F_AVAIL
        )

    def _next(self, queue, ahead):
        """Return where a descriptor goes, and what marks it available."""
        laps, place = divmod(self._offered[queue] + ahead, QUEUE_SIZE)
        return place, _F_USED if laps % 2 else _F_AVAIL


class Machine:
    """A device on the daemon's host, with a front end that is only RAM and queues.

    :param policy: its name with its options.
    :param pages: pages for the balloon, from :data:`FIRST_PAGE` on.
    :param features: of the rings.
    :param options: which features of a balloon are offered.

    :ivar turns: how many the last kick took.
    """

    def __init__(self, policy, pages, features=INDIRECT, **options):
        size = (FIRST_PAGE + pages) * PAGE
        self.turns = 0
        self.fd = os.memfd_create("ram")
        os.ftruncate(self.fd, size)
        self.ram = mmap.mmap(self.fd, size)
        self.driver = (PackedDriver if features & PACKED else Driver)(self.ram)
        self.host = SlotHost("bench", ByteOrder.LITTLE, None)
        self.host.mapped.replace([Region(0, size, 0, 0)], [os.dup(self.fd)])
        self.device = make_device(policy, options=DeviceOptions(**options))
        self.device.realize(self.host)
        for queue in range(len(queues(self.device.get_features()))):
            parts = self.driver.ring(queue)
            ring = Ring(QUEUE_SIZE, *parts, features, ByteOrder.LITTLE)
            self.host.vrings[queue].base = START[bool(features & PACKED)]
            self.host.vrings[queue].start(ring, self.host.mapped)
            call = os.eventfd(0, os.EFD_NONBLOCK)
            self.host.vrings[queue].set_fd(Notifier.CALL, call)

    def serve(self, queue):
        """Let the device serve a queue, in as many turns as it takes."""
        self.turns = 1
        while self.device.queue_notify(queue):
            self.turns += 1

    def inflate(self, batches):
        """Put pages into the balloon, in one kick."""
        self.driver.offer(batches)
        self.serve(0)

    def deflate(self, batches):
        """Take pages out of it again, in one kick."""
        self.driver.offer(batches, 1)
        self.serve(1)

    def target(self):
        """Return the target that the driver reads."""
        return int.from_bytes(self.device.get_config(0, 4), "little")

    def write_actual(self, actual):
        """Let the driver say how many pages there are in its balloon."""
        self.device.set_config(4, actual.to_bytes(4, "little"))

    def close(self):
        """Give everything back."""
        self.device.unrealize()
        self.host.disconnect()
        self.ram.close()
        os.close(self.fd)


POLICIES = "none", "evidence, probed", "evidence, proved"
"""What the driver was believed by: nothing, what it did, or the features it took."""


def believed(policy, pages, features=INDIRECT):
    """Return a machine whose driver is believed, and asked for all that there is.

    :param policy: one of :data:`POLICIES`.
    :param features: of the rings.
    """
    name, _, how = policy.partition(", ")
    machine = Machine(name, pages, features)
    machine.device.set_features(INDIRECT if how == "probed" else VERSION_1)
    machine.device.driver_ready()
    if how == "probed":
        _follow_probe(machine)
    machine.device.set_target(pages - 1)
    assert machine.device.query().verdict.judgement is Judgement.GOOD
    return machine


def _follow_probe(machine):
    """Let a right driver with 4 KiB pages do what it is asked, and then be empty."""
    inside = 0
    for _ in range(8):
        target = min(machine.target(), BATCH)
        low, high = sorted((inside, target))
        batch = range(FIRST_PAGE + low, FIRST_PAGE + high)
        if target > inside:
            machine.inflate([batch])
        elif target < inside:
            machine.deflate([batch])
        inside = target
        machine.write_actual(inside)
