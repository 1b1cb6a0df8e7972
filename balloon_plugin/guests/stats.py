"""The driver's statistics queue: one buffer, which the device keeps until it asks.

A request for statistics is the return of the buffer; the driver sends it again with new
numbers in it. Values are plausible and nothing more.
"""

from __future__ import annotations

from balloon_plugin.guests.channel import Channel
from balloon_plugin.guests.form import RingForm
from balloon_plugin.guests.kernel import Kernel
from balloon_plugin.guests.transport import Transport
from balloon_plugin.layouts import PAGE_SIZE, VIRTIO_BALLOON_STAT, Queue, StatTag

__all__ = ["Stats"]

_ROOM = VIRTIO_BALLOON_STAT.size * len(StatTag)


class Stats:
    """The statistics of one driver.

    :param transport: the bus to the device.
    :param kernel: whose memory it is about.
    :param form: of the queue, in whose byte order the statistics are as well.
    """

    def __init__(self, transport: Transport, kernel: Kernel, form: RingForm) -> None:
        self._kernel = kernel
        self._order = form.order
        self._channel = Channel(transport, kernel, Queue.STATSQ, form, _ROOM)
        self._asked = False

    def asked(self) -> bool:
        """Return whether the device wants statistics."""
        self._asked = self._asked or self._channel.returned()
        return self._asked

    def answer(self) -> None:
        """Send statistics."""
        self._asked = False
        pack = VIRTIO_BALLOON_STAT.of(self._order).pack
        self._channel.send(b"".join(pack(*stat) for stat in self._values()))

    def prime_with_garbage(self) -> None:
        """Send the first buffer with whatever was in that memory before."""
        self._channel.send(b"\xa5" * VIRTIO_BALLOON_STAT.size)

    def _values(self) -> list[tuple[int, int]]:
        total = (self._kernel.ram.pages - self._kernel.ballooned) * PAGE_SIZE
        return [
            (StatTag.VIRTIO_BALLOON_S_MEMFREE, total // 2),
            (StatTag.VIRTIO_BALLOON_S_MEMTOT, total),
        ]
