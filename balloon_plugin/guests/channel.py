"""One virtqueue as the balloon driver uses it: send a buffer, wait until it is used."""

from __future__ import annotations

from balloon_plugin.events import ByteOrder
from balloon_plugin.guests.kernel import Kernel
from balloon_plugin.guests.ring import Ring
from balloon_plugin.guests.steps import Steps
from balloon_plugin.guests.transport import Transport

__all__ = ["Channel"]


class Channel:
    """A started queue with one buffer of its own.

    :param transport: the bus to the device.
    :param kernel: gives the memory.
    :param index: the queue's number.
    :param order: byte order of the ring.
    :param room: bytes that the buffer holds.

    :ivar sent: how many buffers were sent.
    """

    def __init__(
        self,
        transport: Transport,
        kernel: Kernel,
        index: int,
        order: ByteOrder,
        room: int,
    ) -> None:
        self.sent = 0
        self._transport = transport
        self._ram = kernel.ram
        self._index = index
        size = transport.queue_size(index)
        self._buffer = kernel.claim(room)
        start = kernel.claim(Ring.bytes_for(size), kernel.queue_align)
        self._ring = Ring(kernel.ram, start, size, order)
        ring = self._ring
        transport.start_queue(index, size, ring.desc, ring.avail, ring.used)

    def send(self, data: bytes) -> None:
        """Send the buffer with ``data`` in it."""
        self._ram.write(self._buffer, data)
        self.sent += 1
        if self._ring.post(self._buffer, len(data)):
            self._transport.kick(self._index)

    def returned(self) -> bool:
        """Return whether an interrupt came for a buffer that the device has used."""
        return self._transport.take_queue_interrupt(self._index) and bool(
            self._ring.reap()
        )

    def tell(self, data: bytes) -> Steps[None]:
        """Send ``data`` and wait until it was used, for ever (``tell_host``)."""
        self.send(data)
        yield True
        while not self.returned():
            yield False
