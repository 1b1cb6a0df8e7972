"""A whole machine under test, whose guest is written in raw bytes.

The device is the real one, its host the simulated one, the memory is memory. Only the
driver is a test's own: it may do what no driver would.
"""

from __future__ import annotations

import struct

from fakes import Recorder
from ring import DriverRing, PackedDriverRing

from balloon_plugin import make_device
from balloon_plugin.events import ByteOrder, GuestFault
from balloon_plugin.features import DeviceOptions
from balloon_plugin.hosts.simulated import Setup, SimulatedHost
from balloon_plugin.virtqueue import RING_FEATURES

PAGE = 4096
VERSION_1, INDIRECT_DESC, EVENT_IDX, PACKED = 1 << 32, 1 << 28, 1 << 29, 1 << 34
STATS_VQ, STATSQ = 1 << 1, 2
RAM_SIZE = 16 << 20
OUTSIDE = RAM_SIZE
BUFFERS = 0x4_0000
FIRST_PAGE = 0x200
"""The first page that is the balloon's: the rest is rings and buffers."""

SIZE = 8
_QUEUE_BYTES = 0x4000


class RawGuest:
    """A guest with rings, which does nothing by itself.

    :param features: that its driver accepts.
    :param order: of its CPU.
    :ivar rings: the driver's end of each queue.
    """

    def __init__(
        self, features=VERSION_1, *, order=ByteOrder.LITTLE, policy="none", **options
    ):
        self.features = features
        self.recorder = Recorder()
        self.device = make_device(
            policy, observers=[self.recorder], options=DeviceOptions(**options)
        )
        modern = bool(features & VERSION_1)
        self.order = ByteOrder.LITTLE if modern else order
        setup = Setup(
            ram_size=RAM_SIZE,
            byte_order=order,
            legacy=not modern,
            queue_size=SIZE,
            ring_features=RING_FEATURES,
        )
        self.host = SimulatedHost(self.device, setup)
        self._next_buffer = BUFFERS
        self.rings = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for ring in self.rings:
            ring.ram.release()
        self.host.close()

    # --- life ---

    def accept(self):
        """Negotiate."""
        self.host.accept_features(self.features)
        return self

    def start_queues(self):
        """Lay out all queues that there are."""
        kind = PackedDriverRing if self.features & PACKED else DriverRing
        for index in range(5):
            if self.host.queue_size(index):
                at = 0x1000 + index * _QUEUE_BYTES
                self.host.ram[at : at + _QUEUE_BYTES] = bytes(_QUEUE_BYTES)
                ring = kind(self.host.ram, SIZE, self.order, start=at)
                self.rings.append(ring)
                place = ring.desc, ring.avail, ring.used
                self.host.start_queue(index, SIZE, *place)
        return self

    def started(self):
        """Do all that a driver does up to DRIVER_OK."""
        self.accept().start_queues()
        self.host.device_ready()
        return self

    # --- buffers ---

    def place(self, data):
        """Put bytes somewhere; return their address."""
        at, self._next_buffer = self._next_buffer, self._next_buffer + len(data)
        self.host.ram[at : at + len(data)] = data
        return at

    def pfns(self, *numbers):
        """Return page numbers as they are in a buffer."""
        mark = "<" if self.order is ByteOrder.LITTLE else ">"
        return struct.pack(f"{mark}{len(numbers)}I", *numbers)

    def offer(self, *elements, queue=0, head=0):
        """Make a chain of (address, length, flags) available."""
        ring = self.rings[queue]
        if isinstance(ring, PackedDriverRing):
            ring.offer(head, *elements)
            return
        last = len(elements) - 1
        for step, (address, length, flags) in enumerate(elements):
            more = 1 if step < last else 0
            ring.describe(head + step, address, length, flags | more, head + step + 1)
        ring.offer(head)

    def kick(self, queue=0):
        """Kick; return the heads of what came back."""
        self.host.kick(queue)
        return [head for head, _ in self.rings[queue].returned()]

    def send(self, data, queue=0, flags=0):
        """Send a buffer; return whether it came back."""
        self.offer((self.place(data), len(data), flags), queue=queue)
        return self.kick(queue) == [0]

    def inflate(self, *numbers):
        """Send page numbers; return whether the buffer came back."""
        return self.send(self.pfns(*numbers))

    # --- what came of it ---

    @property
    def status(self):
        return self.device.query()

    @property
    def faults(self):
        """What the driver did wrong, in sentences."""
        return [event.what for event in self.recorder.of(GuestFault)]

    def touched(self, *numbers):
        """Put marks on pages; return a function that tells which still have theirs."""
        for number in numbers:
            self.host.ram[number * PAGE] = 0xA5
        return lambda: [n for n in numbers if self.host.ram[n * PAGE] == 0xA5]
