"""The Host of one slot: what its device sees of the front end behind the socket.

Knows mapped memory, queues and file descriptors to write to; knows no messages. It
lives as long as the device. Between two front ends there is no memory and no queue.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence

from balloon_plugin.events import ByteOrder, GuestFacts, Run
from balloon_plugin.hookspecs import VirtQueue
from balloon_plugin.hosts.vhost_user.clock import Clock
from balloon_plugin.hosts.vhost_user.dirty import DirtyLog
from balloon_plugin.hosts.vhost_user.effects import Notifier
from balloon_plugin.hosts.vhost_user.files import RefusalError
from balloon_plugin.hosts.vhost_user.mapping import MappedMemory
from balloon_plugin.hosts.vhost_user.parked import COUNTED
from balloon_plugin.hosts.vhost_user.rings import MAX_QUEUES
from balloon_plugin.hosts.vhost_user.told import Told
from balloon_plugin.hosts.vhost_user.tracking import InflightBuffer
from balloon_plugin.hosts.vhost_user.vring import Vring, in_guest
from balloon_plugin.layouts import PAGE_SIZE, Queue
from balloon_plugin.memory import GuestMemory
from balloon_plugin.virtqueue import Ring, find_base

__all__ = ["SlotHost"]

_log = logging.getLogger(__name__)


class SlotHost:
    """Implements :class:`balloon_plugin.hookspecs.Host`.

    :param name: of the slot, for log messages.
    :param byte_order: of the guest's CPU, if the user told.
    :param page_size: of the guest's kernel, if the user told.
    """

    def __init__(
        self, name: str, byte_order: ByteOrder | None, page_size: int | None
    ) -> None:
        self.name = name
        self.byte_order = byte_order
        self._page_size = page_size
        self.mapped = MappedMemory()
        self.log = DirtyLog()
        self.inflight = InflightBuffer()
        self.vrings = [Vring() for _ in range(MAX_QUEUES)]
        self.front_end_byte_order: ByteOrder | None = None
        """Of the guest's CPU, if the front end let know."""
        self._clock = Clock()
        self._config_changed = False
        self.on_config_change: Callable[[], None] | None = None
        """Called to announce a change of the configuration space."""
        self.on_needs_reset: Callable[[], None] | None = None
        """Called when the device is lost until reset."""
        self.on_push: Callable[[int, int], None] | None = None
        """Called with a queue and how many of its buffers are about to be returned."""

    # --- the Host protocol ----------------------------------------------------------

    @property
    def torn(self) -> bool:
        """Whether the front end took away memory that was in use."""
        return self.mapped.torn or self.log.torn or self.inflight.torn

    @property
    def memory(self) -> GuestMemory:
        """The guest's memory as it is now; none without a front end."""
        return self.mapped.guest

    @property
    def facts(self) -> GuestFacts:
        """What is known of the guest."""
        return GuestFacts(
            ram=self.memory.ranges,
            byte_order=self.front_end_byte_order or self.byte_order,
            page_size=self._page_size,
            host_page_size=self.mapped.host_page_size,
        )

    def queue(self, index: int) -> VirtQueue | None:
        """Return queue ``index`` while it runs."""
        queue = self.vrings[index].queue if index < MAX_QUEUES else None
        tell = self.on_push if index in COUNTED else None
        if queue is None or not (tell or self.log.active):
            return queue
        return Told(
            queue,
            before=functools.partial(tell or _nobody, index),
            after=functools.partial(self.mark_ring, index),
        )

    def discard(self, runs: Sequence[Run]) -> int:
        """Give pages back to the operating system."""
        given = self.mapped.discard(runs)
        if self.log.discards:
            # They are zeros now, which the other machine has not got.
            for first, count in runs:
                self.log.mark(first * PAGE_SIZE, count * PAGE_SIZE)
        return given

    def notify_queue(self, index: int) -> None:
        """Send the driver a used-buffer notification."""
        self.vrings[index].notify(Notifier.CALL)

    def notify_config(self) -> None:
        """Send the driver a config interrupt, if the front end can carry it.

        It waits for the inflate queue to run: QEMU's generic device, up to 11 at least,
        ends with a segmentation fault if it is told while no driver has started it, or
        the machine is paused (``vub_config_notifier``: ``dev->vdev`` is null then). The
        first queue is the first that QEMU stops, and the first that it starts.
        """
        self._config_changed = True
        self._announce()

    def _announce(self) -> None:
        runs = self.vrings[Queue.INFLATEQ].queue is not None
        if self._config_changed and runs and self.on_config_change is not None:
            self._config_changed = False
            self.on_config_change()

    def needs_reset(self) -> None:
        """Tell that the device is lost until reset, in every way that there is."""
        _log.warning("%s: the driver broke a queue; it has to reset it", self.name)
        for vring in self.vrings:
            vring.notify(Notifier.ERR)
        if self.on_needs_reset is not None:
            self.on_needs_reset()
        # VIRTIO 1.3 §2.1.2: MUST send a device configuration change notification.
        self.notify_config()

    def now(self) -> float:
        """Return a monotonic time in seconds, without pauses of the machine."""
        return self._clock.now()

    # --- what the connection does ---------------------------------------------------

    def mark_ring(self, index: int) -> None:
        """Mark what was written to a ring in the log, if the front end wants it."""
        for address, size in self.vrings[index].written():
            self.log.mark(address, size)

    def suspend(self) -> None:
        """Let queues go of guest memory, which is about to change."""
        for vring in self.vrings:
            vring.suspend()

    def start(self, index: int, ring: Ring) -> None:
        """Serve a queue.

        :raises RefusalError: if it is not in guest memory, or cannot be recorded.
        """
        record = self.inflight.record(index, ring)
        self.vrings[index].start(ring, self.mapped, record)
        if index == Queue.INFLATEQ:
            self._clock.go_on()
            self._announce()

    def stop_queue(self, index: int) -> None:
        """Serve a queue no more, until it starts again."""
        self.vrings[index].stop()
        if index == Queue.INFLATEQ:
            self._clock.stop()

    def resume(self) -> None:
        """Let queues that run go on in guest memory as it is now.

        :raises RefusalError: if one of them is not there any more.
        """
        # Sentences only: an error would hold on to views of what is to be unmapped.
        problems = []
        for index, vring in enumerate(self.vrings):
            try:
                if vring.ring is not None:
                    self.start(index, vring.ring)
            except RefusalError as error:
                problems.append(str(error))
        if problems:
            raise RefusalError(problems[0])

    def stand(self, index: int, ring: Ring | None) -> int:
        """Return where a queue stands that is about to start.

        :param ring: the queue's, if it is known yet.
        """
        base = self.vrings[index].base
        if ring is None:
            return base
        try:
            record = self.inflight.record(index, ring)
            there = in_guest(ring, self.mapped)
            return find_base(self.mapped.guest, there, base, record)
        except RefusalError:
            return base  # it is going to be refused when it starts

    def stop(self) -> None:
        """Serve no queue any more; leave what is in flight to a successor."""
        for vring in self.vrings:
            vring.stop()
        self.inflight.close()

    def disconnect(self) -> None:
        """Let go of everything that a front end gave."""
        self.stop()
        for index, vring in enumerate(self.vrings):
            for notifier in Notifier:
                vring.set_fd(notifier, None)
            self.vrings[index] = Vring()
        self._clock.go_on()
        self.mapped.clear()
        self.log.close()
        self.front_end_byte_order = None
        self._config_changed = False
        self.on_config_change = self.on_needs_reset = self.on_push = None


def _nobody(_index: int, _count: int) -> None:
    """Is told of buffers that are about to be returned, and does not mind."""
