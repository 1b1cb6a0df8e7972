"""One virtqueue as the balloon driver uses it: send a buffer, wait until it is used."""

from __future__ import annotations

from collections.abc import Sequence

from balloon_plugin.errors import HostError
from balloon_plugin.guests.form import RingForm
from balloon_plugin.guests.kernel import Kernel
from balloon_plugin.guests.packed_ring import PackedRing
from balloon_plugin.guests.ring import SplitRing
from balloon_plugin.guests.steps import Steps
from balloon_plugin.guests.transport import Transport

__all__ = ["Channel"]


class Channel:
    """A started queue with one buffer of its own.

    :param transport: the bus to the device.
    :param kernel: gives the memory.
    :param index: the queue's number.
    :param form: of the ring.
    :param room: bytes that the buffer holds.
    :raises HostError: if the transport has no such queue.

    :ivar sent: how many buffers were sent.
    :ivar size: entries of the ring.
    """

    def __init__(
        self,
        transport: Transport,
        kernel: Kernel,
        index: int,
        form: RingForm,
        room: int,
    ) -> None:
        self.sent = 0
        self._transport = transport
        self._ram = kernel.ram
        self._index = index
        self.size = size = transport.queue_size(index)
        if not size:
            raise HostError(
                f"the driver finds no queue {index}: let queue_size tell of all that "
                "features.queues(offered) has"
            )
        self._buffer = kernel.claim(room)
        kind = PackedRing if form.packed else SplitRing
        start = kernel.claim(kind.bytes_for(size), kernel.queue_align)
        self._ring = ring = kind(kernel.ram, start, size, form)
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

    def lend(self, blocks: Sequence[tuple[int, int]]) -> Steps[None]:
        """Send (address, bytes) for the device to write to; wait until all came back.

        :param blocks: no more than the ring has entries.
        """
        kicks = [self._ring.post(*block, writable=True) for block in blocks]
        if any(kicks):
            self._transport.kick(self._index)
        yield True
        left = len(blocks)
        while left:
            if self._transport.take_queue_interrupt(self._index):
                left -= self._ring.reap()
            else:
                yield False

    def tell(self, data: bytes) -> Steps[None]:
        """Send ``data`` and wait until it was used, for ever (``tell_host``)."""
        self.send(data)
        yield True
        while not self.returned():
            yield False
