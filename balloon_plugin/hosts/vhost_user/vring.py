"""One queue of a front end: its descriptors, and where it stands when it is stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from balloon_plugin.hosts.vhost_user import doorbells
from balloon_plugin.hosts.vhost_user.effects import Notifier
from balloon_plugin.hosts.vhost_user.files import RefusalError
from balloon_plugin.hosts.vhost_user.mapping import MappedMemory
from balloon_plugin.layouts import (
    VRING_PACKED_DESC,
    VRING_PACKED_DESC_EVENT,
    VRING_USED,
    VRING_USED_ELEM,
)
from balloon_plugin.virtqueue import Queue, Ring, open_queue

__all__ = ["Vring", "in_guest"]


class Vring:
    """One queue: its descriptors, and the ring while it runs."""

    def __init__(self) -> None:
        self.queue: Queue | None = None
        self.fds: dict[Notifier, int] = {}
        self._base = 0
        self.ring: Ring | None = None
        """As the front end described it, if it runs."""
        self.log: int | None = None
        """Where in the log what is written to the used ring is marked."""

    @property
    def base(self) -> int:
        """Where the queue stands."""
        return self._base if self.queue is None else self.queue.base

    @base.setter
    def base(self, base: int) -> None:
        self._base = base

    def start(
        self, ring: Ring, memory: MappedMemory, record: memoryview | None = None
    ) -> None:
        """Serve the ring of a queue that is stopped, from where it stands.

        :param record: where to record what is in flight.
        :raises RefusalError: if it is not in guest memory.
        """
        self.ring = ring
        there = in_guest(ring, memory)
        queue = open_queue(memory.guest, there, self._base, record)
        if queue.broken is not None:
            raise RefusalError(queue.broken)
        self.queue = queue

    def stop(self) -> None:
        """Serve the ring no more."""
        self.suspend()
        self.ring = None

    def suspend(self) -> None:
        """Let go of guest memory, which is about to change."""
        if self.queue is not None:
            self._base = self.queue.base
            self.queue.release()
            self.queue = None

    def written(self) -> Iterator[tuple[int, int]]:
        """Yield what may have been written to, as address and size in the log."""
        if self.queue is None or self.ring is None or self.log is None:
            return
        size = self.ring.size
        if self.ring.packed:
            yield self.log, VRING_PACKED_DESC_EVENT.size
            yield self.queue.desc, size * VRING_PACKED_DESC.size
        else:
            # After the entries, where the driver is to notify from.
            yield self.log, VRING_USED.size + size * VRING_USED_ELEM.size + 2

    def set_fd(self, notifier: Notifier, fd: int | None) -> None:
        """Own a descriptor, or none, in place of the one before."""
        old = self.fds.pop(notifier, None)
        if old is not None:
            os.close(old)
        if fd is not None:
            doorbells.check(fd)
            self.fds[notifier] = fd

    def notify(self, notifier: Notifier) -> None:
        """Write to a descriptor, if there is one; without, the front end polls."""
        fd = self.fds.get(notifier)
        if fd is not None:
            doorbells.post(fd)


def in_guest(ring: Ring, memory: MappedMemory) -> Ring:
    """Return a ring by its guest-physical addresses.

    :raises RefusalError: if it is not in guest memory.
    """
    return replace(
        ring,
        desc=memory.to_guest(ring.desc),
        avail=memory.to_guest(ring.avail),
        used=memory.to_guest(ring.used),
    )
