"""The balloon inside the guest: taking pages and giving them back, batch by batch.

``fill_balloon`` and ``leak_balloon`` of every kernel in one, told apart by traits. The
order of events is the same in all of them: allocate a batch, send it, wait until the
device has used the buffer. Pages leave last in, first out.
"""

from __future__ import annotations

from typing import Final

from balloon_plugin.guests.channel import Channel
from balloon_plugin.guests.kernel import Kernel
from balloon_plugin.guests.steps import Steps
from balloon_plugin.guests.traits import GuestProfile
from balloon_plugin.guests.transport import Transport
from balloon_plugin.guests.wire import encode, pack
from balloon_plugin.layouts import PAGE_SIZE, Feature, Queue

__all__ = ["Balloon"]

RETRY: Final = 0.2
"""Seconds that a driver sleeps when no page is free, before it sends what it has."""


class Balloon:
    """What one driver has in its balloon, and its two queues.

    :param profile: how the driver behaves, and on what CPU.
    :param kernel: gives and takes frames.
    :param transport: the bus to the device.
    :param first_batch: most frames that the first inflation can get, or ``None``.

    :ivar wake_at: when the driver wakes from its sleep, or ``None`` if it does not
        sleep.
    """

    _inflate: Channel
    _deflate: Channel

    def __init__(
        self,
        profile: GuestProfile,
        kernel: Kernel,
        transport: Transport,
        first_batch: int | None,
    ) -> None:
        self.wake_at: float | None = None
        self._profile = profile
        self._traits = profile.driver
        self._kernel = kernel
        self._transport = transport
        self._first_batch = first_batch
        self._frames: list[int] = []
        pieces = profile.page_size // PAGE_SIZE
        self._unit = 1 if self._traits.counts_guest_pages else pieces
        self._order = profile.byte_order
        self._hasty = False

    def connect(self, accepted: int) -> None:
        """Set up the queues, with these features; do it before all else."""
        modern = bool(accepted & Feature.VIRTIO_F_VERSION_1.mask)
        self._order = self._profile.pfn_order(modern=modern)
        tells_first = accepted & Feature.VIRTIO_BALLOON_F_MUST_TELL_HOST.mask
        self._hasty = self._traits.release_before_tell and not tells_first
        room = len(self._packed([0] * -(-self._traits.batch // self._unit)))
        ring_order = self._profile.ring_order(modern=modern)
        self._inflate, self._deflate = (
            Channel(self._transport, self._kernel, index, ring_order, room)
            for index in (Queue.INFLATEQ, Queue.DEFLATEQ)
        )

    @property
    def size(self) -> int:
        """What the driver believes is in the balloon, in the units that it counts."""
        return len(self._frames) * self._unit

    @property
    def frames(self) -> int:
        """How many frames are in the balloon."""
        return len(self._frames)

    @property
    def buffers(self) -> int:
        """How many buffers were sent."""
        return self._inflate.sent + self._deflate.sent

    def fill(self, wanted: int) -> Steps[int]:
        """Take at most a batch of the units wanted; return how many were taken.

        A frame is never split, so that a target within a frame is overshot.
        """
        frames: list[int] = []
        limit, self._first_batch = self._first_batch, None
        while len(frames) * self._unit < min(wanted, self._traits.batch):
            frame = None if len(frames) == limit else self._kernel.allocate()
            if frame is None:
                yield from self._sleep()
                break
            frames.append(frame)
        self._frames += frames
        if frames:
            yield from self._inflate.tell(self._packed(frames))
        return len(frames) * self._unit

    def leak(self, wanted: int) -> Steps[int]:
        """Give back at most a batch of the units wanted; return how many were."""
        count = -(-min(wanted, self._traits.batch, self.size) // self._unit)
        if not count:
            return 0
        frames = [self._frames.pop() for _ in range(count)]
        # Without MUST_TELL_HOST kernels to 2.6.37 and RHEL 6 free first (VB:148-154).
        if self._hasty:
            self._release(frames)
        yield from self._deflate.tell(self._packed(frames))
        if not self._hasty:
            self._release(frames)
        return count * self._unit

    def _release(self, frames: list[int]) -> None:
        """Free frames, or what 2.6.29-3.3 take for them (3.3.8 VB:129,139)."""
        for frame in self._numbers(frames) if self._traits.frees_by_wire else frames:
            self._kernel.free(frame)

    def _sleep(self) -> Steps[None]:
        self.wake_at = self._transport.now() + RETRY
        while self._transport.now() < self.wake_at:
            yield False
        self.wake_at = None

    def _numbers(self, frames: list[int]) -> list[int]:
        return encode(frames, self._traits.pfn_form, self._profile.page_size)

    def _packed(self, frames: list[int]) -> bytes:
        return pack(self._numbers(frames), self._traits.pfn_size, self._order)
