"""The balloon inside the guest: taking pages and giving them back, batch by batch.

``fill_balloon`` and ``leak_balloon`` of every kernel in one, told apart by traits. The
order of events is the same in all of them: allocate a batch, send it, wait until the
device has used the buffer.
"""

from __future__ import annotations

from collections.abc import Callable

from balloon_plugin.guests.channel import Channel
from balloon_plugin.guests.kernel import Kernel
from balloon_plugin.guests.lies import Liar
from balloon_plugin.guests.steps import Steps
from balloon_plugin.guests.traits import Conditions, GuestProfile, Lie
from balloon_plugin.guests.transport import Transport
from balloon_plugin.guests.wire import encode, pack
from balloon_plugin.layouts import PAGE_SIZE, Feature, Queue

__all__ = ["Balloon"]


class Balloon:
    """What one driver has in its balloon, and its two queues.

    :param profile: how the driver behaves, and on what CPU.
    :param kernel: gives and takes frames.
    :param transport: the bus to the device.
    :param conditions: how much memory there is to be had.

    :ivar wake_at: when the driver wakes from its sleep, or ``None`` if it does not
        sleep.
    :ivar most: how many frames can be in it at most, as long as memory is short, or
        ``None``.
    :ivar starved: whether the last batch was not to be had in full.
    """

    _inflate: Channel
    _deflate: Channel

    def __init__(
        self,
        profile: GuestProfile,
        kernel: Kernel,
        transport: Transport,
        conditions: Conditions,
    ) -> None:
        self.wake_at: float | None = None
        self.starved = False
        self._profile = profile
        self._traits = profile.driver
        self._kernel = kernel
        self._transport = transport
        self._first_batch = conditions.first_batch
        self.most = conditions.most
        self._frames: list[int] = []
        self._batches: list[int] = []
        pieces = profile.page_size // PAGE_SIZE
        self._unit = 1 if self._traits.counts_guest_pages else pieces
        self._order = profile.byte_order
        self._hasty = False
        self._numbers: Callable[[list[int]], list[int]] = self._encode
        if self._traits.lie is not Lie.NONE:
            self._numbers = Liar(self._traits.lie, kernel.ram).numbers
        self._buffer: list[int] = []

    def connect(self, accepted: int) -> None:
        """Set up the queues, with these features; do it before all else."""
        modern = bool(accepted & Feature.VIRTIO_F_VERSION_1.mask)
        self._order = self._profile.pfn_order(modern=modern)
        tells_first = accepted & Feature.VIRTIO_BALLOON_F_MUST_TELL_HOST.mask
        self._hasty = self._traits.release_before_tell and not tells_first
        entries = len(self._encode([0] * -(-self._traits.batch // self._unit)))
        self._buffer = [0] * entries if self._traits.full_buffers else []
        form = self._profile.ring_form(accepted)
        self._inflate, self._deflate = (
            Channel(
                self._transport,
                self._kernel,
                index,
                form,
                entries * self._traits.pfn_size,
            )
            for index in (Queue.INFLATEQ, Queue.DEFLATEQ)
        )

    @property
    def size(self) -> int:
        """What is in the balloon, in the units that the driver counts."""
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
        count = -(-min(wanted, self._traits.batch) // self._unit)
        frames = self._take(count)
        self.starved = len(frames) < count
        # msleep(200) before what was got is sent; the BSDs send first.
        if self.starved and self._traits.retry and not self._traits.sends_first:
            yield from self.sleep(self._traits.retry)
        if frames:
            self._frames += frames
            self._batches.append(len(frames))
            yield from self._inflate.tell(self._packed(frames))
        return len(frames) * self._unit

    def leak(self, wanted: int) -> Steps[int]:
        """Give back at most a batch of the units wanted; return how many were."""
        count = -(-min(wanted, self._traits.batch, self.size) // self._unit)
        if count and self._traits.whole_batches:
            count = self._batches.pop()
        if not count:
            return 0
        frames = self._give(count)
        # Without MUST_TELL_HOST kernels to 2.6.37 and RHEL 6 free first (VB:148-154).
        if self._hasty:
            self._release(frames)
        yield from self._deflate.tell(self._packed(frames))
        if not self._hasty:
            self._release(frames)
        return count * self._unit

    def exchange(self) -> Steps[None]:
        """Give a page back for another one, which comes first.

        Balloon compaction (3.19.12 VB:420-461, ``virtballoon_migratepage``).
        """
        fresh = self._kernel.allocate(1)
        if not self._frames or not fresh:
            self._kernel.free(fresh)
            return
        old = self._frames.pop(0)
        self._frames += fresh
        yield from self._inflate.tell(self._packed(fresh))
        yield from self._deflate.tell(self._packed([old]))
        self._kernel.free([old])

    def sleep(self, seconds: float) -> Steps[None]:
        """Do nothing for a while."""
        self.wake_at = self._transport.now() + seconds
        while self._transport.now() < self.wake_at:
            yield False
        self.wake_at = None

    def _take(self, count: int) -> list[int]:
        """Return as many free frames as are to be had."""
        most = count if self._first_batch is None else min(count, self._first_batch)
        self._first_batch = None
        if self.most is not None:
            most = min(most, max(0, self.most - len(self._frames)))
        if self._traits.all_or_nothing and most < count:
            return []
        frames = self._kernel.allocate(most)
        if self._traits.all_or_nothing and len(frames) < count:
            self._kernel.free(frames)
            return []
        return frames

    def _give(self, count: int) -> list[int]:
        """Return frames to be given back: Linux takes those that came last."""
        if self._traits.fifo:
            frames, self._frames = self._frames[:count], self._frames[count:]
            return frames
        return [self._frames.pop() for _ in range(count)]

    def _release(self, frames: list[int]) -> None:
        """Free frames, or what 2.6.29-3.3 take for them (3.3.8 VB:129,139)."""
        self._kernel.free(
            self._encode(frames) if self._traits.frees_by_wire else frames
        )

    def _encode(self, frames: list[int]) -> list[int]:
        return encode(frames, self._traits.pfn_form, self._profile.page_size)

    def _packed(self, frames: list[int]) -> bytes:
        numbers = self._numbers(frames)
        if self._buffer:
            self._buffer[: len(numbers)] = numbers
            numbers = self._buffer
        return pack(numbers, self._traits.pfn_size, self._order)
